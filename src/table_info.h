/*-------------------------------------------------------------------------
 *
 * table_info.h
 *		What is cached about the tables for the fast path.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_TABLE_INFO_H
#define VALI_BLOB_TABLE_INFO_H

#include "access/skey.h"
#include "executor/tuptable.h"
#include "nodes/bitmapset.h"
#include "nodes/execnodes.h"
#include "utils/relcache.h"

#include "catalog.h"
#include "session.h"

/* An expression, and what it is evaluated with */
typedef struct TableExpr
{
	Expr	   *expr;
	ExprState  *state;			/* NULL: not prepared yet */
} TableExpr;

/* A CHECK constraint */
typedef struct CheckInfo
{
	TableExpr	expr;
	Bitmapset  *attributes;		/* what it depends on; NULL: anything */
} CheckInfo;

/* An attribute that we do not set */
typedef struct DefaultInfo
{
	int			index;
	TableExpr	expr;			/* its default; NULL: null */
} DefaultInfo;

typedef struct TableInfo
{
	Oid			relid;
	uint64		valid_for;		/* catalog_invalidations(); 0: for nothing */
	MemoryContext context;		/* of what follows */
	const char *unsupported;	/* why the fast path cannot be used, or NULL */
	Oid			key_index;		/* the unique index on the key */
	int			map[COLUMN_COUNT];	/* where the columns are, by SessionColumn, or
									 * by PartColumn for upload_part */
	CheckInfo  *checks;
	int			check_count;
	ExprContext *econtext;		/* to evaluate expressions in */
	bool		has_foreign_keys;	/* from the table to others */
	bool		can_combine;	/* no index could reject a version of a row */
	bool		can_insert;		/* the fast path can also insert rows */
	DefaultInfo *defaults;
	int			default_count;
} TableInfo;

extern void init_text_key(ScanKey key, Relation index, const text *value);
extern const TableInfo *table_info_get(Relation rel, ExtensionTable table);
extern bool satisfies_constraints(const TableInfo *info, TupleTableSlot *slot,
								  ColumnSet changed);
extern void fill_defaults(const TableInfo *info, ColumnSet columns,
						  TupleTableSlot *slot);

#endif							/* VALI_BLOB_TABLE_INFO_H */
