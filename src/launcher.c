/*-------------------------------------------------------------------------
 *
 * launcher.c
 *		The launcher: visits one database after the other.
 *
 * It is connected to no database, holds no transaction open but to read
 * pg_database, and starts at most one worker at a time.  What it plans is
 * worked out anew from pg_database in each round, so that nothing can be
 * missed for good: a database that was created, dropped or renamed, a worker
 * that could not be started, an extension that has come or gone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/lock.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "settings.h"
#include "sweeper.h"

/* Seconds after which a launcher that has failed is started again. */
#define LAUNCHER_RESTART_TIME 5

/*
 * Databases without the extension are visited this many times less often, but
 * within so many seconds.
 */
#define ABSENT_FACTOR 5
#define ABSENT_MAX_DELAY 300

/* Seconds after which new databases are looked for at the latest. */
#define LOOK_INTERVAL 60

/* A database that fails is visited less and less often, down to this factor. */
#define MAX_FAILURE_FACTOR 64

/*
 * Seconds until a database that somebody wants for himself is tried again; the
 * delay doubles while it lasts.
 */
#define BUSY_DELAY 1

/* Milliseconds after which a worker makes way for other databases. */
#define VISIT_DURATION 10000

/* Milliseconds after which a worker that does not come back is ended. */
#define VISIT_TIMEOUT 60000

/* What is planned for one database. */
typedef struct DatabasePlan
{
	Oid			database;
	TimestampTz last_visit;		/* 0: none yet */
	int			delay;			/* seconds until the next one */
	bool		has_backlog;	/* come back earlier, when no other is due */
	int			failures;		/* in a row */
	int			busy_delay;		/* the next one, if it is busy again */
	uint64		round;			/* in which the database was last seen */
} DatabasePlan;

/* Of every database that can be visited; lives in TopMemoryContext. */
static List *plans = NIL;

/* Describe the launcher, for either way to register it. */
void
launcher_describe(BackgroundWorker *worker)
{
	memset(worker, 0, sizeof(BackgroundWorker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker->bgw_restart_time = LAUNCHER_RESTART_TIME;
	strlcpy(worker->bgw_library_name, "vali_blob", sizeof(worker->bgw_library_name));
	strlcpy(worker->bgw_function_name, "vali_blob_launcher_main", BGW_MAXLEN);
	strlcpy(worker->bgw_name, "vali_blob launcher", BGW_MAXLEN);
	strlcpy(worker->bgw_type, "vali_blob launcher", BGW_MAXLEN);
}

/* Plan for a database, at once if it is new. */
static void
plan_for(Oid database, uint64 round)
{
	MemoryContext caller;
	DatabasePlan *plan;
	ListCell   *cell;

	foreach(cell, plans)
	{
		plan = lfirst(cell);
		if (plan->database == database)
		{
			plan->round = round;
			return;
		}
	}

	caller = MemoryContextSwitchTo(TopMemoryContext);
	plan = palloc0(sizeof(DatabasePlan));
	plan->database = database;
	plan->round = round;
	plans = lappend(plans, plan);
	MemoryContextSwitchTo(caller);
}

/* Forget the databases that this round did not see. */
static void
forget_vanished(uint64 round)
{
	ListCell   *cell;

	foreach(cell, plans)
	{
		DatabasePlan *plan = lfirst(cell);

		if (plan->round != round)
		{
			plans = foreach_delete_current(plans, cell);
			pfree(plan);
		}
	}
}

/* Tell whether a database can be connected to. */
static bool
is_open(HeapTuple tuple)
{
	Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

	return form->datallowconn && form->datconnlimit != DATCONNLIMIT_INVALID_DB;
}

/* See which databases there are that can be connected to. */
static void
look_for_databases(void)
{
	static uint64 round = 0;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	round++;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		if (is_open(tuple))
			plan_for(((Form_pg_database) GETSTRUCT(tuple))->oid, round);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	forget_vanished(round);
}

/*
 * Tell whether a database still is there to be connected to, and without waiting
 * for somebody who is about to drop, rename or copy it.
 */
static bool
is_free(Oid database)
{
	LOCKTAG		tag;
	bool		free = false;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, database, 0);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (LockAcquire(&tag, RowExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL)
	{
		HeapTuple	tuple;

		AcceptInvalidationMessages();
		tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
		if (HeapTupleIsValid(tuple))
		{
			free = is_open(tuple);
			ReleaseSysCache(tuple);
		}
	}
	CommitTransactionCommand();
	return free;
}

/* Wait until a worker has ended, ending it if it takes far too long. */
static void
wait_for_worker(BackgroundWorkerHandle *handle)
{
	TimestampTz start = GetCurrentTimestamp();
	pid_t		pid;

	while (GetBackgroundWorkerPid(handle, &pid) != BGWH_STOPPED)
	{
		if (ShutdownRequestPending ||
			TimestampDifferenceExceeds(start, GetCurrentTimestamp(),
									   VISIT_TIMEOUT))
			TerminateBackgroundWorker(handle);
		sweeper_nap(1000);
	}
}

/* Start a worker in a database and wait for it; false if it can't be had. */
static bool
send_worker(Oid database)
{
	static bool complained = false;
	BackgroundWorker worker;
	BackgroundWorkerHandle *handle;

	worker_describe(&worker, database);
	worker.bgw_notify_pid = MyProcPid;
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
	{
		if (!complained)
			ereport(LOG,
					(errmsg("no free background worker slot for the vali_blob worker"),
					 errhint("You may need to increase \"max_worker_processes\".")));
		complained = true;
		return false;
	}
	complained = false;
	wait_for_worker(handle);
	pfree(handle);
	return true;
}

/* Say how long a database that is busy is left alone. */
static int
delay_while_busy(DatabasePlan *plan)
{
	int			delay = Max(plan->busy_delay, BUSY_DELAY);

	plan->busy_delay = Min(delay * 2, Max(sweep_interval_setting, BUSY_DELAY));
	return delay;
}

/* Say how long a database that has failed is left alone. */
static int
delay_after_failure(DatabasePlan *plan)
{
	if (1 << plan->failures < MAX_FAILURE_FACTOR)
		plan->failures++;
	return sweep_interval_setting << plan->failures;
}

/* Say in how many milliseconds a database is due; a clock set back counts. */
static int64
time_left(const DatabasePlan *plan)
{
	int64		passed = (GetCurrentTimestamp() - plan->last_visit) / 1000;

	if (passed < 0)
		return 0;
	return Max(plan->delay * INT64CONST(1000) - passed, 0);
}

/*
 * How many milliseconds a worker may take in a database: it makes way when
 * another one is due, so that a backlog in one of them does not keep the
 * sessions of others from expiring.
 */
static int64
visit_duration(const DatabasePlan *visited)
{
	int64		duration = VISIT_DURATION;
	ListCell   *cell;

	foreach(cell, plans)
	{
		if (lfirst(cell) != visited)
			duration = Min(duration, time_left(lfirst(cell)));
	}
	return duration;
}

/* Visit a database, and say in how many seconds to come back. */
static int
visit(DatabasePlan *plan)
{
	int			interval;
	VisitResult result;

	plan->has_backlog = false;
	if (!is_free(plan->database))
		return delay_while_busy(plan);
	sweeper_begin_visit(plan->database, visit_duration(plan));
	if (!send_worker(plan->database))
		return sweep_interval_setting;

	result = sweeper_visit_result(&interval);
	if (result == VISIT_BUSY)
		return delay_while_busy(plan);
	plan->busy_delay = 0;
	if (result == VISIT_DIED)
		(void) sweeper_record_error(plan->database,
									"the worker ended before it could report; the server log may say why");
	if (result == VISIT_DIED || result == VISIT_FAILED)
		return delay_after_failure(plan);
	plan->failures = 0;
	plan->has_backlog = result == VISIT_UNFINISHED;
	if (result == VISIT_ABSENT)
		return Min(sweep_interval_setting * ABSENT_FACTOR, ABSENT_MAX_DELAY);
	return interval;
}

/* Visit the databases whose time has come; say when the next one's comes. */
static int64
make_round(void)
{
	int64		next = LOOK_INTERVAL * INT64CONST(1000);
	ListCell   *cell;

	foreach(cell, plans)
	{
		DatabasePlan *plan = lfirst(cell);

		if ((plan->has_backlog || time_left(plan) == 0) &&
			!ShutdownRequestPending)
		{
			plan->delay = visit(plan);
			plan->last_visit = GetCurrentTimestamp();
		}
		next = plan->has_backlog ? 0 : Min(next, time_left(plan));
	}
	return next;
}

/* Take new settings into account, and with them plan anew. */
static void
reload_settings(void)
{
	ListCell   *cell;

	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	foreach(cell, plans)
	{
		DatabasePlan *plan = lfirst(cell);

		plan->delay = 0;
	}
}

/* Give the launcher's place up when the process ends. */
static void
on_launcher_exit(int code pg_attribute_unused(), Datum arg pg_attribute_unused())
{
	sweeper_retire_launcher();
}

/* The launcher's life. */
void
vali_blob_launcher_main(Datum arg pg_attribute_unused())
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	pqsignal(SIGINT, PG_SIG_IGN);	/* there is no query to cancel */
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	if (!sweeper_announce_launcher())
	{
		ereport(LOG, (errmsg("the vali_blob launcher is running already")));
		proc_exit(0);
	}
	before_shmem_exit(on_launcher_exit, (Datum) 0);
	pgstat_report_activity(STATE_IDLE, NULL);

	while (!ShutdownRequestPending)
	{
		int64		next;

		look_for_databases();
		next = make_round();
		if (!ShutdownRequestPending && !ConfigReloadPending)
			sweeper_nap(next);
		if (ConfigReloadPending)
			reload_settings();
	}

	/* Any other code would keep the postmaster from starting us again. */
	proc_exit(1);
}
