/*-------------------------------------------------------------------------
 *
 * worker.c
 *		The worker: sweeps the database that the launcher has sent it to.
 *
 * It lives for one visit.  Each batch is a transaction of its own, and no
 * transaction is open between two of them.  Nobody is waited for: when
 * somebody is dropping, renaming or copying the database, dropping the
 * extension or changing its tables, the visit ends and the launcher comes back
 * later.
 *
 * Locks are taken in the order extension, tables, rows, the first two without
 * waiting, and rows with SKIP LOCKED.  Only tables that depend on those of a
 * superuser (see sweep_owner.c) are waited for, and no longer than lock_timeout
 * allows.
 *
 * The sweep runs as the owner of the tables, as a security-restricted
 * operation.  Policies of row-level security are for the owner's clients, not
 * for the owner here, even where they are forced on it.
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
#include "sweeper.h"

/*
 * Milliseconds after which a batch ends, however many rows it has.  Whoever
 * wants to drop the database, or has a chunk that is held back, waits for that
 * long, or twice if the batch fails and is done again.
 */
#define BATCH_DURATION 1000

/*
 * Milliseconds after which a visit ends even if its last batch has failed.  As
 * long as rows fail, the visit goes on beyond its time: the next one does not
 * know which rows they were, and would spend its time on them again.
 */
#define MAX_FAILING_DURATION 10000

/*
 * A spell of work in microseconds, how many times as long the rest after it is,
 * in whole milliseconds, and how many at the most: locks are held meanwhile.
 */
#define SPELL_DURATION 250
#define REST_FACTOR 4
#define MAX_REST 100

static char *database_name = NULL;
static TimestampTz spell_start;

/* Describe a worker for one visit. */
void
worker_describe(BackgroundWorker *worker, Oid database)
{
	memset(worker, 0, sizeof(BackgroundWorker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION | BGWORKER_INTERRUPTIBLE;
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker->bgw_restart_time = BGW_NEVER_RESTART;
	worker->bgw_main_arg = ObjectIdGetDatum(database);
	strlcpy(worker->bgw_library_name, "vali_blob", sizeof(worker->bgw_library_name));
	strlcpy(worker->bgw_function_name, "vali_blob_worker_main", BGW_MAXLEN);
	snprintf(worker->bgw_name, BGW_MAXLEN, "vali_blob worker for database %u",
			 database);
	strlcpy(worker->bgw_type, "vali_blob worker", BGW_MAXLEN);
}

/*
 * Settle what an administrator may have set otherwise for the database's
 * clients.  A sweep that is lost in a crash is done again, so that it need not
 * wait for its commits to reach the disk or a standby.
 */
static void
settle_session(void)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_isolation", "read committed"},
		{"synchronous_commit", "off"},
		{"session_replication_role", "origin"},
		{"lock_timeout", "1s"},
		OTHER_TIMEOUT_OFF
	};

	for (int i = 0; i < (int) lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET,
						PGC_S_OVERRIDE);
}

/*
 * Learn the database's name, for the log, and let its owner end this process:
 * DROP DATABASE ... WITH (FORCE) asks for the right to do that.
 */
static void
learn_about_database(void)
{
	HeapTuple	tuple;
	Form_pg_database form;

	StartTransactionCommand();
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(MyDatabaseId));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for database %u", MyDatabaseId);
	form = (Form_pg_database) GETSTRUCT(tuple);
	database_name = MemoryContextStrdup(TopMemoryContext, NameStr(form->datname));
	MyProc->roleId = form->datdba;
	ReleaseSysCache(tuple);
	CommitTransactionCommand();
}

/*
 * Tell whether somebody holds or awaits a lock with which a database is
 * dropped, renamed or copied.  We must not keep a lock ourselves: such a
 * command would wait for the whole batch before it could even ask us to end.
 */
static bool
is_database_wanted(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, MyDatabaseId, 0);
	if (LockAcquire(&tag, RowExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return true;
	LockRelease(&tag, RowExclusiveLock, false);
	return false;
}

/* Lock the extension until the end of the transaction, if it can be had now. */
static bool
lock_extension(Oid extension)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId, extension, 0);
	if (LockAcquire(&tag, AccessShareLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	AcceptInvalidationMessages();
	return get_extension_oid("vali_blob", true) == extension;
}

/* Lock what a batch needs to stay as it is: the extension and its tables. */
static VisitResult
lock_objects(void)
{
	Oid			extension;
	const Catalog *catalog;

	if (is_database_wanted())
		return VISIT_BUSY;
	extension = get_extension_oid("vali_blob", true);
	if (!OidIsValid(extension))
		return VISIT_ABSENT;
	if (!lock_extension(extension))
		return VISIT_BUSY;
	catalog = catalog_get();
	if (!ConditionalLockRelationOid(catalog->session_table, RowExclusiveLock) ||
		!ConditionalLockRelationOid(catalog->reclaim_table, RowExclusiveLock))
		return VISIT_BUSY;
	return VISIT_SWEPT;
}

/*
 * Rest if a spell of work is over.  Spells are short, so that those who upload
 * do not feel them, and take no more than a third of a core, unless a single row
 * takes very long.
 */
static void
breathe(void)
{
	int64		worked = GetCurrentTimestamp() - spell_start;

	if (worked < SPELL_DURATION)
		return;
	sweeper_nap(Min(REST_FACTOR * worked / 1000, MAX_REST));
	spell_start = GetCurrentTimestamp();
}

/* Sweep a batch as the tables' owner. */
static void
sweep_as_owner(SweepPass *pass)
{
	Oid			owner = sweep_owner();
	Oid			user;
	int			security;

	GetUserIdAndSecContext(&user, &security);
	SetUserIdAndSecContext(owner, security | SECURITY_RESTRICTED_OPERATION |
						   SECURITY_NOFORCE_RLS);
	sweep_batch(pass, sweep_batch_size_setting, BATCH_DURATION,
				breathe);
	SetUserIdAndSecContext(user, security);
}

/* Sweep a batch, in a transaction of its own. */
static VisitResult
sweep_in_transaction(SweepPass *pass)
{
	VisitResult result;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	result = lock_objects();
	if (result == VISIT_SWEPT)
		sweep_as_owner(pass);
	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_stat(true);
	return result;
}

/* Put an error on record, and into the log if it is new. */
static void
report_error(const char *message)
{
	if (sweeper_record_error(MyDatabaseId, message))
		ereport(LOG,
				(errhidestmt(true),
				 errmsg("vali_blob could not sweep database \"%s\": %s",
						database_name, message)));
}

/*
 * Put reclaim rows that were given up into the log: nobody else will ever say
 * that their storage is orphaned.
 */
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
				 errdetail("They were older than \"vali_blob.reclaim_retention\", and their storage was not freed.")));
}

/*
 * Sweep batch after batch, until the pass is over or the time for this
 * database is.  Unless rows fail, that is never longer than its sweep_interval:
 * the next pass looks again at the sessions that were locked in this one.
 */
static VisitResult
sweep_database(SweepPass *pass)
{
	int64		duration = Min(sweeper_visit_duration(),
							   sweep_interval_setting * INT64CONST(1000));

	sweeper_begin_pass(pass);
	spell_start = GetCurrentTimestamp();
	while (!sweep_is_over(pass))
	{
		SweepCounts before = pass->done;
		int64		failed_before = pass->failed;
		VisitResult result = sweep_in_transaction(pass);
		int64		limit;

		if (result != VISIT_SWEPT)
			return result;
		sweeper_record_sweep(pass, &before);
		report_dropped(pass->done.reclaims_dropped - before.reclaims_dropped);
		if (sweep_is_over(pass))
			break;
		limit = pass->failed > failed_before ?
			Max(duration, MAX_FAILING_DURATION) : duration;
		if (GetCurrentTimestamp() >=
			TimestampTzPlusMilliseconds(pass->start, limit))
			return VISIT_UNFINISHED;
		breathe();
	}
	return VISIT_SWEPT;
}

/* A visit that was all failures is one, so that it is not repeated at once. */
static VisitResult
judge_visit(const SweepPass *pass, VisitResult result)
{
	bool		was_vain = pass->failed > 0 &&
		pass->done.expired + pass->done.purged + pass->done.reclaims_dropped == 0;

	return result == VISIT_UNFINISHED && was_vain ? VISIT_FAILED : result;
}

/* Visit the database; an error ends the visit, not the process. */
static VisitResult
visit_database(void)
{
	MemoryContext context = CurrentMemoryContext;
	SweepPass  *pass = palloc0(sizeof(SweepPass));
	volatile VisitResult result = VISIT_FAILED;

	PG_TRY();
	{
		result = sweep_database(pass);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		report_error(error->message);
	}
	PG_END_TRY();
	if (pass->failed > 0)
		report_error(pass->error);
	return judge_visit(pass, result);
}

/* The worker's life. */
void
vali_blob_worker_main(Datum arg)
{
	VisitResult result = VISIT_SWEPT;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);

	learn_about_database();
	settle_session();
	debug_query_string = "vali_blob sweep";
	pgstat_report_activity(STATE_RUNNING, debug_query_string);
	if (sweep_setting)
		result = visit_database();
	sweeper_end_visit(result, sweep_interval_setting);
	proc_exit(0);
}
