/*
 * shared_view.c: what the views show of shared limits.
 *
 * The map knows keys by their hash; names are those of the keys that are used most.
 */
#include "postgres.h"

#include "compat.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "core/shmem.h"
#include "ratelimit/shared.h"
#include "ratelimit/shared_hot.h"
#include "ratelimit/shared_log.h"
#include "ratelimit/shared_rule.h"

#define HOT_KEYS_SHOWN 100

/* One entry, copied under its partition's lock. */
typedef struct Copy
{
	ShmapKey	key;
	SharedEntry entry;
	LimitRule	rule;
	char		policy[NAME_SHORT + 1];
} Copy;

static int
compare_keys(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(ShmapKey));
}

static int
compare_hot_keys(const void *a, const void *b)
{
	return compare_keys(&((const SharedHotKey *) a)->key, &((const SharedHotKey *) b)->key);
}

/* The limits of this database in a partition. */
static int
copy_partition(int partition, Copy *copies)
{
	SharedEntry *entry;
	ShmapKey	key;
	uint32		place = 0;
	int			n = 0;

	shmap_lock(&shared_map, partition, LW_SHARED);
	while ((entry = shmap_next(&shared_map, partition, &place, &key)) != NULL)
	{
		Copy	   *copy = &copies[n];

		if (entry->kind != SHARED_LIMIT || shared_rule_info(entry->rule)->database != MyDatabaseId)
			continue;
		copy->key = key;
		copy->entry = *entry;
		copy->rule = *shared_rule_of(entry->rule);
		strlcpy(copy->policy, shared_rule_info(entry->rule)->policy, sizeof(copy->policy));
		n++;
	}
	shmap_unlock(&shared_map, partition);
	return n;
}

static void
visit_copy(const Copy *copy, const SharedHotKey *hot, RateVisit visit, void *arg)
{
	int64		now = shared_now();
	int64		step = shared_step();
	LimitState	state = copy->entry.u.limit.state;
	int64		blocked_until = copy->entry.u.limit.blocked_until;
	RateEntry	entry = {.shared = true, .rule = &copy->rule};

	if (copy->rule.algorithm == LIMIT_SLIDING_LOG)
	{
		entry.remaining = shared_log_remaining(&copy->rule, &state, now);
		entry.reset_us = shared_log_full_in(&copy->rule, &state, now);
	}
	else
	{
		LimitVerdict verdict;

		limit_refill(&copy->rule, &state, now);
		verdict = limit_judge(&copy->rule, &state, 0);
		entry.remaining = verdict.remaining;
		entry.reset_us = verdict.reset_us;
	}
	entry.policy = CStringGetTextDatum(copy->policy);
	entry.key = hot == NULL ? (Datum) 0 : CStringGetTextDatum(hot->name);
	entry.blocked_until = blocked_until > now ? blocked_until + step : 0;
	entry.used_at = copy->entry.u.limit.state.at_us + step;
	visit(&entry, arg);
}

void
shared_list(RateVisit visit, void *arg)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext per_partition;
	SharedHotKey *hot;
	Copy	   *copies;
	int			nhot;

	if (!shmem_available())
		return;
	per_partition = AllocSetContextCreate(caller, "distsys rate limits", ALLOCSET_DEFAULT_SIZES);
	copies = palloc_extended(shmap_room(&shared_map) * sizeof(Copy), MCXT_ALLOC_HUGE);
	hot = shared_hot_keys_here(&nhot);
	qsort(hot, nhot, sizeof(SharedHotKey), compare_hot_keys);
	for (int partition = 0; partition < SHMAP_PARTITIONS; partition++)
	{
		int			n = copy_partition(partition, copies);

		MemoryContextSwitchTo(per_partition);
		for (int i = 0; i < n; i++)
			visit_copy(&copies[i], bsearch(&copies[i].key, hot, nhot, sizeof(SharedHotKey), compare_keys), visit, arg);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(per_partition);
		CHECK_FOR_INTERRUPTS();
	}
	MemoryContextDelete(per_partition);
	pfree(copies);
	pfree(hot);
}

void
shared_hot_keys(RateVisit visit, void *arg)
{
	int			n;
	SharedHotKey *hot;

	if (!shmem_available())
		return;
	hot = shared_hot_keys_here(&n);
	for (int i = 0; i < Min(n, HOT_KEYS_SHOWN); i++)
	{
		RateEntry	entry = {.shared = true};

		entry.policy = CStringGetTextDatum(hot[i].policy);
		entry.key = CStringGetTextDatum(hot[i].name);
		entry.uses = hot[i].uses;
		entry.used_at = hot[i].used_at + shared_step();
		visit(&entry, arg);
	}
}
