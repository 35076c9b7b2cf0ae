/*-------------------------------------------------------------------------
 *
 * session.h
 *		The upload session as a C struct, what can be asked of it, and how
 *		the asking can end.
 *
 * These are the words that all parts of the extension share.  A Session is
 * one row of upload_session; the rules (lifecycle.c) change it in memory and
 * note in "changed" which columns the store has to write back.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_SESSION_H
#define VALI_BLOB_SESSION_H

#include "datatype/timestamp.h"

/* In the order of the enum upload_status. */
typedef enum SessionStatus
{
	STATUS_PENDING,
	STATUS_IN_PROGRESS,
	STATUS_COMPLETE,
	STATUS_ABORTED,
	STATUS_EXPIRED,
	STATUS_OTHER				/* one that a later version has added */
} SessionStatus;

#define STATUS_COUNT (STATUS_EXPIRED + 1)

/*
 * How a request to a session ends.  The first OUTCOME_COUNT of them are the
 * enum chunk_outcome, in its order; a request that is no chunk uses
 * OUTCOME_ADVANCED for "done".
 */
typedef enum Outcome
{
	OUTCOME_ADVANCED,
	OUTCOME_REPLAYED,
	OUTCOME_CONFLICT,
	OUTCOME_TOO_LARGE,
	OUTCOME_INCOMPLETE,
	OUTCOME_ENDED,
	OUTCOME_EXPIRED,
	OUTCOME_NOT_FOUND,
	OUTCOME_LOCKED,
	OUTCOME_SIZE_MISMATCH
} Outcome;

#define OUTCOME_COUNT (OUTCOME_LOCKED + 1)

/* The columns of upload_session, in no particular order. */
typedef enum SessionColumn
{
	COLUMN_ID,
	COLUMN_UPLOAD_ID,
	COLUMN_OWNER,
	COLUMN_BUCKET,
	COLUMN_PATH,
	COLUMN_TOTAL_SIZE,
	COLUMN_UPLOADED_BYTES,
	COLUMN_STATUS,
	COLUMN_CONTENT_TYPE,
	COLUMN_METADATA,
	COLUMN_PROVIDER_DATA,
	COLUMN_RESULT,
	COLUMN_ABORT_REASON,
	COLUMN_TTL,
	COLUMN_CREATED_AT,
	COLUMN_UPDATED_AT,
	COLUMN_EXPIRES_AT
} SessionColumn;

#define COLUMN_COUNT (COLUMN_EXPIRES_AT + 1)
#define COLUMN_BIT(column) (((uint32) 1) << (column))

/* A total_size that is null: the length of the file is not known yet. */
#define SIZE_DEFERRED (-1)

/* An expires_at that is null: the sweep never touches the row. */
#define EXPIRES_NEVER DT_NOEND

/* One row; a null pointer is a null value, JSON values may be toasted. */
typedef struct Session
{
	int64		id;
	text	   *upload_id;
	text	   *owner;
	text	   *bucket;
	text	   *path;
	text	   *content_type;
	int64		total_size;
	int64		uploaded_bytes;
	SessionStatus status;
	Oid			other_status;	/* the label, where it is STATUS_OTHER */
	struct varlena *metadata;
	struct varlena *provider_data;
	struct varlena *result;
	text	   *abort_reason;
	Interval   *ttl;
	TimestampTz created_at;
	TimestampTz updated_at;
	TimestampTz expires_at;

	uint32		changed;		/* COLUMN_BITs that differ from the row */
	bool		died;			/* this change made it aborted or expired */
	Datum		row;			/* the row itself, as stored */
} Session;

/* What a caller asks; each request reads the fields that it is about. */
typedef struct Request
{
	text	   *upload_id;
	text	   *owner;			/* NULL: whoever owns it */
	int64		chunk_offset;
	int64		chunk_length;
	bool		final;
	int64		total_size;
	struct varlena *metadata;
	struct varlena *provider_data;
	struct varlena *result;
	text	   *reason;
} Request;

/* A rule: judges a request to a locked session, and changes it if allowed. */
typedef Outcome (*Transition) (Session *session, const Request *request,
							   TimestampTz now);

#endif							/* VALI_BLOB_SESSION_H */
