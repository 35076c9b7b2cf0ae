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

#include "utils/guc.h"

#include "settings.h"

#define HOUR 3600
#define DAY (24 * HOUR)

int			session_ttl_setting = 48 * HOUR;
int			retention_setting = 48 * HOUR;
int			reclaim_retention_setting = 30 * DAY;
bool		require_owner_setting = false;
int			row_access_setting = ROW_ACCESS_AUTO;
bool		sweep_setting = true;
int			sweep_interval_setting = 60;
int			sweep_batch_size_setting = 1000;

static const struct config_enum_entry row_access_options[] = {
	{"auto", ROW_ACCESS_AUTO, false},
	{"sql", ROW_ACCESS_SQL, false},
	{"direct", ROW_ACCESS_DIRECT, false},
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

/* Define all settings, when the library is loaded. */
void
define_settings(void)
{
	define_durations();
	define_sweep_settings();

	DefineCustomBoolVariable("vali_blob.require_owner",
							 "Refuses every call that names no owner.",
							 "Protects against calls that omit the owner by mistake.",
							 &require_owner_setting,
							 false,
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
