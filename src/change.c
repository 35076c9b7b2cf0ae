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

#include "utils/timestamp.h"

#include "change.h"
#include "errors.h"
#include "lifecycle.h"
#include "reclaim.h"
#include "settings.h"

/* Return what the rules depend on, as it is now. */
static RuleContext
current_context(void)
{
	RuleContext context = {
		.now = GetCurrentTimestamp(),
		.retention = retention_setting,
	};

	return context;
}

/* Do what follows from a change that was written. */
static void
after_change(Store *store, SessionStatus before, const Session *session)
{
	if (session_is_orphaning(before, session))
		enqueue_reclaim(store, session);
}

/*
 * Find the session of a request and lock it; OUTCOME_ADVANCED if that was done.
 * A session of another owner is not found, whether it is locked or not.
 */
Outcome
lock_session(Store *store, const Request *request, LockWait wait,
			 LockedSession *locked)
{
	Session    *session = &locked->session;
	Outcome		outcome = OUTCOME_ADVANCED;

	switch (store_lock(store, request->upload_id, wait, session))
	{
		case LOCK_TAKEN:
			break;
		case LOCK_MISSING:
			return OUTCOME_NOT_FOUND;
		case LOCK_HELD:
			/* read it without a lock, only to check the owner */
			if (request->owner != NULL &&
				!store_read_latest(store, request->upload_id, session))
				return OUTCOME_NOT_FOUND;
			outcome = OUTCOME_LOCKED;
			break;
	}
	if (request->owner != NULL && !session_belongs_to(session, request->owner))
		return OUTCOME_NOT_FOUND;
	locked->before = session->status;
	return outcome;
}

/* Apply a rule to a locked session, in memory. */
Outcome
apply_rule(LockedSession *locked, Rule rule, const Request *request)
{
	locked->context = current_context();
	return rule(&locked->session, request, &locked->context);
}

/* Write a locked session that rules have changed. */
void
write_session(Store *store, LockedSession *locked)
{
	store_update(store, &locked->session);
	after_change(store, locked->before, &locked->session);
}

/* Start a session, whose fields the caller has set. */
void
start_session(Store *store, Session *session)
{
	RuleContext context = current_context();

	(void) session_start(session, NULL, &context);
	store_insert(store, session);
}

/*
 * Find the session of a request, lock it, apply a rule, and write it if the rule
 * has changed it.
 */
Outcome
change_session(Store *store, Rule rule, const Request *request, LockWait wait,
			   LockedSession *locked)
{
	Outcome		outcome = lock_session(store, request, wait, locked);

	if (outcome == OUTCOME_ADVANCED)
		outcome = apply_rule(locked, rule, request);
	if (outcome == OUTCOME_ADVANCED)
		write_session(store, locked);
	return outcome;
}

/* Delete a session; false if there is none. */
bool
remove_session(Store *store, const Request *request)
{
	LockedSession locked;

	if (lock_session(store, request, LOCK_WAIT, &locked) != OUTCOME_ADVANCED)
		return false;
	if (locked.session.status == STATUS_OTHER)
		report_outcome(OUTCOME_ENDED, &locked.session, request);

	/*
	 * End a live one first, so that its storage is reclaimed.  Both rules see
	 * the same clock: a deadline that passes between them would be missed.
	 */
	locked.context = current_context();
	if (session_expire(&locked.session, request, &locked.context) == OUTCOME_ADVANCED ||
		session_abort(&locked.session, request, &locked.context) == OUTCOME_ADVANCED)
		write_session(store, &locked);
	store_delete(store, &locked.session);
	return true;
}

/*
 * Expire a session that is overdue, or else purge one whose retention had passed
 * at a point in time.
 */
SweepAction
sweep_session(Store *store, const text *upload_id, bool expire,
			  TimestampTz due_at)
{
	Request		request = {.upload_id = unconstify(text *, upload_id)};
	LockedSession locked;

	if (lock_session(store, &request, LOCK_SKIP, &locked) != OUTCOME_ADVANCED)
		return SWEEP_NOTHING;
	if (!expire)
	{
		if (!session_is_purgeable(&locked.session, due_at))
			return SWEEP_NOTHING;
		store_delete(store, &locked.session);
		return SWEEP_PURGED;
	}
	if (apply_rule(&locked, session_expire, &request) != OUTCOME_ADVANCED)
		return SWEEP_NOTHING;
	write_session(store, &locked);
	return SWEEP_EXPIRED;
}
