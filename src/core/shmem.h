/*
 * shmem.h: the extension's shared memory. Only when the library is in
 * shared_preload_libraries; shmem_available() says so. Modules register a
 * segment at library load and get their pointer back at startup.
 */
#ifndef DISTSYS_SHMEM_H
#define DISTSYS_SHMEM_H

#include "storage/lwlock.h"

typedef struct ShmemSegment
{
	const char *name;			/* "distsys stats" */
	Size		(*size) (void);
	/* called once, under AddinShmemInitLock, on zeroed memory; lock: this segment's own LWLocks */
	void		(*init) (void *memory);
	/* called once, in the postmaster, when all segments and their locks are there; may be NULL */
	void		(*start) (void);
	void	  **memory;			/* set in every process */
	int			nlocks;
	LWLockPadded **locks;		/* set in every process */
} ShmemSegment;

extern void shmem_register(const ShmemSegment *segment);	/* before shmem_init() */
extern void shmem_init(void);
extern bool shmem_available(void);

#endif							/* DISTSYS_SHMEM_H */
