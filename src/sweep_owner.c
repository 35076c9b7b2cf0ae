/*-------------------------------------------------------------------------
 *
 * sweep_owner.c
 *		The role that the worker sweeps as, and what else it may run as that
 *		role.
 *
 * The worker sweeps as the owner of upload_session and upload_reclaim.  If
 * that is an ordinary role, whoever attaches code to the tables gets that
 * role's privileges, as with any table.  If it is a superuser, the code of
 * other roles must not be run.  This is what a change of a row can run, and
 * why each is safe:
 *
 *	  - Triggers.  Whoever has the privilege TRIGGER may create them; see
 *		is_dangerous_trigger().
 *	  - Foreign keys of other tables.  Whoever has the privilege REFERENCES may
 *		create them.  CASCADE, SET NULL and SET DEFAULT change the referencing
 *		table as its owner, but before version 18 run its AFTER triggers as
 *		the current user; so such a table must be as safe as our own.  NO
 *		ACTION and RESTRICT only read the referencing table, as its owner.
 *		What that may run (functions in index expressions, casts) can leave
 *		nothing behind but settings, so that then our own triggers must not
 *		depend on the search_path.
 *	  - Children and partitions.  They may belong to another role, with all
 *		that follows; so they must belong to ours.
 *	  - Foreign keys of our own tables, CHECK constraints, defaults, generated
 *		columns, rules, row-level security policies, index expressions and
 *		predicates, statistics objects: only the owner of a table can create
 *		them.  Policies are not applied to a superuser in any case.
 *	  - Types and operators: the columns have built-in types and our enum, to
 *		which only its owner can add anything, and all statements qualify
 *		their operators.
 *	  - Event triggers: only superusers can create them, and a sweep runs no
 *		DDL.
 *	  - Row filters and column lists of publications: evaluated by the process
 *		that sends the changes, as the subscription's user.
 *	  - Settings of the database and its owner's: the worker overrides those
 *		that matter, and its statements do not depend on the others.
 *
 * The locks that are taken here keep all of that as it is until the end of the
 * transaction: each of these objects is created under a stronger lock.
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
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "catalog.h"
#include "compat.h"
#include "sweep_owner.h"

/* What is found about the tables of a superuser. */
typedef struct OwnerCheck
{
	List	   *tables;			/* whose rows a sweep changes, and which are locked */
	bool		reads_ordinary; /* a foreign key reads an ordinary role's table */
} OwnerCheck;

static void collect_tables(OwnerCheck *check, Oid table, bool keys_change);

/* The columns that a sweep changes in rows that stay. */
static const char *const swept_columns[] = {
	"status", "updated_at", "expires_at"
};

/* Return the owner of a table. */
static Oid
table_owner(Oid table)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", table);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* Does a function set its own search_path? */
static bool
sets_search_path(HeapTuple function)
{
	bool		is_null;
	Datum		config = SysCacheGetAttr(PROCOID, function,
										 Anum_pg_proc_proconfig, &is_null);
	Datum	   *settings;
	int			count;

	if (is_null)
		return false;
	deconstruct_array(DatumGetArrayTypeP(config), TEXTOID, -1, false,
					  TYPALIGN_INT, &settings, NULL, &count);
	for (int i = 0; i < count; i++)
	{
		if (strncmp(TextDatumGetCString(settings[i]), "search_path=",
					strlen("search_path=")) == 0)
			return true;
	}
	return false;
}

/*
 * Could a trigger run the code of an ordinary role?
 *
 * It is not recorded who has created a trigger.  What its WHEN clause does
 * cannot be told from the functions that it names: ts_rewrite() runs any SQL,
 * lo_export() writes any file, a domain has hidden functions.  Arguments can
 * steer a superuser's function.  And what is SECURITY DEFINER now may no longer
 * be when the second row is swept.
 */
static bool
is_dangerous_trigger(const Trigger *trigger, bool needs_search_path)
{
	HeapTuple	function;
	bool		result;

	if (trigger->tgqual != NULL || trigger->tgnargs > 0)
		return true;
	function = SearchSysCache1(PROCOID, ObjectIdGetDatum(trigger->tgfoid));
	if (!HeapTupleIsValid(function))
		elog(ERROR, "cache lookup failed for function %u", trigger->tgfoid);
	result = !superuser_arg(((Form_pg_proc) GETSTRUCT(function))->proowner) ||
		(needs_search_path && !sets_search_path(function));
	ReleaseSysCache(function);
	return result;
}

/* Could a sweep change the key of a row that other tables reference? */
static bool
changes_keys(Oid table)
{
	Relation	rel = table_open(table, NoLock);
	Bitmapset  *keys = RelationGetIndexAttrBitmap(rel, INDEX_ATTR_BITMAP_KEY);

	table_close(rel, NoLock);
	for (int i = 0; i < (int) lengthof(swept_columns); i++)
	{
		AttrNumber	attnum = get_attnum(table, swept_columns[i]);

		if (attnum != InvalidAttrNumber &&
			bms_is_member(attnum - FirstLowInvalidHeapAttributeNumber, keys))
			return true;
	}
	return false;
}

/* Does the trigger of a foreign key change the referencing table? */
static bool
changes_referencing_table(Oid function, bool keys_change)
{
	switch (function)
	{
		case F_RI_FKEY_CASCADE_DEL:
		case F_RI_FKEY_SETNULL_DEL:
		case F_RI_FKEY_SETDEFAULT_DEL:
			return true;
		case F_RI_FKEY_CASCADE_UPD:
		case F_RI_FKEY_SETNULL_UPD:
		case F_RI_FKEY_SETDEFAULT_UPD:
			return keys_change;
		default:
			return false;
	}
}

/* Copy a table's triggers: its relation cache entry may be rebuilt meanwhile. */
static TriggerDesc *
copy_triggers(Oid table)
{
	Relation	rel = table_open(table, NoLock);
	TriggerDesc *triggers = CopyTriggerDesc(rel->trigdesc);

	table_close(rel, NoLock);
	return triggers;
}

/* Collect the tables whose rows change along with those of a table. */
static void
collect_referencing(OwnerCheck *check, Oid table, bool keys_change)
{
	TriggerDesc *triggers = copy_triggers(table);

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];
		Oid			referencing = trigger->tgconstrrelid;

		if (!trigger->tgisinternal || trigger->tgenabled == TRIGGER_DISABLED ||
			RI_FKey_trigger_type(trigger->tgfoid) != RI_TRIGGER_PK)
			continue;
		if (!changes_referencing_table(trigger->tgfoid, keys_change))
		{
			if (!superuser_arg(table_owner(referencing)))
				check->reads_ordinary = true;
			continue;
		}
		LockRelationOid(referencing, RowExclusiveLock);
		if (!superuser_arg(table_owner(referencing)))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("foreign key \"%s\" of table \"%s\" could run what an ordinary role has attached as superuser",
							get_constraint_name(trigger->tgconstraint),
							get_rel_name(referencing)),
					 errhint("Make a role that is no superuser the owner of the tables, or let the foreign key do nothing but check.")));
		collect_tables(check, referencing, true);
	}
}

/* Report tables that must have the same owner. */
pg_noreturn static void
report_owners(Oid table, Oid other)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("tables \"%s\" and \"%s\" have different owners",
					get_rel_name(table), get_rel_name(other)),
			 errhint("Give them to one role with ALTER TABLE ... OWNER TO.")));
}

/* Collect a table, which is locked, and its children or partitions. */
static void
collect_tables(OwnerCheck *check, Oid table, bool keys_change)
{
	Oid			owner = table_owner(table);
	ListCell   *cell;

	check_stack_depth();		/* foreign keys may form long chains */
	foreach(cell, find_all_inheritors(table, RowExclusiveLock, NULL))
	{
		Oid			child = lfirst_oid(cell);

		if (list_member_oid(check->tables, child))
			continue;
		if (table_owner(child) != owner)
			report_owners(table, child);
		check->tables = lappend_oid(check->tables, child);
		collect_referencing(check, child, keys_change || changes_keys(child));
	}
}

/* Check the triggers of a table. */
static void
check_triggers(const OwnerCheck *check, Oid table)
{
	TriggerDesc *triggers = copy_triggers(table);

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (!trigger->tgisinternal && trigger->tgenabled != TRIGGER_DISABLED &&
			is_dangerous_trigger(trigger, check->reads_ordinary))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("trigger \"%s\" on table \"%s\" could run what an ordinary role has attached as superuser",
							trigger->tgname, get_rel_name(table)),
					 check->reads_ordinary ?
					 errhint("Make a role that is no superuser the owner of the tables, or drop the trigger, or let its function set its search_path.") :
					 errhint("Make a role that is no superuser the owner of the tables, or drop the trigger.")));
	}
}

/* Find the role to sweep as, and check that this is safe. */
Oid
sweep_owner(void)
{
	const Catalog *catalog = catalog_get();
	Oid			owner = table_owner(catalog->tables[0]);

	for (int i = 1; i < TABLE_COUNT; i++)
	{
		if (table_owner(catalog->tables[i]) != owner)
			report_owners(catalog->tables[0], catalog->tables[i]);
	}
	if (superuser_arg(owner))
	{
		OwnerCheck	check = {0};
		ListCell   *cell;

		for (int i = 0; i < TABLE_COUNT; i++)
			collect_tables(&check, catalog->tables[i], false);
		foreach(cell, check.tables)
			check_triggers(&check, lfirst_oid(cell));
	}
	return owner;
}
