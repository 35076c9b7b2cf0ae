/*-------------------------------------------------------------------------
 *
 * row.h
 *		Between a row of upload_session and a Session.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_ROW_H
#define VALI_BLOB_ROW_H

#include "access/tupdesc.h"
#include "fmgr.h"
#include "nodes/execnodes.h"

#include "session.h"

extern const char *column_name(SessionColumn column);
extern Oid	column_type(SessionColumn column);
extern void row_to_session(Datum row, Session *session);
extern const int *column_map(Oid row_type, int32 typmod, TupleDesc desc);
extern void values_to_session(const Datum *values, const bool *nulls,
							  const int *map, Session *session);
extern Datum session_value(const Session *session, SessionColumn column,
						   bool *is_null);
extern void session_values(const Session *session,
						   const SessionColumn *columns, int count,
						   Datum *values, bool *nulls);
extern void row_return(ReturnSetInfo *rsinfo, Datum row);
extern Datum row_result(FunctionCallInfo fcinfo, Datum row);
extern Datum row_with_status(Datum row, SessionStatus status);

#endif							/* VALI_BLOB_ROW_H */
