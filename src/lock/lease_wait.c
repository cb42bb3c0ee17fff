/*
 * lease_wait.c: waiting for leases.
 *
 * Preloaded: a queue, first come first served (waitlist.h). The release's commit calls the head, which
 * also looks when the holder's time is up. Else everybody looks again and again, with jitter, and a
 * waiting exclusive request keeps shared ones out by its INTENT lock (a CALL form, for the session).
 *
 * A waiting function keeps its transaction's snapshot, so it waits for at most distsys.max_function_wait;
 * when only pins are in the way it waits for those transactions, where the deadlock detector sees it. A
 * CALL form waits between transactions, for as long as it is told.
 */
#include "postgres.h"

#include "compat.h"

#include "core/stats.h"
#include "core/wait.h"
#include "core/waitlist.h"
#include "lock/lease_row.h"

/* In the queue: when it is not known until when it is held, or the first does not come. */
#define LOOK_AGAIN (150 * MILLISECONDS)
/* However long it is held: somebody may have removed the row by hand. */
#define LOOK_AT_LEAST (5 * SECONDS)

bool
lease_queue(const LeaseKind *kind, const LeaseRequest *request)
{
	LOCKTAG		tag;

	lease_name_tag(kind, &tag, &request->name);
	return waitlist_join(&tag, &request->name, &request->owner, request->shared, request->priority);
}

void
lease_call_waiters(const LeaseKind *kind, const NameArg *name)
{
	LOCKTAG		tag;

	lease_name_tag(kind, &tag, name);
	waitlist_wake_at_end(&tag);
}

void
lease_sleep(const LeaseAnswer *answer, int64 left_us, int64 *poll_us)
{
	int64		sleep_us = LOOK_AGAIN;

	if (!waitlist_available())
	{
		wait_poll(poll_us, answer->retry_us > 0 ? Min(answer->retry_us, left_us) : left_us, WAIT_LEASE);
		return;
	}
	if (answer->retry_us > 0)
		sleep_us = at_most(answer->retry_us + (waitlist_first() ? 0 : LOOK_AGAIN), LOOK_AT_LEAST);
	waitlist_sleep(Min(sleep_us, left_us), WAIT_LEASE);
}

/* Where there is no queue: keeps shared requests out while an exclusive one waits. */
static bool
intend(const LeaseKind *kind, const LeaseRequest *request, LOCKTAG *tag)
{
	if (waitlist_available() || request->shared)
		return false;
	lease_intent_tag(kind, tag, &request->name);
	return keylock_try(tag, ShareLock);
}

/* A CALL form holds it from attempt to attempt, each of which is a transaction. */
static LOCKTAG session_intent;
static bool session_intended = false;

void
lease_begin_waiting(const LeaseKind *kind, const LeaseRequest *request)
{
	if (session_intended || waitlist_available() || request->shared)
		return;
	lease_intent_tag(kind, &session_intent, &request->name);
	session_intended = keylock_session_wait(&session_intent, ShareLock, 0);
}

void
lease_end_waiting(bool acquired)
{
	if (session_intended)
		(void) LockRelease(&session_intent, ShareLock, true);
	session_intended = false;
	if (acquired)
		waitlist_leave();
	else
		waitlist_give_up();
}

static void
wait_in_function(const LeaseKind *kind, const LeaseRequest *request, const LeaseAnswer *answer, int64 left_us, int64 *poll_us)
{
	LOCKTAG		tag;

	if (lease_queue(kind, request))
		return;
	if (answer->reason != LEASE_PINNED)
	{
		lease_sleep(answer, left_us, poll_us);
		return;
	}
	lease_name_tag(kind, &tag, &request->name);
	waitlist_away(left_us);
	(void) keylock_wait_for_holders(&tag, request->shared ? ShareLock : ExclusiveLock, left_us);
	waitlist_away(0);
}

/* Counts what an acquire came to, and how long it took when it had to wait. */
void
lease_count(const LeaseKind *kind, bool acquired, LeaseReason reason, int64 waited_us)
{
	static const struct
	{
		int64		below_us;
		const char *metric;
	}			buckets[] = {
		{1 * MILLISECONDS, "wait_lt_1ms"}, {10 * MILLISECONDS, "wait_lt_10ms"}, {100 * MILLISECONDS, "wait_lt_100ms"},
		{1 * SECONDS, "wait_lt_1s"}, {10 * SECONDS, "wait_lt_10s"}, {PG_INT64_MAX, "wait_ge_10s"}
	};
	int			i = 0;

	if (acquired)
		stats_add(kind->domain, "", "acquired", 1);
	else
		stats_add(kind->domain, "", reason == LEASE_TIMEOUT ? "timed_out" : "refused", 1);
	if (waited_us == 0)
		return;
	if (acquired)
		stats_add(kind->domain, "", "contended", 1);
	while (waited_us >= buckets[i].below_us)
		i++;
	stats_add(kind->domain, "", buckets[i].metric, 1);
}

/* Tries, waits, tries. Returns the index of the request that stood in the way to the end, -1: granted. */
static pg_noinline int
try_until(const LeaseKind *kind, const LeaseRequest *requests, int n, int64 wait_us, LeaseAnswer *answers, int64 *waited_us)
{
	int64		begun = wait_us > 0 ? wait_clock() : 0;
	int64		poll_us = 0;
	int			obstacle;
	LOCKTAG		intent;
	bool		intended = false;

	while (!lease_try(kind, requests, n, answers, &obstacle) && wait_us > 0)
	{
		int64		left_us;

		*waited_us = at_least(wait_clock() - begun, 1);
		left_us = wait_us - *waited_us;
		if (left_us <= 0)
		{
			answers[obstacle].reason = LEASE_TIMEOUT;
			break;
		}
		if (!intended)
			intended = intend(kind, &requests[obstacle], &intent);
		wait_in_function(kind, &requests[obstacle], &answers[obstacle], left_us, &poll_us);
		*waited_us = at_least(wait_clock() - begun, 1);
	}
	if (intended)
		keylock_release(&intent, ShareLock);
	return obstacle;
}

bool
lease_acquire(const LeaseKind *kind, const LeaseRequest *requests, int n, int64 wait_us, LeaseAnswer *answers)
{
	int64		waited_us = 0;
	int			obstacle = -1;

	PG_TRY();
	{
		obstacle = try_until(kind, requests, n, wait_us, answers, &waited_us);
	}
	PG_CATCH();
	{
		waitlist_give_up();
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (obstacle < 0)
		waitlist_leave();
	else
		waitlist_give_up();
	for (int i = 0; i < n; i++)
	{
		if (!answers[i].again && (obstacle < 0 || i == obstacle))
			lease_count(kind, obstacle < 0, answers[i].reason, waited_us);
	}
	return obstacle < 0;
}
