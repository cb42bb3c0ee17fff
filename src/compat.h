/*
 * compat.h: the only place that tests PG_VERSION_NUM. The newest signature
 * wins: code is written for the newest server and this file teaches it to the
 * older ones. Include it after postgres.h and before the server's headers that it wraps.
 */
#ifndef DISTSYS_COMPAT_H
#define DISTSYS_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "distsys needs PostgreSQL 15 or later"
#endif

#include "access/genam.h"
#include "access/heapam.h"
#include "commands/sequence.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/rel.h"

/* 18: the library says its name and version. */
#if PG_VERSION_NUM >= 180000
#define DISTSYS_MODULE_MAGIC PG_MODULE_MAGIC_EXT(.name = "distsys", .version = DISTSYS_VERSION)
#else
#define DISTSYS_MODULE_MAGIC PG_MODULE_MAGIC
#endif

/* 18: noreturn goes before the declaration. */
#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
#endif

/* 17: a backend knows the number of its PGPROC. */
#if PG_VERSION_NUM < 170000
typedef int ProcNumber;
#define MyProcNumber (MyProc->pgprocno)
#define LockHeldByMe(tag, mode, orstronger) LockHeldByMe(tag, mode)
#endif

/* 18: index scans are instrumented. */
#if PG_VERSION_NUM < 180000
#define index_beginscan(heap, index, snapshot, instrument, nkeys, norderbys) \
	index_beginscan(heap, index, snapshot, nkeys, norderbys)
#define RelationGetPrimaryKeyIndex(rel, deferrable_ok) RelationGetPrimaryKeyIndex(rel)
#endif

/* 17: extensions name their wait events. */
#if PG_VERSION_NUM < 170000
#define wait_event_new(name) ((void) (name), (uint32) PG_WAIT_EXTENSION)
#else
#define wait_event_new(name) WaitEventExtensionNew(name)
#endif

/* 16: heap_update says which indexes need a new entry; before, a heap-only tuple needs none. */
#if PG_VERSION_NUM < 160000
typedef enum TU_UpdateIndexes
{
	TU_None,
	TU_All,
	TU_Summarizing
} TU_UpdateIndexes;

static inline TM_Result
heap_update_compat(Relation rel, ItemPointer otid, HeapTuple newtup, CommandId cid, Snapshot crosscheck,
				   bool wait, struct TM_FailureData *tmfd, LockTupleMode *lockmode,
				   TU_UpdateIndexes *update_indexes)
{
	TM_Result	result = heap_update(rel, otid, newtup, cid, crosscheck, wait, tmfd, lockmode);

	*update_indexes = HeapTupleIsHeapOnly(newtup) ? TU_None : TU_All;
	return result;
}
#define heap_update heap_update_compat
#endif

/* 16: one ownership check for every kind of object; ours is asked about relations. */
#if PG_VERSION_NUM < 160000
#define object_ownercheck(class_oid, relid, role) pg_class_ownercheck(relid, role)
#endif

/* 16: RelFileNode became RelFileLocator. */
#if PG_VERSION_NUM < 160000
#define XL_SEQ_REC_SET_LOCATOR(rec, rel) ((rec).node = (rel)->rd_node)
#define RELATION_LOCATOR(rel) ((rel)->rd_node)
#else
#define XL_SEQ_REC_SET_LOCATOR(rec, rel) ((rec).locator = (rel)->rd_locator)
#define RELATION_LOCATOR(rel) ((rel)->rd_locator)
#endif

#endif							/* DISTSYS_COMPAT_H */
