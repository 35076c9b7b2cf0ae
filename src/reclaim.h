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

extern void enqueue_reclaim(Store *store, const Session *session);
extern int64 purge_reclaims(TimestampTz now, int64 limit);

#endif							/* VALI_BLOB_RECLAIM_H */
