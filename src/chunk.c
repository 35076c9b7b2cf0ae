/*-------------------------------------------------------------------------
 *
 * chunk.c
 *		The SQL-callable functions that advance upload sessions, and their
 *		result.
 *
 * A chunk_result has the outcome of a chunk and the state of its session.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "arguments.h"
#include "catalog.h"
#include "change.h"
#include "compat.h"
#include "errors.h"
#include "lifecycle.h"
#include "result_type.h"
#include "row.h"

PG_FUNCTION_INFO_V1(vali_blob_advance_upload);
PG_FUNCTION_INFO_V1(vali_blob_try_advance_upload);
PG_FUNCTION_INFO_V1(vali_blob_advance_uploads);

/* ---------- the result ---------- */

typedef enum ChunkAttribute
{
	CHUNK_OUTCOME,
	CHUNK_UPLOADED_BYTES,
	CHUNK_TOTAL_SIZE,
	CHUNK_STATUS,
	CHUNK_READY,
	CHUNK_EXPIRES_AT
} ChunkAttribute;

static ResultRowType chunk_result = {
	.name = "chunk_result",
	.count = CHUNK_EXPIRES_AT + 1,
	.attributes = {
		[CHUNK_OUTCOME] = {"outcome", InvalidOid},
		[CHUNK_UPLOADED_BYTES] = {"uploaded_bytes", INT8OID},
		[CHUNK_TOTAL_SIZE] = {"total_size", INT8OID},
		[CHUNK_STATUS] = {"status", InvalidOid},
		[CHUNK_READY] = {"ready", BOOLOID},
		[CHUNK_EXPIRES_AT] = {"expires_at", TIMESTAMPTZOID},
	},
};

/* Build a chunk_result; what is not known of the session is null. */
static HeapTuple
build_chunk_result(Outcome outcome, const LockedSession *locked,
				   const OpenResultType *type)
{
	const Session *session = &locked->session;
	TimestampTz now = locked->context.now;
	bool		has_session = outcome != OUTCOME_NOT_FOUND &&
		outcome != OUTCOME_LOCKED;
	ResultRow	row;

	begin_result(type, &row);
	set_attribute(&row, CHUNK_OUTCOME, outcome_to_datum(outcome));
	set_attribute(&row, CHUNK_READY,
				  BoolGetDatum(has_session && session_is_ready(session, now)));
	if (has_session)
	{
		set_attribute(&row, CHUNK_UPLOADED_BYTES,
					  Int64GetDatum(session->uploaded_bytes));
		if (session->total_size != SIZE_DEFERRED)
			set_attribute(&row, CHUNK_TOTAL_SIZE,
						  Int64GetDatum(session->total_size));
		set_attribute(&row, CHUNK_STATUS, shown_status_datum(session, now));
		if (session->expires_at != EXPIRES_NEVER)
			set_attribute(&row, CHUNK_EXPIRES_AT,
						  TimestampTzGetDatum(session->expires_at));
	}
	return form_result(&row);
}

/* ---------- one chunk ---------- */

/* Advance one session by one chunk. */
static Datum
advance(FunctionCallInfo fcinfo, bool raises)
{
	Request		request = {0};
	LockWait	wait;
	Store	   *store;
	LockedSession locked;
	Outcome		outcome;
	OpenResultType type;
	HeapTuple	result;

	check_unknown_arguments(fcinfo, 11);
	request.upload_id = required_text(fcinfo, 0, "upload_id");
	request.chunk.offset = required_size(fcinfo, 1, "chunk_offset",
										 request.upload_id);
	request.chunk.length = required_size(fcinfo, 2, "chunk_length",
										 request.upload_id);
	request.final = optional_flag(fcinfo, 3);
	request.provider_data = optional_json(fcinfo, 4, "provider_data",
										  request.upload_id);
	request.owner = optional_owner(fcinfo, 5, request.upload_id);
	wait = optional_flag(fcinfo, 6) ? LOCK_NOWAIT : LOCK_WAIT;
	request.chunk.number = check_part_number(argument_is_null(fcinfo, 7),
											 argument_is_null(fcinfo, 7) ? 0 :
											 PG_GETARG_INT32(7),
											 request.upload_id);
	request.chunk.etag = optional_text(fcinfo, 8);
	request.chunk.checksum = argument_is_null(fcinfo, 9) ? NULL :
		PG_GETARG_BYTEA_PP(9);
	request.has_lease_epoch = !argument_is_null(fcinfo, 10);
	if (request.has_lease_epoch)
		request.lease_epoch = PG_GETARG_INT64(10);
	check_chunk(&request);

	store = store_open(RowShareLock);
	/* the lock on the table keeps the type, too, from being dropped */
	type = open_result_type(&chunk_result, catalog_get()->chunk_result_type);
	outcome = change_session(store, session_advance, &request, wait, &locked);
	/* that "final" is refused is no chunk_outcome, but an error of the call */
	if (raises || outcome == OUTCOME_PARTIAL)
		report_unless_done(outcome, &locked.session, &request, &locked.context);
	result = build_chunk_result(outcome, &locked, &type);
	store_close(store);
	close_result_type(&type);
	return return_row(fcinfo, HeapTupleGetDatum(result));
}

/*
 * advance_upload(upload_id, chunk_offset, chunk_length, final, provider_data,
 * owner, nowait, part_number, etag, checksum, lease_epoch): confirm a chunk, or
 * raise an error.
 */
Datum
vali_blob_advance_upload(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly("advance_upload()");
	return advance(fcinfo, true);
}

/* try_advance_upload(the same): confirm a chunk, or return why not. */
Datum
vali_blob_try_advance_upload(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly("try_advance_upload()");
	return advance(fcinfo, false);
}

/* ---------- many chunks ---------- */

/* Take one element of an array as a number of bytes. */
static int64
element_size(const ArrayElements *elements, int i, const char *name,
			 const text *upload_id)
{
	return check_size(elements->nulls[i],
					  elements->nulls[i] ? 0 : DatumGetInt64(elements->values[i]),
					  name, upload_id);
}

/* A chunk among many */
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
	ArrayElements ids = required_elements(fcinfo, 0, "upload_ids", TEXTOID);
	ArrayElements offsets = required_elements(fcinfo, 1, "chunk_offsets", INT8OID);
	ArrayElements lengths = required_elements(fcinfo, 2, "chunk_lengths", INT8OID);
	text	   *owner = optional_owner(fcinfo, 3, NULL);
	ArrayElements numbers;
	ArrayElements etags;
	ArrayElements checksums;
	ArrayElements epochs;
	ChunkOfMany *chunks;

	if (ids.count != offsets.count || ids.count != lengths.count)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("arrays must have the same number of elements"),
				 errdetail("\"upload_ids\" has %d elements, \"chunk_offsets\" has %d, \"chunk_lengths\" has %d.",
						   ids.count, offsets.count, lengths.count),
				 errhint("Pass one element of each for each chunk.")));
	if (ids.count > (int) (MaxAllocSize / sizeof(ChunkOfMany)))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many chunks in one call: %d", ids.count),
				 errhint("Pass at most %d.",
						 (int) (MaxAllocSize / sizeof(ChunkOfMany)))));
	numbers = optional_elements(fcinfo, 4, "part_numbers", INT4OID, ids.count);
	etags = optional_elements(fcinfo, 5, "etags", TEXTOID, ids.count);
	checksums = optional_elements(fcinfo, 6, "checksums", BYTEAOID, ids.count);
	epochs = optional_elements(fcinfo, 7, "lease_epochs", INT8OID, ids.count);
	chunks = palloc0(ids.count * sizeof(ChunkOfMany));
	for (int i = 0; i < ids.count; i++)
	{
		Request    *request = &chunks[i].request;

		request->upload_id = element_upload_id(&ids, i);
		request->chunk.offset = element_size(&offsets, i, "chunk_offset",
											 request->upload_id);
		request->chunk.length = element_size(&lengths, i, "chunk_length",
											 request->upload_id);
		request->owner = owner;
		request->chunk.number =
			check_part_number(element_is_null(&numbers, i),
							  element_is_null(&numbers, i) ? 0 :
							  DatumGetInt32(numbers.values[i]),
							  request->upload_id);
		if (!element_is_null(&etags, i))
			request->chunk.etag = DatumGetTextPP(etags.values[i]);
		if (!element_is_null(&checksums, i))
			request->chunk.checksum = DatumGetByteaPP(checksums.values[i]);
		request->has_lease_epoch = !element_is_null(&epochs, i);
		if (request->has_lease_epoch)
			request->lease_epoch = DatumGetInt64(epochs.values[i]);
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
	int			order = compare_upload_ids(left->request.upload_id,
										   right->request.upload_id);

	return order != 0 ? order : left->position - right->position;
}

/* Order chunks as they were given. */
static int
compare_positions(const void *a, const void *b)
{
	return ((const ChunkOfMany *) a)->position -
		((const ChunkOfMany *) b)->position;
}

/*
 * Advance one session by some chunks, one after the other.  If possible the row
 * is written once: each new version would lengthen the search for the next one,
 * as none of them can be removed before the transaction ends.  The current
 * memory context is for one session at a time, and is reset.
 */
static void
advance_by_chunks(Store *store, ChunkOfMany *chunks, int count,
				  const OpenResultType *type, MemoryContext result_context)
{
	LockedSession locked;
	Outcome		lock_outcome = OUTCOME_NOT_FOUND;
	bool		combine = false;
	bool		has_changed = false;

	for (int i = 0; i < count; i++)
	{
		const Request *request = &chunks[i].request;
		Outcome		outcome;
		MemoryContext caller;

		CHECK_FOR_INTERRUPTS();
		if (!combine)
		{
			MemoryContextReset(CurrentMemoryContext);
			lock_outcome = lock_session(store, request, LOCK_WAIT, &locked);
			combine = store_can_combine(store);
		}
		outcome = lock_outcome;
		if (lock_outcome == OUTCOME_ADVANCED)
			outcome = apply_rule(store, &locked, session_advance, request);
		has_changed |= outcome == OUTCOME_ADVANCED || outcome == OUTCOME_REPLACED;
		/* the next chunk may touch the part that this one leaves */
		if (has_changed && locked.session.part_change != PART_UNCHANGED)
			combine = false;

		/*
		 * The last result shows the session as stored.  What the table does not
		 * accept is written at once, to raise the error.
		 */
		if (has_changed && (!combine || i == count - 1 ||
							!store_accepts(store, &locked.session)))
		{
			write_session(store, &locked, request);
			has_changed = false;
		}
		caller = MemoryContextSwitchTo(result_context);
		chunks[i].result = build_chunk_result(outcome, &locked, type);
		MemoryContextSwitchTo(caller);
	}
}

/*
 * Advance each chunk's session.  All callers lock in the order of upload_id,
 * so that no two of them can wait for each other.
 */
static void
advance_in_order(Store *store, ChunkOfMany *chunks, int count,
				 const OpenResultType *type)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext session_context = AllocSetContextCreate(caller,
														  "vali_blob session",
														  ALLOCSET_SMALL_SIZES);
	int			end;

	qsort(chunks, count, sizeof(ChunkOfMany), compare_chunks);
	MemoryContextSwitchTo(session_context);
	for (int begin = 0; begin < count; begin = end)
	{
		end = begin + 1;
		while (end < count &&
			   compare_upload_ids(chunks[begin].request.upload_id,
								  chunks[end].request.upload_id) == 0)
			end++;
		advance_by_chunks(store, &chunks[begin], end - begin, type, caller);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(session_context);
	qsort(chunks, count, sizeof(ChunkOfMany), compare_positions);
}

/*
 * advance_uploads(upload_ids, chunk_offsets, chunk_lengths, owner, part_numbers,
 * etags, checksums, lease_epochs): advance many sessions in one round trip;
 * results in the order of the arguments.
 */
Datum
vali_blob_advance_uploads(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Store	   *store;
	OpenResultType type;
	ChunkOfMany *chunks;
	int			count;

	PreventCommandIfReadOnly("advance_uploads()");
	check_unknown_arguments(fcinfo, 8);
	chunks = get_chunks(fcinfo, &count);
	begin_rows(fcinfo);

	store = store_open(RowShareLock);
	type = open_result_type(&chunk_result, catalog_get()->chunk_result_type);
	advance_in_order(store, chunks, count, &type);
	store_close(store);
	close_result_type(&type);
	for (int i = 0; i < count; i++)
		put_row(rsinfo, HeapTupleGetDatum(chunks[i].result));
	return (Datum) 0;
}
