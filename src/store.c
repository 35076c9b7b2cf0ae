/*-------------------------------------------------------------------------
 *
 * store.c
 *		The way to the rows of upload_session: chooses between SQL and the
 *		table access method.
 *
 * The direct way (store_direct.c) serves an ordinary table.  It may always
 * pass: what it does not find or does not want to write goes through SQL
 * (store_sql.c), which works on whatever the table has become.  So a row that
 * the direct way cannot see is never reported as missing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "statement.h"
#include "store.h"
#include "store_direct.h"
#include "store_sql.h"

/* Begin a visit; the lock on the table is as for SQL of that kind. */
void
store_open(Store *store, LOCKMODE lockmode)
{
	memset(store, 0, sizeof(Store));
	direct_open(store, lockmode);
}

/* End a visit; the lock on the table stays. */
void
store_close(Store *store)
{
	if (store->connected)
		spi_close();
	direct_close(store);
}

/* Connect to SPI, unless that was done, until store_close(). */
void
store_use_sql(Store *store)
{
	if (!store->connected)
		spi_open();
	store->connected = true;
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

/* Find a session and lock it; the Session is its newest version. */
LockResult
store_lock(Store *store, const text *upload_id, LockWait wait, Session *session)
{
	if (direct_lock(store, upload_id, wait, session))
		return LOCK_TAKEN;
	store_use_sql(store);
	return sql_lock(upload_id, wait, session);
}

/* Insert a new session. */
void
store_insert(Store *store, Session *session)
{
	store_use_sql(store);
	sql_insert(session);
}

/* Write a changed session. */
void
store_write(Store *store, Session *session)
{
	if (!direct_write(store, session))
	{
		store_use_sql(store);
		sql_write(session);
	}
}

/* Delete a locked session. */
void
store_delete(Store *store, const Session *session)
{
	store_use_sql(store);
	sql_delete(session);
}

/* The row of a session, as stored. */
Datum
store_row(Store *store, const Session *session)
{
	return session->row != (Datum) 0 ? session->row : direct_row(store);
}
