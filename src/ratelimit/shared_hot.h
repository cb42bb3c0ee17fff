/*
 * shared_hot.h: which keys of shared limits are used most, by name.
 *
 * A small table beside the map, which knows only hashes: 512 keys of the whole server. Each session notes every 16th of its
 * calls; what a key has is halved every minute, and the key that has least makes room.
 */
#ifndef DISTSYS_SHARED_HOT_H
#define DISTSYS_SHARED_HOT_H

#include "ratelimit/shared_map.h"

#define SHARED_HOT_KEYS 512

typedef struct SharedHotKey
{
	ShmapKey	key;
	Oid			database;
	int64		uses;			/* of the last minutes, about */
	int64		used_at;		/* by shared_now() */
	char		policy[NAME_SHORT + 1];
	char		name[NAME_LONG + 1];
} SharedHotKey;

extern void shared_hot_init(void);	/* before shmem_init() */
extern void shared_hot_note(const ShmapKey *key, const NameArg *policy, const NameArg *name, int64 now);
/* Those of this database, the most used first; *n of them, palloc'd. */
extern SharedHotKey *shared_hot_keys_here(int *n);

#endif							/* DISTSYS_SHARED_HOT_H */
