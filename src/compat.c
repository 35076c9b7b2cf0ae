/*-------------------------------------------------------------------------
 *
 * compat.c
 *		What differs between the PostgreSQL majors by more than a macro.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#if PG_VERSION_NUM >= 170000

#include "storage/dsm_registry.h"

/* Nothing needs to be reserved. */
void
reserve_shared_memory(Size size)
{
	(void) size;
}

/* Find a piece of shared memory by its name, or make it. */
void *
shared_memory(const char *name, Size size, void (*initialize) (void *memory))
{
	bool		found;

	return GetNamedDSMSegment(name, size, initialize, &found);
}

#else

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

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
shared_memory(const char *name, Size size, void (*initialize) (void *memory))
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
