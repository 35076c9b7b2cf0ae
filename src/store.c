/*-------------------------------------------------------------------------
 *
 * store.c
 *		Access to the rows of upload_session: chooses the access path.
 *
 * The fast path (store_direct.c) serves a plain table.  It may decline any
 * operation, which is then done through SQL (store_sql.c), whatever the table
 * has become.  So a row that the fast path cannot see is never reported as
 * missing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "arguments.h"
#include "catalog.h"
#include "compat.h"
#include "errors.h"
#include "row.h"
#include "statement.h"
#include "store.h"
#include "store_internal.h"

/* Open the table, with the lock that SQL of that kind would take. */
Store *
store_open(LOCKMODE lockmode)
{
	Store	   *store = palloc0(sizeof(Store));

	direct_open(store, lockmode);
	return store;
}

/* Close the table; the lock on it stays until the end of the transaction. */
void
store_close(Store *store)
{
	if (store->connected)
		spi_close();
	direct_close(store);
	pfree(store);
}

/* Connect to SPI until store_close(), unless that was done before. */
void
store_use_sql(Store *store)
{
	if (!store->connected)
		spi_open();
	store->connected = true;
	/* what is done through SQL may change the row that was found */
	store->is_locked = false;
}

/* Find a session as the calling query sees it. */
bool
store_read(Store *store, const text *upload_id, Session *session)
{
	if (direct_read(store, upload_id, session))
		return true;
	store_use_sql(store);
	return sql_read(upload_id, false, session);
}

/* Find a session as it is right now. */
bool
store_read_latest(Store *store, const text *upload_id, Session *session)
{
	store_use_sql(store);
	return sql_read(upload_id, true, session);
}

/* Is a session there now, whatever the isolation level? */
bool
store_exists(Store *store, const text *upload_id)
{
	store_use_sql(store);
	return sql_exists(upload_id);
}

/* Find a session and lock it. */
LockResult
store_lock(Store *store, const text *upload_id, LockWait wait, Session *session)
{
	if (direct_lock(store, upload_id, wait, session))
		return LOCK_TAKEN;
	store_use_sql(store);
	return sql_lock(upload_id, wait, session);
}

/* May several changes of the session locked last be written as one? */
bool
store_can_combine(const Store *store)
{
	/* the fast path requires that the table has no triggers */
	return direct_can_combine(store);
}

/* Would the table accept a change that is not written? */
bool
store_accepts(Store *store, const Session *session)
{
	return direct_accepts(store, session);
}

/*
 * Is an error about a duplicate upload_id?  In partitions, or in shards, the
 * constraint has another name; the columns of the key are in the detail, if the
 * user may see it.
 */
bool
is_duplicate_upload_id(const ErrorData *error)
{
	const char *key = error->detail == NULL ? NULL : strchr(error->detail, '(');

	if (error->sqlerrcode != ERRCODE_UNIQUE_VIOLATION)
		return false;
	if (key != NULL)
		return strncmp(key, "(upload_id)=(", strlen("(upload_id)=(")) == 0;
	return error->constraint_name != NULL &&
		strcmp(error->constraint_name, "upload_session_pkey") == 0;
}

/* Is the value that is too long for an index in one of our own indexes? */
static bool
is_own_index_full(const ErrorData *error, const Session *session)
{
	if (error->table_name != NULL && error->constraint_name != NULL &&
		strcmp(error->table_name, table_name(TABLE_SESSION)) == 0)
		return strcmp(error->constraint_name, "upload_session_path_idx") == 0 ||
			strcmp(error->constraint_name, "upload_session_owner_idx") == 0;

	/*
	 * In partitions the indexes have other names, and the error of a value that
	 * does not even fit into a tuple names none.
	 */
	return VARSIZE_ANY_EXHDR(session->path) > INDEXABLE_BYTES ||
		(session->owner != NULL &&
		 VARSIZE_ANY_EXHDR(session->owner) > INDEXABLE_BYTES);
}

/*
 * Report the error of an INSERT: a duplicate key, and a value that is too long
 * for an index, as what it means to the caller, all others as they are.
 */
pg_noreturn static void
report_insert_error(MemoryContext context, const Session *session)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();

	/* raised anew, since the context of the original shows our statement */
	if (is_duplicate_upload_id(error))
	{
		FlushErrorState();
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("upload \"%s\" already exists",
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
				 errdetail("The limit of an index was exceeded: %s.", error->message),
				 errhint("Values of up to %d bytes always fit; longer ones only if they can be compressed.",
						 INDEXABLE_BYTES)));
	}
	PG_RE_THROW();
}

/* Insert a session; it becomes the row as stored. */
void
store_insert(Store *store, Session *session)
{
	MemoryContext context = CurrentMemoryContext;

	/* a former try may have left one */
	session->id = new_row_id(TABLE_SESSION);
	PG_TRY();
	{
		if (!direct_insert(store, session))
		{
			store_use_sql(store);
			sql_insert(session);
		}
	}
	PG_CATCH();
	{
		report_insert_error(context, session);
	}
	PG_END_TRY();
}

/* Write the changed columns of a session; it becomes the row as stored. */
void
store_update(Store *store, Session *session)
{
	Assert(session->changed != 0);
	if (!direct_update(store, session))
	{
		store_use_sql(store);
		sql_update(session);
	}
}

/* Delete a session. */
void
store_delete(Store *store, const Session *session)
{
	store_use_sql(store);
	sql_delete(session);
}

/* Return the row of a session, as stored. */
Datum
store_row(Store *store, const Session *session)
{
	/* only SQL has it as a composite value already */
	Assert(session->row != (Datum) 0 || store->rel != NULL);
	return session->row != (Datum) 0 ? session->row : direct_row(store);
}

/* Put the row of a session that was read into a result. */
void
store_put_row(Store *store, ReturnSetInfo *rsinfo, const Session *session,
			  SessionStatus status)
{
	if (session->row != (Datum) 0)
		put_session(rsinfo, session, status);
	else
		put_slot(rsinfo, store->found, session, status);
}

/* Fetch the next session from a cursor. */
bool
store_fetch(Portal portal, Session *session)
{
	return statement_fetch(portal) && sql_fetch_row(session);
}
