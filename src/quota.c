/*-------------------------------------------------------------------------
 *
 * quota.c
 *		The SQL-callable functions for the limits of owners.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/datum.h"

#include "arguments.h"
#include "catalog.h"
#include "errors.h"
#include "quota_store.h"
#include "row.h"
#include "statement.h"

PG_FUNCTION_INFO_V1(vali_blob_set_upload_quota);
PG_FUNCTION_INFO_V1(vali_blob_upload_usage);

/* Sessions that were inserted by hand are counted, too, if all are counted again. */
static Statement write_quota = {
	.text = "INSERT INTO @.upload_quota "
	"(owner, max_live_uploads, max_live_bytes, max_upload_size) VALUES ($1, $2, $3, $4) "
	"ON CONFLICT (owner) DO UPDATE SET max_live_uploads = excluded.max_live_uploads, "
	"max_live_bytes = excluded.max_live_bytes, "
	"max_upload_size = excluded.max_upload_size, counted = false",
	.nargs = 4, .argtypes = {TEXTOID, INT8OID, INT8OID, INT8OID},
};

static Statement read_quota = {
	.text = "SELECT (q.*)::@.upload_quota FROM @.upload_quota AS q "
	"WHERE q.owner OPERATOR(pg_catalog.=) $1",
	.nargs = 1, .argtypes = {TEXTOID},
};

/* Return a limit; -1: any number; null: as the setting says. */
static Datum
get_limit(FunctionCallInfo fcinfo, int n, const char *name, bool *is_null)
{
	*is_null = PG_ARGISNULL(n);
	if (*is_null)
		return (Datum) 0;
	if (PG_GETARG_INT64(n) < -1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" must be greater than or equal to -1, but is %lld",
						name, (long long) PG_GETARG_INT64(n)),
				 errhint("Pass -1 for no limit, or null for what the setting vali_blob.%s says.",
						 name)));
	return PG_GETARG_DATUM(n);
}

/* Report that the limits of an owner could not be written. */
pg_noreturn static void
report_suppressed(const text *owner)
{
	ereport(ERROR,
			(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
			 errmsg("could not write the quota of owner \"%s\"", shown_text(owner)),
			 errdetail("A trigger, rule or row-level security policy on table \"%s\" suppressed the row.",
					   table_name(TABLE_QUOTA))));
}

/*
 * set_upload_quota(owner, max_live_uploads, max_live_bytes, max_upload_size): set
 * the limits of an owner, and return them.
 */
Datum
vali_blob_set_upload_quota(PG_FUNCTION_ARGS)
{
	text	   *owner;
	Datum		values[4];
	bool		nulls[4] = {0};
	bool		is_null;
	Datum		row;

	PreventCommandIfReadOnly("set_upload_quota()");
	check_unknown_arguments(fcinfo, 4);
	owner = required_text(fcinfo, 0, "owner");
	values[0] = PointerGetDatum(owner);
	values[1] = get_limit(fcinfo, 1, "max_live_uploads", &nulls[1]);
	values[2] = get_limit(fcinfo, 2, "max_live_bytes", &nulls[2]);
	values[3] = get_limit(fcinfo, 3, "max_upload_size", &nulls[3]);
	quota_lock(owner);
	spi_open();
	statement_run(&write_quota, values, nulls, false);
	if (SPI_processed != 1)
		report_suppressed(owner);
	/* counted now, so that no start has to, which may be refused each time */
	(void) quota_claim(owner);
	statement_run(&read_quota, values, NULL, false);
	/* a policy may hide it */
	if (SPI_processed != 1)
		report_suppressed(owner);
	row = datumCopy(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
								  &is_null), false, -1);
	spi_close();
	PG_RETURN_DATUM(return_row(fcinfo, row));
}

/*
 * upload_usage(owner): what the live sessions of an owner use, and the limits that
 * hold for it.
 */
Datum
vali_blob_upload_usage(PG_FUNCTION_ARGS)
{
	const text *owner;
	Quota		quota;
	Usage		usage;
	Datum		values[5];
	bool		nulls[5] = {0};

	check_unknown_arguments(fcinfo, 1);
	owner = required_text(fcinfo, 0, "owner");
	quota = quota_read(owner, false);
	usage = quota_visible_usage(owner, quota.is_counted);
	values[0] = Int64GetDatum(usage.live_uploads);
	values[1] = Int64GetDatum(usage.live_bytes);
	values[2] = Int64GetDatum(usage.confirmed_bytes);
	values[3] = Int64GetDatum(quota.max_live_uploads);
	nulls[3] = quota.max_live_uploads == LIMIT_NONE;
	values[4] = Int64GetDatum(quota.max_live_bytes);
	nulls[4] = quota.max_live_bytes == LIMIT_NONE;
	PG_RETURN_DATUM(return_columns(fcinfo, values, nulls, lengthof(values)));
}
