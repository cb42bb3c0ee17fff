/*
 * shared_log.c: sliding window logs in shared memory, see shared_log.h.
 *
 * A part whose four times have left the window may be evicted by whoever needs the room: times ascend, so what is
 * missing is always a beginning of the log that is not in sight any more. A part pins the rule by which it is judged then.
 */
#include "postgres.h"

#include "common/hashfn.h"

#include "ratelimit/shared_log.h"
#include "ratelimit/shared_rule.h"

static ShmapKey
part_key(const ShmapKey *key, int number)
{
	ShmapKey	part = *key;

	/* the upper half decides about the partition */
	part.low = hash_combine64(key->low, UINT64CONST(0x6c6f67) + number);
	return part;
}

static int
parts_of(int64 n)
{
	return (int) ((n + SHARED_LOG_PART - 1) / SHARED_LOG_PART);
}

void
shared_log_load(const ShmapKey *key, const SharedEntry *entry, LimitLog *log)
{
	const LimitState *state = &entry->u.limit.state;
	int64		gone = state->at_us - shared_rule_of(entry->rule)->limit.period_us;

	log->n = (int) Min(state->a, LOG_QUOTA_MAX);
	log->at_us = state->at_us;
	for (int i = 0; i < log->n; i += SHARED_LOG_PART)
	{
		ShmapKey	at = part_key(key, i / SHARED_LOG_PART);
		const SharedEntry *part = state->b != 0 ? NULL : shmap_find(&shared_map, &at);
		int			count = Min(SHARED_LOG_PART, log->n - i);

		for (int j = 0; j < count; j++)
			log->times[i + j] = part != NULL ? part->u.times[j] : state->b != 0 ? state->at_us : gone;
	}
}

/* false: no room. */
static bool
store_part(const ShmapKey *key, const SharedEntry *entry, const LimitLog *log, int number, int64 now, int *evicted)
{
	ShmapKey	at = part_key(key, number);
	SharedEntry *part = shmap_find(&shared_map, &at);

	if (part == NULL)
	{
		part = shmap_insert(&shared_map, &at, now, evicted);
		if (part == NULL)
			return false;
		part->kind = SHARED_LOG;
	}
	else
		shared_rule_unpin(part->rule);
	part->rule = entry->rule;
	shared_rule_pin_more(part->rule);
	for (int i = 0; i < SHARED_LOG_PART; i++)
		part->u.times[i] = log->times[Min(number * SHARED_LOG_PART + i, log->n - 1)];
	return true;
}

void
shared_log_store(const ShmapKey *key, SharedEntry *entry, const LimitLog *log, int64 now, int *evicted)
{
	LimitState *state = &entry->u.limit.state;

	state->a = log->n;
	state->b = 0;
	state->at_us = log->n > 0 ? log->times[log->n - 1] : log->at_us;
	for (int i = 0; i < parts_of(log->n) && state->b == 0; i++)
		state->b = store_part(key, entry, log, i, now, evicted) ? 0 : 1;
}

int64
shared_log_full_in(const LimitRule *rule, const LimitState *state, int64 now)
{
	return state->a == 0 ? 0 : Max(state->at_us + rule->limit.period_us - now, 0);
}

bool
shared_log_is_full(const LimitRule *rule, const LimitState *state, int64 now)
{
	return shared_log_full_in(rule, state, now) == 0;
}

int64
shared_log_remaining(const LimitRule *rule, const LimitState *state, int64 now)
{
	return shared_log_is_full(rule, state, now) ? rule->limit.burst : Max(rule->limit.burst - state->a, 0);
}

bool
shared_log_part_is_over(const SharedEntry *part, int64 now)
{
	return now - part->u.times[SHARED_LOG_PART - 1] >= shared_rule_of(part->rule)->limit.period_us;
}
