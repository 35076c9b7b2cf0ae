/*-------------------------------------------------------------------------
 *
 * sweeper_api.c
 *		The background sweeper: its registration, and the SQL-callable
 *		functions that start it and show its state.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "arguments.h"
#include "launcher.h"
#include "row.h"
#include "sweeper_api.h"
#include "sweeper_state.h"

PG_FUNCTION_INFO_V1(vali_blob_start_sweeper);
PG_FUNCTION_INFO_V1(vali_blob_sweeper_status);
PG_FUNCTION_INFO_V1(vali_blob_warn_without_sweeper);

/* The columns of sweeper_status() */
#define STATUS_COLUMNS 11

/* A class of advisory locks that SQL cannot take; it uses 1 and 2. */
#define START_LOCK_CLASS 86

/* The library was loaded when the server started. */
static bool preloaded = false;

/* Register the launcher, while the server starts. */
void
sweeper_init(void)
{
	BackgroundWorker worker;

	preloaded = true;
	sweeper_reserve_memory();
	launcher_describe(&worker);
	RegisterBackgroundWorker(&worker);
}

/* Start the launcher, and wait until it has registered itself. */
static void
start_launcher(void)
{
	BackgroundWorker worker;
	BackgroundWorkerHandle *handle;
	pid_t		pid;

	launcher_describe(&worker);
	worker.bgw_notify_pid = MyProcPid;
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("no free background worker slot for the vali_blob launcher"),
				 errhint("You might need to increase \"max_worker_processes\".")));

	(void) WaitForBackgroundWorkerStartup(handle, &pid);
	while (sweeper_launcher_pid() == 0 &&
		   GetBackgroundWorkerPid(handle, &pid) == BGWH_STARTED)
		sweeper_nap(10);
	if (sweeper_launcher_pid() == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not start the vali_blob launcher"),
				 errhint("Check the server log for details.")));
}

/* start_sweeper(): start the launcher now; false if it is already running. */
Datum
vali_blob_start_sweeper(PG_FUNCTION_ARGS)
{
	LOCKTAG		tag;
	bool		is_needed;

	/*
	 * Nothing is written here.  But on a standby, where all transactions are
	 * read-only, BgWorkerStart_RecoveryFinished would not let the launcher
	 * start, and we would wait for it.
	 */
	PreventCommandIfReadOnly("start_sweeper()");
	check_unknown_arguments(fcinfo, 0);

	/*
	 * One caller at a time, in all databases, so that they do not use up the
	 * worker slots for launchers that are not needed.
	 */
	SET_LOCKTAG_ADVISORY(tag, InvalidOid, 0, 0, START_LOCK_CLASS);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	is_needed = sweeper_launcher_pid() == 0;
	if (is_needed)
		start_launcher();
	LockRelease(&tag, ExclusiveLock, false);
	PG_RETURN_BOOL(is_needed);
}

/* sweeper_status(): the sweeper's state, and what it did in this database. */
Datum
vali_blob_sweeper_status(PG_FUNCTION_ARGS)
{
	SweptDatabase database;
	Interval	duration = {0};
	Datum		values[STATUS_COLUMNS];
	bool		nulls[STATUS_COLUMNS] = {0};
	int			n = 0;
	int			first;

	check_unknown_arguments(fcinfo, 0);
	sweeper_get_database(&database);
	values[n++] = BoolGetDatum(sweeper_launcher_pid() != 0);

	/* the last sweep */
	first = n;
	duration.time = database.last_duration;
	values[n++] = TimestampTzGetDatum(database.last_sweep);
	values[n++] = IntervalPGetDatum(&duration);
	values[n++] = Int64GetDatum(database.last.expired);
	values[n++] = Int64GetDatum(database.last.purged);
	values[n++] = Int64GetDatum(database.last.reclaims_dropped);
	for (int i = first; i < n; i++)
		nulls[i] = database.last_sweep == 0;

	values[n++] = Int64GetDatum(database.total.expired);
	values[n++] = Int64GetDatum(database.total.purged);
	values[n++] = Int64GetDatum(database.total.reclaims_dropped);

	/* the last error */
	first = n;
	values[n++] = CStringGetTextDatum(database.last_error);
	values[n++] = TimestampTzGetDatum(database.last_error_at);
	for (int i = first; i < n; i++)
		nulls[i] = database.last_error_at == 0;

	Assert(n == STATUS_COLUMNS);
	PG_RETURN_DATUM(return_columns(fcinfo, values, nulls, STATUS_COLUMNS));
}

/* Called by the installation script: warn if nothing will sweep. */
Datum
vali_blob_warn_without_sweeper(FunctionCallInfo fcinfo pg_attribute_unused())
{
	if (!preloaded && sweeper_launcher_pid() == 0)
		ereport(WARNING,
				(errmsg("vali_blob launcher is not running"),
				 errdetail("Stale uploads stay in the table until they are swept."),
				 errhint("Add \"vali_blob\" to \"shared_preload_libraries\" and restart the server, or call start_sweeper(), which lasts until the next restart.")));
	PG_RETURN_VOID();
}
