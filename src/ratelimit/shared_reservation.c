/*
 * shared_reservation.c: reservations in shared memory, see shared_reservation.h.
 */
#include "postgres.h"

#include "ratelimit/shared_reservation.h"
#include "ratelimit/shared_rule.h"

#define NUMBER_BITS 52

static ShmapKey
key_of_number(int64 number)
{
	struct
	{
		char		what[16];
		int64		number;
	}			name = {"reserved", number};

	return shared_map_key_bytes(&name, sizeof(name));
}

static int64
draw_number(void)
{
	uint64		random;

	if (!pg_strong_random(&random, sizeof(random)))
		return 0;
	return (int64) (random >> (64 - NUMBER_BITS)) << 1 | 1;
}

int64
shared_reservation_make(const ShmapKey *limit, int64 cost, int64 act_at)
{
	int64		number = draw_number();
	ShmapKey	key = key_of_number(number);
	int			partition = shmap_partition(&key);
	int			evicted = 0;
	SharedEntry *entry = NULL;

	shmap_lock(&shared_map, partition, LW_EXCLUSIVE);
	if (number != 0 && shmap_find(&shared_map, &key) == NULL)
		entry = shmap_insert(&shared_map, &key, shared_now(), &evicted);
	if (entry != NULL)
	{
		entry->kind = SHARED_RESERVATION;
		entry->u.reservation.limit = *limit;
		entry->u.reservation.cost = cost;
		entry->u.reservation.act_at = act_at;
	}
	shmap_unlock(&shared_map, partition);
	return entry == NULL ? 0 : number;
}

/* Takes the reservation out of the map. false: it is not there. */
static bool
remove_reservation(int64 number, SharedEntry *copy)
{
	ShmapKey	key = key_of_number(number);
	int			partition = shmap_partition(&key);
	SharedEntry *entry;
	bool		found;

	shmap_lock(&shared_map, partition, LW_EXCLUSIVE);
	entry = shmap_find(&shared_map, &key);
	found = entry != NULL && entry->kind == SHARED_RESERVATION;
	if (found)
	{
		*copy = *entry;
		shmap_remove(&shared_map, &key);
	}
	shmap_unlock(&shared_map, partition);
	return found;
}

int64
shared_reservation_cancel(int64 number)
{
	SharedEntry reserved;
	ShmapKey   *limit = &reserved.u.reservation.limit;
	int			partition;
	SharedEntry *entry;
	int64		given = 0;
	int64		now;

	if (!remove_reservation(number, &reserved))
		return 0;
	partition = shmap_partition(limit);
	shmap_lock(&shared_map, partition, LW_EXCLUSIVE);
	now = shared_now();
	entry = shmap_find(&shared_map, limit);
	if (entry != NULL && reserved.u.reservation.act_at > now)
	{
		const LimitRule *rule = shared_rule_of(entry->rule);

		/* the algorithm may have been changed since */
		if (limit_is_bucket(rule->algorithm))
		{
			limit_refill(rule, &entry->u.limit.state, now);
			given = limit_cancel(rule, &entry->u.limit.state, reserved.u.reservation.cost, reserved.u.reservation.act_at);
		}
	}
	shmap_unlock(&shared_map, partition);
	return given;
}
