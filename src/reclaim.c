/*-------------------------------------------------------------------------
 *
 * reclaim.c
 *		The queue of orphaned storage, which aborted and expired uploads have
 *		left behind.
 *
 * A row is due if claimed_until is null or has passed.  Claiming it sets
 * claimed_until to the end of the lease, failing it to the end of a delay;
 * finishing deletes it.  Claims skip locked rows, so that any number of clients
 * can work on the queue without waiting for each other.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "arguments.h"
#include "catalog.h"
#include "errors.h"
#include "json.h"
#include "part_store.h"
#include "reclaim.h"
#include "row.h"
#include "statement.h"

PG_FUNCTION_INFO_V1(vali_blob_claim_reclaims);
PG_FUNCTION_INFO_V1(vali_blob_finish_reclaim);
PG_FUNCTION_INFO_V1(vali_blob_fail_reclaim);

/* The columns of a session that a row of the queue has; status is the reason. */
#define QUEUED_COLUMNS \
	(COLUMN_BIT(COLUMN_UPLOAD_ID) | COLUMN_BIT(COLUMN_OWNER) | \
	 COLUMN_BIT(COLUMN_BUCKET) | COLUMN_BIT(COLUMN_PATH) | \
	 COLUMN_BIT(COLUMN_STATUS) | COLUMN_BIT(COLUMN_PROVIDER_DATA))

#define QUEUED_COLUMN_COUNT 6

/* The arguments are in the order of SessionColumn, with up to two others behind. */
#define INSERT_RECLAIM(other_columns, other_values, type7, type8) \
	{ \
		.text = "INSERT INTO @.upload_reclaim " \
		"(upload_id, owner, bucket, path, reason, provider_data" other_columns ") " \
		"VALUES ($1, $2, $3, $4, $5, $6" other_values ")", \
		.nargs = QUEUED_COLUMN_COUNT + OidIsValid(type7) + OidIsValid(type8), \
		.argtypes = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, InvalidOid, JSONBOID, type7, type8}, \
	}

/* Without and with parts, then without and with an id */
static Statement insert_reclaim[2][2] = {
	{
		INSERT_RECLAIM("", "", InvalidOid, InvalidOid),
		INSERT_RECLAIM(", id", ", $7", INT8OID, InvalidOid),
	},
	{
		INSERT_RECLAIM(", parts", ", $7", JSONBOID, InvalidOid),
		INSERT_RECLAIM(", parts, id", ", $7, $8", JSONBOID, INT8OID),
	},
};

/* The expression of upload_reclaim_due_idx: rows never claimed come first. */
#define DUE_AT \
	"COALESCE(claimed_until, '-infinity'::pg_catalog.timestamptz)"

/* How many parts a row has at most: a JSON document ends at 256 MB. */
#define MAX_PARTS_PER_ROW 20000

/* The fewest keys to select at a time */
#define MIN_PAGE 100

#define LEASE_HINT "Pass an interval such as '5 minutes'."
#define ID_HINT "Pass the id of a row that claim_reclaims() returned."

static Statement select_due_reclaims =
	SELECT_DUE("upload_reclaim", DUE_AT, "true");

/*
 * The row with a key, if it fulfills a condition still and is not locked.  Only a
 * SELECT can skip a locked row.
 */
#define WHERE_KEY_AND(condition) \
	"WHERE (r.id, r.upload_id) OPERATOR(pg_catalog.=) (" \
	"SELECT q.id, q.upload_id FROM @.upload_reclaim AS q " \
	"WHERE q.id OPERATOR(pg_catalog.=) $1 " \
	"AND q.upload_id OPERATOR(pg_catalog.=) $2 " \
	"AND " condition " LIMIT 1 FOR UPDATE SKIP LOCKED)"

static Statement claim_reclaim = {
	.text = "UPDATE @.upload_reclaim AS r SET claimed_until = $4 "
	WHERE_KEY_AND(DUE_AT " OPERATOR(pg_catalog.<=) $3"),
	.nargs = 4,
	.argtypes = {INT8OID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID},
	.returns_row = true, .table = TABLE_RECLAIM,
};

static Statement delete_reclaim = {
	.text = "DELETE FROM @.upload_reclaim AS r "
	"WHERE r.id OPERATOR(pg_catalog.=) $1",
	.nargs = 1, .argtypes = {INT8OID},
};

/* The delay is 15 s, doubles with each failure, and ends at an hour. */
static Statement delay_reclaim = {
	.text = "UPDATE @.upload_reclaim AS r SET "
	"attempts = r.attempts OPERATOR(pg_catalog.+) 1, "
	"last_error = $2, "
	"claimed_until = $3 OPERATOR(pg_catalog.+) "
	"pg_catalog.make_interval(secs => LEAST(3600, 15 OPERATOR(pg_catalog.*) "
	"(2 OPERATOR(pg_catalog.^) LEAST(r.attempts, 10)))) "
	"WHERE r.id OPERATOR(pg_catalog.=) $1",
	.nargs = 3, .argtypes = {INT8OID, TEXTOID, TIMESTAMPTZOID},
};

static Statement drop_old_reclaim = {
	.text = "DELETE FROM @.upload_reclaim AS r "
	WHERE_KEY_AND("q.enqueued_at OPERATOR(pg_catalog.<=) $3"),
	.nargs = 3, .argtypes = {INT8OID, TEXTOID, TIMESTAMPTZOID},
};

/* Insert a row into the queue. */
static void
insert_row(Store *store, const Session *session, Datum parts, bool has_parts)
{
	Datum		values[QUEUED_COLUMN_COUNT + 2];
	bool		nulls[QUEUED_COLUMN_COUNT + 2] = {false};
	int64		id = new_row_id(TABLE_RECLAIM);
	int			nargs = session_values(session, QUEUED_COLUMNS, values, nulls);

	Assert(nargs == QUEUED_COLUMN_COUNT);
	if (has_parts)
		values[nargs++] = parts;
	if (id != 0)
		values[nargs++] = Int64GetDatum(id);
	store_use_sql(store);
	statement_run(&insert_reclaim[has_parts][id != 0], values, nulls, false);
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("could not queue the orphaned storage of upload \"%s\"",
						shown_text(session->upload_id)),
				 errdetail("A trigger, rule or row-level security policy on table \"%s\" suppressed the row.",
						   table_name(TABLE_RECLAIM))));
}

/*
 * Queue the storage of a session, unless nothing is known to be there, and the
 * caller wants no row then.  Each row has a page of its parts.
 */
void
enqueue_reclaim(Store *store, const Session *session, bool even_if_empty)
{
	/* the first part of a session sets rules_version */
	bool		may_have_parts = session->rules_version >= RULES_OF_1_1;
	bool		is_queued = false;
	int64		after = -1;

	while (may_have_parts)
	{
		bool		is_end;
		Datum		parts = parts_as_json(store, session->upload_id, &after,
										  MAX_PARTS_PER_ROW, &is_end);

		if (is_end)
			break;
		CHECK_FOR_INTERRUPTS();
		insert_row(store, session, parts, true);
		pfree(DatumGetPointer(parts));
		is_queued = true;
	}
	if (!is_queued && (even_if_empty || !json_is_empty(session->provider_data)))
		insert_row(store, session, (Datum) 0, false);
}

/*
 * Claim a row, and put it into the result; false if it is locked, or no longer
 * due.
 */
static bool
claim_row(ReturnSetInfo *rsinfo, const DueKey *key, TimestampTz now,
		  TimestampTz until)
{
	Datum		values[] = {
		Int64GetDatum(key->id),
		PointerGetDatum(key->upload_id),
		TimestampTzGetDatum(now),
		TimestampTzGetDatum(until),
	};
	bool		found;
	bool		is_null;

	statement_run(&claim_reclaim, values, NULL, false);
	found = SPI_processed > 0;
	if (found)
		put_row(rsinfo, SPI_getbinval(SPI_tuptable->vals[0],
									  SPI_tuptable->tupdesc, 1, &is_null));
	SPI_freetuptable(SPI_tuptable);
	return found;
}

/*
 * Claim rows that are due, in the order in which they became due.
 *
 * As a sweep does, choose keys without locking anything, and then lock each row
 * by its key.  Rows that others have locked, or claimed since, do not count, so
 * there may be any number of pages of keys.
 */
static void
claim_rows(ReturnSetInfo *rsinfo, TimestampTz now, TimestampTz until, int64 limit)
{
	DueKey		key = {.due_at = DT_NOBEGIN, .id = PG_INT64_MIN};
	int64		page = Max(limit, MIN_PAGE);
	int64		fetched;

	do
	{
		Datum		values[] = {
			TimestampTzGetDatum(key.due_at),
			Int64GetDatum(key.id),
			TimestampTzGetDatum(now),
			Int64GetDatum(page),
		};
		Portal		portal = statement_open(&select_due_reclaims, values, false);

		for (fetched = 0; limit > 0 && statement_fetch_due(portal, &key); fetched++)
		{
			CHECK_FOR_INTERRUPTS();
			if (key.upload_id == NULL)
				continue;
			if (claim_row(rsinfo, &key, now, until))
				limit--;
			pfree(key.upload_id);
		}
		SPI_cursor_close(portal);
	} while (fetched == page && limit > 0);
}

/* claim_reclaims(max_rows, lease): claim rows for the time of a lease. */
Datum
vali_blob_claim_reclaims(PG_FUNCTION_ARGS)
{
	TimestampTz now = GetCurrentTimestamp();
	Interval   *lease;
	Datum		until;
	int32		max_rows;

	PreventCommandIfReadOnly("claim_reclaims()");
	check_unknown_arguments(fcinfo, 2);
	max_rows = required_count(fcinfo, 0, "max_rows");
	require_not_null(fcinfo, 1, "lease", LEASE_HINT);
	lease = PG_GETARG_INTERVAL_P(1);
	check_interval(lease, "lease", false, LEASE_HINT);
	until = DirectFunctionCall2(timestamptz_pl_interval,
								TimestampTzGetDatum(now),
								IntervalPGetDatum(lease));
	begin_rows(fcinfo);
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

/* finish_reclaim(id): remove a row whose storage was freed. */
Datum
vali_blob_finish_reclaim(PG_FUNCTION_ARGS)
{
	Datum		values[1];

	PreventCommandIfReadOnly("finish_reclaim()");
	check_unknown_arguments(fcinfo, 1);
	require_not_null(fcinfo, 0, "id", ID_HINT);
	values[0] = PG_GETARG_DATUM(0);
	PG_RETURN_BOOL(change_row(&delete_reclaim, values, NULL));
}

/* fail_reclaim(id, error): have a row handed out again after a delay. */
Datum
vali_blob_fail_reclaim(PG_FUNCTION_ARGS)
{
	Datum		values[3];
	bool		nulls[3] = {false, PG_ARGISNULL(1), false};

	PreventCommandIfReadOnly("fail_reclaim()");
	check_unknown_arguments(fcinfo, 2);
	require_not_null(fcinfo, 0, "id", ID_HINT);
	values[0] = PG_GETARG_DATUM(0);
	values[1] = nulls[1] ? (Datum) 0 : PG_GETARG_DATUM(1);
	values[2] = TimestampTzGetDatum(GetCurrentTimestamp());
	PG_RETURN_BOOL(change_row(&delay_reclaim, values, nulls));
}

/*
 * Drop a row that was enqueued before a point in time; false if it is locked, or
 * gone.  That it is claimed does not matter: one that always fails always is.
 */
bool
drop_reclaim(int64 id, const text *upload_id, TimestampTz due_at)
{
	Datum		values[] = {
		Int64GetDatum(id),
		PointerGetDatum(upload_id),
		TimestampTzGetDatum(due_at),
	};

	statement_run(&drop_old_reclaim, values, NULL, false);
	return SPI_processed > 0;
}
