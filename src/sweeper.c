/*-------------------------------------------------------------------------
 *
 * sweeper.c
 *		The background sweeper: what its processes share, and the SQL
 *		functions that start it and tell how it is.
 *
 * There are two kinds of process.  One launcher (launcher.c) is connected to
 * no database; it visits one database after the other by starting a worker
 * (worker.c) there, which sweeps, reports and exits.  Two worker slots serve
 * any number of databases, and nothing stays connected to any of them.
 *
 * Their common memory holds the launcher's process id, which makes it the
 * only one, the report of the visit under way, and for sweeper_status() what
 * happened in each database since the server was started.  It is fixed in size:
 * when there are more databases than places, the one that was swept the longest
 * ago loses its place, and only its figures.  A table could keep these
 * figures for good, but would turn every idle sweep into a write.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "compat.h"
#include "sweeper.h"

PG_FUNCTION_INFO_V1(vali_blob_start_sweeper);
PG_FUNCTION_INFO_V1(vali_blob_sweeper_status);
PG_FUNCTION_INFO_V1(vali_blob_announce_sweeper);

#define SWEPT_DATABASES 128
#define ERROR_BYTES 200

/* The columns of sweeper_status(). */
#define STATUS_COLUMNS 11

/* A class of advisory locks that SQL cannot take. */
#define START_LOCK_CLASS 86

/* Log at most so many errors of one database in this period. */
#define LOG_PERIOD_MSECS (60 * 60 * 1000)
#define LOG_LINES_PER_PERIOD 10

/* What happened in one database. */
typedef struct SweptDatabase
{
	Oid			database;		/* InvalidOid: a free place */
	TimestampTz last_used;
	TimestampTz last_sweep;		/* when the last pass began; 0: none yet */
	int64		last_duration;	/* microseconds */
	SweepCounts last;
	SweepCounts total;
	TimestampTz positions[STATUS_COUNT];	/* where the next pass begins */
	TimestampTz last_error_at;	/* 0: none yet */
	TimestampTz log_period_start;	/* 0: nothing was logged yet */
	int			log_lines;		/* in that period */
	char		last_error[ERROR_BYTES];
} SweptDatabase;

typedef struct SharedState
{
	LWLock		lock;			/* protects all that follows */
	pid_t		launcher;		/* 0: none is running */
	Oid			visited;		/* the database of the last visit */
	int64		visit_duration; /* milliseconds it may take */
	VisitResult visit_result;
	int			visit_interval; /* that database's sweep_interval, in seconds */
	SweptDatabase databases[SWEPT_DATABASES];
} SharedState;

static SharedState *shared = NULL;

/* The library was loaded when the server started. */
static bool preloaded = false;

/* Set shared memory up, in the process that is the first to need it. */
static void
initialize_shared_state(void *state)
{
	memset(state, 0, sizeof(SharedState));
	LWLockInitialize(&((SharedState *) state)->lock, new_lwlock_tranche("vali_blob"));
}

/*
 * Attach to shared memory.  When the library is not preloaded, the little that
 * we need is taken from what the server keeps in reserve.
 */
static void
attach(void)
{
	if (shared != NULL)
		return;
	shared = shared_memory("vali_blob", sizeof(SharedState),
						   initialize_shared_state);
	name_lwlock_tranche(shared->lock.tranche, "vali_blob");
}

/* Ask for memory and register the launcher, when the server starts. */
void
sweeper_init(void)
{
	BackgroundWorker worker;

	preloaded = true;
	reserve_shared_memory(sizeof(SharedState));
	launcher_describe(&worker);
	RegisterBackgroundWorker(&worker);
}

/* ---------- for the launcher ---------- */

/* Make this process the launcher; false if there is one already. */
bool
sweeper_announce_launcher(void)
{
	bool		alone;

	attach();
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	alone = shared->launcher == 0;
	if (alone)
		shared->launcher = MyProcPid;
	LWLockRelease(&shared->lock);
	return alone;
}

/* Give the launcher's place up. */
void
sweeper_retire_launcher(void)
{
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	if (shared->launcher == MyProcPid)
		shared->launcher = 0;
	LWLockRelease(&shared->lock);
}

/* Say whose place the launcher's is; 0: nobody's. */
static pid_t
launcher_pid(void)
{
	pid_t		pid;

	attach();
	LWLockAcquire(&shared->lock, LW_SHARED);
	pid = shared->launcher;
	LWLockRelease(&shared->lock);
	return pid;
}

/* Expect a report from a database; until it comes, the worker has died. */
void
sweeper_begin_visit(Oid database, int64 duration)
{
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	shared->visited = database;
	shared->visit_duration = duration;
	shared->visit_result = VISIT_DIED;
	LWLockRelease(&shared->lock);
}

/* Get the report of a visit, and that database's sweep_interval. */
VisitResult
sweeper_visit_result(int *interval)
{
	VisitResult result;

	LWLockAcquire(&shared->lock, LW_SHARED);
	result = shared->visit_result;
	*interval = shared->visit_interval;
	LWLockRelease(&shared->lock);
	return result;
}

/* ---------- for the worker ---------- */

/*
 * How many milliseconds the launcher has given this database.  The launcher
 * may have given this worker up, and be waiting for another database now: then
 * no more than one batch.
 */
int64
sweeper_visit_duration(void)
{
	int64		duration;

	attach();
	LWLockAcquire(&shared->lock, LW_SHARED);
	duration = shared->visited == MyDatabaseId ? shared->visit_duration : 0;
	LWLockRelease(&shared->lock);
	return duration;
}

/* Report a visit; a report that nobody expects any more is dropped. */
void
sweeper_end_visit(VisitResult result, int interval)
{
	attach();
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	if (shared->visited == MyDatabaseId)
	{
		shared->visit_result = result;
		shared->visit_interval = interval;
	}
	LWLockRelease(&shared->lock);
}

/* Find a database's place; NULL if it has none. */
static SweptDatabase *
find_place(Oid database)
{
	for (int i = 0; i < SWEPT_DATABASES; i++)
	{
		if (shared->databases[i].database == database)
			return &shared->databases[i];
	}
	return NULL;
}

/* Find a database's place, or make one. */
static SweptDatabase *
make_place(Oid database)
{
	SweptDatabase *place = find_place(database);

	if (place == NULL)
	{
		place = &shared->databases[0];
		for (int i = 1; i < SWEPT_DATABASES; i++)
		{
			if (shared->databases[i].last_used < place->last_used)
				place = &shared->databases[i];
		}
		memset(place, 0, sizeof(SweptDatabase));
		place->database = database;
		for (int i = 0; i < STATUS_COUNT; i++)
			place->positions[i] = DT_NOBEGIN;
	}
	place->last_used = GetCurrentTimestamp();
	return place;
}

/* Begin a pass, where the last one in this database has left off. */
void
sweeper_begin_pass(SweepPass *pass)
{
	attach();
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	sweep_begin(pass, make_place(MyDatabaseId)->positions);
	LWLockRelease(&shared->lock);
}

/* Record how far a pass has come, and how far it was when last recorded. */
void
sweeper_record_sweep(const SweepPass *pass, const SweepCounts *before)
{
	SweptDatabase *place;

	attach();
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	place = make_place(MyDatabaseId);
	place->last_sweep = pass->start;
	place->last_duration = GetCurrentTimestamp() - pass->start;
	sweep_get_positions(pass, place->positions);
	place->last = pass->done;
	place->total.expired += pass->done.expired - before->expired;
	place->total.purged += pass->done.purged - before->purged;
	place->total.reclaims_dropped +=
		pass->done.reclaims_dropped - before->reclaims_dropped;
	LWLockRelease(&shared->lock);
}

/* Tell whether an error is worth a line in the log, and count it if so. */
static bool
is_worth_logging(SweptDatabase *place, const char *message, TimestampTz now)
{
	if (place->log_period_start == 0 ||
		TimestampDifferenceExceeds(place->log_period_start, now,
								   LOG_PERIOD_MSECS))
	{
		place->log_period_start = now;
		place->log_lines = 0;
	}
	else if (strcmp(place->last_error, message) == 0 ||
			 place->log_lines == LOG_LINES_PER_PERIOD)
		return false;
	place->log_lines++;
	return true;
}

/* Record an error; true if it is worth a line in the log. */
bool
sweeper_record_error(Oid database, const char *message)
{
	TimestampTz now = GetCurrentTimestamp();
	char		clipped[ERROR_BYTES];
	SweptDatabase *place;
	bool		is_worth;

	strlcpy(clipped, message, sizeof(clipped));
	clipped[pg_mbcliplen(clipped, strlen(clipped), ERROR_BYTES - 1)] = '\0';
	attach();
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	place = make_place(database);
	is_worth = is_worth_logging(place, clipped, now);
	strlcpy(place->last_error, clipped, sizeof(place->last_error));
	place->last_error_at = now;
	LWLockRelease(&shared->lock);
	return is_worth;
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

/* ---------- for SQL ---------- */

/* Wait until a launcher that was registered has taken its place. */
static void
wait_for_launcher(BackgroundWorkerHandle *handle)
{
	pid_t		pid;

	(void) WaitForBackgroundWorkerStartup(handle, &pid);
	while (launcher_pid() == 0 &&
		   GetBackgroundWorkerPid(handle, &pid) == BGWH_STARTED)
		sweeper_nap(10);
	if (launcher_pid() == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not start the vali_blob launcher"),
				 errhint("The server log may say more.")));
}

/* Start the launcher; the caller has seen that there is none. */
static void
start_launcher(void)
{
	BackgroundWorker worker;
	BackgroundWorkerHandle *handle;

	launcher_describe(&worker);
	worker.bgw_notify_pid = MyProcPid;
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("no free background worker slot for the vali_blob launcher"),
				 errhint("You may need to increase \"max_worker_processes\".")));
	wait_for_launcher(handle);
}

/*
 * start_sweeper(): start the launcher now; false if it is running already.
 *
 * Callers take turns, across all databases, so that they do not use up the
 * worker slots between them.
 */
Datum
vali_blob_start_sweeper(FunctionCallInfo fcinfo pg_attribute_unused())
{
	LOCKTAG		turn;
	bool		is_needed;

	PreventCommandIfReadOnly("start_sweeper()");
	SET_LOCKTAG_ADVISORY(turn, InvalidOid, 0, 0, START_LOCK_CLASS);
	(void) LockAcquire(&turn, ExclusiveLock, false, false);
	is_needed = launcher_pid() == 0;
	if (is_needed)
		start_launcher();
	LockRelease(&turn, ExclusiveLock, false);
	PG_RETURN_BOOL(is_needed);
}

/* Copy what is known of this database, all zeros if it was never swept. */
static void
copy_place(SweptDatabase *copy)
{
	SweptDatabase *place;

	LWLockAcquire(&shared->lock, LW_SHARED);
	place = find_place(MyDatabaseId);
	if (place != NULL)
		*copy = *place;
	LWLockRelease(&shared->lock);
}

/* sweeper_status(): how the sweeper is, and what it did in this database. */
Datum
vali_blob_sweeper_status(PG_FUNCTION_ARGS)
{
	SweptDatabase place = {0};
	Interval	duration = {0};
	TupleDesc	desc;
	Datum		values[STATUS_COLUMNS];
	bool		nulls[STATUS_COLUMNS] = {0};
	int			n = 0;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "sweeper_status() must return a row");
	values[n++] = BoolGetDatum(launcher_pid() != 0);
	copy_place(&place);

	/* last_sweep and what it did */
	for (int i = n; i < n + 5; i++)
		nulls[i] = place.last_sweep == 0;
	duration.time = place.last_duration;
	values[n++] = TimestampTzGetDatum(place.last_sweep);
	values[n++] = IntervalPGetDatum(&duration);
	values[n++] = Int64GetDatum(place.last.expired);
	values[n++] = Int64GetDatum(place.last.purged);
	values[n++] = Int64GetDatum(place.last.reclaims_dropped);

	values[n++] = Int64GetDatum(place.total.expired);
	values[n++] = Int64GetDatum(place.total.purged);
	values[n++] = Int64GetDatum(place.total.reclaims_dropped);

	nulls[n] = nulls[n + 1] = place.last_error_at == 0;
	values[n++] = CStringGetTextDatum(place.last_error);
	values[n++] = TimestampTzGetDatum(place.last_error_at);
	Assert(n == STATUS_COLUMNS);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, nulls)));
}

/* Say, while the extension is created, what is missing for the sweeper. */
Datum
vali_blob_announce_sweeper(FunctionCallInfo fcinfo pg_attribute_unused())
{
	if (!preloaded && launcher_pid() == 0)
		ereport(WARNING,
				(errmsg("stale uploads will not expire by themselves, as the vali_blob launcher is not running"),
				 errhint("Add vali_blob to \"shared_preload_libraries\" and restart the server, or call start_sweeper() to do without the restart for now.")));
	PG_RETURN_VOID();
}
