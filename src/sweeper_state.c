/*-------------------------------------------------------------------------
 *
 * sweeper_state.c
 *		What the processes of the background sweeper share.
 *
 * There are two kinds of process.  One launcher (launcher.c) is connected to no
 * database; in one database after the other it starts a worker (worker.c), which
 * sweeps, reports and exits.  So two worker slots serve any number of databases,
 * and nothing stays connected to any of them.
 *
 * Shared memory holds the process id of the launcher, which makes it the only
 * one, the report of the worker's run, and for sweeper_status() what happened in
 * each database since the server was started.  It is fixed in size: if there are
 * more databases than entries, the one swept the longest ago loses its entry,
 * and with it only its figures.  A table could keep them for good, but would
 * turn every idle sweep into a write.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "compat.h"
#include "errors.h"
#include "sweeper_state.h"

#define SWEPT_DATABASES 128

#define LOG_PERIOD (60 * 60 * 1000) /* ms over which errors are counted */
#define LOG_LINES_PER_PERIOD 10 /* errors of one database that are logged */

typedef struct SharedState
{
	LWLock		lock;			/* protects all that follows */
	pid_t		launcher;		/* 0: none is running */
	Oid			run_database;	/* of the worker that was started last */
	int64		run_duration;	/* milliseconds it may take */
	WorkerResult run_result;
	int			run_interval;	/* that database's sweep_interval, in seconds */
	SweptDatabase databases[SWEPT_DATABASES];
} SharedState;

static SharedState *shared = NULL;

/* Initialize shared memory, in the process that is the first to need it. */
static void
initialize_shared_state(void *state)
{
	memset(state, 0, sizeof(SharedState));
	LWLockInitialize(&((SharedState *) state)->lock, new_lwlock_tranche("vali_blob"));
}

/*
 * Attach to shared memory.  If the library is not preloaded, the little that we
 * need comes from what the server keeps in reserve.
 */
static void
attach_shared_state(void)
{
	if (shared != NULL)
		return;
	shared = find_shared_memory("vali_blob", sizeof(SharedState),
								initialize_shared_state);
	name_lwlock_tranche(shared->lock.tranche, "vali_blob");
}

/* Fill in what registers the launcher and workers alike. */
void
sweeper_describe_process(BackgroundWorker *worker, const char *type,
						 const char *function)
{
	memset(worker, 0, sizeof(BackgroundWorker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	strlcpy(worker->bgw_library_name, "vali_blob", sizeof(worker->bgw_library_name));
	strlcpy(worker->bgw_function_name, function, BGW_MAXLEN);
	strlcpy(worker->bgw_name, type, BGW_MAXLEN);
	strlcpy(worker->bgw_type, type, BGW_MAXLEN);
}

/* Reserve shared memory, while the server starts. */
void
sweeper_reserve_memory(void)
{
	reserve_shared_memory(sizeof(SharedState));
}

/* Sleep until the time is up or something happens. */
void
sweeper_nap(long milliseconds)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 milliseconds, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* ---------- the launcher ---------- */

/* Make this process the launcher; false if there is one already. */
bool
sweeper_register_launcher(void)
{
	bool		registered;

	attach_shared_state();
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	registered = shared->launcher == 0;
	if (registered)
		shared->launcher = MyProcPid;
	LWLockRelease(&shared->lock);
	return registered;
}

/* Make this process the launcher no longer. */
void
sweeper_unregister_launcher(void)
{
	Assert(shared != NULL);
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	if (shared->launcher == MyProcPid)
		shared->launcher = 0;
	LWLockRelease(&shared->lock);
}

/* Return the launcher's process id, or 0. */
pid_t
sweeper_launcher_pid(void)
{
	pid_t		pid;

	attach_shared_state();
	LWLockAcquire(&shared->lock, LW_SHARED);
	pid = shared->launcher;
	LWLockRelease(&shared->lock);
	return pid;
}

/* ---------- a worker's run ---------- */

/* Record that the launcher is about to start a worker. */
void
sweeper_begin_run(Oid database, int64 duration)
{
	Assert(shared != NULL);
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	shared->run_database = database;
	shared->run_duration = duration;
	/* until the worker says otherwise */
	shared->run_result = WORKER_DIED;
	LWLockRelease(&shared->lock);
}

/*
 * Return how many milliseconds the worker may take.  If the launcher has given
 * this worker up, and waits for another one: a batch.
 */
int64
sweeper_run_duration(void)
{
	int64		duration;

	attach_shared_state();
	LWLockAcquire(&shared->lock, LW_SHARED);
	duration = shared->run_database == MyDatabaseId ? shared->run_duration : 0;
	LWLockRelease(&shared->lock);
	return duration;
}

/*
 * Report the result of this worker's run, unless the launcher has given it up,
 * and the database's sweep_interval.
 */
void
sweeper_end_run(WorkerResult result, int interval)
{
	attach_shared_state();
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	if (shared->run_database == MyDatabaseId)
	{
		shared->run_result = result;
		shared->run_interval = interval;
	}
	LWLockRelease(&shared->lock);
}

/* Return the last run's result, and set *interval to its sweep_interval. */
WorkerResult
sweeper_run_result(int *interval)
{
	WorkerResult result;

	Assert(shared != NULL);
	LWLockAcquire(&shared->lock, LW_SHARED);
	result = shared->run_result;
	*interval = shared->run_interval;
	LWLockRelease(&shared->lock);
	return result;
}

/* ---------- databases ---------- */

/* Find the entry of a database, or return NULL. */
static SweptDatabase *
find_entry(Oid database)
{
	Assert(OidIsValid(database));
	Assert(LWLockHeldByMe(&shared->lock));
	for (int i = 0; i < SWEPT_DATABASES; i++)
	{
		if (shared->databases[i].database == database)
			return &shared->databases[i];
	}
	return NULL;
}

/* Find the entry of a database, or make one. */
static SweptDatabase *
get_or_create_entry(Oid database)
{
	SweptDatabase *entry = find_entry(database);

	Assert(LWLockHeldByMeInMode(&shared->lock, LW_EXCLUSIVE));
	if (entry == NULL)
	{
		/* take the one used the longest ago; a free one was never used */
		entry = &shared->databases[0];
		for (int i = 1; i < SWEPT_DATABASES; i++)
		{
			if (shared->databases[i].last_used < entry->last_used)
				entry = &shared->databases[i];
		}
		memset(entry, 0, sizeof(SweptDatabase));
		entry->database = database;
		for (int i = 0; i < SCAN_COUNT; i++)
			entry->positions[i] = sweep_first_position();
	}
	entry->last_used = GetCurrentTimestamp();
	return entry;
}

/* Return what happened in this database; all zeros if it was never swept. */
void
sweeper_get_database(SweptDatabase *result)
{
	SweptDatabase *entry;

	memset(result, 0, sizeof(SweptDatabase));
	attach_shared_state();
	LWLockAcquire(&shared->lock, LW_SHARED);
	entry = find_entry(MyDatabaseId);
	if (entry != NULL)
		*result = *entry;
	LWLockRelease(&shared->lock);
}

/* Begin a pass, where the previous one in this database has stopped. */
void
sweeper_begin_pass(SweepPass *pass)
{
	attach_shared_state();
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	sweep_begin(pass, get_or_create_entry(MyDatabaseId)->positions);
	LWLockRelease(&shared->lock);
}

/* Record what a pass has done, and what it had done when recorded before. */
void
sweeper_record_sweep(const SweepPass *pass, const SweepCounts *before)
{
	SweptDatabase *entry;

	attach_shared_state();
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	entry = get_or_create_entry(MyDatabaseId);
	entry->last_sweep = pass->start;
	entry->last_duration = GetCurrentTimestamp() - pass->start;
	sweep_get_positions(pass, entry->positions);
	entry->last = pass->done;
	entry->total.expired += pass->done.expired - before->expired;
	entry->total.purged += pass->done.purged - before->purged;
	entry->total.reclaims_dropped +=
		pass->done.reclaims_dropped - before->reclaims_dropped;
	LWLockRelease(&shared->lock);
}

/*
 * Should an error be logged?  If it is not the last one again, and not too many
 * were logged in this period.  Counts it if so.
 */
static bool
should_log(SweptDatabase *entry, const char *message, TimestampTz now)
{
	Assert(LWLockHeldByMeInMode(&shared->lock, LW_EXCLUSIVE));
	if (entry->log_period_start == 0 ||
		TimestampDifferenceExceeds(entry->log_period_start, now,
								   LOG_PERIOD))
	{
		entry->log_period_start = now;
		entry->log_lines = 0;
	}
	else if (strcmp(entry->last_error, message) == 0 ||
			 entry->log_lines == LOG_LINES_PER_PERIOD)
		return false;
	entry->log_lines++;
	return true;
}

/* Record an error; true if it should be logged. */
bool
sweeper_record_error(Oid database, const char *message)
{
	TimestampTz now = GetCurrentTimestamp();
	char		clipped[SWEEPER_ERROR_BYTES];
	SweptDatabase *entry;
	bool		result;

	copy_clipped(clipped, message, sizeof(clipped));
	attach_shared_state();
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	entry = get_or_create_entry(database);
	result = should_log(entry, clipped, now);
	strlcpy(entry->last_error, clipped, sizeof(entry->last_error));
	entry->last_error_at = now;
	LWLockRelease(&shared->lock);
	return result;
}
