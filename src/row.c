/*-------------------------------------------------------------------------
 *
 * row.c
 *		The columns of upload_session, and conversion between rows and
 *		Sessions.
 *
 * Columns are found by name in the row's own type, so that an administrator, or
 * a later version of the extension, may add columns to the table and drop them
 * again.  An optional one that is missing counts as null.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "parser/parse_coerce.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

#include "catalog.h"
#include "row.h"

/* How a column's values are stored, here and in the Session. */
typedef enum ColumnKind
{
	KIND_BOOL,					/* null: false */
	KIND_INT8,					/* null: -1 */
	KIND_TEXT,
	KIND_JSON,
	KIND_INTERVAL,
	KIND_TIMESTAMPTZ,			/* null: EXPIRES_NEVER */
	KIND_STATUS
} ColumnKind;

/* Their types; InvalidOid stands for upload_status. */
static const Oid kind_types[] = {
	[KIND_BOOL] = BOOLOID,
	[KIND_INT8] = INT8OID,
	[KIND_TEXT] = TEXTOID,
	[KIND_JSON] = JSONBOID,
	[KIND_INTERVAL] = INTERVALOID,
	[KIND_TIMESTAMPTZ] = TIMESTAMPTZOID,
	[KIND_STATUS] = InvalidOid,
};

StaticAssertDecl(lengthof(kind_types) == KIND_STATUS + 1,
				 "every kind of column has a type");
StaticAssertDecl(SIZE_DEFERRED == -1 && SIZE_UNLIMITED == -1,
				 "-1 stands for null");

#define COLUMN(kind, field, flags) \
	{#field, (kind), offsetof(Session, field), (flags), 0}
#define TEXT_COLUMN(field, limit, flags) \
	{#field, KIND_TEXT, offsetof(Session, field), (flags), (limit)}

/* The columns, by SessionColumn. */
static const struct
{
	const char *name;
	ColumnKind	kind;
	size_t		offset;			/* of the field in a Session */
	int			flags;
	int			limit;			/* characters of a text; 0: any number */
}			columns[] =
{
	[COLUMN_ID] = COLUMN(KIND_INT8, id, COLUMN_DEFAULTED),
	[COLUMN_UPLOAD_ID] = TEXT_COLUMN(upload_id, 128, COLUMN_INSERTED),
	[COLUMN_OWNER] = TEXT_COLUMN(owner, 0, COLUMN_INSERTED | COLUMN_NULLABLE),
	[COLUMN_BUCKET] = TEXT_COLUMN(bucket, 256, COLUMN_INSERTED | COLUMN_NULLABLE),
	[COLUMN_PATH] = TEXT_COLUMN(path, 2048, COLUMN_INSERTED),
	[COLUMN_TOTAL_SIZE] = COLUMN(KIND_INT8, total_size,
								 COLUMN_INSERTED | COLUMN_WRITABLE | COLUMN_NULLABLE),
	[COLUMN_UPLOADED_BYTES] = COLUMN(KIND_INT8, uploaded_bytes,
									 COLUMN_WRITABLE | COLUMN_DEFAULTED),
	[COLUMN_STATUS] = COLUMN(KIND_STATUS, status,
							 COLUMN_WRITABLE | COLUMN_DEFAULTED),
	[COLUMN_CONTENT_TYPE] = TEXT_COLUMN(content_type, 256,
										COLUMN_INSERTED | COLUMN_NULLABLE),
	[COLUMN_METADATA] = COLUMN(KIND_JSON, metadata,
							   COLUMN_INSERTED | COLUMN_WRITABLE),
	[COLUMN_PROVIDER_DATA] = COLUMN(KIND_JSON, provider_data,
									COLUMN_INSERTED | COLUMN_WRITABLE),
	[COLUMN_RESULT] = COLUMN(KIND_JSON, result, COLUMN_WRITABLE |
							 COLUMN_DEFAULTED | COLUMN_NULLABLE),
	[COLUMN_ABORT_REASON] = TEXT_COLUMN(abort_reason, 0,
										COLUMN_WRITABLE | COLUMN_NULLABLE),
	[COLUMN_TTL] = COLUMN(KIND_INTERVAL, ttl, COLUMN_INSERTED | COLUMN_NULLABLE),
	[COLUMN_CREATED_AT] = COLUMN(KIND_TIMESTAMPTZ, created_at, COLUMN_INSERTED),
	[COLUMN_UPDATED_AT] = COLUMN(KIND_TIMESTAMPTZ, updated_at,
								 COLUMN_INSERTED | COLUMN_WRITABLE),
	[COLUMN_EXPIRES_AT] = COLUMN(KIND_TIMESTAMPTZ, expires_at,
								 COLUMN_INSERTED | COLUMN_WRITABLE | COLUMN_NULLABLE),
	[COLUMN_ANY_ORDER] = COLUMN(KIND_BOOL, any_order,
								COLUMN_OPTIONAL | COLUMN_DEFAULTED),
	[COLUMN_AUTO_COMPLETE] = COLUMN(KIND_BOOL, auto_complete,
									COLUMN_OPTIONAL | COLUMN_DEFAULTED),
	[COLUMN_END_BY] = COLUMN(KIND_TIMESTAMPTZ, end_by,
							 COLUMN_OPTIONAL | COLUMN_DEFAULTED | COLUMN_NULLABLE),
	[COLUMN_SIZE_LIMIT] = COLUMN(KIND_INT8, size_limit,
								 COLUMN_OPTIONAL | COLUMN_DEFAULTED | COLUMN_NULLABLE),
	[COLUMN_RULES_VERSION] = COLUMN(KIND_INT8, rules_version,
									COLUMN_OPTIONAL | COLUMN_DEFAULTED |
									COLUMN_WRITABLE | COLUMN_NULLABLE),
	[COLUMN_LEASE_EPOCH] = COLUMN(KIND_INT8, lease_epoch,
								  COLUMN_OPTIONAL | COLUMN_WRITABLE),
	[COLUMN_LEASE_HOLDER] = TEXT_COLUMN(lease_holder, 256, COLUMN_OPTIONAL |
										COLUMN_WRITABLE | COLUMN_NULLABLE),
	[COLUMN_LEASE_EXPIRES_AT] = COLUMN(KIND_TIMESTAMPTZ, lease_expires_at,
									   COLUMN_OPTIONAL | COLUMN_WRITABLE |
									   COLUMN_NULLABLE),
	[COLUMN_LEASE_REQUESTED] = COLUMN(KIND_BOOL, lease_requested,
									  COLUMN_OPTIONAL | COLUMN_WRITABLE),
	[COLUMN_NOTIFIED_AT] = COLUMN(KIND_TIMESTAMPTZ, notified_at,
								  COLUMN_OPTIONAL | COLUMN_WRITABLE |
								  COLUMN_NULLABLE),
	[COLUMN_PARTIAL] = COLUMN(KIND_BOOL, partial,
							  COLUMN_OPTIONAL | COLUMN_DEFAULTED),
	[COLUMN_CONCATENATED_FROM] = COLUMN(KIND_JSON, concatenated_from,
										COLUMN_OPTIONAL | COLUMN_DEFAULTED |
										COLUMN_NULLABLE),
};

StaticAssertDecl(lengthof(columns) == COLUMN_COUNT,
				 "every column has a line in the table");

/* The field of a Session that holds a column's value */
#define FIELD(session, column, type) \
	((type *) ((char *) (session) + columns[column].offset))

/* ---------- columns ---------- */

/* Return the name of a column; none of them needs quotes. */
const char *
column_name(SessionColumn column)
{
	return columns[column].name;
}

/* Return the type of a column's values. */
Oid
column_type(SessionColumn column)
{
	Oid			type = column_argtype(column);

	return OidIsValid(type) ? type : catalog_get()->status_type;
}

/* Return the type of a column's values, as a Statement names it. */
Oid
column_argtype(SessionColumn column)
{
	return kind_types[columns[column].kind];
}

/* Return how many characters a text may have; 0: any number. */
int
column_limit(SessionColumn column)
{
	return columns[column].limit;
}

/* Return all columns with a flag. */
ColumnSet
column_set(int flag)
{
	ColumnSet	set = 0;

	for (SessionColumn column = 0; column < COLUMN_COUNT; column++)
	{
		if ((columns[column].flags & flag) != 0)
			set |= COLUMN_BIT(column);
	}
	return set;
}

/* Has a session the default of a column? */
static bool
is_default(const Session *session, SessionColumn column)
{
	bool		is_null;
	Datum		value = session_value(session, column, &is_null);

	switch (columns[column].kind)
	{
		case KIND_BOOL:
			return !DatumGetBool(value);
		case KIND_INT8:
			return is_null ||
				((columns[column].flags & COLUMN_NULLABLE) == 0 &&
				 DatumGetInt64(value) == 0);
		case KIND_STATUS:
			return session->status == STATUS_PENDING;
		default:
			return is_null;
	}
}

/* Return the columns that must be set to insert a session. */
ColumnSet
inserted_columns(const Session *session)
{
	ColumnSet	set = column_set(COLUMN_INSERTED);

	for (SessionColumn column = 0; column < COLUMN_COUNT; column++)
	{
		if ((columns[column].flags & COLUMN_DEFAULTED) != 0 &&
			!is_default(session, column))
			set |= COLUMN_BIT(column);
	}
	return set;
}

/* Find a column by its name, and check its type. */
static int
find_column(TupleDesc desc, SessionColumn column)
{
	bool		is_optional = (columns[column].flags & COLUMN_OPTIONAL) != 0;

	/* before it is there, another column may have its name */
	if (is_optional && !has_objects_of_1_1())
		return COLUMN_MISSING;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped ||
			strcmp(NameStr(att->attname), column_name(column)) != 0)
			continue;
		if (!IsBinaryCoercible(att->atttypid, column_type(column)))
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("column \"%s\" of table \"upload_session\" has type %s instead of %s",
							column_name(column), format_type_be(att->atttypid),
							format_type_be(column_type(column))),
					 errhint("Change the column's type back.")));
		return i;
	}
	if (is_optional)
		return COLUMN_MISSING;
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"%s\" of table \"upload_session\" does not exist",
					column_name(column)),
			 errhint("If it was renamed, rename it back.  Creating the extension again would drop all sessions.")));
}

/* Find all columns in a row type: map[column] is the index of its attribute. */
void
find_columns(TupleDesc desc, int *map)
{
	for (SessionColumn column = 0; column < COLUMN_COUNT; column++)
		map[column] = find_column(desc, column);
}

/*
 * Return where the columns are in a row that came through SQL.  The map is
 * cached for the row type seen last; assign_record_type_identifier() returns a
 * new number whenever a row type changes.
 */
static const int *
row_type_map(Oid row_type, int32 typmod, TupleDesc desc)
{
	static int	map[COLUMN_COUNT];
	static uint64 map_version = 0;
	uint64		version = assign_record_type_identifier(row_type, typmod);

	if (map_version != version)
	{
		map_version = 0;		/* the map is not valid if we fail */
		find_columns(desc, map);
		map_version = version;
	}
	return map;
}

/* ---------- values ---------- */

/* Set one field of a Session to a column's value. */
static void
set_field(Session *session, SessionColumn column, Datum value, bool is_null)
{
	switch (columns[column].kind)
	{
		case KIND_BOOL:
			*FIELD(session, column, bool) = !is_null && DatumGetBool(value);
			break;
		case KIND_INT8:
			*FIELD(session, column, int64) = is_null ? -1 : DatumGetInt64(value);
			break;
		case KIND_TEXT:
			/* a long one may be toasted */
			*FIELD(session, column, text *) = is_null ? NULL :
				DatumGetTextPP(value);
			break;
		case KIND_JSON:
		case KIND_INTERVAL:
			/* JSON stays toasted, as most calls do not look into it */
			*FIELD(session, column, void *) = is_null ? NULL :
				DatumGetPointer(value);
			break;
		case KIND_TIMESTAMPTZ:
			*FIELD(session, column, TimestampTz) = is_null ? EXPIRES_NEVER :
				DatumGetTimestampTz(value);
			break;
		case KIND_STATUS:
			session->status = status_from_datum(value);
			session->other_status = DatumGetObjectId(value);
			break;
	}
}

/* Return one field of a Session as the column's value. */
Datum
session_value(const Session *session, SessionColumn column, bool *is_null)
{
	bool		is_nullable = (columns[column].flags & COLUMN_NULLABLE) != 0;

	*is_null = false;
	switch (columns[column].kind)
	{
		case KIND_BOOL:
			return BoolGetDatum(*FIELD(session, column, bool));
		case KIND_INT8:
			{
				int64		value = *FIELD(session, column, int64);

				*is_null = is_nullable && value == -1;
				return Int64GetDatum(value);
			}
		case KIND_TEXT:
		case KIND_JSON:
		case KIND_INTERVAL:
			{
				void	   *value = *FIELD(session, column, void *);

				*is_null = value == NULL;
				return PointerGetDatum(value);
			}
		case KIND_TIMESTAMPTZ:
			{
				TimestampTz value = *FIELD(session, column, TimestampTz);

				*is_null = is_nullable && value == EXPIRES_NEVER;
				return TimestampTzGetDatum(value);
			}
		case KIND_STATUS:
			return status_to_datum(session->status);
	}
	pg_unreachable();
}

/* Collect the values of some columns; returns how many they are. */
int
session_values(const Session *session, ColumnSet set, Datum *values,
			   bool *nulls)
{
	int			n = 0;

	for (SessionColumn column = 0; column < COLUMN_COUNT; column++)
	{
		if ((set & COLUMN_BIT(column)) != 0)
		{
			values[n] = session_value(session, column, &nulls[n]);
			n++;
		}
	}
	return n;
}

/* Fill a Session from the attributes of a row, sharing their memory. */
void
values_to_session(const Datum *values, const bool *nulls, const int *map,
				  Session *session)
{
	memset(session, 0, sizeof(Session));
	for (SessionColumn column = 0; column < COLUMN_COUNT; column++)
	{
		int			i = map[column];

		if (i == COLUMN_MISSING)
		{
			set_field(session, column, (Datum) 0, true);
			continue;
		}
		/* possible only after somebody has dropped NOT NULL */
		if (nulls[i] && (columns[column].flags & COLUMN_NULLABLE) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_NOT_NULL_VIOLATION),
					 errmsg("column \"%s\" of table \"upload_session\" is null",
							column_name(column)),
					 errhint("Give the column a value, and make it NOT NULL again.")));
		set_field(session, column, values[i], nulls[i]);
	}
}

/* ---------- rows ---------- */

/* A composite value, taken apart: what heap functions and catalogs need. */
typedef struct OpenRow
{
	HeapTupleData tuple;
	Oid			type;
	int32		typmod;
	TupleDesc	desc;			/* to be released */
} OpenRow;

static OpenRow
open_row(Datum row)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(row);
	OpenRow		result = {
		.tuple = {
			.t_len = HeapTupleHeaderGetDatumLength(header),
			.t_data = header,
		},
		.type = HeapTupleHeaderGetTypeId(header),
		.typmod = HeapTupleHeaderGetTypMod(header),
	};

	result.desc = lookup_rowtype_tupdesc(result.type, result.typmod);
	return result;
}

/* Fill a Session from a row, sharing its memory. */
void
row_to_session(Datum row, Session *session)
{
	OpenRow		open = open_row(row);
	Datum	   *values = palloc(open.desc->natts * sizeof(Datum));
	bool	   *nulls = palloc(open.desc->natts * sizeof(bool));

	heap_deform_tuple(&open.tuple, open.desc, values, nulls);
	values_to_session(values, nulls,
					  row_type_map(open.type, open.typmod, open.desc), session);
	session->row = HeapTupleHeaderGetDatum(open.tuple.t_data);
	ReleaseTupleDesc(open.desc);
}

/* Copy a row, with another status than the stored one. */
static Datum
row_with_status(Datum row, SessionStatus status)
{
	OpenRow		open = open_row(row);
	int			attnum = row_type_map(open.type, open.typmod,
									  open.desc)[COLUMN_STATUS] + 1;
	Datum		value = status_to_datum(status);
	bool		is_null = false;
	HeapTuple	copy = heap_modify_tuple_by_cols(&open.tuple, open.desc, 1,
												 &attnum, &value, &is_null);
	Datum		result = heap_copy_tuple_as_datum(copy, open.desc);

	ReleaseTupleDesc(open.desc);
	return result;
}

/* Return the row of a session that came through SQL, with the status to be shown. */
Datum
session_row(const Session *session, SessionStatus status)
{
	return status == session->status ? session->row :
		row_with_status(session->row, status);
}

/*
 * Prepare to return rows of a named type as a set, as InitMaterializedSRF()
 * does.  It would copy the row type with all defaults and constraints, which
 * costs more than most of what it takes to fetch a session, and fail if the
 * function was dropped while its arguments waited for a lock.  So the executor
 * is told what the rows are, if it must be, when there are some.
 */
void
begin_rows(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext caller;

	if (rsinfo == NULL || !IsA(rsinfo, ReturnSetInfo) ||
		(rsinfo->allowedModes & SFRM_Materialize) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-valued function called in context that cannot accept a set")));
	caller = MemoryContextSwitchTo(rsinfo->econtext->ecxt_per_query_memory);
	rsinfo->returnMode = SFRM_Materialize;
	rsinfo->setResult = tuplestore_begin_heap((rsinfo->allowedModes & SFRM_Materialize_Random) != 0,
											  false, work_mem);
	MemoryContextSwitchTo(caller);
}

/*
 * Must the executor check whether rows fit what the query expects?  It must if
 * they are of another table than the function was created for, or if a column's
 * type was changed since the query began.  Columns that were added or dropped
 * do no harm, since all others stay where they are, but the executor would
 * refuse them.
 */
static bool
is_unexpected_type(TupleDesc desc, TupleDesc expected)
{
	if (expected == NULL || desc->tdtypeid != expected->tdtypeid)
		return true;
	for (int i = 0; i < Min(desc->natts, expected->natts); i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		Form_pg_attribute wanted = TupleDescAttr(expected, i);

		/* a dropped one keeps its storage, but it may have got another before */
		if (att->attlen != wanted->attlen ||
			att->attalign != wanted->attalign ||
			(att->atttypid != wanted->atttypid &&
			 !att->attisdropped && !wanted->attisdropped))
			return true;
	}
	return false;
}

/* Put a row into the result of a function that returns a set. */
void
put_row(ReturnSetInfo *rsinfo, Datum row)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(row);
	HeapTupleData tuple = {
		.t_len = HeapTupleHeaderGetDatumLength(header),
		.t_data = header,
	};

	if (rsinfo->setDesc == NULL ||
		HeapTupleHeaderGetTypeId(header) != rsinfo->setDesc->tdtypeid)
	{
		TupleDesc	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header),
												  HeapTupleHeaderGetTypMod(header));
		MemoryContext caller = MemoryContextSwitchTo(rsinfo->econtext->ecxt_per_query_memory);

		/* the executor frees it */
		rsinfo->setDesc = CreateTupleDescCopy(is_unexpected_type(desc, rsinfo->expectedDesc) ?
											  desc : rsinfo->expectedDesc);
		MemoryContextSwitchTo(caller);
		ReleaseTupleDesc(desc);
	}
	tuplestore_puttuple(rsinfo->setResult, &tuple);
}

/* Put the row of a session that came through SQL, with the status to be shown. */
void
put_session(ReturnSetInfo *rsinfo, const Session *session, SessionStatus status)
{
	put_row(rsinfo, session_row(session, status));
}

/* Put the row of a session that is in a slot, with the status to be shown. */
void
put_slot(ReturnSetInfo *rsinfo, TupleTableSlot *slot, const Session *session,
		 SessionStatus status)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;
	Datum	   *values;

	Assert(TTS_IS_BUFFERTUPLE(slot));
	if (is_unexpected_type(desc, rsinfo->expectedDesc))
	{
		MemoryContext caller = MemoryContextSwitchTo(rsinfo->econtext->ecxt_per_query_memory);

		/* a copy, as ours goes away with the slot */
		rsinfo->setDesc = CreateTupleDescCopy(desc);
		MemoryContextSwitchTo(caller);
	}

	/* the stored tuple may lack columns that were added after it */
	if (status == session->status &&
		HeapTupleHeaderGetNatts(ExecFetchSlotHeapTuple(slot, false, NULL)->t_data) == desc->natts)
	{
		tuplestore_puttupleslot(rsinfo->setResult, slot);
		return;
	}

	slot_getallattrs(slot);
	values = palloc(desc->natts * sizeof(Datum));
	memcpy(values, slot->tts_values, desc->natts * sizeof(Datum));
	if (status != session->status)
		values[find_column(desc, COLUMN_STATUS)] = status_to_datum(status);
	tuplestore_putvalues(rsinfo->setResult, desc, values, slot->tts_isnull);
}

/*
 * Form a row with the columns that a query expects.  Those that have been
 * dropped since are null.
 */
static Datum
fit_row(const OpenRow *open, TupleDesc expected)
{
	int			natts = Max(open->desc->natts, expected->natts);
	Datum	   *values = palloc0(natts * sizeof(Datum));
	bool	   *nulls = palloc(natts * sizeof(bool));

	memset(nulls, true, natts * sizeof(bool));
	heap_deform_tuple((HeapTuple) &open->tuple, open->desc, values, nulls);
	for (int i = 0; i < Min(open->desc->natts, expected->natts); i++)
	{
		/* in place of one that the query knows as dropped, there may be any type */
		if (TupleDescAttr(open->desc, i)->attisdropped ||
			TupleDescAttr(expected, i)->attisdropped)
			nulls[i] = true;
	}

	/* a record, since the named row type has other columns by now */
	expected = CreateTupleDescCopy(expected);
	expected->tdtypeid = RECORDOID;
	expected->tdtypmod = -1;
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(expected), values,
											 nulls));
}

/* What a query that calls a function in FROM expects, or NULL */
static TupleDesc
expected_desc(FunctionCallInfo fcinfo)
{
	const ReturnSetInfo *rsinfo = (const ReturnSetInfo *) fcinfo->resultinfo;

	return rsinfo != NULL && IsA(rsinfo, ReturnSetInfo) ? rsinfo->expectedDesc : NULL;
}

/*
 * Return a row from a function that does not return a set.
 *
 * A query that calls the function in FROM expects the columns that the type had
 * when the query began.  While we waited for a lock, columns may have been added
 * or dropped, and the executor refuses a row that differs.  The query cannot
 * refer to added ones, so we return it what it expects.
 */
Datum
return_row(FunctionCallInfo fcinfo, Datum row)
{
	TupleDesc	expected = expected_desc(fcinfo);
	OpenRow		open;
	bool		has_other_columns;
	bool		has_other_types = false;

	if (expected == NULL)
		return row;
	open = open_row(row);
	has_other_columns = open.desc->natts != expected->natts;
	for (int i = 0; i < Min(open.desc->natts, expected->natts); i++)
	{
		Form_pg_attribute att = TupleDescAttr(open.desc, i);
		Form_pg_attribute wanted = TupleDescAttr(expected, i);

		if (att->attisdropped != wanted->attisdropped)
			has_other_columns = true;
		else if (!att->attisdropped && att->atttypid != wanted->atttypid)
			has_other_types = true;
	}

	/* if a type has changed, leave the error to the executor */
	if (has_other_columns && !has_other_types)
		row = fit_row(&open, expected);
	ReleaseTupleDesc(open.desc);
	return row;
}

/*
 * Return a row of some columns from a function with OUT parameters.  Those that
 * a later version has appended are null.
 */
Datum
return_columns(FunctionCallInfo fcinfo, const Datum *values, const bool *nulls,
			   int count)
{
	TupleDesc	desc = expected_desc(fcinfo);
	Datum		all_values[MaxTupleAttributeNumber];
	bool		all_nulls[MaxTupleAttributeNumber];

	/* if the function was dropped since the query began, its type is gone */
	if (desc != NULL)
		desc = CreateTupleDescCopy(desc);
	else if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	Assert(desc->natts >= count);
	memset(all_nulls, true, desc->natts * sizeof(bool));
	memcpy(all_values, values, count * sizeof(Datum));
	memcpy(all_nulls, nulls, count * sizeof(bool));
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), all_values,
											 all_nulls));
}
