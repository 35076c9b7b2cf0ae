/*-------------------------------------------------------------------------
 *
 * vali_blob.c
 *		The module: magic block and initialisation.
 *
 * How a call flows through the files:
 *
 *	  api.c, readers.c, sweep.c		SQL call: arguments in, result out
 *		store.h, store_sql.c		find and lock the row, write it back
 *		  row.c						table row <-> Session
 *		lifecycle.c					judge the request, change the Session
 *		errors.c					an outcome as an error
 *
 * catalog.c knows the extension's objects, statement.c keeps the plans of
 * SQL statements, reclaim.c and grants.c stand for themselves.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "compat.h"
#include "settings.h"

VALI_BLOB_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

/*
 * Set the module up.  pg_upgrade loads it only to see that it is there, and
 * its servers must not be disturbed.
 */
void
_PG_init(void)
{
	if (IsBinaryUpgrade)
		return;
	define_settings();
}
