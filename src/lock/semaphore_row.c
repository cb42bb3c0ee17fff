/*
 * semaphore_row.c: rows of permits: what they say, how they are found and when they go.
 *
 * Reading takes no lock and works on a standby. The sweep removes a row under the key lock
 * of its slot that every grant takes, so a slot that is pinned or being granted is skipped.
 */
#include "postgres.h"

#include "compat.h"

#include "lock/semaphore_row.h"
#include "store/token.h"

/* A dead row is kept this long, so that whoever held it can still ask what became of it. */
#define SWEEP_AFTER (60 * SECONDS)

/* In place of the time that is left: until a transaction ends. */
#define UNTIL_UNLOCKED PG_INT64_MAX

void
permit_from_row(Relation rel, HeapTuple row, const ClockReading *now, Permit *permit)
{
	Datum		values[NATTS];
	bool		nulls[NATTS];

	heap_deform_tuple(row, RelationGetDescr(rel), values, nulls);
	permit->name = values[ATTR_NAME - 1];
	permit->slot = DatumGetInt32(values[ATTR_SLOT - 1]);
	permit->owner = values[ATTR_OWNER - 1];
	permit->role = DatumGetObjectId(values[ATTR_ROLE - 1]);
	permit->token = DatumGetInt64(values[ATTR_TOKEN - 1]);
	permit->ttl_us = DatumGetInt64(values[ATTR_TTL_US - 1]);
	permit->acquired_at = DatumGetTimestampTz(values[ATTR_ACQUIRED_AT - 1]);
	permit->deadline.wall = DatumGetTimestampTz(values[ATTR_EXPIRES_AT - 1]);
	permit->deadline.boot = DatumGetInt64(values[ATTR_EXPIRES_BOOT - 1]);
	permit->deadline.id = DatumGetInt64(values[ATTR_CLOCK_ID - 1]);
	permit->has_request = !nulls[ATTR_REQUEST_ID - 1];
	if (permit->has_request)
		permit->request_id = *DatumGetUUIDP(values[ATTR_REQUEST_ID - 1]);

	/* a renewal that a promoted server never received may have prolonged it */
	permit->left_us = at_least(deadline_left(&permit->deadline, now), token_promoted_left(now, permit->ttl_us));
	permit->live = !DatumGetBool(values[ATTR_RELEASED - 1]) && permit->left_us > 0 &&
		permit->token >= token_lease_floor();
	if (!permit->live)
		permit->left_us = 0;
	permit->expires_at = deadline_wall(&permit->deadline, now, permit->left_us);
}

void
permit_key(const NameArg *name, int32 slot, Datum *key)
{
	key[0] = name->datum;
	key[1] = Int32GetDatum(slot);
}

void
permit_tag(LOCKTAG *tag, const NameArg *name, int32 slot)
{
	keylock_tag_num(tag, KEYLOCK_SEMAPHORE_SLOT, name->data, name->len, slot);
}

void
permit_deadline_values(const Deadline *deadline, Datum *values)
{
	values[ATTR_EXPIRES_AT - 1] = TimestampTzGetDatum(deadline->wall);
	values[ATTR_EXPIRES_BOOT - 1] = Int64GetDatum(deadline->boot);
	values[ATTR_CLOCK_ID - 1] = Int64GetDatum(deadline->id);
}

/* ---- all slots ---- */

/* By a transaction that is open: a pin that outlives its permit, a claim, a release. Ask after the row has said that it is not live: then no new pin comes. */
static bool
slot_locked(const NameArg *name, int32 slot)
{
	LOCKTAG		tag;

	permit_tag(&tag, name, slot);
	return keylock_conflicts(&tag, ExclusiveLock);
}

bool
slots_held_above(Relation rel, const NameArg *name, int permits)
{
	int64		after = permits;
	RowScan    *scan = row_scan_begin(rel, 1, &name->datum, &after);
	bool		held = false;
	HeapTuple	row;

	while (!held && (row = row_scan_next(scan)) != NULL)
	{
		ClockReading now = clock_read();
		Permit		permit;

		permit_from_row(rel, row, &now, &permit);
		held = permit.live || slot_locked(name, permit.slot);
	}
	row_scan_end(scan);
	return held;
}

/* Held slots above a slot and all slots up to it must not be more than there are permits. Then free ones up to it are as many as permits are left. */
static int
usable_slots(const SlotMap *map)
{
	int			slot = map->nslots;
	int			above = 0;

	while (slot > 0 && slot + above > map->permits)
		above += map->left_us[--slot] > 0;
	return slot;
}

/* Slots up to the permits are claimed under their locks; only those of a semaphore that has shrunk have to be counted as well. */
static void
count_locked_slots(const NameArg *name, SlotMap *map)
{
	for (int slot = 1; slot <= map->nslots; slot++)
	{
		if (map->left_us[slot - 1] > 0 || !slot_locked(name, slot))
			continue;
		map->left_us[slot - 1] = UNTIL_UNLOCKED;
		map->in_use++;
	}
}

void
slot_map_read(Relation rel, const NameArg *name, int permits, SlotMap *map)
{
	RowScan    *scan = row_scan_begin(rel, 1, &name->datum, NULL);
	ClockReading now = clock_read();
	HeapTuple	row;

	map->permits = map->nslots = permits;
	map->in_use = 0;
	map->left_us = palloc0(permits * sizeof(int64));
	while ((row = row_scan_next(scan)) != NULL)
	{
		Permit		permit;

		permit_from_row(rel, row, &now, &permit);
		if (permit.slot > map->nslots)
		{
			map->left_us = repalloc(map->left_us, permit.slot * sizeof(int64));
			memset(map->left_us + map->nslots, 0, (permit.slot - map->nslots) * sizeof(int64));
			map->nslots = permit.slot;
		}
		map->left_us[permit.slot - 1] = permit.left_us;
		map->in_use += permit.live;
	}
	row_scan_end(scan);
	if (map->nslots > permits)
		count_locked_slots(name, map);
	map->usable = usable_slots(map);
}

int
semaphore_in_use(const NameArg *name)
{
	Relation	rel = row_open_read(TABLE_SEMAPHORE_PERMIT);
	RowScan    *scan = row_scan_begin(rel, 1, &name->datum, NULL);
	ClockReading now = clock_read();
	HeapTuple	row;
	int			n = 0;

	while ((row = row_scan_next(scan)) != NULL)
	{
		Permit		permit;

		permit_from_row(rel, row, &now, &permit);
		n += permit.live;
	}
	row_scan_end(scan);
	row_close(rel);
	return n;
}

static int
by_value(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return x < y ? -1 : x > y;
}

int64
slot_map_retry(const SlotMap *map, int wanted)
{
	int			expiries = map->in_use + wanted - map->permits;
	int64	   *sorted;
	int64		retry_us;

	if (expiries <= 0 || wanted > map->permits)
		return -1;
	sorted = palloc(map->nslots * sizeof(int64));
	memcpy(sorted, map->left_us, map->nslots * sizeof(int64));
	qsort(sorted, map->nslots, sizeof(int64), by_value);
	/* free slots come first, with 0 */
	retry_us = sorted[map->nslots - map->in_use + expiries - 1];
	pfree(sorted);
	return retry_us == UNTIL_UNLOCKED ? -1 : retry_us;
}

/* ---- token -> slots ---- */

#define GRANTS 64				/* a power of two */
#define GRANT_SLOTS 8			/* grants of more are not remembered */

typedef struct RememberedGrant
{
	Oid			relid;
	int64		token;			/* 0: nothing */
	int			n;
	int32		slots[GRANT_SLOTS];
} RememberedGrant;

static RememberedGrant grants[GRANTS];

void
grant_remember(Relation rel, int64 token, int n, const int32 *slots)
{
	RememberedGrant *grant = &grants[token & (GRANTS - 1)];

	if (n > GRANT_SLOTS)
		return;
	grant->relid = RelationGetRelid(rel);
	grant->token = token;
	grant->n = n;
	memcpy(grant->slots, slots, n * sizeof(int32));
}

int
grant_recall(Relation rel, int64 token, int32 **slots)
{
	RememberedGrant *grant = &grants[token & (GRANTS - 1)];

	if (grant->token != token || grant->relid != RelationGetRelid(rel))
		return 0;
	*slots = palloc(grant->n * sizeof(int32));
	memcpy(*slots, grant->slots, grant->n * sizeof(int32));
	return grant->n;
}

int
grant_search(Relation rel, const NameArg *name, int64 token, int32 **slots)
{
	RowScan    *scan = row_scan_begin(rel, 1, &name->datum, NULL);
	HeapTuple	row;
	int			room = GRANT_SLOTS;
	int			n = 0;

	*slots = palloc(room * sizeof(int32));
	while ((row = row_scan_next(scan)) != NULL)
	{
		if (DatumGetInt64(row_get(rel, row, ATTR_TOKEN, NULL)) != token)
			continue;
		if (n == room)
			*slots = repalloc(*slots, (room *= 2) * sizeof(int32));
		(*slots)[n++] = DatumGetInt32(row_get(rel, row, ATTR_SLOT, NULL));
	}
	row_scan_end(scan);
	return n;
}

/* ---- housekeeping ---- */

static bool
permit_dead(Relation rel, HeapTuple row, void *arg)
{
	ClockReading now = clock_read();
	SemaphoreConfig config;
	NameArg		name;
	Permit		permit;

	permit_from_row(rel, row, &now, &permit);
	/* by both measures, so that a stepped clock removes nothing early */
	if (permit.live || permit.acquired_at + permit.ttl_us + SWEEP_AFTER >= now.wall ||
		permit.deadline.wall + SWEEP_AFTER >= now.wall)
		return false;
	name = arg_name_datum(permit.name, "name", NAME_LONG);
	return !semaphore_config_find(&name, &config) || permit.slot > config.permits;
}

static void
permit_row_tag(Relation rel, HeapTuple row, LOCKTAG *tag, void *arg)
{
	NameArg		name = arg_name_datum(row_get(rel, row, ATTR_NAME, NULL), "name", NAME_LONG);

	permit_tag(tag, &name, DatumGetInt32(row_get(rel, row, ATTR_SLOT, NULL)));
}

void
semaphore_sweep(JobSlice *slice)
{
	static const RowSweep sweep = {.dead = permit_dead, .tag = permit_row_tag};
	Relation	rel = row_open_write(TABLE_SEMAPHORE_PERMIT, "semaphore_sweep()");

	sweep_slice(rel, &sweep, slice);
	row_close(rel);
}

/* ---- failover ---- */

void
semaphore_init(void)
{
	token_register_ttl(TABLE_SEMAPHORE_PERMIT, ATTR_TTL_US);
}
