/*
 * group.c: consumer groups: an ordinary table for what is configured, one hot
 * row per group for where it is.
 *
 * Writers of the cursor hold the group's key lock (KEYLOCK_OUTBOX_GROUP,
 * Exclusive). One update per fetch and one per acknowledgement, however many
 * events it is about.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "compat.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "outbox/dead_letter.h"
#include "outbox/event.h"
#include "outbox/group.h"
#include "outbox/retry.h"
#include "outbox/topic.h"
#include "store/config.h"
#include "store/sequencer.h"
#include "store/token.h"

/* Columns of outbox_group */
enum
{
	GROUP_TOPIC = 1,
	GROUP_NAME,
	GROUP_MODE,
	GROUP_PARTITIONS,
	GROUP_TTL,
	GROUP_MAX_ATTEMPTS,
	GROUP_BACKOFF_BASE,
	GROUP_BACKOFF_CAP,
	GROUP_ON_FAILURE,
	GROUP_NATTS = GROUP_ON_FAILURE
};

/* Columns of outbox_cursor */
enum
{
	CURSOR_TOPIC = 1,
	CURSOR_GROUP,
	CURSOR_POSITION,
	CURSOR_FETCHED,
	CURSOR_EPOCH,
	CURSOR_MEMBER,
	CURSOR_PID,
	CURSOR_CLAIM_BASE,
	CURSOR_RECEIPT_LAST,
	CURSOR_TTL_THROUGH,
	CURSOR_EXPIRES_AT,
	CURSOR_EXPIRES_BOOT,
	CURSOR_CLOCK_ID,
	CURSOR_RECEIPTS,
	CURSOR_POSITIONS,
	CURSOR_ATTEMPTS,
	CURSOR_RETRIED,
	CURSOR_NATTS = CURSOR_RETRIED
};

#define TTL_MIN (100 * MILLISECONDS)
#define TTL_MAX (24 * 60 * 60 * SECONDS)
#define BACKOFF_MAX (INT64CONST(30) * 24 * 60 * 60 * SECONDS)

static const char *const modes[] = {"ordered", "shared", NULL};
static const char *const failures[] = {"skip", "block", "stop", NULL};
static const char *const options[] = {"ttl", "max_attempts", "backoff_base", "backoff_cap", "on_failure"};

static ConfigCache *cache = NULL;

/* ---- configuration ---- */

static int64
interval_column(Relation rel, HeapTuple tuple, int column, int64 max_us)
{
	return interval_to_us(DatumGetIntervalP(row_get(rel, tuple, column, NULL)), "interval", 0, max_us, NULL);
}

static void
load(void *entry, Relation rel, HeapTuple tuple)
{
	GroupConfig *config = (GroupConfig *) entry;

	config->ttl_us = interval_column(rel, tuple, GROUP_TTL, TTL_MAX);
	config->max_attempts = DatumGetInt32(row_get(rel, tuple, GROUP_MAX_ATTEMPTS, NULL));
	config->backoff_base_us = interval_column(rel, tuple, GROUP_BACKOFF_BASE, BACKOFF_MAX);
	config->backoff_cap_us = interval_column(rel, tuple, GROUP_BACKOFF_CAP, BACKOFF_MAX);
}

static void
raise_unknown(const NameArg *topic, const NameArg *group)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("group \"%s\" of outbox topic \"%s\" does not exist", name_cstring(*group), name_cstring(*topic)),
			 errhint("Create it: SELECT distsys.outbox_group_create(%s, %s);",
					 quote_literal_cstr(name_cstring(*topic)), quote_literal_cstr(name_cstring(*group)))));
}

void
group_get(const NameArg *topic, const NameArg *group, GroupConfig *config)
{
	if (cache == NULL)
		cache = config_cache_create(TABLE_OUTBOX_GROUP, sizeof(GroupConfig), load);
	if (config_get(cache, topic, group, config))
		return;
	topic_check(topic);
	raise_unknown(topic, group);
}

bool
group_exists_on(const NameArg *topic)
{
	Relation	rel = row_open_read(TABLE_OUTBOX_GROUP);
	RowScan    *scan = row_scan_begin(rel, 1, &topic->datum, NULL);
	bool		found = row_scan_next(scan) != NULL;

	row_scan_end(scan);
	row_close(rel);
	return found;
}

void
group_tag(LOCKTAG *tag, const NameArg *topic, const NameArg *group)
{
	keylock_tag2(tag, KEYLOCK_OUTBOX_GROUP, topic->data, topic->len, group->data, group->len);
}

/* ---- the cursor ---- */

static int64 *
int64_elements(Datum array, int *n)
{
	ArrayType  *a = DatumGetArrayTypeP(array);

	*n = ArrayGetNItems(ARR_NDIM(a), ARR_DIMS(a));
	return (int64 *) ARR_DATA_PTR(a);
}

static void
unpack_in_flight(const Datum *values, Cursor *cursor)
{
	int			n;
	int			nretried;
	int64	   *receipts = int64_elements(values[CURSOR_RECEIPTS - 1], &n);
	int64	   *positions = int64_elements(values[CURSOR_POSITIONS - 1], &n);
	int64	   *attempts = int64_elements(values[CURSOR_ATTEMPTS - 1], &n);
	int64	   *retried = int64_elements(values[CURSOR_RETRIED - 1], &nretried);

	cursor->nin_flight = n;
	cursor->in_flight = palloc(Max(n, 1) * sizeof(Delivery));
	for (int i = 0, r = 0; i < n; i++)
	{
		cursor->in_flight[i].receipt = receipts[i];
		cursor->in_flight[i].position = positions[i];
		cursor->in_flight[i].attempt = (int32) attempts[i];
		/* both lists are in the order of positions */
		while (r < nretried && retried[r] < positions[i])
			r++;
		cursor->in_flight[i].retried = r < nretried && retried[r] == positions[i];
	}
}

HeapTuple
cursor_read_locked(Relation rel, const NameArg *topic, const NameArg *group, Cursor *cursor)
{
	Datum		key[2] = {topic->datum, group->datum};
	HeapTuple	row = row_read_locked(rel, key);
	Datum		values[CURSOR_NATTS];
	bool		nulls[CURSOR_NATTS];

	if (row == NULL)
		raise_unknown(topic, group);
	heap_deform_tuple(row, RelationGetDescr(rel), values, nulls);
	cursor->position = DatumGetInt64(values[CURSOR_POSITION - 1]);
	cursor->fetched = DatumGetInt64(values[CURSOR_FETCHED - 1]);
	cursor->epoch = DatumGetInt64(values[CURSOR_EPOCH - 1]);
	cursor->member = nulls[CURSOR_MEMBER - 1] ? (Datum) 0 : values[CURSOR_MEMBER - 1];
	cursor->pid = DatumGetInt32(values[CURSOR_PID - 1]);
	cursor->claim_base = DatumGetInt64(values[CURSOR_CLAIM_BASE - 1]);
	cursor->receipt_last = DatumGetInt64(values[CURSOR_RECEIPT_LAST - 1]);
	cursor->ttl_through = DatumGetInt64(values[CURSOR_TTL_THROUGH - 1]);
	cursor->deadline.wall = DatumGetTimestampTz(values[CURSOR_EXPIRES_AT - 1]);
	cursor->deadline.boot = DatumGetInt64(values[CURSOR_EXPIRES_BOOT - 1]);
	cursor->deadline.id = DatumGetInt64(values[CURSOR_CLOCK_ID - 1]);
	unpack_in_flight(values, cursor);
	return row;
}

static Datum
int64_array(const Datum *elements, int n)
{
	return PointerGetDatum(construct_array((Datum *) elements, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

static void
pack_in_flight(const Cursor *cursor, Datum *values)
{
	int			n = cursor->nin_flight;
	Datum	   *elements = palloc(Max(n, 1) * sizeof(Datum));
	int			nretried = 0;

	for (int i = 0; i < n; i++)
		elements[i] = Int64GetDatum(cursor->in_flight[i].receipt);
	values[CURSOR_RECEIPTS - 1] = int64_array(elements, n);
	for (int i = 0; i < n; i++)
		elements[i] = Int64GetDatum(cursor->in_flight[i].position);
	values[CURSOR_POSITIONS - 1] = int64_array(elements, n);
	for (int i = 0; i < n; i++)
		elements[i] = Int64GetDatum((int64) cursor->in_flight[i].attempt);
	values[CURSOR_ATTEMPTS - 1] = int64_array(elements, n);
	for (int i = 0; i < n; i++)
	{
		if (cursor->in_flight[i].retried)
			elements[nretried++] = Int64GetDatum(cursor->in_flight[i].position);
	}
	values[CURSOR_RETRIED - 1] = int64_array(elements, nretried);
}

/* old NULL: a new row. */
void
cursor_write(Relation rel, HeapTuple old, const NameArg *topic, const NameArg *group, const Cursor *cursor)
{
	Datum		values[CURSOR_NATTS];
	bool		nulls[CURSOR_NATTS] = {false};
	bool		replace[CURSOR_NATTS];

	values[CURSOR_TOPIC - 1] = topic->datum;
	values[CURSOR_GROUP - 1] = group->datum;
	values[CURSOR_POSITION - 1] = Int64GetDatum(cursor->position);
	values[CURSOR_FETCHED - 1] = Int64GetDatum(cursor->fetched);
	values[CURSOR_EPOCH - 1] = Int64GetDatum(cursor->epoch);
	values[CURSOR_MEMBER - 1] = cursor->member;
	nulls[CURSOR_MEMBER - 1] = cursor->member == (Datum) 0;
	values[CURSOR_PID - 1] = Int32GetDatum(cursor->pid);
	values[CURSOR_CLAIM_BASE - 1] = Int64GetDatum(cursor->claim_base);
	values[CURSOR_RECEIPT_LAST - 1] = Int64GetDatum(cursor->receipt_last);
	values[CURSOR_TTL_THROUGH - 1] = Int64GetDatum(cursor->ttl_through);
	values[CURSOR_EXPIRES_AT - 1] = TimestampTzGetDatum(cursor->deadline.wall);
	values[CURSOR_EXPIRES_BOOT - 1] = Int64GetDatum(cursor->deadline.boot);
	values[CURSOR_CLOCK_ID - 1] = Int64GetDatum(cursor->deadline.id);
	pack_in_flight(cursor, values);

	memset(replace, true, sizeof(replace));
	if (old == NULL)
		row_insert(rel, values, nulls);
	else
		row_update(rel, old, values, nulls, replace);
}

bool
deliveries_have(const Delivery *deliveries, int n, int64 position)
{
	int			low = 0;
	int			high = n;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (deliveries[middle].position < position)
			low = middle + 1;
		else
			high = middle;
	}
	return low < n && deliveries[low].position == position;
}

int64
cursor_lowest(const NameArg *topic)
{
	Relation	rel = row_open_read(TABLE_OUTBOX_CURSOR);
	RowScan    *scan = row_scan_begin(rel, 1, &topic->datum, NULL);
	int64		lowest = PG_INT64_MAX;
	HeapTuple	row;

	while ((row = row_scan_next(scan)) != NULL)
		lowest = at_most(lowest, DatumGetInt64(row_get(rel, row, CURSOR_POSITION, NULL)) + 1);
	row_scan_end(scan);
	row_close(rel);
	return lowest;
}

/* ---- where to start ---- */

/* The position before the first event that happened at `at` or later. Reads the topic from its beginning. */
static int64
position_before(const NameArg *topic, TimestampTz at)
{
	Relation	rel = row_open_read(TABLE_OUTBOX_EVENT);
	int64		bound = sequencer_settle();
	int64		position = topic_removed_through(topic);
	RowScan    *scan = row_scan_begin(rel, 1, &topic->datum, &position);
	HeapTuple	row;

	while ((row = row_scan_next(scan)) != NULL)
	{
		int64		next = DatumGetInt64(row_get(rel, row, EVENT_POSITION, NULL));

		if (next > bound || DatumGetTimestampTz(row_get(rel, row, EVENT_OCCURRED_AT, NULL)) >= at)
			break;
		position = next;
	}
	row_scan_end(scan);
	row_close(rel);
	return position;
}

/* earliest | latest | a position | a timestamp -> the position after which the group reads */
static int64
parse_start(FunctionCallInfo fcinfo, int argno, const NameArg *topic)
{
	NameArg		start = arg_name(fcinfo, argno, "start_from", NAME_SHORT);
	char	   *word = name_cstring(start);

	if (strcmp(word, "earliest") == 0)
		return topic_removed_through(topic);
	if (strcmp(word, "latest") == 0)
		return sequencer_settle();
	if (strspn(word, "0123456789") == strlen(word))
	{
		int64		position = DatumGetInt64(DirectFunctionCall1(int8in, CStringGetDatum(word)));

		/* the group would wait in silence for positions to come that far, and retention would not wait for the group */
		if (position > position_head())
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("position %lld is above all that were given out", (long long) position),
					 errhint("To start with what is published from now on use 'latest'. For positions of another database raise those of this one first with distsys.token_advance().")));
		return at_least(position, topic_check_retained(topic, position));
	}
	/* a timestamp may begin with a day's name, depending on DateStyle */
	if (word[0] == '-' || strpbrk(word, "0123456789") == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("start_from \"%s\" is unknown", word),
				 errhint("Known: earliest, latest, a position, a timestamp.")));
	return position_before(topic, DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in, CStringGetDatum(word),
																		  ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1))));
}

/* ---- SQL ---- */

static HeapTuple
lock_group(Relation rel, const NameArg *topic, const NameArg *group)
{
	Datum		key[2] = {topic->datum, group->datum};

	topic_lock(topic);
	return row_read_locked(rel, key);
}

/* Arguments `first` .. : ttl, max_attempts, backoff_base, backoff_cap, on_failure; a NULL is "not given". */
static void
read_options(FunctionCallInfo fcinfo, int first, Datum *values, bool *nulls, bool *given)
{
	for (int i = 0; i < lengthof(options); i++)
	{
		int			column = GROUP_TTL + i;

		given[column - 1] = !PG_ARGISNULL(first + i);
		nulls[column - 1] = !given[column - 1];
		values[column - 1] = PG_GETARG_DATUM(first + i);
	}
	if (given[GROUP_TTL - 1])
		(void) arg_interval(fcinfo, first, "ttl", TTL_MIN, TTL_MAX,
							"A bare number is seconds; write '30 s' or make_interval(secs => 30).");
	if (given[GROUP_MAX_ATTEMPTS - 1])
		(void) arg_int32(fcinfo, first + 1, "max_attempts", 1, PG_INT32_MAX);
	if (given[GROUP_BACKOFF_BASE - 1])
		(void) arg_interval(fcinfo, first + 2, "backoff_base", 0, BACKOFF_MAX, NULL);
	if (given[GROUP_BACKOFF_CAP - 1])
		(void) arg_interval(fcinfo, first + 3, "backoff_cap", 0, BACKOFF_MAX, NULL);
	if (given[GROUP_ON_FAILURE - 1] && arg_word(fcinfo, first + 4, "on_failure", failures) != 0)
		arg_not_built("on_failure 'block' or 'stop'", "Use on_failure => 'skip'.");
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_outbox_group_create);

/* (topic, group_name, mode, start_from, partitions, ttl, max_attempts, backoff_base, backoff_cap, on_failure, if_not_exists) */
Datum
distsys_outbox_group_create(PG_FUNCTION_ARGS)
{
	NameArg		topic = arg_name(fcinfo, 0, "topic", NAME_SHORT);
	NameArg		group = arg_name(fcinfo, 1, "group_name", NAME_SHORT);
	bool		if_not_exists = arg_bool(fcinfo, 10, "if_not_exists");
	Datum		values[GROUP_NATTS];
	bool		nulls[GROUP_NATTS] = {false};
	bool		given[GROUP_NATTS] = {false};
	Cursor		cursor = {0};
	Relation	rel;
	Relation	cursors;
	bool		exists;

	if (arg_word(fcinfo, 2, "mode", modes) != 0)
		arg_not_built("mode 'shared'", "Use mode => 'ordered'.");
	if (arg_int32(fcinfo, 4, "partitions", 1, 1024) != 1)
		arg_not_built("more than one partition", "Use partitions => 1.");
	for (int i = 0; i < lengthof(options); i++)
		arg_not_null(fcinfo, 5 + i, options[i]);
	read_options(fcinfo, 5, values, nulls, given);
	values[GROUP_TOPIC - 1] = topic.datum;
	values[GROUP_NAME - 1] = group.datum;
	values[GROUP_MODE - 1] = PG_GETARG_DATUM(2);
	values[GROUP_PARTITIONS - 1] = PG_GETARG_DATUM(4);

	rel = row_open_write(TABLE_OUTBOX_GROUP, "outbox_group_create()");
	cursors = row_open_write(TABLE_OUTBOX_CURSOR, "outbox_group_create()");
	topic_check(&topic);
	exists = lock_group(rel, &topic, &group) != NULL;
	topic_check(&topic);		/* it may have been dropped while we waited */
	if (exists)
	{
		if (!if_not_exists)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("group \"%s\" of outbox topic \"%s\" already exists", name_cstring(group), name_cstring(topic)),
					 errhint("Use if_not_exists => true, or outbox_group_alter().")));
		row_close_unwritten(cursors);
		row_close_unwritten(rel);
		topic_unlock(&topic);	/* a consumer that makes sure of its group may stay in its transaction for long */
		PG_RETURN_BOOL(false);
	}
	cursor.position = cursor.fetched = parse_start(fcinfo, 3, &topic);
	cursor.in_flight = palloc(sizeof(Delivery));
	row_insert(rel, values, nulls);
	cursor_write(cursors, NULL, &topic, &group, &cursor);
	config_changed(rel);
	row_close(cursors);
	row_close(rel);
	PG_RETURN_BOOL(true);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_outbox_group_alter);

/* (topic, group_name, ttl, max_attempts, backoff_base, backoff_cap, on_failure) */
Datum
distsys_outbox_group_alter(PG_FUNCTION_ARGS)
{
	NameArg		topic = arg_name(fcinfo, 0, "topic", NAME_SHORT);
	NameArg		group = arg_name(fcinfo, 1, "group_name", NAME_SHORT);
	Datum		values[GROUP_NATTS];
	bool		nulls[GROUP_NATTS] = {false};
	bool		given[GROUP_NATTS] = {false};
	Relation	rel;
	HeapTuple	row;

	read_options(fcinfo, 2, values, nulls, given);
	rel = row_open_write(TABLE_OUTBOX_GROUP, "outbox_group_alter()");
	row = lock_group(rel, &topic, &group);
	if (row == NULL)
		raise_unknown(&topic, &group);
	row_update(rel, row, values, nulls, given);
	config_changed(rel);
	row_close(rel);
	PG_RETURN_BOOL(true);
}

/* Locks the group against fetch and ack, whoever is at it. */
static void
lock_cursor(const NameArg *topic, const NameArg *group)
{
	LOCKTAG		tag;

	group_tag(&tag, topic, group);
	(void) keylock_wait(&tag, ExclusiveLock, KEYLOCK_FOR_EVER);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_outbox_group_drop);

Datum
distsys_outbox_group_drop(PG_FUNCTION_ARGS)
{
	NameArg		topic = arg_name(fcinfo, 0, "topic", NAME_SHORT);
	NameArg		group = arg_name(fcinfo, 1, "group_name", NAME_SHORT);
	bool		if_exists = arg_bool(fcinfo, 2, "if_exists");
	Relation	rel = row_open_write(TABLE_OUTBOX_GROUP, "outbox_group_drop()");
	Relation	cursors;
	HeapTuple	row = lock_group(rel, &topic, &group);
	Datum		key[2] = {topic.datum, group.datum};
	HeapTuple	cursor;

	if (row == NULL)
	{
		if (!if_exists)
			raise_unknown(&topic, &group);
		row_close_unwritten(rel);
		topic_unlock(&topic);
		PG_RETURN_BOOL(false);
	}
	lock_cursor(&topic, &group);
	cursors = row_open_write(TABLE_OUTBOX_CURSOR, "outbox_group_drop()");
	cursor = row_read_locked(cursors, key);
	if (cursor != NULL)			/* somebody may have removed it by hand */
		row_delete(cursors, cursor);
	row_close(cursors);
	retry_delete_all(&topic, &group);
	dead_letter_delete_all(&topic, &group);
	row_delete(rel, row);
	config_changed(rel);
	row_close(rel);
	PG_RETURN_BOOL(true);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_outbox_seek);

/* Everything in flight and in retry is dropped; members that hold receipts get SD301. */
Datum
distsys_outbox_seek(PG_FUNCTION_ARGS)
{
	NameArg		topic = arg_name(fcinfo, 0, "topic", NAME_SHORT);
	NameArg		group = arg_name(fcinfo, 1, "group_name", NAME_SHORT);
	GroupConfig config;
	Relation	cursors = row_open_write(TABLE_OUTBOX_CURSOR, "outbox_seek()");
	int64		position;
	Cursor		cursor;
	HeapTuple	row;

	group_get(&topic, &group, &config);
	topic_lock(&topic);			/* so that retention does not pass by meanwhile */
	position = parse_start(fcinfo, 2, &topic);
	lock_cursor(&topic, &group);
	row = cursor_read_locked(cursors, &topic, &group, &cursor);
	retry_delete_all(&topic, &group);
	cursor.position = cursor.fetched = position;
	cursor.nin_flight = 0;
	cursor.epoch++;
	cursor.member = (Datum) 0;
	cursor.claim_base = cursor.receipt_last + 1;
	cursor_write(cursors, row, &topic, &group, &cursor);
	row_close(cursors);
	PG_RETURN_BOOL(true);
}
