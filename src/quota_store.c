/*-------------------------------------------------------------------------
 *
 * quota_store.c
 *		The limits of owners, and what their live sessions use: access to the
 *		rows of upload_quota and upload_live.
 *
 * No index tells which sessions of an owner are live, as status is in none (see
 * the installation script), and there may be a million that have ended.  So once a
 * limit holds for an owner, upload_live has a row for each of its live sessions:
 * inserted with the session, deleted when it ends, by the transaction that does
 * so.  A counter for each owner would take less room, but whoever ends a session
 * would have to lock it, while another transaction that has started one holds
 * that lock, and waits for the session.
 *
 * Starts of one owner lock the owner (LockDatabaseObject(), until the end of the
 * transaction) and then see what others have committed, whatever the isolation
 * level.  So do declare_upload_size(), before it locks its session, and
 * set_upload_quota().  Sessions are locked after the owner only when counting them
 * begins, in the order of their upload_id; so a single call cannot deadlock with
 * another one, nor with a sweep.
 *
 * What the rows tell may differ from the sessions after somebody has changed or
 * deleted sessions by hand.  So before a start is refused, the sessions that they
 * name are looked at, and rows without a live session are deleted.
 *
 * Clients need no privileges on the two tables, and policies on upload_session do
 * not make a session count less: all of this runs as the owner of the table.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "arguments.h"
#include "catalog.h"
#include "compat.h"
#include "lifecycle.h"
#include "quota_store.h"
#include "settings.h"
#include "statement.h"
#include "table_info.h"
#include "table_safety.h"

static Statement select_quota = {
	.text = "SELECT q.max_upload_size::pg_catalog.int8, q.max_live_uploads::pg_catalog.int8, "
	"q.max_live_bytes::pg_catalog.int8, q.counted::pg_catalog.int4::pg_catalog.int8 "
	"FROM @.upload_quota AS q WHERE q.owner OPERATOR(pg_catalog.=) $1",
	.nargs = 1, .argtypes = {TEXTOID},
};

static Statement mark_counted = {
	.text = "INSERT INTO @.upload_quota AS q (owner, counted) VALUES ($1, true) "
	"ON CONFLICT (owner) DO UPDATE SET counted = true",
	.nargs = 1, .argtypes = {TEXTOID},
};

static Statement count_live = {
	.text = "SELECT pg_catalog.count(*), " BYTES_SUM("l.bytes") ", 0::pg_catalog.int8 "
	"FROM @.upload_live AS l WHERE l.owner OPERATOR(pg_catalog.=) $1 "
	"AND (l.expires_at IS NULL OR l.expires_at OPERATOR(pg_catalog.>) $2)",
	.nargs = 2, .argtypes = {TEXTOID, TIMESTAMPTZOID},
	.many_rows = true,
};

static Statement select_live_ids = {
	.text = "SELECT pg_catalog.array_agg(l.upload_id::pg_catalog.text) "
	"FROM @.upload_live AS l WHERE l.owner OPERATOR(pg_catalog.=) $1",
	.nargs = 1, .argtypes = {TEXTOID},
	.many_rows = true,
};

#define IS_LIVE \
	"(s.status OPERATOR(pg_catalog.=) 'pending' OR s.status OPERATOR(pg_catalog.=) 'in_progress')"

/* See session_promised_bytes(). */
#define PROMISED_BYTES "COALESCE(s.total_size, s.size_limit, 0)"

/* Live, and not past its deadline */
#define IS_COUNTED \
	IS_LIVE " AND (s.expires_at IS NULL OR s.expires_at OPERATOR(pg_catalog.>) $2)"

/*
 * What an owner's sessions with some ids use; also those of the ids without a live
 * session of the owner
 */
#define USAGE_OF_IDS \
	"SELECT pg_catalog.count(*) FILTER (WHERE " IS_COUNTED "), " \
	BYTES_SUM("CASE WHEN " IS_COUNTED " THEN " PROMISED_BYTES " END") ", " \
	BYTES_SUM("CASE WHEN " IS_COUNTED " THEN s.uploaded_bytes END") ", " \
	"pg_catalog.array_agg(w.upload_id) FILTER (WHERE (" IS_LIVE ") IS NOT TRUE) " \
	"FROM pg_catalog.unnest($1) AS w (upload_id) " \
	"LEFT JOIN @.upload_session AS s ON s.upload_id OPERATOR(pg_catalog.=) w.upload_id " \
	"AND s.owner OPERATOR(pg_catalog.=) $3"

#define ARGS_OF_IDS \
	.nargs = 3, .argtypes = {TEXTARRAYOID, TIMESTAMPTZOID, TEXTOID}, .many_rows = true

/* As the owner of upload_session, and as a client */
static Statement usage_of_ids = {.text = USAGE_OF_IDS, ARGS_OF_IDS};
static Statement visible_usage_of_ids = {.text = USAGE_OF_IDS, ARGS_OF_IDS};

static Statement visible_usage_of_owner = {
	.text = "SELECT pg_catalog.count(*), " BYTES_SUM(PROMISED_BYTES) ", "
	BYTES_SUM("s.uploaded_bytes") " "
	"FROM @.upload_session AS s WHERE s.owner OPERATOR(pg_catalog.=) $1 AND " IS_COUNTED,
	.nargs = 2, .argtypes = {TEXTOID, TIMESTAMPTZOID},
	.many_rows = true,
};

/*
 * The live sessions of an owner.  Whoever is changing one of them has locked it FOR
 * UPDATE; so we see what comes of that, and later changes find our rows.
 */
static Statement select_live_sessions = {
	.text = "SELECT pg_catalog.array_agg(l.upload_id), pg_catalog.array_agg(l.bytes), "
	"pg_catalog.array_agg(l.expires_at) "
	"FROM (SELECT s.upload_id::pg_catalog.text, " PROMISED_BYTES ", s.expires_at "
	"FROM @.upload_session AS s "
	"WHERE s.owner OPERATOR(pg_catalog.=) $1 AND " IS_LIVE " "
	"ORDER BY s.upload_id FOR SHARE) AS l (upload_id, bytes, expires_at)",
	.nargs = 1, .argtypes = {TEXTOID},
	.many_rows = true,
};

/* A row may be that of a session that was deleted by hand. */
#define REPLACE_ROW \
	" ON CONFLICT (upload_id) DO UPDATE " \
	"SET owner = excluded.owner, bytes = excluded.bytes, expires_at = excluded.expires_at"

static Statement insert_live_sessions = {
	.text = "INSERT INTO @.upload_live (owner, upload_id, bytes, expires_at) "
	"SELECT $1, u.upload_id, u.bytes, u.expires_at "
	"FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4)) "
	"AS u (upload_id, bytes, expires_at)" REPLACE_ROW,
	.nargs = 4,
	.argtypes = {TEXTOID, TEXTARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID},
	.many_rows = true,
};

static Statement insert_live = {
	.text = "INSERT INTO @.upload_live (owner, upload_id, bytes, expires_at) "
	"VALUES ($1, $2, $3, $4)" REPLACE_ROW,
	.nargs = 4, .argtypes = {TEXTOID, TEXTOID, INT8OID, TIMESTAMPTZOID},
};

static Statement update_live = {
	.text = "UPDATE @.upload_live AS l SET bytes = $2, expires_at = $3 "
	"WHERE l.upload_id OPERATOR(pg_catalog.=) $1",
	.nargs = 3, .argtypes = {TEXTOID, INT8OID, TIMESTAMPTZOID},
};

static Statement delete_live = {
	.text = "DELETE FROM @.upload_live AS l "
	"WHERE l.upload_id OPERATOR(pg_catalog.=) $1",
	.nargs = 1, .argtypes = {TEXTOID},
};

static Statement delete_live_ids = {
	.text = "DELETE FROM @.upload_live AS l "
	"WHERE l.upload_id OPERATOR(pg_catalog.=) ANY ($1) "
	"AND l.owner OPERATOR(pg_catalog.=) $2",
	.nargs = 2, .argtypes = {TEXTARRAYOID, TEXTOID},
	.many_rows = true,
};

/* ---------- running statements ---------- */

/* Does an index lead to a row with a key that a snapshot sees? */
static bool
has_indexed_row(Relation rel, Relation index, const text *key, Snapshot snapshot)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	ScanKeyData scan_key;
	IndexScanDesc scan;
	bool		found;

	init_text_key(&scan_key, index, key);
	scan = begin_index_scan(rel, index, snapshot, 1);
	index_rescan(scan, &scan_key, 1, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, slot);
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return found;
}

/*
 * May a table have a row with a key?  *is_changing: another transaction, which is
 * still in progress, has inserted or changed it.  Cheap, so that an owner without a
 * limit pays for no more than a look into an index, or two, and for less where
 * nobody has a limit: such a table has no block.
 */
static bool
may_have_row(ExtensionTable table, const text *key, bool *is_changing)
{
	Relation	rel;
	const TableInfo *info;
	bool		found = true;

	*is_changing = false;
	if (!has_objects_of_1_1())
		return false;
	rel = open_extension_table(table, AccessShareLock);
	info = table_info_get(rel, table);
	if (info->unsupported == NULL && RelationGetNumberOfBlocks(rel) == 0)
		found = false;
	else if (info->unsupported == NULL)
	{
		Relation	index = index_open(info->key_index, AccessShareLock);
		SnapshotData snapshot;

		InitDirtySnapshot(snapshot);
		found = has_indexed_row(rel, index, key, &snapshot);
		*is_changing = found && (TransactionIdIsValid(snapshot.xmin) ||
								 TransactionIdIsValid(snapshot.xmax));

		/*
		 * That misses a row whose update is committed after we have read the
		 * index, which did not have the new version yet, and before we look at
		 * the old one, which is dead now.  A row of upload_live is only changed
		 * by whoever has locked its session, as our caller has.
		 */
		if (!found && table == TABLE_QUOTA)
		{
			Snapshot	latest = RegisterSnapshot(GetLatestSnapshot());

			found = has_indexed_row(rel, index, key, latest);
			UnregisterSnapshot(latest);
		}
		index_close(index, NoLock);
	}
	table_close(rel, NoLock);
	return found;
}

/*
 * Read a table as its owner.  That sees what is committed now, or what the calling
 * query sees.
 */
static void
read_as_owner(ExtensionTable table, Statement *statement, const Datum *values,
			  const bool *nulls, bool latest)
{
	Relation	rel = open_extension_table(table, AccessShareLock);
	Oid			owner = rel->rd_rel->relowner;
	CallerState caller;

	check_table_owner(rel, owner);
	table_close(rel, NoLock);
	caller = enter_owner(owner);
	if (latest)
		statement_run_latest(statement, values, nulls);
	else
		statement_run(statement, values, nulls, true);
	leave_owner(&caller);
}

/*
 * Change a table as its owner.  That runs no code of others as a superuser, however
 * ordinary the role of the session.
 */
static void
change_as_owner(ExtensionTable table, Statement *statement, const Datum *values,
				const bool *nulls, int changes)
{
	Relation	rel = open_extension_table(table, RowExclusiveLock);
	Oid			owner = rel->rd_rel->relowner;
	CallerState caller;

	check_table_owner(rel, owner);
	if (superuser_arg(owner) &&
		(rel->trigdesc != NULL || rel->rd_rules != NULL || rel->rd_rel->relhassubclass))
	{
		SafetyCheck check = {0};

		check_changes(&check, RelationGetRelid(rel), changes);
	}
	table_close(rel, NoLock);
	caller = enter_owner(owner);
	statement_run_latest(statement, values, nulls);
	leave_owner(&caller);
}

/* Return an array of the one row that a statement returned, copied. */
static Datum
fetch_array(int column, bool *is_null)
{
	Datum		array = SPI_getbinval(SPI_tuptable->vals[0],
									  SPI_tuptable->tupdesc, column, is_null);

	return *is_null ? (Datum) 0 : datumCopy(array, false, -1);
}

/* Return a number of the one row that a statement returned. */
static int64
fetch_number(int column)
{
	bool		is_null;
	Datum		number = SPI_getbinval(SPI_tuptable->vals[0],
									   SPI_tuptable->tupdesc, column, &is_null);

	return is_null ? LIMIT_NONE : DatumGetInt64(number);
}

/* Return the usage that a statement returned. */
static Usage
fetch_usage(void)
{
	Usage		usage = {
		.live_uploads = fetch_number(1),
		.live_bytes = fetch_number(2),
		.confirmed_bytes = fetch_number(3),
	};

	return usage;
}

/* ---------- limits ---------- */

/* Return a limit of the row that a statement returned, or the setting if null. */
static int64
fetch_limit(int column, int64 setting)
{
	return heap_attisnull(SPI_tuptable->vals[0], column, NULL) ? setting :
		fetch_number(column);
}

/* Does a limit hold for what an owner has? */
static bool
has_live_limits(const Quota *quota)
{
	return quota->max_live_uploads != LIMIT_NONE ||
		quota->max_live_bytes != LIMIT_NONE;
}

/* Report that a setting needs what the installed SQL does not have. */
pg_noreturn static void
report_missing_quotas(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("limits on uploads need version 1.1 of extension \"%s\"",
					EXTENSION_NAME),
			 errhint("Run ALTER EXTENSION %s UPDATE, or set vali_blob.max_upload_size, vali_blob.max_live_uploads and vali_blob.max_live_bytes to -1.",
					 EXTENSION_NAME)));
}

/*
 * Return the limits that hold for an owner, which may be NULL; as committed now, or
 * as the calling query sees them.
 */
Quota
quota_read(const text *owner, bool latest)
{
	Datum		value = PointerGetDatum(owner);
	Quota		quota = {
		.max_upload_size = (int64) max_upload_size_setting,
		.max_live_uploads = owner == NULL ? LIMIT_NONE : max_live_uploads_setting,
		.max_live_bytes = owner == NULL ? LIMIT_NONE : (int64) max_live_bytes_setting,
	};

	if (!has_objects_of_1_1())
	{
		if (has_live_limits(&quota) || quota.max_upload_size != LIMIT_NONE)
			report_missing_quotas();
		return quota;
	}
	if (owner == NULL ||
		(latest && !may_have_row(TABLE_QUOTA, owner, &quota.is_changing)))
		return quota;

	spi_open();
	read_as_owner(TABLE_QUOTA, &select_quota, &value, NULL, latest);
	if (SPI_processed > 0)
	{
		/* one upload may have as many as both allow */
		quota.max_upload_size = lesser_limit(quota.max_upload_size,
											 fetch_limit(1, LIMIT_NONE));
		quota.max_live_uploads = fetch_limit(2, quota.max_live_uploads);
		quota.max_live_bytes = fetch_limit(3, quota.max_live_bytes);
		quota.is_counted = fetch_number(4) == 1;
	}
	spi_close();
	return quota;
}

/* ---------- usage ---------- */

/* Insert rows for the live sessions of an owner; from now on they are kept up. */
static void
begin_counting(const text *owner)
{
	Datum		values[4] = {PointerGetDatum(owner)};
	bool		nulls[4] = {0};

	read_as_owner(TABLE_SESSION, &select_live_sessions, values, NULL, true);
	for (int i = 1; i <= 3; i++)
		values[i] = fetch_array(i, &nulls[i]);
	/* the arrays are null if there is no session */
	if (!nulls[1])
		change_as_owner(TABLE_LIVE, &insert_live_sessions, values, NULL, CHANGE_INSERT | CHANGE_UPDATE);
	change_as_owner(TABLE_QUOTA, &mark_counted, values, NULL, CHANGE_INSERT | CHANGE_UPDATE);
}

/*
 * Lock an owner, so that nobody else starts sessions of it under a limit until the
 * end of the transaction.  Taken before any row of upload_quota.
 */
void
quota_lock(const text *owner)
{
	check_owner_length(unconstify(text *, owner));
	/* a hash collision only makes two owners wait for each other */
	LockDatabaseObject(catalog_get()->tables[TABLE_QUOTA],
					   hash_bytes((const unsigned char *) VARDATA_ANY(owner),
								  VARSIZE_ANY_EXHDR(owner)),
					   0, ExclusiveLock);
}

/*
 * Return the limits that hold for an owner.  If they are about live sessions, lock
 * the owner and count them.
 */
Quota
quota_claim(const text *owner)
{
	Quota		quota = quota_read(owner, true);
	Datum		values[2] = {PointerGetDatum(owner)};

	if (!has_live_limits(&quota) && !quota.is_changing)
		return quota;

	Assert(owner != NULL);
	quota_lock(owner);
	quota = quota_read(owner, true);
	if (!has_live_limits(&quota))
		return quota;
	spi_open();
	if (!quota.is_counted)
		begin_counting(owner);
	quota.is_counted = true;
	values[1] = TimestampTzGetDatum(GetCurrentTimestamp());
	read_as_owner(TABLE_LIVE, &count_live, values, NULL, true);
	quota.usage = fetch_usage();
	spi_close();
	return quota;
}

/*
 * Return what the live sessions of an owner use that upload_live names, as the
 * sessions themselves tell.  Rows without a live session are deleted.
 */
Usage
quota_verify_usage(const text *owner)
{
	Datum		values[3] = {PointerGetDatum(owner)};
	Usage		usage = {0};
	bool		is_null;

	spi_open();
	read_as_owner(TABLE_LIVE, &select_live_ids, values, NULL, true);
	values[0] = fetch_array(1, &is_null);
	if (!is_null)
	{
		values[1] = TimestampTzGetDatum(GetCurrentTimestamp());
		values[2] = PointerGetDatum(owner);
		read_as_owner(TABLE_SESSION, &usage_of_ids, values, NULL, true);
		usage = fetch_usage();
		values[0] = fetch_array(4, &is_null);
		values[1] = PointerGetDatum(owner);
		if (!is_null)
			change_as_owner(TABLE_LIVE, &delete_live_ids, values, NULL, CHANGE_DELETE);
	}
	spi_close();
	return usage;
}

/* Return what the live sessions of an owner use that the caller may see. */
Usage
quota_visible_usage(const text *owner, bool is_counted)
{
	Datum		values[] = {
		PointerGetDatum(owner),
		TimestampTzGetDatum(GetCurrentTimestamp()),
		PointerGetDatum(owner),
	};
	Usage		usage = {0};
	bool		is_null = false;

	spi_open();
	if (is_counted)
	{
		read_as_owner(TABLE_LIVE, &select_live_ids, values, NULL, false);
		values[0] = fetch_array(1, &is_null);
	}
	if (!is_null)
	{
		statement_run(is_counted ? &visible_usage_of_ids : &visible_usage_of_owner,
					  values, NULL, true);
		usage = fetch_usage();
	}
	spi_close();
	return usage;
}

/* ---------- live sessions ---------- */

/* Insert the row of a live session, whose owner's sessions are counted. */
void
insert_live_row(const Session *session)
{
	Datum		values[] = {
		PointerGetDatum(session->owner),
		PointerGetDatum(session->upload_id),
		Int64GetDatum(session_promised_bytes(session)),
		TimestampTzGetDatum(session->expires_at),
	};
	bool		nulls[] = {false, false, false, session->expires_at == EXPIRES_NEVER};

	Assert(session->owner != NULL && status_is_live(session->status));
	spi_open();
	change_as_owner(TABLE_LIVE, &insert_live, values, nulls, CHANGE_INSERT | CHANGE_UPDATE);
	spi_close();
}

/* Does a change of a session concern what a row of upload_live tells of it? */
static bool
concerns_live_row(const Session *before, const Session *after)
{
	return before->owner != NULL && status_is_live(before->status) &&
		(!status_is_live(after->status) ||
		 before->expires_at != after->expires_at ||
		 session_promised_bytes(before) != session_promised_bytes(after));
}

/* Keep the row of a session up, if it has one. */
void
update_live_row(const Session *before, const Session *after)
{
	Datum		values[3];
	bool		nulls[] = {false, false, after->expires_at == EXPIRES_NEVER};
	bool		is_changing;

	if (!concerns_live_row(before, after) ||
		!may_have_row(TABLE_LIVE, after->upload_id, &is_changing))
		return;
	values[0] = PointerGetDatum(after->upload_id);
	values[1] = Int64GetDatum(session_promised_bytes(after));
	values[2] = TimestampTzGetDatum(after->expires_at);
	spi_open();
	if (status_is_live(after->status))
		change_as_owner(TABLE_LIVE, &update_live, values, nulls, CHANGE_UPDATE);
	else
		change_as_owner(TABLE_LIVE, &delete_live, values, nulls, CHANGE_DELETE);
	spi_close();
}
