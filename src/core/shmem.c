/*
 * shmem.c: asks the postmaster for shared memory, see shmem.h.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#include "core/shmem.h"

#define MAX_SEGMENTS 16

static const ShmemSegment *segments[MAX_SEGMENTS];
static int	nsegments = 0;
static bool available = false;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

void
shmem_register(const ShmemSegment *segment)
{
	Assert(nsegments < MAX_SEGMENTS);
	segments[nsegments++] = segment;
}

bool
shmem_available(void)
{
	return available;
}

static void
request_shmem(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	for (int i = 0; i < nsegments; i++)
	{
		RequestAddinShmemSpace(MAXALIGN(segments[i]->size()));
		if (segments[i]->nlocks > 0)
			RequestNamedLWLockTranche(segments[i]->name, segments[i]->nlocks);
	}
}

static void
startup_shmem(void)
{
	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	for (int i = 0; i < nsegments; i++)
	{
		bool		found;
		Size		size = segments[i]->size();

		*segments[i]->memory = ShmemInitStruct(segments[i]->name, size, &found);
		if (!found)
		{
			memset(*segments[i]->memory, 0, size);
			segments[i]->init(*segments[i]->memory);
		}
		if (segments[i]->nlocks > 0)
			*segments[i]->locks = GetNamedLWLockTranche(segments[i]->name);
	}
	LWLockRelease(AddinShmemInitLock);
	available = true;
	for (int i = 0; i < nsegments && !IsUnderPostmaster; i++)
	{
		if (segments[i]->start != NULL)
			segments[i]->start();
	}
}

void
shmem_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_shmem;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;
}
