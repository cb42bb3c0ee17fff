/*
 * semaphore_row.h: the table semaphore_permit, for the files of semaphores only.
 *
 * One row per slot, made when the slot is first granted: capacity holds by
 * construction. Its columns, its key, its key lock.
 */
#ifndef DISTSYS_SEMAPHORE_ROW_H
#define DISTSYS_SEMAPHORE_ROW_H

#include "core/keylock.h"
#include "lock/semaphore.h"
#include "store/row.h"

enum
{
	ATTR_NAME = 1,
	ATTR_SLOT,
	ATTR_OWNER,
	ATTR_ROLE,
	ATTR_TOKEN,
	ATTR_TTL_US,
	ATTR_ACQUIRED_AT,
	ATTR_EXPIRES_AT,
	ATTR_EXPIRES_BOOT,
	ATTR_CLOCK_ID,
	ATTR_RELEASED,
	ATTR_REQUEST_ID,
	NATTS = ATTR_REQUEST_ID
};

/* A row, judged at one reading of the clock. Datums point into memory of the current context. */
typedef struct Permit
{
	Datum		name;
	int32		slot;
	Datum		owner;
	Oid			role;
	int64		token;
	int64		ttl_us;
	TimestampTz acquired_at;
	Deadline	deadline;
	bool		has_request;
	pg_uuid_t	request_id;		/* of the call that got it */
	bool		live;
	int64		left_us;		/* until it expires, when live */
	TimestampTz expires_at;		/* on this server's wall clock */
} Permit;

extern void permit_from_row(Relation rel, HeapTuple row, const ClockReading *now, Permit *permit);
extern void permit_key(const NameArg *name, int32 slot, Datum *key);
extern void permit_tag(LOCKTAG *tag, const NameArg *name, int32 slot);
extern void permit_deadline_values(const Deadline *deadline, Datum *values);

/* What all slots of a semaphore look like without a lock. */
typedef struct SlotMap
{
	int			permits;
	int			in_use;			/* slots above the permits included */
	int			usable;			/* slots 1 .. usable may be granted without there being more in use than permits */
	int			nslots;
	int64	   *left_us;		/* of slot i + 1; 0: free. While slots above the permits are there, a locked one is not free */
} SlotMap;

/* Is a slot above the permits held, or locked? Only when the semaphore has shrunk: then the map says which slots may be granted. */
extern bool slots_held_above(Relation rel, const NameArg *name, int permits);
extern void slot_map_read(Relation rel, const NameArg *name, int permits, SlotMap *map);
/* Microseconds until as many as wanted are free because others expire; -1: they are free, but locked. */
extern int64 slot_map_retry(const SlotMap *map, int wanted);

/*
 * The slots of a grant. This backend remembers those that it has granted; others are found by
 * reading all slots of the semaphore. Judge the rows again under their locks.
 */
extern void grant_remember(Relation rel, int64 token, int n, const int32 *slots);
/* From memory; 0: not remembered. *slots is palloc'd. */
extern int	grant_recall(Relation rel, int64 token, int32 **slots);
extern int	grant_search(Relation rel, const NameArg *name, int64 token, int32 **slots);

/* CLAIM, and what those who wait are called by. */
extern void semaphore_tag(LOCKTAG *tag, const NameArg *name);
/* One attempt, without waiting. *again as in semaphore_acquire(). */
extern SemaphoreReason semaphore_try(const SemaphoreRequest *request, SemaphoreGrant *grant, bool *again);

#endif							/* DISTSYS_SEMAPHORE_ROW_H */
