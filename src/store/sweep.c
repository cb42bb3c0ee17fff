/*
 * sweep.c: deletes expired rows slice by slice, see sweep.h.
 *
 * The heap is read with a registered latest snapshot and without predicate
 * locks; a candidate is locked without waiting, read again and asked again.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/tableam.h"
#include "compat.h"
#include "storage/bufmgr.h"
#include "utils/snapmgr.h"

#include "core/keylock.h"
#include "store/sweep.h"

#define SLICE_PAGES 256

/* Takes the row's key lock, looks again and deletes. */
static bool
remove_row(Relation rel, const RowSweep *sweep, HeapTuple candidate)
{
	LOCKTAG		tag;
	Datum		key[3];
	HeapTuple	tuple;
	bool		remove;

	sweep->tag(rel, candidate, &tag, sweep->arg);
	if (!keylock_try(&tag, ExclusiveLock))
		return false;
	row_key(rel, candidate, key);
	tuple = row_read_locked(rel, key);
	remove = tuple != NULL && sweep->dead(rel, tuple, sweep->arg);
	if (remove)
		row_delete(rel, tuple);
	else
		keylock_release(&tag, ExclusiveLock);
	return remove;
}

void
sweep_slice(Relation rel, const RowSweep *sweep, JobSlice *slice)
{
	BlockNumber pages = RelationGetNumberOfBlocks(rel);
	BlockNumber end = Min(slice->block + SLICE_PAGES, pages);
	BlockNumber last = slice->block;
	Snapshot	snapshot;
	TableScanDesc scan;
	TupleTableSlot *slot;

	slice->rows_removed = 0;
	slice->more = false;
	if (slice->block >= pages)
	{
		slice->block = 0;
		return;
	}

	snapshot = RegisterSnapshot(GetLatestSnapshot());
	slot = table_slot_create(rel, NULL);
	scan = table_beginscan_strat(rel, SnapshotAny, 0, NULL, true, false);
	heap_setscanlimits(scan, slice->block, end - slice->block);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		HeapTuple	tuple;

		last = ItemPointerGetBlockNumber(&slot->tts_tid);
		if (slice->rows_removed >= slice->max_rows)
		{
			end = last;
			break;
		}
		if (!table_tuple_satisfies_snapshot(rel, slot, snapshot))
			continue;
		tuple = ExecCopySlotHeapTuple(slot);
		if (sweep->dead(rel, tuple, sweep->arg) && remove_row(rel, sweep, tuple))
			slice->rows_removed++;
		heap_freetuple(tuple);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);

	slice->more = end < pages;
	slice->block = slice->more ? end : 0;
}
