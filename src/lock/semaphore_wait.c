/*
 * semaphore_wait.c: waiting for permits.
 *
 * A release or an expiry serves the first who waits (waitlist.h); without shared memory everybody looks again and again,
 * with jitter. The QUEUE lock counts those who wait, against queue_limit.
 */
#include "postgres.h"

#include "compat.h"

#include "core/stats.h"
#include "core/wait.h"
#include "core/waitlist.h"
#include "lock/semaphore_row.h"

/* Who waits is called; he looks all the same, for what ends without a call: prepared transactions, configuration by hand. */
#define LOOK_AGAIN (1 * SECONDS)

/* Who wants to wait waits so long for others that join, a matter of microseconds unless a process is stopped. */
#define JOIN_WAIT (1 * SECONDS)

static void
queue_tag(LOCKTAG *tag, const NameArg *name)
{
	keylock_tag(tag, KEYLOCK_SEMAPHORE_QUEUE, name->data, name->len);
}

int
semaphore_waiting(const NameArg *name)
{
	LOCKTAG		tag;

	queue_tag(&tag, name);
	return keylock_count_holders(&tag, ExclusiveLock);
}

void
semaphore_wake(const NameArg *name)
{
	LOCKTAG		tag;

	semaphore_tag(&tag, name);
	waitlist_wake_at_end(&tag);
}

/* Takes a place among those who wait; false: there are as many as may. The count and the place are one step for those who come together. */
static bool
join_queue(const SemaphoreRequest *request, int64 wait_us)
{
	SemaphoreConfig config;
	LOCKTAG		claim;
	LOCKTAG		queue;
	bool		alone;
	bool		room;

	semaphore_config_get(&request->name, &config);
	semaphore_tag(&claim, &request->name);
	queue_tag(&queue, &request->name);
	if (config.queue_limit < 0)
		return keylock_try(&queue, RowShareLock);
	alone = keylock_wait(&claim, ExclusiveLock, Min(wait_us, JOIN_WAIT));
	room = alone && semaphore_waiting(&request->name) < config.queue_limit && keylock_try(&queue, RowShareLock);
	if (alone)
		keylock_release(&claim, ExclusiveLock);
	return room;
}

/* How long until it may be granted without a release, for the one who is to take it. */
static int64
time_to_expiry(const SemaphoreGrant *refused)
{
	return refused->retry_us >= 0 && waitlist_first() ? refused->retry_us : PG_INT64_MAX;
}

static void
wait_a_little(const SemaphoreGrant *refused, int64 left_us, int64 *poll_us)
{
	int64		sleep_us = at_most(left_us, time_to_expiry(refused));

	if (waitlist_available())
		waitlist_sleep(Min(sleep_us, LOOK_AGAIN), WAIT_SEMAPHORE);
	else
		wait_poll(poll_us, sleep_us, WAIT_SEMAPHORE);
}

static SemaphoreReason
try_until(const SemaphoreRequest *request, int64 until, SemaphoreGrant *grant, bool *again)
{
	int64		poll_us = 0;

	for (;;)
	{
		SemaphoreReason reason = semaphore_try(request, grant, again);
		int64		left_us = until - wait_clock();

		if (reason == SEMAPHORE_OK)
			return reason;
		if (left_us <= 0)
			return SEMAPHORE_TIMEOUT;
		wait_a_little(grant, left_us, &poll_us);
	}
}

static SemaphoreReason
wait_for_permits(const SemaphoreRequest *request, int64 wait_us, SemaphoreGrant *grant, bool *again)
{
	int64		until = wait_clock() + wait_us;
	volatile SemaphoreReason reason = SEMAPHORE_TIMEOUT;
	LOCKTAG		tag;

	if (!join_queue(request, wait_us))
		return SEMAPHORE_QUEUE_FULL;
	semaphore_tag(&tag, &request->name);
	PG_TRY();
	{
		waitlist_join(&tag, &request->name, &request->owner, false, 0);
		reason = try_until(request, until, grant, again);
		if (reason == SEMAPHORE_OK && !*again)
			waitlist_leave();
		else
			waitlist_give_up();
	}
	PG_CATCH();
	{
		waitlist_give_up();
		PG_RE_THROW();
	}
	PG_END_TRY();
	queue_tag(&tag, &request->name);
	keylock_release(&tag, RowShareLock);
	return reason;
}

/* A refusal says when to come back. */
static void
look_when(const SemaphoreRequest *request, SemaphoreGrant *refused)
{
	Relation	rel = row_open_read(TABLE_SEMAPHORE_PERMIT);
	SemaphoreConfig config;
	SlotMap		map;

	if (refused->retry_us < 0 && semaphore_config_find(&request->name, &config))
	{
		slot_map_read(rel, &request->name, config.permits, &map);
		refused->retry_us = slot_map_retry(&map, request->permits);
	}
	row_close(rel);
}

SemaphoreReason
semaphore_acquire(const SemaphoreRequest *request, int64 wait_us, SemaphoreGrant *grant, bool *again)
{
	static const char *const metrics[] = {
		[SEMAPHORE_OK] = "acquired",
		[SEMAPHORE_NO_PERMIT] = "refused",
		[SEMAPHORE_QUEUE_FULL] = "queue_full",
		[SEMAPHORE_TIMEOUT] = "timed_out",
		[SEMAPHORE_FAILOVER_DELAY] = "refused"
	};
	SemaphoreReason reason = semaphore_try(request, grant, again);

	if (reason != SEMAPHORE_OK)
	{
		stats_add("semaphore", "", "contended", 1);
		if (wait_us > 0)
			reason = wait_for_permits(request, wait_us, grant, again);
	}
	if (reason != SEMAPHORE_OK)
		look_when(request, grant);
	if (!*again)
		stats_add("semaphore", "", metrics[reason], 1);
	return reason;
}
