/*-------------------------------------------------------------------------
 *
 * worker.c
 *		The process that sweeps one database.
 *
 * Each batch is a transaction of its own, and no transaction is open between two
 * of them.  The worker waits for no other session: if one is dropping, renaming
 * or copying the database, dropping the extension or altering its tables, it
 * exits, and the launcher starts another one later.
 *
 * Locks are taken in the order extension, tables, rows, the first two without
 * waiting, and rows with SKIP LOCKED.  What triggers and foreign keys wait for,
 * they wait for no longer than lock_timeout allows.
 *
 * The sweep runs as the owner of the tables, as a security-restricted operation.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "settings.h"
#include "sweep_owner.h"
#include "sweeper_state.h"
#include "worker.h"

/*
 * A command that drops the database, or a chunk whose row is locked, waits
 * until the batch ends, or twice that long if it fails and is done again.
 */
#define BATCH_DURATION 1000		/* ms from its first row until a batch ends */

/* the cost delay */
#define WORK_SLICE 250			/* microseconds of work between sleeps */
#define DELAY_FACTOR 4			/* sleep this multiple of the time worked */
#define MAX_DELAY 100			/* ms; locks are held meanwhile */

static char *database_name = NULL;
static TimestampTz slice_start;

/* Fill in what registers a worker. */
void
worker_describe(BackgroundWorker *worker, Oid database)
{
	sweeper_describe_process(worker, "vali_blob worker",
							 "vali_blob_worker_main");
	worker->bgw_flags |= BGWORKER_INTERRUPTIBLE;
	worker->bgw_restart_time = BGW_NEVER_RESTART;
	worker->bgw_main_arg = ObjectIdGetDatum(database);
	snprintf(worker->bgw_name, BGW_MAXLEN, "vali_blob worker for database %u",
			 database);
}

/* Override settings that are meant for the database's clients. */
static void
override_settings(void)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_isolation", "read committed"},
		/* a sweep that is lost in a crash is done again */
		{"synchronous_commit", "off"},
		{"session_replication_role", "origin"},
		{"lock_timeout", "1s"},
		{"transaction_timeout", "0"},
	};

	for (int i = 0; i < (int) lengthof(settings); i++)
	{
		/* not every server has all of them */
		if (GetConfigOption(settings[i][0], true, false) != NULL)
			SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET,
							PGC_S_OVERRIDE);
	}
}

/* Look up the database's name, for the log, and its owner. */
static void
look_up_database(void)
{
	HeapTuple	tuple;
	Form_pg_database form;

	StartTransactionCommand();
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(MyDatabaseId));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for database %u", MyDatabaseId);
	form = (Form_pg_database) GETSTRUCT(tuple);
	database_name = MemoryContextStrdup(TopMemoryContext, NameStr(form->datname));
	/* DROP DATABASE ... WITH (FORCE) checks that the user may terminate us */
	MyProc->roleId = form->datdba;
	ReleaseSysCache(tuple);
	CommitTransactionCommand();
}

/*
 * Does another session hold or await the lock with which a database is dropped,
 * renamed or copied?
 */
static bool
is_database_contended(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, MyDatabaseId, 0);
	if (LockAcquire(&tag, RowExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return true;
	/* kept, it would let such a command wait before it can terminate us */
	LockRelease(&tag, RowExclusiveLock, false);
	return false;
}

/* Lock the extension until the end of the transaction, without waiting. */
static bool
lock_extension(Oid extension)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId, extension, 0);
	if (LockAcquire(&tag, AccessShareLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	/* it may have been dropped before we had the lock */
	AcceptInvalidationMessages();
	return get_extension_oid(EXTENSION_NAME, true) == extension;
}

/*
 * Lock what must not change during a batch: the extension and its tables.  If
 * that is not possible, return false and set *why_not.
 */
static bool
lock_objects(WorkerResult *why_not)
{
	Oid			extension;
	const Catalog *catalog;

	*why_not = WORKER_BUSY;
	if (is_database_contended())
		return false;
	extension = get_extension_oid(EXTENSION_NAME, true);
	if (!OidIsValid(extension))
	{
		*why_not = WORKER_ABSENT;
		return false;
	}
	if (!lock_extension(extension))
		return false;
	catalog = catalog_get();
	for (int i = 0; i < TABLE_COUNT; i++)
	{
		if (OidIsValid(catalog->tables[i]) &&
			!ConditionalLockRelationOid(catalog->tables[i], RowExclusiveLock))
			return false;
	}
	return true;
}

/* Is a run over, as others need the database or it lacks the extension? */
static bool
must_leave(WorkerResult result)
{
	return result == WORKER_BUSY || result == WORKER_ABSENT;
}

/*
 * Sleep after each slice of work, to limit the impact on foreground
 * transactions; compare vacuum_delay_point().
 */
static void
sweep_delay_point(void)
{
	int64		worked = GetCurrentTimestamp() - slice_start;

	if (worked < WORK_SLICE)
		return;
	sweeper_nap(Min(DELAY_FACTOR * worked / 1000, MAX_DELAY));
	slice_start = GetCurrentTimestamp();
}

/* Sweep a batch as the tables' owner. */
static WorkerResult
sweep_as_owner(SweepPass *pass, SweepScanKind kind)
{
	Oid			owner = sweep_owner();
	Oid			user;
	int			security;

	if (!check_sweep_is_safe(owner, kind))
		return WORKER_BUSY;
	GetUserIdAndSecContext(&user, &security);
	/* policies are for clients, even where they are forced on the owner */
	SetUserIdAndSecContext(owner, security | SECURITY_RESTRICTED_OPERATION |
						   SECURITY_NOFORCE_RLS);
	sweep_batch(pass, kind, kind, sweep_batch_size_setting, BATCH_DURATION,
				sweep_delay_point);
	/* after an error, AbortTransaction() does this */
	SetUserIdAndSecContext(user, security);
	return WORKER_SWEPT;
}

/* Sweep a batch, in a transaction of its own. */
static WorkerResult
sweep_in_transaction(SweepPass *pass, SweepScanKind kind)
{
	WorkerResult result;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (lock_objects(&result))
		result = sweep_as_owner(pass, kind);
	PopActiveSnapshot();
	CommitTransactionCommand();
	/* at once, so that autovacuum hears of it */
	pgstat_report_stat(true);
	return result;
}

/* Record an error, and log it unless it was logged before. */
static void
report_error(const char *message)
{
	if (sweeper_record_error(MyDatabaseId, message))
		ereport(LOG,
				(errhidestmt(true),
				 errmsg("vali_blob could not sweep database \"%s\": %s",
						database_name, message)));
}

/* Log that rows of the reclaim queue were dropped: nobody frees that storage. */
static void
report_dropped(int64 dropped)
{
	if (dropped > 0)
		ereport(LOG,
				(errhidestmt(true),
				 errmsg_plural("vali_blob dropped %lld expired row of the reclaim queue in database \"%s\"",
							   "vali_blob dropped %lld expired rows of the reclaim queue in database \"%s\"",
							   (unsigned long) dropped,
							   (long long) dropped, database_name),
				 errdetail("They were older than \"vali_blob.reclaim_retention\".  The storage that they named was not freed.")));
}

/* Sweep a batch; an error is recorded. */
static WorkerResult
try_batch(SweepPass *pass, SweepScanKind kind)
{
	MemoryContext context = CurrentMemoryContext;
	const SweepPass before = *pass;
	volatile WorkerResult result = WORKER_FAILED;

	PG_TRY();
	{
		result = sweep_in_transaction(pass, kind);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		report_error(error->message);
		/* it was rolled back */
		*pass = before;
	}
	PG_END_TRY();
	if (result == WORKER_SWEPT)
		sweeper_record_sweep(pass, &before.done);
	return result;
}

/* Sweep a batch of each scan that is not exhausted. */
static WorkerResult
sweep_batches(SweepPass *pass)
{
	WorkerResult result;

	/*
	 * Expiry comes first, and not only in the first round: what is due by now.
	 * So it never waits for a backlog of purges, nor is it undone with them.
	 */
	pass->scans[SCAN_EXPIRY].is_exhausted = false;
	result = try_batch(pass, SCAN_EXPIRY);
	if (result == WORKER_FAILED)
	{
		/* but what stops expiry need not stop purges */
		pass->scans[SCAN_EXPIRY].is_exhausted = true;
	}
	if (!pass->scans[SCAN_EXPIRY].is_exhausted || must_leave(result))
		return result;

	for (SweepScanKind kind = SCAN_EXPIRY + 1; kind < SCAN_COUNT; kind++)
	{
		/* what cannot be swept now is left to the next pass, without a delay */
		if (!pass->scans[kind].is_exhausted &&
			try_batch(pass, kind) != WORKER_SWEPT)
			pass->scans[kind].is_exhausted = true;
	}
	return result;
}

/*
 * Sweep batch after batch, until the pass is over or the time for this
 * database is.  That is never longer than its sweep_interval: the next pass
 * looks again at the sessions that were locked in this one.
 */
static WorkerResult
sweep_database(SweepPass *pass)
{
	int64		duration = Min(sweeper_run_duration(),
							   sweep_interval_setting * INT64CONST(1000));
	WorkerResult result;

	sweeper_begin_pass(pass);
	slice_start = GetCurrentTimestamp();
	for (;;)
	{
		result = sweep_batches(pass);
		if (must_leave(result) || sweep_is_over(pass))
			break;
		if (GetCurrentTimestamp() >=
			TimestampTzPlusMilliseconds(pass->start, duration))
		{
			result = WORKER_UNFINISHED;
			break;
		}
		sweep_delay_point();
	}
	if (pass->failed > 0)
		report_error(pass->error);
	report_dropped(pass->done.reclaims_dropped);
	return result;
}

/* Main entry point of a worker process. */
void
vali_blob_worker_main(Datum arg)
{
	WorkerResult result = WORKER_SWEPT;
	SweepPass	pass;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);

	look_up_database();
	override_settings();
	debug_query_string = "vali_blob sweep";
	pgstat_report_activity(STATE_RUNNING, debug_query_string);
	/* with vali_blob.sweep off there is nothing to do */
	if (sweep_setting)
		result = sweep_database(&pass);
	sweeper_end_run(result, sweep_interval_setting);
	proc_exit(0);
}
