/*
 * shared_refund.c: the refunds that a transaction owes, see shared_refund.h.
 *
 * One list for the transaction; marks say where the part of each subtransaction begins. A backend that is
 * terminated inside a transaction runs its exit hooks before the abort callback: the hook
 * gives all back and empties the list.
 */
#include "postgres.h"

#include "compat.h"
#include "storage/ipc.h"
#include "utils/memutils.h"

#include "core/xact.h"
#include "ratelimit/shared_log.h"
#include "ratelimit/shared_refund.h"
#include "ratelimit/shared_reservation.h"
#include "ratelimit/shared_rule.h"

static SharedRefund *owed = NULL;
static int	nowed = 0;
static int	max_owed = 0;
static XactMarks marks;

/* Is the window over in which `then` was? The state is up to date. */
static bool
window_is_over(const LimitRule *rule, const LimitState *state, int64 then)
{
	int64		period = rule->limit.period_us;

	if (limit_is_bucket(rule->algorithm))
		return false;
	if (rule->algorithm == LIMIT_SLIDING_WINDOW)
		return (then - rule->origin_us) / period != (state->at_us - rule->origin_us) / period;
	/* of a window that begins with its first take, only the state knows when that was */
	return then < state->b;
}

/* Under the lock of an entry whose rule is a log's. */
static void
give_to_log(const SharedRefund *refund, SharedEntry *entry, const LimitRule *rule, int64 now)
{
	static int64 times[LOG_QUOTA_MAX];
	LimitLog	log = {.times = times};
	int			evicted = 0;

	shared_log_load(&refund->key, entry, &log);
	log_refill(rule, &log, now);
	/* the tokens of others stay in sight for as long as they should */
	if (refund->amount > 0)
		log_refund_at(&log, refund->amount, entry->u.limit.state.b != 0 ? entry->u.limit.state.at_us : refund->at_us);
	else
		log_take(rule, &log, -refund->amount);
	entry->in_call = true;
	shared_log_store(&refund->key, entry, &log, now, &evicted);
	entry->in_call = false;
}

static void
give_to_state(const SharedRefund *refund, SharedEntry *entry, const LimitRule *rule, int64 now)
{
	LimitState *state = &entry->u.limit.state;

	limit_refill(rule, state, now);
	if (window_is_over(rule, state, refund->at_us))
		return;
	if (refund->amount > 0)
		(void) limit_refund(rule, state, refund->amount);
	else
		(void) limit_charge(rule, state, -refund->amount);
}

void
shared_refund_give(const SharedRefund *refund)
{
	int			partition = shmap_partition(&refund->key);
	int64		now = shared_now();
	SharedEntry *entry;

	if (refund->reservation != 0)
	{
		(void) shared_reservation_cancel(refund->reservation);
		return;
	}
	shmap_lock(&shared_map, partition, LW_EXCLUSIVE);
	entry = shmap_find(&shared_map, &refund->key);
	/* no entry: the limit is full */
	if (entry != NULL && entry->kind == SHARED_LIMIT)
	{
		const LimitRule *rule = shared_rule_of(entry->rule);

		if (rule->algorithm != LIMIT_SLIDING_LOG)
			give_to_state(refund, entry, rule, now);
		else if (now - refund->at_us < rule->limit.period_us)
			give_to_log(refund, entry, rule, now);
	}
	shmap_unlock(&shared_map, partition);
}

/* From the newest on down to `from`. */
static void
give_back(int from)
{
	while (nowed > from)
	{
		nowed--;
		shared_refund_give(&owed[nowed]);
	}
}

static void
give_back_at_exit(int code, Datum arg)
{
	LWLockReleaseAll();
	give_back(0);
}

void
shared_refund_reserve(int n)
{
	static bool registered = false;

	if (!registered)
	{
		before_shmem_exit(give_back_at_exit, (Datum) 0);
		registered = true;
	}
	if (nowed + n > max_owed)
	{
		int			size = Max(Max(16, max_owed * 2), nowed + n);

		owed = owed == NULL ?
			MemoryContextAlloc(TopMemoryContext, size * sizeof(SharedRefund)) :
			repalloc_huge(owed, size * sizeof(SharedRefund));
		max_owed = size;
	}
	xact_mark(&marks, nowed);
}

void
shared_refund_note(const SharedRefund *refund)
{
	Assert(nowed < max_owed);
	owed[nowed++] = *refund;
}

void
shared_refund_forget(void)
{
	Assert(nowed > 0);
	nowed--;
}

static void
refuse_prepare(void)
{
	if (nowed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction that has taken from a shared rate limit with on_abort = 'refund'"),
				 errdetail("The server does not tell an extension of a ROLLBACK PREPARED."),
				 errhint("Take the limit as its own statement before BEGIN, or use on_abort => 'keep'.")));
}

static void
refund_end(bool committed)
{
	if (!committed)
		give_back(0);
	nowed = 0;
	xact_marks_clear(&marks);
}

static void
refund_sub_end(bool committed, int nest_level)
{
	int64		before;

	if (xact_marks_sub_end(&marks, committed, nest_level, &before))
		give_back((int) before);
}

static const XactActions actions = {
	.pre_prepare = refuse_prepare,
	.end = refund_end,
	.sub_end = refund_sub_end
};

void
shared_refund_init(void)
{
	xact_register(&actions);
}
