/*-------------------------------------------------------------------------
 *
 * parts.c
 *		The SQL-callable functions that show the parts of upload sessions, and
 *		what is missing.
 *
 * Like all readers, they lock nothing and work on a hot standby.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "arguments.h"
#include "lifecycle.h"
#include "row.h"
#include "statement.h"
#include "store.h"

PG_FUNCTION_INFO_V1(vali_blob_list_parts);
PG_FUNCTION_INFO_V1(vali_blob_missing_ranges);

/* How many rows to fetch at a time */
#define FETCH_COUNT 1000

static Statement select_parts = {
	.text = "SELECT (p.*)::@.upload_part FROM @.upload_part AS p "
	"WHERE p.upload_id OPERATOR(pg_catalog.=) $1 "
	"AND p.chunk_offset OPERATOR(pg_catalog.>) $2 "
	"ORDER BY p.chunk_offset LIMIT $3",
	.nargs = 3, .argtypes = {TEXTOID, INT8OID, INT8OID},
	.many_rows = true,
};

static Statement select_ranges = {
	.text = "SELECT p.chunk_offset::pg_catalog.int8, p.chunk_length::pg_catalog.int8 "
	"FROM @.upload_part AS p "
	"WHERE p.upload_id OPERATOR(pg_catalog.=) $1 ORDER BY p.chunk_offset",
	.nargs = 1, .argtypes = {TEXTOID},
	.many_rows = true,
};

/* Find a session that the caller may see; false if there is none. */
static bool
find_session(Store *store, const text *upload_id, const text *owner,
			 Session *session)
{
	return store_read(store, upload_id, session) &&
		session_belongs_to(session, owner);
}

/*
 * list_parts(upload_id, owner, max_rows, after_offset): a page of the parts of a
 * session, by offset.
 */
Datum
vali_blob_list_parts(PG_FUNCTION_ARGS)
{
	text	   *upload_id;
	text	   *owner;
	int32		max_rows;
	int64		after;
	Store	   *store;
	Session		session;

	check_unknown_arguments(fcinfo, 4);
	upload_id = required_text(fcinfo, 0, "upload_id");
	owner = optional_owner(fcinfo, 1, upload_id);
	max_rows = required_count(fcinfo, 2, "max_rows");
	after = optional_size(fcinfo, 3, "after_offset", upload_id);

	begin_rows(fcinfo);
	store = store_open(AccessShareLock);
	if (find_session(store, upload_id, owner, &session))
	{
		Datum		values[] = {
			PointerGetDatum(upload_id),
			Int64GetDatum(after),
			Int64GetDatum(max_rows),
		};
		Portal		portal;

		store_use_sql(store);
		portal = statement_open(&select_parts, values, true);
		while (statement_fetch_many(portal, FETCH_COUNT) > 0)
		{
			bool		is_null;

			CHECK_FOR_INTERRUPTS();
			for (uint64 i = 0; i < SPI_processed; i++)
				put_row((ReturnSetInfo *) fcinfo->resultinfo,
						SPI_getbinval(SPI_tuptable->vals[i],
									  SPI_tuptable->tupdesc, 1, &is_null));
			SPI_freetuptable(SPI_tuptable);
		}
		SPI_cursor_close(portal);
	}
	store_close(store);
	return (Datum) 0;
}

/* The ranges that are missing, on their way into the result */
typedef struct MissingRanges
{
	ReturnSetInfo *rsinfo;
	int64		position;		/* all before it is confirmed, or in the result */
	int32		left;			/* how many more the caller wants */
} MissingRanges;

/* Put a range into the result; its end may be unknown. */
static void
put_range(MissingRanges *missing, int64 end)
{
	Datum		values[] = {
		Int64GetDatum(missing->position),
		Int64GetDatum(end - missing->position),
	};
	bool		nulls[] = {false, end == SIZE_DEFERRED};

	if (end == missing->position || missing->left == 0)
		return;
	tuplestore_putvalues(missing->rsinfo->setResult, missing->rsinfo->setDesc,
						 values, nulls);
	missing->left--;
}

/* Put the ranges between the parts of a session into the result. */
static void
put_gaps(MissingRanges *missing, const text *upload_id)
{
	Datum		value = PointerGetDatum(upload_id);
	Portal		portal = statement_open(&select_ranges, &value, true);

	while (missing->left > 0 && statement_fetch_many(portal, FETCH_COUNT) > 0)
	{
		CHECK_FOR_INTERRUPTS();
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			HeapTuple	row = SPI_tuptable->vals[i];
			TupleDesc	desc = SPI_tuptable->tupdesc;
			bool		is_null;
			int64		offset = DatumGetInt64(SPI_getbinval(row, desc, 1, &is_null));
			int64		length = DatumGetInt64(SPI_getbinval(row, desc, 2, &is_null));

			put_range(missing, offset);
			missing->position = offset + length;
		}
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
}

/*
 * missing_ranges(upload_id, owner, max_rows): what is still to be sent, by offset.
 * An ended session takes nothing more.
 */
Datum
vali_blob_missing_ranges(PG_FUNCTION_ARGS)
{
	MissingRanges missing = {0};
	text	   *upload_id;
	text	   *owner;
	Store	   *store;
	Session		session;

	check_unknown_arguments(fcinfo, 3);
	upload_id = required_text(fcinfo, 0, "upload_id");
	owner = optional_owner(fcinfo, 1, upload_id);
	missing.left = required_count(fcinfo, 2, "max_rows");

	/* the function may have been dropped since the query began */
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	missing.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	store = store_open(AccessShareLock);
	if (find_session(store, upload_id, owner, &session) &&
		status_is_live(session_shown_status(&session, GetCurrentTimestamp())))
	{
		if (session.any_order)
		{
			store_use_sql(store);
			put_gaps(&missing, upload_id);
		}
		else
			missing.position = session.uploaded_bytes;
		put_range(&missing, session.total_size);
	}
	store_close(store);
	return (Datum) 0;
}
