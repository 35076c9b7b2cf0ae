/*-------------------------------------------------------------------------
 *
 * store.h
 *		Access to the rows of upload_session: find, lock, write.
 *
 * The caller's privileges apply.  Results are allocated in the caller's memory
 * context, and a Session is valid until store_close().
 *
 * One session is locked at a time.  A caller that needs several locks them in
 * the order of their upload_id (COLLATE "C"), so that no two of them can
 * deadlock.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_STORE_H
#define VALI_BLOB_STORE_H

#include "nodes/execnodes.h"
#include "storage/lockdefs.h"
#include "utils/portal.h"

#include "session.h"

/* A handle for access to the table */
typedef struct Store Store;

extern Store *store_open(LOCKMODE lockmode);
extern void store_use_sql(Store *store);
extern void store_close(Store *store);

/* Find a session as the calling query sees it, or as it is right now. */
extern bool store_read(Store *store, const text *upload_id, Session *session);
extern bool store_read_latest(Store *store, const text *upload_id,
							  Session *session);

/* Is a session there now, even if this transaction does not see it? */
extern bool store_exists(Store *store, const text *upload_id);

/* Find a session and lock it; the Session is its newest version. */
extern LockResult store_lock(Store *store, const text *upload_id,
							 LockWait wait, Session *session);

/*
 * May several changes of the session locked last be written as one?  Only if a
 * write runs no code of a user, which could see each of them.  Each of them must
 * be one that the table would accept.
 */
extern bool store_can_combine(const Store *store);
extern bool store_accepts(Store *store, const Session *session);

/* Insert, update or delete a session; the latter two are locked. */
extern void store_insert(Store *store, Session *session);
extern bool is_duplicate_upload_id(const ErrorData *error);
extern void store_update(Store *store, Session *session);
extern void store_delete(Store *store, const Session *session);

/* Return the row of a session that was read, locked or written last. */
extern Datum store_row(Store *store, const Session *session);

/* Put the row of a session that was read into a result, with that status. */
extern void store_put_row(Store *store, ReturnSetInfo *rsinfo,
						  const Session *session, SessionStatus status);

/* Fetch a session from a cursor on rows of upload_session; false at its end. */
extern bool store_fetch(Portal portal, Session *session);

#endif							/* VALI_BLOB_STORE_H */
