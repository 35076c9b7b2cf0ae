/*-------------------------------------------------------------------------
 *
 * sweeper.h
 *		The background sweeper: what its processes share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_SWEEPER_H
#define VALI_BLOB_SWEEPER_H

#include "datatype/timestamp.h"
#include "fmgr.h"
#include "postmaster/bgworker.h"

#include "sweep.h"

/* How a visit to a database ended, for the launcher to plan the next one. */
typedef enum VisitResult
{
	VISIT_DIED,					/* it ended before it could say anything */
	VISIT_FAILED,				/* an error, which is on record */
	VISIT_ABSENT,				/* nothing to sweep there */
	VISIT_BUSY,					/* somebody wants the database for himself */
	VISIT_SWEPT,				/* all that was due is done */
	VISIT_UNFINISHED			/* there is more to do */
} VisitResult;

/* sweeper.c, for the launcher */
extern void sweeper_init(void);
extern bool sweeper_announce_launcher(void);
extern void sweeper_retire_launcher(void);
extern void sweeper_begin_visit(Oid database, int64 duration);
extern VisitResult sweeper_visit_result(int *interval);

/* sweeper.c, for the worker */
extern void sweeper_end_visit(VisitResult result, int interval);
extern int64 sweeper_visit_duration(void);
extern void sweeper_begin_pass(SweepPass *pass);
extern void sweeper_record_sweep(const SweepPass *pass,
								 const SweepCounts *before);
/* sweeper.c, for both */
extern bool sweeper_record_error(Oid database, const char *message);
extern void sweeper_nap(long milliseconds);

/* launcher.c and worker.c: entry points of the processes */
extern void launcher_describe(BackgroundWorker *worker);
extern void worker_describe(BackgroundWorker *worker, Oid database);
extern PGDLLEXPORT void vali_blob_launcher_main(Datum arg);
extern PGDLLEXPORT void vali_blob_worker_main(Datum arg);

#endif							/* VALI_BLOB_SWEEPER_H */
