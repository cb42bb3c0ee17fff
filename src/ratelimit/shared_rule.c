/*
 * shared_rule.c: the table of rules, see shared_rule.h.
 *
 * Open addressing: a rule is in one of the PROBES slots after its hash. Searching takes the table's
 * lock in shared mode, filling a slot in exclusive mode; pins are counted without it. Backends remember
 * what they found; the generation, which is in one word with the pins, tells whether it still holds.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "compat.h"
#include "port/atomics.h"

#include "core/shmem.h"
#include "ratelimit/shared_map.h"
#include "ratelimit/shared_rule.h"

#define PROBES 64
#define REMEMBERED 64			/* per backend, a power of two */

/* Another slot is preferred to one that was filled so recently. */
#define FRESH_US SECONDS

typedef struct Slot
{
	pg_atomic_uint64 pins;		/* generation in the upper half, entries that use it in the lower */
	SharedRuleInfo info;
	LimitRule	rule;
} Slot;

static Slot *slots = NULL;
static LWLockPadded *locks = NULL;

/* What this backend has found, by hash. */
static SharedRuleRef remembered[REMEMBERED];
static Slot copies[REMEMBERED];

static Size
table_size(void)
{
	return SHARED_RULES * sizeof(Slot);
}

static void
table_create(void *memory)
{
	for (int i = 0; i < SHARED_RULES; i++)
		pg_atomic_init_u64(&((Slot *) memory)[i].pins, 0);
	/* after a crash the postmaster makes another table, with the same generations */
	memset(copies, 0, sizeof(copies));
}

static const ShmemSegment segment = {
	.name = "DistsysRateLimitRules",
	.size = table_size,
	.init = table_create,
	.memory = (void **) &slots,
	.nlocks = 1,
	.locks = &locks
};

void
shared_rule_init(void)
{
	shmem_register(&segment);
}

static uint32
generation_of(uint64 pins)
{
	return (uint32) (pins >> 32);
}

static bool
equal_rules(const LimitRule *x, const LimitRule *y)
{
	return limit_same(x, y) && x->algorithm == y->algorithm && x->origin_us == y->origin_us &&
		memcmp(x->window, y->window, sizeof(x->window)) == 0;
}

static bool
serves(const Slot *slot, Oid database, const NameArg *policy, const LimitRule *rule, RateRestart on_restart)
{
	return slot->info.database == database && slot->info.on_restart == on_restart &&
		strncmp(slot->info.policy, policy->data, policy->len) == 0 && slot->info.policy[policy->len] == '\0' &&
		equal_rules(&slot->rule, rule);
}

static uint32
hash_rule(Oid database, const NameArg *policy, const LimitRule *rule)
{
	uint32		hash = hash_bytes((const unsigned char *) policy->data, policy->len);

	hash = hash_combine(hash, hash_bytes((const unsigned char *) &rule->limit, sizeof(rule->limit)));
	return hash_combine(hash, hash_bytes_uint32(database ^ (uint32) rule->window[0]));
}

static Slot *
slot_near(uint32 hash, int probe)
{
	return &slots[(hash + probe) % SHARED_RULES];
}

static SharedRuleRef
ref_to(Slot *slot)
{
	SharedRuleRef ref = {slot - slots, generation_of(pg_atomic_read_u64(&slot->pins))};

	return ref;
}

/* Gives the slot another generation, after which no old reference can pin it. false: it is in use. */
static bool
claim(Slot *slot)
{
	uint64		pins = pg_atomic_read_u64(&slot->pins);
	uint64		next = (uint64) (generation_of(pins) + 1) << 32;

	return (uint32) pins == 0 && pg_atomic_compare_exchange_u64(&slot->pins, &pins, next);
}

static void
describe(Slot *slot, Oid database, const NameArg *policy, const LimitRule *rule, RateRestart on_restart)
{
	slot->info.database = database;
	slot->info.on_restart = on_restart;
	slot->info.since = shared_now();
	memcpy(slot->info.policy, policy->data, policy->len);
	slot->info.policy[policy->len] = '\0';
	slot->rule = *rule;
}

static Slot *
claim_near(uint32 hash, int64 filled_before)
{
	for (int probe = 0; probe < PROBES; probe++)
	{
		Slot	   *slot = slot_near(hash, probe);

		if (slot->info.since < filled_before && claim(slot))
			return slot;
	}
	return NULL;
}

/* A slot that was filled just now is about to be pinned, perhaps by the very call that looks for another. */
static bool
fill(uint32 hash, Oid database, const NameArg *policy, const LimitRule *rule, RateRestart on_restart, SharedRuleRef *ref)
{
	Slot	   *slot = claim_near(hash, shared_now() - FRESH_US);

	if (slot == NULL)
		slot = claim_near(hash, PG_INT64_MAX);
	if (slot == NULL)
		return false;
	describe(slot, database, policy, rule, on_restart);
	*ref = ref_to(slot);
	return true;
}

static bool
search(uint32 hash, Oid database, const NameArg *policy, const LimitRule *rule, RateRestart on_restart, SharedRuleRef *ref)
{
	for (int probe = 0; probe < PROBES; probe++)
	{
		Slot	   *slot = slot_near(hash, probe);

		if (pg_atomic_read_u64(&slot->pins) == 0 || !serves(slot, database, policy, rule, on_restart))
			continue;
		*ref = ref_to(slot);
		return true;
	}
	return false;
}

static bool
search_or_fill(uint32 hash, Oid database, const NameArg *policy, const LimitRule *rule, RateRestart on_restart, SharedRuleRef *ref)
{
	bool		found;

	LWLockAcquire(&locks->lock, LW_SHARED);
	found = search(hash, database, policy, rule, on_restart, ref);
	LWLockRelease(&locks->lock);
	if (found)
		return true;
	LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
	found = search(hash, database, policy, rule, on_restart, ref) || fill(hash, database, policy, rule, on_restart, ref);
	LWLockRelease(&locks->lock);
	return found;
}

bool
shared_rule_get(Oid database, const NameArg *policy, const LimitRule *rule, RateRestart on_restart, SharedRuleRef *ref)
{
	uint32		hash = hash_rule(database, policy, rule);
	int			place = hash % REMEMBERED;

	if (copies[place].info.since != 0 && serves(&copies[place], database, policy, rule, on_restart) &&
		generation_of(pg_atomic_read_u64(&slots[remembered[place].slot].pins)) == remembered[place].generation)
	{
		*ref = remembered[place];
		return true;
	}
	if (!search_or_fill(hash, database, policy, rule, on_restart, ref))
		return false;
	remembered[place] = *ref;
	describe(&copies[place], database, policy, rule, on_restart);
	return true;
}

bool
shared_rule_pin(SharedRuleRef ref)
{
	pg_atomic_uint64 *pins = &slots[ref.slot].pins;
	uint64		now = pg_atomic_read_u64(pins);

	while (generation_of(now) == ref.generation)
	{
		if (pg_atomic_compare_exchange_u64(pins, &now, now + 1))
			return true;
	}
	return false;
}

void
shared_rule_pin_more(uint16 slot)
{
	pg_atomic_fetch_add_u64(&slots[slot].pins, 1);
}

void
shared_rule_unpin(uint16 slot)
{
	pg_atomic_fetch_sub_u64(&slots[slot].pins, 1);
}

const LimitRule *
shared_rule_of(uint16 slot)
{
	return &slots[slot].rule;
}

const SharedRuleInfo *
shared_rule_info(uint16 slot)
{
	return &slots[slot].info;
}
