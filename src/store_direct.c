/*-------------------------------------------------------------------------
 *
 * store_direct.c
 *		The way to the rows of upload_session through the index and the table
 *		access method: index probe, row lock, new row version, without the
 *		executor.
 *
 * It is taken only where nobody could tell the difference to SQL, and gives
 * way to SQL at every step where it is not sure:
 *
 *	  - The table must be an ordinary one, for the user at hand: see
 *		find_obstacle() and may_access().
 *	  - A row that is not found, or cannot be locked at once and in one step,
 *		is looked for through SQL.  So a table whose rows are elsewhere (another
 *		extension has taken it over) never seems to be empty, and every error
 *		about a row that others have changed is SQL's own.
 *	  - A new version that would break a constraint is written through SQL, which
 *		raises the error.
 *
 * What the executor would do, and is done here: the snapshot is taken as for
 * a statement, which makes READ COMMITTED see the newest rows and the stricter
 * levels theirs, with SERIALIZABLE's predicate locks taken by the index scan;
 * the row lock follows the update chain to the newest version; constraints are
 * evaluated; a version that is not HOT gets its index entries; the table's
 * replica identity is respected; statistics are counted by the access methods.
 * The one step that goes beneath the table access method, to heap itself, is
 * the fetch of a row version, see fetch_version().
 *
 * No user's code runs between finding a row and writing it: tables with
 * triggers, or CHECK constraints that call other functions than immutable ones
 * of PostgreSQL's own, are no ordinary ones.
 *
 * Locks are taken in the order that SQL has: the table as for SELECT ... FOR
 * UPDATE, the row, and the table as for UPDATE only when there is something to
 * write.  So a call that changes nothing waits for nothing that SQL would not
 * wait for.  The second lock on the table cannot deadlock with other calls, as
 * it conflicts neither with itself nor with the first one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/heaptoast.h"
#include "access/relation.h"
#include "access/relscan.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_index.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "catalog.h"
#include "compat.h"
#include "row.h"
#include "settings.h"
#include "store_direct.h"

/* The columns that a write may change. */
#define WRITABLE_COLUMNS \
	(COLUMN_BIT(COLUMN_TOTAL_SIZE) | COLUMN_BIT(COLUMN_UPLOADED_BYTES) | \
	 COLUMN_BIT(COLUMN_STATUS) | COLUMN_BIT(COLUMN_METADATA) | \
	 COLUMN_BIT(COLUMN_PROVIDER_DATA) | COLUMN_BIT(COLUMN_RESULT) | \
	 COLUMN_BIT(COLUMN_ABORT_REASON) | COLUMN_BIT(COLUMN_UPDATED_AT) | \
	 COLUMN_BIT(COLUMN_EXPIRES_AT))

/*
 * A page is pruned when it has room for fewer new versions than this: one for
 * now, the others in case that pruning does not succeed at once.
 */
#define ROOM_IN_VERSIONS 3

/* What is known of the table, as of one state of the caches. */
static struct
{
	Oid			table;
	uint64		as_of;			/* catalog_version(); 0: nothing is known */
	MemoryContext context;		/* of all that follows */
	const char *obstacle;		/* why the table is no ordinary one, or NULL */
	Oid			key_index;		/* the unique index on upload_id */
	int			ncheck;
	ExprState **check;			/* the CHECK constraints */
	Bitmapset **check_columns;	/* what each depends on; NULL: on anything */
	ExprContext *econtext;
}			known;

/* ---------- is it an ordinary table? ---------- */

/* Tell whether a function may call others that belong to a value's type. */
static bool
depends_on_type(Form_pg_proc form)
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
 * Tell whether a function is not PostgreSQL's own, or may call such ones, or is
 * not for everybody to call: only a function whose privileges were changed has
 * any on record.
 */
static bool
is_special_function(Oid function, void *context pg_attribute_unused())
{
	HeapTuple	tuple;
	bool		is_special;

	if (function >= FirstNormalObjectId)
		return true;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
		return true;
	is_special = !heap_attisnull(tuple, Anum_pg_proc_proacl, NULL) ||
		depends_on_type((Form_pg_proc) GETSTRUCT(tuple));
	ReleaseSysCache(tuple);
	return is_special;
}

/*
 * Tell whether an expression calls a special function.  The constraints of a
 * domain may, and so may GREATEST and LEAST, by the type's operator class.
 */
static bool
calls_special_function(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, CoerceToDomain) || IsA(node, MinMaxExpr) ||
		check_functions_in_node(node, is_special_function, context))
		return true;
	return expression_tree_walker(node, calls_special_function, context);
}

/*
 * The columns that the truth of an immutable CHECK depends on, if it is known to
 * be true of the rows that are there; otherwise NULL.
 */
static Bitmapset *
check_columns(const ConstrCheck *check, Node *expr)
{
	Bitmapset  *columns = NULL;

	if (!check->ccvalid)
		return NULL;
	pull_varattnos(expr, 1, &columns);
	if (bms_is_member(0 - FirstLowInvalidHeapAttributeNumber, columns))
		return NULL;
	return columns;
}

/*
 * Prepare the CHECK constraints; false if one of them might run a user's code.
 * Functions of PostgreSQL's own that run the SQL given to them do, too, but none
 * of these is immutable.
 */
static bool
prepare_checks(Relation rel)
{
	TupleConstr *constr = RelationGetDescr(rel)->constr;
	int			count = constr == NULL ? 0 : constr->num_check;

	known.ncheck = 0;
	known.check = palloc(count * sizeof(ExprState *));
	known.check_columns = palloc(count * sizeof(Bitmapset *));
	known.econtext = CreateStandaloneExprContext();
	for (int i = 0; i < count; i++)
	{
		Expr	   *expr;

		if (!CHECK_IS_ENFORCED(constr->check[i]))
			continue;
		expr = stringToNode(constr->check[i].ccbin);
		if (calls_special_function((Node *) expr, NULL) ||
			contain_mutable_functions((Node *) expr))
			return false;
		known.check_columns[known.ncheck] =
			check_columns(&constr->check[i], (Node *) expr);
		expr = expression_planner(expr);
		known.check[known.ncheck++] = ExecInitExpr(expr, NULL);
	}
	return true;
}

/* Find the unique index on upload_id. */
static Oid
find_key_index(Relation rel)
{
	AttrNumber	attnum = get_attnum(RelationGetRelid(rel), "upload_id");
	Oid			result = InvalidOid;
	ListCell   *cell;

	foreach(cell, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);
		Form_pg_index form = index->rd_index;

		if (index->rd_rel->relam == BTREE_AM_OID &&
			form->indisunique && form->indimmediate && form->indisvalid &&
			form->indisready && form->indislive &&
			form->indnatts == 1 && form->indkey.values[0] == attnum &&
			RelationGetIndexPredicate(index) == NIL)
			result = RelationGetRelid(index);
		index_close(index, NoLock);
	}
	return result;
}

/* Tell whether a writable column has another type than the script gave it. */
static bool
has_other_types(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);
	const int  *map = column_map(rel->rd_rel->reltype, -1, desc);

	for (SessionColumn column = 0; column < COLUMN_COUNT; column++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, map[column]);
		Oid			type = OidIsValid(column_type(column)) ?
			column_type(column) : catalog_get()->status_type;

		if ((WRITABLE_COLUMNS & COLUMN_BIT(column)) != 0 &&
			(att->atttypid != type || att->atttypmod != -1))
			return true;
	}
	return false;
}

/* Say why a table is no ordinary one; NULL if it is. */
static const char *
find_obstacle(Relation rel)
{
	TupleConstr *constr = RelationGetDescr(rel)->constr;

	if (rel->rd_rel->relkind != RELKIND_RELATION ||
		rel->rd_rel->relispartition || rel->rd_rel->relhassubclass)
		return "it is partitioned, inherited or no table";
	if (rel->rd_rel->relam != HEAP_TABLE_AM_OID)
		return "its access method is not heap";
	if (rel->rd_rel->relrowsecurity)
		return "it has row-level security";
	if (rel->rd_rules != NULL)
		return "it has rules";
	if (rel->trigdesc != NULL)
		return "it has triggers";
	if (has_generated_columns(constr))
		return "it has generated columns";
	if (has_other_types(rel))
		return "its columns have other types";
	known.key_index = find_key_index(rel);
	if (!OidIsValid(known.key_index))
		return "upload_id has no unique index";
	if (!prepare_checks(rel))
		return "its CHECK constraints might run a user's code, or what not everybody may call";
	return NULL;
}

/* Learn about the table, if anything may have changed since the last time. */
static void
learn(Relation rel)
{
	uint64		as_of = catalog_version();
	MemoryContext caller;

	if (known.as_of == as_of && known.table == RelationGetRelid(rel))
		return;

	known.as_of = 0;
	if (known.context == NULL)
		known.context = AllocSetContextCreate(TopMemoryContext,
											  "vali_blob table",
											  ALLOCSET_SMALL_SIZES);
	MemoryContextReset(known.context);
	caller = MemoryContextSwitchTo(known.context);
	known.obstacle = find_obstacle(rel);
	MemoryContextSwitchTo(caller);
	known.table = RelationGetRelid(rel);
	known.as_of = as_of;
}

/*
 * Tell whether the direct way is open in a visit.  What is known may have
 * changed since the visit began, if SQL has run a trigger meanwhile.
 */
static bool
is_way_open(const Store *store)
{
	return store->rel != NULL && known.as_of != 0 && known.obstacle == NULL &&
		known.table == RelationGetRelid(store->rel);
}

/*
 * May the user do to the whole table what SQL would have to do?  If not, SQL
 * decides: privileges on columns may suffice.  That includes USAGE on the
 * schema, which nobody else has checked where our function is called through
 * a view or a function in another schema.
 */
static bool
may_access(Relation rel, LOCKMODE lockmode)
{
	AclMode		mode = lockmode == AccessShareLock ? ACL_SELECT :
		ACL_SELECT | ACL_UPDATE;

	/* a module that checks permissions, for auditing say, must see SQL */
	if (ExecutorCheckPerms_hook != NULL)
		return false;
	return object_aclcheck(NamespaceRelationId, RelationGetNamespace(rel),
						   GetUserId(), ACL_USAGE) == ACLCHECK_OK &&
		pg_class_aclmask(RelationGetRelid(rel), GetUserId(), mode,
						 ACLMASK_ALL) == mode;
}

/* Complain that the direct way cannot be forced. */
pg_noreturn static void
complain_indirect(const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("table upload_session cannot be accessed directly: %s", why),
			 errhint("Set vali_blob.row_access to \"auto\".")));
}

/*
 * Open the table that is called upload_session once it is locked: while we wait
 * for the lock, it may be dropped, or another one put in its place.
 */
static Relation
open_table(LOCKMODE lockmode)
{
	for (;;)
	{
		Oid			table = catalog_get()->session_table;
		Relation	rel = try_table_open(table, lockmode);

		if (rel == NULL)
			catalog_forget();
		else if (catalog_get()->session_table == table)
			return rel;
		else
			table_close(rel, lockmode);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Open the table, unless only SQL will do. */
void
direct_open(Store *store, LOCKMODE lockmode)
{
	Relation	rel;
	const char *obstacle;

	if (row_access_setting == ROW_ACCESS_SQL)
		return;

	rel = open_table(lockmode);
	learn(rel);
	obstacle = known.obstacle;
	if (obstacle == NULL && !may_access(rel, lockmode))
		obstacle = "the user's privileges must be checked by SQL";
	if (obstacle == NULL)
	{
		store->rel = rel;
		store->found = table_slot_create(rel, NULL);
		store->written = MakeSingleTupleTableSlot(RelationGetDescr(rel),
												  &TTSOpsVirtual);
		return;
	}
	if (row_access_setting == ROW_ACCESS_DIRECT)
		complain_indirect(obstacle);
	table_close(rel, NoLock);
}

/* Close the table; the lock stays until the end of the transaction. */
void
direct_close(Store *store)
{
	if (store->rel == NULL)
		return;
	ExecDropSingleTupleTableSlot(store->written);
	ExecDropSingleTupleTableSlot(store->found);
	table_close(store->rel, NoLock);
}

/* ---------- finding and locking ---------- */

/*
 * Find the version of a row that a snapshot sees, on a page that is pinned, and
 * tell whether there is room for a few more like it.
 */
static bool
find_version(Relation rel, Buffer buffer, ItemPointerData tid,
			 Snapshot snapshot, HeapTuple version, bool *all_dead,
			 bool *has_room)
{
	bool		found;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	found = heap_hot_search_buffer(&tid, rel, buffer, snapshot, version,
								   all_dead, true);
	*has_room = !found ||
		PageGetHeapFreeSpace(BufferGetPage(buffer)) >=
		ROOM_IN_VERSIONS * (MAXALIGN(version->t_len) + sizeof(ItemIdData));
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	return found;
}

/*
 * Fetch the version that a snapshot sees of a row in an index.  The access
 * method's index_fetch_tuple() would prune a page whenever it is fuller than its
 * fillfactor: since every chunk makes it so, that is a WAL record for each of
 * them.  Here it is pruned when the room for new versions runs out.
 */
static bool
fetch_version(Store *store, ItemPointer tid, Snapshot snapshot, bool *all_dead)
{
	Relation	rel = store->rel;
	HeapTuple	version = &((HeapTupleTableSlot *) store->found)->tupdata;
	Buffer		buffer = ReadBuffer(rel, ItemPointerGetBlockNumber(tid));
	bool		has_room;
	bool		found = find_version(rel, buffer, *tid, snapshot, version,
									 all_dead, &has_room);

	if (!has_room)
	{
		prune_page(rel, buffer);
		found = find_version(rel, buffer, *tid, snapshot, version, all_dead,
							 &has_room);
	}
	if (found)
		ExecStorePinnedBufferHeapTuple(version, store->found, buffer);
	else
		ReleaseBuffer(buffer);
	return found;
}

/* Find the row that a snapshot sees. */
static bool
find_row(Store *store, const text *upload_id, Snapshot snapshot)
{
	Relation	index = index_open(known.key_index, AccessShareLock);
	ScanKeyData key;
	IndexScanDesc scan;
	ItemPointer tid;
	bool		found = false;
	bool		all_dead;

	ScanKeyEntryInitialize(&key, 0, 1, BTEqualStrategyNumber, InvalidOid,
						   index->rd_indcollation[0], F_TEXTEQ,
						   PointerGetDatum(upload_id));
	ExecClearTuple(store->written);
	ExecClearTuple(store->found);
	scan = begin_index_scan(store->rel, index, snapshot, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	while (!found &&
		   (tid = index_getnext_tid(scan, ForwardScanDirection)) != NULL)
	{
		found = fetch_version(store, tid, snapshot, &all_dead);
		scan->kill_prior_tuple = all_dead && !scan->xactStartedInRecovery;
	}
	if (found)
		pgstat_count_heap_fetch(index);
	index_endscan(scan);
	index_close(index, NoLock);
	return found;
}

/* Fill a Session from the row found. */
static void
found_to_session(Store *store, Session *session)
{
	slot_getallattrs(store->found);
	values_to_session(store->found->tts_values, store->found->tts_isnull,
					  column_map(store->rel->rd_rel->reltype, -1,
								 RelationGetDescr(store->rel)),
					  session);
}

/* Lock the newest version of the row found, as FOR UPDATE does. */
static bool
lock_row(Store *store, LockWait wait)
{
	TM_FailureData failure;
	uint8		flags = TUPLE_LOCK_FLAG_LOCK_UPDATE_IN_PROGRESS;

	if (!IsolationUsesXactSnapshot())
		flags |= TUPLE_LOCK_FLAG_FIND_LAST_VERSION;
	return table_tuple_lock(store->rel, &store->found->tts_tid,
							GetActiveSnapshot(), store->found,
							GetCurrentCommandId(true), LockTupleExclusive,
							wait == LOCK_NOWAIT ? LockWaitSkip : LockWaitBlock,
							flags, &failure) == TM_Ok;
}

/* Tell whether a session still has the id by which it was found. */
static bool
has_upload_id(const Session *session, const text *upload_id)
{
	return DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID,
												PointerGetDatum(session->upload_id),
												PointerGetDatum(upload_id)));
}

/* Find a session as the calling query sees it. */
bool
direct_read(Store *store, const text *upload_id, Session *session)
{
	if (!is_way_open(store) ||
		!find_row(store, upload_id, GetActiveSnapshot()))
		return false;
	found_to_session(store, session);
	return has_upload_id(session, upload_id);
}

/* Find a session and lock it; the Session is its newest version. */
bool
direct_lock(Store *store, const text *upload_id, LockWait wait,
			Session *session)
{
	if (!is_way_open(store))
		return false;

	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	store->is_locked = find_row(store, upload_id, GetActiveSnapshot()) &&
		lock_row(store, wait);
	PopActiveSnapshot();
	if (!store->is_locked)
		return false;
	found_to_session(store, session);
	store->is_locked = has_upload_id(session, upload_id);
	return store->is_locked;
}

/* ---------- writing ---------- */

/* Make the new version of the locked row. */
static void
make_version(Store *store, const Session *session)
{
	TupleTableSlot *found = store->found;
	TupleTableSlot *written = store->written;
	const int  *map = column_map(store->rel->rd_rel->reltype, -1,
								 RelationGetDescr(store->rel));
	int			natts = RelationGetDescr(store->rel)->natts;

	ExecClearTuple(written);
	memcpy(written->tts_values, found->tts_values, natts * sizeof(Datum));
	for (int i = 0; i < natts; i++)
		written->tts_isnull[i] = found->tts_isnull[i] ||
			TupleDescAttr(RelationGetDescr(store->rel), i)->attisdropped;
	for (SessionColumn column = 0; column < COLUMN_COUNT; column++)
	{
		if ((session->changed & COLUMN_BIT(column)) != 0)
			written->tts_values[map[column]] =
				session_value(session, column, &written->tts_isnull[map[column]]);
	}
	ExecStoreVirtualTuple(written);
	written->tts_tableOid = RelationGetRelid(store->rel);
}

/* The columns that a change touches, as check_columns() names them. */
static Bitmapset *
changed_columns(Store *store, const Session *session)
{
	const int  *map = column_map(store->rel->rd_rel->reltype, -1,
								 RelationGetDescr(store->rel));
	Bitmapset  *columns = NULL;

	for (SessionColumn column = 0; column < COLUMN_COUNT; column++)
	{
		if ((session->changed & COLUMN_BIT(column)) != 0)
			columns = bms_add_member(columns, map[column] + 1 -
									 FirstLowInvalidHeapAttributeNumber);
	}
	return columns;
}

/*
 * Tell whether the new version satisfies the table's constraints.  A CHECK
 * whose columns have not changed is as true as it was; so a chunk need not
 * fetch JSON documents of many kilobytes to see that they still are objects.
 */
static bool
satisfies_constraints(TupleTableSlot *slot, const Bitmapset *changed)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;
	bool		satisfied = true;

	for (int i = 0; i < desc->natts; i++)
	{
		if (slot->tts_isnull[i] && TupleDescAttr(desc, i)->attnotnull)
			return false;
	}
	known.econtext->ecxt_scantuple = slot;
	for (int i = 0; i < known.ncheck && satisfied; i++)
	{
		if (known.check_columns[i] == NULL ||
			bms_overlap(known.check_columns[i], changed))
			satisfied = ExecCheck(known.check[i], known.econtext);
	}
	ResetExprContext(known.econtext);
	return satisfied;
}

/* Enter a version that is not HOT into the indexes. */
static void
enter_into_indexes(Relation rel, TupleTableSlot *slot, IndexesToUpdate indexes)
{
	EState	   *estate = CreateExecutorState();
	ResultRelInfo *result = makeNode(ResultRelInfo);

	InitResultRelInfo(result, rel, 0, NULL, 0);
	ExecOpenIndices(result, false);
	insert_index_tuples(result, slot, estate, indexes);
	ExecCloseIndices(result);
	FreeExecutorState(estate);
}

/* Write the changed columns of the locked session back. */
bool
direct_write(Store *store, Session *session)
{
	IndexesToUpdate indexes;

	if (!store->is_locked)
		return false;
	LockRelationOid(RelationGetRelid(store->rel), RowExclusiveLock);
	learn(store->rel);
	if (!is_way_open(store) || !may_access(store->rel, RowExclusiveLock))
		return false;
	make_version(store, session);
	if (!satisfies_constraints(store->written, changed_columns(store, session)))
		return false;

	store->is_locked = false;
	CheckCmdReplicaIdentity(store->rel, CMD_UPDATE);
	PushActiveSnapshot(GetTransactionSnapshot());
	simple_table_tuple_update(store->rel, &store->found->tts_tid,
							  store->written, GetActiveSnapshot(), &indexes);
	if (indexes != NO_INDEXES)
		enter_into_indexes(store->rel, store->written, indexes);
	PopActiveSnapshot();
	CommandCounterIncrement();
	session->changed = 0;
	return true;
}

/*
 * The row last found or written, with a value for each column: a row that was
 * there before a column was added has none stored.
 */
Datum
direct_row(Store *store)
{
	TupleTableSlot *slot = TTS_EMPTY(store->written) ?
		store->found : store->written;

	slot_getallattrs(slot);
	return HeapTupleGetDatum(toast_build_flattened_tuple(RelationGetDescr(store->rel),
														 slot->tts_values,
														 slot->tts_isnull));
}
