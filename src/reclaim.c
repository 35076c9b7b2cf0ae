/*-------------------------------------------------------------------------
 *
 * reclaim.c
 *		The queue of the orphaned storage of aborted and expired uploads.
 *
 * A row is due while claimed_until is null or has passed.  Claiming it pushes
 * claimed_until to the end of the lease, failing it to the end of a delay;
 * finishing deletes it.  Claims skip what others have locked, so that any
 * number of reclaimers share the queue without waiting for each other.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "arguments.h"
#include "errors.h"
#include "reclaim.h"
#include "row.h"
#include "settings.h"
#include "statement.h"

PG_FUNCTION_INFO_V1(vali_blob_claim_reclaims);
PG_FUNCTION_INFO_V1(vali_blob_finish_reclaim);
PG_FUNCTION_INFO_V1(vali_blob_fail_reclaim);

static Statement enqueue = {
	.text = "INSERT INTO @.upload_reclaim "
	"(upload_id, owner, bucket, path, provider_data, reason) "
	"VALUES ($1, $2, $3, $4, $5, $6)",
	.nargs = 6,
	.argtypes = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, InvalidOid},
};

/* The columns that enqueue takes, in its order. */
static const SessionColumn enqueued[] = {
	COLUMN_UPLOAD_ID, COLUMN_OWNER, COLUMN_BUCKET, COLUMN_PATH,
	COLUMN_PROVIDER_DATA, COLUMN_STATUS
};

/* The index expression that orders the queue: never claimed comes first. */
#define DUE_AT \
	"COALESCE(r.claimed_until, '-infinity'::pg_catalog.timestamptz)"

static Statement lock_due = {
	.text = "SELECT r.id FROM @.upload_reclaim AS r "
	"WHERE " DUE_AT " OPERATOR(pg_catalog.<=) $1 "
	"ORDER BY " DUE_AT ", r.id LIMIT $2 FOR UPDATE SKIP LOCKED",
	.nargs = 2, .argtypes = {TIMESTAMPTZOID, INT8OID},
};

static Statement claim = {
	.text = "UPDATE @.upload_reclaim AS r SET claimed_until = $2 "
	"WHERE r.id OPERATOR(pg_catalog.=) $1 RETURNING (r.*)::@.upload_reclaim",
	.nargs = 2, .argtypes = {INT8OID, TIMESTAMPTZOID},
};

static Statement finish = {
	.text = "DELETE FROM @.upload_reclaim AS r "
	"WHERE r.id OPERATOR(pg_catalog.=) $1",
	.nargs = 1, .argtypes = {INT8OID},
};

/* The delay is 15 s, doubles with each failure, and ends at an hour. */
static Statement fail = {
	.text = "UPDATE @.upload_reclaim AS r SET "
	"attempts = r.attempts OPERATOR(pg_catalog.+) 1, "
	"last_error = $2, "
	"claimed_until = $3 OPERATOR(pg_catalog.+) "
	"pg_catalog.make_interval(secs => LEAST(3600, 15 OPERATOR(pg_catalog.*) "
	"(2 OPERATOR(pg_catalog.^) LEAST(r.attempts, 10)))) "
	"WHERE r.id OPERATOR(pg_catalog.=) $1",
	.nargs = 3, .argtypes = {INT8OID, TEXTOID, TIMESTAMPTZOID},
};

static Statement purge = {
	.text = "DELETE FROM @.upload_reclaim AS r WHERE r.id OPERATOR(pg_catalog.=) ANY ("
	"ARRAY(SELECT r.id FROM @.upload_reclaim AS r "
	"WHERE r.enqueued_at OPERATOR(pg_catalog.<=) $1 "
	"ORDER BY r.enqueued_at LIMIT $2 FOR UPDATE SKIP LOCKED))",
	.nargs = 2, .argtypes = {TIMESTAMPTZOID, INT8OID},
};

/* Queue the orphaned storage of a session that was aborted or has expired. */
void
enqueue_reclaim(Store *store, const Session *session)
{
	Datum		values[lengthof(enqueued)];
	bool		nulls[lengthof(enqueued)];

	store_use_sql(store);
	session_values(session, enqueued, lengthof(enqueued), values, nulls);
	statement_run(&enqueue, values, nulls, false);
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("what upload \"%s\" left in storage was not queued",
						shown_text(session->upload_id)),
				 errhint("A trigger, a rule or a policy on table upload_reclaim suppressed the row.")));
}

/* Get how long a claim is to last. */
static Interval *
get_lease(FunctionCallInfo fcinfo, int n)
{
	Interval   *lease;

	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("lease must not be null"),
				 errhint("Pass an interval such as '5 minutes'.")));
	lease = PG_GETARG_INTERVAL_P(n);
	if (compare_with_years(lease, 0) <= 0 ||
		compare_with_years(lease, MAX_INTERVAL_YEARS) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("lease must be positive and at most %d years, but is %s",
						MAX_INTERVAL_YEARS, show_interval(lease)),
				 errhint("Pass an interval such as '5 minutes'.")));
	return lease;
}

/* Claim one row, and put it into the result. */
static void
claim_row(ReturnSetInfo *rsinfo, Datum id, TimestampTz until)
{
	Datum		values[] = {id, TimestampTzGetDatum(until)};
	bool		is_null;

	statement_run(&claim, values, NULL, false);
	if (SPI_processed == 1)
	{
		Datum		row = SPI_getbinval(SPI_tuptable->vals[0],
										SPI_tuptable->tupdesc, 1, &is_null);

		row_return(rsinfo, row);
	}
	SPI_freetuptable(SPI_tuptable);
}

/* Claim rows that are due, in the order in which they became due. */
static void
claim_rows(ReturnSetInfo *rsinfo, TimestampTz now, TimestampTz until, int64 limit)
{
	Datum		values[] = {TimestampTzGetDatum(now), Int64GetDatum(limit)};
	Portal		portal = statement_open(&lock_due, values, false);

	while (statement_fetch(portal))
	{
		SPITupleTable *locked = SPI_tuptable;
		bool		is_null;

		CHECK_FOR_INTERRUPTS();
		claim_row(rsinfo, SPI_getbinval(locked->vals[0], locked->tupdesc, 1,
										&is_null), until);
		SPI_freetuptable(locked);
	}
	SPI_cursor_close(portal);
}

/* claim_reclaims(max_rows, lease): rows that are the caller's for a while. */
Datum
vali_blob_claim_reclaims(PG_FUNCTION_ARGS)
{
	TimestampTz now = GetCurrentTimestamp();
	Datum		until;
	int32		max_rows;

	PreventCommandIfReadOnly("claim_reclaims()");
	check_unknown_arguments(fcinfo, 2);
	max_rows = positive_count(fcinfo, 0, "max_rows");
	until = DirectFunctionCall2(timestamptz_pl_interval,
								TimestampTzGetDatum(now),
								IntervalPGetDatum(get_lease(fcinfo, 1)));
	InitMaterializedSRF(fcinfo, 0);
	spi_open();
	claim_rows((ReturnSetInfo *) fcinfo->resultinfo, now,
			   DatumGetTimestampTz(until), max_rows);
	spi_close();
	return (Datum) 0;
}

/* Run a statement on one row of the queue; false if the row is not there. */
static bool
change_row(Statement *statement, const Datum *values, const bool *nulls)
{
	bool		found;

	spi_open();
	statement_run(statement, values, nulls, false);
	found = SPI_processed > 0;
	spi_close();
	return found;
}

/* Get the id of a row of the queue. */
static Datum
get_id(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("id must not be null"),
				 errhint("Pass the id of a row that claim_reclaims() returned.")));
	return PG_GETARG_DATUM(n);
}

/* finish_reclaim(id): the storage is free. */
Datum
vali_blob_finish_reclaim(PG_FUNCTION_ARGS)
{
	Datum		values[1];

	PreventCommandIfReadOnly("finish_reclaim()");
	check_unknown_arguments(fcinfo, 1);
	values[0] = get_id(fcinfo, 0);
	PG_RETURN_BOOL(change_row(&finish, values, NULL));
}

/* fail_reclaim(id, error): it did not work; try again later. */
Datum
vali_blob_fail_reclaim(PG_FUNCTION_ARGS)
{
	Datum		values[3];
	bool		nulls[3] = {false, PG_ARGISNULL(1), false};

	PreventCommandIfReadOnly("fail_reclaim()");
	check_unknown_arguments(fcinfo, 2);
	values[0] = get_id(fcinfo, 0);
	values[1] = nulls[1] ? (Datum) 0 : PG_GETARG_DATUM(1);
	values[2] = TimestampTzGetDatum(GetCurrentTimestamp());
	PG_RETURN_BOOL(change_row(&fail, values, nulls));
}

/*
 * Remove rows that nobody has finished for too long, and say how many.  Their
 * claims do not count: a row that fails for ever is always claimed.
 */
int64
purge_reclaims(TimestampTz now, int64 limit)
{
	Datum		values[2];

	if (reclaim_retention_setting < 0)
		return 0;
	values[0] = TimestampTzGetDatum(now -
									reclaim_retention_setting * USECS_PER_SEC);
	values[1] = Int64GetDatum(limit);
	statement_run(&purge, values, NULL, false);
	return (int64) SPI_processed;
}
