/*-------------------------------------------------------------------------
 *
 * store_sql.c
 *		Access to the rows of upload_session through SQL.
 *
 * Rows are locked by one statement (SELECT ... FOR UPDATE), judged in C, and
 * written by a second one.  A single UPDATE could not keep the rules in one
 * place: its WHERE clause would have to repeat them, its row lock is weaker than
 * FOR UPDATE, and if it updates no row a second statement must find out why.
 *
 * An UPDATE names only the columns that have changed, so that privileges and
 * triggers on columns have their usual effect.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "catalog.h"
#include "errors.h"
#include "row.h"
#include "statement.h"
#include "store_internal.h"

#define SELECT_BY_UPLOAD_ID \
	"SELECT (this_session.*)::@.upload_session FROM @.upload_session AS this_session " \
	"WHERE this_session.upload_id OPERATOR(pg_catalog.=) $1"

static Statement read_one = {
	.text = SELECT_BY_UPLOAD_ID,
	.nargs = 1, .argtypes = {TEXTOID},
};

static Statement lock_one[] = {
	[LOCK_WAIT] = {
		.text = SELECT_BY_UPLOAD_ID " FOR UPDATE",
		.nargs = 1, .argtypes = {TEXTOID},
	},
	[LOCK_NOWAIT] = {
		.text = SELECT_BY_UPLOAD_ID " FOR UPDATE NOWAIT",
		.nargs = 1, .argtypes = {TEXTOID},
	},
	[LOCK_SKIP] = {
		.text = SELECT_BY_UPLOAD_ID " FOR UPDATE SKIP LOCKED",
		.nargs = 1, .argtypes = {TEXTOID},
	},
};

static Statement delete_one = {
	.text = "DELETE FROM @.upload_session AS this_session "
	"WHERE this_session.upload_id OPERATOR(pg_catalog.=) $1",
	.nargs = 1, .argtypes = {TEXTOID},
};

/* A statement that writes some columns, by these columns */
typedef struct WriteEntry
{
	ColumnSet	columns;
	Statement	statement;
} WriteEntry;

static HTAB *inserts = NULL;
static HTAB *updates = NULL;

/* Make a Session of the one row that a statement returned; false if none. */
bool
sql_fetch_row(Session *session)
{
	SPITupleTable *table = SPI_tuptable;
	bool		found = SPI_processed == 1;

	if (found)
	{
		bool		is_null;
		Datum		row = SPI_getbinval(table->vals[0], table->tupdesc, 1,
										&is_null);

		/* the row must outlive SPI's table */
		row_to_session(datumCopy(row, false, -1), session);
	}
	SPI_freetuptable(table);
	return found;
}

/* Find a session without locking it. */
bool
sql_read(const text *upload_id, bool latest, Session *session)
{
	Datum		value = PointerGetDatum(upload_id);

	/* read-only: with the calling query's snapshot */
	statement_run(&read_one, &value, NULL, !latest);
	return sql_fetch_row(session);
}

/* Is a session there now, whatever the isolation level? */
bool
sql_exists(const text *upload_id)
{
	Datum		value = PointerGetDatum(upload_id);
	bool		found;

	statement_run_latest(&read_one, &value, NULL);
	found = SPI_processed > 0;
	SPI_freetuptable(SPI_tuptable);
	return found;
}

/* A row to lock without waiting */
typedef struct LockTask
{
	const text *upload_id;
	Session    *session;
	bool		found;
} LockTask;

static void
lock_nowait(void *argument)
{
	LockTask   *task = argument;
	Datum		value = PointerGetDatum(task->upload_id);

	statement_run(&lock_one[LOCK_NOWAIT], &value, NULL, false);
	task->found = sql_fetch_row(task->session);
}

/* Find a session and lock it; the Session is its newest version. */
LockResult
sql_lock(const text *upload_id, LockWait wait, Session *session)
{
	LockTask	task = {.upload_id = upload_id, .session = session};
	Datum		value = PointerGetDatum(upload_id);

	if (wait == LOCK_NOWAIT)
	{
		/*
		 * That another transaction holds the row is told by the error of
		 * NOWAIT: a statement without it, such as SKIP LOCKED, cannot tell a
		 * row that is locked from one that does not exist.
		 */
		ErrorData  *error = in_subtransaction(lock_nowait, &task);

		if (error != NULL && error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
			return LOCK_HELD;
		if (error != NULL)
			ReThrowError(error);
	}
	else
	{
		statement_run(&lock_one[wait], &value, NULL, false);
		task.found = sql_fetch_row(session);
	}
	return task.found ? LOCK_TAKEN : LOCK_MISSING;
}

/*
 * Make a Session of the row that a write returned.  If there is none, nothing
 * was written, and nothing must be reported as done.
 */
static void
fetch_written_row(Session *session, const text *upload_id)
{
	if (!sql_fetch_row(session))
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("could not write upload \"%s\"", shown_text(upload_id)),
				 errdetail("A trigger, rule or row-level security policy on table \"%s\" suppressed the row.",
						   table_name(TABLE_SESSION))));
}

/* Find the statement that writes these columns, or make it. */
static Statement *
find_write(HTAB **writes, ColumnSet columns,
		   void (*make) (Statement *statement, ColumnSet columns))
{
	WriteEntry *entry;
	bool		found;

	if (*writes == NULL)
	{
		HASHCTL		control = {
			.keysize = sizeof(ColumnSet),
			.entrysize = sizeof(WriteEntry),
			.hcxt = TopMemoryContext,
		};

		*writes = hash_create("vali_blob statements", 16, &control,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	entry = hash_search(*writes, &columns, HASH_ENTER, &found);
	if (!found)
		memset(&entry->statement, 0, sizeof(Statement));
	/* also if it was entered, but making it has failed */
	if (entry->statement.text == NULL)
		make(&entry->statement, columns);
	return &entry->statement;
}

/* Make the statement that inserts a session with these columns. */
static void
make_insert(Statement *insert, ColumnSet set)
{
	StringInfoData names;
	StringInfoData values;

	initStringInfo(&names);
	initStringInfo(&values);
	insert->nargs = 0;
	for (SessionColumn column = 0; column < COLUMN_COUNT; column++)
	{
		if ((set & COLUMN_BIT(column)) == 0)
			continue;
		insert->argtypes[insert->nargs++] = column_argtype(column);
		appendStringInfo(&names, "%s%s", insert->nargs > 1 ? ", " : "",
						 column_name(column));
		appendStringInfo(&values, "%s$%d", insert->nargs > 1 ? ", " : "",
						 insert->nargs);
	}
	insert->text = MemoryContextStrdup(TopMemoryContext,
									   psprintf("INSERT INTO @.upload_session (%s) VALUES (%s)",
												names.data, values.data));
	insert->returns_row = true;
	insert->table = TABLE_SESSION;
}

/* Insert a session; it becomes the row as stored. */
void
sql_insert(Session *session)
{
	ColumnSet	set = inserted_columns(session);
	Statement  *insert = find_write(&inserts, set, make_insert);
	const text *upload_id = session->upload_id;
	Datum		values[STATEMENT_MAX_ARGS];
	bool		nulls[STATEMENT_MAX_ARGS];

	session_values(session, set, values, nulls);
	statement_run(insert, values, nulls, false);
	fetch_written_row(session, upload_id);
}

/* Make the statement that updates some columns. */
static void
make_update(Statement *update, ColumnSet columns)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfoString(&text, "UPDATE @.upload_session AS this_session SET ");
	update->argtypes[0] = TEXTOID;
	update->nargs = 1;
	for (SessionColumn column = 0; column < COLUMN_COUNT; column++)
	{
		if ((columns & COLUMN_BIT(column)) == 0)
			continue;
		update->argtypes[update->nargs++] = column_argtype(column);
		appendStringInfo(&text, "%s%s = $%d", update->nargs > 2 ? ", " : "",
						 column_name(column), update->nargs);
	}
	appendStringInfoString(&text,
						   " WHERE this_session.upload_id OPERATOR(pg_catalog.=) $1");
	update->text = MemoryContextStrdup(TopMemoryContext, text.data);
	update->returns_row = true;
	update->table = TABLE_SESSION;
}

/* Write the changed columns of a session; it becomes the row as stored. */
void
sql_update(Session *session)
{
	Statement  *update = find_write(&updates, session->changed, make_update);
	const text *upload_id = session->upload_id;
	Datum		values[STATEMENT_MAX_ARGS];
	bool		nulls[STATEMENT_MAX_ARGS];
	int			nargs PG_USED_FOR_ASSERTS_ONLY;

	/* the key comes first */
	values[0] = session_value(session, COLUMN_UPLOAD_ID, &nulls[0]);
	nargs = 1 + session_values(session, session->changed, &values[1], &nulls[1]);
	Assert(nargs == update->nargs);
	statement_run(update, values, nulls, false);
	fetch_written_row(session, upload_id);
}

/* Delete a session. */
void
sql_delete(const Session *session)
{
	Datum		value = PointerGetDatum(session->upload_id);

	statement_run(&delete_one, &value, NULL, false);
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("could not delete upload \"%s\"",
						shown_text(session->upload_id)),
				 errdetail("A trigger, rule or row-level security policy on table \"%s\" suppressed the deletion.",
						   table_name(TABLE_SESSION))));
}
