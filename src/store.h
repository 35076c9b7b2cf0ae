/*-------------------------------------------------------------------------
 *
 * store.h
 *		The way to the rows of upload_session: find one, lock it, write it
 *		back.
 *
 * Between store_open() and store_close() the functions leave the caller's
 * memory context current, and allocate what they return in it.  The caller's
 * rights apply throughout.
 *
 * Locks are taken on one session at a time; a caller that needs several
 * locks them in the order of their upload_id.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_STORE_H
#define VALI_BLOB_STORE_H

#include "utils/array.h"
#include "utils/portal.h"

#include "session.h"

typedef enum LockWait
{
	LOCK_WAIT,					/* for as long as it takes */
	LOCK_SKIP					/* a locked row is not found */
} LockWait;

extern void store_open(void);
extern void store_close(void);

/* Find a session as the calling query sees it, or as it is right now. */
extern bool store_read(const text *upload_id, Session *session);
extern bool store_read_latest(const text *upload_id, Session *session);

/* Find a session and lock it; the Session is its newest version. */
extern bool store_lock(const text *upload_id, LockWait wait, Session *session);

extern void store_insert(Session *session);
extern void store_write(Session *session);
extern void store_delete(const Session *session);

/*
 * Sessions of one status whose expires_at lies between two moments, the
 * longest overdue first, each locked as it is fetched; locked ones and those
 * with the given ids are left out.
 */
extern Portal store_open_due(SessionStatus status, TimestampTz from,
							 TimestampTz until, ArrayType *except, int64 limit);

/* Fetch the next session from a cursor; false when there is none left. */
extern bool store_fetch(Portal portal, Session *session);

#endif							/* VALI_BLOB_STORE_H */
