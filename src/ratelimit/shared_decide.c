/*
 * shared_decide.c: judges and applies the limits of a call under the locks of their partitions, see shared.c.
 *
 * Nothing here raises, allocates or waits, but what is said to come before the locks. An entry that a call has in hand is
 * marked, so that room made for another limit of the same call does not take it.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "compat.h"

#include "core/clock.h"
#include "ratelimit/judge.h"
#include "ratelimit/shared_decide.h"
#include "ratelimit/shared_log.h"

/*
 * Who read a policy just before it was altered must not bring back the old rule: for so long
 * the newer rule of an entry counts.
 */
#define STALE_RULE_US SECONDS

#define MAX_RULES_LOST 100

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

void
shared_item_find_rule_again(SharedItem *item)
{
	find_rule(item);
	/* in a crowd this could go on: there is no room then */
	if (++item->rules_lost > MAX_RULES_LOST)
		item->has_rule = false;
}

void
shared_item_prepare(SharedItem *item, RateTake *take, int64 step)
{
	item->take = take;
	item->key = shared_map_key(&take->policy, &take->key);
	item->entry = NULL;
	item->made = false;
	item->pinned = false;
	item->rules_lost = 0;
	item->reread = false;
	item->complete = take->config.on_restart != RATE_RESTART_SNAPSHOT || shared_is_complete() || RecoveryInProgress();
	take->applied = 0;
	to_shared_clock(&take->config.rule, step);
	find_rule(item);
}

void
shared_item_reread(SharedItem *item, int64 step)
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
static SharedOutcome
change_rule(SharedItem *item, const SharedCall *call)
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
	/* what is carried over can be stored under its new rule only */
	if (call->apply && !(item->pinned = shared_rule_pin(item->rule)))
		return STALE_RULE;
	take_carry_over(take, stored, changed_at, call->now);
	return DONE;
}

/* The state at now, from the entry or without. */
SharedOutcome
shared_item_load(SharedItem *item, const SharedCall *call)
{
	RateTake   *take = item->take;
	SharedOutcome		outcome = DONE;

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
SharedOutcome
shared_item_make(SharedItem *item, SharedCall *call)
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

static SharedOutcome
judge_item(SharedItem *item, SharedCall *call)
{
	RateTake   *take = item->take;
	SharedOutcome		outcome = shared_item_load(item, call);

	if (outcome != DONE)
		return outcome;
	take_judge(take, call->now);
	if (call->apply && item->entry == NULL && needs_entry(take))
		return shared_item_make(item, call);
	return DONE;
}

void
shared_item_store(SharedItem *item, SharedCall *call)
{
	RateTake   *take = item->take;
	SharedEntry *entry = item->entry;

	take_block(take, call->now);
	entry->u.limit.blocked_until = take->blocked_until > call->now ? take->blocked_until : 0;
	if (item->has_rule && entry->rule != item->rule.slot && (item->pinned || shared_rule_pin(item->rule)))
	{
		shared_rule_unpin(entry->rule);
		entry->rule = item->rule.slot;
		item->pinned = false;
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
apply_item(SharedItem *item, SharedCall *call)
{
	RateTake   *take = item->take;

	if (take->within && take->reason != RATE_UNAVAILABLE)
	{
		if (take_apply(take))
			take->applied = applied_tokens(take);
		else
			call->out_of_range = true;
	}
	shared_item_store(item, call);
}

static bool
none_refuses(const SharedCall *call)
{
	for (int i = 0; i < call->n; i++)
	{
		if (take_refuses(call->items[i].take))
			return false;
	}
	return true;
}

static void
apply_all(SharedCall *call)
{
	bool		go = none_refuses(call);

	for (int i = 0; i < call->n; i++)
	{
		SharedItem *item = &call->items[i];

		if (item->entry == NULL || !take_needs_state(item->take))
			continue;
		if (go && item->take->within)
			apply_item(item, call);
		else if (item->take->starts_block)
			shared_item_store(item, call);
		else if (item->made)
		{
			shmap_remove(&shared_map, &item->key);
			item->entry = NULL;
		}
	}
}

void
shared_let_go(SharedCall *call)
{
	for (int i = 0; i < call->n; i++)
	{
		SharedItem *item = &call->items[i];

		if (item->entry != NULL)
			item->entry->in_call = false;
		if (item->pinned)
			shared_rule_unpin(item->rule.slot);
		item->pinned = false;
	}
}

/* The part under the locks. */
SharedOutcome
shared_decide(SharedCall *call)
{
	SharedOutcome		outcome = DONE;

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
	shared_let_go(call);
	return outcome;
}
