/*-------------------------------------------------------------------------
 *
 * errors.h
 *		The SQLSTATEs of class VB, and outcomes as errors.
 *
 * Programs branch on these codes: they never change their meaning.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_ERRORS_H
#define VALI_BLOB_ERRORS_H

#include "utils/errcodes.h"

#include "compat.h"
#include "session.h"

#define ERRCODE_UPLOAD_NOT_FOUND		MAKE_SQLSTATE('V', 'B', '0', '0', '1')
#define ERRCODE_UPLOAD_OFFSET_CONFLICT	MAKE_SQLSTATE('V', 'B', '0', '0', '2')
#define ERRCODE_UPLOAD_ENDED			MAKE_SQLSTATE('V', 'B', '0', '0', '3')
#define ERRCODE_UPLOAD_EXPIRED			MAKE_SQLSTATE('V', 'B', '0', '0', '4')
#define ERRCODE_UPLOAD_TOO_LARGE		MAKE_SQLSTATE('V', 'B', '0', '0', '5')
#define ERRCODE_UPLOAD_INCOMPLETE		MAKE_SQLSTATE('V', 'B', '0', '0', '6')
#define ERRCODE_UPLOAD_SIZE_MISMATCH	MAKE_SQLSTATE('V', 'B', '0', '0', '7')
#define ERRCODE_UPLOAD_FENCED			MAKE_SQLSTATE('V', 'B', '0', '0', '8')
#define ERRCODE_UPLOAD_QUOTA_EXCEEDED	MAKE_SQLSTATE('V', 'B', '0', '0', '9')

extern const char *shown_text(const text *value);
extern void copy_clipped(char *buffer, const char *string, size_t size);

/* The context is that of the rule that has judged the request, if one has. */
pg_noreturn extern void report_outcome(Outcome outcome, const Session *session,
									   const Request *request,
									   const RuleContext *context);
pg_noreturn extern void report_difference(const char *argument, const Request *request);
extern void report_unless_done(Outcome outcome, const Session *session,
							   const Request *request,
							   const RuleContext *context);

#endif							/* VALI_BLOB_ERRORS_H */
