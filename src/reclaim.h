/*-------------------------------------------------------------------------
 *
 * reclaim.h
 *		The queue of orphaned storage.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_RECLAIM_H
#define VALI_BLOB_RECLAIM_H

#include "store.h"

extern void enqueue_reclaim(Store *store, const Session *session,
							bool even_if_empty);
extern bool drop_reclaim(int64 id, const text *upload_id, TimestampTz due_at);

#endif							/* VALI_BLOB_RECLAIM_H */
