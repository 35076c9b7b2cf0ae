/*-------------------------------------------------------------------------
 *
 * sweep.c
 *		One batch of expiry and purge.
 *
 * Rows are found through the index on (status, expires_at), locked with SKIP
 * LOCKED, and judged again once locked: a chunk that arrives at the same time
 * either was first, and the session lives, or finds it expired.  Whatever
 * keeps a row locked keeps only that row from this batch.
 *
 * Since no lock is waited for, two sweeps cannot deadlock with each other, nor
 * a sweep with anything else.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "arguments.h"
#include "lifecycle.h"
#include "reclaim.h"
#include "settings.h"
#include "store.h"

PG_FUNCTION_INFO_V1(vali_blob_sweep_uploads);

/*
 * What is done to a session that was overdue when the batch began; false if
 * it is not overdue after all.
 */
typedef bool (*SweepAction) (Session *session, TimestampTz batch_start);

/* Expire a live session that is past its deadline. */
static bool
expire(Session *session, TimestampTz batch_start pg_attribute_unused())
{
	if (!session_expire(session, GetCurrentTimestamp()))
		return false;
	store_write(session);
	return true;
}

/* Remove an ended session that has been kept for long enough. */
static bool
purge(Session *session, TimestampTz batch_start)
{
	if (!session_is_purgeable(session, batch_start))
		return false;
	store_delete(session);
	return true;
}

/* Act on the overdue sessions of one status, and say on how many. */
static int64
sweep_status(SessionStatus status, SweepAction act, TimestampTz batch_start,
			 int64 limit)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext scratch;
	Portal		portal;
	Session		session;
	int64		done = 0;

	if (limit <= 0)
		return 0;
	scratch = AllocSetContextCreate(caller, "vali_blob sweep",
									ALLOCSET_SMALL_SIZES);
	portal = store_open_due(status, batch_start, limit);
	MemoryContextSwitchTo(scratch);
	while (store_fetch(portal, &session))
	{
		CHECK_FOR_INTERRUPTS();
		if (act(&session, batch_start))
			done++;
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);
	SPI_cursor_close(portal);
	return done;
}

/*
 * Sweep one batch of at most so many rows.  Expiry comes first, as clients
 * and storage wait for it; what expires now is purged by a later batch at the
 * earliest.
 */
static void
sweep_batch(int64 max_rows, int64 *expired, int64 *purged)
{
	TimestampTz batch_start = GetCurrentTimestamp();

	*expired = sweep_status(STATUS_PENDING, expire, batch_start, max_rows);
	*expired += sweep_status(STATUS_IN_PROGRESS, expire, batch_start,
							 max_rows - *expired);
	*purged = 0;
	for (SessionStatus status = STATUS_COMPLETE; status <= STATUS_EXPIRED; status++)
		*purged += sweep_status(status, purge, batch_start,
								max_rows - *expired - *purged);
	purge_reclaims(batch_start, max_rows - *expired - *purged);
}

/* sweep_uploads(max_rows): sweep one batch, for servers without the worker. */
Datum
vali_blob_sweep_uploads(PG_FUNCTION_ARGS)
{
	int64		max_rows = sweep_batch_size_setting;
	int64		expired;
	int64		purged;
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	PreventCommandIfReadOnly("sweep_uploads()");
	if (!PG_ARGISNULL(0))
		max_rows = positive_count(fcinfo, 0, "max_rows");
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "sweep_uploads() must return a row");

	store_open();
	sweep_batch(max_rows, &expired, &purged);
	store_close();
	values[0] = Int64GetDatum(expired);
	values[1] = Int64GetDatum(purged);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, nulls)));
}
