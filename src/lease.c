/*-------------------------------------------------------------------------
 *
 * lease.c
 *		The SQL-callable functions for the lease of an upload session.
 *
 * A lease says which of several servers may write the bytes of an upload.  It is
 * kept in the session's row, so that no connection or transaction is held while
 * bytes move.  Each new lease has a new epoch, and chunks that bring an earlier one
 * are refused: a server that was stopped for longer than its lease lasts cannot
 * know that others have gone on.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "arguments.h"
#include "catalog.h"
#include "change.h"
#include "errors.h"
#include "lifecycle.h"
#include "result_type.h"
#include "row.h"

PG_FUNCTION_INFO_V1(vali_blob_acquire_upload_lease);
PG_FUNCTION_INFO_V1(vali_blob_renew_upload_lease);
PG_FUNCTION_INFO_V1(vali_blob_release_upload_lease);

#define EPOCH_HINT "Pass the epoch that acquire_upload_lease() returned."
#define DURATION_HINT "Pass an interval such as '30 seconds'."

typedef enum LeaseAttribute
{
	LEASE_HELD,
	LEASE_EPOCH,
	LEASE_HOLDER,
	LEASE_EXPIRES_AT,
	LEASE_REQUESTED,
	LEASE_UPLOADED_BYTES,
	LEASE_TOTAL_SIZE,
	LEASE_STATUS
} LeaseAttribute;

static ResultRowType upload_lease = {
	.name = "upload_lease",
	.count = LEASE_STATUS + 1,
	.attributes = {
		[LEASE_HELD] = {"held", BOOLOID},
		[LEASE_EPOCH] = {"epoch", INT8OID},
		[LEASE_HOLDER] = {"holder", TEXTOID},
		[LEASE_EXPIRES_AT] = {"expires_at", TIMESTAMPTZOID},
		[LEASE_REQUESTED] = {"requested", BOOLOID},
		[LEASE_UPLOADED_BYTES] = {"uploaded_bytes", INT8OID},
		[LEASE_TOTAL_SIZE] = {"total_size", INT8OID},
		[LEASE_STATUS] = {"status", InvalidOid},
	},
};

/* Build an upload_lease. */
static HeapTuple
build_lease(const LockedSession *locked, const Request *request,
			const OpenResultType *type)
{
	const Session *session = &locked->session;
	TimestampTz now = locked->context.now;
	ResultRow	row;

	begin_result(type, &row);
	set_attribute(&row, LEASE_HELD,
				  BoolGetDatum(session_holds_lease(session, request, now)));
	set_attribute(&row, LEASE_EPOCH, Int64GetDatum(session->lease_epoch));
	set_attribute(&row, LEASE_REQUESTED, BoolGetDatum(session->lease_requested));
	if (session->lease_holder != NULL)
	{
		set_attribute(&row, LEASE_HOLDER, PointerGetDatum(session->lease_holder));
		set_attribute(&row, LEASE_EXPIRES_AT,
					  TimestampTzGetDatum(session->lease_expires_at));
	}
	set_attribute(&row, LEASE_UPLOADED_BYTES,
				  Int64GetDatum(session->uploaded_bytes));
	if (session->total_size != SIZE_DEFERRED)
		set_attribute(&row, LEASE_TOTAL_SIZE, Int64GetDatum(session->total_size));
	set_attribute(&row, LEASE_STATUS, shown_status_datum(session, now));
	return form_result(&row);
}

/* Apply a rule to the lease of a session, and return the lease. */
static Datum
change_lease(FunctionCallInfo fcinfo, Rule rule, const Request *request)
{
	Store	   *store = store_open(RowShareLock);
	/* the lock on the table keeps the type, too, from being dropped */
	OpenResultType type = open_result_type(&upload_lease,
										   catalog_get()->lease_type);
	LockedSession locked;
	HeapTuple	result;

	report_unless_done(change_session(store, rule, request, LOCK_WAIT, &locked),
					   &locked.session, request, &locked.context);
	result = build_lease(&locked, request, &type);
	store_close(store);
	close_result_type(&type);
	return return_row(fcinfo, HeapTupleGetDatum(result));
}

/* Return how long a lease is to last. */
static Interval *
get_duration(FunctionCallInfo fcinfo, int n)
{
	Interval   *duration;

	require_not_null(fcinfo, n, "duration", DURATION_HINT);
	duration = PG_GETARG_INTERVAL_P(n);
	check_interval(duration, "duration", false, DURATION_HINT);
	return duration;
}

/* Take the epoch of a lease from the arguments. */
static void
get_epoch(FunctionCallInfo fcinfo, int n, Request *request)
{
	require_not_null(fcinfo, n, "epoch", EPOCH_HINT);
	request->has_lease_epoch = true;
	request->lease_epoch = PG_GETARG_INT64(n);
}

/*
 * acquire_upload_lease(upload_id, holder, duration, owner, take_over): get the
 * lease, or ask whoever has it to release it.
 */
Datum
vali_blob_acquire_upload_lease(PG_FUNCTION_ARGS)
{
	Request		request = {0};

	PreventCommandIfReadOnly("acquire_upload_lease()");
	check_unknown_arguments(fcinfo, 5);
	request.upload_id = required_text(fcinfo, 0, "upload_id");
	request.lease_holder = required_text(fcinfo, 1, "holder");
	check_not_empty(request.lease_holder, "holder");
	check_text_length(request.lease_holder, "holder",
					  column_limit(COLUMN_LEASE_HOLDER), request.upload_id);
	request.lease_duration = get_duration(fcinfo, 2);
	request.owner = optional_owner(fcinfo, 3, request.upload_id);
	request.take_over = optional_flag(fcinfo, 4);
	PG_RETURN_DATUM(change_lease(fcinfo, session_acquire_lease, &request));
}

/* renew_upload_lease(upload_id, epoch, duration, owner): extend a lease. */
Datum
vali_blob_renew_upload_lease(PG_FUNCTION_ARGS)
{
	Request		request = {0};

	PreventCommandIfReadOnly("renew_upload_lease()");
	check_unknown_arguments(fcinfo, 4);
	request.upload_id = required_text(fcinfo, 0, "upload_id");
	get_epoch(fcinfo, 1, &request);
	request.lease_duration = get_duration(fcinfo, 2);
	request.owner = optional_owner(fcinfo, 3, request.upload_id);
	PG_RETURN_DATUM(change_lease(fcinfo, session_renew_lease, &request));
}

/* release_upload_lease(upload_id, epoch, owner): end a lease. */
Datum
vali_blob_release_upload_lease(PG_FUNCTION_ARGS)
{
	Request		request = {0};

	PreventCommandIfReadOnly("release_upload_lease()");
	check_unknown_arguments(fcinfo, 3);
	request.upload_id = required_text(fcinfo, 0, "upload_id");
	get_epoch(fcinfo, 1, &request);
	request.owner = optional_owner(fcinfo, 2, request.upload_id);
	PG_RETURN_DATUM(change_lease(fcinfo, session_release_lease, &request));
}
