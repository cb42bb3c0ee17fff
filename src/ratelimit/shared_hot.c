/*
 * shared_hot.c: the keys that are used most, see shared_hot.h.
 *
 * Nobody waits for the table's lock to note something: who does not get it notes more with his next call.
 */
#include "postgres.h"

#include "compat.h"

#include "core/shmem.h"
#include "ratelimit/shared_hot.h"

#define SAMPLE 16
#define HALF_LIFE_US (60 * SECONDS)

typedef struct HotTable
{
	ShmapKey	keys[SHARED_HOT_KEYS];	/* apart from the rest, so that a search touches little memory */
	SharedHotKey rows[SHARED_HOT_KEYS];
} HotTable;

static HotTable *table = NULL;
static LWLockPadded *locks = NULL;

static Size
hot_size(void)
{
	return sizeof(HotTable);
}

static void
hot_create(void *memory)
{
}

static const ShmemSegment segment = {
	.name = "DistsysRateLimitHotKeys",
	.size = hot_size,
	.init = hot_create,
	.memory = (void **) &table,
	.nlocks = 1,
	.locks = &locks
};

void
shared_hot_init(void)
{
	shmem_register(&segment);
}

static int64
uses_by(const SharedHotKey *row, int64 now)
{
	int64		halvings = (now - row->used_at) / HALF_LIFE_US;

	return halvings <= 0 ? row->uses : halvings < 63 ? row->uses >> halvings : 0;
}

static SharedHotKey *
find_row(const ShmapKey *key)
{
	for (int i = 0; i < SHARED_HOT_KEYS; i++)
	{
		if (table->keys[i].high == key->high && table->keys[i].low == key->low)
			return &table->rows[i];
	}
	return NULL;
}

static SharedHotKey *
least_used(int64 now)
{
	SharedHotKey *least = &table->rows[0];

	for (int i = 1; i < SHARED_HOT_KEYS; i++)
	{
		if (uses_by(&table->rows[i], now) < uses_by(least, now))
			least = &table->rows[i];
	}
	return least;
}

static void
take_row(SharedHotKey *row, const ShmapKey *key, const NameArg *policy, const NameArg *name)
{
	table->keys[row - table->rows] = *key;
	row->key = *key;
	row->database = MyDatabaseId;
	row->uses = 0;
	memcpy(row->policy, policy->data, policy->len);
	row->policy[policy->len] = '\0';
	memcpy(row->name, name->data, name->len);
	row->name[name->len] = '\0';
}

void
shared_hot_note(const ShmapKey *key, const NameArg *policy, const NameArg *name, int64 now)
{
	static int64 calls = SAMPLE - 1;	/* the first call is noted */
	SharedHotKey *row;

	if (++calls < SAMPLE || !LWLockConditionalAcquire(&locks->lock, LW_EXCLUSIVE))
		return;
	row = find_row(key);
	if (row == NULL)
	{
		row = least_used(now);
		take_row(row, key, policy, name);
	}
	row->uses = uses_by(row, now) + calls;
	row->used_at = now;
	LWLockRelease(&locks->lock);
	calls = 0;
}

static int
compare_uses(const void *a, const void *b)
{
	int64		x = ((const SharedHotKey *) a)->uses;
	int64		y = ((const SharedHotKey *) b)->uses;

	return x > y ? -1 : x < y;
}

SharedHotKey *
shared_hot_keys_here(int *n)
{
	SharedHotKey *rows = palloc(SHARED_HOT_KEYS * sizeof(SharedHotKey));
	int64		now = shared_now();

	*n = 0;
	LWLockAcquire(&locks->lock, LW_SHARED);
	for (int i = 0; i < SHARED_HOT_KEYS; i++)
	{
		const SharedHotKey *row = &table->rows[i];

		if (row->database != MyDatabaseId || uses_by(row, now) == 0)
			continue;
		rows[*n] = *row;
		rows[*n].uses = uses_by(row, now);
		(*n)++;
	}
	LWLockRelease(&locks->lock);
	qsort(rows, *n, sizeof(SharedHotKey), compare_uses);
	return rows;
}
