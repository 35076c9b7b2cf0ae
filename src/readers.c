/*-------------------------------------------------------------------------
 *
 * readers.c
 *		The SQL-callable functions that show upload sessions.
 *
 * They lock nothing and work on a hot standby.  A live session past its
 * deadline is shown as expired, swept or not.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "arguments.h"
#include "catalog.h"
#include "lifecycle.h"
#include "row.h"
#include "statement.h"
#include "store.h"

PG_FUNCTION_INFO_V1(vali_blob_get_upload);
PG_FUNCTION_INFO_V1(vali_blob_get_uploads);
PG_FUNCTION_INFO_V1(vali_blob_list_uploads);

static Statement read_many = {
	.text = "SELECT (this_session.*)::@.upload_session "
	"FROM pg_catalog.unnest($1) WITH ORDINALITY AS wanted (upload_id, position) "
	"JOIN @.upload_session AS this_session "
	"ON this_session.upload_id OPERATOR(pg_catalog.=) wanted.upload_id "
	"ORDER BY wanted.position",
	.nargs = 1, .argtypes = {TEXTARRAYOID},
	.many_rows = true,
};

/* The query of list_uploads(), under construction */
typedef struct Listing
{
	StringInfoData query;
	int			nargs;
	Oid			argtypes[6];
	Datum		values[6];
} Listing;

/* get_upload(upload_id, owner): one session, if it is there. */
Datum
vali_blob_get_upload(PG_FUNCTION_ARGS)
{
	text	   *upload_id;
	text	   *owner;
	Store	   *store;
	Session		session;

	check_unknown_arguments(fcinfo, 2);
	upload_id = required_text(fcinfo, 0, "upload_id");
	owner = optional_owner(fcinfo, 1, upload_id);
	begin_rows(fcinfo);
	store = store_open(AccessShareLock);
	if (store_read(store, upload_id, &session) &&
		session_belongs_to(&session, owner))
		store_put_row(store, (ReturnSetInfo *) fcinfo->resultinfo, &session,
					  session_shown_status(&session, GetCurrentTimestamp()));
	store_close(store);
	return (Datum) 0;
}

/* Return the sessions of a cursor that belong to the owner. */
static void
put_sessions(ReturnSetInfo *rsinfo, Portal portal, const text *owner,
			 TimestampTz now)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext row_context = AllocSetContextCreate(caller, "vali_blob row",
													  ALLOCSET_SMALL_SIZES);
	Session		session;

	MemoryContextSwitchTo(row_context);
	while (store_fetch(portal, &session))
	{
		CHECK_FOR_INTERRUPTS();
		if (session_belongs_to(&session, owner))
			put_session(rsinfo, &session, session_shown_status(&session, now));
		MemoryContextReset(row_context);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(row_context);
	SPI_cursor_close(portal);
}

/* get_uploads(upload_ids, owner): those that are there, in argument order. */
Datum
vali_blob_get_uploads(PG_FUNCTION_ARGS)
{
	text	   *owner;
	Datum		ids;

	check_unknown_arguments(fcinfo, 2);
	owner = optional_owner(fcinfo, 1, NULL);
	require_not_null(fcinfo, 0, "upload_ids", "Pass an array of upload ids.");
	ids = PG_GETARG_DATUM(0);

	begin_rows(fcinfo);
	spi_open();
	put_sessions((ReturnSetInfo *) fcinfo->resultinfo,
				 statement_open(&read_many, &ids, true), owner,
				 GetCurrentTimestamp());
	spi_close();
	return (Datum) 0;
}

/* Add a condition to a listing: "before", the parameter, "after". */
static void
add_condition(Listing *listing, const char *before, const char *after,
			  Oid type, Datum value)
{
	Assert(listing->nargs < (int) lengthof(listing->values));
	listing->argtypes[listing->nargs] = type;
	listing->values[listing->nargs] = value;
	listing->nargs++;
	appendStringInfoString(&listing->query,
						   listing->nargs == 1 ? " WHERE " : " AND ");
	appendStringInfo(&listing->query, "%s$%d%s", before, listing->nargs, after);
}

/*
 * Add the condition that a session is shown with a status: the equivalent of
 * session_shown_status(), in terms that an index can serve.
 */
static void
add_status_condition(Listing *listing, Datum shown, TimestampTz now)
{
	const char *before;

	switch (status_from_datum(shown))
	{
		case STATUS_EXPIRED:
			before = "(this_session.status OPERATOR(pg_catalog.=) 'expired' "
				"OR (this_session.status OPERATOR(pg_catalog.=) 'pending' "
				"OR this_session.status OPERATOR(pg_catalog.=) 'in_progress') "
				"AND this_session.expires_at OPERATOR(pg_catalog.<=) ";
			break;
		case STATUS_PENDING:
			before = "this_session.status OPERATOR(pg_catalog.=) 'pending' "
				"AND (this_session.expires_at IS NULL "
				"OR this_session.expires_at OPERATOR(pg_catalog.>) ";
			break;
		case STATUS_IN_PROGRESS:
			before = "this_session.status OPERATOR(pg_catalog.=) 'in_progress' "
				"AND (this_session.expires_at IS NULL "
				"OR this_session.expires_at OPERATOR(pg_catalog.>) ";
			break;
		default:
			add_condition(listing, "this_session.status OPERATOR(pg_catalog.=) ", "",
						  catalog_get()->status_type, shown);
			return;
	}
	add_condition(listing, before, ")", TIMESTAMPTZOID, TimestampTzGetDatum(now));
}

/* Return now minus idle_for. */
static TimestampTz
idle_since(const Interval *idle_for, TimestampTz now)
{
	check_interval(idle_for, "idle_for", true,
				   "Pass an interval such as '1 hour'.");
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_mi_interval,
												   TimestampTzGetDatum(now),
												   IntervalPGetDatum(idle_for)));
}

/* Add the conditions that the arguments of list_uploads() ask for. */
static void
collect_conditions(FunctionCallInfo fcinfo, text *owner, TimestampTz now,
				   Listing *listing)
{
	if (owner != NULL)
		add_condition(listing, "this_session.owner OPERATOR(pg_catalog.=) ", "",
					  TEXTOID, PointerGetDatum(owner));
	if (!PG_ARGISNULL(1))
		add_condition(listing, "this_session.path OPERATOR(pg_catalog.^@) ", "",
					  TEXTOID, PG_GETARG_DATUM(1));
	if (!PG_ARGISNULL(2))
		add_status_condition(listing, PG_GETARG_DATUM(2), now);
	if (!PG_ARGISNULL(3))
		add_condition(listing, "this_session.updated_at OPERATOR(pg_catalog.<=) ", "",
					  TIMESTAMPTZOID,
					  TimestampTzGetDatum(idle_since(PG_GETARG_INTERVAL_P(3), now)));
	if (!PG_ARGISNULL(5))
		add_condition(listing, "this_session.id OPERATOR(pg_catalog.<) ", "",
					  INT8OID, PG_GETARG_DATUM(5));
	if (!argument_is_null(fcinfo, 6))
		add_condition(listing, "this_session.metadata OPERATOR(pg_catalog.@>) ", "",
					  JSONBOID,
					  PointerGetDatum(optional_json(fcinfo, 6, "metadata", NULL)));
}

/*
 * list_uploads(owner, path_prefix, status, idle_for, max_rows, after_id,
 * metadata): a page of sessions, newest first.
 *
 * Each listing is planned for its own conditions, so that each can use the
 * index that fits.
 */
Datum
vali_blob_list_uploads(PG_FUNCTION_ARGS)
{
	text	   *owner;
	int32		max_rows;
	TimestampTz now = GetCurrentTimestamp();
	MemoryContext caller = CurrentMemoryContext;
	Listing		listing = {0};
	Portal		portal;

	check_unknown_arguments(fcinfo, 7);
	owner = optional_owner(fcinfo, 0, NULL);
	max_rows = required_count(fcinfo, 4, "max_rows");
	initStringInfo(&listing.query);
	appendStringInfoString(&listing.query,
						   "SELECT (this_session.*)::@.upload_session FROM @.upload_session AS this_session");
	collect_conditions(fcinfo, owner, now, &listing);
	appendStringInfo(&listing.query, " ORDER BY this_session.id DESC LIMIT %d",
					 max_rows);

	begin_rows(fcinfo);
	spi_open();
	portal = SPI_cursor_open_with_args(NULL, expand_schema(listing.query.data,
													 catalog_get()->schema),
									   listing.nargs, listing.argtypes,
									   listing.values, NULL, true, 0);
	MemoryContextSwitchTo(caller);
	put_sessions((ReturnSetInfo *) fcinfo->resultinfo, portal, owner, now);
	spi_close();
	return (Datum) 0;
}
