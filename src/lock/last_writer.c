/*
 * last_writer.c: which transaction last held a lock and wrote.
 *
 * In REPEATABLE READ the snapshot may be older than the lock: between the two, somebody may have held
 * it, written and gone, also when nobody had to wait. So each transaction that ends with such a lock
 * notes its xid under the lock's tag. It does so in XACT_EVENT_COMMIT: after its rows have become visible
 * (ProcArrayEndTransaction) and before the lock falls, so the next holder finds the note.
 *
 * The map is a fixed number of sets of WAYS entries. A lock that is in the map is judged exactly: was its last writer
 * running in the snapshot? The last one and not the highest xid, since xids are not given in the order of commits. When a
 * set is full, its oldest entry is dropped and the set remembers the highest xid dropped. A lock that is not in the map is
 * stale when any transaction up to that xid was running in the snapshot and has ended since: never missed, and too
 * careful only beside a transaction that has outlived the entries of a set (about SETS * WAYS names locked and
 * written), or a snapshot that has. A retry with a new snapshot gets past it.
 *
 * Several may hold a fence at a time, those with the highest token. Their entry has the highest of their xids, and is judged
 * as what was dropped: exactly but beside a transaction that is older than it and has ended since the snapshot.
 *
 * PREPARE TRANSACTION notes the xid before it gives the lock to the prepared transaction, whose end calls nobody: until
 * then it runs in every snapshot, and the lock cannot be had. A crash or restart empties the map. No snapshot outlives
 * it, but prepared transactions do: all up to the xid at which the map began are taken as dropped.
 *
 * Locks: one LWLock for a sixteenth of the sets, nothing else is taken or called while it is held.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/twophase.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "compat.h"
#include "port/atomics.h"
#include "storage/procarray.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "core/guc.h"
#include "core/shmem.h"
#include "core/xact.h"
#include "lock/last_writer.h"

#define SETS 8192				/* a power of two; 1.2 MB */
#define WAYS 4
#define LOCKS 16
#define MAX_LOOKUPS 100			/* of transactions that may have ended since a snapshot */

typedef struct Writer
{
	LOCKTAG		tag;
	uint64		xid;			/* full; 0: free */
	uint64		noted;			/* when, as the set counts */
	bool		several;		/* xid is the highest of those that may have held it at the same time */
} Writer;

typedef struct WriterSet
{
	uint64		notes;			/* how many there were */
	uint64		dropped;		/* the highest full xid dropped */
	Writer		writers[WAYS];
} WriterSet;

typedef struct WriterMap
{
	pg_atomic_uint64 begun;		/* full xid: what was prepared up to it is missing; 0: not used yet */
	WriterSet	sets[SETS];
} WriterMap;

static WriterMap *map = NULL;
static LWLockPadded *locks = NULL;

/* What this transaction has asked for; what of it it still holds, the lock table knows. */
typedef struct Reserved
{
	LOCKTAG		tag;
	LOCKMODE	mode;
} Reserved;

static Reserved *reserved = NULL;
static int	nreserved = 0;
static int	max_reserved = 0;

static Size
map_size(void)
{
	return sizeof(WriterMap);
}

static void
map_init_memory(void *memory)
{
	pg_atomic_init_u64(&((WriterMap *) memory)->begun, 0);
}

static const ShmemSegment segment = {
	.name = "DistsysLastWriters",
	.size = map_size,
	.init = map_init_memory,
	.memory = (void **) &map,
	.nlocks = LOCKS,
	.locks = &locks
};

/* ---- the map ---- */

static uint32
set_number(const LOCKTAG *tag)
{
	return hash_bytes((const unsigned char *) tag, sizeof(*tag)) & (SETS - 1);
}

static LWLock *
set_lock(uint32 set)
{
	return &locks[set % LOCKS].lock;
}

static Writer *
find_writer(WriterSet *set, const LOCKTAG *tag)
{
	for (int i = 0; i < WAYS; i++)
	{
		if (set->writers[i].xid != 0 && memcmp(&set->writers[i].tag, tag, sizeof(*tag)) == 0)
			return &set->writers[i];
	}
	return NULL;
}

/* A free entry, else the oldest. */
static Writer *
choose_place(WriterSet *set)
{
	Writer	   *choice = &set->writers[0];

	for (int i = 1; i < WAYS && choice->xid != 0; i++)
	{
		if (set->writers[i].xid == 0 || set->writers[i].noted < choice->noted)
			choice = &set->writers[i];
	}
	return choice;
}

/* Must not fail: runs in the commit. */
static void
note_writer(const LOCKTAG *tag, uint64 xid, bool several)
{
	uint32		number = set_number(tag);
	WriterSet  *set = &map->sets[number];
	Writer	   *place;

	LWLockAcquire(set_lock(number), LW_EXCLUSIVE);
	place = find_writer(set, tag);
	if (place == NULL)
	{
		place = choose_place(set);
		set->dropped = Max(set->dropped, place->xid);
		place->xid = set->dropped;
	}
	place->tag = *tag;
	/* who had it alone has seen the ends of all before */
	place->xid = several ? Max(place->xid, xid) : xid;
	place->several = several;
	place->noted = ++set->notes;
	LWLockRelease(set_lock(number));
}

/* ---- this transaction ---- */

/* Drops tags that are no longer held: refused tries, savepoints that were rolled back. */
static void
compact_reserved(void)
{
	int			kept = 0;

	for (int i = 0; i < nreserved; i++)
	{
		if (LockHeldByMe(&reserved[i].tag, reserved[i].mode, false))
			reserved[kept++] = reserved[i];
	}
	nreserved = kept;
}

static void
make_room(void)
{
	int			size;

	compact_reserved();
	if (nreserved <= max_reserved / 2 && max_reserved > 0)
		return;
	size = Max(16, max_reserved * 2);
	if (reserved == NULL)
		reserved = MemoryContextAlloc(TopMemoryContext, size * sizeof(Reserved));
	else
		reserved = repalloc(reserved, size * sizeof(Reserved));
	max_reserved = size;
}

/* A lock that is held need not be: pg_advisory_xact_lock may have taken it. */
static bool
is_reserved(const LOCKTAG *tag, LOCKMODE mode)
{
	for (int i = 0; i < nreserved; i++)
	{
		if (reserved[i].mode == mode && memcmp(&reserved[i].tag, tag, sizeof(*tag)) == 0)
			return true;
	}
	return false;
}

/* The first one to use the map says where it begins. */
static void
begin_map(void)
{
	uint64		unused = 0;

	if (pg_atomic_read_u64(&map->begun) == 0)
		(void) pg_atomic_compare_exchange_u64(&map->begun, &unused, max_prepared_xacts == 0 ? 1 :
											  U64FromFullTransactionId(ReadNextFullTransactionId()) - 1);
}

void
last_writer_reserve(const LOCKTAG *tag, LOCKMODE mode)
{
	if (!shmem_available())
		return;
	begin_map();
	if (LockHeldByMe(tag, mode, false) && is_reserved(tag, mode))
		return;
	if (nreserved == max_reserved)
		make_room();
	reserved[nreserved].tag = *tag;
	reserved[nreserved++].mode = mode;
}

static void
note_all(FullTransactionId xid)
{
	for (int i = 0; i < nreserved; i++)
	{
		const LOCKTAG *tag = &reserved[i].tag;

		if (LockHeldByMe(tag, reserved[i].mode, false))
			note_writer(tag, U64FromFullTransactionId(xid), !LockHeldByMe(tag, ExclusiveLock, false));
	}
	nreserved = 0;
}

static void
writer_pre_prepare(void)
{
	if (nreserved > 0)
		note_all(GetTopFullTransactionId());
}

static void
writer_end(bool committed)
{
	if (nreserved == 0)
		return;
	if (committed && FullTransactionIdIsValid(GetTopFullTransactionIdIfAny()))
		note_all(GetTopFullTransactionIdIfAny());
	nreserved = 0;
}

static const XactActions writer_actions = {
	.pre_prepare = writer_pre_prepare,
	.end = writer_end
};

void
last_writer_init(void)
{
	shmem_register(&segment);
	xact_register(&writer_actions);
}

/* ---- the question ---- */

/* Was the transaction still running in the snapshot? Not when it is so old that no snapshot can know it. */
static bool
running_in(uint64 xid, Snapshot snapshot)
{
	uint64		age = U64FromFullTransactionId(ReadNextFullTransactionId()) - xid;

	return age < (UINT64CONST(1) << 31) &&
		XidInMVCCSnapshot(XidFromFullTransactionId(FullTransactionIdFromU64(xid)), snapshot);
}

/* Has a transaction with an xid up to `until` ended that was running in the snapshot? Yes, when it is much work to find out. */
static bool
ended_since(uint64 until, Snapshot snapshot)
{
	uint64		next = U64FromFullTransactionId(ReadNextFullTransactionId());
	TransactionId limit = XidFromFullTransactionId(FullTransactionIdFromU64(until));
	TransactionId xid = snapshot->xmax;

	if (next - until >= (UINT64CONST(1) << 31) || TransactionIdFollows(snapshot->xmin, limit))
		return false;
	/* the snapshot of a standby lists them elsewhere */
	if (snapshot->takenDuringRecovery)
		return true;
	for (uint32 i = 0; i < snapshot->xcnt; i++)
	{
		if (TransactionIdPrecedesOrEquals(snapshot->xip[i], limit) && !TransactionIdIsInProgress(snapshot->xip[i]))
			return true;
	}
	for (int i = 0; TransactionIdPrecedesOrEquals(xid, limit); i++)
	{
		if (i == MAX_LOOKUPS || !TransactionIdIsInProgress(xid))
			return true;
		TransactionIdAdvance(xid);
	}
	return false;
}

bool
last_writer_unseen(const LOCKTAG *tag, Snapshot snapshot)
{
	uint32		number = set_number(tag);
	WriterSet  *set;
	Writer	   *writer;
	uint64		xid;
	uint64		dropped;
	uint64		begun;
	bool		several;

	if (!shmem_available())
		return false;
	begin_map();
	set = &map->sets[number];
	LWLockAcquire(set_lock(number), LW_SHARED);
	writer = find_writer(set, tag);
	xid = writer != NULL ? writer->xid : 0;
	several = writer != NULL && writer->several;
	dropped = set->dropped;
	LWLockRelease(set_lock(number));

	if (xid != 0)
		return several ? ended_since(xid, snapshot) : running_in(xid, snapshot);
	begun = pg_atomic_read_u64(&map->begun);
	return ended_since(Max(dropped, begun), snapshot);
}

void
last_writer_report_stale(const char *noun, const NameArg *name, const char *detail, const char *hint)
{
	ereport(guc_stale_snapshot == STALE_SNAPSHOT_ERROR ? ERROR : WARNING,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("snapshot is older than the %s \"%s\"", noun, name_cstring(*name)),
			 errdetail("%s", detail),
			 errhint("%s", hint)));
}
