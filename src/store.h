/*-------------------------------------------------------------------------
 *
 * store.h
 *		The way to the rows of upload_session: find one, lock it, write it
 *		back.
 *
 * The caller's rights apply throughout.  What is returned is allocated in the
 * caller's memory context, and a Session stays good until store_close().
 *
 * Locks are taken on one session at a time; a caller that needs several
 * locks them in the order of their upload_id.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_STORE_H
#define VALI_BLOB_STORE_H

#include "executor/tuptable.h"
#include "storage/lockdefs.h"
#include "utils/array.h"
#include "utils/portal.h"
#include "utils/relcache.h"

#include "session.h"

typedef enum LockWait
{
	LOCK_WAIT,					/* for as long as it takes */
	LOCK_NOWAIT					/* not at all */
} LockWait;

typedef enum LockResult
{
	LOCK_TAKEN,
	LOCK_MISSING,				/* there is no such row to lock */
	LOCK_HELD					/* by somebody else */
} LockResult;

/* One visit to the table. */
typedef struct Store
{
	bool		connected;		/* to SPI */
	Relation	rel;			/* NULL where only SQL will do */
	TupleTableSlot *found;		/* the row that the direct way has found */
	bool		is_locked;		/* it is locked, and not written since */
	TupleTableSlot *written;	/* its new version */
} Store;

extern void store_open(Store *store, LOCKMODE lockmode);
extern void store_use_sql(Store *store);
extern void store_close(Store *store);

/* Find a session as the calling query sees it, or as it is right now. */
extern bool store_read(Store *store, const text *upload_id, Session *session);
extern bool store_read_latest(Store *store, const text *upload_id,
							  Session *session);

/* Find a session and lock it; the Session is its newest version. */
extern LockResult store_lock(Store *store, const text *upload_id,
							 LockWait wait, Session *session);

/* Write a new session, a changed one back, or an old one off. */
extern void store_insert(Store *store, Session *session);
extern void store_write(Store *store, Session *session);
extern void store_delete(Store *store, const Session *session);

/* The row of a session, as stored. */
extern Datum store_row(Store *store, const Session *session);

/*
 * Between spi_open() and spi_close(): sessions of one status whose expires_at
 * lies between two moments, the longest overdue first, each locked as it is
 * fetched; locked ones and those with the given ids are left out.
 */
extern Portal store_open_due(SessionStatus status, TimestampTz from,
							 TimestampTz until, ArrayType *except, int64 limit);

/* Fetch the next session from a cursor, on rows of upload_session; false when there is none left. */
extern bool store_fetch(Portal portal, Session *session);

#endif							/* VALI_BLOB_STORE_H */
