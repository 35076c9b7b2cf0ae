/*-------------------------------------------------------------------------
 *
 * launcher.c
 *		The process that starts a worker in one database after the other.
 *
 * It is connected to no database, opens a transaction only to read pg_database,
 * and starts at most one worker at a time.  Each round reads pg_database again,
 * so that nothing can be missed for good: a database that was created, dropped or
 * renamed, a worker that could not be started, an extension that was created or
 * dropped.
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
#include "launcher.h"
#include "settings.h"
#include "sweeper_state.h"
#include "worker.h"

#define LAUNCHER_RESTART_TIME 5 /* seconds until one that failed is restarted */
#define MAX_NAPTIME 60			/* seconds until pg_database is read again */

/* in databases without the extension */
#define ABSENT_FACTOR 5			/* start a worker this many times less often */
#define ABSENT_MAX_DELAY 300	/* seconds; but not less often than this */

/* in databases that could not be swept */
#define MAX_FAILURE_FACTOR 64	/* each failure doubles the delay, up to this */
#define BUSY_DELAY 1			/* seconds; doubles while others need a lock */

#define MAX_RUN_DURATION 10000	/* ms until a worker leaves, finished or not */
#define RUN_TIMEOUT 60000		/* ms until one that does not is terminated */

/* When to start the next worker in a database */
typedef struct DatabasePlan
{
	Oid			database;
	TimestampTz last_run;		/* when the last worker ended; 0: none yet */
	int			delay;			/* seconds until the next */
	bool		has_backlog;	/* do not wait that long if no other is due */
	int			failures;		/* in a row */
	int			busy_delay;		/* the next delay, if it is busy again */
	uint64		round;			/* in which the database existed last */
} DatabasePlan;

/* The plans of all databases that allow connections, in TopMemoryContext */
static List *plans = NIL;

/* Fill in what registers the launcher, statically or dynamically. */
void
launcher_describe(BackgroundWorker *worker)
{
	sweeper_describe_process(worker, "vali_blob launcher",
							 "vali_blob_launcher_main");
	worker->bgw_restart_time = LAUNCHER_RESTART_TIME;
}

/* Keep the plan of a database, or make one; a new database is due at once. */
static void
keep_plan(Oid database, uint64 round)
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

/* Drop the plans of databases that were not there in this round. */
static void
drop_other_plans(uint64 round)
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

/* Does a database allow connections? */
static bool
allows_connections(HeapTuple tuple)
{
	Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

	return form->datallowconn && form->datconnlimit != DATCONNLIMIT_INVALID_DB;
}

/* Bring the plans up to date with pg_database. */
static void
update_plans(void)
{
	static uint64 current_round = 0;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	current_round++;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		if (allows_connections(tuple))
			keep_plan(((Form_pg_database) GETSTRUCT(tuple))->oid, current_round);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	drop_other_plans(current_round);
}

/*
 * Can a worker connect to a database without waiting for a command that drops,
 * renames or copies it?
 */
static bool
is_available(Oid database)
{
	LOCKTAG		tag;
	bool		result = false;

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
			result = allows_connections(tuple);
			ReleaseSysCache(tuple);
		}
	}
	CommitTransactionCommand();
	return result;
}

/* Wait until a worker has ended; terminate it if it takes far too long. */
static void
wait_for_worker(BackgroundWorkerHandle *handle)
{
	TimestampTz start = GetCurrentTimestamp();
	pid_t		pid;

	while (GetBackgroundWorkerPid(handle, &pid) != BGWH_STOPPED)
	{
		if (ShutdownRequestPending ||
			TimestampDifferenceExceeds(start, GetCurrentTimestamp(),
									   RUN_TIMEOUT))
			TerminateBackgroundWorker(handle);
		sweeper_nap(1000);
	}
}

/* Start a worker in a database and wait for it; false if there is no slot. */
static bool
run_worker(Oid database)
{
	static bool has_complained = false;
	BackgroundWorker worker;
	BackgroundWorkerHandle *handle;

	worker_describe(&worker, database);
	worker.bgw_notify_pid = MyProcPid;
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
	{
		if (!has_complained)
			ereport(LOG,
					(errmsg("no free background worker slot for the vali_blob worker"),
					 errhint("You might need to increase \"max_worker_processes\".")));
		has_complained = true;
		return false;
	}
	has_complained = false;
	wait_for_worker(handle);
	pfree(handle);
	return true;
}

/* Return how many seconds to leave a busy database alone. */
static int
delay_while_busy(DatabasePlan *plan)
{
	int			delay = Max(plan->busy_delay, BUSY_DELAY);

	plan->busy_delay = Min(delay * 2, Max(sweep_interval_setting, BUSY_DELAY));
	return delay;
}

/* Return how many seconds to leave a database alone that has failed. */
static int
delay_after_failure(DatabasePlan *plan)
{
	if (1 << plan->failures < MAX_FAILURE_FACTOR)
		plan->failures++;
	return sweep_interval_setting << plan->failures;
}

/* Return in how many milliseconds a database is due. */
static int64
time_left(const DatabasePlan *plan)
{
	int64		passed = (GetCurrentTimestamp() - plan->last_run) / 1000;

	/* the clock was set back */
	if (passed < 0)
		return 0;
	return Max(plan->delay * INT64CONST(1000) - passed, 0);
}

/*
 * Return how many milliseconds a worker may take in a database.  It must leave
 * when another one is due, so that a backlog in one of them does not keep the
 * sessions of others from expiring.
 */
static int64
run_duration(const DatabasePlan *plan)
{
	int64		duration = MAX_RUN_DURATION;
	ListCell   *cell;

	foreach(cell, plans)
	{
		if (lfirst(cell) != plan)
			duration = Min(duration, time_left(lfirst(cell)));
	}
	return duration;
}

/* Have a database swept; returns in how many seconds to do it again. */
static int
sweep_by_worker(DatabasePlan *plan)
{
	int			interval;
	WorkerResult result;

	plan->has_backlog = false;
	if (!is_available(plan->database))
		return delay_while_busy(plan);
	sweeper_begin_run(plan->database, run_duration(plan));
	if (!run_worker(plan->database))
		return sweep_interval_setting;

	result = sweeper_run_result(&interval);
	if (result == WORKER_BUSY)
		return delay_while_busy(plan);
	plan->busy_delay = 0;
	if (result == WORKER_DIED)
		(void) sweeper_record_error(plan->database,
									"worker ended without a report");
	if (result == WORKER_DIED || result == WORKER_FAILED)
		return delay_after_failure(plan);
	plan->failures = 0;
	plan->has_backlog = result == WORKER_UNFINISHED;
	if (result == WORKER_ABSENT)
		return Min(sweep_interval_setting * ABSENT_FACTOR, ABSENT_MAX_DELAY);
	return interval;
}

/* Sweep the databases that are due; returns how long to sleep after that. */
static int64
sweep_due_databases(void)
{
	int64		next = MAX_NAPTIME * INT64CONST(1000);
	ListCell   *cell;

	foreach(cell, plans)
	{
		DatabasePlan *plan = lfirst(cell);

		if ((plan->has_backlog || time_left(plan) == 0) &&
			!ShutdownRequestPending)
		{
			plan->delay = sweep_by_worker(plan);
			plan->last_run = GetCurrentTimestamp();
		}
		next = plan->has_backlog ? 0 : Min(next, time_left(plan));
	}
	return next;
}

/* Reload the settings.  All databases are due, as theirs may have changed. */
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

/* before_shmem_exit callback: unregister the launcher. */
static void
on_launcher_exit(int code pg_attribute_unused(), Datum arg pg_attribute_unused())
{
	sweeper_unregister_launcher();
}

/* Main entry point of the launcher process. */
void
vali_blob_launcher_main(Datum arg pg_attribute_unused())
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	pqsignal(SIGINT, PG_SIG_IGN);	/* there is no query to cancel */
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	if (!sweeper_register_launcher())
	{
		/* exit code 0 keeps the postmaster from starting us again */
		ereport(LOG, (errmsg("vali_blob launcher is already running")));
		proc_exit(0);
	}
	before_shmem_exit(on_launcher_exit, (Datum) 0);
	pgstat_report_activity(STATE_IDLE, NULL);

	while (!ShutdownRequestPending)
	{
		int64		naptime;

		Assert(!IsTransactionState());
		update_plans();
		naptime = sweep_due_databases();
		if (!ShutdownRequestPending && !ConfigReloadPending)
			sweeper_nap(naptime);
		if (ConfigReloadPending)
			reload_settings();
	}

	/* so that pg_terminate_backend() only restarts us */
	proc_exit(1);
}
