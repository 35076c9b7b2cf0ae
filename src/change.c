/*-------------------------------------------------------------------------
 *
 * change.c
 *		Changes of upload sessions: lock the row, apply a rule, write the row,
 *		and do what follows from the change.
 *
 * Every change of a session goes through this file, so that what follows from a
 * change has one place: after_change().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/int.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/rls.h"
#include "utils/timestamp.h"

#include "arguments.h"
#include "catalog.h"
#include "change.h"
#include "errors.h"
#include "lifecycle.h"
#include "notify.h"
#include "part_store.h"
#include "quota_store.h"
#include "reclaim.h"
#include "row.h"
#include "settings.h"
#include "statement.h"

static const Quota no_quota = {
	.max_upload_size = LIMIT_NONE,
	.max_live_uploads = LIMIT_NONE,
	.max_live_bytes = LIMIT_NONE,
};

/*
 * Return what the rules depend on, as it is now.  To read the owner's quota may
 * have waited for others.
 */
static RuleContext
current_context(Quota quota)
{
	RuleContext context = {
		.quota = quota,
		.now = GetCurrentTimestamp(),
		.retention = retention_setting,
		.notify_interval = notify_setting == NOTIFY_PROGRESS && has_objects_of_1_1() ?
			notify_interval_setting : -1,
	};

	return context;
}

/*
 * Do what follows from a change that was written.  A session that was inserted
 * has no "before", one that was deleted no "after".
 */
static void
after_change(Store *store, const Session *before, const Session *after)
{
	if (before != NULL && after != NULL)
	{
		if (session_orphans_storage(before, after))
			enqueue_reclaim(store, after, false);
		update_live_row(before, after);
	}
	notify_change(before, after);
}

/*
 * Find the session of a request and lock it.  A session of another owner is not
 * found, whether it is locked or not.
 */
Outcome
lock_session(Store *store, const Request *request, LockWait wait,
			 LockedSession *locked)
{
	Session    *session = &locked->session;

	switch (store_lock(store, request->upload_id, wait, session))
	{
		case LOCK_TAKEN:
			break;
		case LOCK_MISSING:
			return OUTCOME_NOT_FOUND;
		case LOCK_HELD:
			/* read it without a lock, only to check the owner */
			if (request->owner != NULL &&
				!(store_read_latest(store, request->upload_id, session) &&
				  session_belongs_to(session, request->owner)))
				return OUTCOME_NOT_FOUND;
			return OUTCOME_LOCKED;
	}
	if (!session_belongs_to(session, request->owner))
		return OUTCOME_NOT_FOUND;
	locked->before = *session;
	return OUTCOME_OK;
}

/* Find what a rule has to know of the session's parts. */
static void
find_parts(Store *store, LockedSession *locked, Rule rule, const Request *request)
{
	RuleContext *context = &locked->context;
	PartsNeeded needed = parts_needed(rule, &locked->session, request,
									  context->now);
	Part		last;

	if (needed.touched_before > 0)
		context->touches_part =
			part_find_last(store, request->upload_id, needed.touched_before,
						   &context->touched) &&
			context->touched.offset + context->touched.length > request->chunk.offset;
	if (needed.end &&
		part_find_last(store, request->upload_id, PG_INT64_MAX, &last))
		context->parts_end = last.offset + last.length;
}

/* Return what a rule has to know of the limits of the session's owner. */
static Quota
find_quota(const Session *session, Rule rule)
{
	switch (quota_needed(rule, session))
	{
		case QUOTA_NOT_NEEDED:
			break;
		case QUOTA_LIMITS:
			return quota_read(session->owner, true);
		case QUOTA_USAGE:
			return quota_claim(session->owner);
	}
	return no_quota;
}

/*
 * Apply a rule.  Before it refuses what would exceed a limit, what its owner's
 * sessions use is verified.
 */
static Outcome
apply_rule_verified(Rule rule, Session *session, const Request *request, RuleContext *context)
{
	Outcome		outcome = rule(session, request, context);

	if (outcome == OUTCOME_QUOTA_EXCEEDED && session->exceeded.used > 0)
	{
		context->quota.usage = quota_verify_usage(session->owner);
		outcome = rule(session, request, context);
	}
	return outcome;
}

/* Apply a rule to a locked session, in memory. */
Outcome
apply_rule(Store *store, LockedSession *locked, Rule rule, const Request *request)
{
	Quota		quota = find_quota(&locked->session, rule);

	locked->context = current_context(quota);
	find_parts(store, locked, rule, request);
	return apply_rule_verified(rule, &locked->session, request, &locked->context);
}

/*
 * Write a locked session that rules have changed, and the part that the last
 * request leaves.
 */
void
write_session(Store *store, LockedSession *locked, const Request *request)
{
	Session    *session = &locked->session;
	PartChange	part_change = session->part_change;

	store_update(store, session);
	if (part_change != PART_UNCHANGED)
		part_write(store, part_change, request->upload_id, &request->chunk);
	session->part_change = PART_UNCHANGED;
	after_change(store, &locked->before, session);
	locked->before = *session;
}

/* Might a privilege or a policy keep the caller from inserting a session? */
static bool
may_not_insert(void)
{
	Oid			relid = catalog_get()->tables[TABLE_SESSION];

	return pg_class_aclcheck(relid, GetUserId(), ACL_INSERT) != ACLCHECK_OK ||
		check_enable_rls(relid, InvalidOid, true) == RLS_ENABLED;
}

/* Report a session that counts for nobody whose limits were looked at. */
pg_noreturn static void
report_changed_owner(const Session *session)
{
	ereport(ERROR,
			(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
			 errmsg("could not start upload \"%s\"", shown_text(session->upload_id)),
			 errdetail("A trigger on table \"%s\" changed the owner, whose uploads are limited.",
					   table_name(TABLE_SESSION))));
}

/* Start a session, whose fields the caller has set. */
Outcome
start_session(Store *store, Session *session, const Request *request)
{
	/* one that is concatenated is never live; and other sessions are locked already */
	Quota		quota = session->concatenated_from != NULL ?
		quota_read(session->owner, true) : quota_claim(session->owner);
	RuleContext context = current_context(quota);
	Outcome		outcome = apply_rule_verified(session_start, session, request,
											  &context);
	const text *owner = session->owner;

	if (outcome == OUTCOME_OK)
	{
		store_insert(store, session);
		if (quota.is_counted && status_is_live(session->status))
		{
			/* a trigger may have changed the owner, whose limits these are */
			if (!session_is_owned_by(session, owner))
				report_changed_owner(session);
			insert_live_row(session);
		}
		after_change(store, NULL, session);
	}
	else if (may_not_insert())
	{
		/* then what the owner uses is not the caller's to know */
		Session		refused = *session;

		store_insert(store, &refused);
	}
	return outcome;
}

/* How often to try to start a session that others start and delete meanwhile */
#define MAX_START_ATTEMPTS 10

/* A session to start in a subtransaction */
typedef struct StartTask
{
	Session		session;
	const Request *request;
	Datum		row;
} StartTask;

/* Start it, with a store of its own, whose resources belong to the subtransaction. */
static void
start_in_subtransaction(void *argument)
{
	StartTask  *task = argument;
	Store	   *store = store_open(RowExclusiveLock);

	report_unless_done(start_session(store, &task->session, task->request),
					   &task->session, task->request, NULL);
	task->row = store_row(store, &task->session);
	store_close(store);
}

/*
 * Start a session, or find the one that was started by the same call before.
 * Returns the row; an overdue one is shown as readers show it.
 */
Datum
start_or_resume_session(Store *store, Session *session, const Request *request)
{
	Session		found;
	ErrorData  *error = NULL;
	const char *difference;

	for (int attempts = 0;; attempts++)
	{
		StartTask	task = {.session = *session, .request = request};

		if (store_read_latest(store, request->upload_id, &found))
			break;
		/* what was started since our snapshot was taken, we do not see */
		if (error != NULL && IsolationUsesXactSnapshot() &&
			store_exists(store, request->upload_id))
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("could not serialize access due to concurrent start of upload \"%s\"",
							shown_text(request->upload_id)),
					 errhint("The transaction might succeed if retried.")));
		/*
		 * It was deleted meanwhile; or a policy hides it, and always will.  A limit
		 * that it has reached would refuse it again.
		 */
		if (error != NULL &&
			(attempts == MAX_START_ATTEMPTS || !is_duplicate_upload_id(error)))
			ReThrowError(error);
		error = in_subtransaction(start_in_subtransaction, &task);
		if (error == NULL)
			return task.row;
		/* with an owner's last upload, it may be the same call that has reached a limit */
		if (!is_duplicate_upload_id(error) &&
			error->sqlerrcode != ERRCODE_UPLOAD_QUOTA_EXCEEDED)
			ReThrowError(error);
	}
	difference = session_difference(&found, session);
	if (difference != NULL)
		report_difference(difference, request);
	return session_row(&found,
					   session_shown_status(&found, GetCurrentTimestamp()));
}

/* Order requests by upload, as all that lock several sessions do. */
static int
compare_requests(const void *a, const void *b)
{
	return compare_upload_ids((*(const Request *const *) a)->upload_id,
							  (*(const Request *const *) b)->upload_id);
}

/* Lock the sessions of some requests.  Returns the outcome of each. */
static Outcome *
lock_in_order(Store *store, const Request *requests, int count)
{
	const Request **sorted = palloc(count * sizeof(Request *));
	Outcome    *outcomes = palloc(count * sizeof(Outcome));
	LockedSession locked;

	for (int i = 0; i < count; i++)
		sorted[i] = &requests[i];
	qsort(sorted, count, sizeof(Request *), compare_requests);
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (i > 0 && compare_requests(&sorted[i - 1], &sorted[i]) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"upload_ids\" must not contain upload \"%s\" twice",
							shown_text(sorted[i]->upload_id)),
					 errhint("The bytes of an upload can be used once.")));
		outcomes[sorted[i] - requests] = lock_session(store, sorted[i], LOCK_WAIT,
													  &locked);
	}
	return outcomes;
}

/*
 * Start a session that is complete at once, and has the bytes of partial ones, which
 * end with it.  Returns its row, or that of the same call before.
 */
Datum
concatenate_sessions(Store *store, Session *whole, const Request *request,
					 const Request *parts, int count)
{
	Outcome    *outcomes = lock_in_order(store, parts, count);
	Session		found;

	/* the same call may have come through while we waited for the locks */
	if (store_read_latest(store, request->upload_id, &found))
	{
		const char *difference = concatenation_difference(&found, whole);

		if (difference != NULL)
			report_difference(difference, request);
		return session_row(&found, found.status);
	}

	whole->total_size = 0;
	for (int i = 0; i < count; i++)
	{
		LockedSession locked;
		Outcome		outcome = outcomes[i];

		/* again, to have its row; not one that has appeared since */
		if (outcome == OUTCOME_OK)
			outcome = lock_session(store, &parts[i], LOCK_WAIT, &locked);
		if (outcome == OUTCOME_OK)
			outcome = apply_rule(store, &locked, session_concatenate, &parts[i]);
		if (outcome != OUTCOME_OK)
			report_outcome(outcome, &locked.session, &parts[i], &locked.context);
		write_session(store, &locked, &parts[i]);
		if (pg_add_s64_overflow(whole->total_size, locked.session.total_size,
								&whole->total_size))
			ereport(ERROR,
					(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
					 errmsg("upload \"%s\" would have more bytes than a bigint can count",
							shown_text(request->upload_id)),
					 errhint("Concatenate fewer uploads.")));
	}
	report_unless_done(start_session(store, whole, request), whole, request, NULL);
	return store_row(store, whole);
}

/*
 * Lock the owner of a session, if a rule has to know what the owner's sessions use.
 * An owner is locked before its sessions, see quota_store.c.
 */
static void
lock_owner(Store *store, Rule rule, const Request *request)
{
	Session		session;

	if (store_read_latest(store, request->upload_id, &session) &&
		session_belongs_to(&session, request->owner) &&
		status_is_live(session.status) &&
		quota_needed(rule, &session) == QUOTA_USAGE)
		(void) quota_claim(session.owner);
}

/*
 * Find the session of a request, lock it, apply a rule, and write it if the rule
 * has changed it.
 */
Outcome
change_session(Store *store, Rule rule, const Request *request, LockWait wait,
			   LockedSession *locked)
{
	Outcome		outcome;

	if (rule == session_declare_size)
		lock_owner(store, rule, request);
	outcome = lock_session(store, request, wait, locked);
	if (outcome == OUTCOME_OK)
		outcome = apply_rule(store, locked, rule, request);
	if (outcome == OUTCOME_OK || outcome == OUTCOME_REPLACED)
		write_session(store, locked, request);
	return outcome;
}

/* Delete the session of a request; false if there is none. */
bool
remove_session(Store *store, const Request *request)
{
	LockedSession locked;

	if (lock_session(store, request, LOCK_WAIT, &locked) != OUTCOME_OK)
		return false;
	if (!session_is_known(&locked.session))
		report_outcome(OUTCOME_ENDED, &locked.session, request, NULL);

	/*
	 * End a live one first, so that its storage is reclaimed.  Both rules see
	 * the same clock: a deadline that passes between them would be missed.
	 */
	locked.context = current_context(no_quota);
	if (session_expire(&locked.session, request, &locked.context) == OUTCOME_OK ||
		session_abort(&locked.session, request, &locked.context) == OUTCOME_OK)
		write_session(store, &locked, request);
	/* a client asked for the finished file to be removed */
	else if (request->reclaim_complete &&
			 locked.session.status == STATUS_COMPLETE)
		enqueue_reclaim(store, &locked.session, true);
	store_delete(store, &locked.session);
	after_change(store, &locked.before, NULL);
	return true;
}

/*
 * Expire a session that is overdue, unless it is locked.  Returns whether that
 * was done.
 */
bool
expire_session(Store *store, const text *upload_id)
{
	Request		request = {.upload_id = unconstify(text *, upload_id)};
	LockedSession locked;

	if (lock_session(store, &request, LOCK_SKIP, &locked) != OUTCOME_OK ||
		apply_rule(store, &locked, session_expire, &request) != OUTCOME_OK)
		return false;
	Assert((locked.session.changed & ~EXPIRY_COLUMNS) == 0);
	write_session(store, &locked, &request);
	return true;
}

/*
 * Purge a session whose retention had passed at a point in time, unless it is
 * locked.  Returns whether that was done.  It had ended before, so that nothing
 * follows.
 */
bool
purge_session(Store *store, const text *upload_id, TimestampTz due_at)
{
	Request		request = {.upload_id = unconstify(text *, upload_id)};
	LockedSession locked;

	if (lock_session(store, &request, LOCK_SKIP, &locked) != OUTCOME_OK ||
		!session_is_purgeable(&locked.session, due_at))
		return false;
	store_delete(store, &locked.session);
	return true;
}
