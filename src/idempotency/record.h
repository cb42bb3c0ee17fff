/*
 * record.h: the seam between idempotency keys and their storage. Callers know
 * records, not tables; a ring of tables can take the place of the one behind it.
 */
#ifndef DISTSYS_IDEMPOTENCY_RECORD_H
#define DISTSYS_IDEMPOTENCY_RECORD_H

#include "core/arg.h"
#include "core/clock.h"
#include "core/keylock.h"
#include "store/sweep.h"

typedef enum RecordState
{
	RECORD_STARTED = 1,			/* claimed; live while its deadline has not passed */
	RECORD_COMPLETED = 2,		/* the answer is stored */
	RECORD_FAILED = 3			/* given up by its holder, the next begin resumes */
} RecordState;

/* A NULL column is a Datum of 0. Datums point into memory of the current context. */
typedef struct Record
{
	Datum		scope;
	Datum		key;
	Datum		policy;
	Oid			role;
	RecordState state;
	int64		token;
	int32		attempt;
	Datum		fingerprint;
	Datum		request_id;
	Datum		recovery_point;
	Datum		checkpoint;
	int32		response_code;
	bool		has_code;
	Datum		response_headers;
	Datum		response_body;
	Datum		response_bytes;
	Datum		error;
	TimestampTz created_at;
	TimestampTz completed_at;	/* 0: not yet */
	TimestampTz retain_until;
	int64		retention_us;
	int64		ttl_us;
	Deadline	deadline;		/* of the claim */
} Record;

/* What the storage hands out for a later write. */
typedef struct RecordStore
{
	Relation	rel;
	HeapTuple	tuple;			/* what the last read has found */
	bool		write;
} RecordStore;

extern void record_tag(LOCKTAG *tag, const NameArg *scope, const NameArg *key);
/* 25006 in a read-only transaction or on a standby */
extern void record_open(RecordStore *store, bool write, const char *command);
/* written: keeps the table lock to commit */
extern void record_close(RecordStore *store, bool written);
/* No lock; newest committed version or our own. What is read is flushed first when durable. */
extern bool record_read_latest(RecordStore *store, const NameArg *scope, const NameArg *key, bool durable, Record *record);
/* Under the key lock, Exclusive. */
extern bool record_read_locked(RecordStore *store, const NameArg *scope, const NameArg *key, Record *record);
/* Flushes what was read, before it is given out. */
extern void record_make_durable(RecordStore *store);
/* Inserts it, or overwrites what record_read_locked has found. */
extern void record_write(RecordStore *store, const Record *record);
extern void record_delete(RecordStore *store);

/* Calls visit for each record until it returns false. */
typedef bool (*RecordVisit) (const Record *record, void *arg);
extern void record_visit_all(RecordVisit visit, void *arg);

/* Job: removes records whose retention has ended. */
extern void idempotency_expire(JobSlice *slice);

#endif							/* DISTSYS_IDEMPOTENCY_RECORD_H */
