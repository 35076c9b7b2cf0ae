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

extern void check_unknown_arguments(FunctionCallInfo fcinfo, int known);
extern bool argument_is_null(FunctionCallInfo fcinfo, int n);
extern void require_not_null(FunctionCallInfo fcinfo, int n, const char *name,
							 const char *hint);

extern text *optional_text(FunctionCallInfo fcinfo, int n);
extern text *required_text(FunctionCallInfo fcinfo, int n, const char *name);
extern bool optional_flag(FunctionCallInfo fcinfo, int n);
extern int32 required_count(FunctionCallInfo fcinfo, int n, const char *name);
extern text *optional_owner(FunctionCallInfo fcinfo, int n,
							const text *upload_id);
extern void check_owner(const text *owner, const text *upload_id);
extern void check_owner_length(text *owner);
extern void check_interval(const Interval *interval, const char *name,
						   bool may_be_zero, const char *hint);
extern bool interval_is_zero(const Interval *interval);

/* What fits into a btree entry, however badly it compresses */
#define INDEXABLE_BYTES 2600

/* Errors of these name the upload. */
extern int64 required_size(FunctionCallInfo fcinfo, int n, const char *name,
						   const text *upload_id);
extern int64 check_size(bool is_null, int64 size, const char *name,
						const text *upload_id);
extern int64 optional_size(FunctionCallInfo fcinfo, int n, const char *name,
						   const text *upload_id);
extern int32 check_part_number(bool is_null, int32 number,
							   const text *upload_id);
extern void check_chunk(const Request *request);
extern void check_text_length(const text *value, const char *name, int limit,
							  const text *upload_id);
extern void check_length(const text *value, SessionColumn column,
						 const text *upload_id);
extern void check_not_empty(const text *value, const char *name);
extern struct varlena *optional_json(FunctionCallInfo fcinfo, int n,
									 const char *name, const text *upload_id);

/* The elements of an array argument */
typedef struct ArrayElements
{
	Datum	   *values;			/* NULL: all are null */
	bool	   *nulls;
	int			count;
} ArrayElements;

extern ArrayElements required_elements(FunctionCallInfo fcinfo, int n,
									   const char *name, Oid type);
extern ArrayElements optional_elements(FunctionCallInfo fcinfo, int n,
									   const char *name, Oid type, int count);
extern bool element_is_null(const ArrayElements *elements, int i);
extern text *element_upload_id(const ArrayElements *elements, int i);
extern int	compare_upload_ids(const text *left, const text *right);

#endif							/* VALI_BLOB_ARGUMENTS_H */
