/*
 * stats.c: counters in shared memory, see stats.h.
 *
 * One fixed table, open addressing by a hash of the whole name. A slot is
 * filled once, under the segment's lock, and never removed while the server runs, so that counting
 * needs no lock: `ready` is set last, behind a write barrier. When the table is full, new names are not
 * counted and `overflow` says how often.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "core/result.h"
#include "core/shmem.h"
#include "core/stats.h"

#define SLOTS 4096				/* a power of two */
#define MAX_PROBES 64
#define WORD_BYTES 24
#define OBJECT_BYTES 64

typedef struct StatsName
{
	Oid			database;
	char		domain[WORD_BYTES];
	char		metric[WORD_BYTES];
	char		object[OBJECT_BYTES];
} StatsName;

typedef struct StatsSlot
{
	pg_atomic_uint32 ready;
	StatsName	name;			/* written once, before ready */
	TimestampTz since;
	pg_atomic_uint64 value;
} StatsSlot;

typedef struct StatsTable
{
	pg_atomic_uint64 overflow;
	StatsSlot	slots[SLOTS];
} StatsTable;

static StatsTable *table = NULL;
static LWLockPadded *locks = NULL;

static Size
stats_size(void)
{
	return sizeof(StatsTable);
}

static void
stats_init_memory(void *memory)
{
	StatsTable *fresh = (StatsTable *) memory;

	pg_atomic_init_u64(&fresh->overflow, 0);
	for (int i = 0; i < SLOTS; i++)
	{
		pg_atomic_init_u32(&fresh->slots[i].ready, 0);
		pg_atomic_init_u64(&fresh->slots[i].value, 0);
	}
}

static const ShmemSegment segment = {
	.name = "DistsysStats",
	.size = stats_size,
	.init = stats_init_memory,
	.memory = (void **) &table,
	.nlocks = 1,
	.locks = &locks
};

void
stats_init(void)
{
	shmem_register(&segment);
}

static void
make_name(StatsName *name, const char *domain, const char *object, const char *metric)
{
	memset(name, 0, sizeof(*name));
	name->database = MyDatabaseId;
	strlcpy(name->domain, domain, WORD_BYTES);
	strlcpy(name->metric, metric, WORD_BYTES);
	strlcpy(name->object, object, OBJECT_BYTES);
}

/* The slot of a name, or the free slot where it goes (*found = false), or NULL when there is neither. */
static StatsSlot *
find_slot(const StatsName *name, uint32 hash, bool *found)
{
	for (int i = 0; i < MAX_PROBES; i++)
	{
		StatsSlot  *slot = &table->slots[(hash + i) & (SLOTS - 1)];

		*found = pg_atomic_read_u32(&slot->ready) != 0;
		if (!*found)
			return slot;
		pg_read_barrier();
		if (memcmp(&slot->name, name, sizeof(*name)) == 0)
			return slot;
	}
	return NULL;
}

static StatsSlot *
make_slot(const StatsName *name, uint32 hash)
{
	StatsSlot  *slot;
	bool		found;

	LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
	slot = find_slot(name, hash, &found);
	if (slot != NULL && !found)
	{
		slot->name = *name;
		slot->since = GetCurrentTimestamp();
		pg_write_barrier();
		pg_atomic_write_u32(&slot->ready, 1);
	}
	LWLockRelease(&locks->lock);
	return slot;
}

StatsCounter *
stats_counter(const char *domain, const char *object, const char *metric)
{
	StatsName	name;
	StatsSlot  *slot;
	uint32		hash;
	bool		found;

	if (!shmem_available())
		return NULL;
	make_name(&name, domain, object, metric);
	hash = hash_bytes((const unsigned char *) &name, sizeof(name));
	slot = find_slot(&name, hash, &found);
	if (slot != NULL && !found)
		slot = make_slot(&name, hash);
	return slot;
}

void
stats_count(StatsCounter *counter, int64 n)
{
	if (counter != NULL)
		pg_atomic_fetch_add_u64(&counter->value, n);
	else if (shmem_available())
		pg_atomic_fetch_add_u64(&table->overflow, 1);
}

void
stats_add(const char *domain, const char *object, const char *metric, int64 n)
{
	stats_count(stats_counter(domain, object, metric), n);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys__stats);

/* Rows (domain, object, metric, value, since) of the current database; none without shared memory. */
Datum
distsys__stats(PG_FUNCTION_ARGS)
{
	result_begin_set(fcinfo);
	for (int i = 0; shmem_available() && i < SLOTS; i++)
	{
		StatsSlot  *slot = &table->slots[i];
		Datum		values[5];
		bool		nulls[5] = {false};

		if (pg_atomic_read_u32(&slot->ready) == 0)
			continue;
		pg_read_barrier();
		if (slot->name.database != MyDatabaseId)
			continue;
		values[0] = CStringGetTextDatum(slot->name.domain);
		nulls[1] = slot->name.object[0] == '\0';
		values[1] = nulls[1] ? (Datum) 0 : CStringGetTextDatum(slot->name.object);
		values[2] = CStringGetTextDatum(slot->name.metric);
		values[3] = Int64GetDatum((int64) pg_atomic_read_u64(&slot->value));
		values[4] = TimestampTzGetDatum(slot->since);
		result_put(fcinfo, values, nulls);
	}
	return (Datum) 0;
}
