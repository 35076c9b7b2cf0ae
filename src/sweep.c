/*-------------------------------------------------------------------------
 *
 * sweep.c
 *		Expiry and purge, in batches.
 *
 * A pass scans the due sessions through the index on (expires_at, id): once for
 * live ones, which expire, and once for ended ones, which are purged; then it
 * scans the reclaim queue for rows that are dropped.  The scans choose keys
 * without locking anything.  Each row is then locked by its key, with SKIP
 * LOCKED, and judged again: a chunk that arrives at the same time either was
 * first, and the session lives, or finds it expired.  Since no row is waited for,
 * two sweeps cannot deadlock with each other, nor a sweep with a chunk; and any
 * number of locked rows is passed over, to be met again in the next pass.
 *
 * The index cannot tell live sessions from ended ones, since status is in no
 * index (see the installation script).  So a scan for live ones reads past all
 * ended ones that wait to be purged, which takes about a second for a million of
 * them, once in a pass.
 *
 * A batch runs in a subtransaction.  If that fails, because a trigger rejects one
 * of the rows for example, the batch is run again with a subtransaction for each
 * row.  So an ordinary batch does not pay for a subtransaction per row, which
 * would also slow down the snapshots of all other backends.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "arguments.h"
#include "change.h"
#include "errors.h"
#include "reclaim.h"
#include "row.h"
#include "settings.h"
#include "statement.h"
#include "store.h"
#include "sweep.h"

PG_FUNCTION_INFO_V1(vali_blob_sweep_uploads);

/* How many rows may fail in one batch before it ends */
#define MAX_FAILURES 10000

/* The scans.  They leave out sessions of a status that we do not know. */
static Statement select_due[] = {
	[SCAN_EXPIRY] = SELECT_DUE("upload_session", "r.expires_at",
							   "r.status OPERATOR(pg_catalog.=) 'pending' "
							   "OR r.status OPERATOR(pg_catalog.=) 'in_progress'"),
	[SCAN_PURGE] = SELECT_DUE("upload_session", "r.expires_at",
							  "r.status OPERATOR(pg_catalog.=) 'complete' "
							  "OR r.status OPERATOR(pg_catalog.=) 'aborted' "
							  "OR r.status OPERATOR(pg_catalog.=) 'expired'"),
	[SCAN_RECLAIMS] = SELECT_DUE("upload_reclaim", "r.enqueued_at", "true"),
};

StaticAssertDecl(lengthof(select_due) == SCAN_COUNT,
				 "every scan has a statement");

typedef struct Batch
{
	SweepPass  *pass;
	SweepScanKind first;
	SweepScanKind last;
	int64		max_rows;
	int64		duration;		/* milliseconds, from the first row; 0: any */
	TimestampTz until;
	void		(*delay_point) (void);	/* called after each row, if not NULL */
	bool		per_row;		/* use a subtransaction for each row */
} Batch;

/* A row to sweep, perhaps in a subtransaction */
typedef struct RowTask
{
	SweepPass  *pass;
	SweepScanKind kind;
	TimestampTz due_at;
	int64		id;
	const text *upload_id;
} RowTask;

/* Return the position before all rows. */
SweepPosition
sweep_first_position(void)
{
	SweepPosition first = {DT_NOBEGIN, PG_INT64_MIN};

	return first;
}

/*
 * Begin a pass.  "positions" are those of one that did not come to its end; if
 * NULL, all scans start from the beginning.
 */
void
sweep_begin(SweepPass *pass, const SweepPosition *positions)
{
	memset(pass, 0, sizeof(SweepPass));
	pass->start = GetCurrentTimestamp();
	for (int i = 0; i < SCAN_COUNT; i++)
		pass->scans[i].position = positions == NULL ?
			sweep_first_position() : positions[i];
}

/* Is nothing left to do? */
bool
sweep_is_over(const SweepPass *pass)
{
	for (int i = 0; i < SCAN_COUNT; i++)
	{
		if (!pass->scans[i].is_exhausted)
			return false;
	}
	return true;
}

/* Return where the next pass is to begin each scan. */
void
sweep_get_positions(const SweepPass *pass, SweepPosition *positions)
{
	for (int i = 0; i < SCAN_COUNT; i++)
	{
		/* from the beginning, for rows that were locked or have failed */
		positions[i] = pass->scans[i].is_exhausted ?
			sweep_first_position() : pass->scans[i].position;
	}
}

/* Return the time until which the rows of a scan are due. */
static TimestampTz
scan_end(const SweepPass *pass, SweepScanKind kind)
{
	switch (kind)
	{
		case SCAN_EXPIRY:
			return GetCurrentTimestamp();
		case SCAN_PURGE:
			/*
			 * not what this pass itself has ended, or with a retention of 0 it
			 * might never end
			 */
			return pass->start;
		case SCAN_RECLAIMS:
			Assert(reclaim_retention_setting >= 0);
			return pass->start - reclaim_retention_setting * USECS_PER_SEC;
	}
	pg_unreachable();
}

/* Sweep a row, if it is still due. */
static void
sweep_row(void *argument)
{
	RowTask    *task = argument;
	SweepCounts *done = &task->pass->done;
	Store	   *store = task->kind == SCAN_RECLAIMS ? NULL :
		store_open(RowExclusiveLock);

	switch (task->kind)
	{
		case SCAN_EXPIRY:
			if (expire_session(store, task->upload_id))
				done->expired++;
			break;
		case SCAN_PURGE:
			if (purge_session(store, task->upload_id, task->due_at))
				done->purged++;
			break;
		case SCAN_RECLAIMS:
			if (drop_reclaim(task->id, task->upload_id, task->due_at))
				done->reclaims_dropped++;
			break;
	}
	if (store != NULL)
		store_close(store);
}

/* Record that a row could not be swept, and why. */
static void
record_failure(SweepPass *pass, const RowTask *task, const char *reason)
{
	char	   *what = task->upload_id == NULL ?
		psprintf("row with id %lld", (long long) task->id) :
		psprintf(task->kind == SCAN_RECLAIMS ? "reclaim of upload \"%s\"" :
				 "upload \"%s\"", shown_text(task->upload_id));

	pass->failed++;
	copy_clipped(pass->error, psprintf("%s: %s", what, reason),
				 sizeof(pass->error));
}

/* Fetch the next key of a scan, and move the scan's position there. */
static bool
fetch_key(Portal portal, SweepScan *scan, RowTask *task)
{
	DueKey		key;

	if (!statement_fetch_due(portal, &key))
		return false;
	scan->position.due_at = key.due_at;
	scan->position.id = key.id;
	task->upload_id = key.upload_id;
	task->id = key.id;
	return true;
}

/* Sweep the row of a key; one that fails is recorded. */
static void
sweep_key(Batch *batch, RowTask *task)
{
	if (task->upload_id == NULL)
		record_failure(batch->pass, task, "column \"upload_id\" is null");
	else if (batch->per_row)
	{
		ErrorData  *error = in_subtransaction(sweep_row, task);

		if (error != NULL)
			record_failure(batch->pass, task, error->message);
	}
	else
		sweep_row(task);
}

/* Return how many rows were swept. */
static int64
total_swept(const SweepCounts *done)
{
	return done->expired + done->purged + done->reclaims_dropped;
}

/*
 * Sweep rows of a scan, from its position on.  Returns how many were swept: those
 * that are locked, or fail, do not fill the batch.
 */
static int64
run_scan(Batch *batch, SweepScanKind kind, TimestampTz due_at,
		 int64 max_rows)
{
	SweepPass  *pass = batch->pass;
	SweepScan  *scan = &pass->scans[kind];
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext row_context = AllocSetContextCreate(caller, "vali_blob sweep",
													  ALLOCSET_SMALL_SIZES);
	Datum		values[] = {
		TimestampTzGetDatum(scan->position.due_at),
		Int64GetDatum(scan->position.id),
		TimestampTzGetDatum(due_at),
		Int64GetDatum(max_rows),
	};
	Portal		portal = statement_open(&select_due[kind], values, false);
	RowTask		task = {.pass = pass, .kind = kind, .due_at = due_at};
	int64		swept_before = total_swept(&pass->done);
	int64		fetched = 0;
	bool		in_time;

	MemoryContextSwitchTo(row_context);
	while ((in_time = GetCurrentTimestamp() < batch->until) &&
		   fetch_key(portal, scan, &task))
	{
		CHECK_FOR_INTERRUPTS();
		/* without its index, a scan sorts all that is due before the first row */
		if (batch->until == DT_NOEND && batch->duration > 0)
			batch->until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													   batch->duration);
		fetched++;
		sweep_key(batch, &task);
		MemoryContextReset(row_context);
		if (batch->delay_point != NULL)
			batch->delay_point();
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(row_context);
	SPI_cursor_close(portal);

	scan->is_exhausted = in_time && fetched < max_rows;
	return total_swept(&pass->done) - swept_before;
}

/* Run the scans until the batch is full or nothing is left. */
static void
run_batch(void *argument)
{
	Batch	   *batch = argument;
	SweepPass  *pass = batch->pass;
	int64		left = batch->max_rows;
	/* rows that fail do not fill the batch, but very many of them end it */
	int64		max_failed = pass->failed + MAX_FAILURES;

	batch->until = DT_NOEND;
	for (SweepScanKind kind = batch->first; kind <= batch->last; kind++)
	{
		TimestampTz due_at;

		if (kind == SCAN_RECLAIMS && reclaim_retention_setting < 0)
		{
			/* they are kept forever */
			pass->scans[kind].is_exhausted = true;
			continue;
		}
		due_at = scan_end(pass, kind);
		while (!pass->scans[kind].is_exhausted)
		{
			if (left <= 0 || pass->failed >= max_failed ||
				GetCurrentTimestamp() >= batch->until)
				return;
			left -= run_scan(batch, kind, due_at, left);
		}
	}
}

/*
 * Sweep a batch of a pass, in the caller's transaction: by some of the scans, at
 * most max_rows rows, and if duration is not 0, for about so many milliseconds
 * after the first row was found.
 */
void
sweep_batch(SweepPass *pass, SweepScanKind first, SweepScanKind last,
			int64 max_rows, int64 duration, void (*delay_point) (void))
{
	const SweepPass before = *pass;
	Batch		batch = {
		.pass = pass,
		.first = first,
		.last = last,
		.max_rows = max_rows,
		.duration = duration,
		.delay_point = delay_point,
	};
	int			guc_level = NewGUCNestLevel();

	/*
	 * The plans must scan the index in its order, however few rows the planner
	 * expects: sorting all that is due would cost the same again for each
	 * batch.
	 */
	set_config_option("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION,
					  GUC_ACTION_SAVE, true, 0, false);
	set_config_option("enable_bitmapscan", "off", PGC_USERSET, PGC_S_SESSION,
					  GUC_ACTION_SAVE, true, 0, false);
	spi_open();
	if (InSecurityRestrictedOperation())
	{
		/* triggers that are deferred would fire after we are superuser again */
		spi_utility("SET CONSTRAINTS ALL IMMEDIATE");
	}
	if (in_subtransaction(run_batch, &batch) != NULL)
	{
		*pass = before;
		batch.per_row = true;
		run_batch(&batch);
	}
	spi_close();
	/* also undo what triggers have set */
	AtEOXact_GUC(false, guc_level);
}

/* sweep_uploads(max_rows): sweep one batch, for servers without the worker. */
Datum
vali_blob_sweep_uploads(PG_FUNCTION_ARGS)
{
	int64		max_rows = sweep_batch_size_setting;
	SweepPass	pass;
	Datum		values[3];
	bool		nulls[3] = {0};

	PreventCommandIfReadOnly("sweep_uploads()");
	check_unknown_arguments(fcinfo, 1);
	if (!PG_ARGISNULL(0))
		max_rows = required_count(fcinfo, 0, "max_rows");

	sweep_begin(&pass, NULL);
	sweep_batch(&pass, SCAN_EXPIRY, SCAN_RECLAIMS, max_rows, 0, NULL);
	if (pass.failed > 0)
		ereport(WARNING,
				(errmsg_plural("could not sweep %lld row",
							   "could not sweep %lld rows",
							   (unsigned long) pass.failed,
							   (long long) pass.failed),
				 errdetail("The last error was: %s", pass.error)));
	values[0] = Int64GetDatum(pass.done.expired);
	values[1] = Int64GetDatum(pass.done.purged);
	values[2] = Int64GetDatum(pass.done.reclaims_dropped);
	PG_RETURN_DATUM(return_columns(fcinfo, values, nulls, lengthof(values)));
}
