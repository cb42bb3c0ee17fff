/*
 * wait.h: sleeping that a cancel, a terminate and the postmaster's death end.
 */
#ifndef DISTSYS_WAIT_H
#define DISTSYS_WAIT_H

/* What a session waits for, as pg_stat_activity shows it on 17 and later (before: Extension). */
typedef enum WaitPoint
{
	WAIT_LEASE,					/* DistsysLease */
	WAIT_CLAIM,					/* DistsysClaim: a begin waits for the holder of its key */
	WAIT_COMMITS,				/* DistsysCommits: a reader waits for commits in progress */
	WAIT_LAUNCHER,				/* DistsysLauncher */
	WAIT_WORKER,				/* DistsysWorker */
	WAIT_SEMAPHORE,				/* DistsysSemaphore */
	WAIT_RATE_LIMIT,			/* DistsysRateLimit: tokens that were reserved are not there yet */
	WAIT_COUNT
} WaitPoint;

/* Microseconds on a clock that nobody can set: for how long something has been waited for. */
extern int64 wait_clock(void);
/* Sleeps for at most `us` microseconds; may return early. Raises on cancel. */
extern void wait_sleep(int64 us, WaitPoint point);
/* For who is called by nobody and looks again and again: 5 ms at first (*poll_us is 0), doubling to 100 ms, with jitter; at most us. */
extern void wait_poll(int64 *poll_us, int64 us, WaitPoint point);
/* The same inside a worker's main loop: without CHECK_FOR_INTERRUPTS. */
extern void wait_latch(int64 us, WaitPoint point);

#endif							/* DISTSYS_WAIT_H */
