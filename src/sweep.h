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

/* The scans of a pass, in the order in which a batch runs them */
typedef enum SweepScanKind
{
	SCAN_EXPIRY,				/* live sessions past their deadline */
	SCAN_PURGE,					/* ended sessions past their retention */
	SCAN_RECLAIMS				/* rows of the reclaim queue past theirs */
} SweepScanKind;

#define SCAN_COUNT (SCAN_RECLAIMS + 1)

/* A position in the index on (expires_at, id), or (enqueued_at, id) */
typedef struct SweepPosition
{
	TimestampTz due_at;
	int64		id;
} SweepPosition;

typedef struct SweepScan
{
	SweepPosition position;		/* of the row that was met last */
	bool		is_exhausted;	/* no row was left when it last ran */
} SweepScan;

/* What a sweep has done */
typedef struct SweepCounts
{
	int64		expired;
	int64		purged;
	int64		reclaims_dropped;
} SweepCounts;

/* A pass over all that is due, in any number of batches */
typedef struct SweepPass
{
	TimestampTz start;
	SweepScan	scans[SCAN_COUNT];
	SweepCounts done;
	int64		failed;
	char		error[256];		/* why the last of them failed */
} SweepPass;

extern SweepPosition sweep_first_position(void);
extern void sweep_begin(SweepPass *pass, const SweepPosition *positions);
extern bool sweep_is_over(const SweepPass *pass);
extern void sweep_get_positions(const SweepPass *pass,
								SweepPosition *positions);
extern void sweep_batch(SweepPass *pass, SweepScanKind first,
						SweepScanKind last, int64 max_rows, int64 duration,
						void (*delay_point) (void));

#endif							/* VALI_BLOB_SWEEP_H */
