/*-------------------------------------------------------------------------
 *
 * sweep.c
 *		Expiry and purge, in batches.
 *
 * Rows are found through the index on (status, expires_at), locked with SKIP
 * LOCKED, and judged again once locked: a chunk that arrives at the same time
 * either was first, and the session lives, or finds it expired.  Whatever
 * keeps a row locked keeps only that row from this pass.
 *
 * Since no lock is waited for, two sweeps cannot deadlock with each other, nor
 * a sweep with anything else.
 *
 * A batch runs in a subtransaction.  If that fails, say by a trigger that
 * does not like one of the rows, the batch is done again with a subtransaction
 * for each row, and the rows that fail are left out of the rest of the pass.
 * That way a sound batch does not pay for a subtransaction a row, which would
 * also slow everybody else's snapshots down.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "arguments.h"
#include "errors.h"
#include "lifecycle.h"
#include "reclaim.h"
#include "settings.h"
#include "store.h"
#include "sweep.h"

PG_FUNCTION_INFO_V1(vali_blob_sweep_uploads);

/*
 * The phases of a pass.  Expiry comes first, as clients and storage wait for
 * it; what expires in this pass is purged by a later one at the earliest.
 */
static const SessionStatus phases[] = {
	STATUS_PENDING, STATUS_IN_PROGRESS,
	STATUS_COMPLETE, STATUS_ABORTED, STATUS_EXPIRED
};

#define PHASE_RECLAIMS ((int) lengthof(phases))
#define PHASE_OVER (PHASE_RECLAIMS + 1)

/* What is to be done in a subtransaction of its own. */
typedef struct Work
{
	SweepPass  *pass;
	int64		max_rows;
	Session    *session;
} Work;

/* Begin a pass. */
void
sweep_begin(SweepPass *pass)
{
	memset(pass, 0, sizeof(SweepPass));
	pass->start = GetCurrentTimestamp();
	pass->position = DT_NOBEGIN;
}

/* Tell whether a pass has nothing left to do. */
bool
sweep_is_over(const SweepPass *pass)
{
	return pass->phase == PHASE_OVER || pass->failures == SWEEP_MAX_FAILURES;
}

/* Do some work in a subtransaction; if it fails, undo it and say why. */
static bool
attempt(void (*task) (Work *), Work *work, char **why)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool succeeded = true;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY();
	{
		task(work);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			ReThrowError(error);
		*why = error->message;
		succeeded = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
	return succeeded;
}

/* Expire or purge a locked session, if it still is due. */
static void
sweep_session(Work *work)
{
	SweepPass  *pass = work->pass;
	Session    *session = work->session;

	if (session_is_live(session))
	{
		if (!session_expire(session, GetCurrentTimestamp()))
			return;
		store_write(session);
		pass->expired++;
	}
	else if (session_is_purgeable(session, pass->start))
	{
		store_delete(session);
		pass->purged++;
	}
}

/* Sweep a session without letting its failure spread. */
static void
sweep_session_carefully(Work *work)
{
	SweepPass  *pass = work->pass;
	int64		id = work->session->id;
	const char *upload_id = shown_id(work->session->upload_id);
	char	   *why;

	if (attempt(sweep_session, work, &why))
		return;
	pass->failed_ids[pass->failures++] = id;
	snprintf(pass->error, sizeof(pass->error), "upload \"%s\": %s",
			 upload_id, why);
}

/* The rows that have failed in this pass, as an array. */
static ArrayType *
failed_ids(const SweepPass *pass)
{
	Datum		ids[SWEEP_MAX_FAILURES];

	for (int i = 0; i < pass->failures; i++)
		ids[i] = Int64GetDatum(pass->failed_ids[i]);
	return construct_array(ids, pass->failures, INT8OID, sizeof(int64),
						   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
}

/* Sweep due sessions of the current phase, and say how many were looked at. */
static int64
sweep_phase(SweepPass *pass, int64 max_rows, void (*task) (Work *))
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext scratch = AllocSetContextCreate(caller, "vali_blob sweep",
												  ALLOCSET_SMALL_SIZES);
	Portal		portal = store_open_due(phases[pass->phase], pass->position,
										pass->start, failed_ids(pass), max_rows);
	Session		session;
	Work		work = {.pass = pass, .session = &session};
	int64		seen = 0;

	MemoryContextSwitchTo(scratch);
	while (!sweep_is_over(pass) && store_fetch(portal, &session))
	{
		CHECK_FOR_INTERRUPTS();
		seen++;
		pass->position = session.expires_at;
		task(&work);
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);
	SPI_cursor_close(portal);
	return seen;
}

/* Sweep phase by phase, until the batch is full or the pass is over. */
static void
sweep_phases(Work *work, void (*task) (Work *))
{
	SweepPass  *pass = work->pass;
	int64		left = work->max_rows;

	while (left > 0 && pass->phase < PHASE_RECLAIMS && !sweep_is_over(pass))
	{
		int64		seen = sweep_phase(pass, left, task);

		if (seen < left)
		{
			pass->phase++;
			pass->position = DT_NOBEGIN;
		}
		left -= seen;
	}
	if (left > 0 && pass->phase == PHASE_RECLAIMS &&
		purge_reclaims(pass->start, left) < left)
		pass->phase = PHASE_OVER;
}

/* Sweep a batch as a whole. */
static void
sweep_together(Work *work)
{
	sweep_phases(work, sweep_session);
}

/*
 * Sweep a batch of a pass, in the caller's transaction.  The plans must walk
 * the index in its order, however little the planner thinks there is to do:
 * gathering all that is due would cost the same again for each batch.
 */
void
sweep_batch(SweepPass *pass, int64 max_rows)
{
	SweepPass  *before = palloc(sizeof(SweepPass));
	Work		work = {.pass = pass, .max_rows = max_rows};
	int			guc_level = NewGUCNestLevel();
	char	   *why;

	set_config_option("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION,
					  GUC_ACTION_SAVE, true, 0, false);
	set_config_option("enable_bitmapscan", "off", PGC_USERSET, PGC_S_SESSION,
					  GUC_ACTION_SAVE, true, 0, false);
	*before = *pass;
	store_open();
	if (!attempt(sweep_together, &work, &why))
	{
		*pass = *before;
		sweep_phases(&work, sweep_session_carefully);
	}
	store_close();
	AtEOXact_GUC(true, guc_level);
	pfree(before);
}

/* sweep_uploads(max_rows): sweep one batch, for servers without the worker. */
Datum
vali_blob_sweep_uploads(PG_FUNCTION_ARGS)
{
	int64		max_rows = sweep_batch_size_setting;
	SweepPass  *pass = palloc(sizeof(SweepPass));
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	PreventCommandIfReadOnly("sweep_uploads()");
	if (!PG_ARGISNULL(0))
		max_rows = positive_count(fcinfo, 0, "max_rows");
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "sweep_uploads() must return a row");

	sweep_begin(pass);
	sweep_batch(pass, max_rows);
	if (pass->failures > 0)
		ereport(WARNING,
				(errmsg("%d upload sessions could not be swept", pass->failures),
				 errdetail("The last of them was %s.", pass->error)));
	values[0] = Int64GetDatum(pass->expired);
	values[1] = Int64GetDatum(pass->purged);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, nulls)));
}
