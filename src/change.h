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

/* What a sweep has done to a session. */
typedef enum SweepAction
{
	SWEEP_NOTHING,				/* it is not due, or gone */
	SWEEP_EXPIRED,
	SWEEP_PURGED
} SweepAction;

extern Outcome lock_session(Store *store, const Request *request,
							LockWait wait, Session *session);
extern void write_session(Store *store, Session *session);
extern Outcome change_session(Store *store, Transition rule,
							  const Request *request, LockWait wait,
							  Session *session, TimestampTz *now);
extern bool remove_session(Store *store, const Request *request);
extern SweepAction sweep_session(Store *store, const text *upload_id,
								 TimestampTz purge_until);

#endif							/* VALI_BLOB_CHANGE_H */
