/*-------------------------------------------------------------------------
 *
 * lifecycle.c
 *		The rules of an upload session: session + request -> outcome and
 *		changed session.
 *
 * This is the one place where they are decided.  It works on a Session in
 * memory that its caller has read from the locked row, and touches no
 * database; "now" is always passed in.
 *
 * pending and in_progress sessions are live.  A live session whose deadline
 * (expires_at) has passed counts as expired from that moment on, whether the
 * sweep has come by or not.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "json.h"
#include "lifecycle.h"
#include "settings.h"

/*
 * A deadline is set ttl/16 later than promised, and then left alone for that
 * long: only one chunk in many has to touch the index on expires_at.
 */
#define DEADLINE_SLACK_DIVISOR 16.0

/* May chunks still come for a session of this status? */
bool
status_is_live(SessionStatus status)
{
	return status == STATUS_PENDING || status == STATUS_IN_PROGRESS;
}

/* Is the stored status a live one? */
bool
session_is_live(const Session *session)
{
	return status_is_live(session->status);
}

/* Tell whether a live session has run out of time. */
static bool
is_overdue(const Session *session, TimestampTz now)
{
	return session_is_live(session) && session->expires_at <= now;
}

/* The status that readers see. */
SessionStatus
session_shown_status(const Session *session, TimestampTz now)
{
	return is_overdue(session, now) ? STATUS_EXPIRED : session->status;
}

/* Tell whether complete_upload() would succeed. */
bool
session_is_ready(const Session *session, TimestampTz now)
{
	return session_is_live(session) && !is_overdue(session, now) &&
		session->uploaded_bytes == session->total_size;
}

/* Tell whether an ended session has been kept for long enough. */
bool
session_is_purgeable(const Session *session, TimestampTz now)
{
	return !session_is_live(session) && session->status != STATUS_OTHER &&
		session->expires_at <= now;
}

/* Tell whether a caller that names this owner may know of the session. */
bool
session_belongs_to(const Session *session, const text *owner)
{
	if (owner == NULL)
		return true;
	return session->owner != NULL &&
		VARSIZE_ANY_EXHDR(session->owner) == VARSIZE_ANY_EXHDR(owner) &&
		memcmp(VARDATA_ANY(session->owner), VARDATA_ANY(owner),
			   VARSIZE_ANY_EXHDR(owner)) == 0;
}

/* Note that a column differs from the stored row. */
static void
mark_changed(Session *session, SessionColumn column)
{
	session->changed |= COLUMN_BIT(column);
}

/* Set the status. */
static void
set_status(Session *session, SessionStatus status)
{
	if (session->status == status)
		return;
	session->status = status;
	mark_changed(session, COLUMN_STATUS);
}

/* Set the total size. */
static void
set_total_size(Session *session, int64 total_size)
{
	session->total_size = total_size;
	mark_changed(session, COLUMN_TOTAL_SIZE);
}

/* Set the moment at which the sweep acts on the row. */
static void
set_expires_at(Session *session, TimestampTz expires_at)
{
	session->expires_at = expires_at;
	mark_changed(session, COLUMN_EXPIRES_AT);
}

/* Set the time of the last change. */
static void
set_updated_at(Session *session, TimestampTz now)
{
	session->updated_at = now;
	mark_changed(session, COLUMN_UPDATED_AT);
}

/* Merge a request's provider_data, if it brings any. */
static void
merge_provider_data(Session *session, const Request *request)
{
	if (request->provider_data == NULL)
		return;
	session->provider_data = json_merge(session->provider_data,
										request->provider_data);
	mark_changed(session, COLUMN_PROVIDER_DATA);
}

/* Add an interval to a point in time. */
static TimestampTz
later(TimestampTz when, const Interval *by)
{
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												   TimestampTzGetDatum(when),
												   IntervalPGetDatum(by)));
}

/* The deadline, with its slack, of a session that is active now. */
static TimestampTz
deadline_with_slack(TimestampTz promised, const Interval *ttl)
{
	Datum		slack = DirectFunctionCall2(interval_div,
											IntervalPGetDatum(ttl),
											Float8GetDatum(DEADLINE_SLACK_DIVISOR));

	return later(promised, DatumGetIntervalP(slack));
}

/* Record activity: updated_at is exact, the deadline slides lazily. */
static void
touch(Session *session, TimestampTz now)
{
	set_updated_at(session, now);
	if (session->ttl != NULL)
	{
		TimestampTz promised = later(now, session->ttl);

		if (session->expires_at < promised)
			set_expires_at(session, deadline_with_slack(promised, session->ttl));
	}
}

/* End a session; from now on expires_at says when its row may go. */
static void
end_session(Session *session, SessionStatus status, TimestampTz now)
{
	set_status(session, status);
	set_updated_at(session, now);
	set_expires_at(session, retention_setting < 0 ? EXPIRES_NEVER :
				   TimestampTzPlusMilliseconds(now, retention_setting * INT64CONST(1000)));
	session->died = status != STATUS_COMPLETE;
}

/* Judge what comes first for every request: is the session still there? */
static Outcome
judge_alive(const Session *session, TimestampTz now)
{
	switch (session_shown_status(session, now))
	{
		case STATUS_ABORTED:
		case STATUS_OTHER:
			return OUTCOME_ENDED;
		case STATUS_EXPIRED:
			return OUTCOME_EXPIRED;
		default:
			return OUTCOME_ADVANCED;
	}
}

/* Judge a chunk. */
static Outcome
judge_chunk(const Session *session, const Request *request, TimestampTz now)
{
	Outcome		alive = judge_alive(session, now);
	int64		end = request->chunk_offset + request->chunk_length;

	if (alive != OUTCOME_ADVANCED)
		return alive;
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

/* Give a new session its timestamps; the rest is the caller's. */
void
session_start(Session *session, TimestampTz now)
{
	session->status = STATUS_PENDING;
	session->uploaded_bytes = 0;
	session->created_at = now;
	session->updated_at = now;
	session->expires_at = session->ttl == NULL ? EXPIRES_NEVER :
		deadline_with_slack(later(now, session->ttl), session->ttl);
}

/* Confirm a chunk; with "final", complete the session in the same step. */
Outcome
session_advance(Session *session, const Request *request, TimestampTz now)
{
	Outcome		outcome = judge_chunk(session, request, now);

	if (outcome != OUTCOME_ADVANCED)
		return outcome;

	merge_provider_data(session, request);
	if (request->chunk_length > 0)
	{
		session->uploaded_bytes += request->chunk_length;
		mark_changed(session, COLUMN_UPLOADED_BYTES);
	}
	if (request->final)
	{
		if (session->total_size == SIZE_DEFERRED)
			set_total_size(session, session->uploaded_bytes);
		end_session(session, STATUS_COMPLETE, now);
	}
	else
	{
		set_status(session, STATUS_IN_PROGRESS);
		touch(session, now);
	}
	return OUTCOME_ADVANCED;
}

/* Set a total size that was deferred. */
Outcome
session_declare_size(Session *session, const Request *request, TimestampTz now)
{
	Outcome		alive = judge_alive(session, now);

	if (alive != OUTCOME_ADVANCED)
		return alive;
	if (session->total_size == request->total_size)
		return OUTCOME_REPLAYED;
	if (session->status == STATUS_COMPLETE)
		return OUTCOME_ENDED;
	if (session->total_size != SIZE_DEFERRED)
		return OUTCOME_SIZE_MISMATCH;
	if (session->uploaded_bytes > request->total_size)
		return OUTCOME_TOO_LARGE;

	set_total_size(session, request->total_size);
	touch(session, now);
	return OUTCOME_ADVANCED;
}

/* Merge keys into the session's JSON documents. */
Outcome
session_merge(Session *session, const Request *request, TimestampTz now)
{
	Outcome		alive = judge_alive(session, now);

	if (alive != OUTCOME_ADVANCED)
		return alive;
	if (session->status == STATUS_COMPLETE)
		return OUTCOME_ENDED;

	if (request->metadata != NULL)
	{
		session->metadata = json_merge(session->metadata, request->metadata);
		mark_changed(session, COLUMN_METADATA);
	}
	merge_provider_data(session, request);
	touch(session, now);
	return OUTCOME_ADVANCED;
}

/*
 * Complete a session whose bytes have all arrived.  One that was completed
 * without a result, by a final chunk say, takes the first one that is brought
 * later.
 */
Outcome
session_complete(Session *session, const Request *request, TimestampTz now)
{
	Outcome		alive = judge_alive(session, now);
	bool		is_complete = session->status == STATUS_COMPLETE;
	bool		brings_result = request->result != NULL && session->result == NULL;

	if (alive != OUTCOME_ADVANCED)
		return alive;
	if (is_complete && !brings_result)
		return OUTCOME_REPLAYED;
	if (session->uploaded_bytes != session->total_size)
		return OUTCOME_INCOMPLETE;

	if (brings_result)
	{
		session->result = request->result;
		mark_changed(session, COLUMN_RESULT);
	}
	if (is_complete)
		set_updated_at(session, now);
	else
		end_session(session, STATUS_COMPLETE, now);
	return OUTCOME_ADVANCED;
}

/* Give a live session up. */
Outcome
session_abort(Session *session, const Request *request, TimestampTz now)
{
	switch (session_shown_status(session, now))
	{
		case STATUS_ABORTED:
			return OUTCOME_REPLAYED;
		case STATUS_EXPIRED:
			return OUTCOME_EXPIRED;
		case STATUS_COMPLETE:
		case STATUS_OTHER:
			return OUTCOME_ENDED;
		default:
			break;
	}

	if (request->reason != NULL)
	{
		session->abort_reason = request->reason;
		mark_changed(session, COLUMN_ABORT_REASON);
	}
	end_session(session, STATUS_ABORTED, now);
	return OUTCOME_ADVANCED;
}

/* Expire a live session past its deadline; false if it is not one. */
bool
session_expire(Session *session, TimestampTz now)
{
	if (!is_overdue(session, now))
		return false;
	end_session(session, STATUS_EXPIRED, now);
	return true;
}
