/*-------------------------------------------------------------------------
 *
 * row.h
 *		Between a row of upload_session and a Session.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_ROW_H
#define VALI_BLOB_ROW_H

#include "session.h"

extern const char *column_name(SessionColumn column);
extern Oid	column_type(SessionColumn column);
extern void row_to_session(Datum row, Session *session);
extern Datum session_value(const Session *session, SessionColumn column,
						   bool *is_null);
extern Datum row_with_status(Datum row, SessionStatus status);

#endif							/* VALI_BLOB_ROW_H */
