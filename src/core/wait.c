/*
 * wait.c: waits on the process latch, see wait.h.
 */
#include "postgres.h"

#include <limits.h>

#include "compat.h"
#include "portability/instr_time.h"
#include "storage/latch.h"
#include "utils/wait_event.h"

#include "core/wait.h"

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
