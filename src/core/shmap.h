/*
 * shmap.h: a map of fixed capacity in shared memory, for state that must neither be rolled back nor
 * hold a lock to commit.
 *
 * Keys are 128-bit hashes; values have a fixed size and hold no pointers. 128 partitions, each with
 * its own LWLock, hash chains and room for its share of the capacity and for the spread of hashes: the
 * capacity fits as a whole. A value is found, read and changed under its partition's lock only, and
 * between taking and releasing one there is no error, no allocation and no call into the server.
 *
 * When a partition is full, entries go that their owner calls disposable; there are none: shmap_insert()
 * returns NULL. Several keys are locked together, in ascending order of partitions.
 *
 * Memory: per entry 24 bytes, the value, and 4 to 8 bytes of chain heads.
 */
#ifndef DISTSYS_SHMAP_H
#define DISTSYS_SHMAP_H

#include "storage/lwlock.h"

#define SHMAP_PARTITION_BITS 7
#define SHMAP_PARTITIONS (1 << SHMAP_PARTITION_BITS)

typedef struct ShmapKey
{
	uint64		high;
	uint64		low;
} ShmapKey;

/* A set of partitions. */
typedef struct ShmapSet
{
	uint64		bits[SHMAP_PARTITIONS / 64];
} ShmapSet;

typedef struct Shmap
{
	/* the owner's, constant */
	Size		value_size;		/* a multiple of 8 */
	const int  *capacity;		/* a setting that is fixed at server start */
	bool		(*disposable) (const void *value, int64 now);
	void		(*disposed) (void *value);	/* its entry goes, by any way; may be NULL */

	/* set through a ShmemSegment of the owner with SHMAP_PARTITIONS locks */
	void	   *memory;
	LWLockPadded *locks;
} Shmap;

/* For the owner's ShmemSegment. */
extern Size shmap_size(const Shmap *map);
extern void shmap_create(Shmap *map, void *memory);

/* Of some bytes, under two seeds. */
extern ShmapKey shmap_key(const void *data, int len, ShmapKey seed);

static inline int
shmap_partition(const ShmapKey *key)
{
	return (int) (key->high >> (64 - SHMAP_PARTITION_BITS));
}

/* true: it had to be waited for. */
extern bool shmap_lock(const Shmap *map, int partition, LWLockMode mode);
extern void shmap_unlock(const Shmap *map, int partition);
extern void shmap_set_add(ShmapSet *set, const ShmapKey *key);
/* true: one of them had to be waited for. */
extern bool shmap_lock_set(const Shmap *map, const ShmapSet *set, LWLockMode mode);
extern void shmap_unlock_set(const Shmap *map, const ShmapSet *set);

/* Under the partition's lock; NULL: no such entry. */
extern void *shmap_find(const Shmap *map, const ShmapKey *key);
/* Under the partition's lock in exclusive mode. A key that is not there; its value is zero. NULL: no room. Adds to *evicted. */
extern void *shmap_insert(Shmap *map, const ShmapKey *key, int64 now, int *evicted);
extern void shmap_remove(Shmap *map, const ShmapKey *key);
/* Under the partition's lock in exclusive mode. Removes every entry that is disposable. */
extern int	shmap_dispose(Shmap *map, int partition, int64 now);

/* Walks a partition under its lock: *place is 0 at first; NULL at the end. */
extern void *shmap_next(const Shmap *map, int partition, uint32 *place, ShmapKey *key);
/* Most entries of a partition. */
extern int	shmap_room(const Shmap *map);
/* Entries in use, without a lock. */
extern int64 shmap_used(const Shmap *map);

#endif							/* DISTSYS_SHMAP_H */
