/*-------------------------------------------------------------------------
 *
 * reclaim.h
 *		The queue of what dead uploads have left in storage.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_RECLAIM_H
#define VALI_BLOB_RECLAIM_H

#include "datatype/timestamp.h"

extern int64 purge_reclaims(TimestampTz now, int64 limit);

#endif							/* VALI_BLOB_RECLAIM_H */
