/*-------------------------------------------------------------------------
 *
 * store_direct.h
 *		The way to the rows of upload_session through the table access
 *		method, for store.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_STORE_DIRECT_H
#define VALI_BLOB_STORE_DIRECT_H

#include "store.h"

extern void direct_open(Store *store, LOCKMODE lockmode);
extern void direct_close(Store *store);

/* Each is false where it has done nothing, and SQL must. */
extern bool direct_read(Store *store, const text *upload_id, Session *session);
extern bool direct_lock(Store *store, const text *upload_id, LockWait wait,
						Session *session);
extern bool direct_write(Store *store, Session *session);

extern Datum direct_row(Store *store);

#endif							/* VALI_BLOB_STORE_DIRECT_H */
