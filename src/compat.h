/*-------------------------------------------------------------------------
 *
 * compat.h
 *		Every difference between the supported major versions of PostgreSQL.
 *
 *-------------------------------------------------------------------------
 */
#ifndef VALI_BLOB_COMPAT_H
#define VALI_BLOB_COMPAT_H

#include "catalog/dependency.h"
#include "storage/buf.h"
#include "storage/lock.h"
#include "utils/jsonb.h"
#include "utils/relcache.h"

#if PG_VERSION_NUM < 150000
#error "vali_blob needs PostgreSQL 15 or newer"
#endif

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#if PG_VERSION_NUM < 180000
#define pg_noreturn _Noreturn
#endif

/* Lets DROP DATABASE terminate a worker. */
#if PG_VERSION_NUM < 190000
#define BGWORKER_INTERRUPTIBLE 0
#endif

#ifndef PG_SIG_IGN
#define PG_SIG_IGN SIG_IGN
#endif

/* The name of a kind of LWLock is given once, or in each process. */
#if PG_VERSION_NUM >= 190000
#define new_lwlock_tranche(name) LWLockNewTrancheId(name)
#define name_lwlock_tranche(tranche, name) ((void) 0)
#else
#define new_lwlock_tranche(name) LWLockNewTrancheId()
#define name_lwlock_tranche(tranche, name) LWLockRegisterTranche(tranche, name)
#endif

/* Before version 16, a new row version is entered into all indexes or none. */
#if PG_VERSION_NUM < 160000
#define TU_UpdateIndexes bool
#define TU_None false
#define only_summarizing_indexes(update_indexes) ((void) (update_indexes), false)
#else
#define only_summarizing_indexes(update_indexes) ((update_indexes) == TU_Summarizing)
#endif

/* Only a new version of a row may touch none but summarizing indexes. */
#if PG_VERSION_NUM >= 190000
#define insert_index_tuples(result, slot, estate, is_update, only_summarizing) \
	ExecInsertIndexTuples(result, estate, \
						  ((is_update) ? EIIT_IS_UPDATE : 0) | \
						  ((only_summarizing) ? EIIT_ONLY_SUMMARIZING : 0), \
						  slot, NIL, NULL)
#elif PG_VERSION_NUM >= 160000
#define insert_index_tuples(result, slot, estate, is_update, only_summarizing) \
	ExecInsertIndexTuples(result, slot, estate, is_update, false, NULL, NIL, \
						  only_summarizing)
#else
#define insert_index_tuples(result, slot, estate, is_update, only_summarizing) \
	((void) (only_summarizing), \
	 ExecInsertIndexTuples(result, slot, estate, is_update, false, NULL, NIL))
#endif

#if PG_VERSION_NUM >= 190000
#define begin_index_scan(rel, index, snapshot, nkeys) \
	index_beginscan(rel, index, snapshot, NULL, nkeys, 0, SO_NONE)
#elif PG_VERSION_NUM >= 180000
#define begin_index_scan(rel, index, snapshot, nkeys) \
	index_beginscan(rel, index, snapshot, NULL, nkeys, 0)
#else
#define begin_index_scan(rel, index, snapshot, nkeys) \
	index_beginscan(rel, index, snapshot, nkeys, 0)
#endif

#if PG_VERSION_NUM >= 180000
#define CHECK_IS_ENFORCED(check) ((check).ccenforced)
#define has_generated_columns(constr) \
	((constr) != NULL && ((constr)->has_generated_stored || \
						  (constr)->has_generated_virtual))
#else
#define CHECK_IS_ENFORCED(check) true
#define has_generated_columns(constr) \
	((constr) != NULL && (constr)->has_generated_stored)
#endif

/* Before version 19, pushJsonbValue() takes and returns the state's parts. */
#if PG_VERSION_NUM < 190000
typedef struct JsonbInState
{
	JsonbValue *result;
	JsonbParseState *parseState;
} JsonbInState;

#define pushJsonbValue(state, token, value) \
	((void) ((state)->result = pushJsonbValue(&(state)->parseState, token, value)))
#endif

/* The sequence of an identity column */
#if PG_VERSION_NUM >= 170000
#define identity_sequence(rel, attnum) getIdentitySequence(rel, attnum, false)
#else
#define identity_sequence(rel, attnum) \
	getIdentitySequence(RelationGetRelid(rel), attnum, false)
#endif

/* The privileges on an object of a catalog; namespaces are all we ask for. */
#if PG_VERSION_NUM < 160000
#define object_aclcheck(classid, objectid, roleid, mode) \
	((void) (classid), pg_namespace_aclcheck(objectid, roleid, mode))
#endif

/* Is a transaction a VACUUM that has a transaction to itself? */
extern bool is_vacuum(VirtualTransactionId transaction);

/* Remove old row versions from a page that is pinned, if that can be done now. */
extern void prune_page(Relation rel, Buffer buffer);

/*
 * Memory that all processes share: reserved when the server starts, and found
 * or made by name later.
 */
extern void reserve_shared_memory(Size size);
extern void *find_shared_memory(const char *name, Size size,
								void (*initialize) (void *memory));

#ifdef PG_MODULE_MAGIC_EXT
#define VALI_BLOB_MODULE_MAGIC \
	PG_MODULE_MAGIC_EXT(.name = "vali_blob", .version = VALI_BLOB_VERSION)
#else
#define VALI_BLOB_MODULE_MAGIC PG_MODULE_MAGIC
#endif

#endif							/* VALI_BLOB_COMPAT_H */
