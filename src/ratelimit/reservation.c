/*
 * reservation.c: what was reserved ahead, see reservation.h.
 *
 * A row is written and deleted by whoever holds the key lock of its limit.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "compat.h"
#include "utils/builtins.h"

#include "core/clock.h"
#include "core/counter.h"
#include "core/guc.h"
#include "core/keylock.h"
#include "core/refusal.h"
#include "ratelimit/reservation.h"
#include "ratelimit/shared.h"
#include "store/row.h"

enum
{
	ATTR_RESERVATION = 1,
	ATTR_POLICY,
	ATTR_KEY,
	ATTR_COST,
	ATTR_ACT_AT,
	NATTS = ATTR_ACT_AT
};

/* A number that was seen is never given to another, over a crash as well: it cancels without more proof. */
static int64
draw_number(void)
{
	XLogRecPtr	lsn;
	int64		number = counter_draw(catalog_relid(SEQUENCE_RESERVATION), 1, &lsn);

	XLogFlush(lsn);
	return number * 2;
}

void
reservation_insert(RateTake *take)
{
	Relation	rel = row_open_write(TABLE_RATE_LIMIT_RESERVATION, "rate_limit_reserve()");
	Datum		values[NATTS];
	bool		nulls[NATTS] = {false};

	take->reservation = draw_number();
	values[ATTR_RESERVATION - 1] = Int64GetDatum(take->reservation);
	values[ATTR_POLICY - 1] = take->policy.datum;
	values[ATTR_KEY - 1] = take->key.datum;
	values[ATTR_COST - 1] = Int64GetDatum(take->cost);
	values[ATTR_ACT_AT - 1] = TimestampTzGetDatum(take->decided_at + take->delay_us);
	row_insert(rel, values, nulls);
	row_close(rel);
}

static void
read_request(Relation rel, HeapTuple row, RateTake *take)
{
	memset(take, 0, sizeof(*take));
	take->verb = RATE_CANCEL;
	take->policy = arg_name_datum(row_get(rel, row, ATTR_POLICY, NULL), "policy", NAME_SHORT);
	take->key = arg_name_datum(row_get(rel, row, ATTR_KEY, NULL), "key", NAME_LONG);
	take->cost = DatumGetInt64(row_get(rel, row, ATTR_COST, NULL));
	take->act_at = DatumGetTimestampTz(row_get(rel, row, ATTR_ACT_AT, NULL));
}

static void
tag_of(const RateTake *take, LOCKTAG *tag)
{
	keylock_tag2(tag, KEYLOCK_RATE_BUCKET, take->policy.data, take->policy.len, take->key.data, take->key.len);
}

/* Is it still there, now that its key is locked? */
static HeapTuple
lock_reservation(Relation rel, int64 reservation, RateTake *take, LOCKTAG *tag)
{
	Datum		key = Int64GetDatum(reservation);
	HeapTuple	row = row_read_latest(rel, &key);

	if (row == NULL)
		return NULL;
	read_request(rel, row, take);
	tag_of(take, tag);
	if (!keylock_wait(tag, ExclusiveLock, (int64) guc_max_function_wait * MILLISECONDS))
		ereport(ERROR,
				(errcode_sd(ERRCODE_SD_LIMITER_UNAVAILABLE),
				 errmsg("rate limit \"%s\" is held by another transaction", name_cstring(take->policy)),
				 errhint("Retry the call.")));
	row = row_read_locked(rel, &key);
	if (row == NULL)
		keylock_release(tag, ExclusiveLock);
	return row;
}

static int64
cancel_durable(int64 reservation)
{
	Relation	rel = row_open_write(TABLE_RATE_LIMIT_RESERVATION, "rate_limit_cancel()");
	RateTake	take;
	LOCKTAG		tag;
	HeapTuple	row = lock_reservation(rel, reservation, &take, &tag);

	if (row == NULL)
	{
		row_close_unwritten(rel);
		return 0;
	}
	row_delete(rel, row);
	row_close(rel);
	if (take.act_at <= clock_wall())
		return 0;
	limiter_take(&take, 1);
	return take.reason == RATE_OK ? take.granted : 0;
}

int64
reservation_cancel(int64 reservation)
{
	if (reservation % 2 == 0)
		return cancel_durable(reservation);
	shared_require();
	return shared_cancel(reservation);
}

/* ---- housekeeping ---- */

static bool
has_acted(Relation rel, HeapTuple row, void *arg)
{
	return DatumGetTimestampTz(row_get(rel, row, ATTR_ACT_AT, NULL)) <= *(TimestampTz *) arg;
}

static void
sweep_tag(Relation rel, HeapTuple row, LOCKTAG *tag, void *arg)
{
	RateTake	take;

	read_request(rel, row, &take);
	tag_of(&take, tag);
}

void
rate_limit_reservation_sweep(JobSlice *slice)
{
	TimestampTz now = clock_wall();
	RowSweep	sweep = {.dead = has_acted, .tag = sweep_tag, .arg = &now};
	Relation	rel = row_open_write(TABLE_RATE_LIMIT_RESERVATION, "rate_limit_reservation_sweep()");

	sweep_slice(rel, &sweep, slice);
	row_close(rel);
}
