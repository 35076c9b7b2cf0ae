/*-------------------------------------------------------------------------
 *
 * sweep_owner.c
 *		The role that the worker sweeps as, and whether that is safe.
 *
 * The worker sweeps as the owner of upload_session and upload_reclaim.  What it
 * changes as a superuser must run no code of others, see table_safety.c.  The
 * worker overrides those settings of the database and of roles that matter, and
 * its statements do not depend on the others.
 *
 * Expiry is checked apart from purges, so that what must stop a purge does not
 * stop expiry.  When a session expires, no key changes, unless a trigger or a
 * generated column changes it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/pg_inherits.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "catalog.h"
#include "compat.h"
#include "lifecycle.h"
#include "row.h"
#include "sweep_owner.h"
#include "table_safety.h"

/*
 * Could the expiry of a session change a key of its row, which foreign keys
 * reference, or columns of a foreign key of the row itself?
 */
static bool
expiry_changes_keys(Relation rel)
{
	TupleConstr *constr = RelationGetDescr(rel)->constr;
	Bitmapset  *keys = RelationGetIndexAttrBitmap(rel, INDEX_ATTR_BITMAP_KEY);
	ListCell   *cell;

	foreach(cell, RelationGetFKeyList(rel))
	{
		ForeignKeyCacheInfo *key = lfirst(cell);

		for (int i = 0; i < key->nkeys; i++)
			keys = bms_add_member(keys, key->conkey[i] -
								  FirstLowInvalidHeapAttributeNumber);
	}

	if (has_generated_columns(constr) ||
		(rel->trigdesc != NULL && rel->trigdesc->trig_update_before_row))
		return true;
	for (SessionColumn column = 0; column < COLUMN_COUNT; column++)
	{
		AttrNumber	attnum = (EXPIRY_COLUMNS & COLUMN_BIT(column)) == 0 ?
			InvalidAttrNumber :
			get_attnum(RelationGetRelid(rel), column_name(column));

		if (attnum != InvalidAttrNumber &&
			bms_is_member(attnum - FirstLowInvalidHeapAttributeNumber, keys))
			return true;
	}
	return false;
}

/* Add what expiry does to upload_session. */
static void
add_expiry(SafetyCheck *check, Oid relid)
{
	ListCell   *cell;
	int			changes = CHANGE_UPDATE;

	foreach(cell, find_all_inheritors(relid, NoLock, NULL))
	{
		Relation	rel;

		if (!ConditionalLockRelationOid(lfirst_oid(cell), RowExclusiveLock))
		{
			check->is_busy = true;
			return;
		}
		rel = table_open(lfirst_oid(cell), NoLock);
		if (expiry_changes_keys(rel))
			changes |= CHANGE_KEYS;
		table_close(rel, NoLock);
	}
	check_changes(check, relid, changes);
}

/* Return the role to sweep as. */
Oid
sweep_owner(void)
{
	const Catalog *catalog = catalog_get();
	Oid			session_table = catalog->tables[TABLE_SESSION];
	Oid			part_table = catalog->tables[TABLE_PART];
	Oid			owner = table_owner(session_table);

	if (table_owner(catalog->tables[TABLE_RECLAIM]) != owner)
		report_owners(session_table, catalog->tables[TABLE_RECLAIM]);
	/* a superuser's is safe as well, see check_sweep_is_safe() */
	if (OidIsValid(part_table) && table_owner(part_table) != owner &&
		!superuser_arg(table_owner(part_table)))
		report_owners(session_table, part_table);
	return owner;
}

/*
 * Check that a scan runs no code of an ordinary role as a superuser, or report
 * what could.  Returns false if another session holds a lock that this needs.
 */
bool
check_sweep_is_safe(Oid owner, SweepScanKind kind)
{
	const Catalog *catalog = catalog_get();
	Oid			part_table = catalog->tables[TABLE_PART];
	Oid			live_table = catalog->tables[TABLE_LIVE];
	SafetyCheck check = {.nowait = true};

	/* these are changed as their own owner, who may be another one */
	if (kind == SCAN_EXPIRY && OidIsValid(live_table) &&
		superuser_arg(table_owner(live_table)))
		check_changes(&check, live_table, CHANGE_DELETE);
	if (kind == SCAN_PURGE && OidIsValid(part_table) &&
		superuser_arg(table_owner(part_table)))
		check_changes(&check, part_table, CHANGE_DELETE);
	if (!superuser_arg(owner))
		return !check.is_busy;
	switch (kind)
	{
		case SCAN_EXPIRY:
			add_expiry(&check, catalog->tables[TABLE_SESSION]);
			check_changes(&check, catalog->tables[TABLE_RECLAIM], CHANGE_INSERT);
			break;
		case SCAN_PURGE:
			check_changes(&check, catalog->tables[TABLE_SESSION], CHANGE_DELETE);
			break;
		case SCAN_RECLAIMS:
			check_changes(&check, catalog->tables[TABLE_RECLAIM], CHANGE_DELETE);
			break;
	}
	return !check.is_busy;
}
