/*-------------------------------------------------------------------------
 *
 * catalog.h
 *		The extension's own objects.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_CATALOG_H
#define VALI_BLOB_CATALOG_H

#include "storage/lockdefs.h"
#include "utils/relcache.h"

#include "session.h"

#define EXTENSION_NAME "vali_blob"

/* The extension's tables; catalog.c has their names. */
typedef enum ExtensionTable
{
	TABLE_SESSION,
	TABLE_RECLAIM,
	TABLE_PART,
	TABLE_QUOTA,
	TABLE_LIVE
} ExtensionTable;

#define TABLE_COUNT (TABLE_LIVE + 1)

/* Those before it are granted to clients. */
#define CLIENT_TABLE_COUNT (TABLE_PART + 1)

typedef struct Catalog
{
	uint64		generation;		/* differs whenever anything below does */
	const char *schema;			/* quoted, for SQL text */
	Oid			tables[TABLE_COUNT];	/* see has_table() */
	Oid			chunk_result_type;
	Oid			lease_type;		/* of 1.1 */
	Oid			status_type;
	Oid			status_labels[STATUS_COUNT];
	Oid			outcome_labels[OUTCOME_COUNT];
} Catalog;

extern const Catalog *catalog_get(void);
extern bool has_objects_of_1_1(void);
extern bool has_table(ExtensionTable table);
extern const char *table_name(ExtensionTable table);
extern Relation open_extension_table(ExtensionTable table, LOCKMODE lockmode);
extern bool id_of_value(int64 value, int64 *id);
extern int64 new_row_id(ExtensionTable table);
extern uint64 catalog_invalidations(void);
extern const char *status_name(SessionStatus status);
extern Datum status_to_datum(SessionStatus status);
extern SessionStatus status_from_datum(Datum label);
extern Datum outcome_to_datum(Outcome outcome);

#endif							/* VALI_BLOB_CATALOG_H */
