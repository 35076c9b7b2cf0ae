/*-------------------------------------------------------------------------
 *
 * api.c
 *		The SQL-callable functions that start and change upload sessions.
 *
 * Each of them checks its arguments, applies one rule of lifecycle.c through
 * change.c, and returns the session.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "arguments.h"
#include "change.h"
#include "errors.h"
#include "json.h"
#include "lifecycle.h"
#include "row.h"
#include "settings.h"

PG_FUNCTION_INFO_V1(vali_blob_start_upload);
PG_FUNCTION_INFO_V1(vali_blob_concatenate_uploads);
PG_FUNCTION_INFO_V1(vali_blob_declare_upload_size);
PG_FUNCTION_INFO_V1(vali_blob_merge_upload_data);
PG_FUNCTION_INFO_V1(vali_blob_complete_upload);
PG_FUNCTION_INFO_V1(vali_blob_abort_upload);
PG_FUNCTION_INFO_V1(vali_blob_delete_upload);

/* ---------- starting ---------- */

/* Return the idle time of a new session; NULL: it never expires. */
static Interval *
get_ttl(FunctionCallInfo fcinfo, int n)
{
	Interval   *ttl;

	if (PG_ARGISNULL(n))
	{
		if (session_ttl_setting < 0)
			return NULL;
		ttl = palloc0(sizeof(Interval));
		ttl->time = session_ttl_setting * USECS_PER_SEC;
		return ttl;
	}
	ttl = PG_GETARG_INTERVAL_P(n);
	check_interval(ttl, "ttl", true,
				   "Pass an idle time such as '48 hours', or '0' for an upload that never expires.");
	return interval_is_zero(ttl) ? NULL : ttl;
}

/* Return how old a new session may become; NULL: any age. */
static Interval *
get_max_age(FunctionCallInfo fcinfo, int n)
{
	Interval   *max_age;

	if (argument_is_null(fcinfo, n))
		return NULL;
	max_age = PG_GETARG_INTERVAL_P(n);
	check_interval(max_age, "max_age", false,
				   "Pass an age such as '7 days', or leave the argument out.");
	return max_age;
}

/* Return a random upload id. */
static text *
random_upload_id(FunctionCallInfo fcinfo)
{
	Datum		uuid = gen_random_uuid(fcinfo);

	return cstring_to_text(DatumGetCString(DirectFunctionCall1(uuid_out, uuid)));
}

/*
 * Give a new session what the caller has left out, and check its texts; messages
 * call it "name".
 */
static void
prepare_new_session(FunctionCallInfo fcinfo, Session *session, const text *name)
{
	if (session->upload_id == NULL)
		session->upload_id = random_upload_id(fcinfo);
	if (session->metadata == NULL)
		session->metadata = json_empty_object();
	if (session->provider_data == NULL)
		session->provider_data = json_empty_object();
	check_not_empty(session->path, "path");
	check_not_empty(session->upload_id, "upload_id");
	check_length(session->upload_id, COLUMN_UPLOAD_ID, name);
	check_length(session->path, COLUMN_PATH, name);
	check_length(session->content_type, COLUMN_CONTENT_TYPE, name);
	check_length(session->bucket, COLUMN_BUCKET, name);
}

/*
 * start_upload(path, total_size, content_type, metadata, provider_data,
 * owner, bucket, ttl, upload_id, any_order, size_limit, auto_complete, max_age,
 * or_resume, partial): start a session, and return it.
 *
 * A caller that passes no upload_id does not know the one that we make, so
 * messages name the path instead.
 */
Datum
vali_blob_start_upload(PG_FUNCTION_ARGS)
{
	Session		session = {0};
	Request		request = {0};
	Store	   *store;
	text	   *name;
	bool		or_resume;
	Datum		row;

	PreventCommandIfReadOnly("start_upload()");
	check_unknown_arguments(fcinfo, 15);
	session.path = required_text(fcinfo, 0, "path");
	session.upload_id = optional_text(fcinfo, 8);
	name = session.upload_id == NULL ? session.path : session.upload_id;
	session.total_size = optional_size(fcinfo, 1, "total_size", name);
	request.total_size = session.total_size;
	session.content_type = optional_text(fcinfo, 2);
	session.metadata = optional_json(fcinfo, 3, "metadata", name);
	session.provider_data = optional_json(fcinfo, 4, "provider_data", name);
	session.owner = optional_owner(fcinfo, 5, name);
	session.bucket = optional_text(fcinfo, 6);
	session.ttl = get_ttl(fcinfo, 7);
	session.any_order = optional_flag(fcinfo, 9);
	session.size_limit = optional_size(fcinfo, 10, "size_limit", name);
	session.auto_complete = optional_flag(fcinfo, 11);
	request.max_age = get_max_age(fcinfo, 12);
	or_resume = optional_flag(fcinfo, 13);
	session.partial = optional_flag(fcinfo, 14);
	if (session.partial && session.auto_complete)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"auto_complete\" must not be true with \"partial\""),
				 errhint("A partial upload ends with concatenate_uploads().")));
	if (or_resume && session.upload_id == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("\"upload_id\" must not be null with \"or_resume\""),
				 errhint("Pass the upload_id of the upload to start or to go on with.")));
	prepare_new_session(fcinfo, &session, name);

	store = store_open(RowExclusiveLock);
	request.upload_id = session.upload_id;
	if (or_resume)
		row = start_or_resume_session(store, &session, &request);
	else
	{
		Outcome		outcome = start_session(store, &session, &request);

		request.upload_id = name;
		report_unless_done(outcome, &session, &request, NULL);
		row = store_row(store, &session);
	}
	store_close(store);
	PG_RETURN_DATUM(return_row(fcinfo, row));
}

/* Take the sessions to concatenate from the arguments. */
static Request *
get_parts(FunctionCallInfo fcinfo, int n, Session *whole, int *count)
{
	ArrayElements ids = required_elements(fcinfo, n, "upload_ids", TEXTOID);
	struct varlena *result = json_text_member("concatenated_into",
											  whole->upload_id);
	Request    *parts = palloc0(ids.count * sizeof(Request));

	if (ids.count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"upload_ids\" must not be empty"),
				 errhint("Pass the ids of partial uploads, in the order of their bytes.")));
	for (int i = 0; i < ids.count; i++)
	{
		parts[i].upload_id = element_upload_id(&ids, i);
		parts[i].owner = whole->owner;
		parts[i].result = result;
	}
	whole->concatenated_from = json_text_array(ids.values, ids.count);
	*count = ids.count;
	return parts;
}

/*
 * concatenate_uploads(path, upload_ids, upload_id, owner, bucket, content_type,
 * metadata, provider_data, result): start a session that is complete, and has the
 * bytes of partial ones.
 */
Datum
vali_blob_concatenate_uploads(PG_FUNCTION_ARGS)
{
	Session		whole = {.size_limit = SIZE_UNLIMITED};
	Request		request = {0};
	Request    *parts;
	int			count;
	Store	   *store;
	text	   *name;
	Datum		row;

	PreventCommandIfReadOnly("concatenate_uploads()");
	check_unknown_arguments(fcinfo, 9);
	whole.path = required_text(fcinfo, 0, "path");
	whole.upload_id = optional_text(fcinfo, 2);
	name = whole.upload_id == NULL ? whole.path : whole.upload_id;
	whole.owner = optional_owner(fcinfo, 3, name);
	whole.bucket = optional_text(fcinfo, 4);
	whole.content_type = optional_text(fcinfo, 5);
	whole.metadata = optional_json(fcinfo, 6, "metadata", name);
	whole.provider_data = optional_json(fcinfo, 7, "provider_data", name);
	whole.result = optional_json(fcinfo, 8, "result", name);
	prepare_new_session(fcinfo, &whole, name);
	parts = get_parts(fcinfo, 1, &whole, &count);
	request.upload_id = whole.upload_id;

	store = store_open(RowExclusiveLock);
	row = concatenate_sessions(store, &whole, &request, parts, count);
	store_close(store);
	PG_RETURN_DATUM(return_row(fcinfo, row));
}

/* ---------- changing ---------- */

/* Apply a rule, or raise an error, and return the session's row. */
static Datum
change_and_return_row(FunctionCallInfo fcinfo, Rule rule,
					  const Request *request)
{
	Store	   *store = store_open(RowShareLock);
	LockedSession locked;
	Datum		row;

	report_unless_done(change_session(store, rule, request, LOCK_WAIT, &locked),
					   &locked.session, request, &locked.context);
	row = store_row(store, &locked.session);
	store_close(store);
	return return_row(fcinfo, row);
}

/* declare_upload_size(upload_id, total_size, owner): end a deferred length. */
Datum
vali_blob_declare_upload_size(PG_FUNCTION_ARGS)
{
	Request		request = {0};

	PreventCommandIfReadOnly("declare_upload_size()");
	check_unknown_arguments(fcinfo, 3);
	request.upload_id = required_text(fcinfo, 0, "upload_id");
	request.total_size = required_size(fcinfo, 1, "total_size",
									   request.upload_id);
	request.owner = optional_owner(fcinfo, 2, request.upload_id);
	PG_RETURN_DATUM(change_and_return_row(fcinfo, session_declare_size, &request));
}

/* merge_upload_data(upload_id, metadata, provider_data, owner): merge keys. */
Datum
vali_blob_merge_upload_data(PG_FUNCTION_ARGS)
{
	Request		request = {0};

	PreventCommandIfReadOnly("merge_upload_data()");
	check_unknown_arguments(fcinfo, 4);
	request.upload_id = required_text(fcinfo, 0, "upload_id");
	request.metadata = optional_json(fcinfo, 1, "metadata", request.upload_id);
	request.provider_data = optional_json(fcinfo, 2, "provider_data",
										  request.upload_id);
	request.owner = optional_owner(fcinfo, 3, request.upload_id);
	PG_RETURN_DATUM(change_and_return_row(fcinfo, session_merge, &request));
}

/* complete_upload(upload_id, result, owner): complete a session. */
Datum
vali_blob_complete_upload(PG_FUNCTION_ARGS)
{
	Request		request = {0};

	PreventCommandIfReadOnly("complete_upload()");
	check_unknown_arguments(fcinfo, 3);
	request.upload_id = required_text(fcinfo, 0, "upload_id");
	request.result = optional_json(fcinfo, 1, "result", request.upload_id);
	request.owner = optional_owner(fcinfo, 2, request.upload_id);
	PG_RETURN_DATUM(change_and_return_row(fcinfo, session_complete, &request));
}

/* abort_upload(upload_id, reason, owner): abort a session. */
Datum
vali_blob_abort_upload(PG_FUNCTION_ARGS)
{
	Request		request = {0};

	PreventCommandIfReadOnly("abort_upload()");
	check_unknown_arguments(fcinfo, 3);
	request.upload_id = required_text(fcinfo, 0, "upload_id");
	request.reason = optional_text(fcinfo, 1);
	request.owner = optional_owner(fcinfo, 2, request.upload_id);
	PG_RETURN_DATUM(change_and_return_row(fcinfo, session_abort, &request));
}

/*
 * delete_upload(upload_id, owner, reclaim_complete): delete a session; false if
 * there is none.
 */
Datum
vali_blob_delete_upload(PG_FUNCTION_ARGS)
{
	Request		request = {0};
	Store	   *store;
	bool		found;

	PreventCommandIfReadOnly("delete_upload()");
	check_unknown_arguments(fcinfo, 3);
	request.upload_id = required_text(fcinfo, 0, "upload_id");
	request.owner = optional_owner(fcinfo, 1, request.upload_id);
	request.reclaim_complete = optional_flag(fcinfo, 2);

	store = store_open(RowShareLock);
	found = remove_session(store, &request);
	store_close(store);
	PG_RETURN_BOOL(found);
}
