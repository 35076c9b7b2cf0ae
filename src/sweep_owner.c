/*-------------------------------------------------------------------------
 *
 * sweep_owner.c
 *		The role that the worker sweeps as, and whether that is safe.
 *
 * The worker sweeps as the owner of upload_session and upload_reclaim.  If that
 * is an ordinary role, whoever was granted TRIGGER or REFERENCES on the tables
 * can run code as that role, as with any table.  If it is a superuser, no code of
 * an ordinary role must run at all, not even as that role: it could create
 * triggers or change settings for what runs as superuser later in the same
 * transaction.  This is what a change of a row can run, and why each is safe:
 *
 *	  - Triggers, which whoever has the privilege TRIGGER may create.  Those that
 *		a sweep fires must be safe, see is_unsafe_trigger().
 *	  - Foreign keys that reference our tables, which whoever has the privilege
 *		REFERENCES may create.  Deleting a row runs queries on the referencing
 *		table, as its owner, whatever the action of the key; so that table must
 *		be a superuser's.  CASCADE, SET NULL and SET DEFAULT change it, so that
 *		all of this holds for it as well.  When a session expires, no key
 *		changes, unless a trigger or a generated column changes it.
 *	  - Foreign keys of our tables to others: checked when a row is inserted into
 *		upload_reclaim, and when expiry changes one of their columns.
 *	  - Rules: only the owner of a table can create them, but they may change
 *		other tables.  We accept none.
 *	  - Children and partitions may belong to another role.  They must belong to
 *		the owner of their parent.
 *	  - CHECK constraints, defaults, generated columns, row-level security
 *		policies, index expressions and predicates, statistics objects: only the
 *		owner of a table can create them.  They may depend on the search_path,
 *		which is ours, as no code of an ordinary role has run.  Policies are not
 *		applied to a superuser in any case.  A superuser who has put functions or
 *		domains of an ordinary role into them runs these with every INSERT and
 *		ANALYZE, too; the manual warns of it.
 *	  - Types and operators: the columns of ours have built-in types and our enum,
 *		to which only its owner can add anything, and all statements qualify their
 *		operators.
 *	  - Event triggers: only superusers can create them, and a sweep runs no DDL.
 *	  - Row filters and column lists of publications: evaluated by the process
 *		that sends the changes, as the subscription's user.
 *	  - Settings of the database and of roles: the worker overrides those that
 *		matter, and its statements do not depend on the others.
 *
 * The locks on the tables keep other sessions from creating any of these until the
 * end of the transaction.  Expiry is checked apart from purges, so that what must
 * stop a purge does not stop expiry.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "catalog.h"
#include "compat.h"
#include "lifecycle.h"
#include "row.h"
#include "sweep_owner.h"

/* What is done to the rows of a table; a bit mask */
#define CHANGE_INSERT	0x01
#define CHANGE_UPDATE	0x02
#define CHANGE_DELETE	0x04
#define CHANGE_KEYS		0x08	/* an UPDATE that may change any column */

/* A table whose rows a sweep changes */
typedef struct ChangedTable
{
	Oid			relid;
	int			changes;
} ChangedTable;

typedef struct SafetyCheck
{
	List	   *tables;			/* ChangedTables; each is locked */
	bool		is_busy;		/* a lock could not be had at once */
} SafetyCheck;

static void add_table(SafetyCheck *check, Oid relid, int changes);

/* Return the owner of a table. */
static Oid
table_owner(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* Report tables that must have the same owner. */
pg_noreturn static void
report_owners(Oid relid, Oid other)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("tables \"%s\" and \"%s\" have different owners",
					get_rel_name(relid), get_rel_name(other)),
			 errhint("Give them to one role with ALTER TABLE ... OWNER TO.")));
}

/* Say how a sweep can do without a superuser's rights. */
static int
errhint_owner(void)
{
	return errhint("Make a role that is not a superuser the owner of all tables of extension \"%s\".",
				   EXTENSION_NAME);
}

/*
 * Could a trigger run the code of a role that is no superuser?
 *
 * It is not recorded who has created a trigger.  What its WHEN clause does cannot
 * be told from the functions that it names: ts_rewrite() runs any SQL,
 * lo_export() writes any file, a domain has hidden functions.  Arguments can
 * steer a superuser's function.
 */
static bool
is_unsafe_trigger(const Trigger *trigger)
{
	HeapTuple	function;
	bool		result;

	if (trigger->tgqual != NULL || trigger->tgnargs > 0)
		return true;
	function = SearchSysCache1(PROCOID, ObjectIdGetDatum(trigger->tgfoid));
	if (!HeapTupleIsValid(function))
		elog(ERROR, "cache lookup failed for function %u", trigger->tgfoid);
	result = !superuser_arg(((Form_pg_proc) GETSTRUCT(function))->proowner);
	ReleaseSysCache(function);
	return result;
}

/* Is a trigger fired by changes of a table, outside of a replica? */
static bool
is_fired(const Trigger *trigger, int changes)
{
	return trigger->tgenabled != TRIGGER_DISABLED &&
		trigger->tgenabled != TRIGGER_FIRES_ON_REPLICA &&
		((TRIGGER_FOR_INSERT(trigger->tgtype) && (changes & CHANGE_INSERT) != 0) ||
		 (TRIGGER_FOR_UPDATE(trigger->tgtype) && (changes & CHANGE_UPDATE) != 0) ||
		 (TRIGGER_FOR_DELETE(trigger->tgtype) && (changes & CHANGE_DELETE) != 0));
}

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

/* Check that a table, and its children, are a superuser's. */
static void
check_owner_of_key(Oid relid, const Trigger *trigger)
{
	ListCell   *cell;

	foreach(cell, find_all_inheritors(relid, NoLock, NULL))
	{
		if (!superuser_arg(table_owner(lfirst_oid(cell))))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("foreign key \"%s\" is not safe in a sweep as superuser",
							get_constraint_name(trigger->tgconstraint)),
					 errdetail("Table \"%s\", which does not belong to a superuser, could run code of its owner.",
							   get_rel_name(lfirst_oid(cell))),
					 errhint_owner()));
	}
}

/* Check the foreign key of an internal trigger that changes fire. */
static void
check_foreign_key(SafetyCheck *check, const Trigger *trigger, int changes)
{
	int			type = RI_FKey_trigger_type(trigger->tgfoid);
	Oid			other = trigger->tgconstrrelid;

	/* an UPDATE that changes no key does nothing */
	if (type == RI_TRIGGER_NONE ||
		(TRIGGER_FOR_UPDATE(trigger->tgtype) && (changes & CHANGE_KEYS) == 0))
		return;
	check_owner_of_key(other, trigger);
	switch (trigger->tgfoid)
	{
		case F_RI_FKEY_CASCADE_DEL:
			add_table(check, other, CHANGE_DELETE);
			break;
		case F_RI_FKEY_CASCADE_UPD:
		case F_RI_FKEY_SETNULL_DEL:
		case F_RI_FKEY_SETNULL_UPD:
		case F_RI_FKEY_SETDEFAULT_DEL:
		case F_RI_FKEY_SETDEFAULT_UPD:
			add_table(check, other, CHANGE_UPDATE | CHANGE_KEYS);
			break;
		default:
			break;
	}
}

/* Check what changes of a table can run. */
static void
check_table(SafetyCheck *check, const ChangedTable *table)
{
	Relation	rel = table_open(table->relid, NoLock);
	/* copied, as the relation cache entry may be rebuilt meanwhile */
	TriggerDesc *triggers = CopyTriggerDesc(rel->trigdesc);
	bool		has_rules = rel->rd_rules != NULL;

	table_close(rel, NoLock);
	if (has_rules)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("rules of table \"%s\" are not safe in a sweep as superuser",
						get_rel_name(table->relid)),
				 errdetail("They could change tables of roles that are no superusers."),
				 errhint_owner()));
	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (!is_fired(trigger, table->changes))
			continue;
		if (trigger->tgisinternal)
			check_foreign_key(check, trigger, table->changes);
		else if (is_unsafe_trigger(trigger))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("trigger \"%s\" on table \"%s\" is not safe in a sweep as superuser",
							trigger->tgname, get_rel_name(table->relid)),
					 errdetail("It has a WHEN clause or arguments, or its function does not belong to a superuser."),
					 errhint_owner()));
	}
}

/* Add changes of a table, and of its children or partitions. */
static void
add_table(SafetyCheck *check, Oid relid, int changes)
{
	ListCell   *cell;

	/*
	 * Wait for nobody.  The lock does not keep out ATTACH PARTITION, but only the
	 * owner of the parent, a superuser here, can run that.
	 */
	if (!ConditionalLockRelationOid(relid, RowExclusiveLock))
	{
		check->is_busy = true;
		return;
	}
	/* an UPDATE may move a row to another partition */
	if ((changes & CHANGE_UPDATE) != 0 &&
		(get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE || get_rel_relispartition(relid)))
		changes |= CHANGE_INSERT | CHANGE_DELETE;
	foreach(cell, find_all_inheritors(relid, NoLock, NULL))
	{
		Oid			child = lfirst_oid(cell);
		ChangedTable *table = NULL;
		ListCell   *other;

		if (child != relid && !ConditionalLockRelationOid(child, RowExclusiveLock))
		{
			check->is_busy = true;
			return;
		}
		if (table_owner(child) != table_owner(relid))
			report_owners(relid, child);
		foreach(other, check->tables)
		{
			if (((ChangedTable *) lfirst(other))->relid == child)
				table = lfirst(other);
		}
		if (table == NULL)
		{
			table = palloc0(sizeof(ChangedTable));
			table->relid = child;
			check->tables = lappend(check->tables, table);
		}
		else if ((table->changes & changes) == changes)
			continue;
		table->changes |= changes;
		check_stack_depth();	/* foreign keys may form long chains */
		check_table(check, table);
	}
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
	add_table(check, relid, changes);
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
	SafetyCheck check = {0};

	/* these are changed as their own owner, who may be another one */
	if (kind == SCAN_EXPIRY && OidIsValid(live_table) &&
		superuser_arg(table_owner(live_table)))
		add_table(&check, live_table, CHANGE_DELETE);
	if (kind == SCAN_PURGE && OidIsValid(part_table) &&
		superuser_arg(table_owner(part_table)))
		add_table(&check, part_table, CHANGE_DELETE);
	if (!superuser_arg(owner))
		return !check.is_busy;
	switch (kind)
	{
		case SCAN_EXPIRY:
			add_expiry(&check, catalog->tables[TABLE_SESSION]);
			add_table(&check, catalog->tables[TABLE_RECLAIM], CHANGE_INSERT);
			break;
		case SCAN_PURGE:
			add_table(&check, catalog->tables[TABLE_SESSION], CHANGE_DELETE);
			break;
		case SCAN_RECLAIMS:
			add_table(&check, catalog->tables[TABLE_RECLAIM], CHANGE_DELETE);
			break;
	}
	return !check.is_busy;
}
