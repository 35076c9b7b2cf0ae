/*-------------------------------------------------------------------------
 *
 * vali_blob.c
 *		The module: magic block and initialization.
 *
 * CONTRIBUTING.md has a map of the source.
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
