/*-------------------------------------------------------------------------
 *
 * change.h
 *		Changes of upload sessions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_CHANGE_H
#define VALI_BLOB_CHANGE_H

#include "store.h"

/* A session that is locked, and may be changed several times before a write. */
typedef struct LockedSession
{
	Session		session;
	Session		before;			/* as stored */
	RuleContext context;		/* of the rule applied last */
} LockedSession;

extern Outcome lock_session(Store *store, const Request *request,
							LockWait wait, LockedSession *locked);
extern Outcome apply_rule(Store *store, LockedSession *locked, Rule rule,
						  const Request *request);
extern void write_session(Store *store, LockedSession *locked,
						  const Request *request);

extern Outcome start_session(Store *store, Session *session,
							 const Request *request);
extern Datum start_or_resume_session(Store *store, Session *session,
									 const Request *request);
extern Datum concatenate_sessions(Store *store, Session *whole,
								  const Request *request,
								  const Request *parts, int count);
extern Outcome change_session(Store *store, Rule rule, const Request *request,
							  LockWait wait, LockedSession *locked);
extern bool remove_session(Store *store, const Request *request);
extern bool expire_session(Store *store, const text *upload_id);
extern bool purge_session(Store *store, const text *upload_id,
						  TimestampTz due_at);

#endif							/* VALI_BLOB_CHANGE_H */
