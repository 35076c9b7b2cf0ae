/*-------------------------------------------------------------------------
 *
 * lifecycle.c
 *		The rules of an upload session: session + request -> outcome and
 *		changed session.
 *
 * All of them are decided here and nowhere else.  The file works on a Session
 * in memory, which the caller has read from the locked row.  It reads no
 * table, no setting and no clock: all of these are passed in.
 *
 * pending and in_progress sessions are live.  A live session whose deadline
 * (expires_at) has passed counts as expired from that moment on, whether a
 * sweep has already changed its status or not.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "json.h"
#include "lifecycle.h"

/*
 * A deadline is set ttl/16 later than promised, and then left alone for that
 * long, so that only one chunk in many changes the index on expires_at.  The
 * same holds for the end of a session's retention.
 */
#define SLACK_DIVISOR 16

/* ---------- questions ---------- */

/* Is this the status of a live session? */
bool
status_is_live(SessionStatus status)
{
	return status == STATUS_PENDING || status == STATUS_IN_PROGRESS;
}

/* Is the session live, but past its deadline? */
static bool
is_overdue(const Session *session, TimestampTz now)
{
	return status_is_live(session->status) && session->expires_at <= now;
}

/* Return the status that readers see. */
SessionStatus
session_shown_status(const Session *session, TimestampTz now)
{
	return is_overdue(session, now) ? STATUS_EXPIRED : session->status;
}

/* Would complete_upload() succeed, and change the status? */
bool
session_is_ready(const Session *session, TimestampTz now)
{
	return session_is_known(session) &&
		status_is_live(session->status) && !is_overdue(session, now) &&
		session->uploaded_bytes == session->total_size;
}

/* Has an ended session been kept for long enough? */
bool
session_is_purgeable(const Session *session, TimestampTz now)
{
	/* whether a status that we do not know is an end, we do not know either */
	return session_is_known(session) &&
		!status_is_live(session->status) && session->expires_at <= now;
}

/* Are two texts the same, byte by byte? */
static bool
text_equals(const text *a, const text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

/* May a caller that names this owner see the session?  NULL checks nothing. */
bool
session_belongs_to(const Session *session, const text *owner)
{
	return owner == NULL ||
		(session->owner != NULL && text_equals(session->owner, owner));
}

/* Does a change orphan storage, which must then be reclaimed? */
bool
session_orphans_storage(const Session *before, const Session *after)
{
	return status_is_live(before->status) &&
		(after->status == STATUS_ABORTED ||
		 after->status == STATUS_EXPIRED) &&
		!json_is_empty(after->provider_data);
}

/* ---------- changes ---------- */

static void
set_status(Session *session, SessionStatus status)
{
	if (session->status == status)
		return;
	session->status = status;
	session->changed |= COLUMN_BIT(COLUMN_STATUS);
}

static void
set_total_size(Session *session, int64 total_size)
{
	session->total_size = total_size;
	session->changed |= COLUMN_BIT(COLUMN_TOTAL_SIZE);
}

static void
set_updated_at(Session *session, TimestampTz now)
{
	session->updated_at = now;
	session->changed |= COLUMN_BIT(COLUMN_UPDATED_AT);
}

static void
set_expires_at(Session *session, TimestampTz expires_at)
{
	session->expires_at = expires_at;
	session->changed |= COLUMN_BIT(COLUMN_EXPIRES_AT);
}

/* Merge the request's provider_data, if it brings any. */
static void
merge_provider_data(Session *session, const Request *request)
{
	if (request->provider_data == NULL)
		return;
	session->provider_data = json_merge(session->provider_data,
										request->provider_data);
	session->changed |= COLUMN_BIT(COLUMN_PROVIDER_DATA);
}

static TimestampTz
add_interval(TimestampTz when, const Interval *interval)
{
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												   TimestampTzGetDatum(when),
												   IntervalPGetDatum(interval)));
}

/* Return the deadline, with its slack, of a session that is active now. */
static TimestampTz
deadline_with_slack(TimestampTz promised, const Interval *ttl)
{
	Datum		slack = DirectFunctionCall2(interval_div,
											IntervalPGetDatum(ttl),
											Float8GetDatum(SLACK_DIVISOR));

	return add_interval(promised, DatumGetIntervalP(slack));
}

/* Record activity: updated_at is exact, the deadline slides lazily. */
static void
touch(Session *session, TimestampTz now)
{
	set_updated_at(session, now);
	if (session->ttl != NULL)
	{
		TimestampTz promised = add_interval(now, session->ttl);

		/* leave it alone as long as it keeps the promise, see above */
		if (session->expires_at < promised)
			set_expires_at(session, deadline_with_slack(promised, session->ttl));
	}
}

/* End a session.  From now on expires_at is the end of its retention. */
static void
end_session(Session *session, SessionStatus status, const RuleContext *context)
{
	Assert(status_is_live(session->status) && !status_is_live(status));
	set_status(session, status);
	set_updated_at(session, context->now);
	if (context->retention < 0)
	{
		if (session->expires_at != EXPIRES_NEVER)
			set_expires_at(session, EXPIRES_NEVER);
	}
	else
	{
		int64		retention = context->retention * USECS_PER_SEC;
		TimestampTz promised = context->now + retention;
		TimestampTz latest = promised + retention / SLACK_DIVISOR;

		/* lazily, like a deadline, so that few completions touch the index */
		if (session->expires_at < promised || session->expires_at > latest)
			set_expires_at(session, latest);
	}
}

/* ---------- rules ---------- */

/* What every rule checks first: was the session aborted, or has it expired? */
static Outcome
check_not_ended(const Session *session, TimestampTz now)
{
	if (!session_is_known(session))
		return OUTCOME_ENDED;
	switch (session_shown_status(session, now))
	{
		case STATUS_ABORTED:
			return OUTCOME_ENDED;
		case STATUS_EXPIRED:
			return OUTCOME_EXPIRED;
		default:
			return OUTCOME_OK;
	}
}

/* Start a session, whose other fields the caller has set. */
Outcome
session_start(Session *session,
			  const Request *request pg_attribute_unused(),
			  const RuleContext *context)
{
	session->status = STATUS_PENDING;
	session->uploaded_bytes = 0;
	session->created_at = context->now;
	session->updated_at = context->now;
	session->expires_at = session->ttl == NULL ? EXPIRES_NEVER :
		deadline_with_slack(add_interval(context->now, session->ttl),
							session->ttl);
	return OUTCOME_OK;
}

/* Judge a chunk; the first condition that applies decides. */
static Outcome
check_chunk_fits(const Session *session, const Request *request,
				 TimestampTz now)
{
	Outcome		outcome = check_not_ended(session, now);
	int64		end = request->chunk_offset + request->chunk_length;

	Assert(request->chunk_offset >= 0 && request->chunk_length >= 0 &&
		   request->chunk_offset <= PG_INT64_MAX - request->chunk_length);
	if (outcome != OUTCOME_OK)
		return outcome;
	/* an empty chunk is not a replay: it slides the deadline */
	if (end <= session->uploaded_bytes &&
		(request->chunk_length > 0 || session->status == STATUS_COMPLETE))
		return OUTCOME_REPLAYED;
	if (session->status == STATUS_COMPLETE)
		return OUTCOME_ENDED;
	if (request->chunk_offset != session->uploaded_bytes)
		return OUTCOME_CONFLICT;
	if (session->total_size != SIZE_DEFERRED)
	{
		if (end > session->total_size)
			return OUTCOME_TOO_LARGE;
		if (request->final && end < session->total_size)
			return OUTCOME_INCOMPLETE;
	}
	return OUTCOME_ADVANCED;
}

/* Confirm a chunk; with "final", complete the session in the same step. */
Outcome
session_advance(Session *session, const Request *request,
				const RuleContext *context)
{
	Outcome		outcome = check_chunk_fits(session, request, context->now);

	if (outcome != OUTCOME_ADVANCED)
		return outcome;

	merge_provider_data(session, request);
	if (request->chunk_length > 0)
	{
		session->uploaded_bytes += request->chunk_length;
		session->changed |= COLUMN_BIT(COLUMN_UPLOADED_BYTES);
	}
	if (request->final)
	{
		if (session->total_size == SIZE_DEFERRED)
			set_total_size(session, session->uploaded_bytes);
		end_session(session, STATUS_COMPLETE, context);
	}
	else
	{
		set_status(session, STATUS_IN_PROGRESS);
		touch(session, context->now);
	}
	return OUTCOME_ADVANCED;
}

/* Set a total size that was deferred. */
Outcome
session_declare_size(Session *session, const Request *request,
					 const RuleContext *context)
{
	Outcome		outcome = check_not_ended(session, context->now);

	if (outcome != OUTCOME_OK)
		return outcome;
	if (session->total_size == request->total_size)
		return OUTCOME_REPLAYED;
	if (session->status == STATUS_COMPLETE)
		return OUTCOME_ENDED;
	if (session->total_size != SIZE_DEFERRED)
		return OUTCOME_SIZE_MISMATCH;
	if (session->uploaded_bytes > request->total_size)
		return OUTCOME_TOO_LARGE;

	set_total_size(session, request->total_size);
	touch(session, context->now);
	return OUTCOME_OK;
}

/* Merge keys into the session's JSON documents. */
Outcome
session_merge(Session *session, const Request *request,
			  const RuleContext *context)
{
	Outcome		outcome = check_not_ended(session, context->now);

	if (outcome != OUTCOME_OK)
		return outcome;
	if (session->status == STATUS_COMPLETE)
		return OUTCOME_ENDED;

	if (request->metadata != NULL)
	{
		session->metadata = json_merge(session->metadata, request->metadata);
		session->changed |= COLUMN_BIT(COLUMN_METADATA);
	}
	merge_provider_data(session, request);
	touch(session, context->now);
	return OUTCOME_OK;
}

/* Complete a session all of whose bytes are confirmed. */
Outcome
session_complete(Session *session, const Request *request,
				 const RuleContext *context)
{
	Outcome		outcome = check_not_ended(session, context->now);
	bool		is_complete = session->status == STATUS_COMPLETE;
	bool		brings_result = request->result != NULL && session->result == NULL;

	if (outcome != OUTCOME_OK)
		return outcome;
	/* one that a final chunk has completed takes the first result later */
	if (is_complete && !brings_result)
		return OUTCOME_REPLAYED;
	if (session->uploaded_bytes != session->total_size)
		return OUTCOME_INCOMPLETE;

	if (brings_result)
	{
		session->result = request->result;
		session->changed |= COLUMN_BIT(COLUMN_RESULT);
	}
	if (is_complete)
		set_updated_at(session, context->now);
	else
		end_session(session, STATUS_COMPLETE, context);
	return OUTCOME_OK;
}

/* Abort a live session. */
Outcome
session_abort(Session *session, const Request *request,
			  const RuleContext *context)
{
	if (!session_is_known(session))
		return OUTCOME_ENDED;
	if (session->status == STATUS_ABORTED)
		return OUTCOME_REPLAYED;
	if (session_shown_status(session, context->now) == STATUS_EXPIRED)
		return OUTCOME_EXPIRED;
	if (!status_is_live(session->status))
		return OUTCOME_ENDED;

	if (request->reason != NULL)
	{
		session->abort_reason = request->reason;
		session->changed |= COLUMN_BIT(COLUMN_ABORT_REASON);
	}
	end_session(session, STATUS_ABORTED, context);
	return OUTCOME_OK;
}

/* Expire a live session past its deadline; see EXPIRY_COLUMNS. */
Outcome
session_expire(Session *session,
			   const Request *request pg_attribute_unused(),
			   const RuleContext *context)
{
	if (!session_is_known(session) || !is_overdue(session, context->now))
		return OUTCOME_REPLAYED;
	end_session(session, STATUS_EXPIRED, context);
	return OUTCOME_OK;
}
