/*
 * shared_map.h: where limits in shared memory live: the map of keys, and the
 * clock that they are counted by.
 *
 * That clock reads like the wall clock when the server started, and then follows the boot clock: nobody can set it.
 * A later step of the wall clock is noticed, so that times which are shown or compared
 * with a calendar can be brought to the wall clock's.
 */
#ifndef DISTSYS_SHARED_MAP_H
#define DISTSYS_SHARED_MAP_H

#include "algo/limit.h"
#include "core/arg.h"
#include "core/shmap.h"

/* What a place of the map holds. */
typedef enum SharedKind
{
	SHARED_LIMIT,
	SHARED_RESERVATION,
	SHARED_LOG					/* a part of a log, see shared_log.h */
} SharedKind;

/* Times in a part. */
#define SHARED_LOG_PART 4

/* 40 bytes; with the map's own 24 one cache line. */
typedef struct SharedEntry
{
	uint16		rule;			/* the slot of the rule by which it was counted, see shared_rule.h */
	uint16		kind;
	uint32		in_call;		/* under the lock: the call that holds it has it in hand, so it cannot be disposed of */
	union
	{
		struct
		{
			LimitState	state;
			int64		blocked_until;	/* 0: not */
		}			limit;
		struct
		{
			ShmapKey	limit;	/* of what was reserved */
			int64		cost;
			int64		act_at;
		}			reservation;
		int64		times[SHARED_LOG_PART]; /* ascending; behind the last one its repetition */
	}			u;
} SharedEntry;

extern Shmap shared_map;

extern void shared_map_init(void);	/* before shmem_init() */

/* Of this database. */
extern ShmapKey shared_map_key(const NameArg *policy, const NameArg *key);
extern ShmapKey shared_map_key_bytes(const void *data, int len);

/* Removes every limit that is full, of all databases. false: it was done within the last second. Not under a partition's lock. */
extern bool shared_map_dispose(void);

extern int64 shared_now(void);
/* What the wall clock reads is shared_now() + shared_step(); constant but for a step of the wall clock. */
extern int64 shared_step(void);
/* When the limits of this server began to be counted: its start, or its promotion. */
extern int64 shared_began(void);

/*
 * Is all that the last life of the server knew in the map, so that a key which is not there was not in use? As for this
 * database, or for all of them.
 */
extern bool shared_is_complete(void);
extern void shared_set_complete(void);
extern void shared_set_complete_here(void);

#endif							/* DISTSYS_SHARED_MAP_H */
