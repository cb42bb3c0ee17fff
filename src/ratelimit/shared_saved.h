/*
 * shared_saved.h: a shared limit outside of shared memory: a record of the file that a clean shutdown writes, a
 * row of the snapshot table. Its moments are those of the wall clock.
 */
#ifndef DISTSYS_SHARED_SAVED_H
#define DISTSYS_SHARED_SAVED_H

#include "ratelimit/shared_map.h"
#include "ratelimit/shared_rule.h"

typedef struct SharedSaved
{
	ShmapKey	key;
	SharedRuleInfo info;
	LimitRule	rule;
	LimitState	state;
	int64		blocked_until;
	int64		full_in_us;		/* how long until nothing is left to remember */
} SharedSaved;

/* Copies an entry, under its partition's lock. false: it need not be kept, or its policy does not say 'snapshot'. */
extern bool shared_save(const ShmapKey *key, const SharedEntry *entry, int64 now, int64 step, SharedSaved *saved);
/* Puts it into the map, unless the key is there. false: there is no room. */
extern bool shared_restore(const SharedSaved *saved);

#endif							/* DISTSYS_SHARED_SAVED_H */
