/*-------------------------------------------------------------------------
 *
 * row.c
 *		Between a row of upload_session and a Session.
 *
 * Columns are found by name in the row's own type, so that an administrator
 * may add columns to the table, or drop them again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "parser/parse_coerce.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

#include "catalog.h"
#include "row.h"

static const struct
{
	const char *name;
	Oid			type;
	bool		nullable;
}			column_table[COLUMN_COUNT] =
{
	[COLUMN_ID] = {"id", INT8OID, false},
	[COLUMN_UPLOAD_ID] = {"upload_id", TEXTOID, false},
	[COLUMN_OWNER] = {"owner", TEXTOID, true},
	[COLUMN_BUCKET] = {"bucket", TEXTOID, true},
	[COLUMN_PATH] = {"path", TEXTOID, false},
	[COLUMN_TOTAL_SIZE] = {"total_size", INT8OID, true},
	[COLUMN_UPLOADED_BYTES] = {"uploaded_bytes", INT8OID, false},
	[COLUMN_STATUS] = {"status", InvalidOid, false},
	[COLUMN_CONTENT_TYPE] = {"content_type", TEXTOID, true},
	[COLUMN_METADATA] = {"metadata", JSONBOID, false},
	[COLUMN_PROVIDER_DATA] = {"provider_data", JSONBOID, false},
	[COLUMN_RESULT] = {"result", JSONBOID, true},
	[COLUMN_ABORT_REASON] = {"abort_reason", TEXTOID, true},
	[COLUMN_TTL] = {"ttl", INTERVALOID, true},
	[COLUMN_CREATED_AT] = {"created_at", TIMESTAMPTZOID, false},
	[COLUMN_UPDATED_AT] = {"updated_at", TIMESTAMPTZOID, false},
	[COLUMN_EXPIRES_AT] = {"expires_at", TIMESTAMPTZOID, true},
};

/* The name of a column; none of them needs quotes. */
const char *
column_name(SessionColumn column)
{
	return column_table[column].name;
}

/* The type of a column's values; InvalidOid for upload_status. */
Oid
column_type(SessionColumn column)
{
	return column_table[column].type;
}

/* Find a column by its name, and see that it is what we take it for. */
static int
column_index(TupleDesc desc, SessionColumn column)
{
	Oid			type = OidIsValid(column_type(column)) ?
		column_type(column) : catalog_get()->status_type;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped ||
			strcmp(NameStr(att->attname), column_name(column)) != 0)
			continue;
		if (!IsBinaryCoercible(att->atttypid, type))
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("column \"%s\" of table upload_session has type %s instead of %s",
							column_name(column), format_type_be(att->atttypid),
							format_type_be(type)),
					 errhint("Change the column's type back.")));
		return i;
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("table upload_session has no column \"%s\"",
					column_name(column)),
			 errhint("If it was renamed, rename it back.  Creating the extension again would drop all sessions.")));
}

/*
 * Where our columns are in a row type.  The answer is kept for the row type
 * that was asked for last, of which the type cache numbers every version.
 */
const int *
column_map(Oid row_type, int32 typmod, TupleDesc desc)
{
	static int	map[COLUMN_COUNT];
	static uint64 map_version = 0;
	uint64		version = assign_record_type_identifier(row_type, typmod);

	if (map_version != version)
	{
		map_version = 0;
		for (SessionColumn column = 0; column < COLUMN_COUNT; column++)
			map[column] = column_index(desc, column);
		map_version = version;
	}
	return map;
}

/* A value that may be null and may be toasted. */
static void *
pointer_or_null(Datum value, bool is_null)
{
	return is_null ? NULL : DatumGetPointer(value);
}

/* A text that may be null; a long one may be toasted. */
static text *
text_or_null(Datum value, bool is_null)
{
	return is_null ? NULL : DatumGetTextPP(value);
}

/* Fill one field of a Session. */
static void
set_field(Session *s, SessionColumn column, Datum value, bool is_null)
{
	switch (column)
	{
		case COLUMN_ID:
			s->id = DatumGetInt64(value);
			break;
		case COLUMN_UPLOAD_ID:
			s->upload_id = text_or_null(value, is_null);
			break;
		case COLUMN_OWNER:
			s->owner = text_or_null(value, is_null);
			break;
		case COLUMN_BUCKET:
			s->bucket = text_or_null(value, is_null);
			break;
		case COLUMN_PATH:
			s->path = text_or_null(value, is_null);
			break;
		case COLUMN_TOTAL_SIZE:
			s->total_size = is_null ? SIZE_DEFERRED : DatumGetInt64(value);
			break;
		case COLUMN_UPLOADED_BYTES:
			s->uploaded_bytes = DatumGetInt64(value);
			break;
		case COLUMN_STATUS:
			s->status = status_from_datum(value);
			s->other_status = DatumGetObjectId(value);
			break;
		case COLUMN_CONTENT_TYPE:
			s->content_type = text_or_null(value, is_null);
			break;
		case COLUMN_METADATA:
			s->metadata = pointer_or_null(value, is_null);
			break;
		case COLUMN_PROVIDER_DATA:
			s->provider_data = pointer_or_null(value, is_null);
			break;
		case COLUMN_RESULT:
			s->result = pointer_or_null(value, is_null);
			break;
		case COLUMN_ABORT_REASON:
			s->abort_reason = text_or_null(value, is_null);
			break;
		case COLUMN_TTL:
			s->ttl = pointer_or_null(value, is_null);
			break;
		case COLUMN_CREATED_AT:
			s->created_at = DatumGetTimestampTz(value);
			break;
		case COLUMN_UPDATED_AT:
			s->updated_at = DatumGetTimestampTz(value);
			break;
		case COLUMN_EXPIRES_AT:
			s->expires_at = is_null ? EXPIRES_NEVER : DatumGetTimestampTz(value);
			break;
	}
}

/* The value of one field of a Session, as the column stores it. */
Datum
session_value(const Session *s, SessionColumn column, bool *is_null)
{
	const void *pointer = NULL;

	*is_null = false;
	switch (column)
	{
		case COLUMN_ID:
			return Int64GetDatum(s->id);
		case COLUMN_TOTAL_SIZE:
			*is_null = s->total_size == SIZE_DEFERRED;
			return Int64GetDatum(s->total_size);
		case COLUMN_UPLOADED_BYTES:
			return Int64GetDatum(s->uploaded_bytes);
		case COLUMN_STATUS:
			return status_to_datum(s->status);
		case COLUMN_CREATED_AT:
			return TimestampTzGetDatum(s->created_at);
		case COLUMN_UPDATED_AT:
			return TimestampTzGetDatum(s->updated_at);
		case COLUMN_EXPIRES_AT:
			*is_null = s->expires_at == EXPIRES_NEVER;
			return TimestampTzGetDatum(s->expires_at);
		case COLUMN_UPLOAD_ID:
			pointer = s->upload_id;
			break;
		case COLUMN_OWNER:
			pointer = s->owner;
			break;
		case COLUMN_BUCKET:
			pointer = s->bucket;
			break;
		case COLUMN_PATH:
			pointer = s->path;
			break;
		case COLUMN_CONTENT_TYPE:
			pointer = s->content_type;
			break;
		case COLUMN_METADATA:
			pointer = s->metadata;
			break;
		case COLUMN_PROVIDER_DATA:
			pointer = s->provider_data;
			break;
		case COLUMN_RESULT:
			pointer = s->result;
			break;
		case COLUMN_ABORT_REASON:
			pointer = s->abort_reason;
			break;
		case COLUMN_TTL:
			pointer = s->ttl;
			break;
	}
	*is_null = pointer == NULL;
	return PointerGetDatum(pointer);
}

/* The values of some fields of a Session. */
void
session_values(const Session *session, const SessionColumn *columns, int count,
			   Datum *values, bool *nulls)
{
	for (int i = 0; i < count; i++)
		values[i] = session_value(session, columns[i], &nulls[i]);
}

/* Fill a Session from the columns of a row; they share their memory. */
void
values_to_session(const Datum *values, const bool *nulls, const int *map,
				  Session *session)
{
	memset(session, 0, sizeof(Session));
	for (SessionColumn column = 0; column < COLUMN_COUNT; column++)
	{
		int			i = map[column];

		if (nulls[i] && !column_table[column].nullable)
			ereport(ERROR,
					(errcode(ERRCODE_NOT_NULL_VIOLATION),
					 errmsg("column \"%s\" of table upload_session is null",
							column_name(column)),
					 errhint("Give the column a value, and make it NOT NULL again.")));
		set_field(session, column, values[i], nulls[i]);
	}
}

/* Take a row apart; row and session share their memory. */
void
row_to_session(Datum row, Session *session)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(row);
	Oid			type = HeapTupleHeaderGetTypeId(header);
	int32		typmod = HeapTupleHeaderGetTypMod(header);
	TupleDesc	desc = lookup_rowtype_tupdesc(type, typmod);
	Datum	   *values = palloc(desc->natts * sizeof(Datum));
	bool	   *nulls = palloc(desc->natts * sizeof(bool));
	HeapTupleData tuple = {
		.t_len = HeapTupleHeaderGetDatumLength(header),
		.t_data = header,
	};

	heap_deform_tuple(&tuple, desc, values, nulls);
	values_to_session(values, nulls, column_map(type, typmod, desc), session);
	session->row = HeapTupleHeaderGetDatum(header);
	ReleaseTupleDesc(desc);
}

/*
 * Put a row into a function's result.  Where the table is not the one that the
 * function was created for, the executor learns what the rows really are, and
 * judges whether that will do.
 */
void
row_return(ReturnSetInfo *rsinfo, Datum row)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(row);
	HeapTupleData tuple = {
		.t_len = HeapTupleHeaderGetDatumLength(header),
		.t_data = header,
	};

	if (HeapTupleHeaderGetTypeId(header) != rsinfo->setDesc->tdtypeid)
	{
		MemoryContext caller = MemoryContextSwitchTo(rsinfo->econtext->ecxt_per_query_memory);

		rsinfo->setDesc = lookup_rowtype_tupdesc_copy(HeapTupleHeaderGetTypeId(header),
													  HeapTupleHeaderGetTypMod(header));
		MemoryContextSwitchTo(caller);
	}
	tuplestore_puttuple(rsinfo->setResult, &tuple);
}

/* Give a row the columns that a query expects, of the same types. */
static Datum
fit_row(HeapTupleHeader header, TupleDesc desc, TupleDesc expected)
{
	HeapTupleData tuple = {
		.t_len = HeapTupleHeaderGetDatumLength(header),
		.t_data = header,
	};
	int			natts = Max(desc->natts, expected->natts);
	Datum	   *values = palloc0(natts * sizeof(Datum));
	bool	   *nulls = palloc(natts * sizeof(bool));

	memset(nulls, true, natts * sizeof(bool));
	heap_deform_tuple(&tuple, desc, values, nulls);
	for (int i = 0; i < desc->natts; i++)
	{
		if (TupleDescAttr(desc, i)->attisdropped)
			nulls[i] = true;
	}

	/* as a record, since the row type has other columns by now */
	expected = CreateTupleDescCopy(expected);
	expected->tdtypeid = RECORDOID;
	expected->tdtypmod = -1;
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(expected), values,
											 nulls));
}

/*
 * Return a row from a function that returns one, not a set.
 *
 * A query that reads the function in FROM expects the columns that the type
 * had when the query began.  Columns may have been added or dropped since,
 * while we waited for a lock, and the executor refuses a row that differs.  So
 * such a row is given the columns that the query expects: it cannot refer to
 * added ones, and dropped ones are null.
 */
Datum
row_result(FunctionCallInfo fcinfo, Datum row)
{
	const ReturnSetInfo *rsinfo = (const ReturnSetInfo *) fcinfo->resultinfo;
	HeapTupleHeader header = DatumGetHeapTupleHeader(row);
	TupleDesc	expected;
	TupleDesc	desc;
	bool		has_other_columns;
	bool		has_other_types = false;

	if (rsinfo == NULL || !IsA(rsinfo, ReturnSetInfo) ||
		rsinfo->expectedDesc == NULL)
		return row;
	expected = rsinfo->expectedDesc;
	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header),
								  HeapTupleHeaderGetTypMod(header));
	has_other_columns = desc->natts != expected->natts;
	for (int i = 0; i < Min(desc->natts, expected->natts); i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		Form_pg_attribute wanted = TupleDescAttr(expected, i);

		if (att->attisdropped != wanted->attisdropped)
			has_other_columns = true;
		else if (!att->attisdropped && att->atttypid != wanted->atttypid)
			has_other_types = true;
	}

	/* of a type that has changed the executor says so better */
	if (has_other_columns && !has_other_types)
		row = fit_row(header, desc, expected);
	ReleaseTupleDesc(desc);
	return row;
}

/* Copy a row, showing another status than the stored one. */
Datum
row_with_status(Datum row, SessionStatus status)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(row);
	Oid			type = HeapTupleHeaderGetTypeId(header);
	int32		typmod = HeapTupleHeaderGetTypMod(header);
	TupleDesc	desc = lookup_rowtype_tupdesc(type, typmod);
	int			attnum = column_map(type, typmod, desc)[COLUMN_STATUS] + 1;
	Datum		value = status_to_datum(status);
	bool		is_null = false;
	HeapTupleData tuple = {
		.t_len = HeapTupleHeaderGetDatumLength(header),
		.t_data = header,
	};
	HeapTuple	shown = heap_modify_tuple_by_cols(&tuple, desc, 1, &attnum,
												  &value, &is_null);
	Datum		result = heap_copy_tuple_as_datum(shown, desc);

	ReleaseTupleDesc(desc);
	return result;
}
