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
 * Since no row is waited for, two sweeps cannot deadlock with each other, nor
 * a sweep with a chunk.
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
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "arguments.h"
#include "errors.h"
#include "lifecycle.h"
#include "reclaim.h"
#include "settings.h"
#include "statement.h"
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
	int64		max_rows;		/* of a batch */
	int64		duration;		/* milliseconds after which it ends; 0: any */
	void		(*breathe) (void);	/* called after each row, if not NULL */
	Session    *session;		/* that is due, and locked */
} Work;

/* Begin a pass. */
void
sweep_begin(SweepPass *pass)
{
	memset(pass, 0, sizeof(SweepPass));
	pass->start = GetCurrentTimestamp();
	pass->position = DT_NOBEGIN;
}

/* Let a pass that has just begun go on where another one has ended. */
void
sweep_resume(SweepPass *pass, int phase, TimestampTz position)
{
	pass->phase = phase;
	pass->position = position;
}

/* Tell whether a pass has nothing left to do. */
bool
sweep_is_over(const SweepPass *pass)
{
	return pass->phase == PHASE_OVER;
}

/* Move to another place, where the rows that failed here are not met again. */
static void
move_to(SweepPass *pass, TimestampTz position)
{
	if (position == pass->position)
		return;
	pass->position = position;
	pass->failed_count = 0;
}

/*
 * Expire or purge a session, if it still is due.  It is locked already; locking
 * it once more gives the store its own hold on the row, and costs little.
 */
static void
sweep_session(void *argument)
{
	Work	   *work = argument;
	SweepPass  *pass = work->pass;
	Store		store;
	Session		session;

	store_open(&store, RowExclusiveLock);
	if (store_lock(&store, work->session->upload_id, LOCK_WAIT,
				   &session) != LOCK_TAKEN)
		 /* gone, with a trigger's help */ ;
	else if (session_is_purgeable(&session, pass->start))
	{
		store_delete(&store, &session);
		pass->purged++;
	}
	else if (session_expire(&session, GetCurrentTimestamp()))
	{
		store_write(&store, &session);
		pass->expired++;
	}
	store_close(&store);
}

/* Note that something could not be swept, and why. */
static void
note_failure(SweepPass *pass, const char *what, const ErrorData *error)
{
	pass->failed++;
	snprintf(pass->error, sizeof(pass->error), "%s: %s", what, error->message);
	pass->error[pg_mbcliplen(pass->error, strlen(pass->error),
							 sizeof(pass->error) - 1)] = '\0';
}

/* Sweep a session without letting its failure spread. */
static void
sweep_session_carefully(void *argument)
{
	Work	   *work = argument;
	SweepPass  *pass = work->pass;
	ErrorData  *error = in_subtransaction(sweep_session, work);

	if (error == NULL)
		return;
	pass->failed_ids[pass->failed_count++] = work->session->id;
	note_failure(pass, psprintf("upload \"%s\"",
								shown_id(work->session->upload_id)), error);
}

/* The rows that have failed at this place of the pass, as an array. */
static ArrayType *
failed_ids(const SweepPass *pass)
{
	Datum		ids[SWEEP_MAX_FAILED_IDS];

	for (int i = 0; i < pass->failed_count; i++)
		ids[i] = Int64GetDatum(pass->failed_ids[i]);
	return construct_array(ids, pass->failed_count, INT8OID, sizeof(int64),
						   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
}

/*
 * Sweep due sessions of the current phase; when there are no more, or too many
 * have failed at one place, move on.  Returns how many were swept.
 */
static int64
sweep_phase(const Work *batch, int64 max_rows, TimestampTz until,
			void (*task) (void *))
{
	SweepPass  *pass = batch->pass;
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext scratch = AllocSetContextCreate(caller, "vali_blob sweep",
												  ALLOCSET_SMALL_SIZES);
	Portal		portal = store_open_due(phases[pass->phase], pass->position,
										pass->start, failed_ids(pass), max_rows);
	Session		session;
	Work		work = {.pass = pass, .session = &session};
	int64		failed_before = pass->failed;
	int64		seen = 0;
	bool		in_time;

	MemoryContextSwitchTo(scratch);
	while ((in_time = GetCurrentTimestamp() < until) &&
		   pass->failed_count < SWEEP_MAX_FAILED_IDS &&
		   store_fetch(portal, &session))
	{
		CHECK_FOR_INTERRUPTS();
		seen++;
		move_to(pass, session.expires_at);
		task(&work);
		MemoryContextReset(scratch);
		if (batch->breathe != NULL)
			batch->breathe();
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);
	SPI_cursor_close(portal);

	if (pass->failed_count == SWEEP_MAX_FAILED_IDS)
		move_to(pass, pass->position + 1);
	else if (in_time && seen < max_rows)
	{
		pass->phase++;
		move_to(pass, DT_NOBEGIN);
	}
	return seen - (pass->failed - failed_before);
}

/* Remove old rows of the reclaim queue. */
static void
sweep_reclaims(void *argument)
{
	Work	   *work = argument;

	if (purge_reclaims(work->pass->start, work->max_rows) < work->max_rows)
		work->pass->phase = PHASE_OVER;
}

/*
 * Sweep phase by phase, until the batch is full or the pass is over.  Rows that
 * fail do not count, so that they cannot fill every batch for ever, but end the
 * batch when they are very many.
 */
static void
sweep_phases(Work *work, void (*task) (void *))
{
	SweepPass  *pass = work->pass;
	int64		left = work->max_rows;
	int64		max_failed = SWEEP_MAX_FAILURES + pass->failed;
	TimestampTz until = work->duration == 0 ? DT_NOEND :
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(), work->duration);

	while (left > 0 && pass->failed < max_failed &&
		   pass->phase < PHASE_RECLAIMS && GetCurrentTimestamp() < until)
		left -= sweep_phase(work, left, until, task);
	if (left > 0 && pass->phase == PHASE_RECLAIMS)
	{
		Work		rest = {.pass = pass, .max_rows = left};
		ErrorData  *error = in_subtransaction(sweep_reclaims, &rest);

		if (error != NULL)
		{
			note_failure(pass, "reclaim queue", error);
			pass->phase = PHASE_OVER;
		}
	}
}

/* Sweep a batch as a whole. */
static void
sweep_together(void *argument)
{
	sweep_phases((Work *) argument, sweep_session);
}

/*
 * Sweep a batch of a pass, in the caller's transaction.  The plans must walk
 * the index in its order, however little the planner thinks there is to do:
 * gathering all that is due would cost the same again for each batch.
 */
void
sweep_batch(SweepPass *pass, int64 max_rows, int64 duration,
			void (*breathe) (void))
{
	MemoryContext caller = CurrentMemoryContext;
	SweepPass  *before = palloc(sizeof(SweepPass));
	Work		work = {.pass = pass, .max_rows = max_rows, .duration = duration,
	.breathe = breathe};
	int			guc_level = NewGUCNestLevel();

	set_config_option("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION,
					  GUC_ACTION_SAVE, true, 0, false);
	set_config_option("enable_bitmapscan", "off", PGC_USERSET, PGC_S_SESSION,
					  GUC_ACTION_SAVE, true, 0, false);
	*before = *pass;
	spi_open();
	if (InSecurityRestrictedOperation())
	{
		/* Deferred triggers would fire when we are superuser again. */
		SPI_execute("SET CONSTRAINTS ALL IMMEDIATE", false, 0);
		MemoryContextSwitchTo(caller);
	}
	if (in_subtransaction(sweep_together, &work) != NULL)
	{
		*pass = *before;
		sweep_phases(&work, sweep_session_carefully);
	}
	spi_close();
	AtEOXact_GUC(false, guc_level); /* what triggers have set, too */
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
	sweep_batch(pass, max_rows, 0, NULL);
	if (pass->failed > 0)
		ereport(WARNING,
				(errmsg_plural(INT64_FORMAT " upload session could not be swept",
							   INT64_FORMAT " upload sessions could not be swept",
							   (unsigned long) pass->failed, pass->failed),
				 errdetail("The last of them was %s.", pass->error)));
	values[0] = Int64GetDatum(pass->expired);
	values[1] = Int64GetDatum(pass->purged);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, nulls)));
}
