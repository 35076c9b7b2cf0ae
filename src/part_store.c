/*-------------------------------------------------------------------------
 *
 * part_store.c
 *		Access to the rows of upload_part: find, insert, replace.
 *
 * As with sessions, there are two access paths: SQL, and for what every chunk does
 * the fast path, through the heap.  That is used only for a plain table (see
 * table_info.c), by a user with privileges on the whole of it, and if the fast
 * path to upload_session is used; otherwise we fall back to SQL.  It does not
 * fire the check of the foreign key to upload_session: we hold a lock on the
 * session that is referenced.  (So the owner of upload_part needs no privilege
 * on upload_session.)  What table_info_get() returns stays valid during a scan
 * of the index, which compares by built-in functions only and so runs no code of
 * a user.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "errors.h"
#include "part_store.h"
#include "row.h"
#include "statement.h"
#include "store_internal.h"
#include "table_info.h"

/*
 * The last part of a session that begins before an offset.  We read the columns as of
 * these types, which somebody may have changed.
 */
static Statement find_last = {
	.text = "SELECT p.upload_id, p.chunk_offset::pg_catalog.int8, "
	"p.chunk_length::pg_catalog.int8, p.part_number::pg_catalog.int4, "
	"p.etag::pg_catalog.text, p.checksum::pg_catalog.bytea, p.confirmed_at "
	"FROM @.upload_part AS p WHERE p.upload_id OPERATOR(pg_catalog.=) $1 "
	"AND p.chunk_offset OPERATOR(pg_catalog.<) $2 "
	"ORDER BY p.chunk_offset DESC LIMIT 1",
	.nargs = 2, .argtypes = {TEXTOID, INT8OID},
};

/* The arguments of a write are the columns, in the order of PartColumn. */
#define WRITE_ARGTYPES \
	{TEXTOID, INT8OID, INT8OID, INT4OID, TEXTOID, BYTEAOID, TIMESTAMPTZOID}

static Statement insert_one = {
	.text = "INSERT INTO @.upload_part "
	"(upload_id, chunk_offset, chunk_length, part_number, etag, checksum, confirmed_at) "
	"VALUES ($1, $2, $3, $4, $5, $6, $7)",
	.nargs = PART_COLUMN_COUNT, .argtypes = WRITE_ARGTYPES,
};

/* What the storage holds now is what the chunk brings; its number stays. */
static Statement replace_one = {
	.text = "UPDATE @.upload_part AS p SET "
	"part_number = COALESCE($4, p.part_number), etag = $5, checksum = $6, "
	"confirmed_at = $7 "
	"WHERE p.upload_id OPERATOR(pg_catalog.=) $1 "
	"AND p.chunk_offset OPERATOR(pg_catalog.=) $2 "
	"AND p.chunk_length OPERATOR(pg_catalog.=) $3",
	.nargs = PART_COLUMN_COUNT, .argtypes = WRITE_ARGTYPES,
};

/* A page of the parts of a session, as upload_reclaim has them; null if there is none */
static Statement select_as_json = {
	.text = "SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object("
	"'offset', p.chunk_offset, 'length', p.chunk_length, "
	"'part_number', p.part_number, 'etag', p.etag) ORDER BY p.chunk_offset), "
	"pg_catalog.max(p.chunk_offset) "
	"FROM (SELECT * FROM @.upload_part AS q "
	"WHERE q.upload_id OPERATOR(pg_catalog.=) $1 "
	"AND q.chunk_offset OPERATOR(pg_catalog.>) $2 "
	"ORDER BY q.chunk_offset LIMIT $3) AS p",
	.nargs = 3, .argtypes = {TEXTOID, INT8OID, INT8OID},
	.many_rows = true,
};

/* ---------- the fast path ---------- */

/*
 * Open the table, if the fast path can be used; NULL if not.  The lock on it stays
 * until the end of the transaction.
 */
static Relation
open_part_table(const Store *store, LOCKMODE lockmode, AclMode mode)
{
	Relation	rel;
	const char *unsupported;

	if (store->rel == NULL)
		return NULL;
	rel = open_extension_table(TABLE_PART, lockmode);
	unsupported = table_info_get(rel, TABLE_PART)->unsupported;
	if (unsupported == NULL && may_access(rel, TABLE_PART, mode))
		return rel;
	report_indirect(TABLE_PART, unsupported);
	/* keep the lock, as SQL needs it too */
	table_close(rel, NoLock);
	return NULL;
}

/* Make a Part of a row's values, copied and detoasted. */
static void
values_to_part(const Datum *values, const bool *nulls, const int *map, Part *part)
{
	part->offset = DatumGetInt64(values[map[PART_CHUNK_OFFSET]]);
	part->length = DatumGetInt64(values[map[PART_CHUNK_LENGTH]]);
	part->number = nulls[map[PART_PART_NUMBER]] ? 0 :
		DatumGetInt32(values[map[PART_PART_NUMBER]]);
	part->etag = nulls[map[PART_ETAG]] ? NULL :
		DatumGetTextPCopy(values[map[PART_ETAG]]);
	part->checksum = nulls[map[PART_CHECKSUM]] ? NULL :
		DatumGetByteaPCopy(values[map[PART_CHECKSUM]]);
}

/* Find the last part that begins before an offset, in the order of the index. */
static bool
direct_find_last(Relation rel, const text *upload_id, int64 before, Part *part)
{
	const TableInfo *info = table_info_get(rel, TABLE_PART);
	Relation	index = index_open(info->key_index, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	ScanKeyData keys[2];
	IndexScanDesc scan;
	bool		found;

	init_text_key(&keys[0], index, upload_id);
	ScanKeyEntryInitialize(&keys[1], 0, 2, BTLessStrategyNumber, InvalidOid,
						   InvalidOid, F_INT8LT, Int64GetDatum(before));

	/* what was committed until the session was locked */
	PushActiveSnapshot(GetTransactionSnapshot());
	scan = begin_index_scan(rel, index, GetActiveSnapshot(), lengthof(keys));
	index_rescan(scan, keys, lengthof(keys), NULL, 0);
	found = index_getnext_slot(scan, BackwardScanDirection, slot);
	if (found)
	{
		slot_getallattrs(slot);
		values_to_part(slot->tts_values, slot->tts_isnull, info->map, part);
	}
	index_endscan(scan);
	PopActiveSnapshot();
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, NoLock);
	return found;
}

/* Collect the values of a part that is confirmed now, by PartColumn. */
static void
part_values(const text *upload_id, const Part *part, Datum *values, bool *nulls)
{
	memset(nulls, false, PART_COLUMN_COUNT * sizeof(bool));
	values[PART_UPLOAD_ID] = PointerGetDatum(upload_id);
	values[PART_CHUNK_OFFSET] = Int64GetDatum(part->offset);
	values[PART_CHUNK_LENGTH] = Int64GetDatum(part->length);
	values[PART_PART_NUMBER] = Int32GetDatum(part->number);
	nulls[PART_PART_NUMBER] = part->number == 0;
	values[PART_ETAG] = PointerGetDatum(part->etag);
	nulls[PART_ETAG] = part->etag == NULL;
	values[PART_CHECKSUM] = PointerGetDatum(part->checksum);
	nulls[PART_CHECKSUM] = part->checksum == NULL;
	values[PART_CONFIRMED_AT] = TimestampTzGetDatum(GetCurrentTimestamp());
}

/* Fill a slot with the row of a part. */
static void
part_to_slot(const TableInfo *info, const text *upload_id, const Part *part,
			 TupleTableSlot *slot)
{
	Datum		values[PART_COLUMN_COUNT];
	bool		nulls[PART_COLUMN_COUNT];

	part_values(upload_id, part, values, nulls);
	/* also columns that were added, or dropped */
	memset(slot->tts_isnull, true,
		   slot->tts_tupleDescriptor->natts * sizeof(bool));
	for (PartColumn column = 0; column < PART_COLUMN_COUNT; column++)
	{
		int			i = info->map[column];

		slot->tts_values[i] = values[column];
		slot->tts_isnull[i] = nulls[column];
	}
	ExecStoreVirtualTuple(slot);
}

/*
 * Insert a part; false if that violates a constraint, or might not fit, which SQL
 * reports.
 */
static bool
direct_insert_part(Relation rel, const text *upload_id, const Part *part)
{
	const TableInfo *info = table_info_get(rel, TABLE_PART);
	TupleTableSlot *slot;
	bool		satisfied;

	/* its column has room for as many characters; see find_part_columns() */
	if ((int) VARSIZE_ANY_EXHDR(upload_id) > column_limit(COLUMN_UPLOAD_ID))
		return false;
	slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
	part_to_slot(info, upload_id, part, slot);
	slot->tts_tableOid = RelationGetRelid(rel);
	satisfied = satisfies_constraints(info, slot, ALL_COLUMNS);
	if (satisfied)
		insert_row_directly(rel, slot);
	ExecDropSingleTupleTableSlot(slot);
	return satisfied;
}

/* ---------- either ---------- */

/* Find the last part of a session that begins before an offset. */
bool
part_find_last(Store *store, const text *upload_id, int64 before, Part *part)
{
	/* the statement returns the columns of upload_part in the order of PartColumn */
	static const int map[PART_COLUMN_COUNT] = {0, 1, 2, 3, 4, 5, 6};
	Relation	rel = open_part_table(store, AccessShareLock, ACL_SELECT);
	Datum		values[] = {
		PointerGetDatum(upload_id),
		Int64GetDatum(before),
	};
	SPITupleTable *table;
	bool		found;

	if (rel != NULL)
	{
		found = direct_find_last(rel, upload_id, before, part);
		table_close(rel, NoLock);
		return found;
	}
	store_use_sql(store);
	statement_run(&find_last, values, NULL, false);
	table = SPI_tuptable;
	found = SPI_processed > 0;
	if (found)
	{
		Datum		row[PART_COLUMN_COUNT];
		bool		nulls[PART_COLUMN_COUNT];

		heap_deform_tuple(table->vals[0], table->tupdesc, row, nulls);
		values_to_part(row, nulls, map, part);
	}
	SPI_freetuptable(table);
	return found;
}

/* Is a unique violation about the number of a part? */
static bool
is_duplicate_number(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_UNIQUE_VIOLATION &&
		error->table_name != NULL && error->constraint_name != NULL &&
		strcmp(error->table_name, table_name(TABLE_PART)) == 0 &&
		strcmp(error->constraint_name, "upload_part_number_idx") == 0;
}

/* Run a statement that writes a part. */
static void
sql_write_part(Store *store, Statement *statement, const text *upload_id,
			   const Part *part)
{
	Datum		values[PART_COLUMN_COUNT];
	bool		nulls[PART_COLUMN_COUNT];

	part_values(upload_id, part, values, nulls);
	store_use_sql(store);
	statement_run(statement, values, nulls, false);
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("could not write a part of upload \"%s\"",
						shown_text(upload_id)),
				 errdetail("A trigger, rule or row-level security policy on table \"%s\" suppressed the row.",
						   table_name(TABLE_PART))));
}

/*
 * Report the error of a write: a number that another part has as what it means to
 * the caller, all others as they are.
 */
pg_noreturn static void
report_write_error(MemoryContext context, const text *upload_id, const Part *part)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	if (!is_duplicate_number(error))
		PG_RE_THROW();
	FlushErrorState();
	ereport(ERROR,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
			 errmsg("upload \"%s\" has another part with number %d",
					shown_text(upload_id), part->number),
			 errhint("Give every part of an upload a number of its own."),
			 err_generic_string(PG_DIAG_SCHEMA_NAME, error->schema_name),
			 err_generic_string(PG_DIAG_TABLE_NAME, error->table_name),
			 err_generic_string(PG_DIAG_CONSTRAINT_NAME, error->constraint_name)));
}

/* Insert a part by the fast path; false if that is SQL's to do. */
static bool
try_direct_insert(Store *store, const text *upload_id, const Part *part)
{
	Relation	rel = open_part_table(store, RowExclusiveLock, ACL_INSERT);
	bool		inserted;

	if (rel == NULL)
		return false;
	inserted = direct_insert_part(rel, upload_id, part);
	table_close(rel, NoLock);
	return inserted;
}

/* Insert a part of a session, or give it new values. */
void
part_write(Store *store, PartChange change, const text *upload_id,
		   const Part *part)
{
	MemoryContext caller = CurrentMemoryContext;

	Assert(change != PART_UNCHANGED);
	PG_TRY();
	{
		if (change == PART_REPLACED)
			sql_write_part(store, &replace_one, upload_id, part);
		else if (!try_direct_insert(store, upload_id, part))
			sql_write_part(store, &insert_one, upload_id, part);
	}
	PG_CATCH();
	{
		report_write_error(caller, upload_id, part);
	}
	PG_END_TRY();
}

/*
 * Return the parts of a session behind an offset as a JSON array, so many at most,
 * and set the offset to that of the last one; null if there is none.
 */
Datum
parts_as_json(Store *store, const text *upload_id, int64 *after, int limit,
			  bool *is_null)
{
	Datum		values[] = {
		PointerGetDatum(upload_id),
		Int64GetDatum(*after),
		Int64GetDatum(limit),
	};
	Datum		json;

	store_use_sql(store);
	statement_run(&select_as_json, values, NULL, false);
	json = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, is_null);
	if (!*is_null)
	{
		json = datumCopy(json, false, -1);
		*after = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
											 SPI_tuptable->tupdesc, 2, is_null));
	}
	SPI_freetuptable(SPI_tuptable);
	return json;
}
