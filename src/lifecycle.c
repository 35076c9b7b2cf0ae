/*-------------------------------------------------------------------------
 *
 * lifecycle.c
 *		The rules of an upload session: session + request -> outcome and
 *		changed session.
 *
 * All of them are decided here and nowhere else.  The file works on a Session
 * in memory, which the caller has read from the locked row.  It reads no
 * table, no setting and no clock: all of these are passed in.  What a rule has
 * to know of the session's parts it says in parts_needed().
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

/* Are two texts the same, or both null? */
static bool
nullable_text_equals(const text *a, const text *b)
{
	return a == NULL || b == NULL ? a == b : text_equals(a, b);
}

/* Is this the session's owner? */
bool
session_is_owned_by(const Session *session, const text *owner)
{
	return nullable_text_equals(session->owner, owner);
}

/* May a caller that names this owner see the session?  NULL checks nothing. */
bool
session_belongs_to(const Session *session, const text *owner)
{
	return owner == NULL || session_is_owned_by(session, owner);
}

/* Does a change orphan storage, if there is some, which must then be reclaimed? */
bool
session_orphans_storage(const Session *before, const Session *after)
{
	return status_is_live(before->status) &&
		(after->status == STATUS_ABORTED || after->status == STATUS_EXPIRED);
}

/*
 * Which argument differs if a start with or_resume finds a session?  NULL if none
 * does.
 */
const char *
session_difference(const Session *session, const Session *wanted)
{
	if (!session_is_owned_by(session, wanted->owner))
		return "owner";
	if (!nullable_text_equals(session->bucket, wanted->bucket))
		return "bucket";
	if (!text_equals(session->path, wanted->path))
		return "path";
	if (session->total_size != wanted->total_size)
		return "total_size";
	if (session->any_order != wanted->any_order)
		return "any_order";
	if (session->partial != wanted->partial)
		return "partial";
	return NULL;
}

/*
 * Which argument differs if a concatenation finds a session?  NULL if the same one
 * has made it.
 */
const char *
concatenation_difference(const Session *session, const Session *wanted)
{
	if (!session_is_owned_by(session, wanted->owner))
		return "owner";
	if (session->concatenated_from == NULL ||
		!json_equals(session->concatenated_from, wanted->concatenated_from))
		return "upload_ids";
	return NULL;
}

/* Does a chunk bring what only a part can keep? */
bool
brings_part(const Request *request)
{
	return request->chunk.number != 0 || request->chunk.etag != NULL ||
		request->chunk.checksum != NULL;
}

/* Does the storage hold other bytes than when a part was confirmed? */
static bool
part_differs(const Part *part, const Part *chunk)
{
	return (chunk->etag != NULL &&
			!nullable_text_equals(part->etag, chunk->etag)) ||
		(chunk->checksum != NULL &&
		 !nullable_text_equals(part->checksum, chunk->checksum));
}

/* Does anybody have the lease, whose time has not run out? */
static bool
lease_runs(const Session *session, TimestampTz now)
{
	return session->lease_holder != NULL && session->lease_expires_at > now;
}

/* May a chunk not be confirmed, because of the lease? */
static bool
is_fenced(const Session *session, const Request *request, TimestampTz now)
{
	return request->has_lease_epoch ?
		request->lease_epoch != session->lease_epoch : lease_runs(session, now);
}

/*
 * Has the caller of a request the lease?  It names itself, or the epoch that it was
 * given.
 */
bool
session_holds_lease(const Session *session, const Request *request,
					TimestampTz now)
{
	return session->lease_holder != NULL &&
		status_is_live(session_shown_status(session, now)) &&
		(request->lease_holder != NULL ?
		 text_equals(session->lease_holder, request->lease_holder) :
		 session->lease_epoch == request->lease_epoch);
}

/*
 * Return the bytes that a live session counts for in its owner's quota: as many as
 * it was promised.
 */
int64
session_promised_bytes(const Session *session)
{
	if (session->total_size != SIZE_DEFERRED)
		return session->total_size;
	/* without a limit, it was started before its owner had a quota */
	return session->size_limit == SIZE_UNLIMITED ? 0 : session->size_limit;
}

/* Is the chunk exactly the part that it touches? */
static bool
is_touched_part(const RuleContext *context, const Part *chunk)
{
	return context->touches_part && context->touched.offset == chunk->offset &&
		context->touched.length == chunk->length;
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

/* Mark a session with parts or leases, which older libraries must not judge. */
static void
require_rules_of_1_1(Session *session)
{
	if (session->rules_version < RULES_OF_1_1)
	{
		session->rules_version = RULES_OF_1_1;
		session->changed |= COLUMN_BIT(COLUMN_RULES_VERSION);
	}
}

/* Have the caller write the part that a chunk leaves. */
static void
set_part(Session *session, PartChange change)
{
	session->part_change = change;
	require_rules_of_1_1(session);
}

/* Set who has the lease, and until when; NULL: nobody. */
static void
set_lease(Session *session, text *holder, TimestampTz expires_at, bool requested)
{
	session->lease_holder = holder;
	session->lease_expires_at = expires_at;
	session->lease_requested = requested;
	session->changed |= LEASE_COLUMNS;
}

static TimestampTz
add_interval(TimestampTz when, const Interval *interval)
{
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												   TimestampTzGetDatum(when),
												   IntervalPGetDatum(interval)));
}

/*
 * Return the deadline, with its slack, of a session that is active now.  It is
 * never beyond end_by, which is EXPIRES_NEVER, the greatest value, if null.
 */
static TimestampTz
deadline_with_slack(const Session *session, TimestampTz promised)
{
	Datum		slack = DirectFunctionCall2(interval_div,
											IntervalPGetDatum(session->ttl),
											Float8GetDatum(SLACK_DIVISOR));

	return Min(add_interval(promised, DatumGetIntervalP(slack)),
			   session->end_by);
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
		if (session->expires_at < Min(promised, session->end_by))
			set_expires_at(session, deadline_with_slack(session, promised));
	}
}

/* End a session.  From now on expires_at is the end of its retention. */
static void
end_session(Session *session, SessionStatus status, const RuleContext *context)
{
	Assert(status_is_live(session->status) && !status_is_live(status));
	if (session->lease_holder != NULL)
		set_lease(session, NULL, EXPIRES_NEVER, false);
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

/* Is this more than the session may ever hold? */
static bool
exceeds_limit(const Session *session, int64 bytes)
{
	return session->size_limit != SIZE_UNLIMITED && bytes > session->size_limit;
}

/*
 * Does a total size exceed the session's limit, or that of its owner if the session
 * has none?  If so, note it.
 */
static bool
exceeds_size_limit(Session *session, int64 total_size, const RuleContext *context)
{
	int64		limit = session->size_limit != SIZE_UNLIMITED ?
		session->size_limit : context->quota.max_upload_size;

	if (total_size == SIZE_DEFERRED || limit == LIMIT_NONE || total_size <= limit)
		return false;
	session->exceeded = (ExceededLimit) {
		.kind = limit == context->quota.max_upload_size ?
			LIMIT_UPLOAD_SIZE : LIMIT_SIZE,
		.limit = limit,
		.requested = total_size,
	};
	return true;
}

/*
 * Would some more bytes, which may be LIMIT_NONE, exceed what the owner's live
 * sessions may be promised?  If so, note it.
 */
static bool
exceeds_live_bytes(Session *session, int64 bytes, const RuleContext *context)
{
	int64		limit = context->quota.max_live_bytes;
	int64		used = context->quota.usage.live_bytes;

	if (limit == LIMIT_NONE ||
		(bytes != LIMIT_NONE && used <= limit && bytes <= limit - used))
		return false;
	session->exceeded = (ExceededLimit) {
		.kind = LIMIT_LIVE_BYTES,
		.limit = limit,
		.used = used,
		.requested = bytes,
	};
	return true;
}

/* Would one more live session exceed the owner's quota?  If so, note it. */
static bool
exceeds_live_uploads(Session *session, const RuleContext *context)
{
	int64		limit = context->quota.max_live_uploads;

	if (limit == LIMIT_NONE || context->quota.usage.live_uploads < limit)
		return false;
	session->exceeded = (ExceededLimit) {
		.kind = LIMIT_LIVE_UPLOADS,
		.limit = limit,
		.used = context->quota.usage.live_uploads,
		.requested = 1,
	};
	return true;
}

/* Return the lesser one of two limits. */
int64
lesser_limit(int64 a, int64 b)
{
	StaticAssertStmt(SIZE_UNLIMITED == LIMIT_NONE, "both stand for no limit");
	if (a == LIMIT_NONE || b == LIMIT_NONE)
		return Max(a, b);
	return Min(a, b);
}

/*
 * Complete a session that does so by itself, once all its bytes are there.
 * Returns whether that was done.
 */
static bool
auto_complete(Session *session, const RuleContext *context)
{
	if (!session->auto_complete ||
		session->uploaded_bytes != session->total_size)
		return false;
	end_session(session, STATUS_COMPLETE, context);
	return true;
}

/* Start a session, whose other fields the caller has set. */
Outcome
session_start(Session *session, const Request *request,
			  const RuleContext *context)
{
	session->size_limit = lesser_limit(session->size_limit,
									   context->quota.max_upload_size);
	session->status = STATUS_PENDING;
	session->uploaded_bytes = 0;
	session->created_at = context->now;
	session->updated_at = context->now;
	session->end_by = request->max_age == NULL ? EXPIRES_NEVER :
		add_interval(context->now, request->max_age);
	session->expires_at = session->ttl == NULL ? session->end_by :
		deadline_with_slack(session, add_interval(context->now, session->ttl));
	session->notified_at = EXPIRES_NEVER;
	session->lease_expires_at = EXPIRES_NEVER;
	session->rules_version =
		session->any_order || session->auto_complete || session->partial ||
		session->end_by != EXPIRES_NEVER ||
		session->size_limit != SIZE_UNLIMITED ||
		context->quota.is_counted ? RULES_OF_1_1 : RULES_OF_1_0;
	if (exceeds_size_limit(session, session->total_size, context))
		return OUTCOME_QUOTA_EXCEEDED;
	if (session->concatenated_from != NULL)
	{
		/* all its bytes are there, and it is never live */
		session->uploaded_bytes = session->total_size;
		end_session(session, STATUS_COMPLETE, context);
		return OUTCOME_OK;
	}
	if (exceeds_live_uploads(session, context) ||
		exceeds_live_bytes(session, session->total_size != SIZE_DEFERRED ?
						   session->total_size : session->size_limit, context))
		return OUTCOME_QUOTA_EXCEEDED;
	(void) auto_complete(session, context);
	return OUTCOME_OK;
}

/* What have the rules of a session to know of its parts? */
PartsNeeded
parts_needed(Rule rule, const Session *session, const Request *request,
			 TimestampTz now)
{
	PartsNeeded needed = {0};
	int64		end = request->chunk.offset + request->chunk.length;

	if (!session_is_known(session) || !status_is_live(session->status) ||
		is_overdue(session, now))
		return needed;

	if (rule == session_advance && request->chunk.length > 0 &&
		(session->any_order ||
		 (end <= session->uploaded_bytes &&
		  (request->chunk.etag != NULL || request->chunk.checksum != NULL))))
		needed.touched_before = end;
	if (session->any_order &&
		((rule == session_advance && request->final) ||
		 (rule == session_declare_size && session->total_size == SIZE_DEFERRED)))
		needed.end = true;
	return needed;
}

/* Judge a chunk of a session that takes them in order. */
static Outcome
check_next_chunk(const Session *session, const Request *request,
				 const RuleContext *context)
{
	int64		end = request->chunk.offset + request->chunk.length;

	/* an empty chunk is not a replay: it slides the deadline */
	if (end <= session->uploaded_bytes &&
		(request->chunk.length > 0 || session->status == STATUS_COMPLETE))
		return is_touched_part(context, &request->chunk) &&
			part_differs(&context->touched, &request->chunk) ?
			OUTCOME_REPLACED : OUTCOME_REPLAYED;
	if (session->status == STATUS_COMPLETE)
		return OUTCOME_ENDED;
	if (request->chunk.offset != session->uploaded_bytes)
		return OUTCOME_CONFLICT;
	if (exceeds_limit(session, end) ||
		(session->total_size != SIZE_DEFERRED && end > session->total_size))
		return OUTCOME_TOO_LARGE;
	if (request->final && end < session->total_size)
		return OUTCOME_INCOMPLETE;
	return OUTCOME_ADVANCED;
}

/* Judge a chunk of a session that takes them in any order. */
static Outcome
check_any_chunk(const Session *session, const Request *request,
				const RuleContext *context)
{
	int64		end = request->chunk.offset + request->chunk.length;

	/* all bytes of a complete session are confirmed */
	if (session->status == STATUS_COMPLETE)
		return end <= session->uploaded_bytes ? OUTCOME_REPLAYED : OUTCOME_ENDED;
	if (exceeds_limit(session, end) ||
		(session->total_size != SIZE_DEFERRED && end > session->total_size) ||
		(request->final && context->parts_end > end))
		return OUTCOME_TOO_LARGE;
	if (request->final && end < session->total_size)
		return OUTCOME_INCOMPLETE;
	if (request->chunk.length == 0 || !context->touches_part)
		return OUTCOME_ADVANCED;
	if (!is_touched_part(context, &request->chunk))
		return OUTCOME_CONFLICT;
	return part_differs(&context->touched, &request->chunk) ?
		OUTCOME_REPLACED : OUTCOME_REPLAYED;
}

/* Judge a chunk; the first condition that applies decides. */
static Outcome
check_chunk_fits(const Session *session, const Request *request,
				 const RuleContext *context)
{
	Outcome		outcome = check_not_ended(session, context->now);

	Assert(request->chunk.offset >= 0 && request->chunk.length >= 0 &&
		   request->chunk.offset <= PG_INT64_MAX - request->chunk.length);
	if (outcome != OUTCOME_OK)
		return outcome;
	if (session->partial && request->final)
		return OUTCOME_PARTIAL;
	if (is_fenced(session, request, context->now))
		return OUTCOME_FENCED;
	return session->any_order ?
		check_any_chunk(session, request, context) :
		check_next_chunk(session, request, context);
}

/* Note that a notification of progress is due, if it is. */
static void
note_progress(Session *session, const RuleContext *context)
{
	if (context->notify_interval < 0 ||
		(session->notified_at != EXPIRES_NEVER &&
		 session->notified_at > context->now - context->notify_interval * INT64CONST(1000)))
		return;
	session->notified_at = context->now;
	session->changed |= COLUMN_BIT(COLUMN_NOTIFIED_AT);
}

/*
 * Confirm a chunk.  With "final", which says where the file ends, the session
 * becomes complete in the same step, if nothing is missing.
 */
Outcome
session_advance(Session *session, const Request *request,
				const RuleContext *context)
{
	Outcome		outcome = check_chunk_fits(session, request, context);

	if (outcome != OUTCOME_ADVANCED && outcome != OUTCOME_REPLACED)
		return outcome;

	merge_provider_data(session, request);
	if (outcome == OUTCOME_REPLACED)
	{
		set_part(session, PART_REPLACED);
		/* in order, "final" is not looked at in a chunk that is there already */
		if (!session->any_order)
		{
			touch(session, context->now);
			return outcome;
		}
	}
	else if (request->chunk.length > 0)
	{
		session->uploaded_bytes += request->chunk.length;
		session->changed |= COLUMN_BIT(COLUMN_UPLOADED_BYTES);
		if (session->any_order || brings_part(request))
			set_part(session, PART_ADDED);
	}
	if (request->final && session->total_size == SIZE_DEFERRED)
		set_total_size(session, request->chunk.offset + request->chunk.length);
	if (request->final && session->uploaded_bytes == session->total_size)
		end_session(session, STATUS_COMPLETE, context);
	else if (!auto_complete(session, context))
	{
		set_status(session, STATUS_IN_PROGRESS);
		touch(session, context->now);
		note_progress(session, context);
	}
	return outcome;
}

/* What has a rule to know of the limits of a session's owner?  Chunks need nothing. */
QuotaNeeded
quota_needed(Rule rule, const Session *session)
{
	if (rule != session_declare_size || session->total_size != SIZE_DEFERRED)
		return QUOTA_NOT_NEEDED;
	/* with a size limit, as many bytes were promised when it was started */
	return session->size_limit == SIZE_UNLIMITED ? QUOTA_USAGE : QUOTA_LIMITS;
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
	if (exceeds_size_limit(session, request->total_size, context))
		return OUTCOME_QUOTA_EXCEEDED;
	if (session->size_limit == SIZE_UNLIMITED &&
		exceeds_live_bytes(session, request->total_size, context))
		return OUTCOME_QUOTA_EXCEEDED;
	if (Max(session->uploaded_bytes, context->parts_end) > request->total_size)
		return OUTCOME_TOO_LARGE;

	set_total_size(session, request->total_size);
	if (!auto_complete(session, context))
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

/* End a partial session, all of whose bytes are confirmed, as a part of another. */
Outcome
session_concatenate(Session *session, const Request *request,
					const RuleContext *context)
{
	Outcome		outcome = check_not_ended(session, context->now);

	if (outcome != OUTCOME_OK)
		return outcome;
	if (!session->partial)
		return OUTCOME_NOT_PARTIAL;
	if (session->status == STATUS_COMPLETE)
		return OUTCOME_ENDED;
	return session_complete(session, request, context);
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

/* ---------- leases ---------- */

/* Give a caller the lease, unless another one has it, which is asked for it then. */
Outcome
session_acquire_lease(Session *session, const Request *request,
					  const RuleContext *context)
{
	TimestampTz expires_at = add_interval(context->now, request->lease_duration);
	bool		is_same = session->lease_holder != NULL &&
		text_equals(session->lease_holder, request->lease_holder);

	if (!session_is_known(session))
		return OUTCOME_ENDED;
	if (!status_is_live(session_shown_status(session, context->now)))
		return OUTCOME_REPLAYED;

	if (request->take_over || !lease_runs(session, context->now))
	{
		session->lease_epoch++;
		session->changed |= COLUMN_BIT(COLUMN_LEASE_EPOCH);
		require_rules_of_1_1(session);
		/* who waits for this holder goes on waiting */
		set_lease(session, request->lease_holder, expires_at,
				  is_same && session->lease_requested);
	}
	else if (is_same)
		set_lease(session, session->lease_holder, expires_at,
				  session->lease_requested);
	else if (!session->lease_requested)
	{
		session->lease_requested = true;
		session->changed |= COLUMN_BIT(COLUMN_LEASE_REQUESTED);
	}
	else
		return OUTCOME_REPLAYED;
	return OUTCOME_OK;
}

/* Extend the lease of an epoch, also after its time has run out. */
Outcome
session_renew_lease(Session *session, const Request *request,
					const RuleContext *context)
{
	if (!session_is_known(session))
		return OUTCOME_ENDED;
	if (!session_holds_lease(session, request, context->now))
		return OUTCOME_REPLAYED;
	set_lease(session, session->lease_holder,
			  add_interval(context->now, request->lease_duration),
			  session->lease_requested);
	return OUTCOME_OK;
}

/* End the lease of an epoch, which stays the current one until the next lease. */
Outcome
session_release_lease(Session *session, const Request *request,
					  const RuleContext *context)
{
	if (!session_is_known(session))
		return OUTCOME_ENDED;
	if (!session_holds_lease(session, request, context->now))
		return OUTCOME_REPLAYED;
	set_lease(session, NULL, EXPIRES_NEVER, false);
	return OUTCOME_OK;
}
