/*
 * shared_saved.c: shared limits out of and into shared memory, see shared_saved.h.
 */
#include "postgres.h"

#include "ratelimit/shared_log.h"
#include "ratelimit/shared_saved.h"

/* Does state.b tell a moment? */
static bool
keeps_begin(const LimitRule *rule)
{
	return rule->algorithm == LIMIT_FIXED_WINDOW || rule->algorithm == LIMIT_CALENDAR;
}

/* Moves all moments by so many microseconds. */
static void
shift(SharedSaved *saved, int64 by)
{
	saved->rule.origin_us += by;
	if (saved->rule.algorithm == LIMIT_CALENDAR)
	{
		for (int i = 0; i < lengthof(saved->rule.window); i++)
			saved->rule.window[i] += by;
	}
	saved->state.at_us += by;
	if (keeps_begin(&saved->rule))
		saved->state.b += by;
	if (saved->blocked_until != 0)
		saved->blocked_until += by;
}

bool
shared_save(const ShmapKey *key, const SharedEntry *entry, int64 now, int64 step, SharedSaved *saved)
{
	LimitState	state;

	if (entry->kind != SHARED_LIMIT || shared_rule_info(entry->rule)->on_restart != RATE_RESTART_SNAPSHOT)
		return false;
	saved->key = *key;
	saved->info = *shared_rule_info(entry->rule);
	saved->rule = *shared_rule_of(entry->rule);
	saved->state = state = entry->u.limit.state;
	saved->blocked_until = entry->u.limit.blocked_until;
	if (saved->rule.algorithm == LIMIT_SLIDING_LOG)
	{
		/* without its times: all count from the newest */
		saved->state.b = 1;
		saved->full_in_us = shared_log_full_in(&saved->rule, &state, now);
	}
	else
	{
		limit_refill(&saved->rule, &state, now);
		saved->full_in_us = limit_judge(&saved->rule, &state, 0).reset_us;
	}
	saved->full_in_us = Max(saved->full_in_us, saved->blocked_until - now);
	shift(saved, step);
	return saved->full_in_us > 0;
}

/* Under the partition's lock. */
static bool
insert(const SharedSaved *saved, SharedRuleRef rule, int64 now)
{
	int			evicted = 0;
	SharedEntry *entry;

	if (shmap_find(&shared_map, &saved->key) != NULL)
		return true;
	if (!shared_rule_pin(rule))
		return false;
	entry = shmap_insert(&shared_map, &saved->key, now, &evicted);
	if (entry == NULL)
	{
		shared_rule_unpin(rule.slot);
		return false;
	}
	entry->kind = SHARED_LIMIT;
	entry->rule = rule.slot;
	entry->u.limit.state = saved->state;
	entry->u.limit.blocked_until = saved->blocked_until;
	return true;
}

bool
shared_restore(const SharedSaved *wall)
{
	SharedSaved saved = *wall;
	NameArg		policy = {saved.info.policy, strlen(saved.info.policy)};
	int			partition = shmap_partition(&saved.key);
	SharedRuleRef rule;
	bool		restored;

	shift(&saved, -shared_step());
	if (!shared_rule_get(saved.info.database, &policy, &saved.rule, saved.info.on_restart, &rule))
		return false;
	shmap_lock(&shared_map, partition, LW_EXCLUSIVE);
	restored = insert(&saved, rule, shared_now());
	shmap_unlock(&shared_map, partition);
	return restored;
}
