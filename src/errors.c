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

/* A text as messages show it. */
const char *
shown_text(const text *value)
{
	const char *start = VARDATA_ANY(value);
	int			length = VARSIZE_ANY_EXHDR(value);

	if (length <= SHOWN_BYTES)
		return pnstrdup(start, length);
	return psprintf("%.*s...", pg_mbcliplen(start, length, SHOWN_BYTES), start);
}

/* Raise an ended session, saying how it ended. */
pg_noreturn static void
raise_ended(const char *id, const Session *session)
{
	if (session->status == STATUS_COMPLETE)
		ereport(ERROR,
				(errcode(ERRCODE_UPLOAD_ENDED),
				 errmsg("upload \"%s\" is complete", id),
				 errhint("A complete upload takes no more chunks or changes.")));
	if (session->status == STATUS_OTHER)
		ereport(ERROR,
				(errcode(ERRCODE_UPLOAD_ENDED),
				 errmsg("upload \"%s\" has a status that the library of vali_blob that is loaded does not know",
						id),
				 errdetail("The extension has been updated since this session began, or the status was added by hand."),
				 errhint("Reconnect.")));
	Assert(session->status == STATUS_ABORTED);
	ereport(ERROR,
			(errcode(ERRCODE_UPLOAD_ENDED),
			 errmsg("upload \"%s\" was aborted", id),
			 session->abort_reason == NULL ? 0 :
			 errdetail("The reason given was: %s",
					   shown_text(session->abort_reason)),
			 errhint("Start a new upload with start_upload().")));
}

/* Raise bytes that are missing, from the file or from what is known of it. */
pg_noreturn static void
raise_incomplete(const char *id, const Session *session, const Request *request)
{
	if (request->final)
		ereport(ERROR,
				(errcode(ERRCODE_UPLOAD_INCOMPLETE),
				 errmsg("final chunk of upload \"%s\" ends at byte " INT64_FORMAT ", before its total size of " INT64_FORMAT " bytes",
						id, request->chunk_offset + request->chunk_length,
						session->total_size),
				 errhint("Mark only the chunk that ends at the total size as final.")));
	if (session->total_size == SIZE_DEFERRED)
		ereport(ERROR,
				(errcode(ERRCODE_UPLOAD_INCOMPLETE),
				 errmsg("upload \"%s\" has no total size yet, " INT64_FORMAT " bytes are confirmed",
						id, session->uploaded_bytes),
				 errhint("Set the size with declare_upload_size(), or mark the last chunk as final.")));
	ereport(ERROR,
			(errcode(ERRCODE_UPLOAD_INCOMPLETE),
			 errmsg("upload \"%s\" is incomplete: " INT64_FORMAT " of " INT64_FORMAT " bytes are confirmed",
					id, session->uploaded_bytes, session->total_size),
			 errhint("Go on at byte " INT64_FORMAT ".", session->uploaded_bytes)));
}

/* Raise bytes beyond the total size, be it declared before or just now. */
pg_noreturn static void
raise_too_large(const char *id, const Session *session, const Request *request)
{
	int64		chunk_end = request->chunk_offset + request->chunk_length;
	int64		end = Max(chunk_end, session->uploaded_bytes);
	int64		total_size = session->total_size == SIZE_DEFERRED ?
		request->total_size : session->total_size;

	ereport(ERROR,
			(errcode(ERRCODE_UPLOAD_TOO_LARGE),
			 errmsg("upload \"%s\" would reach byte " INT64_FORMAT ", beyond a total size of " INT64_FORMAT " bytes",
					id, end, total_size),
			 errdetail("{\"total_size\": " INT64_FORMAT ", \"provided_end\": " INT64_FORMAT "}",
					   total_size, end),
			 errhint("Send no more than the declared bytes, or start a new upload with the right size.")));
}

/* Raise an outcome as an error; which ones are errors, the caller knows. */
void
raise_outcome(Outcome outcome, const Session *session, const Request *request)
{
	const char *id = shown_text(request->upload_id);

	switch (outcome)
	{
		case OUTCOME_NOT_FOUND:
			ereport(ERROR,
					(errcode(ERRCODE_UPLOAD_NOT_FOUND),
					 errmsg("upload \"%s\" does not exist", id),
					 errhint("It was never started, belongs to another owner, or is gone after its retention. Start a new upload with start_upload().")));
			break;
		case OUTCOME_LOCKED:
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("could not obtain lock on upload \"%s\"", id),
					 errhint("Another transaction is changing the upload; try again, or call without nowait.")));
			break;
		case OUTCOME_ENDED:
			raise_ended(id, session);
			break;
		case OUTCOME_EXPIRED:
			ereport(ERROR,
					(errcode(ERRCODE_UPLOAD_EXPIRED),
					 errmsg("upload \"%s\" has expired", id),
					 errhint("Start a new upload with start_upload().")));
			break;
		case OUTCOME_CONFLICT:
			ereport(ERROR,
					(errcode(ERRCODE_UPLOAD_OFFSET_CONFLICT),
					 errmsg("chunk of upload \"%s\" begins at byte " INT64_FORMAT ", but " INT64_FORMAT " bytes are confirmed",
							id, request->chunk_offset, session->uploaded_bytes),
					 errdetail("{\"expected_offset\": " INT64_FORMAT ", \"provided_offset\": " INT64_FORMAT "}",
							   session->uploaded_bytes, request->chunk_offset),
					 errhint("Go on at byte " INT64_FORMAT ".", session->uploaded_bytes)));
			break;
		case OUTCOME_TOO_LARGE:
			raise_too_large(id, session, request);
			break;
		case OUTCOME_INCOMPLETE:
			raise_incomplete(id, session, request);
			break;
		case OUTCOME_SIZE_MISMATCH:
			ereport(ERROR,
					(errcode(ERRCODE_UPLOAD_SIZE_MISMATCH),
					 errmsg("upload \"%s\" has a total size of " INT64_FORMAT " bytes, which cannot become " INT64_FORMAT,
							id, session->total_size, request->total_size),
					 errhint("The total size is declared once; start a new upload for a file of another size.")));
			break;
		case OUTCOME_ADVANCED:
		case OUTCOME_REPLAYED:
			break;
	}
	elog(ERROR, "outcome %d is no error", (int) outcome);
}

/* Raise every outcome but success, first or repeated. */
void
raise_unless_done(Outcome outcome, const Session *session,
				  const Request *request)
{
	if (outcome != OUTCOME_ADVANCED && outcome != OUTCOME_REPLAYED)
		raise_outcome(outcome, session, request);
}
