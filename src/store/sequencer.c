/*
 * sequencer.c: positions in commit order, see sequencer.h.
 *
 * Writer, at PRE_COMMIT: take a sequencer tag in SHARE mode, then draw the
 * positions, insert, leave. The lock falls after the commit is visible. Drawing
 * after the lock is what makes it work: whoever drew before a reader looked
 * at the counter either is visible or holds a tag.
 *
 * Reader: (1) the counter, (2) the transactions that hold a tag now, waited
 * for with a deadline, (3) a snapshot: every position up to (1) is visible or will never exist.
 *
 * Eight tags, by backend, so that no lock partition is hot.
 *
 * Rollback, also to a savepoint: the events are dropped. PREPARE with events:
 * 0A000. Crash: positions are holes, never given again once anybody has read
 * them (reading flushes). Standby: readers stop at outbox_settled.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "compat.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "core/arg.h"
#include "core/clock.h"
#include "core/guc.h"
#include "core/keylock.h"
#include "core/wait.h"
#include "core/xact.h"
#include "store/sequencer.h"
#include "store/token.h"

#define TAGS 8
#define POLL_FIRST_US 1000
#define POLL_LAST_US 10000

/* outbox_settled is rewritten at most this often. */
#define RECORD_INTERVAL_US (100 * 1000)
/* In a transaction block, which may stay open and keep others from the row: only when nobody else seems to do it. */
#define RECORD_IN_BLOCK_US (30 * 1000 * 1000)

/* ---- the pending events of this transaction ---- */

/* Events [from, to) were rolled back. Disjoint, in order. */
typedef struct AbortedRange
{
	int64		from;
	int64		to;
} AbortedRange;

static Tuplestorestate *pending = NULL;
static TupleDesc pending_desc = NULL;
static int64 npending = 0;
static XactMarks marks;		/* where the events of each subtransaction begin */
static AbortedRange *aborted = NULL;
static int	naborted = 0;
static int	max_aborted = 0;
static bool committing = false;
static bool storing = false;	/* stays true when an error has left the tuplestore half written */

static void
forget_pending(void)
{
	/* the memory goes with TopTransactionContext, spilled files with its resource owner */
	pending = NULL;
	pending_desc = NULL;
	npending = 0;
	xact_marks_clear(&marks);
	aborted = NULL;
	naborted = max_aborted = 0;
	committing = false;
	storing = false;
}

static void
begin_pending(void)
{
	Relation	rel = row_open_read(TABLE_OUTBOX_EVENT);
	MemoryContext caller = MemoryContextSwitchTo(TopTransactionContext);
	ResourceOwner owner = CurrentResourceOwner;

	CurrentResourceOwner = TopTransactionResourceOwner;
	pending_desc = CreateTupleDescCopy(RelationGetDescr(rel));
	pending = tuplestore_begin_heap(false, false, work_mem);
	CurrentResourceOwner = owner;
	MemoryContextSwitchTo(caller);
	row_close(rel);
}

/* Notes where this subtransaction's events begin; makes room for the range that its rollback would add. */
static void
mark_subtransaction(void)
{
	if (naborted + marks.n + 1 > max_aborted)
	{
		int			max = Max(16, max_aborted * 2 + 1);

		aborted = aborted == NULL ?
			MemoryContextAlloc(TopTransactionContext, max * sizeof(AbortedRange)) :
			repalloc(aborted, max * sizeof(AbortedRange));
		max_aborted = max;
	}
	xact_mark(&marks, npending);
}

/*
 * A temporary file that was full once has lost events that were accepted
 * before. The error may have been caught: the transaction must not commit without them.
 */
static void
check_store(void)
{
	if (storing)
		ereport(ERROR,
				(errcode(ERRCODE_IO_ERROR),
				 errmsg("events of this transaction could not be stored"),
				 errdetail("An earlier outbox_publish() failed while it wrote to a temporary file."),
				 errhint("Roll back and retry the transaction.")));
}

void
sequencer_append(const Datum *values, const bool *nulls)
{
	MemoryContext caller;

	if (committing)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot publish after the events of this transaction were written"),
				 errdetail("Something that runs at the very end of COMMIT has published.")));
	check_store();
	if (pending == NULL)
		begin_pending();
	mark_subtransaction();
	caller = MemoryContextSwitchTo(TopTransactionContext);
	storing = true;
	tuplestore_putvalues(pending, pending_desc, (Datum *) values, (bool *) nulls);
	storing = false;
	MemoryContextSwitchTo(caller);
	npending++;
}

static void
drop_from(int64 start)
{
	/* what an inner subtransaction had dropped before is inside */
	while (naborted > 0 && aborted[naborted - 1].from >= start)
		naborted--;
	aborted[naborted].from = start;
	aborted[naborted].to = npending;
	naborted++;
}

static void
sequencer_sub_end(bool committed, int nest_level)
{
	int64		start;

	if (xact_marks_sub_end(&marks, committed, nest_level, &start))
		drop_from(start);
}

static int64
live_events(void)
{
	int64		n = npending;

	for (int i = 0; i < naborted; i++)
		n -= aborted[i].to - aborted[i].from;
	return n;
}

/* Asked at the beginning of COMMIT; what is published from now on would be lost. */
static bool
begin_commit(void)
{
	committing = true;
	return pending != NULL;
}

/* ---- writing them ---- */

static void
sequencer_tag(LOCKTAG *tag, int number)
{
	keylock_tag(tag, KEYLOCK_SEQUENCER, (const char *) &number, sizeof(number));
}

static void
insert_pending(Relation rel, int64 position)
{
	RowInserter *inserter = row_inserter_begin(rel);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(pending_desc, &TTSOpsMinimalTuple);
	int64		i = 0;
	int			range = 0;

	while (tuplestore_gettupleslot(pending, true, false, slot))
	{
		if (range < naborted && i >= aborted[range].to)
			range++;
		if (range == naborted || i < aborted[range].from)
		{
			slot_getallattrs(slot);
			slot->tts_values[EVENT_POSITION - 1] = Int64GetDatum(position++);
			row_inserter_put(inserter, slot->tts_values, slot->tts_isnull);
		}
		i++;
	}
	ExecDropSingleTupleTableSlot(slot);
	row_inserter_end(inserter);
}

static void
write_pending(void)
{
	Relation	rel = row_open_write(TABLE_OUTBOX_EVENT, "COMMIT with published events");
	LOCKTAG		tag;

	sequencer_tag(&tag, (MyProcNumber) % TAGS);
	(void) LockAcquire(&tag, ShareLock, false, false);
	insert_pending(rel, position_draw(live_events()));
	row_close(rel);
}

static void
flush_pending(void)
{
	check_store();
	if (live_events() > 0)
		write_pending();
	tuplestore_end(pending);	/* a file that is open at the end of a commit is reported as a leak */
	pending = NULL;
}

static void
pre_prepare(void)
{
	if (!begin_commit())
		return;
	if (storing || live_events() > 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction that has published events"),
				 errhint("Events get their position at COMMIT.")));
	tuplestore_end(pending);
	pending = NULL;
}

static void
sequencer_end(bool committed)
{
	forget_pending();
}

static const XactActions sequencer_actions = {
	.pending = begin_commit,
	.pre_commit = flush_pending,
	.pre_prepare = pre_prepare,
	.end = sequencer_end,
	.sub_end = sequencer_sub_end
};

void
sequencer_init(void)
{
	xact_register(&sequencer_actions);
}

void
sequencer_stop(void)
{
	LOCKTAG		tag;

	for (int i = 0; i < TAGS; i++)
	{
		sequencer_tag(&tag, i);
		(void) keylock_wait(&tag, ExclusiveLock, KEYLOCK_FOR_EVER);
	}
}

/* ---- the settled bound ---- */

enum
{
	ATTR_SINGLETON = 1,
	ATTR_POSITION,
	ATTR_SETTLED_AT,
	NATTS = ATTR_SETTLED_AT
};

static int64
recorded_bound(void)
{
	Datum		key = BoolGetDatum(true);
	Relation	rel = row_open_read(TABLE_OUTBOX_SETTLED);
	HeapTuple	row = row_read_latest(rel, &key);
	int64		bound = row == NULL ? 0 : DatumGetInt64(row_get(rel, row, ATTR_POSITION, NULL));

	row_close(rel);
	return bound;
}

/* Waits for the transactions that hold this tag now. false: the time is up. */
static bool
wait_for_commits(const LOCKTAG *tag, int64 until)
{
	VirtualTransactionId *holder = GetLockConflicts(tag, ExclusiveLock, NULL);
	int64		poll_us = POLL_FIRST_US;

	for (; VirtualTransactionIdIsValid(*holder); holder++)
	{
		while (!VirtualXactLock(*holder, false))
		{
			int64		left_us = until - wait_clock();

			if (left_us <= 0)
				return false;
			wait_sleep(Min(poll_us, left_us), WAIT_COMMITS);
			poll_us = Min(poll_us * 2, POLL_LAST_US);
		}
	}
	return true;
}

int64
sequencer_settle(void)
{
	/* valid for one incarnation of the extension: another starts its counter anew */
	static Oid	known_for = InvalidOid;
	static int64 known = 0;
	Oid			counter = catalog_relid(SEQUENCE_POSITION);
	int64		until;
	int64		head;

	if (RecoveryInProgress())
		return recorded_bound();
	if (known_for != counter)
	{
		known_for = counter;
		known = 0;
	}
	head = position_head();
	if (head == known)
		return head;			/* nothing was drawn since */
	until = wait_clock() + guc_outbox_read_wait * MILLISECONDS;
	for (int i = 0; i < TAGS; i++)
	{
		LOCKTAG		tag;

		sequencer_tag(&tag, i);
		if (!wait_for_commits(&tag, until))
			return at_least(known, recorded_bound());
	}
	/* an epoch that is rolled back is above what comes after */
	if (!token_epoch_uncommitted())
		known = head;
	return head;
}

void
sequencer_record(int64 settled)
{
	Datum		values[NATTS];
	bool		nulls[NATTS] = {false};
	bool		replace[NATTS] = {false, true, true};
	Relation	rel;
	HeapTuple	row;
	LOCKTAG		tag;
	TimestampTz now = clock_wall();
	int64		interval_us = IsTransactionBlock() ? RECORD_IN_BLOCK_US : RECORD_INTERVAL_US;
	bool		due;

	keylock_tag(&tag, KEYLOCK_OUTBOX_SETTLED, "", 0);
	if (!keylock_try(&tag, ExclusiveLock))
		return;
	rel = row_open_write(TABLE_OUTBOX_SETTLED, "outbox_fetch()");
	values[ATTR_SINGLETON - 1] = BoolGetDatum(true);
	row = row_read_locked(rel, &values[ATTR_SINGLETON - 1]);
	/* nothing was published yet: no row, it might be the one that a dump brings */
	due = row == NULL ? (settled & ((INT64CONST(1) << TOKEN_COUNTER_BITS) - 1)) > 0 :
		(DatumGetInt64(row_get(rel, row, ATTR_POSITION, NULL)) < settled &&
		 llabs((long long) (now - DatumGetTimestampTz(row_get(rel, row, ATTR_SETTLED_AT, NULL)))) >= interval_us);
	if (!due)
	{
		row_close_unwritten(rel);
		keylock_release(&tag, ExclusiveLock);
		return;
	}
	values[ATTR_POSITION - 1] = Int64GetDatum(settled);
	values[ATTR_SETTLED_AT - 1] = TimestampTzGetDatum(now);
	if (row == NULL)
		row_insert(rel, values, nulls);
	else
		row_update(rel, row, values, nulls, replace);
	row_close(rel);
}
