/*-------------------------------------------------------------------------
 *
 * count.h
 *		How many sessions there are of each status.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_COUNT_H
#define VALI_BLOB_COUNT_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "utils/relcache.h"

/* The sessions of one status */
typedef struct StatusCount
{
	Datum		status;			/* a label of upload_status */
	int64		sessions;
	int64		bytes;
	bool		has_deadline;
	TimestampTz first_expires_at;
	bool		is_live;
} StatusCount;

typedef struct SessionCount
{
	List	   *ended;			/* of StatusCount */
	TimestampTz ended_at;		/* when they were counted */
	bool		is_ended_exact;
	List	   *live;
	TimestampTz live_at;
	bool		is_live_exact;
} SessionCount;

extern void count_sessions(Relation sessions, bool exact, SessionCount *result);

#endif							/* VALI_BLOB_COUNT_H */
