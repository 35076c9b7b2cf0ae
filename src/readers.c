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

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
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
	.text = "SELECT this_session "
	"FROM pg_catalog.unnest($1) WITH ORDINALITY AS wanted (upload_id, position) "
	"JOIN @.upload_session AS this_session "
	"ON this_session.upload_id OPERATOR(pg_catalog.=) wanted.upload_id "
	"ORDER BY wanted.position",
	.nargs = 1, .argtypes = {TEXTARRAYOID},
};

/* The conditions of a listing, as far as they are given. */
typedef struct Listing
{
	StringInfoData query;
	int			nargs;
	Oid			argtypes[5];
	Datum		values[5];
} Listing;

/* Put a session's row, as readers see it, into a function's result. */
static void
show(ReturnSetInfo *rsinfo, const Session *session, TimestampTz now)
{
	SessionStatus status = session_shown_status(session, now);
	HeapTupleHeader header = DatumGetHeapTupleHeader(
		status == session->status ? session->row :
		row_with_status(session->row, status));
	HeapTupleData tuple = {
		.t_len = HeapTupleHeaderGetDatumLength(header),
		.t_data = header,
	};

	tuplestore_puttuple(rsinfo->setResult, &tuple);
}

/* get_upload(upload_id, owner): one session, if it is there. */
Datum
vali_blob_get_upload(PG_FUNCTION_ARGS)
{
	text	   *upload_id = required_text(fcinfo, 0, "upload_id");
	text	   *owner = checked_owner(fcinfo, 1, upload_id);
	Session		session;

	InitMaterializedSRF(fcinfo, 0);
	store_open();
	if (store_read(upload_id, &session) && session_belongs_to(&session, owner))
		show((ReturnSetInfo *) fcinfo->resultinfo, &session,
			 GetCurrentTimestamp());
	store_close();
	return (Datum) 0;
}

/*
 * Show the sessions of a cursor that belong to the owner and, unless that is
 * null, are shown with the status, until there are enough.
 */
static void
show_matching(ReturnSetInfo *rsinfo, Portal portal, const text *owner,
			  const SessionStatus *status, int64 enough)
{
	TimestampTz now = GetCurrentTimestamp();
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext scratch = AllocSetContextCreate(caller, "vali_blob row",
												  ALLOCSET_SMALL_SIZES);
	Session		session;

	MemoryContextSwitchTo(scratch);
	while (enough > 0 && store_fetch(portal, &session))
	{
		CHECK_FOR_INTERRUPTS();
		if (session_belongs_to(&session, owner) &&
			(status == NULL || session_shown_status(&session, now) == *status))
		{
			show(rsinfo, &session, now);
			enough--;
		}
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);
	SPI_cursor_close(portal);
}

/* get_uploads(upload_ids, owner): those that are there, in argument order. */
Datum
vali_blob_get_uploads(PG_FUNCTION_ARGS)
{
	text	   *owner = checked_owner(fcinfo, 1, NULL);
	Datum		ids;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("upload_ids must not be null"),
				 errhint("Pass an array of upload ids.")));
	ids = PG_GETARG_DATUM(0);

	InitMaterializedSRF(fcinfo, 0);
	store_open();
	show_matching((ReturnSetInfo *) fcinfo->resultinfo,
				  statement_open(&read_many, &ids, true), owner, NULL,
				  PG_INT64_MAX);
	store_close();
	return (Datum) 0;
}

/* Add a condition to a listing; "%d" in it is the number of its parameter. */
static void
add_condition(Listing *listing, const char *condition, Oid type, Datum value)
{
	listing->argtypes[listing->nargs] = type;
	listing->values[listing->nargs] = value;
	listing->nargs++;
	appendStringInfoString(&listing->query,
						   listing->nargs == 1 ? " WHERE " : " AND ");
	appendStringInfo(&listing->query, condition, listing->nargs);
}

/* The stored statuses that can be shown as this one. */
static Datum
stored_statuses(SessionStatus shown)
{
	Datum		statuses[] = {
		status_to_datum(shown),
		status_to_datum(STATUS_PENDING),
		status_to_datum(STATUS_IN_PROGRESS),
	};

	return PointerGetDatum(construct_array(statuses,
										   shown == STATUS_EXPIRED ? 3 : 1,
										   catalog_get()->status_type,
										   sizeof(Oid), true, TYPALIGN_INT));
}

/* The moment before which an idle session was last active. */
static TimestampTz
idle_since(const Interval *idle_for)
{
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_mi_interval,
												   TimestampTzGetDatum(GetCurrentTimestamp()),
												   IntervalPGetDatum(idle_for)));
}

/* Turn the arguments of list_uploads() into conditions. */
static void
collect_conditions(FunctionCallInfo fcinfo, text *owner, Listing *listing)
{
	if (owner != NULL)
		add_condition(listing, "this_session.owner OPERATOR(pg_catalog.=) $%d",
					  TEXTOID, PointerGetDatum(owner));
	if (!PG_ARGISNULL(1))
		add_condition(listing, "this_session.path OPERATOR(pg_catalog.^@) $%d",
					  TEXTOID, PG_GETARG_DATUM(1));
	if (!PG_ARGISNULL(2))
		add_condition(listing, "this_session.status OPERATOR(pg_catalog.=) ANY ($%d)",
					  get_array_type(catalog_get()->status_type),
					  stored_statuses(status_from_datum(PG_GETARG_DATUM(2))));
	if (!PG_ARGISNULL(3))
		add_condition(listing, "this_session.updated_at OPERATOR(pg_catalog.<=) $%d",
					  TIMESTAMPTZOID,
					  TimestampTzGetDatum(idle_since(PG_GETARG_INTERVAL_P(3))));
	if (!PG_ARGISNULL(5))
		add_condition(listing, "this_session.id OPERATOR(pg_catalog.<) $%d",
					  INT8OID, PG_GETARG_DATUM(5));
	appendStringInfoString(&listing->query, " ORDER BY this_session.id DESC");
}

/*
 * list_uploads(owner, path_prefix, status, idle_for, max_rows, after_id): a
 * page of sessions, newest first.
 *
 * Each listing is planned for its own conditions, so that each can use the
 * index that fits.  There is no LIMIT: how many rows it takes is known only
 * once each has been judged.
 */
Datum
vali_blob_list_uploads(PG_FUNCTION_ARGS)
{
	text	   *owner = checked_owner(fcinfo, 0, NULL);
	int32		max_rows = positive_count(fcinfo, 4, "max_rows");
	Listing		listing = {0};
	SessionStatus status = STATUS_PENDING;
	MemoryContext caller = CurrentMemoryContext;
	Portal		portal;

	if (!PG_ARGISNULL(2))
		status = status_from_datum(PG_GETARG_DATUM(2));
	initStringInfo(&listing.query);
	appendStringInfoString(&listing.query,
						   "SELECT this_session FROM @.upload_session AS this_session");
	collect_conditions(fcinfo, owner, &listing);

	InitMaterializedSRF(fcinfo, 0);
	store_open();
	portal = SPI_cursor_open_with_args(NULL, expand_schema(listing.query.data),
									   listing.nargs, listing.argtypes,
									   listing.values, NULL, true,
									   CURSOR_OPT_FAST_PLAN);
	MemoryContextSwitchTo(caller);
	show_matching((ReturnSetInfo *) fcinfo->resultinfo, portal, owner,
				  PG_ARGISNULL(2) ? NULL : &status, max_rows);
	store_close();
	return (Datum) 0;
}
