/*-------------------------------------------------------------------------
 *
 * store_sql.c
 *		The way to the rows of upload_session through SQL.
 *
 * Rows are locked by one statement (SELECT ... FOR UPDATE), judged in C, and
 * written by a second one.  A single UPDATE could not keep the rules in one
 * place: its WHERE clause would have to repeat them, it locks less than FOR
 * UPDATE, and when it touches no row a second statement must find out why.
 *
 * A write names just the columns that have changed, so that privileges and
 * triggers on columns mean what they say.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "errors.h"
#include "row.h"
#include "statement.h"
#include "store.h"
#include "store_sql.h"

/* What fits into an index tuple, however badly it compresses. */
#define INDEXABLE_BYTES 2600

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
};

static Statement lock_due = {
	.text = "SELECT (this_session.*)::@.upload_session FROM @.upload_session AS this_session "
	"WHERE this_session.status OPERATOR(pg_catalog.=) $1 "
	"AND this_session.expires_at OPERATOR(pg_catalog.>=) $2 "
	"AND this_session.expires_at OPERATOR(pg_catalog.<=) $3 "
	"AND this_session.id OPERATOR(pg_catalog.<>) ALL ($4) "
	"ORDER BY this_session.expires_at LIMIT $5 "
	"FOR UPDATE SKIP LOCKED",
	.nargs = 5,
	.argtypes = {InvalidOid, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8ARRAYOID, INT8OID},
};

static Statement insert_one = {
	.text = "INSERT INTO @.upload_session AS this_session "
	"(upload_id, owner, bucket, path, content_type, total_size, metadata, "
	"provider_data, ttl, created_at, updated_at, expires_at) "
	"VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) "
	"RETURNING (this_session.*)::@.upload_session",
	.nargs = 12,
	.argtypes = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT8OID, JSONBOID,
	JSONBOID, INTERVALOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID},
};

/* The columns that insert_one takes, in its order. */
static const SessionColumn inserted[] = {
	COLUMN_UPLOAD_ID, COLUMN_OWNER, COLUMN_BUCKET, COLUMN_PATH,
	COLUMN_CONTENT_TYPE, COLUMN_TOTAL_SIZE, COLUMN_METADATA,
	COLUMN_PROVIDER_DATA, COLUMN_TTL, COLUMN_CREATED_AT, COLUMN_UPDATED_AT,
	COLUMN_EXPIRES_AT
};

static Statement delete_one = {
	.text = "DELETE FROM @.upload_session AS this_session "
	"WHERE this_session.upload_id OPERATOR(pg_catalog.=) $1",
	.nargs = 1, .argtypes = {TEXTOID},
};

/* Take over the one row that a statement gave, if it gave one. */
static bool
take_row(Session *session)
{
	SPITupleTable *table = SPI_tuptable;
	bool		found = SPI_processed == 1;

	if (found)
	{
		bool		is_null;
		Datum		row = SPI_getbinval(table->vals[0], table->tupdesc, 1,
										&is_null);

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

	statement_run(&read_one, &value, NULL, !latest);
	return take_row(session);
}

/* A row to lock. */
typedef struct Locking
{
	const text *upload_id;
	LockWait	wait;
	Session    *session;
	bool		found;
} Locking;

/* Find a row and lock it, or fail. */
static void
lock_or_fail(void *argument)
{
	Locking    *locking = argument;
	Datum		value = PointerGetDatum(locking->upload_id);

	statement_run(&lock_one[locking->wait], &value, NULL, false);
	locking->found = take_row(locking->session);
}

/*
 * Find a session and lock it; the Session is its newest version.  That a row is
 * held by somebody else is told by the error that NOWAIT raises: any other
 * statement might see rows that this one may not.
 */
LockResult
sql_lock(const text *upload_id, LockWait wait, Session *session)
{
	Locking		locking = {upload_id, wait, session, false};

	if (wait == LOCK_NOWAIT)
	{
		ErrorData  *error = in_subtransaction(lock_or_fail, &locking);

		if (error != NULL && error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
			return LOCK_HELD;
		if (error != NULL)
			ReThrowError(error);
	}
	else
		lock_or_fail(&locking);
	return locking.found ? LOCK_TAKEN : LOCK_MISSING;
}

/*
 * Take over the row that a write gave.  If a trigger or a rule has swallowed
 * the write, nothing must be reported as done.
 */
static void
take_written(Session *session, const text *upload_id)
{
	if (!take_row(session))
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("upload \"%s\" was not written", shown_text(upload_id)),
				 errhint("A trigger, a rule or a policy on table upload_session suppressed the write.")));
}

/* Is a value too long for one of our own indexes, rather than another's? */
static bool
is_own_index_full(const ErrorData *error, const Session *session)
{
	/* what does not even make an index tuple is raised without a name */
	if (error->constraint_name == NULL)
		return VARSIZE_ANY_EXHDR(session->path) > INDEXABLE_BYTES ||
			(session->owner != NULL &&
			 VARSIZE_ANY_EXHDR(session->owner) > INDEXABLE_BYTES);
	return strcmp(error->constraint_name, "upload_session_path_idx") == 0 ||
		strcmp(error->constraint_name, "upload_session_owner_created_at_idx") == 0;
}

/*
 * Raise the error of an INSERT: a duplicate key or a value too long for an
 * index as what it means to the caller, all others as they are.  The former are
 * raised anew, since their context would show our statement.  How long is too
 * long depends on how well the value compresses.
 */
pg_noreturn static void
raise_insert_error(MemoryContext context, const Session *session)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	if (error->sqlerrcode == ERRCODE_UNIQUE_VIOLATION &&
		error->constraint_name != NULL &&
		strcmp(error->constraint_name, "upload_session_upload_id_key") == 0)
	{
		FlushErrorState();
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("upload \"%s\" exists already",
						shown_text(session->upload_id)),
				 error->detail == NULL ? 0 :
				 errdetail_internal("%s", error->detail),
				 errhint("Choose another upload_id, or leave it out to get a random one."),
				 err_generic_string(PG_DIAG_SCHEMA_NAME, error->schema_name),
				 err_generic_string(PG_DIAG_TABLE_NAME, error->table_name),
				 err_generic_string(PG_DIAG_CONSTRAINT_NAME,
									error->constraint_name)));
	}
	if (error->sqlerrcode == ERRCODE_PROGRAM_LIMIT_EXCEEDED &&
		is_own_index_full(error, session))
	{
		FlushErrorState();
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("path or owner of upload \"%s\" is too long for an index",
						shown_text(session->upload_id)),
				 errdetail_internal("%s", error->message),
				 errhint("Whatever fits into %d bytes can be indexed.",
						 INDEXABLE_BYTES)));
	}
	PG_RE_THROW();
}

/* Insert a new session; the Session becomes the row as stored. */
void
sql_insert(Session *session)
{
	MemoryContext context = CurrentMemoryContext;
	const text *upload_id = session->upload_id;
	Datum		values[lengthof(inserted)];
	bool		nulls[lengthof(inserted)];

	session_values(session, inserted, lengthof(inserted), values, nulls);
	PG_TRY();
	{
		statement_run(&insert_one, values, nulls, false);
	}
	PG_CATCH();
	{
		raise_insert_error(context, session);
	}
	PG_END_TRY();
	take_written(session, upload_id);
}

/* Make the statement that updates some columns. */
static void
make_update(Statement *update, uint32 columns)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf, "UPDATE @.upload_session AS this_session SET ");
	update->argtypes[0] = TEXTOID;
	update->nargs = 1;
	for (SessionColumn column = 0; column < COLUMN_COUNT; column++)
	{
		if ((columns & COLUMN_BIT(column)) == 0)
			continue;
		update->argtypes[update->nargs++] = column_type(column);
		appendStringInfo(&buf, "%s%s = $%d", update->nargs > 2 ? ", " : "",
						 column_name(column), update->nargs);
	}
	appendStringInfoString(&buf,
						   " WHERE this_session.upload_id OPERATOR(pg_catalog.=) $1"
						   " RETURNING (this_session.*)::@.upload_session");
	update->text = MemoryContextStrdup(TopMemoryContext, buf.data);
	pfree(buf.data);
}

/* Find the statement that updates these columns, or make it. */
static Statement *
find_update(uint32 columns)
{
	typedef struct UpdateEntry
	{
		uint32		columns;
		Statement	statement;
	} UpdateEntry;
	static HTAB *updates = NULL;
	UpdateEntry *entry;
	bool		found;

	if (updates == NULL)
	{
		HASHCTL		control = {
			.keysize = sizeof(uint32),
			.entrysize = sizeof(UpdateEntry),
			.hcxt = TopMemoryContext,
		};

		updates = hash_create("vali_blob updates", 16, &control,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	entry = hash_search(updates, &columns, HASH_ENTER, &found);
	if (!found)
		memset(&entry->statement, 0, sizeof(Statement));
	if (entry->statement.text == NULL)
		make_update(&entry->statement, columns);
	return &entry->statement;
}

/*
 * Write the changed columns of a locked session back; the Session becomes the
 * row as stored.
 */
void
sql_write(Session *session)
{
	Statement  *update = find_update(session->changed);
	const text *upload_id = session->upload_id;
	Datum		values[STATEMENT_MAX_ARGS];
	bool		nulls[STATEMENT_MAX_ARGS];
	int			n = 0;

	values[n] = session_value(session, COLUMN_UPLOAD_ID, &nulls[n]);
	n++;
	for (SessionColumn column = 0; column < COLUMN_COUNT; column++)
	{
		if ((session->changed & COLUMN_BIT(column)) != 0)
		{
			values[n] = session_value(session, column, &nulls[n]);
			n++;
		}
	}
	statement_run(update, values, nulls, false);
	take_written(session, upload_id);
}

/* Delete a locked session. */
void
sql_delete(const Session *session)
{
	Datum		value = PointerGetDatum(session->upload_id);

	statement_run(&delete_one, &value, NULL, false);
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("upload \"%s\" was not deleted",
						shown_text(session->upload_id)),
				 errhint("A trigger, a rule or a policy on table upload_session suppressed the deletion.")));
}

/* Begin to fetch overdue sessions. */
Portal
store_open_due(SessionStatus status, TimestampTz from, TimestampTz until,
			   ArrayType *except, int64 limit)
{
	Datum		values[] = {
		status_to_datum(status),
		TimestampTzGetDatum(from),
		TimestampTzGetDatum(until),
		PointerGetDatum(except),
		Int64GetDatum(limit),
	};

	return statement_open(&lock_due, values, false);
}

/* Fetch the next session from a cursor; false when there is none left. */
bool
store_fetch(Portal portal, Session *session)
{
	return statement_fetch(portal) && take_row(session);
}
