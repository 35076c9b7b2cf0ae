/*-------------------------------------------------------------------------
 *
 * vali_blob.c
 *		The module: magic block and initialization.
 *
 * Map of the source.  A call goes down, its result comes up; no file includes
 * one above it:
 *
 *	  launcher.c			process that starts a worker in one database after the
 *							other
 *	  worker.c				process that sweeps one database
 *	  sweep_owner.c			... as whom, and what of others makes that unsafe
 *	  sweeper_api.c			start_sweeper(), sweeper_status(), registration
 *	  sweeper_state.c		what these share
 *	  api.c					start, complete, abort, declare, merge, delete
 *	  chunk.c				advance_upload() and its kin, chunk_result
 *	  readers.c				get, list
 *	  sweep.c				batches of expiry and purge
 *	  reclaim.c				the queue of orphaned storage
 *	  stats.c				what upload_stats shows
 *	  grants.c				privileges of client roles
 *	  change.c				lock, apply a rule, write, and what follows from it
 *	  store.c				rows: chooses the access path
 *	  store_sql.c			... through SQL
 *	  store_direct.c		... the fast path, through the heap
 *	  table_info.c			what is cached about the table for it
 *	  lifecycle.c			the rules; no database, no settings, no clock
 *	  row.c					columns; row <-> Session
 *	  catalog.c				the extension's own objects
 *	  statement.c, arguments.c, errors.c, settings.c, json.c, compat.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "compat.h"
#include "settings.h"
#include "sweeper_api.h"

VALI_BLOB_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

/* Initialize the module.  It sweeps by itself only if it is preloaded. */
void
_PG_init(void)
{
	define_settings();
	/* pg_upgrade's servers must not start workers */
	if (process_shared_preload_libraries_in_progress && !IsBinaryUpgrade)
		sweeper_init();
}
