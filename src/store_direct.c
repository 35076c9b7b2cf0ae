/*-------------------------------------------------------------------------
 *
 * store_direct.c
 *		Access to the rows of upload_session through the heap: the fast path.
 *
 * Index probe, row lock, new row version, without the executor.  The fast path
 * is used only where its effects are indistinguishable from SQL's.  In any doubt
 * we fall back to SQL:
 *
 *	  - The table must be a plain one (table_info.c), and the user must have
 *		privileges on the whole of it (may_access()).
 *	  - A row that is not found, or cannot be locked at once and in one step, is
 *		looked for through SQL.  So a table whose rows are elsewhere (another
 *		extension has taken it over) never seems to be empty, and every error
 *		about a row that others have changed is SQL's own.
 *	  - A new version that would violate a constraint is written through SQL,
 *		which raises the error.
 *
 * What the executor does, we do here: the snapshot is taken as for a statement;
 * the index scan takes the predicate locks of SERIALIZABLE; constraints are
 * checked; a version that is not HOT gets its index entries; the table's replica
 * identity is respected; the access methods count statistics.  The one step
 * that goes beneath the table access method, to heap itself, is
 * fetch_version().
 *
 * Locks are taken in the same order as by SQL: the table as for SELECT ... FOR
 * UPDATE, the row, and the table as for UPDATE only if there is something to
 * write.  The second lock on the table cannot deadlock with other calls, as it
 * conflicts neither with itself nor with the first one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/heaptoast.h"
#include "access/relscan.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_namespace.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "compat.h"
#include "row.h"
#include "settings.h"
#include "store_internal.h"
#include "table_info.h"

/*
 * A page is pruned when it has room for fewer new versions than this: one for
 * now, the others in case that pruning does not succeed at once.
 */
#define ROOM_IN_VERSIONS 3

/* ---------- opening the table ---------- */

/*
 * Does the user have the privileges that SQL would require, on the whole table?
 * If not, SQL decides: privileges on columns may be enough.
 */
bool
may_access(Relation rel, ExtensionTable table, AclMode mode)
{
	typedef struct PrivilegeCache
	{
		Oid			user;
		Oid			relid;
		uint64		valid_for;	/* catalog_invalidations() */
		AclMode		mode;
	} PrivilegeCache;

	/* what was found last: the privileges that a user has on each table */
	static PrivilegeCache caches[TABLE_COUNT];
	PrivilegeCache *cache = &caches[table];

	/* a module that checks permissions, for auditing for example, needs SQL */
	if (ExecutorCheckPerms_hook != NULL)
		return false;

	if (cache->valid_for != catalog_invalidations() ||
		cache->user != GetUserId() || cache->relid != RelationGetRelid(rel))
	{
		cache->user = GetUserId();
		cache->relid = RelationGetRelid(rel);
		/* as of before we look: an invalidation meanwhile must not be lost */
		cache->valid_for = catalog_invalidations();
		cache->mode = 0;
	}
	if ((cache->mode & mode) == mode)
		return true;

	/*
	 * Nobody else has checked USAGE on the schema if our function was called
	 * through a view, or a function, in another schema.
	 */
	if (object_aclcheck(NamespaceRelationId, RelationGetNamespace(rel),
						GetUserId(), ACL_USAGE) != ACLCHECK_OK ||
		pg_class_aclmask(RelationGetRelid(rel), GetUserId(), mode,
						 ACLMASK_ALL) != mode)
		return false;
	cache->mode |= mode;
	return true;
}

/*
 * If the fast path is forced, report that it cannot be used for a table: because
 * of the table, or, if that is NULL, because of the user's privileges.
 */
void
report_indirect(ExtensionTable table, const char *unsupported)
{
	if (row_access_setting != ROW_ACCESS_DIRECT)
		return;
	if (unsupported == NULL)
		unsupported = "The user's privileges must be checked by SQL.";
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot access table \"%s\" directly", table_name(table)),
			 errdetail_internal("%s", unsupported),
			 errhint("Set vali_blob.row_access to \"auto\".")));
}

/* Open the table, if the fast path can be used. */
void
direct_open(struct Store *store, LOCKMODE lockmode)
{
	/* SQL relies on the lock, too: what it returns has the columns of now */
	Relation	rel = open_extension_table(TABLE_SESSION, lockmode);
	const char *unsupported;

	if (row_access_setting == ROW_ACCESS_SQL)
	{
		table_close(rel, NoLock);
		return;
	}
	unsupported = table_info_get(rel, TABLE_SESSION)->unsupported;
	if (unsupported == NULL &&
		may_access(rel, TABLE_SESSION, lockmode == AccessShareLock ? ACL_SELECT :
				   ACL_SELECT | ACL_UPDATE))
	{
		store->rel = rel;
		store->found = table_slot_create(rel, NULL);
		return;
	}
	report_indirect(TABLE_SESSION, unsupported);
	/* keep the lock, as SQL needs it too */
	table_close(rel, NoLock);
}

/* Close the table, keeping the lock. */
void
direct_close(struct Store *store)
{
	if (store->rel == NULL)
		return;
	if (store->written != NULL)
		ExecDropSingleTupleTableSlot(store->written);
	ExecDropSingleTupleTableSlot(store->found);
	table_close(store->rel, NoLock);
}

/*
 * Return what is known about the table, or NULL if the fast path cannot be used,
 * or no longer: a trigger that SQL has fired may have changed something.
 */
static const TableInfo *
usable_table(const struct Store *store)
{
	const TableInfo *info;

	if (store->rel == NULL)
		return NULL;
	info = table_info_get(store->rel, TABLE_SESSION);
	return info->unsupported == NULL ? info : NULL;
}

/* May several changes of the locked session be written as one? */
bool
direct_can_combine(const struct Store *store)
{
	const TableInfo *info;

	if (!store->is_locked)
		return false;
	info = usable_table(store);
	return info != NULL && info->can_combine;
}

/* ---------- finding and locking ---------- */

/*
 * Find the version of a row that a snapshot sees, on a page that is pinned.
 * *has_room: the page has room for some more versions of the row.
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
 * Fetch the version that a snapshot sees of a row that an index points to.
 *
 * heap's index_fetch_tuple() prunes a page that is fuller than its fillfactor.
 * Every chunk makes it so, so that would be a WAL record for each of them.  We
 * prune when the room for new versions runs out.
 */
static bool
fetch_version(struct Store *store, ItemPointer tid, Snapshot snapshot, bool *all_dead)
{
	Relation	rel = store->rel;
	HeapTuple	version = &((HeapTupleTableSlot *) store->found)->tupdata;
	Buffer		buffer = ReadBuffer(rel, ItemPointerGetBlockNumber(tid));
	bool		has_room;
	bool		found = find_version(rel, buffer, *tid, snapshot, version,
									 all_dead, &has_room);

	Assert(TTS_IS_BUFFERTUPLE(store->found));
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
find_row(struct Store *store, const TableInfo *info, const text *upload_id,
		 Snapshot snapshot)
{
	Relation	index = index_open(info->key_index, AccessShareLock);
	ScanKeyData key;
	IndexScanDesc scan;
	ItemPointer tid;
	bool		found = false;
	bool		all_dead;

	init_text_key(&key, index, upload_id);
	if (store->written != NULL)
		ExecClearTuple(store->written);
	ExecClearTuple(store->found);
	scan = begin_index_scan(store->rel, index, snapshot, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	while (!found &&
		   (tid = index_getnext_tid(scan, ForwardScanDirection)) != NULL)
	{
		found = fetch_version(store, tid, snapshot, &all_dead);
		/* index_fetch_heap(), which we have not called, would set this */
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
found_to_session(struct Store *store, const TableInfo *info, Session *session)
{
	slot_getallattrs(store->found);
	values_to_session(store->found->tts_values, store->found->tts_isnull,
					  info->map, session);
}

/* Find a session as the calling query sees it. */
bool
direct_read(struct Store *store, const text *upload_id, Session *session)
{
	const TableInfo *info = usable_table(store);

	if (info == NULL ||
		!find_row(store, info, upload_id, GetActiveSnapshot()))
		return false;
	found_to_session(store, info, session);
	return true;
}

/* Lock the newest version of the row found, as SELECT ... FOR UPDATE does. */
static bool
lock_found_row(struct Store *store, LockWait wait)
{
	TM_FailureData failure;
	uint8		flags;

	/* the flags are those of ExecLockRows() */
	flags = TUPLE_LOCK_FLAG_LOCK_UPDATE_IN_PROGRESS;
	/* the stricter isolation levels fail with 40001 if the row was updated */
	if (!IsolationUsesXactSnapshot())
		flags |= TUPLE_LOCK_FLAG_FIND_LAST_VERSION;

	/*
	 * Anything but TM_Ok is SQL's to deal with: the row is deleted, was changed
	 * by this command, or is held while we must not wait.  SQL finds the same
	 * and raises the error that belongs to it.
	 */
	return table_tuple_lock(store->rel, &store->found->tts_tid,
							GetActiveSnapshot(), store->found,
							GetCurrentCommandId(true), LockTupleExclusive,
							wait == LOCK_WAIT ? LockWaitBlock : LockWaitSkip,
							flags, &failure) == TM_Ok;
}

/* Find a session and lock it; the Session is its newest version. */
bool
direct_lock(struct Store *store, const text *upload_id, LockWait wait,
			Session *session)
{
	const TableInfo *info = usable_table(store);

	if (info == NULL)
		return false;

	/*
	 * As SQL does for every statement in a function that is VOLATILE: see what
	 * this transaction has done so far, and under READ COMMITTED what others
	 * have committed until now.
	 */
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	store->is_locked = find_row(store, info, upload_id, GetActiveSnapshot()) &&
		lock_found_row(store, wait);
	PopActiveSnapshot();

	if (!store->is_locked)
		return false;
	found_to_session(store, info, session);
	/* the newest version may have been given another upload_id */
	store->is_locked =
		DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID,
											 PointerGetDatum(session->upload_id),
											 PointerGetDatum(upload_id)));
	return store->is_locked;
}

/* ---------- writing ---------- */

/* Return the slot for a new version, empty; most calls do not write any. */
static TupleTableSlot *
empty_written_slot(struct Store *store)
{
	if (store->written == NULL)
	{
		/* it lives as long as the store; the caller may be in a shorter context */
		MemoryContext caller = MemoryContextSwitchTo(GetMemoryChunkContext(store));

		store->written = MakeSingleTupleTableSlot(RelationGetDescr(store->rel),
												  &TTSOpsVirtual);
		MemoryContextSwitchTo(caller);
	}
	return ExecClearTuple(store->written);
}

/* Set columns of a row; false if one is missing, which SQL reports. */
static bool
set_columns(const TableInfo *info, const Session *session, ColumnSet columns,
			TupleTableSlot *slot)
{
	for (SessionColumn column = 0; column < COLUMN_COUNT; column++)
	{
		int			i = info->map[column];

		if ((columns & COLUMN_BIT(column)) == 0)
			continue;
		if (i == COLUMN_MISSING)
			return false;
		slot->tts_values[i] = session_value(session, column,
											&slot->tts_isnull[i]);
	}
	return true;
}

/* Form the new version of the locked row; false if the table rejects it. */
static bool
form_new_version(struct Store *store, const TableInfo *info, const Session *session)
{
	TupleDesc	desc = RelationGetDescr(store->rel);
	TupleTableSlot *found = store->found;
	TupleTableSlot *written = empty_written_slot(store);

	memcpy(written->tts_values, found->tts_values, desc->natts * sizeof(Datum));
	/* as the executor does, do not carry values of dropped columns on */
	for (int i = 0; i < desc->natts; i++)
		written->tts_isnull[i] = found->tts_isnull[i] ||
			TupleDescAttr(desc, i)->attisdropped;
	if (!set_columns(info, session, session->changed, written))
		return false;
	ExecStoreVirtualTuple(written);
	written->tts_tableOid = RelationGetRelid(store->rel);
	return satisfies_constraints(info, written, session->changed);
}

/* Would the table accept the new version of the locked session? */
bool
direct_accepts(struct Store *store, const Session *session)
{
	const TableInfo *info = usable_table(store);

	return info != NULL && store->is_locked &&
		form_new_version(store, info, session);
}

/* Insert the index entries of a new row, or of a version that is not HOT. */
static void
insert_index_entries(Relation rel, TupleTableSlot *slot, bool is_update,
					 bool only_summarizing)
{
	EState	   *estate = CreateExecutorState();
	ResultRelInfo *result = makeNode(ResultRelInfo);

	InitResultRelInfo(result, rel, 0, NULL, 0);
	ExecOpenIndices(result, false);
	insert_index_tuples(result, slot, estate, is_update, only_summarizing);
	ExecCloseIndices(result);
	FreeExecutorState(estate);
}

/* Insert a row into a table and its indexes. */
void
insert_row_directly(Relation rel, TupleTableSlot *slot)
{
	/* for what is toasted, and for index expressions */
	PushActiveSnapshot(GetTransactionSnapshot());
	simple_table_tuple_insert(rel, slot);
	insert_index_entries(rel, slot, false, false);
	PopActiveSnapshot();
	/* let the rest of the transaction see it */
	CommandCounterIncrement();
}

/*
 * Insert a session; it becomes the row as stored.  A row that violates a
 * constraint takes an id, and another one when SQL inserts it.
 */
bool
direct_insert(struct Store *store, Session *session)
{
	const TableInfo *info = usable_table(store);
	TupleTableSlot *written;
	ColumnSet	columns = inserted_columns(session);

	if (info == NULL || !info->can_insert ||
		!may_access(store->rel, TABLE_SESSION, ACL_SELECT | ACL_INSERT))
		return false;

	written = empty_written_slot(store);
	memset(written->tts_isnull, true,
		   RelationGetDescr(store->rel)->natts * sizeof(bool));
	fill_defaults(info, columns, written);
	if (!set_columns(info, session, columns, written))
		return false;
	ExecStoreVirtualTuple(written);
	written->tts_tableOid = RelationGetRelid(store->rel);
	if (!satisfies_constraints(info, written, ALL_COLUMNS))
		return false;

	/*
	 * Index expressions may run the code of a user, after which what we know of
	 * the table, and the defaults in its memory, may be gone.
	 */
	ExecMaterializeSlot(written);
	values_to_session(written->tts_values, written->tts_isnull, info->map,
					  session);

	insert_row_directly(store->rel, written);
	return true;
}

/* Has this transaction written a row version? */
static bool
is_own_version(TupleTableSlot *slot)
{
	bool		is_null;
	Datum		xmin = slot_getsysattr(slot, MinTransactionIdAttributeNumber,
									   &is_null);

	return TransactionIdIsCurrentTransactionId(DatumGetTransactionId(xmin));
}

/* Write the changed columns of the locked session. */
bool
direct_update(struct Store *store, Session *session)
{
	const TableInfo *info;
	TU_UpdateIndexes update_indexes;

	Assert((session->changed & ~column_set(COLUMN_WRITABLE)) == 0);
	if (!store->is_locked)
		return false;

	/*
	 * The lock that UPDATE takes.  To wait for it may have let others change
	 * the table, or revoke a privilege, so everything is checked again.
	 */
	LockRelationOid(RelationGetRelid(store->rel), RowExclusiveLock);
	info = usable_table(store);
	if (info == NULL || !may_access(store->rel, TABLE_SESSION, ACL_SELECT | ACL_UPDATE))
		return false;

	/*
	 * If this transaction wrote the row version, the check of its foreign keys
	 * may still be queued, and will skip that version once we have replaced it.
	 * SQL queues a new check.
	 */
	if (info->has_foreign_keys && is_own_version(store->found))
		return false;
	if (!form_new_version(store, info, session))
		return false;

	store->is_locked = false;
	CheckCmdReplicaIdentity(store->rel, CMD_UPDATE);
	/* for what is toasted, and for index expressions */
	PushActiveSnapshot(GetTransactionSnapshot());
	/* cannot fail for a concurrent change, as we hold the row lock */
	simple_table_tuple_update(store->rel, &store->found->tts_tid,
							  store->written, GetActiveSnapshot(),
							  &update_indexes);
	if (update_indexes != TU_None)
		insert_index_entries(store->rel, store->written, true,
							 only_summarizing_indexes(update_indexes));
	PopActiveSnapshot();
	/* let the rest of the transaction see it */
	CommandCounterIncrement();
	session->changed = 0;
	return true;
}

/* Return the row found last, or the version written of it. */
Datum
direct_row(struct Store *store)
{
	TupleTableSlot *slot = store->written == NULL || TTS_EMPTY(store->written) ?
		store->found : store->written;

	slot_getallattrs(slot);
	/* not the stored tuple: it lacks columns that were added after it */
	return HeapTupleGetDatum(toast_build_flattened_tuple(RelationGetDescr(store->rel),
														 slot->tts_values,
														 slot->tts_isnull));
}
