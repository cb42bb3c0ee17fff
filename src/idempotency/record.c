/*
 * record.c: storage of idempotency records, one table, one row per
 * (scope, key), see record.h.
 *
 * Writers hold the record's key lock in Exclusive mode. No column but the key
 * is indexed, so that claim and completion are HOT.
 */
#include "postgres.h"

#include "compat.h"
#include "utils/builtins.h"

#include "idempotency/record.h"
#include "store/row.h"

enum
{
	ATTR_SCOPE = 1,
	ATTR_KEY,
	ATTR_POLICY,
	ATTR_ROLE,
	ATTR_STATE,
	ATTR_TOKEN,
	ATTR_ATTEMPT,
	ATTR_FINGERPRINT,
	ATTR_REQUEST_ID,
	ATTR_RECOVERY_POINT,
	ATTR_CHECKPOINT,
	ATTR_RESPONSE_CODE,
	ATTR_RESPONSE_HEADERS,
	ATTR_RESPONSE_BODY,
	ATTR_RESPONSE_BYTES,
	ATTR_ERROR,
	ATTR_CREATED_AT,
	ATTR_COMPLETED_AT,
	ATTR_RETAIN_UNTIL,
	ATTR_RETENTION_US,
	ATTR_TTL_US,
	ATTR_EXPIRES_AT,
	ATTR_EXPIRES_BOOT,
	ATTR_CLOCK_ID,
	NATTS = ATTR_CLOCK_ID
};

void
record_tag(LOCKTAG *tag, const NameArg *scope, const NameArg *key)
{
	keylock_tag2(tag, KEYLOCK_IDEMPOTENCY, scope->data, scope->len, key->data, key->len);
}

void
record_open(RecordStore *store, bool write, const char *command)
{
	store->rel = write ? row_open_write(TABLE_IDEMPOTENCY_RECORD, command) : row_open_read(TABLE_IDEMPOTENCY_RECORD);
	store->tuple = NULL;
	store->write = write;
}

void
record_close(RecordStore *store, bool written)
{
	if (store->write && !written)
		row_close_unwritten(store->rel);
	else
		row_close(store->rel);
}

static void
from_row(Relation rel, HeapTuple tuple, Record *record)
{
	Datum		values[NATTS];
	bool		nulls[NATTS];

	heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
	for (int i = 0; i < NATTS; i++)
	{
		if (nulls[i])
			values[i] = (Datum) 0;
	}
	record->scope = values[ATTR_SCOPE - 1];
	record->key = values[ATTR_KEY - 1];
	record->policy = values[ATTR_POLICY - 1];
	record->role = DatumGetObjectId(values[ATTR_ROLE - 1]);
	record->state = (RecordState) DatumGetInt16(values[ATTR_STATE - 1]);
	record->token = DatumGetInt64(values[ATTR_TOKEN - 1]);
	record->attempt = DatumGetInt32(values[ATTR_ATTEMPT - 1]);
	record->fingerprint = values[ATTR_FINGERPRINT - 1];
	record->request_id = values[ATTR_REQUEST_ID - 1];
	record->recovery_point = values[ATTR_RECOVERY_POINT - 1];
	record->checkpoint = values[ATTR_CHECKPOINT - 1];
	record->response_code = DatumGetInt32(values[ATTR_RESPONSE_CODE - 1]);
	record->has_code = !nulls[ATTR_RESPONSE_CODE - 1];
	record->response_headers = values[ATTR_RESPONSE_HEADERS - 1];
	record->response_body = values[ATTR_RESPONSE_BODY - 1];
	record->response_bytes = values[ATTR_RESPONSE_BYTES - 1];
	record->error = values[ATTR_ERROR - 1];
	record->created_at = DatumGetTimestampTz(values[ATTR_CREATED_AT - 1]);
	record->completed_at = DatumGetTimestampTz(values[ATTR_COMPLETED_AT - 1]);
	record->retain_until = DatumGetTimestampTz(values[ATTR_RETAIN_UNTIL - 1]);
	record->retention_us = DatumGetInt64(values[ATTR_RETENTION_US - 1]);
	record->ttl_us = DatumGetInt64(values[ATTR_TTL_US - 1]);
	record->deadline.wall = DatumGetTimestampTz(values[ATTR_EXPIRES_AT - 1]);
	record->deadline.boot = DatumGetInt64(values[ATTR_EXPIRES_BOOT - 1]);
	record->deadline.id = DatumGetInt64(values[ATTR_CLOCK_ID - 1]);
}

static void
put_nullable(Datum *values, bool *nulls, int attnum, Datum value)
{
	values[attnum - 1] = value;
	nulls[attnum - 1] = value == (Datum) 0;
}

static void
to_row(const Record *record, Datum *values, bool *nulls)
{
	memset(nulls, false, NATTS * sizeof(bool));
	values[ATTR_SCOPE - 1] = record->scope;
	values[ATTR_KEY - 1] = record->key;
	values[ATTR_POLICY - 1] = record->policy;
	values[ATTR_ROLE - 1] = ObjectIdGetDatum(record->role);
	values[ATTR_STATE - 1] = Int16GetDatum((int16) record->state);
	values[ATTR_TOKEN - 1] = Int64GetDatum(record->token);
	values[ATTR_ATTEMPT - 1] = Int32GetDatum(record->attempt);
	put_nullable(values, nulls, ATTR_FINGERPRINT, record->fingerprint);
	put_nullable(values, nulls, ATTR_REQUEST_ID, record->request_id);
	put_nullable(values, nulls, ATTR_RECOVERY_POINT, record->recovery_point);
	put_nullable(values, nulls, ATTR_CHECKPOINT, record->checkpoint);
	values[ATTR_RESPONSE_CODE - 1] = Int32GetDatum(record->response_code);
	nulls[ATTR_RESPONSE_CODE - 1] = !record->has_code;
	put_nullable(values, nulls, ATTR_RESPONSE_HEADERS, record->response_headers);
	put_nullable(values, nulls, ATTR_RESPONSE_BODY, record->response_body);
	put_nullable(values, nulls, ATTR_RESPONSE_BYTES, record->response_bytes);
	put_nullable(values, nulls, ATTR_ERROR, record->error);
	values[ATTR_CREATED_AT - 1] = TimestampTzGetDatum(record->created_at);
	values[ATTR_COMPLETED_AT - 1] = TimestampTzGetDatum(record->completed_at);
	nulls[ATTR_COMPLETED_AT - 1] = record->completed_at == 0;
	values[ATTR_RETAIN_UNTIL - 1] = TimestampTzGetDatum(record->retain_until);
	values[ATTR_RETENTION_US - 1] = Int64GetDatum(record->retention_us);
	values[ATTR_TTL_US - 1] = Int64GetDatum(record->ttl_us);
	values[ATTR_EXPIRES_AT - 1] = TimestampTzGetDatum(record->deadline.wall);
	values[ATTR_EXPIRES_BOOT - 1] = Int64GetDatum(record->deadline.boot);
	values[ATTR_CLOCK_ID - 1] = Int64GetDatum(record->deadline.id);
}

static bool
found(RecordStore *store, HeapTuple tuple, Record *record)
{
	store->tuple = tuple;
	if (tuple != NULL)
		from_row(store->rel, tuple, record);
	return tuple != NULL;
}

bool
record_read_latest(RecordStore *store, const NameArg *scope, const NameArg *key, bool durable, Record *record)
{
	Datum		values[2] = {scope->datum, key->datum};
	HeapTuple	tuple = row_read_latest(store->rel, values);

	if (tuple != NULL && durable)
		row_make_durable(tuple);
	return found(store, tuple, record);
}

bool
record_read_locked(RecordStore *store, const NameArg *scope, const NameArg *key, Record *record)
{
	Datum		values[2] = {scope->datum, key->datum};

	return found(store, row_read_locked(store->rel, values), record);
}

void
record_make_durable(RecordStore *store)
{
	row_make_durable(store->tuple);
}

void
record_write(RecordStore *store, const Record *record)
{
	Datum		values[NATTS];
	bool		nulls[NATTS];
	bool		replace[NATTS];

	to_row(record, values, nulls);
	memset(replace, true, sizeof(replace));
	if (store->tuple == NULL)
		row_insert(store->rel, values, nulls);
	else
		row_update(store->rel, store->tuple, values, nulls, replace);
}

void
record_delete(RecordStore *store)
{
	row_delete(store->rel, store->tuple);
}

void
record_visit_all(RecordVisit visit, void *arg)
{
	Relation	rel = row_open_read(TABLE_IDEMPOTENCY_RECORD);
	RowScan    *scan = row_scan_begin(rel, 0, NULL, NULL);
	HeapTuple	tuple;

	while ((tuple = row_scan_next(scan)) != NULL)
	{
		Record		record;

		from_row(rel, tuple, &record);
		if (!visit(&record, arg))
			break;
	}
	row_scan_end(scan);
	row_close(rel);
}

/* ---- expiry ---- */

/* A claim that is still live outlasts its retention. */
static bool
record_dead(Relation rel, HeapTuple tuple, void *arg)
{
	ClockReading now = clock_read();
	Record		record;

	from_row(rel, tuple, &record);
	if (record.retain_until > now.wall)
		return false;
	return record.state != RECORD_STARTED || deadline_left(&record.deadline, &now) <= 0;
}

static void
record_row_tag(Relation rel, HeapTuple tuple, LOCKTAG *tag, void *arg)
{
	NameArg		scope = arg_name_datum(row_get(rel, tuple, ATTR_SCOPE, NULL), "scope", NAME_LONG);
	NameArg		key = arg_name_datum(row_get(rel, tuple, ATTR_KEY, NULL), "key", NAME_LONG);

	record_tag(tag, &scope, &key);
}

void
idempotency_expire(JobSlice *slice)
{
	static const RowSweep sweep = {.dead = record_dead, .tag = record_row_tag};
	Relation	rel = row_open_write(TABLE_IDEMPOTENCY_RECORD, "idempotency_expire()");

	sweep_slice(rel, &sweep, slice);
	row_close(rel);
}
