/*-------------------------------------------------------------------------
 *
 * sweep.c
 *		Expiry and purge, in batches.
 *
 * A pass scans the due sessions of each status through the index on (status,
 * expires_at), and after them the old rows of the reclaim queue.  Rows are
 * locked with SKIP LOCKED and judged again once locked: a chunk that arrives
 * at the same time either was first, and the session lives, or finds it
 * expired.  Since no row is waited for, two sweeps cannot deadlock with each
 * other, nor a sweep with a chunk.
 *
 * A batch runs in a subtransaction.  If that fails, because a trigger rejects one
 * of the rows for example, the batch is run again with a subtransaction for each
 * row, and the rows that fail are left out of the rest of the pass.  So an
 * ordinary batch does not pay for a subtransaction per row, which would also
 * slow down the snapshots of all other backends.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "arguments.h"
#include "change.h"
#include "errors.h"
#include "lifecycle.h"
#include "reclaim.h"
#include "row.h"
#include "settings.h"
#include "statement.h"
#include "store.h"
#include "sweep.h"

PG_FUNCTION_INFO_V1(vali_blob_sweep_uploads);

/*
 * The order of the scans in a batch.  Expiry comes first, as clients and
 * storage wait for it.
 */
static const SessionStatus scan_order[] = {
	STATUS_PENDING, STATUS_IN_PROGRESS,
	STATUS_COMPLETE, STATUS_ABORTED, STATUS_EXPIRED
};

StaticAssertDecl(lengthof(scan_order) == STATUS_COUNT,
				 "every status needs a scan");

typedef struct Batch
{
	SweepPass  *pass;
	int64		max_rows;
	int64		duration;		/* milliseconds after which it ends; 0: any */
	TimestampTz until;
	void		(*delay_point) (void);	/* called after each row, if not NULL */
	bool		per_row;		/* use a subtransaction for each row */
} Batch;

/* Tasks that may run in subtransactions */
typedef struct RowTask
{
	SweepPass  *pass;
	const Session *due;
} RowTask;

typedef struct ReclaimTask
{
	SweepPass  *pass;
	int64		max_rows;
} ReclaimTask;

/*
 * Begin a pass.  "positions" are what sweep_get_positions() has returned of
 * one that did not come to its end; without them, all scans start from the
 * beginning.
 */
void
sweep_begin(SweepPass *pass, const TimestampTz *positions)
{
	memset(pass, 0, sizeof(SweepPass));
	pass->start = GetCurrentTimestamp();
	for (int i = 0; i < STATUS_COUNT; i++)
		pass->scans[i].position = positions == NULL ? DT_NOBEGIN : positions[i];
}

/* Is nothing left to do? */
bool
sweep_is_over(const SweepPass *pass)
{
	for (int i = 0; i < STATUS_COUNT; i++)
	{
		if (!pass->scans[i].is_exhausted)
			return false;
	}
	return pass->reclaims_done;
}

/*
 * Where the next pass is to begin each scan.  One that was exhausted begins
 * anew, to find the rows that were locked when it came by.
 */
void
sweep_get_positions(const SweepPass *pass, TimestampTz *positions)
{
	for (int i = 0; i < STATUS_COUNT; i++)
		positions[i] = pass->scans[i].is_exhausted ? DT_NOBEGIN :
			pass->scans[i].position;
}

/* Move a scan on; the rows that failed are not met at another position. */
static void
move_to(SweepScan *scan, TimestampTz position)
{
	if (position == scan->position)
		return;
	scan->position = position;
	scan->failed_count = 0;
}

/* Sweep a session that a cursor has locked. */
static void
sweep_row(void *argument)
{
	RowTask    *task = argument;
	SweepPass  *pass = task->pass;
	Store	   *store = store_open(RowExclusiveLock);

	/* it locks the row once more, which costs little and cannot wait */
	switch (sweep_session(store, task->due->upload_id, pass->start))
	{
		case SWEEP_EXPIRED:
			pass->done.expired++;
			break;
		case SWEEP_PURGED:
			pass->done.purged++;
			break;
		case SWEEP_NOTHING:
			break;
	}
	store_close(store);
}

/* Drop old rows of the reclaim queue. */
static void
sweep_reclaims(void *argument)
{
	ReclaimTask *task = argument;
	int64		dropped = purge_reclaims(task->pass->start, task->max_rows);

	task->pass->done.reclaims_dropped += dropped;
	task->pass->reclaims_done = dropped < task->max_rows;
}

/* Record that something could not be swept, and why. */
static void
record_failure(SweepPass *pass, const char *what, const ErrorData *error)
{
	pass->failed++;
	copy_clipped(pass->error, psprintf("%s: %s", what, error->message),
				 sizeof(pass->error));
}

/* Return the rows that have failed at a scan's position, as an array. */
static ArrayType *
failed_ids(const SweepScan *scan)
{
	Datum		ids[SWEEP_MAX_FAILED_IDS];

	for (int i = 0; i < scan->failed_count; i++)
		ids[i] = Int64GetDatum(scan->failed_ids[i]);
	return construct_array(ids, scan->failed_count, INT8OID, sizeof(int64),
						   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
}

/*
 * Sweep sessions of one status that were due at a moment, from the scan's
 * position on.  Returns how many were swept.  The scan is exhausted when there
 * are no more.
 */
static int64
run_scan(const Batch *batch, SessionStatus status, TimestampTz due_at,
		 int64 max_rows)
{
	SweepPass  *pass = batch->pass;
	SweepScan  *scan = &pass->scans[status];
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext row_context = AllocSetContextCreate(caller, "vali_blob sweep",
													  ALLOCSET_SMALL_SIZES);
	Portal		portal = store_open_due(status, scan->position, due_at,
										failed_ids(scan), max_rows);
	Session		session;
	RowTask		task = {.pass = pass, .due = &session};
	int64		fetched = 0;
	int64		failed = 0;
	bool		in_time;

	MemoryContextSwitchTo(row_context);
	while ((in_time = GetCurrentTimestamp() < batch->until) &&
		   scan->failed_count < SWEEP_MAX_FAILED_IDS &&
		   store_fetch(portal, &session))
	{
		ErrorData  *error = NULL;

		CHECK_FOR_INTERRUPTS();
		fetched++;
		move_to(scan, session.expires_at);
		if (batch->per_row)
			error = in_subtransaction(sweep_row, &task);
		else
			sweep_row(&task);
		if (error != NULL)
		{
			failed++;
			scan->failed_ids[scan->failed_count++] = session.id;
			record_failure(pass, psprintf("upload \"%s\"",
										  shown_text(session.upload_id)), error);
		}
		MemoryContextReset(row_context);
		if (batch->delay_point != NULL)
			batch->delay_point();
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(row_context);
	SPI_cursor_close(portal);

	/* give up the rest of a position at which too many rows have failed */
	if (scan->failed_count == SWEEP_MAX_FAILED_IDS)
		move_to(scan, scan->position + 1);
	else
		scan->is_exhausted = in_time && fetched < max_rows;
	return fetched - failed;
}

/*
 * Sweep until the batch is full or nothing is left.
 *
 * Every batch first expires what is due by now, even if an earlier one had
 * nothing left to expire, so that expiry never waits for a backlog of purges.
 * Purges concern what was due when the pass began, so that the pass ends.
 *
 * Rows that fail do not count, so that they cannot fill every batch, but end
 * the batch when they are very many.
 */
static void
run_batch(void *argument)
{
	Batch	   *batch = argument;
	SweepPass  *pass = batch->pass;
	int64		left = batch->max_rows;
	int64		max_failed = pass->failed + SWEEP_MAX_FAILURES;

	batch->until = batch->duration == 0 ? DT_NOEND :
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(), batch->duration);
	for (int i = 0; i < (int) lengthof(scan_order); i++)
	{
		SweepScan  *scan = &pass->scans[scan_order[i]];
		bool		is_expiry = status_is_live(scan_order[i]);
		TimestampTz due_at = is_expiry ? GetCurrentTimestamp() : pass->start;

		if (is_expiry)
			scan->is_exhausted = false;
		while (!scan->is_exhausted)
		{
			if (left <= 0 || pass->failed >= max_failed ||
				GetCurrentTimestamp() >= batch->until)
				return;
			left -= run_scan(batch, scan_order[i], due_at, left);
		}
	}
	if (left > 0 && !pass->reclaims_done)
	{
		ReclaimTask task = {.pass = pass, .max_rows = left};
		ErrorData  *error = in_subtransaction(sweep_reclaims, &task);

		if (error != NULL)
		{
			record_failure(pass, "reclaim queue", error);
			pass->reclaims_done = true;
		}
	}
}

/*
 * Sweep a batch of a pass, in the caller's transaction: at most max_rows rows,
 * and if duration is not 0, for about so many milliseconds.
 */
void
sweep_batch(SweepPass *pass, int64 max_rows, int64 duration,
			void (*delay_point) (void))
{
	SweepPass  *before = palloc(sizeof(SweepPass));
	Batch		batch = {
		.pass = pass,
		.max_rows = max_rows,
		.duration = duration,
		.delay_point = delay_point,
	};
	int			guc_level = NewGUCNestLevel();

	/*
	 * The plans must walk the index in its order, however few rows the planner
	 * expects: sorting all that is due would cost the same again for each
	 * batch.
	 */
	set_config_option("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION,
					  GUC_ACTION_SAVE, true, 0, false);
	set_config_option("enable_bitmapscan", "off", PGC_USERSET, PGC_S_SESSION,
					  GUC_ACTION_SAVE, true, 0, false);
	*before = *pass;
	spi_open();
	if (InSecurityRestrictedOperation())
	{
		/* deferred triggers would fire after we are superuser again */
		spi_utility("SET CONSTRAINTS ALL IMMEDIATE");
	}
	if (in_subtransaction(run_batch, &batch) != NULL)
	{
		*pass = *before;
		batch.per_row = true;
		run_batch(&batch);
	}
	spi_close();
	/* also undo what triggers have set */
	AtEOXact_GUC(false, guc_level);
	pfree(before);
}

/* sweep_uploads(max_rows): sweep one batch, for servers without the worker. */
Datum
vali_blob_sweep_uploads(PG_FUNCTION_ARGS)
{
	int64		max_rows = sweep_batch_size_setting;
	SweepPass  *pass = palloc(sizeof(SweepPass));
	Datum		values[3];
	bool		nulls[3] = {false, false, false};

	PreventCommandIfReadOnly("sweep_uploads()");
	check_unknown_arguments(fcinfo, 1);
	if (!PG_ARGISNULL(0))
		max_rows = required_count(fcinfo, 0, "max_rows");

	sweep_begin(pass, NULL);
	sweep_batch(pass, max_rows, 0, NULL);
	if (pass->failed > 0)
		ereport(WARNING,
				(errmsg_plural("could not sweep %lld upload session",
							   "could not sweep %lld upload sessions",
							   (unsigned long) pass->failed,
							   (long long) pass->failed),
				 errdetail("The last error was: %s", pass->error)));
	values[0] = Int64GetDatum(pass->done.expired);
	values[1] = Int64GetDatum(pass->done.purged);
	values[2] = Int64GetDatum(pass->done.reclaims_dropped);
	PG_RETURN_DATUM(return_columns(fcinfo, values, nulls, lengthof(values)));
}
