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

#include "access/xlog.h"
#include "compat.h"

#include "core/clock.h"
#include "core/shmem.h"
#include "core/stats.h"
#include "core/wait.h"
#include "ratelimit/judge.h"
#include "ratelimit/shared.h"
#include "ratelimit/shared_hot.h"
#include "ratelimit/shared_log.h"
#include "ratelimit/shared_map.h"
#include "ratelimit/shared_refund.h"
#include "ratelimit/shared_reservation.h"
#include "ratelimit/shared_rule.h"
#include "ratelimit/shared_snapshot.h"

/*
 * Who read a policy just before it was altered must not bring back the old rule: for so long
 * the newer rule of an entry counts.
 */
#define STALE_RULE_US SECONDS

typedef struct SharedItem
{
	RateTake   *take;
	ShmapKey	key;
	bool		has_rule;		/* else there is no room in the table of rules */
	SharedRuleRef rule;
	SharedEntry *entry;			/* under the lock; NULL: none */
	bool		made;			/* by this call */
	bool		reread;			/* the policy is fresh */
	bool		complete;		/* a key that is not in the map was not in use */
} SharedItem;

/* What a look under the locks came to. */
typedef enum Outcome
{
	DONE,
	STALE_POLICY,				/* of item->take: read it again */
	STALE_RULE,					/* its slot serves another rule */
	UNKNOWN_KEY,				/* it may be in the snapshot */
	NEEDS_LOG					/* it is a log, or was counted by one: memory is needed */
} Outcome;

typedef struct Call
{
	SharedItem	   *items;
	int			n;
	bool		apply;			/* else only judge */
	int64		now;
	int64		step;
	int			evicted;
	bool		waited;
	SharedItem	   *failed;			/* of an outcome that is not DONE */
	bool		out_of_range;
} Call;

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

/* ---- before the locks ---- */

/* Brings a rule's moments to the clock of shared limits. */
static void
to_shared_clock(LimitRule *rule, int64 step)
{
	rule->origin_us -= step;
	if (rule->algorithm != LIMIT_CALENDAR)
		return;
	for (int i = 0; i < lengthof(rule->window); i++)
		rule->window[i] -= step;
}

static bool
look_for_rule(SharedItem *item)
{
	RateTake   *take = item->take;

	return shared_rule_get(MyDatabaseId, &take->policy, &take->config.rule, take->config.on_restart, &item->rule);
}

/* Limits that are full keep the slot of their rule until somebody needs it. */
static void
find_rule(SharedItem *item)
{
	item->has_rule = look_for_rule(item) || (shared_map_dispose() && look_for_rule(item));
}

static void
prepare_item(SharedItem *item, RateTake *take, int64 step)
{
	item->take = take;
	item->key = shared_map_key(&take->policy, &take->key);
	item->entry = NULL;
	item->made = false;
	item->reread = false;
	item->complete = take->config.on_restart != RATE_RESTART_SNAPSHOT || shared_is_complete() || RecoveryInProgress();
	take->applied = 0;
	to_shared_clock(&take->config.rule, step);
	find_rule(item);
}

static void
reread_policy(SharedItem *item, int64 step)
{
	RateTake   *take = item->take;

	take_reread(take, clock_wall());
	to_shared_clock(&take->config.rule, step);
	find_rule(item);
	item->reread = true;
}

/* ---- under the locks: no error, no allocation ---- */

/* What a key has that nobody has used in this life of the server. */
static void
fill(RateTake *take, int64 now)
{
	const LimitRule *rule = &take->config.rule;
	int64		began = shared_began();
	bool		past = rule->algorithm == LIMIT_CALENDAR && rule->window[0] > began;

	take->blocked_until = 0;
	take_fill(take, now);
	if (take->config.on_restart != RATE_RESTART_EMPTY || past || began > now)
		return;
	if (rule->algorithm == LIMIT_SLIDING_LOG)
	{
		take->log.at_us = began;
		log_set(&take->log, rule->limit.burst);
	}
	else
		take->state = limit_of_tokens(rule, 0, began);
	take_refill(take, now);
}

static bool
needs_log(const SharedItem *item)
{
	return item->take->log.times == NULL &&
		(item->take->config.rule.algorithm == LIMIT_SLIDING_LOG ||
		 (item->entry != NULL && shared_rule_of(item->entry->rule)->algorithm == LIMIT_SLIDING_LOG));
}

/* Is the rule of the entry one that was made after ours, just now? */
static bool
is_newer(const SharedEntry *entry, SharedRuleRef ours, int64 now)
{
	int64		since = shared_rule_info(entry->rule)->since;

	return since > shared_rule_info(ours.slot)->since && now - since < STALE_RULE_US;
}

/* The entry was counted by another rule than ours. */
static Outcome
change_rule(SharedItem *item, const Call *call)
{
	RateTake   *take = item->take;
	const LimitRule *stored = shared_rule_of(item->entry->rule);
	int64		changed_at = take->config.changed_at - call->step;

	if (limit_same(stored, &take->config.rule))
		return DONE;
	if (!item->reread)
		return STALE_POLICY;
	if (is_newer(item->entry, item->rule, call->now))
	{
		take->config.rule = *stored;
		item->rule.slot = item->entry->rule;
		return DONE;
	}
	take_refill_by(take, stored, Min(Max(changed_at, take->state.at_us), call->now));
	take_convert(take, stored);
	return DONE;
}

/* The state at now, from the entry or without. */
static Outcome
load(SharedItem *item, const Call *call)
{
	RateTake   *take = item->take;
	Outcome		outcome = DONE;

	item->entry = shmap_find(&shared_map, &item->key);
	if (needs_log(item))
	{
		item->entry = NULL;
		return NEEDS_LOG;
	}
	if (item->entry == NULL)
	{
		if (!item->complete)
			return UNKNOWN_KEY;
		fill(take, call->now);
		return DONE;
	}
	if (call->apply)
		item->entry->in_call = true;
	take->state = item->entry->u.limit.state;
	take->blocked_until = item->entry->u.limit.blocked_until;
	if (shared_rule_of(item->entry->rule)->algorithm == LIMIT_SLIDING_LOG)
		shared_log_load(&item->key, item->entry, &take->log);
	if (!item->has_rule)
		take->config.rule = *shared_rule_of(item->entry->rule);
	else if (item->entry->rule != item->rule.slot)
		outcome = change_rule(item, call);
	take_refill(take, call->now);
	return outcome;
}

/* The key has no room. */
static void
judge_unavailable(RateTake *take)
{
	take->within = !take->config.closed;
	take->granted = take->config.closed ? 0 : take->cost;
	take->reason = RATE_UNAVAILABLE;
	take->starts_block = false;
}

/* Makes the entry that an unused key lacks. */
static Outcome
make_entry(SharedItem *item, Call *call)
{
	if (!item->has_rule)
	{
		judge_unavailable(item->take);
		return DONE;
	}
	if (!shared_rule_pin(item->rule))
		return STALE_RULE;
	item->entry = shmap_insert(&shared_map, &item->key, call->now, &call->evicted);
	if (item->entry == NULL)
	{
		shared_rule_unpin(item->rule.slot);
		judge_unavailable(item->take);
		return DONE;
	}
	item->made = true;
	item->entry->in_call = true;
	item->entry->kind = SHARED_LIMIT;
	item->entry->rule = item->rule.slot;
	item->entry->u.limit.state = item->take->state;
	if (item->take->config.rule.algorithm == LIMIT_SLIDING_LOG)
		shared_log_store(&item->key, item->entry, &item->take->log, call->now, &call->evicted);
	return DONE;
}

static bool
needs_entry(const RateTake *take)
{
	if (!take_needs_state(take) || take->reason == RATE_UNAVAILABLE)
		return false;
	return take->within ? take->verb != RATE_REFUND : take->starts_block;
}

static Outcome
judge_item(SharedItem *item, Call *call)
{
	RateTake   *take = item->take;
	Outcome		outcome = load(item, call);

	if (outcome != DONE)
		return outcome;
	take_judge(take, call->now);
	if (call->apply && item->entry == NULL && needs_entry(take))
		return make_entry(item, call);
	return DONE;
}

static void
store(SharedItem *item, Call *call)
{
	RateTake   *take = item->take;
	SharedEntry *entry = item->entry;

	take_block(take, call->now);
	entry->u.limit.blocked_until = take->blocked_until > call->now ? take->blocked_until : 0;
	if (item->has_rule && entry->rule != item->rule.slot && shared_rule_pin(item->rule))
	{
		shared_rule_unpin(entry->rule);
		entry->rule = item->rule.slot;
	}
	if (take->config.rule.algorithm == LIMIT_SLIDING_LOG)
		shared_log_store(&item->key, entry, &take->log, call->now, &call->evicted);
	else
		entry->u.limit.state = take->state;
}

static int64
applied_tokens(const RateTake *take)
{
	switch (take->verb)
	{
		case RATE_TAKE_UP_TO:
			return take->granted;
		case RATE_REFUND:
			return -take->granted;
		default:
			return take->cost;
	}
}

static void
apply_item(SharedItem *item, Call *call)
{
	RateTake   *take = item->take;

	if (take->within && take->reason != RATE_UNAVAILABLE)
	{
		if (take_apply(take))
			take->applied = applied_tokens(take);
		else
			call->out_of_range = true;
	}
	store(item, call);
}

static bool
none_refuses(const Call *call)
{
	for (int i = 0; i < call->n; i++)
	{
		if (take_refuses(call->items[i].take))
			return false;
	}
	return true;
}

static void
apply_all(Call *call)
{
	bool		go = none_refuses(call);

	for (int i = 0; i < call->n; i++)
	{
		SharedItem	   *item = &call->items[i];

		if (item->entry == NULL || !take_needs_state(item->take))
			continue;
		if (go && item->take->within)
			apply_item(item, call);
		else if (item->take->starts_block)
			store(item, call);
		else if (item->made)
		{
			shmap_remove(&shared_map, &item->key);
			item->entry = NULL;
		}
	}
}

static void
let_go(Call *call)
{
	for (int i = 0; i < call->n; i++)
	{
		if (call->items[i].entry != NULL)
			call->items[i].entry->in_call = false;
	}
}

/* The part under the locks. */
static Outcome
decide(Call *call)
{
	Outcome		outcome = DONE;

	call->now = shared_now();
	for (int i = 0; i < call->n; i++)
		call->items[i].entry = NULL;
	for (int i = 0; i < call->n && outcome == DONE; i++)
	{
		outcome = judge_item(&call->items[i], call);
		call->failed = &call->items[i];
	}
	if (!call->apply)
		return outcome;
	if (outcome == DONE)
		apply_all(call);
	let_go(call);
	return outcome;
}

/* ---- a call ---- */

static Outcome
decide_locked(Call *call)
{
	LWLockMode	mode = call->apply ? LW_EXCLUSIVE : LW_SHARED;
	ShmapSet	set = {0};
	int			partition;
	Outcome		outcome;

	if (call->n == 1)
	{
		partition = shmap_partition(&call->items[0].key);
		call->waited |= shmap_lock(&shared_map, partition, mode);
		outcome = decide(call);
		shmap_unlock(&shared_map, partition);
		return outcome;
	}
	for (int i = 0; i < call->n; i++)
		shmap_set_add(&set, &call->items[i].key);
	call->waited |= shmap_lock_set(&shared_map, &set, mode);
	outcome = decide(call);
	shmap_unlock_set(&shared_map, &set);
	return outcome;
}

static void
recover(Call *call, Outcome outcome)
{
	SharedItem *item = call->failed;

	switch (outcome)
	{
		case STALE_POLICY:
			reread_policy(item, call->step);
			break;
		case STALE_RULE:
			find_rule(item);
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
note_reservations(const Call *call)
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
note_refunds(const Call *call)
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
count_refunds(const Call *call)
{
	int			count = 0;

	for (int i = 0; i < call->n; i++)
		count += call->items[i].take->config.refund;
	return count;
}

static void
count_events(const Call *call)
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
run(RateTake *takes, int n, Call *call)
{
	Outcome		outcome;
	int			nrefunds;

	call->step = shared_step();
	for (int i = 0; i < n; i++)
	{
		if (is_counted(&takes[i]))
			prepare_item(&call->items[call->n++], &takes[i], call->step);
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
	SharedItem		one;
	Call		call = {.items = n == 1 ? &one : palloc(n * sizeof(SharedItem)), .apply = apply};

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

/* Changes one entry; make: also when there is none. false: there is none, or no room. */
static SharedEntry *
lock_entry(RateTake *take, bool make, Call *call, SharedItem *item)
{
	call->items = item;
	call->n = 1;
	call->step = shared_step();
	prepare_item(item, take, call->step);
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
		(void) load(item, call);
		if (item->entry != NULL || !make || make_entry(item, call) == DONE)
		{
			let_go(call);
			return item->entry;
		}
		shmap_unlock(&shared_map, shmap_partition(&item->key));
		find_rule(item);
	} while (true);
}

bool
shared_reset(RateTake *take)
{
	SharedItem		item;
	Call		call = {0};
	bool		empty_start = take->config.on_restart == RATE_RESTART_EMPTY;
	SharedEntry *entry = lock_entry(take, empty_start, &call, &item);
	bool		used = entry != NULL && !take_is_full(take, call.now);

	if (used)
	{
		take->blocked_until = 0;
		take_fill(take, call.now);
		store(&item, &call);
	}
	shmap_unlock(&shared_map, shmap_partition(&item.key));
	return used;
}

bool
shared_block(RateTake *take, int64 duration_us)
{
	SharedItem		item;
	Call		call = {0};
	SharedEntry *entry = lock_entry(take, duration_us > 0, &call, &item);
	bool		blocked = entry != NULL && take->blocked_until > call.now;
	bool		changed = entry != NULL && (duration_us > 0 || blocked);

	if (changed)
	{
		take->starts_block = false;
		take->blocked_until = duration_us > 0 ? call.now + duration_us : 0;
		store(&item, &call);
	}
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
