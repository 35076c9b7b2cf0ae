/*-------------------------------------------------------------------------
 *
 * table_info.c
 *		What is cached about the tables for the fast path: whether it may be
 *		used, where the columns are, the constraints.
 *
 * The fast path (store_direct.c) requires plain tables: what the executor
 * would do with anything else, it does not do.  In particular, no code of a user
 * may run between finding a row and writing it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/transam.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_index.h"
#include "catalog/pg_opfamily.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "catalog.h"
#include "compat.h"
#include "row.h"
#include "table_info.h"

/* The tables that were asked for last; the reclaim queue has no fast path. */
static TableInfo caches[TABLE_COUNT];

/* The columns of upload_part, by PartColumn. */
static const struct
{
	const char *name;
	Oid			type;
}			part_columns[] =
{
	[PART_UPLOAD_ID] = {"upload_id", VARCHAROID},
	[PART_CHUNK_OFFSET] = {"chunk_offset", INT8OID},
	[PART_CHUNK_LENGTH] = {"chunk_length", INT8OID},
	[PART_PART_NUMBER] = {"part_number", INT4OID},
	[PART_ETAG] = {"etag", TEXTOID},
	[PART_CHECKSUM] = {"checksum", BYTEAOID},
	[PART_CONFIRMED_AT] = {"confirmed_at", TIMESTAMPTZOID},
};

StaticAssertDecl(lengthof(part_columns) == PART_COLUMN_COUNT,
				 "every column of upload_part has a line in the table");

/* ---------- expressions ---------- */

/*
 * Return an expression in a form that can be evaluated.  That is made at its first
 * use, since planning may evaluate parts of it: DEFAULT 1 / 0 concerns those who
 * insert, nobody else.
 */
static ExprState *
prepared_expr(const TableInfo *info, TableExpr *expr)
{
	if (expr->state == NULL)
	{
		/* in the caller's context, as this may fail any number of times */
		Expr	   *planned = expression_planner(expr->expr);
		MemoryContext caller = MemoryContextSwitchTo(info->context);

		expr->state = ExecInitExpr(copyObject(planned), NULL);
		MemoryContextSwitchTo(caller);
	}
	return expr->state;
}

/* ---------- CHECK constraints ---------- */

/* Can a function call others, which depend on the type of an argument? */
static bool
calls_support_functions(Form_pg_proc form)
{
	for (int i = 0; i < form->pronargs; i++)
	{
		Oid			type = form->proargtypes.values[i];

		if (type == RECORDOID || type == RECORDARRAYOID ||
			(IsPolymorphicType(type) && type != ANYENUMOID))
			return true;
	}
	return false;
}

/*
 * Is this anything but a plain built-in function?  True for user-defined
 * functions, for built-in ones that can call support functions of a type, and
 * for those whose privileges were changed (proacl is null by default).
 */
static bool
is_unsafe_function(Oid function, void *context pg_attribute_unused())
{
	HeapTuple	tuple;
	bool		is_unsafe;

	if (function >= FirstNormalObjectId)
		return true;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
		return true;
	is_unsafe = !heap_attisnull(tuple, Anum_pg_proc_proacl, NULL) ||
		calls_support_functions((Form_pg_proc) GETSTRUCT(tuple));
	ReleaseSysCache(tuple);
	return is_unsafe;
}

/* Does an expression call an unsafe function? */
static bool
calls_unsafe_function(Node *node, void *context)
{
	if (node == NULL)
		return false;
	/* these call the constraints of a domain, and a type's operator class */
	if (IsA(node, CoerceToDomain) || IsA(node, MinMaxExpr))
		return true;
	return check_functions_in_node(node, is_unsafe_function, context) ||
		expression_tree_walker(node, calls_unsafe_function, context);
}

/*
 * Return the attributes that an immutable CHECK constraint refers to, or NULL if
 * it must be evaluated for every write.
 */
static Bitmapset *
check_attributes(const ConstrCheck *check, Node *expr)
{
	Bitmapset  *attributes = NULL;

	/* of a constraint that is NOT VALID existing rows may be in violation */
	if (!check->ccvalid)
		return NULL;
	pull_varattnos(expr, 1, &attributes);
	/* a whole-row reference */
	if (bms_is_member(0 - FirstLowInvalidHeapAttributeNumber, attributes))
		return NULL;
	return attributes;
}

/* Collect the CHECK constraints; false if one could run the code of a user. */
static bool
collect_checks(TableInfo *info, Relation rel)
{
	TupleConstr *constr = RelationGetDescr(rel)->constr;
	int			count = constr == NULL ? 0 : constr->num_check;

	info->checks = palloc(count * sizeof(CheckInfo));
	info->check_count = 0;
	info->econtext = CreateStandaloneExprContext();
	for (int i = 0; i < count; i++)
	{
		CheckInfo  *check = &info->checks[info->check_count];
		Expr	   *expr;

		if (!CHECK_IS_ENFORCED(constr->check[i]))
			continue;
		expr = stringToNode(constr->check[i].ccbin);

		/*
		 * Built-in functions that run SQL given to them as text, such as
		 * query_to_xml(), are not immutable.
		 */
		if (calls_unsafe_function((Node *) expr, NULL) ||
			contain_mutable_functions((Node *) expr))
			return false;
		check->attributes = check_attributes(&constr->check[i], (Node *) expr);
		check->expr = (TableExpr) {.expr = expr};
		info->check_count++;
	}
	return true;
}

/*
 * Does a new row version satisfy the table's constraints?  A CHECK constraint on
 * other columns than those that have changed still holds; so a chunk need not
 * detoast large JSON documents to see that they are objects.
 */
bool
satisfies_constraints(const TableInfo *info, TupleTableSlot *slot,
					  ColumnSet changed)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;
	Bitmapset  *attributes = NULL;
	bool		satisfied = true;

	for (int i = 0; i < desc->natts; i++)
	{
		if (slot->tts_isnull[i] && TupleDescAttr(desc, i)->attnotnull)
			return false;
	}
	/* those of upload_part always are all; the map is another one there */
	for (SessionColumn column = 0; column < COLUMN_COUNT; column++)
	{
		if (changed != ALL_COLUMNS && (changed & COLUMN_BIT(column)) != 0 &&
			info->map[column] != COLUMN_MISSING)
			attributes = bms_add_member(attributes, info->map[column] + 1 -
										FirstLowInvalidHeapAttributeNumber);
	}
	info->econtext->ecxt_scantuple = slot;
	for (int i = 0; i < info->check_count && satisfied; i++)
	{
		CheckInfo  *check = &info->checks[i];

		/* a new row has to satisfy those of added columns, too */
		if (changed == ALL_COLUMNS || check->attributes == NULL ||
			bms_overlap(check->attributes, attributes))
			satisfied = ExecCheck(prepared_expr(info, &check->expr),
								  info->econtext);
	}
	ResetExprContext(info->econtext);
	bms_free(attributes);
	return satisfied;
}

/* ---------- eligibility ---------- */

/*
 * Is an index unique, and can a scan of it find a row by a text, its first column,
 * as SQL compares it?
 */
static bool
finds_by_text(Relation index, Relation rel, int attribute)
{
	Form_pg_index form = index->rd_index;

	return index->rd_rel->relam == BTREE_AM_OID &&
		form->indisunique && form->indimmediate && form->indisvalid &&
		form->indisready && form->indislive &&
		form->indkey.values[0] == attribute + 1 &&
		index->rd_opfamily[0] == TEXT_BTREE_FAM_OID &&
		index->rd_indcollation[0] ==
		TupleDescAttr(RelationGetDescr(rel), attribute)->attcollation;
}

/* Initialize the key of a scan of such an index. */
void
init_text_key(ScanKey key, Relation index, const text *value)
{
	ScanKeyEntryInitialize(key, 0, 1, BTEqualStrategyNumber, InvalidOid,
						   index->rd_indcollation[0], F_TEXTEQ,
						   PointerGetDatum(value));
}

/* Has an index expressions, or a predicate? */
static bool
has_expressions(Relation index)
{
	return !heap_attisnull(index->rd_indextuple, Anum_pg_index_indexprs, NULL) ||
		!heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL);
}

/*
 * Look at the indexes: find the unique one on upload_id, and see whether one of
 * the others could reject a row version, or fail.
 */
static void
examine_indexes(TableInfo *info, Relation rel)
{
	ListCell   *cell;

	info->can_combine = true;
	foreach(cell, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);
		Form_pg_index form = index->rd_index;

		if (finds_by_text(index, rel, info->map[COLUMN_UPLOAD_ID]) &&
			!has_expressions(index) && form->indnatts == 1)
			info->key_index = RelationGetRelid(index);
		else if (has_expressions(index) || form->indisunique || form->indisexclusion)
			info->can_combine = false;
		index_close(index, NoLock);
	}
}

/* A foreign key; the attributes of each side are in the same order */
typedef struct ForeignKey
{
	bool		is_deferrable;
	char		match_type;
	Oid			referenced_table;
	int			nkeys;
	AttrNumber	referencing[INDEX_MAX_KEYS];
	AttrNumber	referenced[INDEX_MAX_KEYS];
} ForeignKey;

/* Look up the foreign key that an internal trigger enforces. */
static bool
get_foreign_key(const Trigger *trigger, ForeignKey *key)
{
	HeapTuple	tuple = SearchSysCache1(CONSTROID,
										ObjectIdGetDatum(trigger->tgconstraint));
	Form_pg_constraint form;

	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_constraint) GETSTRUCT(tuple);
	key->is_deferrable = form->condeferrable;
	key->match_type = form->confmatchtype;
	key->referenced_table = form->confrelid;
	DeconstructFkConstraintRow(tuple, &key->nkeys, key->referencing,
							   key->referenced, NULL, NULL, NULL, NULL, NULL);
	ReleaseSysCache(tuple);
	return true;
}

/*
 * Does a trigger do nothing when we update a row?  True for those of a foreign
 * key, from or to the table, whose columns we never update; see
 * RI_FKey_pk_upd_check_required() and RI_FKey_fk_upd_check_required().
 */
static bool
is_idle_trigger(const TableInfo *info, const Trigger *trigger)
{
	ColumnSet	writable = column_set(COLUMN_WRITABLE);
	int			type = RI_FKey_trigger_type(trigger->tgfoid);
	ForeignKey	key;
	const AttrNumber *attributes;

	if (!trigger->tgisinternal || type == RI_TRIGGER_NONE ||
		!get_foreign_key(trigger, &key))
		return false;

	/*
	 * The check of a row that this transaction has inserted may still be
	 * deferred, and then an update must repeat it.
	 */
	if (type == RI_TRIGGER_FK &&
		(key.is_deferrable || key.match_type != FKCONSTR_MATCH_SIMPLE))
		return false;
	attributes = type == RI_TRIGGER_PK ? key.referenced : key.referencing;
	for (SessionColumn column = 0; column < COLUMN_COUNT; column++)
	{
		if ((writable & COLUMN_BIT(column)) == 0)
			continue;
		for (int i = 0; i < key.nkeys; i++)
		{
			if (attributes[i] == info->map[column] + 1)
				return false;
		}
	}
	return true;
}

/* Does the table have triggers that our updates may fire? */
static bool
has_triggers(TableInfo *info, Relation rel)
{
	/* copied, as the relation cache entry may be rebuilt meanwhile */
	const TriggerDesc *triggers = CopyTriggerDesc(rel->trigdesc);

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		if (!is_idle_trigger(info, &triggers->triggers[i]))
			return true;
		if (RI_FKey_trigger_type(triggers->triggers[i].tgfoid) == RI_TRIGGER_FK)
			info->has_foreign_keys = true;
	}
	return false;
}

/*
 * Has a column that we write another type than the script gave it, or do its
 * values come from a sequence in any case?
 */
static bool
has_other_columns(const TableInfo *info, TupleDesc desc)
{
	ColumnSet	writable = column_set(COLUMN_WRITABLE);

	for (SessionColumn column = 0; column < COLUMN_COUNT; column++)
	{
		Form_pg_attribute att;

		if ((writable & COLUMN_BIT(column)) == 0 ||
			info->map[column] == COLUMN_MISSING)
			continue;
		att = TupleDescAttr(desc, info->map[column]);
		if (att->atttypid != column_type(column) || att->atttypmod != -1 ||
			att->attidentity == ATTRIBUTE_IDENTITY_ALWAYS)
			return true;
	}
	return false;
}

/* Is a table anything but a plain one?  Returns why, or NULL. */
static const char *
examine_relation(Relation rel)
{
	const char *name = RelationGetRelationName(rel);

	if (rel->rd_rel->relkind != RELKIND_RELATION ||
		rel->rd_rel->relispartition || rel->rd_rel->relhassubclass)
		return psprintf("Table \"%s\" is partitioned, is inherited, or is not a table.",
						name);
	if (rel->rd_rel->relam != HEAP_TABLE_AM_OID)
		return psprintf("The access method of table \"%s\" is not heap.", name);
	if (rel->rd_rel->relrowsecurity)
		return psprintf("Table \"%s\" has row-level security.", name);
	if (rel->rd_rules != NULL)
		return psprintf("Table \"%s\" has rules.", name);
	if (has_generated_columns(RelationGetDescr(rel)->constr))
		return psprintf("Table \"%s\" has generated columns.", name);

	/*
	 * On its workers such a table is empty; the rows are elsewhere.  CREATE
	 * EXTENSION creates functions, which invalidates what we know.
	 */
	if (OidIsValid(get_extension_oid("citus", true)))
		return "Extension \"citus\" exists, so the rows may be on other servers.";
	return NULL;
}

/* Fill in what is known about upload_session. */
static const char *
examine_session_table(TableInfo *info, Relation rel)
{
	find_columns(RelationGetDescr(rel), info->map);
	if (has_triggers(info, rel))
		return "Table \"upload_session\" has triggers.";
	if (has_other_columns(info, RelationGetDescr(rel)))
		return "Columns of table \"upload_session\" have other types, or are GENERATED ALWAYS.";
	examine_indexes(info, rel);
	if (!OidIsValid(info->key_index))
		return "Table \"upload_session\" has no unique index on column \"upload_id\".";
	if (!collect_checks(info, rel))
		return "A CHECK constraint of table \"upload_session\" calls a function that is not a plain built-in one.";
	return NULL;
}

/* ---------- inserting ---------- */

/* Does a column take every value that start_upload() gives it, as it is? */
static bool
takes_values_unchanged(const TableInfo *info, TupleDesc desc,
					   SessionColumn column)
{
	Form_pg_attribute att = TupleDescAttr(desc, info->map[column]);

	if (att->attidentity == ATTRIBUTE_IDENTITY_ALWAYS)
		return false;
	if (att->atttypid == column_type(column))
		return att->atttypmod == -1;
	/* a text in a varchar column, if that is not shorter than it was */
	return column_type(column) == TEXTOID && att->atttypid == VARCHAROID &&
		(att->atttypmod == -1 ||
		 (column_limit(column) > 0 &&
		  att->atttypmod - VARHDRSZ >= column_limit(column)));
}

/* Find the default of an attribute; false if it could run a user's code. */
static bool
find_default(DefaultInfo *info, Relation rel, int index)
{
	Node	   *expr = build_column_default(rel, index + 1);

	*info = (DefaultInfo) {.index = index, .expr.expr = (Expr *) expr};
	if (expr == NULL)
		/* but a domain may refuse a null, or have a default itself */
		return get_typtype(TupleDescAttr(RelationGetDescr(rel), index)->atttypid) !=
			TYPTYPE_DOMAIN;
	/* an identity column is the one thing that may change */
	return IsA(expr, NextValueExpr) ||
		(!calls_unsafe_function(expr, NULL) && !contain_mutable_functions(expr));
}

/* Collect what an INSERT needs; false if that is SQL's to do. */
static bool
collect_defaults(TableInfo *info, Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);
	ColumnSet	inserted = column_set(COLUMN_INSERTED);
	Bitmapset  *set_by_us = NULL;

	/* a foreign key of the table itself checks every new row */
	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		if (RI_FKey_trigger_type(rel->trigdesc->triggers[i].tgfoid) != RI_TRIGGER_PK)
			return false;
	}
	for (SessionColumn column = 0; column < COLUMN_COUNT; column++)
	{
		if ((inserted & COLUMN_BIT(column)) == 0)
			continue;
		if (!takes_values_unchanged(info, desc, column))
			return false;
		set_by_us = bms_add_member(set_by_us, info->map[column]);
	}

	info->defaults = palloc(desc->natts * sizeof(DefaultInfo));
	info->default_count = 0;
	for (int i = 0; i < desc->natts; i++)
	{
		if (bms_is_member(i, set_by_us) || TupleDescAttr(desc, i)->attisdropped)
			continue;
		if (!find_default(&info->defaults[info->default_count], rel, i))
			return false;
		info->default_count++;
	}
	return true;
}

/*
 * Give a new row the defaults of the attributes that start_upload() does not set; of
 * those that it may set, they do no harm, unless a sequence would be advanced.
 */
void
fill_defaults(const TableInfo *info, ColumnSet columns, TupleTableSlot *slot)
{
	int			given_id = (columns & COLUMN_BIT(COLUMN_ID)) != 0 ?
		info->map[COLUMN_ID] : COLUMN_MISSING;

	Assert(info->can_insert);
	for (int i = 0; i < info->default_count; i++)
	{
		DefaultInfo *def = &info->defaults[i];

		if (def->index == given_id)
			continue;
		if (def->expr.expr == NULL)
			slot->tts_isnull[def->index] = true;
		else
			slot->tts_values[def->index] =
				ExecEvalExpr(prepared_expr(info, &def->expr), info->econtext,
							 &slot->tts_isnull[def->index]);
	}
}

/* ---------- upload_part ---------- */

/*
 * Find the columns of upload_part; false if one is missing or has another type, or
 * if there is another that takes more than a null.
 */
static bool
find_part_columns(TableInfo *info, Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);
	int			found = 0;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		PartColumn	column;

		if (att->attisdropped)
			continue;
		for (column = 0; column < PART_COLUMN_COUNT; column++)
		{
			if (strcmp(NameStr(att->attname), part_columns[column].name) == 0)
				break;
		}
		if (column == PART_COLUMN_COUNT)
		{
			if (build_column_default(rel, i + 1) != NULL ||
				get_typtype(att->atttypid) == TYPTYPE_DOMAIN)
				return false;
			continue;
		}
		if (att->atttypid != part_columns[column].type ||
			att->attidentity != '\0' ||
			(att->atttypmod != -1 &&
			 (column != PART_UPLOAD_ID ||
			  att->atttypmod - VARHDRSZ < column_limit(COLUMN_UPLOAD_ID))))
			return false;
		info->map[column] = i;
		found++;
	}
	return found == PART_COLUMN_COUNT;
}

/*
 * Does a trigger do nothing when we insert a part of a session that we have locked?
 * True for the check of the foreign key to upload_session: that session is there,
 * and stays.
 */
static bool
is_idle_part_trigger(const TableInfo *info, const Trigger *trigger)
{
	ForeignKey	key;

	if (!TRIGGER_FOR_INSERT(trigger->tgtype))
		return true;
	if (!trigger->tgisinternal ||
		RI_FKey_trigger_type(trigger->tgfoid) != RI_TRIGGER_FK ||
		!get_foreign_key(trigger, &key))
		return false;
	/* a check that is deferred keeps ALTER TABLE waiting until it is done */
	return !key.is_deferrable &&
		key.referenced_table == catalog_get()->tables[TABLE_SESSION] &&
		key.nkeys == 1 && key.referencing[0] == info->map[PART_UPLOAD_ID] + 1 &&
		key.referenced[0] == get_attnum(key.referenced_table,
										column_name(COLUMN_UPLOAD_ID));
}

/* Find the unique index on (upload_id, chunk_offset), in this order. */
static Oid
find_part_key(const TableInfo *info, Relation rel)
{
	Oid			found = InvalidOid;
	ListCell   *cell;

	foreach(cell, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);
		Form_pg_index form = index->rd_index;

		if (finds_by_text(index, rel, info->map[PART_UPLOAD_ID]) &&
			!has_expressions(index) &&
			form->indnkeyatts == 2 &&
			form->indkey.values[1] == info->map[PART_CHUNK_OFFSET] + 1 &&
			index->rd_opfamily[1] == INTEGER_BTREE_FAM_OID &&
			index->rd_indoption[0] == 0 && index->rd_indoption[1] == 0)
			found = RelationGetRelid(index);
		index_close(index, NoLock);
	}
	return found;
}

/* Fill in what is known about upload_part. */
static const char *
examine_part_table(TableInfo *info, Relation rel)
{
	/* copied, as above */
	const TriggerDesc *triggers = CopyTriggerDesc(rel->trigdesc);

	if (!find_part_columns(info, rel))
		return "Table \"upload_part\" has other columns.";
	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		if (!is_idle_part_trigger(info, &triggers->triggers[i]))
			return "Table \"upload_part\" has triggers.";
	}
	info->key_index = find_part_key(info, rel);
	if (!OidIsValid(info->key_index))
		return "Table \"upload_part\" has no unique index on its key.";
	if (!collect_checks(info, rel))
		return "A CHECK constraint of table \"upload_part\" calls a function that is not a plain built-in one.";
	return NULL;
}

/* ---------- tables that are only probed ---------- */

/* Find the unique index on the one column of a key. */
static const char *
examine_key(TableInfo *info, Relation rel, const char *column)
{
	AttrNumber	attnum = get_attnum(RelationGetRelid(rel), column);
	ListCell   *cell;

	if (attnum == InvalidAttrNumber)
		return psprintf("Table \"%s\" has other columns.", RelationGetRelationName(rel));
	foreach(cell, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		if (finds_by_text(index, rel, attnum - 1) &&
			!has_expressions(index))
			info->key_index = RelationGetRelid(index);
		index_close(index, NoLock);
	}
	return OidIsValid(info->key_index) ? NULL :
		psprintf("Table \"%s\" has no unique index on its key.", RelationGetRelationName(rel));
}

/* ---------- the cache ---------- */

/*
 * Fill in what is known about a table.  Returns why the fast path cannot be
 * used, or NULL.
 */
static const char *
examine_table(TableInfo *info, Relation rel, ExtensionTable table)
{
	const char *unsupported = examine_relation(rel);

	if (unsupported != NULL)
		return unsupported;
	switch (table)
	{
		case TABLE_SESSION:
			return examine_session_table(info, rel);
		case TABLE_PART:
			return examine_part_table(info, rel);
		case TABLE_QUOTA:
			return examine_key(info, rel, "owner");
		case TABLE_LIVE:
			return examine_key(info, rel, "upload_id");
		case TABLE_RECLAIM:
			break;
	}
	pg_unreachable();
}

/*
 * Return what is known about a table, which the caller has locked.  That is
 * valid until the next call of this function, so do not keep it while the code
 * of a user may run, which may call our functions.
 */
const TableInfo *
table_info_get(Relation rel, ExtensionTable table)
{
	TableInfo  *cache = &caches[table];
	uint64		valid_for = catalog_invalidations();
	MemoryContext caller;

	if (cache->valid_for == valid_for && cache->relid == RelationGetRelid(rel))
		return cache;

	/* not valid if we fail */
	*cache = (TableInfo) {.context = cache->context};
	if (cache->context == NULL)
		cache->context = AllocSetContextCreate(TopMemoryContext,
											   "vali_blob table",
											   ALLOCSET_SMALL_SIZES);
	MemoryContextReset(cache->context);
	caller = MemoryContextSwitchTo(cache->context);
	cache->unsupported = examine_table(cache, rel, table);
	cache->can_insert = cache->unsupported == NULL && table == TABLE_SESSION &&
		collect_defaults(cache, rel);
	MemoryContextSwitchTo(caller);
	cache->relid = RelationGetRelid(rel);
	/* as of before we looked: an invalidation meanwhile must not be lost */
	cache->valid_for = valid_for;
	return cache;
}
