/*
 * keylock.h: serialises work on one named thing.
 *
 * A heavyweight lock in a private space of LOCKTAG_ADVISORY (field4 = space,
 * above the 1 and 2 of pg_advisory_*), keyed by 64 hash bits of the name. A
 * collision costs a wait and never shares ownership: the row has the full name.
 *
 * Kept to the end of the (sub)transaction by a call that wrote. A call that
 * wrote nothing releases it before it returns (keylock_release), so that a
 * bystander's open transaction never blocks the owner. Each successful
 * keylock_try/keylock_wait is paid back by at most one keylock_release.
 */
#ifndef DISTSYS_KEYLOCK_H
#define DISTSYS_KEYLOCK_H

#include "compat.h"
#include "storage/lock.h"

/* One number per use. Shown as objsubid in pg_locks. Never renumber: versions of the library meet in one cluster. */
typedef enum KeylockSpace
{
	KEYLOCK_XACT = 16,			/* xact_lock(name) */
	KEYLOCK_SESSION = 17,		/* session_lock(name) */
	KEYLOCK_LEASE_NAME = 18,	/* pins and takeover of a lease */
	KEYLOCK_LEASE_GRANT = 19,	/* renew, release of one grant */
	KEYLOCK_FENCE = 20,			/* highest token of a resource */
	KEYLOCK_TOKEN_STATE = 21,
	KEYLOCK_IDEMPOTENCY = 22,
	KEYLOCK_RATE_BUCKET = 23,
	KEYLOCK_SEQUENCER = 24,		/* 8 tags, by backend */
	KEYLOCK_OUTBOX_GROUP = 25,
	KEYLOCK_OUTBOX_SETTLED = 26,
	KEYLOCK_CONFIG = 27,		/* create/alter/drop of configuration */
	KEYLOCK_WORKER = 28,
	KEYLOCK_LEASE_INTENT = 29,	/* an exclusive acquire waits */
	KEYLOCK_LEADER_NAME = 30,	/* as for leases */
	KEYLOCK_LEADER_GRANT = 31,
	KEYLOCK_LEASE_SESSION = 32,
	KEYLOCK_LEASE_EVENT = 33,	/* one place of the lease history */
	KEYLOCK_SEMAPHORE = 34,		/* claims of several permits, for a moment */
	KEYLOCK_SEMAPHORE_SLOT = 35,	/* pins, claims, renewals and releases of one slot */
	KEYLOCK_SEMAPHORE_REQUEST = 36, /* one request_id */
	KEYLOCK_SEMAPHORE_QUEUE = 37	/* each session that waits, shared */
} KeylockSpace;

#define KEYLOCK_LAST_SPACE KEYLOCK_SEMAPHORE_QUEUE

#define KEYLOCK_FOR_EVER INT64CONST(-1)

extern void keylock_tag(LOCKTAG *tag, KeylockSpace space, const char *name, int len);
/* a name made of two parts; (a, bc) and (ab, c) differ */
extern void keylock_tag2(LOCKTAG *tag, KeylockSpace space, const char *a, int alen, const char *b, int blen);
/* a name and a number */
extern void keylock_tag_num(LOCKTAG *tag, KeylockSpace space, const char *name, int len, int64 number);

/* At once or not at all. Counts against distsys.max_keys_per_transaction (54000). */
extern bool keylock_try(const LOCKTAG *tag, LOCKMODE mode);
/* Waits at most wait_us (KEYLOCK_FOR_EVER: no bound of ours). false: time is up. The caller's lock_timeout and a cancel stay errors. */
extern bool keylock_wait(const LOCKTAG *tag, LOCKMODE mode, int64 wait_us);
/* How many more this transaction may hold: for work in batches. */
extern int	keylock_room(void);
extern void keylock_release(const LOCKTAG *tag, LOCKMODE mode);
/* Does another transaction hold a lock that conflicts with `mode`? Takes nothing. */
extern bool keylock_conflicts(const LOCKTAG *tag, LOCKMODE mode);
/* Waits for the transactions that hold a lock that conflicts with `mode`, without queueing for it, until none does. false: time is up. */
extern bool keylock_wait_for_holders(const LOCKTAG *tag, LOCKMODE mode, int64 wait_us);

/* How many other transactions hold a lock that conflicts with `mode`. */
extern int	keylock_count_holders(const LOCKTAG *tag, LOCKMODE mode);

/* Session scope: survives ROLLBACK, freed when the backend ends. Not counted; not held before. wait_us as in keylock_wait; 0: do not wait. */
extern bool keylock_session_wait(const LOCKTAG *tag, LOCKMODE mode, int64 wait_us);

extern void keylock_init(void);

#endif							/* DISTSYS_KEYLOCK_H */
