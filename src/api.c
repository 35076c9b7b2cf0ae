/*-------------------------------------------------------------------------
 *
 * api.c
 *		The SQL-callable functions that start and change upload sessions.
 *
 * Each takes its arguments apart, has the session found and locked, applies
 * one rule of lifecycle.c to it, has the change written, and returns the
 * session or what became of the chunk.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

#include "arguments.h"
#include "catalog.h"
#include "compat.h"
#include "errors.h"
#include "json.h"
#include "lifecycle.h"
#include "settings.h"
#include "store.h"

#define MAX_UPLOAD_ID_LENGTH 128
#define MAX_BUCKET_LENGTH 256
#define MAX_PATH_LENGTH 2048
#define MAX_CONTENT_TYPE_LENGTH 256

PG_FUNCTION_INFO_V1(vali_blob_start_upload);
PG_FUNCTION_INFO_V1(vali_blob_advance_upload);
PG_FUNCTION_INFO_V1(vali_blob_try_advance_upload);
PG_FUNCTION_INFO_V1(vali_blob_advance_uploads);
PG_FUNCTION_INFO_V1(vali_blob_declare_upload_size);
PG_FUNCTION_INFO_V1(vali_blob_merge_upload_data);
PG_FUNCTION_INFO_V1(vali_blob_complete_upload);
PG_FUNCTION_INFO_V1(vali_blob_abort_upload);
PG_FUNCTION_INFO_V1(vali_blob_delete_upload);

/* ---------- starting ---------- */

/* Get the idle time that a new session is allowed; NULL: it never expires. */
static Interval *
get_ttl(FunctionCallInfo fcinfo, int n, const text *name)
{
	Interval   *ttl;

	if (PG_ARGISNULL(n))
	{
		if (session_ttl_setting < 0)
			return NULL;
		ttl = palloc0(sizeof(Interval));
		ttl->time = session_ttl_setting * USECS_PER_SEC;
	}
	else
		ttl = PG_GETARG_INTERVAL_P(n);

	if (compare_with_years(ttl, 0) < 0 ||
		compare_with_years(ttl, MAX_INTERVAL_YEARS) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("ttl of upload \"%s\" must be between 0 and %d years, but is %s",
						shown_id(name), MAX_INTERVAL_YEARS, show_interval(ttl)),
				 errhint("Pass an idle time such as '48 hours', or '0' for an upload that never expires.")));
	return compare_with_years(ttl, 0) == 0 ? NULL : ttl;
}

/* Make an upload id that nobody can guess. */
static text *
random_upload_id(FunctionCallInfo fcinfo)
{
	Datum		uuid = gen_random_uuid(fcinfo);

	return cstring_to_text(DatumGetCString(DirectFunctionCall1(uuid_out, uuid)));
}

/* Check the texts of a new session; "name" is what messages call it. */
static void
check_new_session(const Session *session, const text *name)
{
	check_not_empty(session->path, "path");
	check_not_empty(session->upload_id, "upload_id");
	check_length(session->upload_id, "upload_id", MAX_UPLOAD_ID_LENGTH, name);
	check_length(session->path, "path", MAX_PATH_LENGTH, name);
	check_length(session->content_type, "content_type",
				 MAX_CONTENT_TYPE_LENGTH, name);
	check_length(session->bucket, "bucket", MAX_BUCKET_LENGTH, name);
}

/*
 * start_upload(path, total_size, content_type, metadata, provider_data,
 * owner, bucket, ttl, upload_id): start a session, and return it.
 *
 * A caller who leaves the upload_id to us does not know it, so that messages
 * name the path instead.
 */
Datum
vali_blob_start_upload(PG_FUNCTION_ARGS)
{
	Session		session = {0};
	Store		store;
	text	   *name;

	PreventCommandIfReadOnly("start_upload()");
	session.path = required_text(fcinfo, 0, "path");
	session.upload_id = optional_text(fcinfo, 8);
	name = session.upload_id == NULL ? session.path : session.upload_id;
	session.total_size = PG_ARGISNULL(1) ? SIZE_DEFERRED :
		required_size(fcinfo, 1, "total_size", name);
	session.content_type = optional_text(fcinfo, 2);
	session.metadata = optional_json(fcinfo, 3, "metadata", name);
	session.provider_data = optional_json(fcinfo, 4, "provider_data", name);
	session.owner = checked_owner(fcinfo, 5, name);
	session.bucket = optional_text(fcinfo, 6);
	session.ttl = get_ttl(fcinfo, 7, name);
	if (session.upload_id == NULL)
		session.upload_id = random_upload_id(fcinfo);
	if (session.metadata == NULL)
		session.metadata = json_empty_object();
	if (session.provider_data == NULL)
		session.provider_data = json_empty_object();
	check_new_session(&session, name);

	store_open(&store, RowExclusiveLock);
	session_start(&session, GetCurrentTimestamp());
	store_insert(&store, &session);
	store_close(&store);
	PG_RETURN_DATUM(session.row);
}

/* ---------- changing ---------- */

/*
 * Find the session that a request is about and lock it.  A session of another
 * owner is not found, locked or not.
 */
static Outcome
find_and_lock(Store *store, const Request *request, LockWait wait,
			  Session *session)
{
	Outcome		outcome = OUTCOME_ADVANCED;

	switch (store_lock(store, request->upload_id, wait, session))
	{
		case LOCK_TAKEN:
			break;
		case LOCK_MISSING:
			return OUTCOME_NOT_FOUND;
		case LOCK_HELD:
			if (request->owner != NULL &&
				!store_read_latest(store, request->upload_id, session))
				return OUTCOME_NOT_FOUND;
			outcome = OUTCOME_LOCKED;
			break;
	}
	if (request->owner != NULL && !session_belongs_to(session, request->owner))
		return OUTCOME_NOT_FOUND;
	return outcome;
}

/*
 * Apply a rule to a session: find and lock, judge, write.  "now" is when the
 * decision was taken, for those who report on the session.
 */
static Outcome
change_session(Store *store, Transition rule, const Request *request,
			   LockWait wait, Session *session, TimestampTz *now)
{
	Outcome		outcome = find_and_lock(store, request, wait, session);

	*now = GetCurrentTimestamp();
	if (outcome == OUTCOME_ADVANCED)
		outcome = rule(session, request, *now);
	if (outcome == OUTCOME_ADVANCED)
		store_write(store, session);
	return outcome;
}

/* Raise every outcome but success, first or repeated. */
static void
insist(Outcome outcome, const Session *session, const Request *request)
{
	if (outcome != OUTCOME_ADVANCED && outcome != OUTCOME_REPLAYED)
		raise_outcome(outcome, session, request);
}

/* Apply a rule, insist that it succeeds, and return the session's row. */
static Datum
change_and_return_row(Transition rule, const Request *request)
{
	Store		store;
	Session		session;
	TimestampTz now;
	Datum		row;

	store_open(&store, RowShareLock);
	insist(change_session(&store, rule, request, LOCK_WAIT, &session, &now),
		   &session, request);
	row = store_row(&store, &session);
	store_close(&store);
	return row;
}

/* declare_upload_size(upload_id, total_size, owner): end a deferred length. */
Datum
vali_blob_declare_upload_size(PG_FUNCTION_ARGS)
{
	Request		request = {0};

	PreventCommandIfReadOnly("declare_upload_size()");
	request.upload_id = required_text(fcinfo, 0, "upload_id");
	request.total_size = required_size(fcinfo, 1, "total_size",
									   request.upload_id);
	request.owner = checked_owner(fcinfo, 2, request.upload_id);
	PG_RETURN_DATUM(change_and_return_row(session_declare_size, &request));
}

/* merge_upload_data(upload_id, metadata, provider_data, owner): merge keys. */
Datum
vali_blob_merge_upload_data(PG_FUNCTION_ARGS)
{
	Request		request = {0};

	PreventCommandIfReadOnly("merge_upload_data()");
	request.upload_id = required_text(fcinfo, 0, "upload_id");
	request.metadata = optional_json(fcinfo, 1, "metadata", request.upload_id);
	request.provider_data = optional_json(fcinfo, 2, "provider_data",
										  request.upload_id);
	request.owner = checked_owner(fcinfo, 3, request.upload_id);
	PG_RETURN_DATUM(change_and_return_row(session_merge, &request));
}

/* complete_upload(upload_id, result, owner): the file is whole. */
Datum
vali_blob_complete_upload(PG_FUNCTION_ARGS)
{
	Request		request = {0};

	PreventCommandIfReadOnly("complete_upload()");
	request.upload_id = required_text(fcinfo, 0, "upload_id");
	request.result = optional_json(fcinfo, 1, "result", request.upload_id);
	request.owner = checked_owner(fcinfo, 2, request.upload_id);
	PG_RETURN_DATUM(change_and_return_row(session_complete, &request));
}

/* abort_upload(upload_id, reason, owner): the upload is given up. */
Datum
vali_blob_abort_upload(PG_FUNCTION_ARGS)
{
	Request		request = {0};

	PreventCommandIfReadOnly("abort_upload()");
	request.upload_id = required_text(fcinfo, 0, "upload_id");
	request.reason = optional_text(fcinfo, 1);
	request.owner = checked_owner(fcinfo, 2, request.upload_id);
	PG_RETURN_DATUM(change_and_return_row(session_abort, &request));
}

/* End a session that is still live, so that what it left is reclaimed. */
static void
end_before_deletion(Store *store, Session *session, const Request *request)
{
	TimestampTz now = GetCurrentTimestamp();

	if (!session_is_live(session))
		return;
	if (!session_expire(session, now))
		session_abort(session, request, now);
	store_write(store, session);
}

/* delete_upload(upload_id, owner): forget a session; false if there is none. */
Datum
vali_blob_delete_upload(PG_FUNCTION_ARGS)
{
	Request		request = {0};
	Store		store;
	Session		session;
	bool		found;

	PreventCommandIfReadOnly("delete_upload()");
	request.upload_id = required_text(fcinfo, 0, "upload_id");
	request.owner = checked_owner(fcinfo, 1, request.upload_id);

	store_open(&store, RowShareLock);
	found = find_and_lock(&store, &request, LOCK_WAIT,
						  &session) == OUTCOME_ADVANCED;
	if (found)
	{
		end_before_deletion(&store, &session, &request);
		store_delete(&store, &session);
	}
	store_close(&store);
	PG_RETURN_BOOL(found);
}

/* ---------- advancing ---------- */

#define CHUNK_RESULT_COLUMNS 6

/* Tell whether a row type is as the install script has made chunk_result. */
static bool
is_chunk_result(TupleDesc desc)
{
	static const Oid types[CHUNK_RESULT_COLUMNS] = {
		InvalidOid, INT8OID, INT8OID, InvalidOid, BOOLOID, TIMESTAMPTZOID
	};

	if (desc->natts != CHUNK_RESULT_COLUMNS)
		return false;
	for (int i = 0; i < CHUNK_RESULT_COLUMNS; i++)
	{
		Oid			type = TupleDescAttr(desc, i)->atttypid;

		if (TupleDescAttr(desc, i)->attisdropped ||
			(OidIsValid(types[i]) ? type != types[i] : !type_is_enum(type)))
			return false;
	}
	return true;
}

/* The row type chunk_result; the caller releases it. */
static TupleDesc
chunk_result_desc(void)
{
	TupleDesc	desc = lookup_rowtype_tupdesc(catalog_get()->chunk_result_type, -1);

	if (!is_chunk_result(desc))
	{
		ReleaseTupleDesc(desc);
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("type chunk_result has been altered"),
				 errhint("Create the extension again, and leave its types as they are.")));
	}
	return desc;
}

/* Build a chunk_result; what is not known of a session is null. */
static HeapTuple
build_chunk_result(Outcome outcome, const Session *session, TimestampTz now,
				   TupleDesc desc)
{
	bool		known = outcome != OUTCOME_NOT_FOUND &&
		outcome != OUTCOME_LOCKED;
	Datum		values[CHUNK_RESULT_COLUMNS] = {0};
	bool		nulls[CHUNK_RESULT_COLUMNS] = {false, true, true, true, false, true};

	values[0] = ObjectIdGetDatum(catalog_get()->outcome_labels[outcome]);
	if (known)
	{
		values[1] = Int64GetDatum(session->uploaded_bytes);
		values[2] = Int64GetDatum(session->total_size);
		values[3] = status_to_datum(session_shown_status(session, now));
		values[4] = BoolGetDatum(session_is_ready(session, now));
		values[5] = TimestampTzGetDatum(session->expires_at);
		nulls[1] = nulls[3] = false;
		nulls[2] = session->total_size == SIZE_DEFERRED;
		nulls[5] = session->expires_at == EXPIRES_NEVER;
	}
	return heap_form_tuple(desc, values, nulls);
}

/* Take the arguments of a chunk. */
static void
get_chunk(FunctionCallInfo fcinfo, Request *request)
{
	request->upload_id = required_text(fcinfo, 0, "upload_id");
	request->chunk_offset = required_size(fcinfo, 1, "chunk_offset",
										  request->upload_id);
	request->chunk_length = required_size(fcinfo, 2, "chunk_length",
										  request->upload_id);
	check_chunk(request);
	request->final = optional_flag(fcinfo, 3);
	request->provider_data = optional_json(fcinfo, 4, "provider_data",
										   request->upload_id);
	request->owner = checked_owner(fcinfo, 5, request->upload_id);
}

/* Advance one session by one chunk. */
static Datum
advance(FunctionCallInfo fcinfo, bool raises)
{
	Request		request = {0};
	LockWait	wait = optional_flag(fcinfo, 6) ? LOCK_NOWAIT : LOCK_WAIT;
	Store		store;
	Session		session;
	Outcome		outcome;
	TimestampTz now;
	TupleDesc	desc;
	HeapTuple	result;

	get_chunk(fcinfo, &request);
	desc = chunk_result_desc();
	store_open(&store, RowShareLock);
	outcome = change_session(&store, session_advance, &request, wait, &session,
							 &now);
	if (raises)
		insist(outcome, &session, &request);
	result = build_chunk_result(outcome, &session, now, desc);
	store_close(&store);
	ReleaseTupleDesc(desc);
	return HeapTupleGetDatum(result);
}

/*
 * advance_upload(upload_id, chunk_offset, chunk_length, final, provider_data,
 * owner, nowait): confirm a chunk, or raise why not.
 */
Datum
vali_blob_advance_upload(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly("advance_upload()");
	return advance(fcinfo, true);
}

/* try_advance_upload(the same): confirm a chunk, or say why not. */
Datum
vali_blob_try_advance_upload(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly("try_advance_upload()");
	return advance(fcinfo, false);
}

/* The elements of an array argument. */
typedef struct Elements
{
	Datum	   *values;
	bool	   *nulls;
	int			count;
} Elements;

/* Take an array argument apart. */
static Elements
get_elements(FunctionCallInfo fcinfo, int n, const char *name, Oid type)
{
	Elements	elements;
	ArrayType  *array;
	bool		is_text = type == TEXTOID;

	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name),
				 errhint("Pass an array with one element for each chunk.")));
	array = PG_GETARG_ARRAYTYPE_P(n);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a one-dimensional array, but has %d dimensions",
						name, ARR_NDIM(array)),
				 errhint("Pass an array with one element for each chunk.")));
	deconstruct_array(array, type, is_text ? -1 : (int) sizeof(int64),
					  !is_text && FLOAT8PASSBYVAL,
					  is_text ? TYPALIGN_INT : TYPALIGN_DOUBLE,
					  &elements.values, &elements.nulls, &elements.count);
	return elements;
}

/* Take one element of an array as a number of bytes. */
static int64
element_size(const Elements *elements, int i, const char *name,
			 const text *upload_id)
{
	return check_size(elements->nulls[i],
					  elements->nulls[i] ? 0 : DatumGetInt64(elements->values[i]),
					  name, upload_id);
}

/* A chunk among many: what is asked, and where the answer goes. */
typedef struct ChunkOfMany
{
	Request		request;
	int			position;		/* in the arguments and the result */
	HeapTuple	result;
} ChunkOfMany;

/* Take the arrays of many chunks apart. */
static ChunkOfMany *
get_chunks(FunctionCallInfo fcinfo, int *count)
{
	Elements	ids = get_elements(fcinfo, 0, "upload_ids", TEXTOID);
	Elements	offsets = get_elements(fcinfo, 1, "chunk_offsets", INT8OID);
	Elements	lengths = get_elements(fcinfo, 2, "chunk_lengths", INT8OID);
	ChunkOfMany *chunks = palloc0(ids.count * sizeof(ChunkOfMany));

	if (ids.count != offsets.count || ids.count != lengths.count)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("upload_ids, chunk_offsets and chunk_lengths must have the same number of elements, but have %d, %d and %d",
						ids.count, offsets.count, lengths.count),
				 errhint("Pass one element of each for each chunk.")));
	for (int i = 0; i < ids.count; i++)
	{
		Request    *request = &chunks[i].request;

		if (ids.nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("upload_ids must not contain nulls, but element %d is null",
							i + 1),
					 errhint("Pass one upload id for each chunk.")));
		request->upload_id = DatumGetTextPP(ids.values[i]);
		request->chunk_offset = element_size(&offsets, i, "chunk_offset",
											 request->upload_id);
		request->chunk_length = element_size(&lengths, i, "chunk_length",
											 request->upload_id);
		check_chunk(request);
		chunks[i].position = i;
	}
	*count = ids.count;
	return chunks;
}

/* Order chunks by upload; those of one upload as they were given. */
static int
compare_chunks(const void *a, const void *b)
{
	const ChunkOfMany *left = a;
	const ChunkOfMany *right = b;
	const text *l = left->request.upload_id;
	const text *r = right->request.upload_id;
	int			l_size = VARSIZE_ANY_EXHDR(l);
	int			r_size = VARSIZE_ANY_EXHDR(r);
	int			order = memcmp(VARDATA_ANY(l), VARDATA_ANY(r),
							   Min(l_size, r_size));

	if (order == 0)
		order = l_size - r_size;
	if (order == 0)
		order = left->position - right->position;
	return order;
}

/* Order chunks as they were given. */
static int
compare_positions(const void *a, const void *b)
{
	return ((const ChunkOfMany *) a)->position -
		((const ChunkOfMany *) b)->position;
}

/*
 * Advance each chunk's session.  All callers lock in the order of upload_id,
 * so that no two of them can wait for each other.
 */
static void
advance_in_order(Store *store, ChunkOfMany *chunks, int count, TupleDesc desc)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext scratch = AllocSetContextCreate(caller, "vali_blob chunk",
												  ALLOCSET_SMALL_SIZES);

	qsort(chunks, count, sizeof(ChunkOfMany), compare_chunks);
	for (int i = 0; i < count; i++)
	{
		Session		session;
		TimestampTz now;
		Outcome		outcome;

		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(scratch);
		outcome = change_session(store, session_advance, &chunks[i].request,
								 LOCK_WAIT, &session, &now);
		MemoryContextSwitchTo(caller);
		chunks[i].result = build_chunk_result(outcome, &session, now, desc);
		MemoryContextReset(scratch);
	}
	MemoryContextDelete(scratch);
	qsort(chunks, count, sizeof(ChunkOfMany), compare_positions);
}

/*
 * advance_uploads(upload_ids, chunk_offsets, chunk_lengths): advance many
 * sessions in one round trip, and say of each what became of it.
 */
Datum
vali_blob_advance_uploads(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Store		store;
	TupleDesc	desc;
	ChunkOfMany *chunks;
	int			count;

	PreventCommandIfReadOnly("advance_uploads()");
	require_owner(NULL, NULL);
	chunks = get_chunks(fcinfo, &count);
	desc = chunk_result_desc();
	InitMaterializedSRF(fcinfo, 0);

	store_open(&store, RowShareLock);
	advance_in_order(&store, chunks, count, desc);
	store_close(&store);
	ReleaseTupleDesc(desc);
	for (int i = 0; i < count; i++)
		tuplestore_puttuple(rsinfo->setResult, chunks[i].result);
	return (Datum) 0;
}
