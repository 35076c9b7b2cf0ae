/*-------------------------------------------------------------------------
 *
 * statement.h
 *		SQL statements whose plans are kept for the life of the backend.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_STATEMENT_H
#define VALI_BLOB_STATEMENT_H

#include "catalog/pg_type.h"
#include "datatype/timestamp.h"
#include "executor/spi.h"

#include "catalog.h"

/* Enough for an UPDATE of all columns, and the key */
#define STATEMENT_MAX_ARGS (COLUMN_COUNT + 1)

/*
 * A statement and its plan.  In the text "@." stands for our schema and a dot,
 * among the argument types InvalidOid for upload_status.
 *
 * A statement that writes a row of a table can return it.  All its columns are
 * named then: a whole-row reference is not of the table's row type where another
 * extension runs the statement on another table, a shard.
 */
typedef struct Statement
{
	const char *text;
	int			nargs;
	Oid			argtypes[STATEMENT_MAX_ARGS];
	bool		many_rows;		/* plan it for the values of its arguments */
	bool		returns_row;	/* RETURNING the row, as the row type of ... */
	ExtensionTable table;		/* ... this table, which is locked */
	uint64		generation;		/* the catalog's, when it was planned */
	uint64		row_version;	/* the row type's, if it returns a row */
	const char *returning;		/* the RETURNING clause of the plan */
	SPIPlanPtr	plan;
} Statement;

/*
 * A scan of rows that were due at a point in time, from a position on.  Rows of
 * the position that the limit left out are met when a scan starts from the
 * beginning again.
 */
#define SELECT_DUE(table, due_at, condition) \
	{ \
		.text = "SELECT r.upload_id::pg_catalog.text, " due_at ", r.id " \
		"FROM @." table " AS r " \
		"WHERE (" due_at ", r.id) OPERATOR(pg_catalog.>) ($1, $2) " \
		"AND " due_at " OPERATOR(pg_catalog.<=) $3 AND (" condition ") " \
		"ORDER BY " due_at ", r.id LIMIT $4", \
		.nargs = 4, \
		.argtypes = {TIMESTAMPTZOID, INT8OID, TIMESTAMPTZOID, INT8OID}, \
		.many_rows = true, \
	}

/* A sum of bytes, which may exceed the range of bigint */
#define BYTES_SUM(bytes) \
	"LEAST(COALESCE(pg_catalog.sum(" bytes "), 0), 9223372036854775807)::pg_catalog.int8"

/* What such a scan returns of a row */
typedef struct DueKey
{
	text	   *upload_id;		/* NULL: null */
	TimestampTz due_at;
	int64		id;				/* PG_INT64_MAX: null, which sorts last */
} DueKey;

/* What enter_owner() has changed */
typedef struct CallerState
{
	Oid			user;
	int			security;
	int			guc_level;
} CallerState;

extern void check_table_owner(Relation rel, Oid owner);
extern CallerState enter_owner(Oid owner);
extern void leave_owner(const CallerState *caller);
extern void spi_open(void);
extern void spi_close(void);
extern void spi_utility(const char *command);
extern ErrorData *in_subtransaction(void (*task) (void *), void *argument);
extern char *expand_schema(const char *text, const char *schema);
extern void statement_run(Statement *statement, const Datum *values,
						  const bool *nulls, bool read_only);
extern void statement_run_latest(Statement *statement, const Datum *values,
								 const bool *nulls);
extern Portal statement_open(Statement *statement, const Datum *values,
							 bool read_only);
extern bool statement_fetch(Portal portal);
extern uint64 statement_fetch_many(Portal portal, int count);
extern bool statement_fetch_due(Portal portal, DueKey *key);

#endif							/* VALI_BLOB_STATEMENT_H */
