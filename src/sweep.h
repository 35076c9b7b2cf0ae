/*-------------------------------------------------------------------------
 *
 * sweep.h
 *		Expiry and purge, in batches.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_SWEEP_H
#define VALI_BLOB_SWEEP_H

#include "datatype/timestamp.h"

/* How many failed rows with the same expires_at a pass can step around. */
#define SWEEP_MAX_FAILED_IDS 1000

/* How many rows may fail in one batch before it ends. */
#define SWEEP_MAX_FAILURES 10000

/* One pass over all that was due when it began. */
typedef struct SweepPass
{
	TimestampTz start;
	int			phase;			/* what is being swept, and whether any is left */
	TimestampTz position;		/* where in the phase the next batch begins */
	int			failed_count;
	int64		failed_ids[SWEEP_MAX_FAILED_IDS];	/* rows there that failed */
	int64		expired;
	int64		purged;
	int64		failed;
	char		error[256];		/* why the last of them failed */
} SweepPass;

extern void sweep_begin(SweepPass *pass);
extern void sweep_resume(SweepPass *pass, int phase, TimestampTz position);
extern bool sweep_is_over(const SweepPass *pass);
extern void sweep_batch(SweepPass *pass, int64 max_rows, int64 duration,
						void (*breathe) (void));

#endif							/* VALI_BLOB_SWEEP_H */
