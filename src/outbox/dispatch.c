/*
 * dispatch.c: handing events to the members of a group: fetch, ack, nack, reject.
 *
 * An ordered group hands its events out in the order of their positions to one
 * member at a time. What is handed out is "in flight" in the group's cursor,
 * under a claim: it ends with its ttl, and at once when the backend that
 * fetched is gone. Another member then gets what was in flight again, with
 * new receipts; the old ones are SD301.
 *
 * The group's key lock (Exclusive) is kept to the end of the transaction by whoever changed the
 * cursor: an ack in the effect's transaction commits with it. fetch does not
 * wait for the lock, ack, nack and reject do.
 *
 * Crash: with an asynchronous commit an ack may be lost; the event is
 * delivered again. Rollback: nothing has happened. Standby: 25006.
 */
#include "postgres.h"

#include <math.h>

#include "access/xact.h"
#include "common/pg_prng.h"
#include "compat.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/datum.h"

#include "core/refusal.h"
#include "core/result.h"
#include "core/stats.h"
#include "outbox/dead_letter.h"
#include "outbox/event.h"
#include "outbox/group.h"
#include "outbox/retry.h"
#include "outbox/topic.h"
#include "store/token.h"

/* What one group may have in flight: the cursor is one row. */
#define MAX_IN_FLIGHT 10000

/* One group, locked, while a call works on it. */
typedef struct GroupWork
{
	NameArg		topic;
	NameArg		group;
	GroupConfig config;
	LOCKTAG		tag;
	Relation	rel;
	HeapTuple	row;
	Cursor		cursor;
} GroupWork;

/* (topic, group_name) */
static void
read_group(FunctionCallInfo fcinfo, GroupWork *work, const char *command)
{
	work->topic = arg_name(fcinfo, 0, "topic", NAME_SHORT);
	work->group = arg_name(fcinfo, 1, "group_name", NAME_SHORT);
	work->rel = row_open_write(TABLE_OUTBOX_CURSOR, command);
	group_get(&work->topic, &work->group, &work->config);
	group_tag(&work->tag, &work->topic, &work->group);
}

static void
read_cursor(GroupWork *work)
{
	work->row = cursor_read_locked(work->rel, &work->topic, &work->group, &work->cursor);
}

static void
write_cursor(GroupWork *work)
{
	cursor_write(work->rel, work->row, &work->topic, &work->group, &work->cursor);
	row_close(work->rel);
}

static void
leave_unchanged(GroupWork *work)
{
	row_close_unwritten(work->rel);
	keylock_release(&work->tag, ExclusiveLock);
}

static void
count(const GroupWork *work, const char *metric, int64 n)
{
	if (n > 0)
		stats_add("outbox", name_cstring(work->topic), metric, n);
}

/* ---- the cursor ---- */

/* Everything below the first event that is still in flight is settled. */
static void
advance_position(Cursor *cursor)
{
	for (int i = 0; i < cursor->nin_flight; i++)
	{
		if (cursor->in_flight[i].position > cursor->position)
		{
			cursor->position = cursor->in_flight[i].position - 1;
			return;
		}
	}
	cursor->position = cursor->fetched;
}

/* ---- fetch ---- */

/* Events on their way to the caller. */
typedef struct Batch
{
	OutboxEvent *events;
	Delivery   *deliveries;		/* receipts are drawn at the end */
	int			n;
	int			max;
} Batch;

static void
batch_add(Batch *batch, const OutboxEvent *event, int32 attempt, bool retried)
{
	Delivery   *delivery = &batch->deliveries[batch->n];

	batch->events[batch->n] = *event;
	delivery->receipt = 0;
	delivery->position = event_position(event);
	delivery->attempt = attempt;
	delivery->retried = retried;
	batch->n++;
}

/* A fetch that looks for retries. */
typedef struct RetrySearch
{
	const GroupWork *work;
	const Batch *batch;			/* what it has taken over: some of it from outbox_retry, where it still is */
} RetrySearch;

/* Retries that this fetch passes over. */
static bool
not_for_caller(int64 position, void *arg)
{
	const RetrySearch *search = (const RetrySearch *) arg;
	const Cursor *cursor = &search->work->cursor;

	return deliveries_have(cursor->in_flight, cursor->nin_flight, position) ||
		deliveries_have(search->batch->deliveries, search->batch->n, position) ||
		event_hidden_from_caller(search->work->topic.datum, position);
}

/* Does somebody hold a live claim? */
static bool
claimed(const Cursor *cursor, const ClockReading *now)
{
	return cursor->nin_flight > 0 && deadline_left(&cursor->deadline, now) > 0 &&
		BackendPidGetProc(cursor->pid) != NULL;
}

static bool
read_delivery(GroupWork *work, const Delivery *delivery, OutboxEvent *event)
{
	if (delivery->retried)
		return retry_read(&work->topic, &work->group, delivery->position, event);
	return event_read(work->topic.datum, delivery->position, event);
}

/*
 * Hands out again what was in flight under a lost claim, as far as the batch
 * goes; the rest follows with the next fetch. An event that has used up its
 * attempts this way kills its consumers, and goes to the dead letters.
 */
static void
take_over(GroupWork *work, Batch *batch, bool lost)
{
	Cursor	   *cursor = &work->cursor;
	int			kept = 0;

	for (int i = 0; i < cursor->nin_flight; i++)
	{
		Delivery	delivery = cursor->in_flight[i];
		OutboxEvent event;

		if (batch->n == batch->max || !(lost || delivery.receipt < cursor->claim_base) ||
			event_hidden_from_caller(work->topic.datum, delivery.position))
		{
			cursor->in_flight[kept++] = delivery;
			continue;
		}
		if (!read_delivery(work, &delivery, &event))
			continue;
		if (delivery.attempt < work->config.max_attempts)
			batch_add(batch, &event, delivery.attempt + 1, delivery.retried);
		else
		{
			dead_letter_put(&work->group, &event, delivery.attempt,
							CStringGetTextDatum("the claim was lost at every attempt"));
			if (delivery.retried)
				retry_delete(&work->topic, &work->group, delivery.position);
		}
	}
	cursor->nin_flight = kept;
}

static void
add_retries(GroupWork *work, Batch *batch, TimestampTz now)
{
	RetrySearch search = {work, batch};
	int			max = batch->max - batch->n;
	RetryEntry *entries;
	int			n;

	if (max == 0)
		return;
	entries = palloc(max * sizeof(RetryEntry));
	n = retry_due(&work->topic, &work->group, now, max, not_for_caller, &search, entries);
	for (int i = 0; i < n; i++)
		batch_add(batch, &entries[i].event, entries[i].attempts + 1, true);
}

/* New events after what was fetched, up to the settled bound. */
static void
add_new_events(GroupWork *work, Batch *batch, int64 bound)
{
	Relation	rel;
	RowScan    *scan;
	HeapTuple	row;

	if (batch->n == batch->max || work->cursor.fetched >= bound)
		return;
	rel = row_open_read(TABLE_OUTBOX_EVENT);
	scan = row_scan_begin(rel, 1, &work->topic.datum, &work->cursor.fetched);
	while (batch->n < batch->max && (row = row_scan_next(scan)) != NULL)
	{
		OutboxEvent event;

		row = heap_copytuple(row);	/* outlives the scan */
		event_from_row(rel, row, 1, &event);
		if (event_position(&event) > bound || !row_scan_caller_sees(scan))
			break;
		row_make_durable(row);
		batch_add(batch, &event, 1, false);
		work->cursor.fetched = event_position(&event);
	}
	row_scan_end(scan);
	row_close(rel);
}

static int
compare_positions(const void *a, const void *b)
{
	int64		pa = ((const Delivery *) a)->position;
	int64		pb = ((const Delivery *) b)->position;

	return pa < pb ? -1 : pa > pb;
}

/*
 * The ttl runs for the receipts up to ttl_through, and anew for the others
 * when those are settled. So fetching more and more does not keep an event in
 * flight that its member has lost sight of. What the present claim has taken over
 * and not handed out yet (receipts below claim_base) does not count: its member cannot settle it.
 */
static bool
ttl_runs(const Cursor *cursor)
{
	for (int i = 0; i < cursor->nin_flight; i++)
	{
		if (cursor->in_flight[i].receipt >= cursor->claim_base && cursor->in_flight[i].receipt <= cursor->ttl_through)
			return true;
	}
	return false;
}

static void
start_ttl(GroupWork *work, const ClockReading *now)
{
	work->cursor.ttl_through = work->cursor.receipt_last;
	work->cursor.deadline = deadline_after(now, work->config.ttl_us);
}

/* Gives the batch its receipts and puts it in flight under this caller's claim. */
static void
claim_batch(GroupWork *work, Batch *batch, const NameArg *member, bool new_claim, const ClockReading *now)
{
	Cursor	   *cursor = &work->cursor;
	int64		receipt = batch->n > 0 ? receipt_draw(batch->n) : cursor->receipt_last + 1;
	bool		new_ttl = new_claim || !ttl_runs(cursor);
	Delivery   *all = palloc((cursor->nin_flight + batch->n + 1) * sizeof(Delivery));

	for (int i = 0; i < batch->n; i++)
		batch->deliveries[i].receipt = receipt + i;
	if (cursor->nin_flight > 0)
		memcpy(all, cursor->in_flight, cursor->nin_flight * sizeof(Delivery));
	memcpy(all + cursor->nin_flight, batch->deliveries, batch->n * sizeof(Delivery));
	cursor->in_flight = all;
	cursor->nin_flight += batch->n;
	qsort(all, cursor->nin_flight, sizeof(Delivery), compare_positions);

	if (new_claim)
	{
		cursor->epoch++;
		cursor->claim_base = receipt;
	}
	if (batch->n > 0)
		cursor->receipt_last = receipt + batch->n - 1;
	cursor->member = member->datum;
	cursor->pid = MyProcPid;
	if (new_ttl)
		start_ttl(work, now);
}

static void
put_batch(FunctionCallInfo fcinfo, const GroupWork *work, const Batch *batch)
{
	for (int i = 0; i < batch->n; i++)
	{
		Datum		values[EVENT_NOUT + 3];
		bool		nulls[EVENT_NOUT + 3] = {false};

		event_columns(&batch->events[i], values, nulls);
		values[EVENT_NOUT] = Int32GetDatum(batch->deliveries[i].attempt);
		values[EVENT_NOUT + 1] = Int64GetDatum(batch->deliveries[i].receipt);
		values[EVENT_NOUT + 2] = Int64GetDatum(work->cursor.epoch);
		result_put(fcinfo, values, nulls);
	}
}

static bool
same_member(const Cursor *cursor, const NameArg *member)
{
	return cursor->member != (Datum) 0 && datum_image_eq(cursor->member, member->datum, false, -1);
}

/* Under the lock. Returns false when nothing has changed. */
static bool
fetch_locked(GroupWork *work, const NameArg *member, int32 max_events, int64 bound, Batch *batch)
{
	ClockReading now = clock_read();
	bool		live = claimed(&work->cursor, &now);
	bool		lost = work->cursor.nin_flight > 0 && !live;
	bool		new_claim = lost || !same_member(&work->cursor, member);
	int			before = work->cursor.nin_flight;

	if (live && new_claim)
		return false;			/* somebody else's */
	/* somebody used the group since the transaction's snapshot, which does not see the effects of his events: the next transaction gets it */
	if (IsolationUsesXactSnapshot() && row_written_after_snapshot(work->row))
		return false;
	batch->max = Min(max_events, MAX_IN_FLIGHT - (lost ? 0 : work->cursor.nin_flight));
	batch->events = palloc(Max(batch->max, 1) * sizeof(OutboxEvent));
	batch->deliveries = palloc(Max(batch->max, 1) * sizeof(Delivery));
	take_over(work, batch, lost);
	add_retries(work, batch, now.wall);
	add_new_events(work, batch, bound);
	if (batch->n == 0 && work->cursor.nin_flight == before)
		return false;
	claim_batch(work, batch, member, new_claim, &now);
	advance_position(&work->cursor);
	return true;
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_outbox_fetch);

Datum
distsys_outbox_fetch(PG_FUNCTION_ARGS)
{
	GroupWork	work;
	NameArg		member = arg_name(fcinfo, 2, "member", NAME_SHORT);
	int32		max_events = arg_int32(fcinfo, 3, "max_events", 1, PG_INT32_MAX);
	Batch		batch = {0};
	int64		bound;

	read_group(fcinfo, &work, "outbox_fetch()");
	result_begin_set(fcinfo);
	bound = sequencer_settle();
	if (!keylock_try(&work.tag, ExclusiveLock))
	{
		row_close_unwritten(work.rel);
		return (Datum) 0;
	}
	read_cursor(&work);
	if (!fetch_locked(&work, &member, max_events, bound, &batch))
	{
		leave_unchanged(&work);
		return (Datum) 0;
	}
	write_cursor(&work);
	sequencer_record(bound);
	put_batch(fcinfo, &work, &batch);
	count(&work, "fetched", batch.n);
	return (Datum) 0;
}

/* ---- ack, nack, reject ---- */

static void
raise_not_held(const GroupWork *work, int64 receipt)
{
	ereport(ERROR,
			(errcode_sd(ERRCODE_SD_DELIVERY_NOT_HELD),
			 errmsg("receipt %lld of group \"%s\" is not held", (long long) receipt, name_cstring(work->group)),
			 errdetail("Its claim was lost: the ttl has passed or the connection has ended, and the event was handed out again."),
			 errhint("Roll back the effect of the event.")));
}

/* (topic, group_name, receipts): locks the group and reads its cursor. */
static int64 *
open_deliveries(FunctionCallInfo fcinfo, GroupWork *work, const char *command, int *n)
{
	int64	   *receipts = arg_int64_array(fcinfo, 2, "receipts", 1, PG_INT64_MAX, n);

	read_group(fcinfo, work, command);
	(void) keylock_wait(&work->tag, ExclusiveLock, KEYLOCK_FOR_EVER);
	read_cursor(work);
	return receipts;
}

/*
 * The delivery of a receipt: its index in the in-flight list, or -1 when this
 * claim has settled it already. SD301 for receipts of other claims.
 */
static int
find_delivery(const GroupWork *work, int64 receipt)
{
	const Cursor *cursor = &work->cursor;

	for (int i = 0; i < cursor->nin_flight; i++)
	{
		if (cursor->in_flight[i].receipt == receipt)
			return receipt >= cursor->claim_base ? i : (raise_not_held(work, receipt), -1);
	}
	if (receipt < cursor->claim_base || receipt > cursor->receipt_last)
		raise_not_held(work, receipt);
	return -1;
}

static void
remove_delivery(Cursor *cursor, int index)
{
	memmove(&cursor->in_flight[index], &cursor->in_flight[index + 1],
			(cursor->nin_flight - index - 1) * sizeof(Delivery));
	cursor->nin_flight--;
}

static void
close_deliveries(GroupWork *work, int64 settled)
{
	if (settled == 0)
	{
		leave_unchanged(work);
		return;
	}
	if (!ttl_runs(&work->cursor))
	{
		ClockReading now = clock_read();

		start_ttl(work, &now);
	}
	advance_position(&work->cursor);
	write_cursor(work);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_outbox_ack);

Datum
distsys_outbox_ack(PG_FUNCTION_ARGS)
{
	GroupWork	work;
	int			n;
	int64	   *receipts = open_deliveries(fcinfo, &work, "outbox_ack()", &n);
	int32		acked = 0;

	for (int i = 0; i < n; i++)
	{
		int			index = find_delivery(&work, receipts[i]);

		if (index < 0)
			continue;
		if (work.cursor.in_flight[index].retried)
			retry_delete(&work.topic, &work.group, work.cursor.in_flight[index].position);
		remove_delivery(&work.cursor, index);
		acked++;
	}
	close_deliveries(&work, acked);
	count(&work, "acked", acked);
	PG_RETURN_INT32(acked);
}

/* Takes a delivery out of flight into the dead letters. */
static void
bury(GroupWork *work, int index, Datum reason)
{
	Delivery	delivery = work->cursor.in_flight[index];
	OutboxEvent event;

	if (read_delivery(work, &delivery, &event))
		dead_letter_put(&work->group, &event, delivery.attempt, reason);
	if (delivery.retried)
		retry_delete(&work->topic, &work->group, delivery.position);
	remove_delivery(&work->cursor, index);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_outbox_reject);

Datum
distsys_outbox_reject(PG_FUNCTION_ARGS)
{
	GroupWork	work;
	int			n;
	int64	   *receipts = open_deliveries(fcinfo, &work, "outbox_reject()", &n);
	NameArg		reason;
	Datum		reason_datum = arg_text(fcinfo, 3, "reason", 0, &reason) ? reason.datum : (Datum) 0;
	int32		rejected = 0;

	for (int i = 0; i < n; i++)
	{
		int			index = find_delivery(&work, receipts[i]);

		if (index < 0)
			continue;
		bury(&work, index, reason_datum);
		rejected++;
	}
	close_deliveries(&work, rejected);
	PG_RETURN_INT32(rejected);
}

/* Exponential with full jitter: random() * least(cap, base * 2^(attempt - 1)). */
static int64
backoff_us(const GroupConfig *config, int32 attempt)
{
	double		backoff = (double) config->backoff_base_us * pow(2.0, Min(attempt - 1, 62));

	return (int64) (pg_prng_double(&pg_global_prng_state) * Min(backoff, (double) config->backoff_cap_us));
}

/* Takes a delivery out of flight into outbox_retry. */
static void
postpone(GroupWork *work, int index, int64 delay_us, Datum reason)
{
	Delivery	delivery = work->cursor.in_flight[index];
	OutboxEvent event;

	if (read_delivery(work, &delivery, &event))
		retry_put(&work->group, &event, delivery.attempt, clock_wall() + delay_us, reason);
	remove_delivery(&work->cursor, index);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_outbox_nack);

/* SETOF (receipt, outcome) */
Datum
distsys_outbox_nack(PG_FUNCTION_ARGS)
{
	GroupWork	work;
	int			n;
	int64		delay_us = PG_ARGISNULL(3) ? -1 :
		arg_interval(fcinfo, 3, "delay", 0, INT64CONST(365) * 24 * 60 * 60 * SECONDS, NULL);
	NameArg		reason;
	Datum		reason_datum = arg_text(fcinfo, 4, "reason", 0, &reason) ? reason.datum : (Datum) 0;
	int64	   *receipts = open_deliveries(fcinfo, &work, "outbox_nack()", &n);
	int64		settled = 0;

	result_begin_set(fcinfo);
	for (int i = 0; i < n; i++)
	{
		int			index = find_delivery(&work, receipts[i]);
		Datum		values[2];
		bool		nulls[2] = {false};
		int32		attempt;
		bool		dead;

		if (index < 0)
			continue;
		attempt = work.cursor.in_flight[index].attempt;
		dead = attempt >= work.config.max_attempts;
		if (dead)
			bury(&work, index, reason_datum);
		else
			postpone(&work, index, delay_us >= 0 ? delay_us : backoff_us(&work.config, attempt), reason_datum);
		values[0] = Int64GetDatum(receipts[i]);
		values[1] = CStringGetTextDatum(dead ? "dead" : "retry");
		result_put(fcinfo, values, nulls);
		settled++;
	}
	close_deliveries(&work, settled);
	count(&work, "nacked", settled);
	return (Datum) 0;
}
