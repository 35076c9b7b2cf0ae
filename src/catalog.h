/*-------------------------------------------------------------------------
 *
 * catalog.h
 *		Where the extension's own objects are.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_CATALOG_H
#define VALI_BLOB_CATALOG_H

#include "session.h"

typedef struct Catalog
{
	uint64		generation;		/* differs whenever anything below does */
	Oid			schema_oid;
	char	   *schema;			/* quoted, for SQL text */
	Oid			session_table;
	Oid			reclaim_table;
	Oid			chunk_result_type;
	Oid			status_type;
	Oid			status_labels[STATUS_COUNT];
	Oid			outcome_labels[OUTCOME_COUNT];
} Catalog;

extern const Catalog *catalog_get(void);
extern void catalog_forget(void);
extern uint64 catalog_version(void);
extern Datum status_to_datum(SessionStatus status);
extern SessionStatus status_from_datum(Datum label);

#endif							/* VALI_BLOB_CATALOG_H */
