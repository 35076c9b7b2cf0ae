/*-------------------------------------------------------------------------
 *
 * statement.c
 *		SQL statements whose plans are kept for the life of the backend, and
 *		other uses of SPI.
 *
 * SPI leaves its own, short-lived memory context current after each of its
 * calls.  Here the caller's stays current, so that what our functions allocate
 * outlives them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "catalog.h"
#include "statement.h"

/*
 * Check that a relation is a table, and that it and its children belong to a role:
 * what reads them as that role must not meet the expressions of another one.
 */
void
check_table_owner(Relation rel, Oid owner)
{
	ListCell   *cell;

	if (rel->rd_rel->relkind != RELKIND_RELATION &&
		rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table", RelationGetRelationName(rel)),
				 errhint("Rename it, and give the name back to the table.")));
	if (rel->rd_rel->relowner == owner && !rel->rd_rel->relhassubclass)
		return;
	foreach(cell, find_all_inheritors(RelationGetRelid(rel), AccessShareLock, NULL))
	{
		Relation	child = table_open(lfirst_oid(cell), NoLock);

		if (child->rd_rel->relowner != owner)
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("table \"%s\" does not belong to the owner of table \"%s\"",
							RelationGetRelationName(child), RelationGetRelationName(rel)),
					 errhint("Make one role the owner of both, and of their children.")));
		table_close(child, NoLock);
	}
}

/*
 * Run what follows as the owner of a table, for what a client's privileges and
 * policies must not decide.  Index expressions, which even planning evaluates, must
 * not meet what the caller's search_path finds.
 */
CallerState
enter_owner(Oid owner)
{
	CallerState caller;

	caller.guc_level = NewGUCNestLevel();
	set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
					  PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	GetUserIdAndSecContext(&caller.user, &caller.security);
	SetUserIdAndSecContext(owner, caller.security |
						   SECURITY_RESTRICTED_OPERATION |
						   SECURITY_NOFORCE_RLS);
	return caller;
}

/* Go on as the caller. */
void
leave_owner(const CallerState *caller)
{
	SetUserIdAndSecContext(caller->user, caller->security);
	AtEOXact_GUC(false, caller->guc_level);
}

/* Connect to SPI, leaving the caller's memory context current. */
void
spi_open(void)
{
	MemoryContext caller = CurrentMemoryContext;

	SPI_connect();
	MemoryContextSwitchTo(caller);
}

/* Disconnect, leaving the caller's memory context current. */
void
spi_close(void)
{
	MemoryContext caller = CurrentMemoryContext;

	SPI_finish();
	MemoryContextSwitchTo(caller);
}

/*
 * Must an error end the transaction?  A query is canceled as a whole (if the
 * server does it; the code of a user may raise the same SQLSTATE), and after a
 * serialization failure only a new transaction can succeed.
 */
static bool
must_end_transaction(const ErrorData *error)
{
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		return error->funcname != NULL &&
			strcmp(error->funcname, "ProcessInterrupts") == 0;
	return error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE &&
		IsolationUsesXactSnapshot();
}

/*
 * Run a task in an internal subtransaction.  On error, roll it back and return
 * the error, in the caller's memory context; NULL on success.
 */
ErrorData *
in_subtransaction(void (*task) (void *), void *argument)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY();
	{
		task(argument);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);

		if (must_end_transaction(error))
			ReThrowError(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
	return error;
}

/*
 * Replace "@." in the text of a statement by a schema's name, which is quoted,
 * and a dot.
 */
char *
expand_schema(const char *text, const char *schema)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (const char *c = text; *c != '\0'; c++)
	{
		/* the dot itself is appended in the next turn */
		if (c[0] == '@' && c[1] == '.')
			appendStringInfoString(&buf, schema);
		else
			appendStringInfoChar(&buf, *c);
	}
	return buf.data;
}

/* Return the RETURNING clause for all columns of a table, as its row type. */
static char *
returning_clause(Oid row_type, const char *schema, const char *table)
{
	TupleDesc	desc = lookup_rowtype_tupdesc(row_type, -1);
	const char *separator = "";
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf, " RETURNING ROW(");
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped)
			continue;
		appendStringInfo(&buf, "%s%s", separator,
						 quote_identifier(NameStr(att->attname)));
		separator = ", ";
	}
	appendStringInfo(&buf, ")::%s.%s", schema, table);
	ReleaseTupleDesc(desc);
	return buf.data;
}

/*
 * Plan a statement, unless that was done for the objects as they are now.
 *
 * The plan is generic for one row that is found by a unique index: the values of
 * the arguments make no difference.
 */
static void
prepare(Statement *statement)
{
	const Catalog *catalog = catalog_get();
	uint64		generation = catalog->generation;
	Oid			argtypes[STATEMENT_MAX_ARGS];
	Oid			row_type = InvalidOid;
	uint64		row_version = 0;
	const char *returning;
	SPIPlanPtr	plan;
	char	   *sql;

	if (statement->returns_row)
	{
		row_type = get_rel_type_id(catalog->tables[statement->table]);
		row_version = assign_record_type_identifier(row_type, -1);
	}
	if (statement->plan != NULL && statement->generation == generation &&
		statement->row_version == row_version)
		return;

	/* the row type has a new version after each ANALYZE, with the same columns */
	returning = statement->returns_row ?
		returning_clause(row_type, catalog->schema, table_name(statement->table)) : "";
	if (statement->plan != NULL && statement->generation == generation &&
		strcmp(statement->returning, returning) == 0)
	{
		statement->row_version = row_version;
		return;
	}

	for (int i = 0; i < statement->nargs; i++)
		argtypes[i] = OidIsValid(statement->argtypes[i]) ?
			statement->argtypes[i] : catalog->status_type;
	sql = psprintf("%s%s", expand_schema(statement->text, catalog->schema),
				   returning);
	plan = SPI_prepare_cursor(sql, statement->nargs, argtypes,
							  statement->many_rows ? CURSOR_OPT_CUSTOM_PLAN :
							  CURSOR_OPT_GENERIC_PLAN);
	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare \"%s\": %s", sql,
			 SPI_result_code_string(SPI_result));

	/*
	 * A previous plan is not freed.  It may still be running, further up in the
	 * stack; and that the extension was dropped or renamed, or its tables altered,
	 * is rare.
	 */
	statement->plan = plan;
	/* as of before we planned: a change meanwhile must not be lost */
	statement->generation = generation;
	statement->row_version = row_version;
	statement->returning = MemoryContextStrdup(TopMemoryContext, returning);
}

/* Run a statement with a snapshot; InvalidSnapshot: the one that SPI takes. */
static void
run_with_snapshot(Statement *statement, const Datum *values, const bool *nulls,
				  Snapshot snapshot, bool read_only)
{
	MemoryContext caller = CurrentMemoryContext;
	char		spi_nulls[STATEMENT_MAX_ARGS];
	int			code;

	prepare(statement);
	for (int i = 0; i < statement->nargs; i++)
		spi_nulls[i] = nulls != NULL && nulls[i] ? 'n' : ' ';
	code = SPI_execute_snapshot(statement->plan, unconstify(Datum *, values),
								spi_nulls, snapshot, InvalidSnapshot, read_only,
								true, 0);
	if (code < 0)
		elog(ERROR, "could not run \"%s\": %s", statement->text,
			 SPI_result_code_string(code));
	MemoryContextSwitchTo(caller);
}

/* Run a statement; the result is in SPI_tuptable and SPI_processed. */
void
statement_run(Statement *statement, const Datum *values, const bool *nulls,
			  bool read_only)
{
	run_with_snapshot(statement, values, nulls, InvalidSnapshot, read_only);
}

/*
 * Run a statement that sees what is committed now, whatever the isolation level.
 */
void
statement_run_latest(Statement *statement, const Datum *values,
					 const bool *nulls)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

	run_with_snapshot(statement, values, nulls, snapshot, false);
	UnregisterSnapshot(snapshot);
}

/* Run a command that has no result, such as GRANT. */
void
spi_utility(const char *command)
{
	MemoryContext caller = CurrentMemoryContext;
	int			code = SPI_execute(command, false, 0);

	if (code != SPI_OK_UTILITY)
		elog(ERROR, "could not run \"%s\": %s", command,
			 SPI_result_code_string(code));
	MemoryContextSwitchTo(caller);
}

/* Open a cursor on a statement that takes no nulls. */
Portal
statement_open(Statement *statement, const Datum *values, bool read_only)
{
	MemoryContext caller = CurrentMemoryContext;
	Portal		portal;

	prepare(statement);
	portal = SPI_cursor_open(NULL, statement->plan, unconstify(Datum *, values),
							 NULL, read_only);
	MemoryContextSwitchTo(caller);
	return portal;
}

/* Fetch rows from a cursor into SPI_tuptable; returns how many there were. */
uint64
statement_fetch_many(Portal portal, int count)
{
	MemoryContext caller = CurrentMemoryContext;

	SPI_cursor_fetch(portal, true, count);
	MemoryContextSwitchTo(caller);
	return SPI_processed;
}

/* Fetch one row from a cursor into SPI_tuptable; false at the end. */
bool
statement_fetch(Portal portal)
{
	return statement_fetch_many(portal, 1) == 1;
}

/*
 * Fetch the key of one row from a SELECT_DUE cursor; false at the end.  Nulls are
 * possible only after somebody has dropped NOT NULL.
 */
bool
statement_fetch_due(Portal portal, DueKey *key)
{
	SPITupleTable *table;
	HeapTuple	row;
	bool		is_null;

	if (!statement_fetch(portal))
		return false;
	table = SPI_tuptable;
	row = table->vals[0];
	key->upload_id = heap_attisnull(row, 1, NULL) ? NULL :
		DatumGetTextPCopy(SPI_getbinval(row, table->tupdesc, 1, &is_null));
	key->due_at =
		DatumGetTimestampTz(SPI_getbinval(row, table->tupdesc, 2, &is_null));
	key->id = heap_attisnull(row, 3, NULL) ? PG_INT64_MAX :
		DatumGetInt64(SPI_getbinval(row, table->tupdesc, 3, &is_null));
	SPI_freetuptable(table);
	return true;
}
