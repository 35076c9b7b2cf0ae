/*-------------------------------------------------------------------------
 *
 * part_store.h
 *		Access to the rows of upload_part.
 *
 * All of them are about the parts of one session, which the caller has locked:
 * so nobody else adds, replaces or removes any of them meanwhile.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_PART_STORE_H
#define VALI_BLOB_PART_STORE_H

#include "store.h"

extern bool part_find_last(Store *store, const text *upload_id, int64 before,
						   Part *part);
extern void part_write(Store *store, PartChange change, const text *upload_id,
					   const Part *part);
extern Datum parts_as_json(Store *store, const text *upload_id, int64 *after,
						   int limit, bool *is_null);

#endif							/* VALI_BLOB_PART_STORE_H */
