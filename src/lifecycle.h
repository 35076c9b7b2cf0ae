/*-------------------------------------------------------------------------
 *
 * lifecycle.h
 *		The rules of an upload session.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_LIFECYCLE_H
#define VALI_BLOB_LIFECYCLE_H

#include "session.h"

extern bool status_is_live(SessionStatus status);
extern SessionStatus session_shown_status(const Session *session,
										  TimestampTz now);
extern bool session_is_ready(const Session *session, TimestampTz now);
extern bool session_is_purgeable(const Session *session, TimestampTz now);
extern bool session_belongs_to(const Session *session, const text *owner);
extern bool session_is_orphaning(SessionStatus before, const Session *session);

/* rules */
extern Outcome session_start(Session *session, const Request *request,
							 const RuleContext *context);
extern Outcome session_advance(Session *session, const Request *request,
							   const RuleContext *context);
extern Outcome session_declare_size(Session *session, const Request *request,
									const RuleContext *context);
extern Outcome session_merge(Session *session, const Request *request,
							 const RuleContext *context);
extern Outcome session_complete(Session *session, const Request *request,
								const RuleContext *context);
extern Outcome session_abort(Session *session, const Request *request,
							 const RuleContext *context);
extern Outcome session_expire(Session *session, const Request *request,
							  const RuleContext *context);

#endif							/* VALI_BLOB_LIFECYCLE_H */
