/*
 * held_name.c: names of advisory locks, for the view locks.
 *
 * Of an advisory lock the server keeps a number only. Each backend notes in its own place in shared memory which
 * names it has asked for last, so that the view can show them: NAMES of them, those of session locks
 * that it still holds before all others. Nothing is cleared when a lock falls: the view begins with pg_locks and
 * looks up only what is held or waited for. Without preload, for a prepared transaction, and for the ninth
 * name of a backend the view says NULL.
 *
 * One writer per place and no lock: `version` is odd while a place is being written, and a reader that sees it
 * odd or changed looks again.
 */
#include "postgres.h"

#include "compat.h"
#include "port/atomics.h"
#include "utils/builtins.h"

#include "core/result.h"
#include "core/shmem.h"
#include "lock/held_name.h"

#define NAMES 8					/* per backend; 2.2 kB */
#define READ_ATTEMPTS 1000

typedef struct HeldName
{
	LOCKTAG		tag;
	int			len;			/* 0: free */
	char		name[NAME_LONG];
} HeldName;

typedef struct BackendNames
{
	pg_atomic_uint32 version;
	int			pid;
	HeldName	names[NAMES];
} BackendNames;

static BackendNames *backends = NULL;

static Size
names_size(void)
{
	return mul_size(MaxBackends, sizeof(BackendNames));
}

static void
names_init_memory(void *memory)
{
	for (int i = 0; i < MaxBackends; i++)
		pg_atomic_init_u32(&((BackendNames *) memory)[i].version, 0);
}

static const ShmemSegment segment = {
	.name = "DistsysHeldNames",
	.size = names_size,
	.init = names_init_memory,
	.memory = (void **) &backends
};

/* Where the next name goes: in turn, but not over a session lock that is still held while there is another place. */
static HeldName *
next_place(BackendNames *mine)
{
	static int	next = 0;

	for (int i = 0; i < NAMES; i++)
	{
		HeldName   *place = &mine->names[next = (next + 1) % NAMES];

		if (place->tag.locktag_field4 != KEYLOCK_SESSION || !LockHeldByMe(&place->tag, ExclusiveLock, false))
			return place;
	}
	return &mine->names[next = (next + 1) % NAMES];
}

void
held_name_note(const LOCKTAG *tag, const NameArg *name)
{
	BackendNames *mine;
	HeldName   *place;

	if (!shmem_available() || MyProcNumber < 0 || MyProcNumber >= MaxBackends)
		return;
	mine = &backends[MyProcNumber];
	for (int i = 0; i < NAMES && mine->pid == MyProcPid; i++)
	{
		place = &mine->names[i];
		if (place->len == name->len && memcmp(&place->tag, tag, sizeof(*tag)) == 0 &&
			memcmp(place->name, name->data, name->len) == 0)
			return;
	}

	place = next_place(mine);
	pg_atomic_write_u32(&mine->version, pg_atomic_read_u32(&mine->version) + 1);
	pg_write_barrier();
	if (mine->pid != MyProcPid)
	{
		memset(mine->names, 0, sizeof(mine->names));
		mine->pid = MyProcPid;
	}
	place->tag = *tag;
	place->len = name->len;
	memcpy(place->name, name->data, name->len);
	pg_write_barrier();
	pg_atomic_write_u32(&mine->version, pg_atomic_read_u32(&mine->version) + 1);
}

/* A copy of a backend's place that was not being written; false: it keeps changing. */
static bool
copy_place(BackendNames *source, BackendNames *copy)
{
	for (int i = 0; i < READ_ATTEMPTS; i++)
	{
		uint32		before = pg_atomic_read_u32(&source->version);

		pg_read_barrier();
		copy->pid = source->pid;
		memcpy(copy->names, source->names, sizeof(copy->names));
		pg_read_barrier();
		if (before % 2 == 0 && pg_atomic_read_u32(&source->version) == before)
			return true;
	}
	return false;
}

static void
put_names(FunctionCallInfo fcinfo, const BackendNames *copy)
{
	for (int i = 0; i < NAMES; i++)
	{
		const HeldName *place = &copy->names[i];
		Datum		values[4];
		bool		nulls[4] = {false};

		if (place->len == 0 || place->tag.locktag_field1 != MyDatabaseId)
			continue;
		values[0] = Int32GetDatum(copy->pid);
		values[1] = Int32GetDatum(place->tag.locktag_field4);
		values[2] = Int64GetDatum((int64) (((uint64) place->tag.locktag_field2 << 32) | place->tag.locktag_field3));
		values[3] = PointerGetDatum(cstring_to_text_with_len(place->name, place->len));
		result_put(fcinfo, values, nulls);
	}
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys__lock_names);

/* Rows (pid, space, lock_id, name) of the current database; none without shared memory. */
Datum
distsys__lock_names(PG_FUNCTION_ARGS)
{
	BackendNames *copy = palloc(sizeof(BackendNames));

	result_begin_set(fcinfo);
	for (int i = 0; shmem_available() && i < MaxBackends; i++)
	{
		if (backends[i].pid != 0 && copy_place(&backends[i], copy))
			put_names(fcinfo, copy);
	}
	return (Datum) 0;
}

void
held_name_init(void)
{
	shmem_register(&segment);
}
