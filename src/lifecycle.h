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

/* The columns that say who has the lease of a session, if anybody has */
#define LEASE_COLUMNS \
	(COLUMN_BIT(COLUMN_LEASE_HOLDER) | COLUMN_BIT(COLUMN_LEASE_EXPIRES_AT) | \
	 COLUMN_BIT(COLUMN_LEASE_REQUESTED))

/* The columns that session_expire() changes */
#define EXPIRY_COLUMNS \
	(COLUMN_BIT(COLUMN_STATUS) | COLUMN_BIT(COLUMN_UPDATED_AT) | \
	 COLUMN_BIT(COLUMN_EXPIRES_AT) | LEASE_COLUMNS)

extern bool status_is_live(SessionStatus status);
extern SessionStatus session_shown_status(const Session *session,
										  TimestampTz now);
extern bool session_is_ready(const Session *session, TimestampTz now);
extern bool session_is_purgeable(const Session *session, TimestampTz now);
extern bool session_is_owned_by(const Session *session, const text *owner);
extern bool session_belongs_to(const Session *session, const text *owner);
extern bool session_orphans_storage(const Session *before,
									const Session *after);

/* What a rule has to know of a session's parts */
typedef struct PartsNeeded
{
	int64		touched_before; /* the last part that begins before this; 0: none */
	bool		end;			/* where the last part ends */
} PartsNeeded;

extern PartsNeeded parts_needed(Rule rule, const Session *session,
								const Request *request, TimestampTz now);
extern bool brings_part(const Request *request);
extern int64 session_promised_bytes(const Session *session);
extern bool session_holds_lease(const Session *session, const Request *request,
								TimestampTz now);

extern int64 lesser_limit(int64 a, int64 b);

/* What a rule has to know of the limits of a session's owner */
typedef enum QuotaNeeded
{
	QUOTA_NOT_NEEDED,
	QUOTA_LIMITS,
	QUOTA_USAGE					/* also what the owner's live sessions use */
} QuotaNeeded;

extern QuotaNeeded quota_needed(Rule rule, const Session *session);
extern const char *concatenation_difference(const Session *session,
											const Session *wanted);
extern const char *session_difference(const Session *session,
									  const Session *wanted);

/* rules */
extern Outcome session_concatenate(Session *session, const Request *request,
								   const RuleContext *context);
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
extern Outcome session_acquire_lease(Session *session, const Request *request,
									 const RuleContext *context);
extern Outcome session_renew_lease(Session *session, const Request *request,
								   const RuleContext *context);
extern Outcome session_release_lease(Session *session, const Request *request,
									 const RuleContext *context);
extern Outcome session_expire(Session *session, const Request *request,
							  const RuleContext *context);

#endif							/* VALI_BLOB_LIFECYCLE_H */
