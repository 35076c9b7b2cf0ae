/*-------------------------------------------------------------------------
 *
 * store_internal.h
 *		The two access paths to the rows of upload_session, for store.c, and
 *		what the fast path to those of upload_part shares with them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_STORE_INTERNAL_H
#define VALI_BLOB_STORE_INTERNAL_H

#include "executor/tuptable.h"
#include "nodes/parsenodes.h"
#include "storage/lockdefs.h"
#include "utils/relcache.h"

#include "catalog.h"
#include "session.h"

struct Store
{
	bool		connected;		/* to SPI */

	/* the fast path */
	Relation	rel;			/* NULL if it cannot be used */
	TupleTableSlot *found;		/* the row that was found */
	bool		is_locked;		/* that one is, and not written since */
	TupleTableSlot *written;	/* its new version; NULL or empty: none */
};

/*
 * store_direct.c.  A function that returns false has done nothing; the caller
 * then uses SQL.
 */
extern void direct_open(struct Store *store, LOCKMODE lockmode);
extern void direct_close(struct Store *store);
extern bool direct_read(struct Store *store, const text *upload_id,
						Session *session);
extern bool direct_lock(struct Store *store, const text *upload_id,
						LockWait wait, Session *session);
extern bool direct_can_combine(const struct Store *store);
extern bool direct_accepts(struct Store *store, const Session *session);
extern bool direct_insert(struct Store *store, Session *session);
extern bool direct_update(struct Store *store, Session *session);
extern Datum direct_row(struct Store *store);

/* store_direct.c, for part_store.c, too */
extern void report_indirect(ExtensionTable table, const char *unsupported);
extern bool may_access(Relation rel, ExtensionTable table, AclMode mode);
extern void insert_row_directly(Relation rel, TupleTableSlot *slot);

/* store_sql.c; while connected to SPI */
extern bool sql_read(const text *upload_id, bool latest, Session *session);
extern bool sql_exists(const text *upload_id);
extern LockResult sql_lock(const text *upload_id, LockWait wait,
						   Session *session);
extern void sql_insert(Session *session);
extern void sql_update(Session *session);
extern void sql_delete(const Session *session);
extern bool sql_fetch_row(Session *session);

#endif							/* VALI_BLOB_STORE_INTERNAL_H */
