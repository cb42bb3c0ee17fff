/*
 * waitlist.h: who waits for what, first come first served, woken instead of polling.
 *
 * In shared memory, so only when the library is preloaded; else waitlist_available() is false,
 * the other calls do nothing, and callers poll. One entry per backend: a session waits for
 * one thing at a time. A waiting session holds nothing: no lock, no place in a lock's queue.
 *
 * A caller wraps its wait in PG_TRY: waitlist_leave() when it got what it waited for,
 * waitlist_give_up() when not and in PG_CATCH. A backend that dies gives up by itself.
 */
#ifndef DISTSYS_WAITLIST_H
#define DISTSYS_WAITLIST_H

#include "core/arg.h"
#include "core/wait.h"
#include "storage/lock.h"

extern void waitlist_init(void);	/* before shmem_init() */
extern bool waitlist_available(void);

/*
 * Joins the queue of tag, or keeps its place there. Shared waiters of one tag may go together. Higher priority goes first.
 * true: it was not in it: look once more before you sleep, the call for what you have just been refused may have been before.
 */
extern bool waitlist_join(const LOCKTAG *tag, const NameArg *name, const NameArg *owner, bool shared, int priority);
/* It has what it waited for. Idempotent. */
extern void waitlist_leave(void);
/* It stops waiting; the next is called, since the call may have been for us. Idempotent. */
extern void waitlist_give_up(void);
/*
 * Is somebody before us who may not go together with us? Then what is free is his: call him. Not
 * in the queue ourselves: everybody in it is before us. Who was called and has not come for 100 ms no longer counts.
 */
extern bool waitlist_must_wait(const LOCKTAG *tag, bool shared);
/* Calls the head of tag's queue now. */
extern void waitlist_call(const LOCKTAG *tag);
/* Waits for something else for at most `us` from now, where no call reaches it: that is no reason to go before it. 0: it is back and looks. */
extern void waitlist_away(int64 us);
/* How many wait for tag now. */
extern int	waitlist_length(const LOCKTAG *tag);
/* Are we the first? Who is first looks when the thing expires, others are called. */
extern bool waitlist_first(void);
/* Sleeps until called, at most `us`. Raises on cancel. */
extern void waitlist_sleep(int64 us, WaitPoint point);
/* Calls the head of tag's queue once this transaction has ended and its locks are gone, at commit as at abort. Cannot fail. */
extern void waitlist_wake_at_end(const LOCKTAG *tag);
/* The same for the whole queue: who of them may go is for them to find out. */
extern void waitlist_wake_all_at_end(const LOCKTAG *tag);
/* The same when it is rolled back only: what it took for itself is free again. */
extern void waitlist_wake_at_abort(const LOCKTAG *tag);

/* One row of a view. */
typedef struct WaitlistEntry
{
	char		name[NAME_LONG + 1];
	char		owner[NAME_LONG + 1];
	int			position;		/* 1: the first */
	int			pid;
	TimestampTz since;
} WaitlistEntry;

/* Everybody of this database who waits in one key lock space; *n entries, palloc'd, by name and position. */
extern WaitlistEntry *waitlist_entries(uint32 space, int *n);

#endif							/* DISTSYS_WAITLIST_H */
