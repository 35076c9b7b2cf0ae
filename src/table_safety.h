/*-------------------------------------------------------------------------
 *
 * table_safety.h
 *		Whether a table can be changed as a superuser, or would that run code of
 *		others.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_TABLE_SAFETY_H
#define VALI_BLOB_TABLE_SAFETY_H

#include "nodes/pg_list.h"

#include "compat.h"

/* What is done to the rows of a table; a bit mask */
#define CHANGE_INSERT	0x01
#define CHANGE_UPDATE	0x02
#define CHANGE_DELETE	0x04
#define CHANGE_KEYS		0x08	/* an UPDATE that may change any column */

typedef struct SafetyCheck
{
	List	   *tables;			/* ChangedTables; each is locked */
	bool		nowait;			/* wait for no lock */
	bool		is_busy;		/* a lock could not be had at once */
} SafetyCheck;

extern Oid	table_owner(Oid relid);
pg_noreturn extern void report_owners(Oid relid, Oid other);
extern void check_changes(SafetyCheck *check, Oid relid, int changes);

#endif							/* VALI_BLOB_TABLE_SAFETY_H */
