/*-------------------------------------------------------------------------
 *
 * arguments.c
 *		Arguments of SQL-callable functions, checked.
 *
 * What is wrong with a call, whatever the state of the session, is reported
 * here, before anything is read or locked.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/toast_internals.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/timestamp.h"

#include "arguments.h"
#include "compat.h"
#include "errors.h"
#include "json.h"
#include "row.h"
#include "settings.h"

/* What columns etag and checksum of upload_part take */
#define MAX_ETAG_LENGTH 1024
#define MAX_CHECKSUM_BYTES 64

/* Longer intervals could lead out of the range of timestamps. */
#define MAX_INTERVAL_YEARS 10000

/*
 * Refuse arguments that this library does not know.  A backend that has loaded
 * it before the extension was updated to a later version may call functions that
 * take more of them.
 */
void
check_unknown_arguments(FunctionCallInfo fcinfo, int known)
{
	for (int i = known; i < PG_NARGS(); i++)
	{
		/* null and false are the defaults: it was left out */
		if (PG_ARGISNULL(i) ||
			(get_fn_expr_argtype(fcinfo->flinfo, i) == BOOLOID &&
			 !PG_GETARG_BOOL(i)))
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("argument %d of function %s is not supported by the loaded library of extension \"vali_blob\"",
						i + 1, format_procedure(fcinfo->flinfo->fn_oid)),
				 errdetail("The extension was updated after this session had loaded the library."),
				 errhint("Reconnect to load the new one.")));
	}
}

/*
 * Is an argument null?  One that the installed version of the extension does not
 * have counts as null.
 */
bool
argument_is_null(FunctionCallInfo fcinfo, int n)
{
	return n >= PG_NARGS() || PG_ARGISNULL(n);
}

/* Report an argument that is null. */
void
require_not_null(FunctionCallInfo fcinfo, int n, const char *name,
				 const char *hint)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("\"%s\" must not be null", name),
				 errhint("%s", hint)));
}

/* Return a text, or NULL. */
text *
optional_text(FunctionCallInfo fcinfo, int n)
{
	return argument_is_null(fcinfo, n) ? NULL : PG_GETARG_TEXT_PP(n);
}

/* Return a text that must not be null. */
text *
required_text(FunctionCallInfo fcinfo, int n, const char *name)
{
	/* tested here, too, so that only an error pays for the psprintf() */
	if (PG_ARGISNULL(n))
		require_not_null(fcinfo, n, name,
						 psprintf("Pass a value for \"%s\".", name));
	return PG_GETARG_TEXT_PP(n);
}

/* Return a flag; null means false. */
bool
optional_flag(FunctionCallInfo fcinfo, int n)
{
	return !argument_is_null(fcinfo, n) && PG_GETARG_BOOL(n);
}

/* Return a number of rows. */
int32
required_count(FunctionCallInfo fcinfo, int n, const char *name)
{
	int32		count;

	require_not_null(fcinfo, n, name,
					 "Pass a number of rows, or leave the argument out.");
	count = PG_GETARG_INT32(n);
	if (count < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" must be greater than zero, but is %d",
						name, count),
				 errhint("Pass 1 or more.")));
	return count;
}

/* Compare an interval with a number of years. */
static int
compare_with_years(const Interval *interval, int years)
{
	Interval	other = {.month = years * MONTHS_PER_YEAR};

	return DatumGetInt32(DirectFunctionCall2(interval_cmp,
											 IntervalPGetDatum(interval),
											 IntervalPGetDatum(&other)));
}

bool
interval_is_zero(const Interval *interval)
{
	return compare_with_years(interval, 0) == 0;
}

/* Check that an interval is not negative, perhaps not zero, and not too long. */
void
check_interval(const Interval *interval, const char *name, bool may_be_zero,
			   const char *hint)
{
	int			sign = compare_with_years(interval, 0);
	const char *value;

	if ((sign > 0 || (sign == 0 && may_be_zero)) &&
		compare_with_years(interval, MAX_INTERVAL_YEARS) <= 0)
		return;
	value = DatumGetCString(DirectFunctionCall1(interval_out,
												IntervalPGetDatum(interval)));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 may_be_zero ?
			 errmsg("\"%s\" must be between 0 and %d years, but is %s",
					name, MAX_INTERVAL_YEARS, value) :
			 errmsg("\"%s\" must be greater than zero and at most %d years, but is %s",
					name, MAX_INTERVAL_YEARS, value),
			 errhint("%s", hint)));
}

/*
 * Refuse a call without an owner if vali_blob.require_owner is on.  The upload,
 * if there is one, is for the message.
 */
void
check_owner(const text *owner, const text *upload_id)
{
	if (owner == NULL && require_owner_setting)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 upload_id == NULL ?
				 errmsg("\"owner\" must not be null while \"vali_blob.require_owner\" is on") :
				 errmsg("\"owner\" of upload \"%s\" must not be null while \"vali_blob.require_owner\" is on",
						shown_text(upload_id)),
				 errhint("Pass the owner, in a function that takes one.")));
}

/* Does a text fit into a btree entry, compressed if need be? */
static bool
fits_into_index(text *value)
{
	struct varlena *compressed;

	if (VARSIZE_ANY_EXHDR(value) <= INDEXABLE_BYTES)
		return true;
	compressed = (struct varlena *)
		DatumGetPointer(toast_compress_datum(PointerGetDatum(value),
											 default_toast_compression));
	return compressed != NULL && VARSIZE(compressed) <= INDEXABLE_BYTES;
}

/* Refuse an owner that does not fit into the index on upload_quota. */
void
check_owner_length(text *owner)
{
	if (!fits_into_index(owner))
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("\"owner\" is too long for limits: %d bytes",
						(int) VARSIZE_ANY_EXHDR(owner)),
				 errhint("Values of up to %d bytes always fit; longer ones only if they can be compressed.",
						 INDEXABLE_BYTES)));
}

/* Return the owner that a call names, or NULL. */
text *
optional_owner(FunctionCallInfo fcinfo, int n, const text *upload_id)
{
	text	   *owner = optional_text(fcinfo, n);

	check_owner(owner, upload_id);
	return owner;
}

/* Check a number of bytes, which must not be null. */
int64
check_size(bool is_null, int64 size, const char *name, const text *upload_id)
{
	if (is_null)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("\"%s\" of upload \"%s\" must not be null", name,
						shown_text(upload_id)),
				 errhint("Pass a number of bytes.")));
	if (size < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" of upload \"%s\" must be greater than or equal to zero, but is %lld",
						name, shown_text(upload_id), (long long) size),
				 errdetail("Sizes and offsets are numbers of bytes, counted from 0."),
				 errhint("Pass 0 or more.")));
	return size;
}

/* Return a number of bytes. */
int64
required_size(FunctionCallInfo fcinfo, int n, const char *name,
			  const text *upload_id)
{
	return check_size(PG_ARGISNULL(n), PG_ARGISNULL(n) ? 0 : PG_GETARG_INT64(n),
					  name, upload_id);
}

/* Return a number of bytes, or -1 for null. */
int64
optional_size(FunctionCallInfo fcinfo, int n, const char *name,
			  const text *upload_id)
{
	return argument_is_null(fcinfo, n) ? -1 :
		required_size(fcinfo, n, name, upload_id);
}

/* Check the number of a part; returns 0 for null. */
int32
check_part_number(bool is_null, int32 number, const text *upload_id)
{
	if (is_null)
		return 0;
	if (number < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"part_number\" of upload \"%s\" must be greater than zero, but is %d",
						shown_text(upload_id), number),
				 errhint("Number the parts of an upload from 1.")));
	return number;
}

/* Check that a text has no more characters than its column takes. */
void
check_text_length(const text *value, const char *name, int limit,
				  const text *upload_id)
{
	int			length = value == NULL ? 0 :
		pg_mbstrlen_with_len(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));

	if (length > limit)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("\"%s\" of upload \"%s\" is too long: %d characters",
						name, shown_text(upload_id), length),
				 errdetail("At most %d characters fit.", limit),
				 errhint("Pass a shorter value.")));
}

/* Check the lengths of what a chunk brings for its part. */
static void
check_part(const Request *request)
{
	const Part *chunk = &request->chunk;

	check_text_length(chunk->etag, "etag", MAX_ETAG_LENGTH, request->upload_id);
	if (chunk->checksum != NULL &&
		VARSIZE_ANY_EXHDR(chunk->checksum) > MAX_CHECKSUM_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("\"checksum\" of upload \"%s\" is too long: %d bytes",
						shown_text(request->upload_id),
						(int) VARSIZE_ANY_EXHDR(chunk->checksum)),
				 errdetail("At most %d bytes fit.", MAX_CHECKSUM_BYTES),
				 errhint("Pass a shorter value.")));
}

/* Check that the end of a chunk is a bigint, and what it brings for its part. */
void
check_chunk(const Request *request)
{
	int64		end;

	if (pg_add_s64_overflow(request->chunk.offset, request->chunk.length, &end))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("chunk of upload \"%s\" ends beyond the range of bigint: %lld + %lld",
						shown_text(request->upload_id),
						(long long) request->chunk.offset,
						(long long) request->chunk.length),
				 errhint("Check \"chunk_offset\" and \"chunk_length\".")));
	check_part(request);
}

/* Check that a text is not too long for its column of upload_session. */
void
check_length(const text *value, SessionColumn column, const text *upload_id)
{
	Assert(column_limit(column) > 0);	/* 0 would mean any length */
	check_text_length(value, column_name(column), column_limit(column), upload_id);
}

/* Refuse an empty string. */
void
check_not_empty(const text *value, const char *name)
{
	if (VARSIZE_ANY_EXHDR(value) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" must not be empty", name),
				 errhint("Pass a value for \"%s\".", name)));
}

/* Return a JSON object, or NULL. */
struct varlena *
optional_json(FunctionCallInfo fcinfo, int n, const char *name,
			  const text *upload_id)
{
	struct varlena *json;

	if (argument_is_null(fcinfo, n))
		return NULL;
	json = PG_DETOAST_DATUM(PG_GETARG_DATUM(n));
	if (!json_is_object(json))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 upload_id == NULL ?
				 errmsg("\"%s\" must be a JSON object, but its type is %s",
						name, json_kind(json)) :
				 errmsg("\"%s\" of upload \"%s\" must be a JSON object, but its type is %s",
						name, shown_text(upload_id), json_kind(json)),
				 errhint("Pass an object such as {\"key\": \"value\"}.")));
	return json;
}

/* Take an array argument apart. */
static ArrayElements
get_elements(FunctionCallInfo fcinfo, int n, const char *name, Oid type)
{
	ArrayElements elements;
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(n);
	int16		length;
	bool		by_value;
	char		align;

	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" must be a one-dimensional array, but has %d dimensions",
						name, ARR_NDIM(array)),
				 errhint("Pass an array with one element for each upload, or chunk.")));
	get_typlenbyvalalign(type, &length, &by_value, &align);
	deconstruct_array(array, type, length, by_value, align,
					  &elements.values, &elements.nulls, &elements.count);
	return elements;
}

/* Take an array argument apart that must not be null. */
ArrayElements
required_elements(FunctionCallInfo fcinfo, int n, const char *name, Oid type)
{
	require_not_null(fcinfo, n, name,
					 "Pass an array with one element for each upload, or chunk.");
	return get_elements(fcinfo, n, name, type);
}

/* Take an array argument apart; null stands for that many nulls. */
ArrayElements
optional_elements(FunctionCallInfo fcinfo, int n, const char *name, Oid type,
				  int count)
{
	ArrayElements elements = {.count = count};

	if (!argument_is_null(fcinfo, n))
		elements = get_elements(fcinfo, n, name, type);
	if (elements.count != count)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("arrays must have the same number of elements"),
				 errdetail("\"upload_ids\" has %d elements, \"%s\" has %d.",
						   count, name, elements.count),
				 errhint("Pass one element of each for each chunk.")));
	return elements;
}

/* Is an element of an array null? */
bool
element_is_null(const ArrayElements *elements, int i)
{
	return elements->values == NULL || elements->nulls[i];
}

/* Take one element of an array as an upload id, which must not be null. */
text *
element_upload_id(const ArrayElements *elements, int i)
{
	if (element_is_null(elements, i))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("\"upload_ids\" must not contain nulls, but element %d is null",
						i + 1),
				 errhint("Pass an upload id in each element.")));
	return DatumGetTextPP(elements->values[i]);
}

/*
 * Compare upload ids, as COLLATE "C" does: several sessions are locked in this
 * order.
 */
int
compare_upload_ids(const text *left, const text *right)
{
	int			left_size = VARSIZE_ANY_EXHDR(left);
	int			right_size = VARSIZE_ANY_EXHDR(right);
	int			order = memcmp(VARDATA_ANY(left), VARDATA_ANY(right),
							   Min(left_size, right_size));

	return order != 0 ? order : left_size - right_size;
}
