/*
 * shmap.c: a map of fixed capacity in shared memory, see shmap.h.
 *
 * Each partition is a hash table with chains over an array of its own; places are numbered from
 * 1, 0 is none. Unused places are chained too. A hand goes round the places and
 * frees what is disposable: a few steps with every insertion once three quarters are in use, so
 * that room is there before it is needed, and more steps when there is none.
 */
#include "postgres.h"

#include <math.h>

#include "common/hashfn.h"
#include "port/pg_bitutils.h"
#include "storage/s_lock.h"

#include "core/shmap.h"

/* How often a lock is tried before it is waited for. */
#define TRIES 20

/* Steps of the hand: with each insertion, and when the partition is full. */
#define STEPS 4
#define STEPS_WHEN_FULL 128

/* Alone on a cache line: `used` changes with every insertion. */
typedef struct Partition
{
	uint32		free;			/* first unused place */
	uint32		used;
	uint32		hand;			/* last place that the hand has looked at */
	char		padding[PG_CACHE_LINE_SIZE - 3 * sizeof(uint32)];
} Partition;

typedef struct Entry
{
	ShmapKey	key;
	uint32		next;			/* in its chain, or among the unused */
	uint32		occupied;
	char		value[FLEXIBLE_ARRAY_MEMBER];
} Entry;

/* What is constant, then the partitions; chain heads and entries follow. */
typedef struct Memory
{
	uint32		room;			/* places of a partition */
	uint32		heads;			/* chains of a partition, a power of two */
	Size		entry_size;
	Size		entries;		/* where they begin */
	Partition	partitions[SHMAP_PARTITIONS];
	uint32		chains[FLEXIBLE_ARRAY_MEMBER];
} Memory;

/* ---- layout ---- */

static Memory
layout(const Shmap *map)
{
	/* hashes spread unevenly: six standard deviations beyond the mean are hardly ever reached */
	double		mean = (double) *map->capacity / SHMAP_PARTITIONS;
	Memory		memory = {0};

	memory.room = (uint32) ceil(mean + 6 * sqrt(mean)) + 1;
	memory.heads = pg_nextpower2_32(memory.room);
	memory.entry_size = offsetof(Entry, value) + map->value_size;
	memory.entries = CACHELINEALIGN(offsetof(Memory, chains) + (Size) SHMAP_PARTITIONS * memory.heads * sizeof(uint32));
	return memory;
}

Size
shmap_size(const Shmap *map)
{
	Memory		memory = layout(map);

	return add_size(memory.entries, mul_size((Size) SHMAP_PARTITIONS * memory.room, memory.entry_size));
}

static Memory *
memory_of(const Shmap *map)
{
	return (Memory *) map->memory;
}

int
shmap_room(const Shmap *map)
{
	return memory_of(map)->room;
}

static Partition *
partition_at(const Shmap *map, int partition)
{
	return &memory_of(map)->partitions[partition];
}

static uint32 *
head_of(const Shmap *map, const ShmapKey *key)
{
	Memory	   *memory = memory_of(map);

	return &memory->chains[(Size) shmap_partition(key) * memory->heads + (key->low & (memory->heads - 1))];
}

static Entry *
entry_at(const Shmap *map, int partition, uint32 place)
{
	Memory	   *memory = memory_of(map);
	Size		number = (Size) partition * memory->room + place - 1;

	return (Entry *) ((char *) memory + memory->entries + number * memory->entry_size);
}

void
shmap_create(Shmap *map, void *memory)
{
	Memory		constants = layout(map);
	int			room = constants.room;

	Assert(map->value_size % 8 == 0);
	map->memory = memory;
	memset(memory, 0, constants.entries);
	memcpy(memory, &constants, offsetof(Memory, partitions));
	for (int partition = 0; partition < SHMAP_PARTITIONS; partition++)
	{
		for (int place = 1; place <= room; place++)
		{
			Entry	   *entry = entry_at(map, partition, place);

			entry->occupied = false;
			entry->next = place < room ? place + 1 : 0;
		}
		partition_at(map, partition)->free = 1;
	}
}

/* ---- locks ---- */

ShmapKey
shmap_key(const void *data, int len, ShmapKey seed)
{
	ShmapKey	key;

	key.high = hash_bytes_extended((const unsigned char *) data, len, seed.high);
	key.low = hash_bytes_extended((const unsigned char *) data, len, seed.low);
	return key;
}

bool
shmap_lock(const Shmap *map, int partition, LWLockMode mode)
{
	LWLock	   *lock = &map->locks[partition].lock;

	/* it is held for a fraction of a microsecond: sleeping would cost two switches of the process */
	for (int i = 0; i < TRIES; i++)
	{
		if (LWLockConditionalAcquire(lock, mode))
			return false;
		SPIN_DELAY();
	}
	LWLockAcquire(lock, mode);
	return true;
}

void
shmap_unlock(const Shmap *map, int partition)
{
	LWLockRelease(&map->locks[partition].lock);
}

void
shmap_set_add(ShmapSet *set, const ShmapKey *key)
{
	int			partition = shmap_partition(key);

	set->bits[partition / 64] |= UINT64CONST(1) << (partition % 64);
}

static bool
in_set(const ShmapSet *set, int partition)
{
	return (set->bits[partition / 64] >> (partition % 64)) & 1;
}

bool
shmap_lock_set(const Shmap *map, const ShmapSet *set, LWLockMode mode)
{
	bool		waited = false;

	for (int partition = 0; partition < SHMAP_PARTITIONS; partition++)
	{
		if (in_set(set, partition) && shmap_lock(map, partition, mode))
			waited = true;
	}
	return waited;
}

void
shmap_unlock_set(const Shmap *map, const ShmapSet *set)
{
	for (int partition = 0; partition < SHMAP_PARTITIONS; partition++)
	{
		if (in_set(set, partition))
			shmap_unlock(map, partition);
	}
}

/* ---- entries ---- */

/* Where the place of this key is kept: a chain's head or the entry before. 0 there: it is not in the chain. */
static uint32 *
link_to(const Shmap *map, const ShmapKey *key)
{
	int			partition = shmap_partition(key);
	uint32	   *link = head_of(map, key);

	Assert(LWLockHeldByMe(&map->locks[partition].lock));
	while (*link != 0)
	{
		Entry	   *entry = entry_at(map, partition, *link);

		if (entry->key.high == key->high && entry->key.low == key->low)
			break;
		link = &entry->next;
	}
	return link;
}

void *
shmap_find(const Shmap *map, const ShmapKey *key)
{
	uint32		place = *link_to(map, key);

	return place == 0 ? NULL : entry_at(map, shmap_partition(key), place)->value;
}

static void
free_entry(Shmap *map, uint32 *link, int partition)
{
	Partition  *home = partition_at(map, partition);
	uint32		place = *link;
	Entry	   *entry = entry_at(map, partition, place);

	if (map->disposed != NULL)
		map->disposed(entry->value);
	*link = entry->next;
	entry->occupied = false;
	entry->next = home->free;
	home->free = place;
	home->used--;
}

/* Moves the hand on and frees what is disposable there; returns how many. */
static int
advance_hand(Shmap *map, int partition, int64 now, int steps)
{
	Partition  *home = partition_at(map, partition);
	uint32		room = shmap_room(map);
	int			freed = 0;

	for (int i = 0; i < steps; i++)
	{
		Entry	   *entry;

		home->hand = home->hand >= room ? 1 : home->hand + 1;
		entry = entry_at(map, partition, home->hand);
		if (entry->occupied && map->disposable(entry->value, now))
		{
			free_entry(map, link_to(map, &entry->key), partition);
			freed++;
		}
	}
	return freed;
}

void *
shmap_insert(Shmap *map, const ShmapKey *key, int64 now, int *evicted)
{
	int			partition = shmap_partition(key);
	Partition  *home = partition_at(map, partition);
	int			room = shmap_room(map);
	uint32	   *head;
	uint32		place;
	Entry	   *entry;

	Assert(LWLockHeldByMeInMode(&map->locks[partition].lock, LW_EXCLUSIVE));
	if (home->used >= room / 4 * 3)
		*evicted += advance_hand(map, partition, now, Min(room, home->free == 0 ? STEPS_WHEN_FULL : STEPS));
	if (home->free == 0)
		return NULL;

	place = home->free;
	entry = entry_at(map, partition, place);
	home->free = entry->next;
	home->used++;
	head = head_of(map, key);
	entry->key = *key;
	entry->next = *head;
	entry->occupied = true;
	*head = place;
	memset(entry->value, 0, map->value_size);
	return entry->value;
}

void
shmap_remove(Shmap *map, const ShmapKey *key)
{
	uint32	   *link = link_to(map, key);

	if (*link != 0)
		free_entry(map, link, shmap_partition(key));
}

int
shmap_dispose(Shmap *map, int partition, int64 now)
{
	Assert(LWLockHeldByMeInMode(&map->locks[partition].lock, LW_EXCLUSIVE));
	return advance_hand(map, partition, now, shmap_room(map));
}

void *
shmap_next(const Shmap *map, int partition, uint32 *place, ShmapKey *key)
{
	uint32		room = shmap_room(map);

	while (*place < room)
	{
		Entry	   *entry = entry_at(map, partition, ++*place);

		if (!entry->occupied)
			continue;
		*key = entry->key;
		return entry->value;
	}
	return NULL;
}

int64
shmap_used(const Shmap *map)
{
	int64		used = 0;

	for (int partition = 0; partition < SHMAP_PARTITIONS; partition++)
		used += partition_at(map, partition)->used;
	return used;
}
