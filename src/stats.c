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
#include "utils/tuplestore.h"

#include "arguments.h"
#include "catalog.h"
#include "statement.h"

PG_FUNCTION_INFO_V1(vali_blob_read_upload_stats);

#define STATS_COLUMNS 6

static Statement read_stats = {
	.text = "SELECT l.status, COALESCE(s.sessions, 0), COALESCE(s.bytes, 0), "
	"CASE WHEN l.is_live THEN COALESCE(s.bytes, 0) ELSE 0 END, "
	"CASE WHEN l.is_live THEN s.first_expires_at END, "
	"COALESCE(r.backlog, 0) "
	"FROM (SELECT status, status OPERATOR(pg_catalog.=) 'pending' "
	"OR status OPERATOR(pg_catalog.=) 'in_progress' AS is_live "
	"FROM pg_catalog.unnest(pg_catalog.enum_range(NULL::@.upload_status)) AS status) AS l "
	"LEFT JOIN (SELECT status, pg_catalog.count(*) AS sessions, "
	"pg_catalog.sum(uploaded_bytes)::pg_catalog.int8 AS bytes, "
	"pg_catalog.min(expires_at) AS first_expires_at "
	"FROM @.upload_session GROUP BY status) AS s "
	"ON s.status OPERATOR(pg_catalog.=) l.status "
	"LEFT JOIN (SELECT reason, pg_catalog.count(*) AS backlog "
	"FROM @.upload_reclaim GROUP BY reason) AS r "
	"ON r.reason OPERATOR(pg_catalog.=) l.status "
	"ORDER BY l.status",
	.nargs = 0,
	.many_rows = true,
};

/* Read the statistics into the result. */
static void
put_stats(ReturnSetInfo *rsinfo)
{
	SPITupleTable *table;

	spi_open();
	statement_run(&read_stats, NULL, NULL, true);
	table = SPI_tuptable;
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		Datum		values[MaxTupleAttributeNumber];
		bool		nulls[MaxTupleAttributeNumber];

		/* also columns that a later version has appended */
		memset(nulls, true, rsinfo->setDesc->natts * sizeof(bool));
		for (int i = 0; i < STATS_COLUMNS; i++)
			values[i] = SPI_getbinval(table->vals[row], table->tupdesc, i + 1,
									  &nulls[i]);
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
	table_close(sessions, NoLock);
	table_close(reclaims, NoLock);
	InitMaterializedSRF(fcinfo, 0);

	/* policies of row-level security are for clients */
	caller = enter_owner(owner);
	put_stats((ReturnSetInfo *) fcinfo->resultinfo);
	leave_owner(&caller);
	return (Datum) 0;
}
