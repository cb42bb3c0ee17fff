/*
 * shared_decide.h: what becomes of the limits of one call in shared memory, for shared.c.
 */
#ifndef DISTSYS_SHARED_DECIDE_H
#define DISTSYS_SHARED_DECIDE_H

#include "ratelimit/limiter.h"
#include "ratelimit/shared_map.h"
#include "ratelimit/shared_rule.h"

typedef struct SharedItem
{
	RateTake   *take;
	ShmapKey	key;
	bool		has_rule;		/* else there is no room in the table of rules */
	int			rules_lost;		/* how often its slot was given away before it was pinned */
	SharedRuleRef rule;
	SharedEntry *entry;			/* under the lock; NULL: none */
	bool		made;			/* by this call */
	bool		pinned;			/* under the lock: its rule is pinned for an entry that another one has counted */
	bool		reread;			/* the policy is fresh */
	bool		complete;		/* a key that is not in the map was not in use */
} SharedItem;

/* What a look under the locks came to. */
typedef enum SharedOutcome
{
	DONE,
	STALE_POLICY,				/* of item->take: read it again */
	STALE_RULE,					/* its slot serves another rule */
	UNKNOWN_KEY,				/* it may be in the snapshot */
	NEEDS_LOG					/* it is a log, or was counted by one: memory is needed */
} SharedOutcome;

typedef struct SharedCall
{
	SharedItem *items;
	int			n;
	bool		apply;			/* else only judge */
	int64		now;
	int64		step;
	int			evicted;
	bool		waited;
	SharedItem *failed;			/* of an outcome that is not DONE */
	bool		out_of_range;
} SharedCall;

/* ---- before the locks ---- */

/* step: what the wall clock is ahead of shared_now(). */
extern void shared_item_prepare(SharedItem *item, RateTake *take, int64 step);
/* The policy as of now. */
extern void shared_item_reread(SharedItem *item, int64 step);
/* The slot of the rule serves another: looks for another slot. */
extern void shared_item_find_rule_again(SharedItem *item);

/* ---- under the locks of the partitions: no error, no allocation ---- */

/* The state at now, from the entry or without. */
extern SharedOutcome shared_item_load(SharedItem *item, const SharedCall *call);
/* Makes the entry that an unused key lacks. */
extern SharedOutcome shared_item_make(SharedItem *item, SharedCall *call);
extern void shared_item_store(SharedItem *item, SharedCall *call);
/* The last thing under the locks: the entries in hand may be disposed of again. */
extern void shared_let_go(SharedCall *call);
/* Judges all, applies all or none. */
extern SharedOutcome shared_decide(SharedCall *call);

#endif							/* DISTSYS_SHARED_DECIDE_H */
