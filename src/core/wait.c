/*
 * wait.c: waits on the process latch, see wait.h.
 */
#include "postgres.h"

#include <limits.h>

#include "common/pg_prng.h"
#include "compat.h"
#include "portability/instr_time.h"
#include "storage/latch.h"
#include "utils/wait_event.h"

#include "core/arg.h"
#include "core/wait.h"

#define POLL_FIRST (5 * MILLISECONDS)
#define POLL_LAST (100 * MILLISECONDS)

static const char *const wait_names[WAIT_COUNT] = {
	[WAIT_LEASE] = "DistsysLease",
	[WAIT_CLAIM] = "DistsysClaim",
	[WAIT_COMMITS] = "DistsysCommits",
	[WAIT_LAUNCHER] = "DistsysLauncher",
	[WAIT_WORKER] = "DistsysWorker",
	[WAIT_SEMAPHORE] = "DistsysSemaphore",
	[WAIT_RATE_LIMIT] = "DistsysRateLimit"
};

int64
wait_clock(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MICROSEC(now);
}

void
wait_latch(int64 us, WaitPoint point)
{
	static uint32 events[WAIT_COUNT];
	long		ms = (long) Min(Max(1, us / 1000), INT_MAX);

	if (events[point] == 0)
		events[point] = wait_event_new(wait_names[point]);
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms, events[point]);
	ResetLatch(MyLatch);
}

void
wait_sleep(int64 us, WaitPoint point)
{
	CHECK_FOR_INTERRUPTS();
	wait_latch(us, point);
	CHECK_FOR_INTERRUPTS();
}

void
wait_poll(int64 *poll_us, int64 us, WaitPoint point)
{
	int64		half;
	int64		sleep_us;

	*poll_us = Min(Max(*poll_us * 2, POLL_FIRST), POLL_LAST);
	half = *poll_us / 2;
	sleep_us = half + (int64) (pg_prng_double(&pg_global_prng_state) * half);
	wait_sleep(Min(us, sleep_us), point);
}
