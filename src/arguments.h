/*-------------------------------------------------------------------------
 *
 * arguments.h
 *		Arguments of SQL-callable functions, checked.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_ARGUMENTS_H
#define VALI_BLOB_ARGUMENTS_H

#include "fmgr.h"

#include "session.h"

/* Longer intervals might lead out of the range of timestamps. */
#define MAX_INTERVAL_YEARS 10000

extern void check_unknown_arguments(FunctionCallInfo fcinfo, int known);
extern text *optional_text(FunctionCallInfo fcinfo, int n);
extern text *required_text(FunctionCallInfo fcinfo, int n, const char *name);
extern bool optional_flag(FunctionCallInfo fcinfo, int n);
extern int	compare_with_years(const Interval *interval, int years);
extern char *show_interval(const Interval *interval);
extern int32 positive_count(FunctionCallInfo fcinfo, int n, const char *name);
extern text *checked_owner(FunctionCallInfo fcinfo, int n,
						   const text *upload_id);
extern void require_owner(const text *owner, const text *upload_id);

/* arguments whose errors name the upload that they are for */
extern int64 required_size(FunctionCallInfo fcinfo, int n, const char *name,
						   const text *upload_id);
extern int64 check_size(bool is_null, int64 size, const char *name,
						const text *upload_id);
extern void check_chunk(const Request *request);
extern void check_length(const text *value, const char *name, int limit,
						 const text *upload_id);
extern void check_not_empty(const text *value, const char *name);
extern struct varlena *optional_json(FunctionCallInfo fcinfo, int n,
									 const char *name, const text *upload_id);

#endif							/* VALI_BLOB_ARGUMENTS_H */
