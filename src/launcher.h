/*-------------------------------------------------------------------------
 *
 * launcher.h
 *		The process that starts a worker in one database after the other.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_LAUNCHER_H
#define VALI_BLOB_LAUNCHER_H

#include "postmaster/bgworker.h"

extern void launcher_describe(BackgroundWorker *worker);
extern PGDLLEXPORT void vali_blob_launcher_main(Datum arg);

#endif							/* VALI_BLOB_LAUNCHER_H */
