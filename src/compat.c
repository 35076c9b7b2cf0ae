/*-------------------------------------------------------------------------
 *
 * compat.c
 *		Differences between major versions of PostgreSQL that take more than a
 *		macro.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "storage/bufmgr.h"
#include "storage/proc.h"
#if PG_VERSION_NUM >= 170000
#include "storage/dsm_registry.h"
#include "storage/procarray.h"
#else
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "storage/sinvaladt.h"
#endif

#include "compat.h"

/* Prune a page; the page of the visibility map that this takes is given back. */
void
prune_page(Relation rel, Buffer buffer)
{
#if PG_VERSION_NUM >= 190000
	Buffer		visibility_map = InvalidBuffer;

	heap_page_prune_opt(rel, buffer, &visibility_map, false);
	if (BufferIsValid(visibility_map))
		ReleaseBuffer(visibility_map);
#else
	heap_page_prune_opt(rel, buffer);
#endif
}

/* Is a transaction a VACUUM that has a transaction to itself? */
bool
is_vacuum(VirtualTransactionId transaction)
{
#if PG_VERSION_NUM >= 170000
	const PGPROC *proc = ProcNumberGetProc(transaction.procNumber);
#else
	const PGPROC *proc = BackendIdGetProc(transaction.backendId);
#endif

	/* if its process has begun another transaction, this one has ended */
	return proc != NULL && (proc->statusFlags & PROC_IN_VACUUM) != 0;
}

#if PG_VERSION_NUM >= 170000

/* Nothing needs to be reserved. */
void
reserve_shared_memory(Size size)
{
	(void) size;
}

#if PG_VERSION_NUM >= 190000

/* Call the function that initializes shared memory. */
static void
initialize_by(void *memory, void *argument)
{
	void		(**initialize) (void *memory) = argument;

	(*initialize) (memory);
}

#define get_segment(name, size, initialize, found) \
	GetNamedDSMSegment(name, size, initialize_by, found, &(initialize))
#else
#define get_segment(name, size, initialize, found) \
	GetNamedDSMSegment(name, size, initialize, found)
#endif

/* Find a piece of shared memory by its name, or make it. */
void *
find_shared_memory(const char *name, Size size, void (*initialize) (void *memory))
{
	bool		found;

	return get_segment(name, size, initialize, &found);
}

#else

static shmem_request_hook_type previous_request_hook = NULL;
static Size reserved_size = 0;

/* Ask for what was reserved, when the server asks us. */
static void
request_reserved(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(MAXALIGN(reserved_size));
}

/* Reserve shared memory. */
void
reserve_shared_memory(Size size)
{
	reserved_size = size;
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request_reserved;
}

/* Find a piece of shared memory by its name, or make it. */
void *
find_shared_memory(const char *name, Size size, void (*initialize) (void *memory))
{
	void	   *memory;
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	memory = ShmemInitStruct(name, size, &found);
	if (!found)
		initialize(memory);
	LWLockRelease(AddinShmemInitLock);
	return memory;
}

#endif
