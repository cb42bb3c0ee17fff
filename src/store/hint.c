/*
 * hint.c: remembered places of rows, per backend, see hint.h.
 *
 * It keeps a hot row fast while somebody holds a snapshot: the index then
 * leads to the oldest version, and the walk from there to the newest grows with
 * every update. A place is a TID and the buffer that its page was in; it is
 * followed along t_ctid with the check that the next version's xmin is this one's
 * xmax, as the server does.
 */
#include "postgres.h"

#include "compat.h"
#include "storage/bufmgr.h"
#include "utils/snapmgr.h"

#include "store/hint.h"

#define HINTS 1024				/* a power of two */

typedef struct TidHint
{
	Oid			relid;
	uint32		hash;			/* of the row's key */
	ItemPointerData tid;
	Buffer		buffer;			/* where its page was */
} TidHint;

static TidHint hints[HINTS];

void
hint_remember(Relation rel, uint32 hash, ItemPointer tid)
{
	TidHint    *hint = &hints[hash & (HINTS - 1)];

	hint->relid = RelationGetRelid(rel);
	hint->hash = hash;
	hint->tid = *tid;
	hint->buffer = InvalidBuffer;
}

/* Pins the page where it was the last time, without asking the file for its length; InvalidBuffer: the page is gone. */
static Buffer
read_remembered_page(Relation rel, BlockNumber block, Buffer recent)
{
	if (BufferIsValid(recent) && ReadRecentBuffer(RELATION_LOCATOR(rel), MAIN_FORKNUM, block, recent))
		return recent;
	if (block >= RelationGetNumberOfBlocks(rel))
		return InvalidBuffer;
	return ReadBuffer(rel, block);
}

/*
 * One step along a row's versions, in the page of *tid, which is pinned and
 * released here. Returns true when this is the version that
 * the snapshot sees (*found: a copy); else *tid is where to look next, or invalid.
 */
static bool
follow_version(Relation rel, Buffer buffer, ItemPointer tid, Snapshot snapshot,
			   TransactionId *expected_xmin, HeapTuple *found)
{
	OffsetNumber offset = ItemPointerGetOffsetNumber(tid);
	HeapTupleData tuple;
	ItemId		item = NULL;
	Page		page;

	/* as an index scan does: without it a hot row's page fills up and updates stop being HOT */
	heap_page_prune_opt(rel, buffer);
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	if (offset <= PageGetMaxOffsetNumber(page))
	{
		item = PageGetItemId(page, offset);
		if (ItemIdIsRedirected(item))
		{
			offset = ItemIdGetRedirect(item);
			item = PageGetItemId(page, offset);
		}
	}
	if (item == NULL || !ItemIdIsNormal(item))
	{
		UnlockReleaseBuffer(buffer);
		ItemPointerSetInvalid(tid);
		return false;
	}

	tuple.t_data = (HeapTupleHeader) PageGetItem(page, item);
	tuple.t_len = ItemIdGetLength(item);
	tuple.t_tableOid = RelationGetRelid(rel);
	ItemPointerSet(&tuple.t_self, ItemPointerGetBlockNumber(tid), offset);

	if (TransactionIdIsValid(*expected_xmin) &&
		!TransactionIdEquals(*expected_xmin, HeapTupleHeaderGetXmin(tuple.t_data)))
		ItemPointerSetInvalid(tid);
	else if (HeapTupleSatisfiesVisibility(&tuple, snapshot, buffer))
		*found = heap_copytuple(&tuple);
	else if (ItemPointerEquals(&tuple.t_self, &tuple.t_data->t_ctid) ||
			 HeapTupleHeaderIndicatesMovedPartitions(tuple.t_data))
		ItemPointerSetInvalid(tid);
	else
	{
		*expected_xmin = HeapTupleHeaderGetUpdateXid(tuple.t_data);
		*tid = tuple.t_data->t_ctid;
	}
	UnlockReleaseBuffer(buffer);
	return *found != NULL;
}

HeapTuple
hint_read(Relation rel, uint32 hash, Snapshot snapshot)
{
	TidHint    *hint = &hints[hash & (HINTS - 1)];
	ItemPointerData tid = hint->tid;
	Buffer		buffer = hint->buffer;
	TransactionId expected_xmin = InvalidTransactionId;
	HeapTuple	found = NULL;

	if (hint->relid != RelationGetRelid(rel) || hint->hash != hash)
		return NULL;
	while (ItemPointerIsValid(&tid))
	{
		buffer = read_remembered_page(rel, ItemPointerGetBlockNumber(&tid), buffer);
		if (!BufferIsValid(buffer))
			return NULL;
		if (follow_version(rel, buffer, &tid, snapshot, &expected_xmin, &found))
			break;
	}
	if (found == NULL)
		return NULL;
	hint->tid = found->t_self;
	hint->buffer = buffer;
	return found;
}
