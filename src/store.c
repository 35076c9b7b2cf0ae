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

#include "catalog/pg_type.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "statement.h"
#include "store.h"
#include "store_internal.h"

static Statement select_due = {
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
store_can_combine_updates(const Store *store)
{
	/* the fast path requires that the table has no triggers */
	return store->is_locked;
}

/* Insert a session; it becomes the row as stored. */
void
store_insert(Store *store, Session *session)
{
	store_use_sql(store);
	sql_insert(session);
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

/* Open a cursor on overdue sessions. */
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

	return statement_open(&select_due, values, false);
}

/* Fetch the next session from a cursor. */
bool
store_fetch(Portal portal, Session *session)
{
	return statement_fetch(portal) && sql_fetch_row(session);
}
