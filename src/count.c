/*-------------------------------------------------------------------------
 *
 * count.c
 *		How many sessions there are of each status.
 *
 * Monitoring asks every few seconds, and no index has the status (see the
 * installation script): so counting reads the whole table.  Of a large one that
 * is done for a hundredth of the time only.  In between, the live sessions are
 * still counted exactly, because an ended session never becomes live again, and
 * ids rise.  What is live now, was live when this backend counted before, and is
 * found by its id; or it has a higher id than all sessions had then.
 *
 * "Than all had then" takes some care: a transaction that has drawn an id may
 * commit it after ids that were drawn later.  Whoever inserts has locked the table
 * before it draws the id.  So we read the sequence, then look who holds such a
 * lock; once all of them have ended, a snapshot sees every id up to the one
 * that we have read.  Until then the previous one is kept.
 *
 * This does not see a session that somebody else than the sequence gives a lower
 * id (a backend with another vali_blob.node may), or makes live again, until all
 * are counted the next time.  Where the
 * sequence cannot tell (a standby, a sequence with a cache), or so many are live
 * that finding them costs more than reading all, the live ones are of the last
 * count, too; and the view says so.
 *
 * What a backend has counted it keeps for itself.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "count.h"
#include "statement.h"

/* A table of so many pages is counted each time, which takes milliseconds. */
#define SMALL_TABLE_PAGES 1024

/* All sessions are counted again after so many times what that took. */
#define COUNT_PAUSE 100

/* Looking for one session by its id costs as much as reading so many. */
#define LOOKUP_COST 8

/* How long we wait for those who may have drawn an id, in steps of 10 ms */
#define MAX_WAITS 100

#define IS_LIVE \
	"(status OPERATOR(pg_catalog.=) 'pending' OR status OPERATOR(pg_catalog.=) 'in_progress')"

#define COUNT_COLUMNS \
	"status, " IS_LIVE ", pg_catalog.count(*), " BYTES_SUM("uploaded_bytes") ", " \
	"pg_catalog.min(expires_at)"

static Statement count_all = {
	.text = "SELECT " COUNT_COLUMNS " FROM @.upload_session GROUP BY status",
	.nargs = 0,
	.many_rows = true,
};

/* ... and the ids of live ones up to one, and how many have a higher id */
static Statement count_and_list = {
	.text = "SELECT " COUNT_COLUMNS ", "
	"pg_catalog.array_agg(id::pg_catalog.int8) FILTER (WHERE " IS_LIVE " AND id OPERATOR(pg_catalog.<=) $1), "
	"pg_catalog.count(*) FILTER (WHERE id OPERATOR(pg_catalog.>) $1) "
	"FROM @.upload_session GROUP BY status",
	.nargs = 1,
	.argtypes = {INT8OID},
	.many_rows = true,
};

/* The live ones among those with some ids, and those with an id beyond one */
static Statement count_live = {
	.text = "SELECT " COUNT_COLUMNS ", "
	"pg_catalog.array_agg(id::pg_catalog.int8) FILTER (WHERE id OPERATOR(pg_catalog.<=) $3), "
	"0::pg_catalog.int8 FROM ("
	"SELECT id, status, uploaded_bytes, expires_at FROM @.upload_session "
	"WHERE id OPERATOR(pg_catalog.=) ANY ($1) "
	"UNION ALL SELECT id, status, uploaded_bytes, expires_at FROM @.upload_session "
	"WHERE id OPERATOR(pg_catalog.>) $2) AS s WHERE " IS_LIVE " GROUP BY status",
	.nargs = 3,
	.argtypes = {INT8ARRAYOID, INT8OID, INT8OID},
	.many_rows = true,
};

/* The last id that was drawn, if every id is drawn when a session starts */
static Statement read_last_id = {
	.text = "SELECT pg_catalog.pg_sequence_last_value(s.seqrelid) "
	"FROM pg_catalog.pg_depend AS d "
	"JOIN pg_catalog.pg_attribute AS a ON a.attrelid OPERATOR(pg_catalog.=) d.refobjid "
	"AND a.attnum OPERATOR(pg_catalog.=) d.refobjsubid "
	"JOIN pg_catalog.pg_sequence AS s ON s.seqrelid OPERATOR(pg_catalog.=) d.objid "
	"WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass "
	"AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass "
	"AND d.refobjid OPERATOR(pg_catalog.=) $1 AND d.deptype OPERATOR(pg_catalog.=) 'i' "
	"AND a.attname OPERATOR(pg_catalog.=) 'id' "
	"AND s.seqcache OPERATOR(pg_catalog.=) 1 AND s.seqincrement OPERATOR(pg_catalog.>) 0 "
	"AND NOT s.seqcycle "
	"AND pg_catalog.has_sequence_privilege(s.seqrelid, 'USAGE, SELECT')",
	.nargs = 1,
	.argtypes = {OIDOID},
};

/* Up to which id a snapshot sees all sessions that it will ever see */
typedef struct Settled
{
	bool		is_known;
	int64		id;
	/* and up to which id it does once these transactions have ended */
	bool		is_pending;
	int64		pending_id;
	VirtualTransactionId *pending;
} Settled;

/* What was counted last; it is all in one memory context. */
typedef struct Kept
{
	MemoryContext context;
	Oid			relid;
	Oid			relfilenode;	/* TRUNCATE may restart the sequence, too */
	SessionCount count;
	int64		duration;		/* of the count of all, in microseconds */
	Settled		settled;
	bool		has_list;		/* the live ones up to settled.id are in ... */
	List	   *lists;			/* ... these arrays of ids */
} Kept;

static Kept *kept = NULL;

/* ---------- the ids that are settled ---------- */

/* Read the last id that was drawn; false if the sequence cannot tell. */
static bool
get_last_id(Oid relid, int64 *id)
{
	Datum		values[] = {ObjectIdGetDatum(relid)};
	bool		is_null = true;

	if (RecoveryInProgress())
		return false;
	statement_run(&read_last_id, values, NULL, true);
	if (SPI_processed == 1)
		*id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
										  SPI_tuptable->tupdesc, 1, &is_null));
	return !is_null && id_of_value(*id, id);
}

/* Return the transactions that may insert into a table; NULL if there are none. */
static VirtualTransactionId *
get_writers(Oid relid)
{
	LOCKTAG		tag;
	int			all;
	int			count = 0;
	VirtualTransactionId *writers;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	writers = GetLockConflicts(&tag, ShareLock, &all);
	/* a VACUUM, which may take long, inserts nothing */
	for (int i = 0; i < all; i++)
	{
		if (!is_vacuum(writers[i]))
			writers[count++] = writers[i];
	}
	writers[count] = writers[all];
	return count > 0 ? writers : NULL;
}

/* Have these transactions ended? */
static bool
have_ended(const VirtualTransactionId *transactions)
{
	for (; VirtualTransactionIdIsValid(*transactions); transactions++)
	{
		if (!VirtualXactLock(*transactions, false))
			return false;
	}
	return true;
}

/*
 * Find out up to which id all sessions are settled for a snapshot that is taken
 * after this; if nothing is known yet, and may_wait is true, wait for it.
 */
static void
settle(Oid relid, Settled *settled, bool may_wait)
{
	int64		last_id = 0;

	/* or was the sequence set back? */
	if (!get_last_id(relid, &last_id) ||
		(settled->is_known && last_id < settled->id) ||
		(settled->is_pending && last_id < settled->pending_id))
	{
		memset(settled, 0, sizeof(Settled));
		return;
	}
	if (!settled->is_pending)
	{
		settled->is_pending = true;
		settled->pending_id = last_id;
		settled->pending = get_writers(relid);
	}
	for (int waits = 0;; waits++)
	{
		if (settled->pending == NULL || have_ended(settled->pending))
		{
			settled->is_known = true;
			settled->id = settled->pending_id;
			settled->is_pending = false;
			return;
		}
		if (settled->is_known || !may_wait || waits == MAX_WAITS)
			return;
		CHECK_FOR_INTERRUPTS();
		pg_usleep(10000L);
	}
}

/* ---------- counting ---------- */

/* Append what a statement has counted, by whether it is live, and its lists. */
static int64
read_counts(List **live, List **ended, List **lists)
{
	int64		listed = 0;

	for (uint64 row = 0; row < SPI_processed; row++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[row];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		StatusCount *count = palloc0(sizeof(StatusCount));
		bool		is_null;
		Datum		deadline;

		count->status = SPI_getbinval(tuple, desc, 1, &is_null);
		count->is_live = DatumGetBool(SPI_getbinval(tuple, desc, 2, &is_null));
		count->sessions = DatumGetInt64(SPI_getbinval(tuple, desc, 3, &is_null));
		count->bytes = DatumGetInt64(SPI_getbinval(tuple, desc, 4, &is_null));
		deadline = SPI_getbinval(tuple, desc, 5, &is_null);
		count->has_deadline = !is_null;
		if (!is_null)
			count->first_expires_at = DatumGetTimestampTz(deadline);
		if (count->is_live)
			*live = lappend(*live, count);
		else
			*ended = lappend(*ended, count);

		if (lists != NULL)
		{
			Datum		ids = SPI_getbinval(tuple, desc, 6, &is_null);

			if (!is_null)
			{
				ArrayType  *list = DatumGetArrayTypePCopy(ids);

				*lists = lappend(*lists, list);
				listed += ArrayGetNItems(ARR_NDIM(list), ARR_DIMS(list));
			}
			listed += DatumGetInt64(SPI_getbinval(tuple, desc, 7, &is_null));
		}
	}
	return listed;
}

/* Return all the ids of some arrays in one. */
static ArrayType *
concatenate_lists(List *lists)
{
	int			count = 0;
	int			done = 0;
	Datum	   *ids;
	int16		length_of_id;
	bool		by_value;
	char		align;
	ArrayType  *result;
	ListCell   *cell;

	foreach(cell, lists)
		count += ArrayGetNItems(ARR_NDIM((ArrayType *) lfirst(cell)),
								ARR_DIMS((ArrayType *) lfirst(cell)));
	ids = palloc(Max(count, 1) * sizeof(Datum));
	foreach(cell, lists)
	{
		ArrayType  *list = lfirst(cell);
		int			length = ArrayGetNItems(ARR_NDIM(list), ARR_DIMS(list));

		for (int i = 0; i < length; i++)
			ids[done++] = Int64GetDatum(((int64 *) ARR_DATA_PTR(list))[i]);
	}
	get_typlenbyvalalign(INT8OID, &length_of_id, &by_value, &align);
	result = construct_array(ids, count, INT8OID, length_of_id, by_value, align);
	pfree(ids);
	return result;
}

/* Count all sessions, and list the live ones. */
static void
count_whole_table(Kept *new)
{
	TimestampTz start = GetCurrentTimestamp();
	SessionCount *count = &new->count;
	Datum		values[] = {
		Int64GetDatum(new->settled.is_known ? new->settled.id : PG_INT64_MIN),
	};
	int64		listed;
	int64		all = 0;
	ListCell   *cell;

	memset(count, 0, sizeof(SessionCount));
	new->lists = NIL;
	statement_run(&count_and_list, values, NULL, true);
	listed = read_counts(&count->live, &count->ended, &new->lists);
	foreach(cell, count->live)
		all += ((StatusCount *) lfirst(cell))->sessions;
	foreach(cell, count->ended)
		all += ((StatusCount *) lfirst(cell))->sessions;
	new->has_list = new->settled.is_known && listed < all / LOOKUP_COST;
	if (!new->has_list)
	{
		list_free_deep(new->lists);
		new->lists = NIL;
	}
	count->live_at = count->ended_at = start;
	count->is_live_exact = count->is_ended_exact = true;
	new->duration = GetCurrentTimestamp() - start;
}

/* Count the live sessions, of those that were listed and of newer ones. */
static void
count_from_list(const Kept *old, Kept *new)
{
	SessionCount *count = &new->count;
	List	   *ended = NIL;
	int			guc_level = NewGUCNestLevel();
	Datum		values[] = {
		PointerGetDatum(concatenate_lists(old->lists)),
		Int64GetDatum(old->settled.id),
		Int64GetDatum(new->settled.id),
	};

	/* whatever the planner thinks of that many ids */
	set_config_option("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION,
					  GUC_ACTION_SAVE, true, 0, false);
	count->live = NIL;
	count->live_at = GetCurrentTimestamp();
	new->lists = NIL;
	statement_run(&count_live, values, NULL, true);
	(void) read_counts(&count->live, &ended, &new->lists);
	pfree(DatumGetPointer(values[0]));
	AtEOXact_GUC(false, guc_level);
}

/* Return a copy of what was counted of some statuses. */
static List *
copy_counts(const List *counts)
{
	List	   *copy = NIL;
	ListCell   *cell;

	foreach(cell, counts)
	{
		StatusCount *count = palloc(sizeof(StatusCount));

		*count = *(StatusCount *) lfirst(cell);
		copy = lappend(copy, count);
	}
	return copy;
}

/* Must all sessions be counted again? */
static bool
is_count_due(const Kept *old)
{
	TimestampTz now = GetCurrentTimestamp();

	return old == NULL || now < old->count.ended_at ||
		now - old->count.ended_at >= COUNT_PAUSE * old->duration;
}

/*
 * Keep what was counted for the next time, unless this transaction has written:
 * what it has ended may be live again after a rollback.
 */
static void
keep(Kept *new)
{
	MemoryContext old = kept != NULL ? kept->context : NULL;

	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		return;
	MemoryContextSetParent(new->context, TopMemoryContext);
	kept = new;
	if (old != NULL)
		MemoryContextDelete(old);
}

/* Begin to count, in a memory context of its own, with what is known. */
static Kept *
begin_count(Relation sessions, const Kept *old)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "vali_blob count",
												  ALLOCSET_DEFAULT_SIZES);
	Kept	   *new = MemoryContextAllocZero(context, sizeof(Kept));

	if (old != NULL)
		*new = *old;
	new->context = context;
	new->relid = RelationGetRelid(sessions);
	new->relfilenode = sessions->rd_rel->relfilenode;
	if (old != NULL && old->settled.is_pending)
	{
		int			count = 1;

		while (VirtualTransactionIdIsValid(old->settled.pending[count - 1]))
			count++;
		new->settled.pending =
			MemoryContextAlloc(context, count * sizeof(VirtualTransactionId));
		memcpy(new->settled.pending, old->settled.pending,
			   count * sizeof(VirtualTransactionId));
	}
	return new;
}

/* Count the sessions of a large table, or only what can be counted cheaply. */
static void
count_large_table(Relation sessions, SessionCount *result)
{
	MemoryContext caller = CurrentMemoryContext;
	Kept	   *old = kept != NULL && kept->relid == RelationGetRelid(sessions) &&
		kept->relfilenode == sessions->rd_rel->relfilenode ? kept : NULL;
	Kept	   *new = begin_count(sessions, old);
	bool		is_due = is_count_due(old);

	MemoryContextSwitchTo(new->context);
	settle(new->relid, &new->settled, is_due);
	/* what was committed since the query began counts, see settle() */
	PushActiveSnapshot(GetTransactionSnapshot());
	if (is_due || (old->has_list && !new->settled.is_known))
		count_whole_table(new);
	else
	{
		new->count.ended = copy_counts(old->count.ended);
		new->count.is_ended_exact = false;
		if (old->has_list)
			count_from_list(old, new);
		else
		{
			new->count.live = copy_counts(old->count.live);
			new->count.is_live_exact = false;
		}
	}
	PopActiveSnapshot();
	MemoryContextSwitchTo(caller);
	*result = new->count;
	keep(new);
}

/*
 * Count the sessions of each status, as the table's owner.  If "exact" is false,
 * some figures may be of before; SPI is connected.
 */
void
count_sessions(Relation sessions, bool exact, SessionCount *result)
{
	/* a snapshot that is older than what we keep would miss what was live then */
	if (!exact && sessions->rd_rel->relkind == RELKIND_RELATION &&
		!sessions->rd_rel->relhassubclass && !IsolationUsesXactSnapshot() &&
		RelationGetNumberOfBlocks(sessions) > SMALL_TABLE_PAGES)
	{
		count_large_table(sessions, result);
		return;
	}
	memset(result, 0, sizeof(SessionCount));
	result->live_at = result->ended_at = GetCurrentTimestamp();
	result->is_live_exact = result->is_ended_exact = true;
	statement_run(&count_all, NULL, NULL, true);
	(void) read_counts(&result->live, &result->ended, NULL);
}
