/*-------------------------------------------------------------------------
 *
 * result_type.h
 *		The composite types that functions return: chunk_result, upload_lease.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_RESULT_TYPE_H
#define VALI_BLOB_RESULT_TYPE_H

#include "access/htup.h"
#include "access/htup_details.h"
#include "access/tupdesc.h"

#include "session.h"

#define MAX_RESULT_ATTRIBUTES 8

/* What is known of a type, and where its attributes were found last */
typedef struct ResultRowType
{
	const char *name;
	int			count;
	struct
	{
		const char *name;
		Oid			type;		/* InvalidOid: one of our enums */
	}			attributes[MAX_RESULT_ATTRIBUTES];
	int			map[MAX_RESULT_ATTRIBUTES];
	uint64		map_version;	/* 0: the map is not valid */
} ResultRowType;

/* A type as it was when a call began */
typedef struct OpenResultType
{
	TupleDesc	desc;
	int			map[MAX_RESULT_ATTRIBUTES];
} OpenResultType;

/* A value of the type, under construction */
typedef struct ResultRow
{
	const OpenResultType *type;
	Datum		values[MaxTupleAttributeNumber];
	bool		nulls[MaxTupleAttributeNumber];
} ResultRow;

extern OpenResultType open_result_type(ResultRowType *type, Oid oid);
extern void close_result_type(const OpenResultType *type);
extern void begin_result(const OpenResultType *type, ResultRow *row);
extern void set_attribute(ResultRow *row, int attribute, Datum value);
extern HeapTuple form_result(ResultRow *row);
extern Datum shown_status_datum(const Session *session, TimestampTz now);

#endif							/* VALI_BLOB_RESULT_TYPE_H */
