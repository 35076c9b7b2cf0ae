/*-------------------------------------------------------------------------
 *
 * vali_blob.c
 *		The module: magic block and initialisation.
 *
 * How a call flows through the files:
 *
 *	  api.c, chunk.c, sweep.c		SQL call: arguments in, result out
 *		change.c					lock, apply a rule, write, what follows
 *		  store.c					find and lock the row, write it back
 *			store_direct.c			... through the table access method
 *			store_sql.c				... through SQL
 *			row.c					table row <-> Session
 *		  lifecycle.c				the rules: judge the request, change the Session
 *		  reclaim.c					the reclaim queue
 *		errors.c					an outcome as an error
 *
 * readers.c shows sessions, grants.c stands for itself.  catalog.c knows the
 * extension's objects, statement.c keeps the plans of SQL statements.  The
 * background sweeper calls sweep.c: sweeper.c (shared state), launcher.c,
 * worker.c, sweep_owner.c (the role that the worker sweeps as).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "compat.h"
#include "settings.h"
#include "sweeper.h"

VALI_BLOB_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

/*
 * Set the module up; it works in any backend, and sweeps by itself when it is
 * preloaded.  pg_upgrade's servers must not be disturbed.
 */
void
_PG_init(void)
{
	if (IsBinaryUpgrade)
		return;
	define_settings();
	if (process_shared_preload_libraries_in_progress)
		sweeper_init();
}
