/*
 * shared_snapshot.c: the table of shared limits, see shared_snapshot.h.
 *
 * One writer at a time, by one key lock. Rows of a partition are written and removed together, a partition a
 * slice: what is in memory and will be in use for longer than the period, at most
 * PARTITION_ROWS of them, the longest first. No other row stays.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "port/pg_bswap.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/uuid.h"

#include "core/keylock.h"
#include "core/shmem.h"
#include "core/stats.h"
#include "ratelimit/shared_saved.h"
#include "ratelimit/shared_snapshot.h"
#include "store/row.h"

/* 51,200 in all: what a minute of a worker can well write. */
#define PARTITION_ROWS 400

/* kind: the algorithm's number, and whether its windows begin at the first hit */
#define KIND_FIRST_HIT 8

enum
{
	ATTR_PARTITION = 1,
	ATTR_KEY,
	ATTR_POLICY,
	ATTR_KIND,
	ATTR_QUOTA,
	ATTR_PERIOD_US,
	ATTR_BURST,
	ATTR_WINDOWS,
	ATTR_A,
	ATTR_B,
	ATTR_AT,
	ATTR_BLOCKED_UNTIL,
	NATTS = ATTR_BLOCKED_UNTIL,
	NKEYS = ATTR_KEY
};

/* ---- rows ---- */

static void
key_to_uuid(const ShmapKey *key, pg_uuid_t *uuid)
{
	uint64		halves[2] = {pg_hton64(key->high), pg_hton64(key->low)};

	memcpy(uuid->data, halves, UUID_LEN);
}

static ShmapKey
key_of_uuid(const pg_uuid_t *uuid)
{
	uint64		halves[2];
	ShmapKey	key;

	memcpy(halves, uuid->data, UUID_LEN);
	key.high = pg_ntoh64(halves[0]);
	key.low = pg_ntoh64(halves[1]);
	return key;
}

static Datum
windows_array(const LimitRule *rule)
{
	Datum		moments[lengthof(rule->window)];

	for (int i = 0; i < lengthof(moments); i++)
		moments[i] = TimestampTzGetDatum(rule->window[i]);
	return PointerGetDatum(construct_array(moments, lengthof(moments), TIMESTAMPTZOID, sizeof(TimestampTz), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

static void
read_windows(Datum value, LimitRule *rule)
{
	ArrayType  *array = DatumGetArrayTypeP(value);

	if (ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array)) == lengthof(rule->window))
		memcpy(rule->window, ARR_DATA_PTR(array), sizeof(rule->window));
}

/* uuid lives as long as the values are used. */
static void
make_row(const SharedSaved *saved, pg_uuid_t *uuid, Datum *values, bool *nulls)
{
	const LimitRule *rule = &saved->rule;

	memset(nulls, false, NATTS * sizeof(bool));
	key_to_uuid(&saved->key, uuid);
	values[ATTR_PARTITION - 1] = Int64GetDatum(shmap_partition(&saved->key));
	values[ATTR_KEY - 1] = UUIDPGetDatum(uuid);
	values[ATTR_POLICY - 1] = CStringGetTextDatum(saved->info.policy);
	values[ATTR_KIND - 1] = Int16GetDatum((int16) rule->algorithm + (rule->first_hit ? KIND_FIRST_HIT : 0));
	values[ATTR_QUOTA - 1] = Int64GetDatum(rule->limit.quota);
	values[ATTR_PERIOD_US - 1] = Int64GetDatum(rule->limit.period_us);
	values[ATTR_BURST - 1] = Int64GetDatum(rule->limit.burst);
	nulls[ATTR_WINDOWS - 1] = rule->algorithm != LIMIT_CALENDAR;
	values[ATTR_WINDOWS - 1] = nulls[ATTR_WINDOWS - 1] ? (Datum) 0 : windows_array(rule);
	values[ATTR_A - 1] = Int64GetDatum(saved->state.a);
	values[ATTR_B - 1] = Int64GetDatum(saved->state.b);
	values[ATTR_AT - 1] = TimestampTzGetDatum(saved->state.at_us);
	nulls[ATTR_BLOCKED_UNTIL - 1] = saved->blocked_until == 0;
	values[ATTR_BLOCKED_UNTIL - 1] = TimestampTzGetDatum(saved->blocked_until);
}

static void
read_row(Relation rel, HeapTuple row, SharedSaved *saved)
{
	LimitRule  *rule = &saved->rule;
	Datum		values[NATTS];
	bool		nulls[NATTS];
	int16		kind;

	memset(saved, 0, sizeof(*saved));
	heap_deform_tuple(row, RelationGetDescr(rel), values, nulls);
	saved->key = key_of_uuid(DatumGetUUIDP(values[ATTR_KEY - 1]));
	saved->info.database = MyDatabaseId;
	saved->info.on_restart = RATE_RESTART_SNAPSHOT;
	text_to_cstring_buffer(DatumGetTextPP(values[ATTR_POLICY - 1]), saved->info.policy, sizeof(saved->info.policy));
	kind = DatumGetInt16(values[ATTR_KIND - 1]);
	rule->algorithm = (LimitAlgorithm) (kind % KIND_FIRST_HIT);
	rule->first_hit = kind >= KIND_FIRST_HIT;
	rule->limit.quota = DatumGetInt64(values[ATTR_QUOTA - 1]);
	rule->limit.period_us = DatumGetInt64(values[ATTR_PERIOD_US - 1]);
	rule->limit.burst = DatumGetInt64(values[ATTR_BURST - 1]);
	rule->origin_us = RATE_GRID_ORIGIN;
	if (!nulls[ATTR_WINDOWS - 1])
		read_windows(values[ATTR_WINDOWS - 1], rule);
	saved->state.a = DatumGetInt64(values[ATTR_A - 1]);
	saved->state.b = DatumGetInt64(values[ATTR_B - 1]);
	saved->state.at_us = DatumGetTimestampTz(values[ATTR_AT - 1]);
	saved->blocked_until = nulls[ATTR_BLOCKED_UNTIL - 1] ? 0 : DatumGetTimestampTz(values[ATTR_BLOCKED_UNTIL - 1]);
}

/* ---- reading ---- */

void
shared_snapshot_bring(const ShmapKey *key)
{
	Relation	rel;
	pg_uuid_t	uuid;
	Datum		values[NKEYS] = {Int64GetDatum(shmap_partition(key)), UUIDPGetDatum(&uuid)};
	HeapTuple	row;
	SharedSaved saved;

	if (!OidIsValid(catalog_relid_missing_ok(TABLE_RATE_LIMIT_SNAPSHOT)))
		return;
	rel = row_open_read(TABLE_RATE_LIMIT_SNAPSHOT);
	key_to_uuid(key, &uuid);
	row = row_read_latest(rel, values);
	if (row != NULL)
	{
		read_row(rel, row, &saved);
		(void) shared_restore(&saved);
	}
	row_close(rel);
}

/* All rows. false: not all had room. */
static bool
bring_all(void)
{
	Relation	rel = row_open_read(TABLE_RATE_LIMIT_SNAPSHOT);
	RowScan    *scan = row_scan_begin(rel, 0, NULL, NULL);
	bool		all = true;
	HeapTuple	row;

	while ((row = row_scan_next(scan)) != NULL)
	{
		SharedSaved saved;

		read_row(rel, row, &saved);
		all = shared_restore(&saved) && all;
	}
	row_scan_end(scan);
	row_close(rel);
	return all;
}

/* ---- writing ---- */

static int
compare_full_in(const void *a, const void *b)
{
	int64		x = ((const SharedSaved *) a)->full_in_us;
	int64		y = ((const SharedSaved *) b)->full_in_us;

	return x > y ? -1 : x < y;
}

/* Keeps the PARTITION_ROWS that stay in use for longest; returns how long the shortest of them does. */
static int64
keep_longest(SharedSaved *found, int *n)
{
	qsort(found, *n, sizeof(SharedSaved), compare_full_in);
	*n = PARTITION_ROWS;
	return found[*n - 1].full_in_us;
}

/* What is worth a row of this partition: *n records, in memory that is allocated before the lock. */
static SharedSaved *
collect(int partition, int *n)
{
	SharedSaved *found = palloc(2 * PARTITION_ROWS * sizeof(SharedSaved));
	int64		least_us = SHARED_SNAPSHOT_PERIOD_S * SECONDS;
	int64		step = shared_step();
	int64		now;
	int			candidates = 0;
	SharedEntry *entry;
	ShmapKey	key;
	uint32		place = 0;

	*n = 0;
	shmap_lock(&shared_map, partition, LW_SHARED);
	now = shared_now();
	while ((entry = shmap_next(&shared_map, partition, &place, &key)) != NULL)
	{
		SharedSaved *saved = &found[*n];

		if (!shared_save(&key, entry, now, step, saved) || saved->info.database != MyDatabaseId ||
			saved->full_in_us <= SHARED_SNAPSHOT_PERIOD_S * SECONDS)
			continue;
		candidates++;
		if (saved->full_in_us > least_us && ++*n == 2 * PARTITION_ROWS)
			least_us = keep_longest(found, n);
	}
	shmap_unlock(&shared_map, partition);
	if (*n > PARTITION_ROWS)
		(void) keep_longest(found, n);
	if (candidates > *n)
		stats_add("rate_limit", "", "shared_not_in_snapshot", candidates - *n);
	return found;
}

static int
compare_keys(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(ShmapKey));
}

static SharedSaved *
find_key(SharedSaved *saved, int n, const ShmapKey *key)
{
	/* the key is the first member */
	return bsearch(key, saved, n, sizeof(SharedSaved), compare_keys);
}

static bool
same_values(Relation rel, HeapTuple row, const SharedSaved *saved)
{
	SharedSaved stored;

	read_row(rel, row, &stored);
	return stored.state.a == saved->state.a && stored.state.at_us == saved->state.at_us &&
		stored.blocked_until == saved->blocked_until && limit_same(&stored.rule, &saved->rule);
}

static void
update_row(Relation rel, HeapTuple row, const SharedSaved *saved)
{
	pg_uuid_t	uuid;
	Datum		values[NATTS];
	bool		nulls[NATTS];
	bool		replace[NATTS];

	memset(replace, true, sizeof(replace));
	make_row(saved, &uuid, values, nulls);
	row_update(rel, row, values, nulls, replace);
}

/* Brings the rows that are there to what is in memory; `written` notes which records have a row. Returns how many rows were removed. */
static int
write_known(Relation rel, int partition, SharedSaved *saved, int n, bool *written)
{
	Datum		prefix = Int64GetDatum(partition);
	RowScan    *scan = row_scan_begin(rel, 1, &prefix, NULL);
	int			removed = 0;
	HeapTuple	row;

	while ((row = row_scan_next(scan)) != NULL)
	{
		ShmapKey	key = key_of_uuid(DatumGetUUIDP(row_get(rel, row, ATTR_KEY, NULL)));
		SharedSaved *now = find_key(saved, n, &key);

		if (now == NULL)
		{
			row_delete(rel, row);
			removed++;
			continue;
		}
		written[now - saved] = true;
		if (!same_values(rel, row, now))
			update_row(rel, row, now);
	}
	row_scan_end(scan);
	return removed;
}

static int
write_partition(int partition)
{
	Relation	rel = row_open_write(TABLE_RATE_LIMIT_SNAPSHOT, "rate_limit_snapshot()");
	int			n;
	SharedSaved *saved = collect(partition, &n);
	bool	   *written = palloc0(n + 1);
	int			removed;
	RowInserter *inserter;

	qsort(saved, n, sizeof(SharedSaved), compare_keys);
	removed = write_known(rel, partition, saved, n, written);
	inserter = row_inserter_begin(rel);
	for (int i = 0; i < n; i++)
	{
		pg_uuid_t	uuid;
		Datum		values[NATTS];
		bool		nulls[NATTS];

		if (written[i])
			continue;
		make_row(&saved[i], &uuid, values, nulls);
		row_inserter_put(inserter, values, nulls);
	}
	row_inserter_end(inserter);
	pfree(written);
	pfree(saved);
	row_close(rel);
	return removed;
}

/* The first slice brings, each of the others writes a partition. */
void
rate_limit_snapshot(JobSlice *slice)
{
	LOCKTAG		tag;

	slice->more = false;
	if (!shmem_available())
		return;
	keylock_tag(&tag, KEYLOCK_WORKER, "rate_limit_snapshot", strlen("rate_limit_snapshot"));
	if (!keylock_try(&tag, ExclusiveLock))
		return;
	if (slice->block == 0)
	{
		if (!shared_is_complete() && bring_all())
			shared_set_complete_here();
	}
	else
		slice->rows_removed = write_partition(slice->block - 1);
	slice->more = slice->block < SHMAP_PARTITIONS;
	slice->block = slice->more ? slice->block + 1 : 0;
}
