/*-------------------------------------------------------------------------
 *
 * change.c
 *		Changes of upload sessions: find and lock the row, apply a rule, write
 *		the row, and do what follows from the change.
 *
 * Every change of a session that exists goes through this file, so that what
 * follows from a change has one place.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "change.h"
#include "errors.h"
#include "json.h"
#include "lifecycle.h"
#include "reclaim.h"

/*
 * Find the session that a request is about and lock it: OUTCOME_ADVANCED if
 * that was done.  A session of another owner is not found, locked or not.
 */
Outcome
lock_session(Store *store, const Request *request, LockWait wait,
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

/* Write a changed session, and do what follows from the change. */
void
write_session(Store *store, Session *session)
{
	/* store_write() makes the session the row as stored */
	bool		needs_reclaim = session->died;

	store_write(store, session);
	if (needs_reclaim && !json_is_empty(session->provider_data))
		enqueue_reclaim(store, session);
}

/*
 * Apply a rule to a session.  "now" is when the rule was applied, for callers
 * that report on the session.
 */
Outcome
change_session(Store *store, Transition rule, const Request *request,
			   LockWait wait, Session *session, TimestampTz *now)
{
	Outcome		outcome = lock_session(store, request, wait, session);

	*now = GetCurrentTimestamp();
	if (outcome == OUTCOME_ADVANCED)
		outcome = rule(session, request, *now);
	if (outcome == OUTCOME_ADVANCED)
		write_session(store, session);
	return outcome;
}

/*
 * Delete a session; false if there is none.  One that is still live is ended
 * first, so that its storage is reclaimed.
 */
bool
remove_session(Store *store, const Request *request)
{
	Session		session;
	TimestampTz now;

	if (lock_session(store, request, LOCK_WAIT, &session) != OUTCOME_ADVANCED)
		return false;
	now = GetCurrentTimestamp();
	if (session.status == STATUS_OTHER)
		raise_outcome(OUTCOME_ENDED, &session, request);
	if (session_expire(&session, now) ||
		session_abort(&session, request, now) == OUTCOME_ADVANCED)
		write_session(store, &session);
	store_delete(store, &session);
	return true;
}

/* Expire a session that is overdue, or purge one that was due at a moment. */
SweepAction
sweep_session(Store *store, const text *upload_id, TimestampTz purge_until)
{
	Session		session;

	if (store_lock(store, upload_id, LOCK_WAIT, &session) != LOCK_TAKEN)
		return SWEEP_NOTHING;
	if (session_is_purgeable(&session, purge_until))
	{
		store_delete(store, &session);
		return SWEEP_PURGED;
	}
	if (session_expire(&session, GetCurrentTimestamp()))
	{
		write_session(store, &session);
		return SWEEP_EXPIRED;
	}
	return SWEEP_NOTHING;
}
