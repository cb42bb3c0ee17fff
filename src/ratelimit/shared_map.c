/*
 * shared_map.c: the map of shared limits and its clock, see shared_map.h.
 *
 * Keys are hashed with the system identifier as seed: it is the same on a standby and over a restart, so
 * that snapshots keep their meaning, and nobody outside knows it. Two keys that share 128 bits would share a limit.
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xlog.h"
#include "common/hashfn.h"
#include "compat.h"
#include "utils/timestamp.h"

#include "core/clock.h"
#include "core/guc.h"
#include "core/shmem.h"
#include "ratelimit/shared_file.h"
#include "ratelimit/shared_log.h"
#include "ratelimit/shared_map.h"
#include "ratelimit/shared_rule.h"

/* The whole map is walked for limits that are full no more often than this. */
#define DISPOSE_PERIOD_US SECONDS

/* The wall clock was set when it is off by more than this. */
#define STEP_NOTICED_US (500 * MILLISECONDS)

/* Databases whose snapshots are in the map; of others it is asked for each key. */
#define COMPLETE_DATABASES 64

typedef struct SharedClock
{
	int64		base;			/* what the boot clock lacks to the wall clock at server start; constant */
	pg_atomic_uint64 step;
	pg_atomic_uint64 began;
	pg_atomic_uint64 disposed_at;	/* when the map was walked for full limits */
	pg_atomic_uint32 in_recovery;	/* the server began as a standby and has not been promoted yet */
	pg_atomic_uint32 complete;	/* of all databases */
	pg_atomic_uint32 complete_in[COMPLETE_DATABASES];	/* of these; 0: a free place */
} SharedClock;

static SharedClock *shared_clock = NULL;

/* ---- the map ---- */

/* A limit that is full again, or a reservation whose time has come, can go: nothing is lost. */
static bool
disposable(const void *value, int64 now)
{
	const SharedEntry *entry = (const SharedEntry *) value;
	const LimitRule *rule;
	LimitState	state;

	if (entry->kind == SHARED_RESERVATION)
		return entry->u.reservation.act_at <= now;
	if (entry->kind == SHARED_LOG)
		return shared_log_part_is_over(entry, now);
	if (entry->in_call || entry->u.limit.blocked_until > now)
		return false;
	rule = shared_rule_of(entry->rule);
	state = entry->u.limit.state;
	if (rule->algorithm == LIMIT_SLIDING_LOG)
		return shared_log_is_full(rule, &state, now);
	if (state.at_us > now)
		return false;
	limit_refill(rule, &state, now);
	return limit_is_full(rule, &state);
}

static void
disposed(void *value)
{
	SharedEntry *entry = (SharedEntry *) value;

	if (entry->kind != SHARED_RESERVATION)
		shared_rule_unpin(entry->rule);
}

Shmap		shared_map = {
	.value_size = sizeof(SharedEntry),
	.capacity = &guc_rate_limit_shared_keys,
	.disposable = disposable,
	.disposed = disposed
};

static Size
map_size(void)
{
	return shmap_size(&shared_map);
}

static void
map_create(void *memory)
{
	shmap_create(&shared_map, memory);
}

static const ShmemSegment map_segment = {
	.name = "DistsysRateLimits",
	.size = map_size,
	.init = map_create,
	.memory = &shared_map.memory,
	.nlocks = SHMAP_PARTITIONS,
	.locks = &shared_map.locks
};

ShmapKey
shared_map_key_bytes(const void *data, int len)
{
	static ShmapKey seed = {0, 0};

	if (seed.high == 0)
	{
		seed.high = hash_combine64(GetSystemIdentifier(), 1);
		seed.low = hash_combine64(GetSystemIdentifier(), 2);
	}
	return shmap_key(data, len, seed);
}

ShmapKey
shared_map_key(const NameArg *policy, const NameArg *key)
{
	char		name[sizeof(Oid) + 1 + NAME_SHORT + NAME_LONG];
	char	   *end = name;

	memcpy(end, &MyDatabaseId, sizeof(Oid));
	end += sizeof(Oid);
	*end++ = (char) policy->len;
	memcpy(end, policy->data, policy->len);
	end += policy->len;
	memcpy(end, key->data, key->len);
	end += key->len;
	return shared_map_key_bytes(name, end - name);
}

/* ---- the clock ---- */

static Size
clock_size(void)
{
	return sizeof(SharedClock);
}

static void
clock_create(void *memory)
{
	SharedClock *fresh = (SharedClock *) memory;

	fresh->base = GetCurrentTimestamp() - (clock_boot() - (int64) guc_clock_offset * MILLISECONDS);
	pg_atomic_init_u64(&fresh->step, 0);
	pg_atomic_init_u64(&fresh->began, (uint64) GetCurrentTimestamp());
	pg_atomic_init_u64(&fresh->disposed_at, 0);
	pg_atomic_init_u32(&fresh->complete, 0);
	for (int i = 0; i < COMPLETE_DATABASES; i++)
		pg_atomic_init_u32(&fresh->complete_in[i], 0);
	/* as the server itself will judge in a moment */
	pg_atomic_init_u32(&fresh->in_recovery, access("standby.signal", F_OK) == 0 || access("recovery.signal", F_OK) == 0);
}

static const ShmemSegment clock_segment = {
	.name = "DistsysRateLimitClock",
	.size = clock_size,
	.init = clock_create,
	.start = shared_file_start,
	.memory = (void **) &shared_clock
};

int64
shared_now(void)
{
	return clock_boot() + shared_clock->base;
}

int64
shared_step(void)
{
	int64		step = (int64) pg_atomic_read_u64(&shared_clock->step);
	int64		off = clock_wall() - shared_now() - step;

	if (off > STEP_NOTICED_US || off < -STEP_NOTICED_US)
	{
		step += off;
		pg_atomic_write_u64(&shared_clock->step, (uint64) step);
	}
	return step;
}

/* A promotion begins another life: what the former primary knew is in its snapshots. */
static void
note_promotion(void)
{
	uint32		in_recovery = 1;

	if (pg_atomic_read_u32(&shared_clock->in_recovery) == 0 || RecoveryInProgress())
		return;
	pg_atomic_write_u32(&shared_clock->complete, 0);
	pg_atomic_write_u64(&shared_clock->began, (uint64) shared_now());
	(void) pg_atomic_compare_exchange_u32(&shared_clock->in_recovery, &in_recovery, 0);
}

bool
shared_is_complete(void)
{
	note_promotion();
	if (pg_atomic_read_u32(&shared_clock->complete) != 0)
		return true;
	for (int i = 0; i < COMPLETE_DATABASES; i++)
	{
		if (pg_atomic_read_u32(&shared_clock->complete_in[i]) == MyDatabaseId)
			return true;
	}
	return false;
}

void
shared_set_complete(void)
{
	pg_atomic_write_u32(&shared_clock->complete, 1);
}

void
shared_set_complete_here(void)
{
	for (int i = 0; i < COMPLETE_DATABASES; i++)
	{
		uint32		nobody = 0;

		if (pg_atomic_compare_exchange_u32(&shared_clock->complete_in[i], &nobody, MyDatabaseId))
			return;
	}
}

int64
shared_began(void)
{
	note_promotion();
	return (int64) pg_atomic_read_u64(&shared_clock->began);
}

bool
shared_map_dispose(void)
{
	int64		now = shared_now();
	uint64		last = pg_atomic_read_u64(&shared_clock->disposed_at);

	if (now >= (int64) last && now - (int64) last < DISPOSE_PERIOD_US)
		return false;
	if (!pg_atomic_compare_exchange_u64(&shared_clock->disposed_at, &last, (uint64) now))
		return false;
	for (int partition = 0; partition < SHMAP_PARTITIONS; partition++)
	{
		CHECK_FOR_INTERRUPTS();
		shmap_lock(&shared_map, partition, LW_EXCLUSIVE);
		(void) shmap_dispose(&shared_map, partition, shared_now());
		shmap_unlock(&shared_map, partition);
	}
	return true;
}

void
shared_map_init(void)
{
	shmem_register(&clock_segment);
	shmem_register(&map_segment);
	shared_rule_init();
}
