/*
 * row.c: point access to our tables, see row.h for the contract.
 *
 * Order: table lock, index lock, buffers. The index is the primary key,
 * looked up at each open, never remembered: REINDEX CONCURRENTLY replaces it.
 * The place of a row's newest version is remembered (hint.h); the index
 * decides when that leads nowhere.
 */
#include "postgres.h"

#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/index.h"
#include "catalog/indexing.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "compat.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "store/hint.h"
#include "store/row.h"

#define MAX_KEY 3

/*
 * What the primary key of a table looks like. An invalidation may arrive while
 * the table is open: it only has the next row_open look again; under the table's lock the key cannot change.
 */
typedef struct RowShape
{
	Oid			relid;
	bool		checked;		/* since the last invalidation */
	int			nkeys;
	AttrNumber	attnum[MAX_KEY];
	Oid			typid[MAX_KEY];
} RowShape;

static RowShape shapes[CATALOG_COUNT];
static uint64 invalidations = 0;

static void
on_relcache_invalidation(Datum arg, Oid relid)
{
	invalidations++;
	for (int i = 0; i < CATALOG_COUNT; i++)
	{
		if (relid == InvalidOid || shapes[i].relid == relid)
			shapes[i].checked = false;
	}
}

/* The server treats catalogs' indexes as plain ones, and so do we: others are refused, they would be filled wrongly. */
static void
check_indexes(Relation rel)
{
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *lc;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);
		bool		plain = RelationGetIndexExpressions(index) == NIL &&
			RelationGetIndexPredicate(index) == NIL &&
			!index->rd_index->indisexclusion && index->rd_index->indimmediate;

		if (!plain)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("table \"%s\" has the unsupported index \"%s\"",
							RelationGetRelationName(rel), RelationGetRelationName(index)),
					 errdetail("An expression, partial, exclusion or deferrable index cannot be kept up to date by distsys."),
					 errhint("Drop the index.")));
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
}

static Oid
primary_key(Relation rel)
{
	Oid			pk = RelationGetPrimaryKeyIndex(rel, false);

	if (!OidIsValid(pk))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" has no valid primary key", RelationGetRelationName(rel))));
	return pk;
}

static void
load_shape(Relation rel, RowShape *shape)
{
	static bool registered = false;
	Relation	index;
	uint64		before;

	if (!registered)
	{
		CacheRegisterRelcacheCallback(on_relcache_invalidation, (Datum) 0);
		registered = true;
	}
	before = invalidations;
	check_indexes(rel);
	index = index_open(primary_key(rel), AccessShareLock);
	shape->nkeys = IndexRelationGetNumberOfKeyAttributes(index);
	Assert(shape->nkeys <= MAX_KEY);
	for (int i = 0; i < shape->nkeys; i++)
	{
		shape->attnum[i] = index->rd_index->indkey.values[i];
		shape->typid[i] = TupleDescAttr(RelationGetDescr(rel), shape->attnum[i] - 1)->atttypid;
	}
	index_close(index, AccessShareLock);
	shape->relid = RelationGetRelid(rel);
	shape->checked = invalidations == before;
}

static const RowShape *
shape_of(Relation rel)
{
	Oid			relid = RelationGetRelid(rel);

	for (int i = 0; i < CATALOG_COUNT; i++)
	{
		if (shapes[i].relid == relid)
			return &shapes[i];
	}
	elog(ERROR, "relation %u was not opened by row_open", relid);
}

static Relation
open_with_lock(CatalogTable table, LOCKMODE mode)
{
	Relation	rel = catalog_open(table, mode);

	if (shapes[table].relid != RelationGetRelid(rel) || !shapes[table].checked)
		load_shape(rel, &shapes[table]);
	return rel;
}

Relation
row_open_read(CatalogTable table)
{
	return open_with_lock(table, AccessShareLock);
}

Relation
row_open_write(CatalogTable table, const char *command)
{
	PreventCommandDuringRecovery(command);
	PreventCommandIfReadOnly(command);
	PreventCommandIfParallelMode(command);
	return open_with_lock(table, RowExclusiveLock);
}

void
row_close(Relation rel)
{
	/* RelationClose keeps the lock; a reader's lock is the weakest there is and goes at once */
	if (CheckRelationLockedByMe(rel, RowExclusiveLock, true))
		table_close(rel, NoLock);
	else
		table_close(rel, AccessShareLock);
}

void
row_close_unwritten(Relation rel)
{
	table_close(rel, RowExclusiveLock);
}

Datum
row_get(Relation rel, HeapTuple tuple, int attnum, bool *isnull)
{
	bool		null;
	Datum		value = heap_getattr(tuple, attnum, RelationGetDescr(rel), &null);

	if (isnull != NULL)
		*isnull = null;
	return value;
}

/* ---- keys ---- */

void
row_key(Relation rel, HeapTuple tuple, Datum *key)
{
	const RowShape *shape = shape_of(rel);

	for (int i = 0; i < shape->nkeys; i++)
		key[i] = row_get(rel, tuple, shape->attnum[i], NULL);
}

static RegProcedure
equality(Oid type)
{
	switch (type)
	{
		case TEXTOID:
			return F_TEXTEQ;
		case INT8OID:
			return F_INT8EQ;
		case INT4OID:
			return F_INT4EQ;
		case BOOLOID:
			return F_BOOLEQ;
		case UUIDOID:
			return F_UUID_EQ;
		default:
			elog(ERROR, "key type %u is not supported", type);
	}
}

static void
make_scan_keys(const RowShape *shape, const Datum *key, int n, ScanKey scan)
{
	for (int i = 0; i < n; i++)
	{
		ScanKeyInit(&scan[i], i + 1, BTEqualStrategyNumber, equality(shape->typid[i]), key[i]);
		scan[i].sk_collation = C_COLLATION_OID;
	}
}

static bool
values_equal(Oid type, Datum a, Datum b)
{
	if (type == TEXTOID)
	{
		text	   *ta = DatumGetTextPP(a);
		text	   *tb = DatumGetTextPP(b);

		return VARSIZE_ANY_EXHDR(ta) == VARSIZE_ANY_EXHDR(tb) &&
			memcmp(VARDATA_ANY(ta), VARDATA_ANY(tb), VARSIZE_ANY_EXHDR(ta)) == 0;
	}
	if (type == UUIDOID)
		return memcmp(DatumGetPointer(a), DatumGetPointer(b), 16) == 0;
	return a == b;
}

static uint32
key_hash(const RowShape *shape, const Datum *key)
{
	uint64		hash = shape->relid;

	for (int i = 0; i < shape->nkeys; i++)
	{
		if (shape->typid[i] == TEXTOID)
		{
			text	   *t = DatumGetTextPP(key[i]);

			hash = hash_bytes_extended((unsigned char *) VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t), hash);
		}
		else if (shape->typid[i] == UUIDOID)
			hash = hash_bytes_extended((unsigned char *) DatumGetPointer(key[i]), 16, hash);
		else
			hash = hash_bytes_extended((unsigned char *) &key[i], sizeof(Datum), hash);
	}
	return (uint32) (hash ^ (hash >> 32));
}

static bool
key_matches(Relation rel, const RowShape *shape, const Datum *key, HeapTuple tuple)
{
	for (int i = 0; i < shape->nkeys; i++)
	{
		if (!values_equal(shape->typid[i], key[i], row_get(rel, tuple, shape->attnum[i], NULL)))
			return false;
	}
	return true;
}

/* The version that the snapshot sees, by the remembered place; NULL: ask the index. */
static HeapTuple
read_remembered(Relation rel, const RowShape *shape, const Datum *key, uint32 hash, Snapshot snapshot)
{
	HeapTuple	tuple = hint_read(rel, hash, snapshot);

	return tuple != NULL && key_matches(rel, shape, key, tuple) ? tuple : NULL;
}

/* ---- reading ---- */

typedef struct IndexRead
{
	Relation	rel;
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	ScanKeyData keys[MAX_KEY];
} IndexRead;

static void
index_read_begin(IndexRead *read, Relation rel, Snapshot snapshot, int nkeys)
{
	read->rel = rel;
	read->index = index_open(primary_key(rel), AccessShareLock);
	read->slot = table_slot_create(rel, NULL);
	read->scan = index_beginscan(rel, read->index, snapshot, NULL, nkeys, 0);
	index_rescan(read->scan, read->keys, nkeys, NULL, 0);
}

static void
index_read_end(IndexRead *read)
{
	index_endscan(read->scan);
	ExecDropSingleTupleTableSlot(read->slot);
	index_close(read->index, AccessShareLock);
}

static HeapTuple
copy_from_slot(TupleTableSlot *slot)
{
	HeapTuple	tuple = ExecCopySlotHeapTuple(slot);

	tuple->t_self = slot->tts_tid;
	return tuple;
}

HeapTuple
row_read_locked(Relation rel, const Datum *key)
{
	const RowShape *shape = shape_of(rel);
	uint32		hash = key_hash(shape, key);
	HeapTuple	tuple = read_remembered(rel, shape, key, hash, SnapshotSelf);
	IndexRead	read;

	if (tuple != NULL)
		return tuple;

	make_scan_keys(shape, key, shape->nkeys, read.keys);
	index_read_begin(&read, rel, SnapshotSelf, shape->nkeys);
	if (index_getnext_slot(read.scan, ForwardScanDirection, read.slot))
	{
		tuple = copy_from_slot(read.slot);
		hint_remember(rel, hash, &tuple->t_self);
	}
	index_read_end(&read);
	return tuple;
}

/* The snapshot by which unlocked reads judge versions. */
static Snapshot
latest_snapshot(void)
{
	if (RecoveryInProgress())
		return RegisterSnapshot(GetActiveSnapshot());
	return RegisterSnapshot(GetLatestSnapshot());
}

HeapTuple
row_read_latest(Relation rel, const Datum *key)
{
	const RowShape *shape = shape_of(rel);
	uint32		hash = key_hash(shape, key);
	Snapshot	snapshot = latest_snapshot();
	HeapTuple	tuple = read_remembered(rel, shape, key, hash, snapshot);
	IndexRead	read;

	if (tuple == NULL)
	{
		make_scan_keys(shape, key, shape->nkeys, read.keys);
		index_read_begin(&read, rel, SnapshotAny, shape->nkeys);
		while (tuple == NULL && index_getnext_slot(read.scan, ForwardScanDirection, read.slot))
		{
			if (table_tuple_satisfies_snapshot(rel, read.slot, snapshot))
			{
				tuple = copy_from_slot(read.slot);
				hint_remember(rel, hash, &tuple->t_self);
			}
		}
		index_read_end(&read);
	}
	UnregisterSnapshot(snapshot);
	return tuple;
}

void
row_make_durable(HeapTuple tuple)
{
	TransactionId xmin = HeapTupleHeaderGetXmin(tuple->t_data);
	XLogRecPtr	lsn;

	if (RecoveryInProgress() || !TransactionIdIsNormal(xmin) || TransactionIdIsCurrentTransactionId(xmin))
		return;
	lsn = TransactionIdGetCommitLSN(xmin);
	if (!XLogRecPtrIsInvalid(lsn))
		XLogFlush(lsn);
}

struct RowScan
{
	IndexRead	read;
	Snapshot	snapshot;
	HeapTuple	current;
};

RowScan *
row_scan_begin(Relation rel, int nprefix, const Datum *prefix, const int64 *after)
{
	const RowShape *shape = shape_of(rel);
	RowScan    *scan = palloc0(sizeof(RowScan));
	int			nkeys = nprefix;

	scan->snapshot = latest_snapshot();
	make_scan_keys(shape, prefix, nprefix, scan->read.keys);
	if (after != NULL)
	{
		bool		small = shape->typid[nprefix] == INT4OID;

		Assert(small || shape->typid[nprefix] == INT8OID);
		ScanKeyInit(&scan->read.keys[nkeys++], nprefix + 1, BTGreaterStrategyNumber,
					small ? F_INT4GT : F_INT8GT, small ? Int32GetDatum((int32) *after) : Int64GetDatum(*after));
	}
	index_read_begin(&scan->read, rel, SnapshotAny, nkeys);
	return scan;
}

RowScan *
row_scan_begin_above(Relation rel, Datum above)
{
	RowScan    *scan = palloc0(sizeof(RowScan));

	Assert(shape_of(rel)->typid[0] == TEXTOID);
	scan->snapshot = latest_snapshot();
	ScanKeyInit(&scan->read.keys[0], 1, BTGreaterStrategyNumber, F_TEXT_GT, above);
	scan->read.keys[0].sk_collation = C_COLLATION_OID;
	index_read_begin(&scan->read, rel, SnapshotAny, above != (Datum) 0);
	return scan;
}

HeapTuple
row_scan_next(RowScan *scan)
{
	if (scan->current != NULL)
	{
		heap_freetuple(scan->current);
		scan->current = NULL;
	}
	while (index_getnext_slot(scan->read.scan, ForwardScanDirection, scan->read.slot))
	{
		if (table_tuple_satisfies_snapshot(scan->read.rel, scan->read.slot, scan->snapshot))
		{
			scan->current = copy_from_slot(scan->read.slot);
			return scan->current;
		}
	}
	return NULL;
}

bool
row_scan_caller_sees(RowScan *scan)
{
	return table_tuple_satisfies_snapshot(scan->read.rel, scan->read.slot, GetActiveSnapshot());
}

void
row_scan_end(RowScan *scan)
{
	index_read_end(&scan->read);
	UnregisterSnapshot(scan->snapshot);
	if (scan->current != NULL)
		heap_freetuple(scan->current);
	pfree(scan);
}

bool
row_written_after_snapshot(HeapTuple row)
{
	TransactionId writer = HeapTupleHeaderGetXmin(row->t_data);

	return TransactionIdIsNormal(writer) && !TransactionIdIsCurrentTransactionId(writer) &&
		XidInMVCCSnapshot(writer, GetTransactionSnapshot());
}

/* ---- writing ---- */

static void
insert_index_entries(CatalogIndexState indexes, HeapTuple tuple)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(indexes->ri_RelationDesc), &TTSOpsHeapTuple);

	ExecStoreHeapTuple(tuple, slot, false);
	for (int i = 0; i < indexes->ri_NumIndices; i++)
	{
		IndexInfo  *info = indexes->ri_IndexRelationInfo[i];
		Relation	index = indexes->ri_IndexRelationDescs[i];
		Datum		values[INDEX_MAX_KEYS];
		bool		nulls[INDEX_MAX_KEYS];

		/* CREATE INDEX CONCURRENTLY is not that far yet */
		if (!info->ii_ReadyForInserts)
			continue;
		FormIndexDatum(info, slot, NULL, values, nulls);
		index_insert(index, values, nulls, &tuple->t_self, indexes->ri_RelationDesc,
					 index->rd_index->indisunique ? UNIQUE_CHECK_YES : UNIQUE_CHECK_NO, false, info);
	}
	ExecDropSingleTupleTableSlot(slot);
}

struct RowInserter
{
	Relation	rel;
	CatalogIndexState indexes;
};

RowInserter *
row_inserter_begin(Relation rel)
{
	RowInserter *inserter = palloc(sizeof(RowInserter));

	inserter->rel = rel;
	inserter->indexes = CatalogOpenIndexes(rel);
	return inserter;
}

void
row_inserter_put(RowInserter *inserter, const Datum *values, const bool *nulls)
{
	HeapTuple	tuple = heap_form_tuple(RelationGetDescr(inserter->rel), (Datum *) values, (bool *) nulls);

	heap_insert(inserter->rel, tuple, GetCurrentCommandId(true), 0, NULL);
	insert_index_entries(inserter->indexes, tuple);
	heap_freetuple(tuple);
}

void
row_inserter_end(RowInserter *inserter)
{
	CatalogCloseIndexes(inserter->indexes);
	pfree(inserter);
	CommandCounterIncrement();
}

void
row_insert(Relation rel, Datum *values, bool *nulls)
{
	RowInserter *inserter = row_inserter_begin(rel);

	row_inserter_put(inserter, values, nulls);
	row_inserter_end(inserter);
}

/* Only somebody who writes our tables by hand can be in the way: he does not take the key lock. */
static void
check_write(TM_Result result, Relation rel)
{
	if (result == TM_Ok)
		return;
	if (result == TM_Updated || result == TM_Deleted)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("row of \"%s\" was changed by hand", RelationGetRelationName(rel)),
				 errhint("Retry the transaction.")));
	elog(ERROR, "unexpected result %d of a write to \"%s\"", (int) result, RelationGetRelationName(rel));
}

void
row_update(Relation rel, HeapTuple old, Datum *values, bool *nulls, bool *replace)
{
	const RowShape *shape = shape_of(rel);
	HeapTuple	tuple = heap_modify_tuple(old, RelationGetDescr(rel), values, nulls, replace);
	Datum		key[MAX_KEY];
	TM_FailureData failure;
	LockTupleMode mode;
	TU_UpdateIndexes changed;

	check_write(heap_update(rel, &old->t_self, tuple, GetCurrentCommandId(true), InvalidSnapshot, true,
							&failure, &mode, &changed), rel);
	if (changed != TU_None)
	{
		CatalogIndexState indexes = CatalogOpenIndexes(rel);

		insert_index_entries(indexes, tuple);
		CatalogCloseIndexes(indexes);
	}
	row_key(rel, tuple, key);
	hint_remember(rel, key_hash(shape, key), &tuple->t_self);
	heap_freetuple(tuple);
	CommandCounterIncrement();
}

void
row_delete(Relation rel, HeapTuple old)
{
	TM_FailureData failure;

	check_write(heap_delete(rel, &old->t_self, GetCurrentCommandId(true), InvalidSnapshot, true, &failure, false), rel);
	CommandCounterIncrement();
}

void
row_delete_all(CatalogTable table, const char *command, int nprefix, const Datum *prefix)
{
	Relation	rel = row_open_write(table, command);
	RowScan    *scan = row_scan_begin(rel, nprefix, prefix, NULL);
	HeapTuple	row;

	while ((row = row_scan_next(scan)) != NULL)
		row_delete(rel, row);
	row_scan_end(scan);
	row_close(rel);
}
