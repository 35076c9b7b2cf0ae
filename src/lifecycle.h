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

/* questions */
extern bool status_is_live(SessionStatus status);
extern bool session_is_live(const Session *session);
extern bool session_is_ready(const Session *session, TimestampTz now);
extern bool session_is_purgeable(const Session *session, TimestampTz now);
extern bool session_belongs_to(const Session *session, const text *owner);
extern SessionStatus session_shown_status(const Session *session,
										  TimestampTz now);

/* transitions */
extern void session_start(Session *session, TimestampTz now);
extern Outcome session_advance(Session *session, const Request *request,
							   TimestampTz now);
extern Outcome session_declare_size(Session *session, const Request *request,
									TimestampTz now);
extern Outcome session_merge(Session *session, const Request *request,
							 TimestampTz now);
extern Outcome session_complete(Session *session, const Request *request,
								TimestampTz now);
extern Outcome session_abort(Session *session, const Request *request,
							 TimestampTz now);
extern bool session_expire(Session *session, TimestampTz now);

#endif							/* VALI_BLOB_LIFECYCLE_H */
