/*-------------------------------------------------------------------------
 *
 * stats.c
 *		What the view upload_stats shows.
 *
 * A view would stay bound to the tables that it was created for, even if others
 * have taken their names (partitioned ones, for example).  So the view calls a
 * function, which finds the tables by name as all others do.
 *
 * The function reads as the owner of the tables, so that a monitoring role needs
 * no privilege on them.  Only tables are read, not views: reading a table runs
 * nobody's code as its owner.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "arguments.h"
#include "catalog.h"
#include "count.h"
#include "statement.h"

PG_FUNCTION_INFO_V1(vali_blob_read_upload_stats);

#define STATS_COLUMNS 10

/* Those of 1.0, which cannot say that a figure is of before */
#define STATS_COLUMNS_1_0 6

/* Every status, and the rows of the reclaim queue whose session has ended so */
static Statement read_statuses = {
	.text = "SELECT l.status, l.status OPERATOR(pg_catalog.=) 'pending' "
	"OR l.status OPERATOR(pg_catalog.=) 'in_progress', "
	"COALESCE(r.backlog, 0), r.oldest, r.attempts "
	"FROM pg_catalog.unnest(pg_catalog.enum_range(NULL::@.upload_status)) AS l (status) "
	"LEFT JOIN (SELECT reason, pg_catalog.count(*) AS backlog, "
	"pg_catalog.min(enqueued_at) AS oldest, pg_catalog.max(attempts) AS attempts "
	"FROM @.upload_reclaim GROUP BY reason) AS r "
	"ON r.reason OPERATOR(pg_catalog.=) l.status "
	"ORDER BY l.status",
	.nargs = 0,
	.many_rows = true,
};

/* Find what was counted of a status; NULL: there is none. */
static const StatusCount *
find_count(const List *counts, Datum status)
{
	ListCell   *cell;

	foreach(cell, counts)
	{
		const StatusCount *count = lfirst(cell);

		if (DatumGetObjectId(count->status) == DatumGetObjectId(status))
			return count;
	}
	return NULL;
}

/* Make a row of the view, of a row of read_statuses and what was counted. */
static void
fill_row(HeapTuple tuple, TupleDesc desc, const SessionCount *counts,
		 Datum *values, bool *nulls)
{
	Datum		status = SPI_getbinval(tuple, desc, 1, &nulls[0]);
	bool		is_null;
	bool		is_live = DatumGetBool(SPI_getbinval(tuple, desc, 2, &is_null));
	const StatusCount *count = find_count(is_live ? counts->live : counts->ended,
										  status);
	bool		has_deadline = is_live && count != NULL && count->has_deadline;
	bool		is_exact = is_live ? counts->is_live_exact : counts->is_ended_exact;

	memset(nulls, false, STATS_COLUMNS * sizeof(bool));
	values[0] = status;
	values[1] = Int64GetDatum(count == NULL ? 0 : count->sessions);
	values[2] = Int64GetDatum(count == NULL ? 0 : count->bytes);
	values[3] = is_live ? values[2] : Int64GetDatum(0);
	nulls[4] = !has_deadline;
	values[4] = has_deadline ? TimestampTzGetDatum(count->first_expires_at) : (Datum) 0;
	values[5] = SPI_getbinval(tuple, desc, 3, &nulls[5]);
	values[6] = SPI_getbinval(tuple, desc, 4, &nulls[6]);
	values[7] = SPI_getbinval(tuple, desc, 5, &nulls[7]);
	values[8] = BoolGetDatum(!is_exact);
	values[9] = TimestampTzGetDatum(is_live ? counts->live_at : counts->ended_at);
}

/* Read the statistics into the result. */
static void
put_stats(Relation sessions, ReturnSetInfo *rsinfo)
{
	int			natts = rsinfo->setDesc->natts;
	SessionCount counts;
	SPITupleTable *table;

	spi_open();
	count_sessions(sessions, natts <= STATS_COLUMNS_1_0, &counts);
	statement_run(&read_statuses, NULL, NULL, true);
	table = SPI_tuptable;
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		Datum		values[MaxTupleAttributeNumber];
		bool		nulls[MaxTupleAttributeNumber];

		/* also columns that a later version has appended */
		memset(nulls, true, Max(natts, STATS_COLUMNS) * sizeof(bool));
		fill_row(table->vals[row], table->tupdesc, &counts, values, nulls);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	spi_close();
}

/* read_upload_stats(): the rows of upload_stats */
Datum
vali_blob_read_upload_stats(PG_FUNCTION_ARGS)
{
	Relation	sessions;
	Relation	reclaims;
	Oid			owner;
	CallerState caller;

	check_unknown_arguments(fcinfo, 0);
	sessions = open_extension_table(TABLE_SESSION, AccessShareLock);
	reclaims = open_extension_table(TABLE_RECLAIM, AccessShareLock);
	owner = sessions->rd_rel->relowner;
	check_table_owner(sessions, owner);
	check_table_owner(reclaims, owner);
	table_close(reclaims, NoLock);
	/* the function may have been dropped since the query began */
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);

	/* policies of row-level security are for clients */
	caller = enter_owner(owner);
	put_stats(sessions, (ReturnSetInfo *) fcinfo->resultinfo);
	leave_owner(&caller);
	table_close(sessions, NoLock);
	return (Datum) 0;
}
