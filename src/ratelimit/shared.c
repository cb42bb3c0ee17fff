/*
 * shared.c: limits in shared memory, see shared.h.
 *
 * A call finds the keys of its limits and the slots of their rules, makes room for the refunds, then
 * locks the partitions of all keys in ascending order, judges by one reading of the
 * clock, and applies all or none. What can fail or wait is done before the
 * locks or after they are given back:
 *   - the policy was altered since it was read: it is read again;
 *   - the slot of the rule serves another by now: another is looked for;
 *   - the key may be in the snapshot of the life before: its row is read;
 *   - the limit is a log, by its entry: memory for its times is allocated.
 * Then the call begins anew, once for each.
 *
 * Rollback: nothing, or the refund. Crash: see shared_snapshot.h. Standby and
 * READ ONLY transactions: works, each server counts for itself.
 */
#include "postgres.h"

#include "compat.h"

#include "core/shmem.h"
#include "core/stats.h"
#include "core/wait.h"
#include "ratelimit/judge.h"
#include "ratelimit/shared.h"
#include "ratelimit/shared_decide.h"
#include "ratelimit/shared_hot.h"
#include "ratelimit/shared_refund.h"
#include "ratelimit/shared_reservation.h"
#include "ratelimit/shared_snapshot.h"

void
shared_init(void)
{
	shared_map_init();
	shared_hot_init();
	shared_refund_init();
}

void
shared_require(void)
{
	if (!shmem_available())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("shared rate limits need the library in shared memory"),
				 errhint("Set shared_preload_libraries = 'distsys' and restart the server, or use storage => 'durable'.")));
}

/* ---- a call ---- */

static SharedOutcome
decide_locked(SharedCall *call)
{
	LWLockMode	mode = call->apply ? LW_EXCLUSIVE : LW_SHARED;
	ShmapSet	set = {0};
	int			partition;
	SharedOutcome		outcome;

	if (call->n == 1)
	{
		partition = shmap_partition(&call->items[0].key);
		call->waited |= shmap_lock(&shared_map, partition, mode);
		outcome = shared_decide(call);
		shmap_unlock(&shared_map, partition);
		return outcome;
	}
	for (int i = 0; i < call->n; i++)
		shmap_set_add(&set, &call->items[i].key);
	call->waited |= shmap_lock_set(&shared_map, &set, mode);
	outcome = shared_decide(call);
	shmap_unlock_set(&shared_map, &set);
	return outcome;
}

static void
recover(SharedCall *call, SharedOutcome outcome)
{
	SharedItem *item = call->failed;

	CHECK_FOR_INTERRUPTS();
	switch (outcome)
	{
		case STALE_POLICY:
			shared_item_reread(item, call->step);
			break;
		case STALE_RULE:
			shared_item_find_rule_again(item);
			break;
		case UNKNOWN_KEY:
			shared_snapshot_bring(&item->key);
			item->complete = true;
			break;
		case NEEDS_LOG:
			take_make_log(item->take);
			break;
		case DONE:
			break;
	}
}

/* Numbers what was reserved for later. */
static void
note_reservations(const SharedCall *call)
{
	for (int i = 0; i < call->n; i++)
	{
		const SharedItem *item = &call->items[i];
		RateTake   *take = item->take;

		if (take->verb == RATE_RESERVE && take->applied != 0 && take->delay_us > 0)
			take->reservation = shared_reservation_make(&item->key, take->cost, take->state.at_us + take->delay_us);
	}
}

/* Owes what was applied to the abort of the transaction, where the policy says so. */
static void
note_refunds(const SharedCall *call)
{
	for (int i = 0; i < call->n; i++)
	{
		const SharedItem *item = &call->items[i];
		SharedRefund refund = {item->key, item->take->applied, item->take->state.at_us, item->take->reservation};

		if (item->take->config.refund && item->take->applied != 0)
			shared_refund_note(&refund);
	}
}

static int
count_refunds(const SharedCall *call)
{
	int			count = 0;

	for (int i = 0; i < call->n; i++)
		count += call->items[i].take->config.refund;
	return count;
}

static void
count_events(const SharedCall *call)
{
	static StatsCounter *evicted = NULL;
	static StatsCounter *waits = NULL;

	if (call->evicted > 0)
	{
		if (evicted == NULL)
			evicted = stats_counter("rate_limit", "", "shared_evicted");
		stats_count(evicted, call->evicted);
	}
	if (call->waited)
	{
		if (waits == NULL)
			waits = stats_counter("rate_limit", "", "shared_lock_waits");
		stats_count(waits, 1);
	}
}

/* Is there anything to judge? */
static bool
is_counted(const RateTake *take)
{
	return take->config.mode != RATE_DISABLED && !take->config.unlimited;
}

static void
run(RateTake *takes, int n, SharedCall *call)
{
	SharedOutcome		outcome;
	int			nrefunds;

	call->step = shared_step();
	for (int i = 0; i < n; i++)
	{
		if (is_counted(&takes[i]))
			shared_item_prepare(&call->items[call->n++], &takes[i], call->step);
	}
	nrefunds = call->apply ? count_refunds(call) : 0;
	if (nrefunds > 0)
		shared_refund_reserve(nrefunds);
	while ((outcome = decide_locked(call)) != DONE)
		recover(call, outcome);
	note_reservations(call);
	if (nrefunds > 0)
		note_refunds(call);
	count_events(call);
	for (int i = 0; i < call->n; i++)
	{
		SharedItem *item = &call->items[i];

		item->take->decided_at += call->step;
		if (call->apply)
			shared_hot_note(&item->key, &item->take->policy, &item->take->key, call->now);
	}
}

static void
run_any(RateTake *takes, int n, bool apply)
{
	SharedItem	one;
	SharedCall	call = {.items = n == 1 ? &one : palloc(n * sizeof(SharedItem)), .apply = apply};

	run(takes, n, &call);
	if (call.out_of_range)
	{
		shared_undo(takes, n);
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("cost is out of range")));
	}
}

void
shared_take(RateTake *takes, int n, bool go)
{
	run_any(takes, n, go);
}

void
shared_peek(RateTake *takes, int n)
{
	run_any(takes, n, false);
}

void
shared_undo(RateTake *takes, int n)
{
	for (int i = 0; i < n; i++)
	{
		SharedRefund refund = {shared_map_key(&takes[i].policy, &takes[i].key), takes[i].applied, takes[i].state.at_us, takes[i].reservation};

		/* else the abort that follows does it */
		if (takes[i].applied != 0 && !takes[i].config.refund)
			shared_refund_give(&refund);
		takes[i].applied = 0;
	}
}

/* ---- operators ---- */

/* Locks one entry and its partition; make: also when there is none. NULL: there is none, or no room. */
static SharedEntry *
lock_entry(RateTake *take, bool make, SharedCall *call, SharedItem *item)
{
	call->items = item;
	call->n = 1;
	call->apply = true;
	call->step = shared_step();
	shared_item_prepare(item, take, call->step);
	item->reread = true;
	if (!item->complete)
		shared_snapshot_bring(&item->key);
	item->complete = true;
	/* by its entry it may be one, whatever its policy says */
	take_make_log(take);
	do
	{
		if (!item->has_rule)
			make = false;
		shmap_lock(&shared_map, shmap_partition(&item->key), LW_EXCLUSIVE);
		call->now = shared_now();
		if (shared_item_load(item, call) == DONE &&
			(item->entry != NULL || !make || shared_item_make(item, call) == DONE))
			return item->entry;
		shared_let_go(call);
		shmap_unlock(&shared_map, shmap_partition(&item->key));
		shared_item_find_rule_again(item);
	} while (true);
}

bool
shared_reset(RateTake *take)
{
	SharedItem	item;
	SharedCall	call = {0};
	bool		empty_start = take->config.on_restart == RATE_RESTART_EMPTY;
	SharedEntry *entry = lock_entry(take, empty_start, &call, &item);
	bool		used = entry != NULL && !take_is_full(take, call.now);

	if (used)
	{
		take->blocked_until = 0;
		take_fill(take, call.now);
		shared_item_store(&item, &call);
	}
	shared_let_go(&call);
	shmap_unlock(&shared_map, shmap_partition(&item.key));
	return used;
}

bool
shared_block(RateTake *take, int64 duration_us)
{
	SharedItem	item;
	SharedCall	call = {0};
	SharedEntry *entry = lock_entry(take, duration_us > 0, &call, &item);
	bool		blocked = entry != NULL && take->blocked_until > call.now;
	bool		changed = entry != NULL && (duration_us > 0 || blocked);

	if (changed)
	{
		take->starts_block = false;
		take->blocked_until = duration_us > 0 ? call.now + duration_us : 0;
		shared_item_store(&item, &call);
	}
	shared_let_go(&call);
	shmap_unlock(&shared_map, shmap_partition(&item.key));
	if (!changed && duration_us > 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("there is no room for the key in shared memory"),
				 errhint("Raise distsys.rate_limit_shared_keys.")));
	return changed;
}

int64
shared_cancel(int64 reservation)
{
	return shared_reservation_cancel(reservation);
}

/* ---- waiting ---- */

/*
 * Meanwhile the reservation is owed to whatever ends the transaction: a cancel, a terminate. It is used when the
 * time has come; then the policy says whether a rollback gives it back.
 */
void
shared_wait(RateTake *take)
{
	SharedRefund refund = {shared_map_key(&take->policy, &take->key), take->applied, take->state.at_us, take->reservation};
	int64		act_at = take->state.at_us + take->delay_us;
	bool		noted = take->config.refund;
	int64		left;

	if (take->delay_us == 0)
		return;
	if (!noted)
	{
		shared_refund_reserve(1);
		shared_refund_note(&refund);
	}
	while ((left = act_at - shared_now()) > 0)
		wait_sleep(left, WAIT_RATE_LIMIT);
	shared_refund_forget();
	refund.reservation = 0;
	if (noted)
		shared_refund_note(&refund);
	take->reservation = 0;
}
