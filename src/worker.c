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
 * waiting, and rows with SKIP LOCKED.  Only child tables of a superuser's are
 * waited for, and no longer than lock_timeout allows.
 *
 * The sweep runs as the owner of the tables, as a security-restricted
 * operation.  Policies of row-level security are for the owner's clients, not
 * for him here, even where they are forced on him.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "settings.h"
#include "sweeper.h"

/* Milliseconds after which a visit gives way to other databases. */
#define VISIT_DURATION 10000

/*
 * Milliseconds after which a batch ends, however many rows it has.  Whoever
 * wants to drop the database, or has a chunk that is held back, waits for that
 * long, or twice if the batch fails and is done again.
 */
#define BATCH_DURATION 1000

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

/* The owner of a table. */
static Oid
table_owner(Oid table)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", table);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* The author of a function. */
static Oid
function_owner(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * Tell whether a trigger may be somebody else's work.  Nobody records who has
 * created it.  What its WHEN clause does cannot be told from the functions that
 * it names: ts_rewrite() runs any SQL, lo_export() writes any file, a domain
 * has hidden functions.  Arguments can steer a superuser's function.  And what
 * is SECURITY DEFINER now may no longer be when the second row is swept.
 */
static bool
is_dangerous_trigger(const Trigger *trigger)
{
	return trigger->tgqual != NULL || trigger->tgnargs > 0 ||
		!superuser_arg(function_owner(trigger->tgfoid));
}

/*
 * Refuse to run as superuser what somebody else has attached to a superuser's
 * table.  Triggers are all that can be: whoever has the privilege TRIGGER may
 * create them, whereas the rest of a table is its owner's.
 */
static void
check_triggers(Oid table)
{
	Relation	rel = table_open(table, NoLock);

	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		const Trigger *trigger = &rel->trigdesc->triggers[i];

		if (!trigger->tgisinternal && trigger->tgenabled != TRIGGER_DISABLED &&
			is_dangerous_trigger(trigger))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("trigger \"%s\" on table \"%s\" could run what an ordinary role has attached as superuser",
							trigger->tgname, RelationGetRelationName(rel)),
					 errhint("Make a role that is no superuser the owner of the tables, or drop the trigger.")));
	}
	table_close(rel, NoLock);
}

/* Check a table and its partitions or children, which others may own. */
static void
check_tables(Oid table, Oid owner)
{
	ListCell   *cell;

	foreach(cell, find_all_inheritors(table, RowExclusiveLock, NULL))
	{
		if (table_owner(lfirst_oid(cell)) != owner)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("tables \"%s\" and \"%s\" have different owners",
							get_rel_name(table), get_rel_name(lfirst_oid(cell))),
					 errhint("Give them to one role with ALTER TABLE ... OWNER TO.")));
		check_triggers(lfirst_oid(cell));
	}
}

/* Find the role to sweep as, and see that this is safe. */
static Oid
find_owner(void)
{
	const Catalog *catalog = catalog_get();
	Oid			owner = table_owner(catalog->session_table);

	if (table_owner(catalog->reclaim_table) != owner)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("tables upload_session and upload_reclaim have different owners"),
				 errhint("Give both tables to one role with ALTER TABLE ... OWNER TO.")));
	if (superuser_arg(owner))
	{
		check_tables(catalog->session_table, owner);
		check_tables(catalog->reclaim_table, owner);
	}
	return owner;
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
	Oid			owner = find_owner();
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

/* Sweep batch after batch, until the pass is over or the visit is. */
static VisitResult
sweep_database(SweepPass *pass)
{
	sweeper_begin_pass(pass);
	spell_start = GetCurrentTimestamp();
	while (!sweep_is_over(pass))
	{
		int64		expired = pass->expired;
		int64		purged = pass->purged;
		VisitResult result = sweep_in_transaction(pass);

		if (result != VISIT_SWEPT)
			return result;
		sweeper_record_sweep(pass, pass->expired - expired,
							 pass->purged - purged);
		if (sweep_is_over(pass))
			break;
		if (TimestampDifferenceExceeds(pass->start, GetCurrentTimestamp(),
									   VISIT_DURATION))
			return VISIT_UNFINISHED;
		breathe();
	}
	return VISIT_SWEPT;
}

/* A visit that was all failures is one, so that it is not repeated at once. */
static VisitResult
judge_visit(const SweepPass *pass, VisitResult result)
{
	bool		was_vain = pass->failed > 0 && pass->expired + pass->purged == 0;

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
