/*-------------------------------------------------------------------------
 *
 * worker.h
 *		The process that sweeps one database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_WORKER_H
#define VALI_BLOB_WORKER_H

#include "postmaster/bgworker.h"

extern void worker_describe(BackgroundWorker *worker, Oid database);
extern PGDLLEXPORT void vali_blob_worker_main(Datum arg);

#endif							/* VALI_BLOB_WORKER_H */
