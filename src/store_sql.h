/*-------------------------------------------------------------------------
 *
 * store_sql.h
 *		The way to the rows of upload_session through SQL, for store.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_STORE_SQL_H
#define VALI_BLOB_STORE_SQL_H

#include "store.h"

extern bool sql_read(const text *upload_id, bool latest, Session *session);
extern LockResult sql_lock(const text *upload_id, LockWait wait,
						   Session *session);
extern void sql_insert(Session *session);
extern void sql_write(Session *session);
extern void sql_delete(const Session *session);

#endif							/* VALI_BLOB_STORE_SQL_H */
