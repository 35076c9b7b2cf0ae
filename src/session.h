/*-------------------------------------------------------------------------
 *
 * session.h
 *		The upload session as a C struct, requests to it, and their outcomes.
 *
 * These are the terms that all parts of the extension share.  A Session is one
 * row of upload_session.  The rules (lifecycle.c) change it in memory and note
 * in "changed" which columns the store has to write.
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
	STATUS_OTHER				/* a label that this library does not know */
} SessionStatus;

#define STATUS_COUNT (STATUS_EXPIRED + 1)

/*
 * The outcome of a request.  The first OUTCOME_COUNT of them are the enum
 * chunk_outcome, in its order.
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
	OUTCOME_REPLACED,
	OUTCOME_FENCED,
	OUTCOME_PARTIAL,			/* refused as the session is partial */
	OUTCOME_NOT_PARTIAL,
	OUTCOME_SIZE_MISMATCH,
	OUTCOME_QUOTA_EXCEEDED
} Outcome;

#define OUTCOME_COUNT (OUTCOME_FENCED + 1)

/* Nothing stands against a request, or what is not a chunk was done */
#define OUTCOME_OK OUTCOME_ADVANCED

/* The columns of upload_session; row.c has a line for each of them. */
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
	COLUMN_EXPIRES_AT,
	COLUMN_ANY_ORDER,
	COLUMN_AUTO_COMPLETE,
	COLUMN_END_BY,
	COLUMN_SIZE_LIMIT,
	COLUMN_RULES_VERSION,
	COLUMN_LEASE_EPOCH,
	COLUMN_LEASE_HOLDER,
	COLUMN_LEASE_EXPIRES_AT,
	COLUMN_LEASE_REQUESTED,
	COLUMN_NOTIFIED_AT,
	COLUMN_PARTIAL,
	COLUMN_CONCATENATED_FROM
} SessionColumn;

#define COLUMN_COUNT (COLUMN_CONCATENATED_FROM + 1)

/* A set of columns */
typedef uint32 ColumnSet;

#define COLUMN_BIT(column) (((ColumnSet) 1) << (column))
#define ALL_COLUMNS (~(ColumnSet) 0)

StaticAssertDecl(COLUMN_COUNT <= sizeof(ColumnSet) * BITS_PER_BYTE,
				 "ColumnSet has a bit for every column");

/* A total_size that is null: the length of the file is not known yet. */
#define SIZE_DEFERRED (-1)

/* A size_limit that is null */
#define SIZE_UNLIMITED (-1)

/* A limit of an owner that is not set */
#define LIMIT_NONE (-1)

/*
 * The newest rules that this library knows.  A session that needs newer ones has
 * their number in its column rules_version, which a later version of the
 * extension adds: a backend that still has this library must not judge it.
 */
#define RULES_VERSION 1

/*
 * Null, and those of 1.1: any_order, auto_complete, end_by, size_limit, parts,
 * leases, limits of the owner, partial
 */
#define RULES_OF_1_0 (-1)
#define RULES_OF_1_1 1

/* An expires_at that is null: the sweep never acts on the row. */
#define EXPIRES_NEVER DT_NOEND

/* A row of upload_part: a chunk that has left one. */
typedef struct Part
{
	int64		offset;
	int64		length;
	int32		number;			/* 0: null */
	text	   *etag;
	bytea	   *checksum;
} Part;

/* The columns of upload_part; table_info.c has a line for each of them. */
typedef enum PartColumn
{
	PART_UPLOAD_ID,
	PART_CHUNK_OFFSET,
	PART_CHUNK_LENGTH,
	PART_PART_NUMBER,
	PART_ETAG,
	PART_CHECKSUM,
	PART_CONFIRMED_AT
} PartColumn;

#define PART_COLUMN_COUNT (PART_CONFIRMED_AT + 1)

StaticAssertDecl((int) PART_COLUMN_COUNT <= (int) COLUMN_COUNT,
				 "a map of the columns of upload_session has room for them");

typedef enum PartChange
{
	PART_UNCHANGED,
	PART_ADDED,
	PART_REPLACED
} PartChange;

/* Limits that a request may exceed; errors.c has their names. */
typedef enum LimitKind
{
	LIMIT_SIZE,					/* the session's own */
	LIMIT_UPLOAD_SIZE,
	LIMIT_LIVE_UPLOADS,
	LIMIT_LIVE_BYTES
} LimitKind;

typedef struct ExceededLimit
{
	LimitKind	kind;
	int64		limit;
	int64		used;
	int64		requested;		/* LIMIT_NONE: any number */
} ExceededLimit;

/* One row.  A null pointer is a null value; JSON values may be toasted. */
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
	Oid			other_status;	/* the label, if status is STATUS_OTHER */
	struct varlena *metadata;
	struct varlena *provider_data;
	struct varlena *result;
	text	   *abort_reason;
	Interval   *ttl;
	TimestampTz created_at;
	TimestampTz updated_at;
	TimestampTz expires_at;
	bool		any_order;
	bool		auto_complete;
	TimestampTz end_by;			/* EXPIRES_NEVER: null */
	int64		size_limit;
	int64		rules_version;
	int64		lease_epoch;
	text	   *lease_holder;	/* NULL: nobody has the lease */
	TimestampTz lease_expires_at;
	bool		lease_requested;
	TimestampTz notified_at;	/* EXPIRES_NEVER: null */
	bool		partial;
	struct varlena *concatenated_from;	/* a JSON array of upload ids */

	ColumnSet	changed;		/* columns that differ from the stored row */
	PartChange	part_change;	/* what is to be done about the request's part */
	ExceededLimit exceeded;		/* with OUTCOME_QUOTA_EXCEEDED */
	Datum		row;			/* the row as stored, if it came through SQL */
} Session;

/* Does this library know the session's status, and the rules that it needs? */
static inline bool
session_is_known(const Session *session)
{
	return session->status != STATUS_OTHER &&
		session->rules_version <= RULES_VERSION;
}

/* What a caller asks for.  Each rule reads the fields that concern it. */
typedef struct Request
{
	text	   *upload_id;
	text	   *owner;			/* NULL: any */
	Part		chunk;
	bool		final;
	int64		total_size;
	struct varlena *metadata;
	struct varlena *provider_data;
	struct varlena *result;
	text	   *reason;
	Interval   *max_age;
	bool		reclaim_complete;
	bool		has_lease_epoch;
	int64		lease_epoch;
	text	   *lease_holder;
	Interval   *lease_duration;
	bool		take_over;
} Request;

/* What the live sessions of an owner use */
typedef struct Usage
{
	int64		live_uploads;
	int64		live_bytes;		/* promised, see session_promised_bytes() */
	int64		confirmed_bytes;
} Usage;

/* The limits that hold for an owner, each of which may be LIMIT_NONE */
typedef struct Quota
{
	int64		max_upload_size;
	int64		max_live_uploads;
	int64		max_live_bytes;
	bool		is_counted;		/* upload_live has the owner's live sessions */
	bool		is_changing;	/* another transaction is setting the limits */
	Usage		usage;			/* if it was asked for */
} Quota;

/* What a rule depends on besides the session and the request. */
typedef struct RuleContext
{
	TimestampTz now;
	int			retention;		/* vali_blob.retention, in seconds */
	int			notify_interval;	/* between notifications of progress, in
									 * milliseconds; -1: there are none */
	Quota		quota;			/* of the owner, as far as quota_needed() */
	bool		touches_part;	/* what was found for parts_needed() */
	Part		touched;		/* the last part that the chunk overlaps */
	int64		parts_end;		/* where the last part of the session ends */
} RuleContext;

/* A rule: judges a request to a locked session, and changes it if allowed. */
typedef Outcome (*Rule) (Session *session, const Request *request,
						 const RuleContext *context);

/* Whether to wait for a row lock, and what came of it */
typedef enum LockWait
{
	LOCK_WAIT,					/* for other transactions, as long as it takes */
	LOCK_NOWAIT,
	LOCK_SKIP					/* as if a locked row did not exist */
} LockWait;

typedef enum LockResult
{
	LOCK_TAKEN,
	LOCK_MISSING,				/* there is no such row */
	LOCK_HELD					/* by another transaction */
} LockResult;

#endif							/* VALI_BLOB_SESSION_H */
