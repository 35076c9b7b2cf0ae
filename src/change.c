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

/*
 * Do what follows from a change that was written.  A session that was inserted
 * has no "before", one that was deleted no "after".
 */
static void
after_change(Store *store, const Session *before, const Session *after)
{
	if (before != NULL && after != NULL && session_orphans_storage(before, after))
		enqueue_reclaim(store, after);
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
	after_change(store, &locked->before, &locked->session);
	locked->before = locked->session;
}

/* Delete a locked session. */
static void
delete_session(Store *store, const LockedSession *locked)
{
	store_delete(store, &locked->session);
	after_change(store, &locked->before, NULL);
}

/* Start a session, whose fields the caller has set. */
Outcome
start_session(Store *store, Session *session, const Request *request)
{
	RuleContext context = current_context();
	Outcome		outcome = session_start(session, request, &context);

	if (outcome == OUTCOME_OK)
	{
		store_insert(store, session);
		after_change(store, NULL, session);
	}
	return outcome;
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

	if (outcome == OUTCOME_OK)
		outcome = apply_rule(locked, rule, request);
	if (outcome == OUTCOME_OK)
		write_session(store, locked);
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
		report_outcome(OUTCOME_ENDED, &locked.session, request);

	/*
	 * End a live one first, so that its storage is reclaimed.  Both rules see
	 * the same clock: a deadline that passes between them would be missed.
	 */
	locked.context = current_context();
	if (session_expire(&locked.session, request, &locked.context) == OUTCOME_OK ||
		session_abort(&locked.session, request, &locked.context) == OUTCOME_OK)
		write_session(store, &locked);
	delete_session(store, &locked);
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
		apply_rule(&locked, session_expire, &request) != OUTCOME_OK)
		return false;
	Assert((locked.session.changed & ~EXPIRY_COLUMNS) == 0);
	write_session(store, &locked);
	return true;
}

/*
 * Purge a session whose retention had passed at a point in time, unless it is
 * locked.  Returns whether that was done.
 */
bool
purge_session(Store *store, const text *upload_id, TimestampTz due_at)
{
	Request		request = {.upload_id = unconstify(text *, upload_id)};
	LockedSession locked;

	if (lock_session(store, &request, LOCK_SKIP, &locked) != OUTCOME_OK ||
		!session_is_purgeable(&locked.session, due_at))
		return false;
	delete_session(store, &locked);
	return true;
}
