/*
 * shared.h: the state of a limit in shared memory.
 *
 * No lock is held to the end of the transaction, and nothing is written to
 * disk. A take is given back at abort when the policy says so.
 */
#ifndef DISTSYS_RATE_SHARED_H
#define DISTSYS_RATE_SHARED_H

#include "ratelimit/limiter.h"
#include "ratelimit/view.h"

extern void shared_init(void);	/* before shmem_init() */

/* 55000 without shared_preload_libraries. */
extern void shared_require(void);
/*
 * Judges the takes under their sorted partition locks by one reading of the
 * clock. When `go` and none of them refuses, all are applied in the same critical section and
 * their refund is registered. Fills in the answers, but for `allowed`. 22003: a charge out of range.
 */
extern void shared_take(RateTake *takes, int n, bool go);
/* RATE_RESERVE with a delay numbers the take: odd, below 2^53. Cancels one; what was given back, 0 when it is unknown. */
extern int64 shared_cancel(int64 reservation);
/* Judges only. */
extern void shared_peek(RateTake *takes, int n);
/* Takes back what shared_take() of this call has applied, whatever on_abort says: another storage failed. */
extern void shared_undo(RateTake *takes, int n);
extern bool shared_reset(RateTake *take);
/* duration 0: lifts the block */
extern bool shared_block(RateTake *take, int64 duration_us);
/* Sleeps until what limiter_take() has reserved may be used; a cancel gives it back. */
extern void shared_wait(RateTake *take);
/* Visits every limit in memory of this database, by name if it is used much; nothing without shared memory. */
extern void shared_list(RateVisit visit, void *arg);
/* Visits the 100 that were used most. */
extern void shared_hot_keys(RateVisit visit, void *arg);

#endif							/* DISTSYS_RATE_SHARED_H */
