/*-------------------------------------------------------------------------
 *
 * arguments.c
 *		Arguments of SQL-callable functions, checked.
 *
 * What is wrong with a call, whatever session it is for, is found here and
 * raised before anything is read or locked.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/int.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/regproc.h"
#include "utils/timestamp.h"

#include "arguments.h"
#include "compat.h"
#include "errors.h"
#include "json.h"
#include "settings.h"

/*
 * Check that a function is called with no argument that this library does not
 * know.  That can happen in a backend that has loaded it before the extension
 * was updated to a later version, whose functions take more of them.  Null and
 * false are what leaving such an argument out amounts to.
 */
void
check_unknown_arguments(FunctionCallInfo fcinfo, int known)
{
	for (int i = known; i < PG_NARGS(); i++)
	{
		if (PG_ARGISNULL(i) ||
			(get_fn_expr_argtype(fcinfo->flinfo, i) == BOOLOID &&
			 !PG_GETARG_BOOL(i)))
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("argument %d of function %s is not known to the library of vali_blob that is loaded",
						i + 1, format_procedure(fcinfo->flinfo->fn_oid)),
				 errdetail("The extension has been updated since this session began."),
				 errhint("Reconnect.")));
	}
}

/* Get a text, or NULL. */
text *
optional_text(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : PG_GETARG_TEXT_PP(n);
}

/* Get a text that must be there. */
text *
required_text(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name),
				 errhint("Pass a value for \"%s\".", name)));
	return PG_GETARG_TEXT_PP(n);
}

/* Get a flag; null means off. */
bool
optional_flag(FunctionCallInfo fcinfo, int n)
{
	return !PG_ARGISNULL(n) && PG_GETARG_BOOL(n);
}

/* Compare an interval with a number of years. */
int
compare_with_years(const Interval *interval, int years)
{
	Interval	other = {.month = years * MONTHS_PER_YEAR};

	return DatumGetInt32(DirectFunctionCall2(interval_cmp,
											 IntervalPGetDatum(interval),
											 IntervalPGetDatum(&other)));
}

/* An interval as messages show it. */
char *
show_interval(const Interval *interval)
{
	return DatumGetCString(DirectFunctionCall1(interval_out,
											   IntervalPGetDatum(interval)));
}

/* Get a number of rows. */
int32
positive_count(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name),
				 errhint("Pass a number of rows, or leave the argument out.")));
	if (PG_GETARG_INT32(n) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be positive, but is %d", name,
						PG_GETARG_INT32(n)),
				 errhint("Pass 1 or more.")));
	return PG_GETARG_INT32(n);
}

/* Refuse a call without an owner where the administrator demands one. */
void
require_owner(const text *owner, const text *upload_id)
{
	if (owner == NULL && require_owner_setting)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 upload_id == NULL ?
				 errmsg("owner must not be null while vali_blob.require_owner is on") :
				 errmsg("owner of upload \"%s\" must not be null while vali_blob.require_owner is on",
						shown_text(upload_id)),
				 errhint("Pass the owner, in a function that takes one.")));
}

/* Get the owner that a call names; the upload, if any, is for messages. */
text *
checked_owner(FunctionCallInfo fcinfo, int n, const text *upload_id)
{
	text	   *owner = optional_text(fcinfo, n);

	require_owner(owner, upload_id);
	return owner;
}

/* Check a number of bytes, which must be there. */
int64
check_size(bool is_null, int64 size, const char *name, const text *upload_id)
{
	if (is_null)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s of upload \"%s\" must not be null", name,
						shown_text(upload_id)),
				 errhint("Pass a number of bytes.")));
	if (size < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s of upload \"%s\" must not be negative, but is " INT64_FORMAT,
						name, shown_text(upload_id), size),
				 errhint("Sizes and offsets are numbers of bytes, counted from 0.")));
	return size;
}

/* Get a number of bytes. */
int64
required_size(FunctionCallInfo fcinfo, int n, const char *name,
			  const text *upload_id)
{
	return check_size(PG_ARGISNULL(n), PG_ARGISNULL(n) ? 0 : PG_GETARG_INT64(n),
					  name, upload_id);
}

/* Check that a chunk has an end. */
void
check_chunk(const Request *request)
{
	int64		end;

	if (pg_add_s64_overflow(request->chunk_offset, request->chunk_length, &end))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("chunk of upload \"%s\" ends beyond the range of bigint: " INT64_FORMAT " + " INT64_FORMAT,
						shown_text(request->upload_id), request->chunk_offset,
						request->chunk_length),
				 errhint("Check chunk_offset and chunk_length.")));
}

/* Check the length of a text, in characters; NULL is never too long. */
void
check_length(const text *value, const char *name, int limit,
			 const text *upload_id)
{
	int			length;

	if (value == NULL)
		return;
	length = pg_mbstrlen_with_len(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
	if (length > limit)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("%s of upload \"%s\" is too long: %d characters", name,
						shown_text(upload_id), length),
				 errhint("At most %d characters fit.", limit)));
}

/* Check that a text says something. */
void
check_not_empty(const text *value, const char *name)
{
	if (VARSIZE_ANY_EXHDR(value) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be empty", name),
				 errhint("Pass a value for \"%s\".", name)));
}

/* Get a JSON object, or NULL. */
struct varlena *
optional_json(FunctionCallInfo fcinfo, int n, const char *name,
			  const text *upload_id)
{
	struct varlena *json;

	if (PG_ARGISNULL(n))
		return NULL;
	json = PG_DETOAST_DATUM(PG_GETARG_DATUM(n));
	if (!json_is_object(json))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s of upload \"%s\" must be a JSON object, but its type is %s",
						name, shown_text(upload_id), json_kind(json)),
				 errhint("Pass an object such as {\"key\": \"value\"}.")));
	return json;
}
