/*-------------------------------------------------------------------------
 *
 * errors.c
 *		Outcome -> SQLSTATE, message, detail and hint.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "errors.h"

/*
 * The longest text that a message repeats, in bytes.  Every possible upload id
 * is shorter.
 */
#define SHOWN_BYTES 512

/* Return a text as messages show it. */
const char *
shown_text(const text *value)
{
	const char *start = VARDATA_ANY(value);
	int			length = VARSIZE_ANY_EXHDR(value);

	if (length <= SHOWN_BYTES)
		return pnstrdup(start, length);
	return psprintf("%.*s...", pg_mbcliplen(start, length, SHOWN_BYTES), start);
}

/*
 * Copy a string into a buffer, and cut it between two characters if it is too
 * long.
 */
void
copy_clipped(char *buffer, const char *string, size_t size)
{
	int			length = pg_mbcliplen(string, strlen(string), size - 1);

	memcpy(buffer, string, length);
	buffer[length] = '\0';
}

/* Report ERRCODE_UPLOAD_ENDED. */
pg_noreturn static void
report_ended(const char *id, const Session *session)
{
	if (!session_is_known(session))
		ereport(ERROR,
				(errcode(ERRCODE_UPLOAD_ENDED),
				 errmsg("upload \"%s\" is not supported by the loaded library of extension \"vali_blob\"",
						id),
				 errdetail("The extension was updated after this session had loaded the library, or the status was added by hand."),
				 errhint("Reconnect to load the new library; if it is preloaded, restart the server.")));
	if (session->status == STATUS_COMPLETE)
		ereport(ERROR,
				(errcode(ERRCODE_UPLOAD_ENDED),
				 errmsg("upload \"%s\" is complete", id),
				 errdetail("A complete upload takes no more chunks or changes."),
				 errhint("Start a new upload with start_upload().")));
	Assert(session->status == STATUS_ABORTED);
	ereport(ERROR,
			(errcode(ERRCODE_UPLOAD_ENDED),
			 errmsg("upload \"%s\" was aborted", id),
			 session->abort_reason == NULL ? 0 :
			 errdetail("The reason given was: %s",
					   shown_text(session->abort_reason)),
			 errhint("Start a new upload with start_upload().")));
}

/* Report ERRCODE_UPLOAD_INCOMPLETE. */
pg_noreturn static void
report_incomplete(const char *id, const Session *session, const Request *request)
{
	if (request->final)
		ereport(ERROR,
				(errcode(ERRCODE_UPLOAD_INCOMPLETE),
				 errmsg("final chunk of upload \"%s\" ends at byte %lld, before its total size of %lld bytes",
						id,
						(long long) (request->chunk.offset + request->chunk.length),
						(long long) session->total_size),
				 errhint("Mark only the chunk that ends at the total size as final.")));
	if (session->total_size == SIZE_DEFERRED)
		ereport(ERROR,
				(errcode(ERRCODE_UPLOAD_INCOMPLETE),
				 errmsg("upload \"%s\" has no total size yet, %lld bytes are confirmed",
						id, (long long) session->uploaded_bytes),
				 session->partial ?
				 errhint("Set the size with declare_upload_size().") :
				 errhint("Set the size with declare_upload_size(), or mark the last chunk as final.")));
	ereport(ERROR,
			(errcode(ERRCODE_UPLOAD_INCOMPLETE),
			 errmsg("upload \"%s\" is incomplete: %lld of %lld bytes are confirmed",
					id, (long long) session->uploaded_bytes,
					(long long) session->total_size),
			 session->any_order ?
			 errhint("Send what missing_ranges() returns.") :
			 errhint("Go on at byte %lld.", (long long) session->uploaded_bytes)));
}

/*
 * Report ERRCODE_UPLOAD_TOO_LARGE, of a chunk or of a total size that is
 * declared.  DETAIL is a JSON object, documented for programs to read.
 */
pg_noreturn static void
report_too_large(const char *id, const Session *session, const Request *request,
				 const RuleContext *context)
{
	int64		end = request->chunk.offset + request->chunk.length;
	int64		total_size = session->total_size;

	if (session->size_limit != SIZE_UNLIMITED && end > session->size_limit)
		ereport(ERROR,
				(errcode(ERRCODE_UPLOAD_TOO_LARGE),
				 errmsg("upload \"%s\" would reach byte %lld, beyond its size limit of %lld bytes",
						id, (long long) end, (long long) session->size_limit),
				 errdetail_internal("{\"size_limit\": %lld, \"provided_end\": %lld}",
									(long long) session->size_limit, (long long) end),
				 errhint("Start a new upload with a greater size_limit.")));

	/* a size that is declared, or follows from a final chunk */
	if (total_size == SIZE_DEFERRED || end <= total_size)
	{
		total_size = request->final ? end : request->total_size;
		end = Max(session->any_order ? context->parts_end :
				  session->uploaded_bytes, end);
	}
	ereport(ERROR,
			(errcode(ERRCODE_UPLOAD_TOO_LARGE),
			 errmsg("upload \"%s\" would reach byte %lld, beyond a total size of %lld bytes",
					id, (long long) end, (long long) total_size),
			 errdetail_internal("{\"total_size\": %lld, \"provided_end\": %lld}",
								(long long) total_size, (long long) end),
			 errhint("Send no more than the declared bytes, or start a new upload with the right size.")));
}

/* Report ERRCODE_UPLOAD_OFFSET_CONFLICT.  DETAIL is as above. */
pg_noreturn static void
report_conflict(const char *id, const Session *session, const Request *request,
				const RuleContext *context)
{
	const Part *chunk = &request->chunk;
	const Part *touched = &context->touched;

	if (session->any_order)
		ereport(ERROR,
				(errcode(ERRCODE_UPLOAD_OFFSET_CONFLICT),
				 errmsg("chunk of upload \"%s\" from byte %lld to %lld overlaps a confirmed one from %lld to %lld",
						id, (long long) chunk->offset,
						(long long) (chunk->offset + chunk->length),
						(long long) touched->offset,
						(long long) (touched->offset + touched->length)),
				 errdetail_internal("{\"provided_offset\": %lld, \"provided_end\": %lld, \"confirmed_offset\": %lld, \"confirmed_end\": %lld}",
									(long long) chunk->offset,
									(long long) (chunk->offset + chunk->length),
									(long long) touched->offset,
									(long long) (touched->offset + touched->length)),
				 errhint("Send what missing_ranges() returns.")));
	ereport(ERROR,
			(errcode(ERRCODE_UPLOAD_OFFSET_CONFLICT),
			 errmsg("chunk of upload \"%s\" begins at byte %lld, but %lld bytes are confirmed",
					id, (long long) chunk->offset,
					(long long) session->uploaded_bytes),
			 errdetail_internal("{\"expected_offset\": %lld, \"provided_offset\": %lld}",
								(long long) session->uploaded_bytes,
								(long long) chunk->offset),
			 errhint("Go on at byte %lld.",
					 (long long) session->uploaded_bytes)));
}

/* Report ERRCODE_UPLOAD_FENCED. */
pg_noreturn static void
report_fenced(const char *id, const Session *session, const Request *request)
{
	if (request->has_lease_epoch)
		ereport(ERROR,
				(errcode(ERRCODE_UPLOAD_FENCED),
				 errmsg("lease epoch %lld of upload \"%s\" is not the current one, which is %lld",
						(long long) request->lease_epoch, id,
						(long long) session->lease_epoch),
				 request->lease_epoch < session->lease_epoch ?
				 errdetail("A newer lease was given.") : 0,
				 errhint("Stop writing, and discard what was written under that epoch; to go on, call acquire_upload_lease().")));
	ereport(ERROR,
			(errcode(ERRCODE_UPLOAD_FENCED),
			 errmsg("the lease of upload \"%s\" is held, and the chunk brings no lease_epoch",
					id),
			 errdetail("The holder is \"%s\".", shown_text(session->lease_holder)),
			 errhint("Call acquire_upload_lease(), and pass the epoch that it returns.")));
}

/* Limits, as the detail of ERRCODE_UPLOAD_QUOTA_EXCEEDED names them. */
static const char *const limit_names[] = {
	[LIMIT_SIZE] = "size_limit",
	[LIMIT_UPLOAD_SIZE] = "max_upload_size",
	[LIMIT_LIVE_UPLOADS] = "max_live_uploads",
	[LIMIT_LIVE_BYTES] = "max_live_bytes",
};

/* Say what exceeds a limit. */
static int
errmsg_exceeded(const char *id, const ExceededLimit *exceeded)
{
	if (exceeded->kind == LIMIT_LIVE_UPLOADS)
		return errmsg("owner of upload \"%s\" has %lld live uploads, and may have %lld",
					  id, (long long) exceeded->used,
					  (long long) exceeded->limit);
	if (exceeded->kind != LIMIT_LIVE_BYTES)
		return errmsg("upload \"%s\" of %lld bytes exceeds its size limit of %lld bytes",
					  id, (long long) exceeded->requested,
					  (long long) exceeded->limit);
	if (exceeded->requested == LIMIT_NONE)
		return errmsg("upload \"%s\" has neither a total size nor a size limit, and the bytes of its owner are limited",
					  id);
	return errmsg("upload \"%s\" of %lld bytes exceeds the bytes that its owner may have: %lld of %lld are promised already",
				  id, (long long) exceeded->requested,
				  (long long) exceeded->used, (long long) exceeded->limit);
}

/* Report ERRCODE_UPLOAD_QUOTA_EXCEEDED.  DETAIL is as above. */
pg_noreturn static void
report_quota_exceeded(const char *id, const ExceededLimit *exceeded)
{
	const char *requested = exceeded->requested == LIMIT_NONE ? "null" :
		psprintf("%lld", (long long) exceeded->requested);

	ereport(ERROR,
			(errcode(ERRCODE_UPLOAD_QUOTA_EXCEEDED),
			 errmsg_exceeded(id, exceeded),
			 errdetail_internal("{\"quota\": \"%s\", \"limit\": %lld, \"used\": %lld, \"requested\": %s}",
								limit_names[exceeded->kind],
								(long long) exceeded->limit,
								(long long) exceeded->used, requested),
			 exceeded->kind == LIMIT_SIZE ?
			 errhint("Pass a greater size_limit to start_upload().") :
			 exceeded->requested == LIMIT_NONE ?
			 errhint("Pass a total_size or a size_limit to start_upload().") :
			 exceeded->kind != LIMIT_LIVE_UPLOADS &&
			 exceeded->requested > exceeded->limit ?
			 errhint("Start a smaller upload.") :
			 exceeded->limit == 0 ?
			 errhint("Raise the limit with set_upload_quota(), or the setting.") :
			 errhint("Complete or abort another upload of the owner first.")));
}

/* Report what can be done only with a partial upload, or not with one. */
pg_noreturn static void
report_partial(const char *id, const Session *session)
{
	if (session->partial)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"final\" must not be true for upload \"%s\", which is partial",
						id),
				 errdetail("A partial upload never completes by itself."),
				 errhint("Pass its upload_id to concatenate_uploads().")));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("upload \"%s\" is not partial", id),
			 errhint("Pass \"partial\" to start_upload() for uploads that are to be concatenated.")));
}

/* Report an outcome that is an error. */
void
report_outcome(Outcome outcome, const Session *session, const Request *request,
			   const RuleContext *context)
{
	const char *id = shown_text(request->upload_id);

	switch (outcome)
	{
		case OUTCOME_NOT_FOUND:
			/* there is no detail: it must not tell whose upload this is */
			ereport(ERROR,
					(errcode(ERRCODE_UPLOAD_NOT_FOUND),
					 errmsg("upload \"%s\" does not exist", id),
					 errhint("Check the upload id and the owner, or start a new upload with start_upload().")));
			break;
		case OUTCOME_LOCKED:
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("could not obtain lock on upload \"%s\"", id),
					 errdetail("Another transaction is changing the upload."),
					 errhint("Try again, or call without \"nowait\".")));
			break;
		case OUTCOME_ENDED:
			report_ended(id, session);
			break;
		case OUTCOME_EXPIRED:
			ereport(ERROR,
					(errcode(ERRCODE_UPLOAD_EXPIRED),
					 errmsg("upload \"%s\" has expired", id),
					 errhint("Start a new upload with start_upload().")));
			break;
		case OUTCOME_CONFLICT:
			report_conflict(id, session, request, context);
			break;
		case OUTCOME_TOO_LARGE:
			report_too_large(id, session, request, context);
			break;
		case OUTCOME_INCOMPLETE:
			report_incomplete(id, session, request);
			break;
		case OUTCOME_SIZE_MISMATCH:
			ereport(ERROR,
					(errcode(ERRCODE_UPLOAD_SIZE_MISMATCH),
					 errmsg("upload \"%s\" has a total size of %lld bytes, which cannot become %lld",
							id, (long long) session->total_size,
							(long long) request->total_size),
					 errdetail("The total size can be declared only once."),
					 errhint("Start a new upload for a file of another size.")));
			break;
		case OUTCOME_PARTIAL:
		case OUTCOME_NOT_PARTIAL:
			report_partial(id, session);
			break;
		case OUTCOME_QUOTA_EXCEEDED:
			report_quota_exceeded(id, &session->exceeded);
			break;
		case OUTCOME_FENCED:
			report_fenced(id, session, request);
			break;
		case OUTCOME_ADVANCED:
		case OUTCOME_REPLAYED:
		case OUTCOME_REPLACED:
			Assert(false);		/* no errors; see report_unless_done() */
			break;
	}
	elog(ERROR, "unrecognized outcome: %d", (int) outcome);
}

/* Report every outcome but success, the first time or repeated. */
void
report_unless_done(Outcome outcome, const Session *session,
				  const Request *request, const RuleContext *context)
{
	if (outcome != OUTCOME_ADVANCED && outcome != OUTCOME_REPLAYED &&
		outcome != OUTCOME_REPLACED)
		report_outcome(outcome, session, request, context);
}

/* Report that a start with or_resume has found another session. */
void
report_difference(const char *argument, const Request *request)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
			 errmsg("upload \"%s\" already exists",
					shown_text(request->upload_id)),
			 errdetail("It was started with another \"%s\".", argument),
			 errhint("Choose another upload_id, or pass the same arguments to go on with the upload.")));
}
