/*-------------------------------------------------------------------------
 *
 * sweeper_state.h
 *		What the processes of the background sweeper share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_SWEEPER_STATE_H
#define VALI_BLOB_SWEEPER_STATE_H

#include "postmaster/bgworker.h"

#include "sweep.h"

#define SWEEPER_ERROR_BYTES 200

/* How a worker's run has ended, for the launcher to plan the next one. */
typedef enum WorkerResult
{
	WORKER_DIED,				/* it ended without a report */
	WORKER_FAILED,				/* an error, which was recorded */
	WORKER_ABSENT,				/* the database does not have the extension */
	WORKER_BUSY,				/* others need a lock on the database */
	WORKER_SWEPT,				/* all that was due is done */
	WORKER_UNFINISHED			/* there is more to do */
} WorkerResult;

/* What happened in one database. */
typedef struct SweptDatabase
{
	Oid			database;		/* InvalidOid: the entry is free */
	TimestampTz last_used;
	TimestampTz last_sweep;		/* when the last pass began; 0: none yet */
	int64		last_duration;	/* microseconds */
	SweepCounts last;
	SweepCounts total;
	SweepPosition positions[SCAN_COUNT];	/* where the next pass begins */
	TimestampTz last_error_at;	/* 0: none yet */
	TimestampTz log_period_start;	/* 0: nothing was logged yet */
	int			log_lines;		/* in that period */
	char		last_error[SWEEPER_ERROR_BYTES];
} SweptDatabase;

extern void sweeper_describe_process(BackgroundWorker *worker, const char *type,
									 const char *function);
extern void sweeper_reserve_memory(void);
extern void sweeper_nap(long milliseconds);
extern bool sweeper_record_error(Oid database, const char *message);

/* for the launcher */
extern bool sweeper_register_launcher(void);
extern void sweeper_unregister_launcher(void);
extern void sweeper_begin_run(Oid database, int64 duration);
extern WorkerResult sweeper_run_result(int *interval);

/* for the worker */
extern int64 sweeper_run_duration(void);
extern void sweeper_end_run(WorkerResult result, int interval);
extern void sweeper_begin_pass(SweepPass *pass);
extern void sweeper_record_sweep(const SweepPass *pass,
								 const SweepCounts *before);

/* for others */
extern pid_t sweeper_launcher_pid(void);
extern void sweeper_get_database(SweptDatabase *result);

#endif							/* VALI_BLOB_SWEEPER_STATE_H */
