/*-------------------------------------------------------------------------
 *
 * sweep.h
 *		Expiry and purge, in batches.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_SWEEP_H
#define VALI_BLOB_SWEEP_H

#include "session.h"

/* How many failed rows with the same expires_at a scan can step over. */
#define SWEEP_MAX_FAILED_IDS 1000

/* How many rows may fail in one batch before it ends. */
#define SWEEP_MAX_FAILURES 10000

/* A scan of the due sessions of one status, in the order of expires_at. */
typedef struct SweepScan
{
	TimestampTz position;		/* expires_at from which it continues */
	bool		is_exhausted;	/* nothing was left when it last ran */
	int			failed_count;
	int64		failed_ids[SWEEP_MAX_FAILED_IDS];	/* rows at position that failed */
} SweepScan;

/* What a sweep has done. */
typedef struct SweepCounts
{
	int64		expired;
	int64		purged;
	int64		reclaims_dropped;
} SweepCounts;

/* A pass over all that is due, in any number of batches. */
typedef struct SweepPass
{
	TimestampTz start;
	SweepScan	scans[STATUS_COUNT];
	bool		reclaims_done;
	SweepCounts done;
	int64		failed;
	char		error[256];		/* why the last of them failed */
} SweepPass;

extern void sweep_begin(SweepPass *pass, const TimestampTz *positions);
extern bool sweep_is_over(const SweepPass *pass);
extern void sweep_get_positions(const SweepPass *pass, TimestampTz *positions);
extern void sweep_batch(SweepPass *pass, int64 max_rows, int64 duration,
						void (*delay_point) (void));

#endif							/* VALI_BLOB_SWEEP_H */
