/*-------------------------------------------------------------------------
 *
 * settings.c
 *		The extension's settings.
 *
 * Settings that only affect a client's own sessions are PGC_USERSET; those that
 * protect sessions or control the sweep are PGC_SUSET.  None needs a server
 * restart, so that all can be set per database.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>
#include <math.h>

#include "utils/guc.h"

#include "settings.h"

#define HOUR 3600
#define DAY (24 * HOUR)

/* Up to here, a double holds every whole number. */
#define MAX_BYTES 9007199254740992.0

int			session_ttl_setting = 48 * HOUR;
int			retention_setting = 48 * HOUR;
int			reclaim_retention_setting = 30 * DAY;
bool		require_owner_setting = false;
int			row_access_setting = ROW_ACCESS_AUTO;
bool		sweep_setting = true;
int			sweep_interval_setting = 60;
int			sweep_batch_size_setting = 1000;
int			node_setting = 0;
int			notify_setting = NOTIFY_OFF;
int			notify_interval_setting = 1000;
double		max_upload_size_setting = -1;
int			max_live_uploads_setting = -1;
double		max_live_bytes_setting = -1;

static const struct config_enum_entry row_access_options[] = {
	{"auto", ROW_ACCESS_AUTO, false},
	{"sql", ROW_ACCESS_SQL, false},
	{"direct", ROW_ACCESS_DIRECT, false},
	{NULL, 0, false}
};

static const struct config_enum_entry notify_options[] = {
	{"off", NOTIFY_OFF, false},
	{"lifecycle", NOTIFY_LIFECYCLE, false},
	{"progress", NOTIFY_PROGRESS, false},
	{NULL, 0, false}
};

/*
 * Refuse 0, to which less than half a second is rounded: a session that is to
 * expire soon must not become one that never does.
 */
static bool
check_session_ttl(int *value, void **extra pg_attribute_unused(),
				  GucSource source pg_attribute_unused())
{
	if (*value != 0)
		return true;
	GUC_check_errdetail("The least idle time is 1 s.");
	GUC_check_errhint("Use -1 for sessions that never expire.");
	return false;
}

/* Define the settings that are durations, with -1 for "forever". */
static void
define_durations(void)
{
	DefineCustomIntVariable("vali_blob.session_ttl",
							"Sets how long a new upload session may stay idle before it expires.",
							"-1 lets new sessions never expire.",
							&session_ttl_setting,
							48 * HOUR, -1, INT_MAX,
							PGC_USERSET, GUC_UNIT_S,
							check_session_ttl, NULL, NULL);

	DefineCustomIntVariable("vali_blob.retention",
							"Sets how long an ended upload session is kept.",
							"0 removes it with the next sweep, -1 keeps it forever.",
							&retention_setting,
							48 * HOUR, -1, INT_MAX,
							PGC_USERSET, GUC_UNIT_S,
							NULL, NULL, NULL);

	DefineCustomIntVariable("vali_blob.reclaim_retention",
							"Sets how long an unfinished row of the reclaim queue is kept.",
							"-1 keeps it forever.",
							&reclaim_retention_setting,
							30 * DAY, -1, INT_MAX,
							PGC_SUSET, GUC_UNIT_S,
							NULL, NULL, NULL);
}

/* Define the settings of the sweep. */
static void
define_sweep_settings(void)
{
	DefineCustomBoolVariable("vali_blob.sweep",
							 "Lets the background worker sweep the database.",
							 "sweep_uploads() works in any case.",
							 &sweep_setting,
							 true,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);

	DefineCustomIntVariable("vali_blob.sweep_interval",
							"Sets the pause between two sweeps of a database.",
							NULL,
							&sweep_interval_setting,
							60, 1, 7 * DAY,
							PGC_SUSET, GUC_UNIT_S,
							NULL, NULL, NULL);

	DefineCustomIntVariable("vali_blob.sweep_batch_size",
							"Sets how many rows a sweep handles in one transaction.",
							NULL,
							&sweep_batch_size_setting,
							1000, 1, 100000,
							PGC_SUSET, 0,
							NULL, NULL, NULL);
}

/* Make a number of bytes a whole one; what is negative is -1. */
static bool
check_bytes(double *value, void **extra pg_attribute_unused(),
			GucSource source pg_attribute_unused())
{
	*value = *value < 0 ? -1 : rint(*value);
	return true;
}

/* Define the limits, with -1 for "any number". */
static void
define_limits(void)
{
	/* an integer setting would end at 2 GB */
	DefineCustomRealVariable("vali_blob.max_upload_size",
							 "Sets the most bytes that a new upload session may ever hold.",
							 "-1 allows any number.",
							 &max_upload_size_setting,
							 -1, -1, MAX_BYTES,
							 PGC_SUSET, GUC_UNIT_BYTE,
							 check_bytes, NULL, NULL);

	DefineCustomIntVariable("vali_blob.max_live_uploads",
							"Sets how many live upload sessions an owner may have.",
							"-1 allows any number.",
							&max_live_uploads_setting,
							-1, -1, INT_MAX,
							PGC_SUSET, 0,
							NULL, NULL, NULL);

	DefineCustomRealVariable("vali_blob.max_live_bytes",
							 "Sets how many bytes may be promised to the live upload sessions of an owner.",
							 "-1 allows any number.",
							 &max_live_bytes_setting,
							 -1, -1, MAX_BYTES,
							 PGC_SUSET, GUC_UNIT_BYTE,
							 check_bytes, NULL, NULL);
}

/* Define the settings of notifications. */
static void
define_notify_settings(void)
{
	DefineCustomEnumVariable("vali_blob.notify",
							 "Sets what is told on the channel \"vali_blob\".",
							 "\"lifecycle\" is start, completion, abort, expiry and deletion; \"progress\" is also chunks.",
							 &notify_setting,
							 NOTIFY_OFF, notify_options,
							 PGC_USERSET, 0,
							 NULL, NULL, NULL);

	DefineCustomIntVariable("vali_blob.notify_interval",
							"Sets the least time between two notifications of the progress of an upload session.",
							"0 notifies of each chunk.",
							&notify_interval_setting,
							1000, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
}

/* Define all settings, when the library is loaded. */
void
define_settings(void)
{
	define_durations();
	define_sweep_settings();
	define_limits();
	define_notify_settings();

	DefineCustomBoolVariable("vali_blob.require_owner",
							 "Refuses every call that names no owner.",
							 "Protects against calls that omit the owner by mistake.",
							 &require_owner_setting,
							 false,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);

	DefineCustomIntVariable("vali_blob.node",
							"Sets which of several servers this is, so that they never give the same id.",
							"New ids are multiples of 1024 plus this number; with 0 they are those of the sequences.",
							&node_setting,
							0, 0, NODE_COUNT - 1,
							PGC_SUSET, 0,
							NULL, NULL, NULL);

	DefineCustomEnumVariable("vali_blob.row_access",
							 "Forces an access path to the rows of upload_session.",
							 "For the extension's developers; \"direct\" fails where it is not safe.",
							 &row_access_setting,
							 ROW_ACCESS_AUTO, row_access_options,
							 PGC_SUSET, GUC_NOT_IN_SAMPLE,
							 NULL, NULL, NULL);

	MarkGUCPrefixReserved("vali_blob");
}
