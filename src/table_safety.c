/*-------------------------------------------------------------------------
 *
 * table_safety.c
 *		Whether a table can be changed as a superuser, or would that run code of
 *		others.
 *
 * A session of an ordinary role changes upload_quota and upload_live as their
 * owner, and the worker all tables.  If the owner is an ordinary role, whoever was
 * granted TRIGGER or REFERENCES on the tables can run code as that role, as with
 * any table.  If it is a superuser, no code of an ordinary role must run at all,
 * not even as that role: it could create triggers or change settings for what
 * runs as superuser later in the same transaction.  This is what a change of a row
 * can run, and why each is safe:
 *
 *	  - Triggers, which whoever has the privilege TRIGGER may create.  Those that
 *		a change fires must be safe, see is_unsafe_trigger().
 *	  - Foreign keys that reference our tables, which whoever has the privilege
 *		REFERENCES may create.  Deleting a row runs queries on the referencing
 *		table, as its owner, whatever the action of the key; so that table must
 *		be a superuser's.  CASCADE, SET NULL and SET DEFAULT change it, so that
 *		all of this holds for it as well.
 *	  - Foreign keys of our tables to others: checked when a row is inserted, and
 *		when one of their columns changes.
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
 *	  - Event triggers: only superusers can create them, and no DDL is run.
 *	  - Row filters and column lists of publications: evaluated by the process
 *		that sends the changes, as the subscription's user.
 *
 * The locks on the tables keep other sessions from creating any of these until the
 * end of the transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
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
#include "table_safety.h"

/* A table whose rows are changed */
typedef struct ChangedTable
{
	Oid			relid;
	int			changes;
} ChangedTable;

/* Return the owner of a table. */
Oid
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
void
report_owners(Oid relid, Oid other)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("tables \"%s\" and \"%s\" have different owners",
					get_rel_name(relid), get_rel_name(other)),
			 errhint("Give them to one role with ALTER TABLE ... OWNER TO.")));
}

/* Say how to do without a superuser's rights. */
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
					 errmsg("foreign key \"%s\" must not run as superuser",
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
			check_changes(check, other, CHANGE_DELETE);
			break;
		case F_RI_FKEY_CASCADE_UPD:
		case F_RI_FKEY_SETNULL_DEL:
		case F_RI_FKEY_SETNULL_UPD:
		case F_RI_FKEY_SETDEFAULT_DEL:
		case F_RI_FKEY_SETDEFAULT_UPD:
			check_changes(check, other, CHANGE_UPDATE | CHANGE_KEYS);
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
				 errmsg("rules of table \"%s\" must not run as superuser",
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
					 errmsg("trigger \"%s\" on table \"%s\" must not run as superuser",
							trigger->tgname, get_rel_name(table->relid)),
					 errdetail("It has a WHEN clause or arguments, or its function does not belong to a superuser."),
					 errhint_owner()));
	}
}

/* Lock a table as whoever changes it does; false if we must wait, and may not. */
static bool
lock_table(SafetyCheck *check, Oid relid)
{
	if (!check->nowait)
		LockRelationOid(relid, RowExclusiveLock);
	else if (!ConditionalLockRelationOid(relid, RowExclusiveLock))
		check->is_busy = true;
	return !check->is_busy;
}

/*
 * Check what changes of a superuser's table can run, and those of its children or
 * partitions and of tables that foreign keys lead to.  Raises an error if that is
 * not safe.
 */
void
check_changes(SafetyCheck *check, Oid relid, int changes)
{
	ListCell   *cell;

	/*
	 * The lock does not keep out ATTACH PARTITION, but only the owner of the
	 * parent, a superuser here, can run that.
	 */
	if (!lock_table(check, relid))
		return;
	/* an UPDATE may move a row to another partition */
	if ((changes & CHANGE_UPDATE) != 0 &&
		(get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE || get_rel_relispartition(relid)))
		changes |= CHANGE_INSERT | CHANGE_DELETE;
	foreach(cell, find_all_inheritors(relid, NoLock, NULL))
	{
		Oid			child = lfirst_oid(cell);
		ChangedTable *table = NULL;
		ListCell   *other;

		if (child != relid && !lock_table(check, child))
			return;
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
