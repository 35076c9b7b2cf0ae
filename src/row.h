/*-------------------------------------------------------------------------
 *
 * row.h
 *		The columns of upload_session, and conversion between rows and
 *		Sessions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_ROW_H
#define VALI_BLOB_ROW_H

#include "access/tupdesc.h"
#include "fmgr.h"
#include "nodes/execnodes.h"

#include "session.h"

/* What may happen to a column; see column_set(). */
#define COLUMN_NULLABLE	0x01	/* the Session has a value for null */
#define COLUMN_INSERTED	0x02	/* start_upload() sets it */
#define COLUMN_WRITABLE	0x04	/* a change of a session may set it */
#define COLUMN_OPTIONAL	0x08	/* not in every version of the extension */
#define COLUMN_DEFAULTED 0x10	/* start_upload() sets it if it is not the
								 * default: false, 0, null or pending */

extern const char *column_name(SessionColumn column);
extern Oid	column_type(SessionColumn column);
extern Oid	column_argtype(SessionColumn column);
extern int	column_limit(SessionColumn column);
extern ColumnSet column_set(int flag);
extern ColumnSet inserted_columns(const Session *session);

/* Where the columns are in a row: attribute indexes, or COLUMN_MISSING */
#define COLUMN_MISSING (-1)

extern void find_columns(TupleDesc desc, int *map);

extern void values_to_session(const Datum *values, const bool *nulls,
							  const int *map, Session *session);
extern Datum session_value(const Session *session, SessionColumn column,
						   bool *is_null);
extern int	session_values(const Session *session, ColumnSet columns,
						   Datum *values, bool *nulls);
extern void row_to_session(Datum row, Session *session);
extern Datum session_row(const Session *session, SessionStatus status);

extern void begin_rows(FunctionCallInfo fcinfo);
extern void put_row(ReturnSetInfo *rsinfo, Datum row);
extern void put_session(ReturnSetInfo *rsinfo, const Session *session,
						SessionStatus status);
extern void put_slot(ReturnSetInfo *rsinfo, TupleTableSlot *slot,
					 const Session *session, SessionStatus status);
extern Datum return_row(FunctionCallInfo fcinfo, Datum row);
extern Datum return_columns(FunctionCallInfo fcinfo, const Datum *values,
							const bool *nulls, int count);

#endif							/* VALI_BLOB_ROW_H */
