/*
 * topic.c: topics: an ordinary table, cached; create, alter, drop.
 *
 * outbox_retained has the highest position that was removed of each topic. It
 * outlives a dropped topic, so that a new one of the same name does not
 * show the old events that retention has not come to yet.
 */
#include "postgres.h"

#include "compat.h"
#include "utils/builtins.h"

#include "outbox/group.h"
#include "outbox/topic.h"
#include "store/config.h"
#include "store/row.h"
#include "store/token.h"

enum
{
	ATTR_TOPIC = 1,
	ATTR_RETENTION,
	ATTR_CE_SOURCE,
	NATTS = ATTR_CE_SOURCE
};

#define RETENTION_MIN (1 * SECONDS)
#define RETENTION_MAX (INT64CONST(3650) * 24 * 60 * 60 * SECONDS)

typedef struct TopicConfig
{
	int64		retention_us;
} TopicConfig;

static const ConfigKind kind = {
	.table = TABLE_OUTBOX_TOPIC,
	.key = "outbox_topic",
	.label = "outbox topic",
	.function = "outbox_topic",
	.create_rest = ""
};

static ConfigCache *cache = NULL;

static void
load(void *entry, Relation rel, HeapTuple tuple)
{
	((TopicConfig *) entry)->retention_us =
		interval_to_us(DatumGetIntervalP(row_get(rel, tuple, ATTR_RETENTION, NULL)),
					   "retention", RETENTION_MIN, RETENTION_MAX, NULL);
}

bool
topic_retention(const NameArg *topic, int64 *retention_us)
{
	TopicConfig config;

	if (cache == NULL)
		cache = config_cache_create(TABLE_OUTBOX_TOPIC, sizeof(TopicConfig), load);
	if (!config_get(cache, topic, NULL, &config))
		return false;
	*retention_us = config.retention_us;
	return true;
}

void
topic_check(const NameArg *topic)
{
	int64		ignored;

	if (!topic_retention(topic, &ignored))
		config_raise_unknown(&kind, topic);
}

void
topic_lock(const NameArg *topic)
{
	config_lock(&kind, topic);
}

bool
topic_try_lock(const NameArg *topic)
{
	return config_try_lock(&kind, topic);
}

void
topic_unlock(const NameArg *topic)
{
	config_unlock(&kind, topic);
}

/* ---- what was removed: outbox_retained(topic, removed_through) ---- */

int64
topic_removed_through(const NameArg *topic)
{
	Relation	rel = row_open_read(TABLE_OUTBOX_RETAINED);
	HeapTuple	row = row_read_latest(rel, &topic->datum);
	int64		position = row == NULL ? 0 : DatumGetInt64(row_get(rel, row, 2, NULL));

	row_close(rel);
	return position;
}

/* Under topic_lock. */
void
topic_set_removed_through(const NameArg *topic, int64 position)
{
	Relation	rel = row_open_write(TABLE_OUTBOX_RETAINED, "outbox retention");
	HeapTuple	row = row_read_locked(rel, &topic->datum);
	Datum		values[2] = {topic->datum, Int64GetDatum(position)};
	bool		nulls[2] = {false};
	bool		replace[2] = {false, true};

	if (row == NULL)
		row_insert(rel, values, nulls);
	else if (DatumGetInt64(row_get(rel, row, 2, NULL)) < position)
		row_update(rel, row, values, nulls, replace);
	row_close(rel);
}

int64
topic_check_retained(const NameArg *topic, int64 position)
{
	int64		removed = topic_removed_through(topic);

	if (position > 0 && position < removed)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("position %lld of topic \"%s\" is below what is retained",
						(long long) position, name_cstring(*topic)),
				 errdetail("Events up to position %lld were removed.", (long long) removed),
				 errhint("Events were missed if this position was not read to its end before. Go on after %lld, or raise the retention of the topic.",
						 (long long) removed)));
	return removed;
}

/* ---- SQL ---- */

static void
read_options(FunctionCallInfo fcinfo, Datum *values, bool *nulls, bool *given)
{
	NameArg		source;

	for (int column = ATTR_RETENTION; column <= ATTR_CE_SOURCE; column++)
	{
		given[column - 1] = !PG_ARGISNULL(column - 1);
		nulls[column - 1] = !given[column - 1];
		values[column - 1] = PG_GETARG_DATUM(column - 1);
	}
	if (given[ATTR_RETENTION - 1])
		(void) arg_interval(fcinfo, 1, "retention", RETENTION_MIN, RETENTION_MAX, NULL);
	if (given[ATTR_CE_SOURCE - 1])
	{
		source = arg_name(fcinfo, 2, "ce_source", NAME_LONG);
		values[ATTR_CE_SOURCE - 1] = source.datum;
	}
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_outbox_topic_create);

Datum
distsys_outbox_topic_create(PG_FUNCTION_ARGS)
{
	NameArg		topic = arg_name(fcinfo, 0, "topic", NAME_SHORT);
	bool		if_not_exists = arg_bool(fcinfo, 3, "if_not_exists");
	Datum		values[NATTS];
	bool		nulls[NATTS] = {false};
	bool		given[NATTS] = {false};

	arg_not_null(fcinfo, 1, "retention");
	read_options(fcinfo, values, nulls, given);
	values[ATTR_TOPIC - 1] = topic.datum;
	PG_RETURN_BOOL(config_create(&kind, &topic, values, nulls, if_not_exists));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_outbox_topic_alter);

Datum
distsys_outbox_topic_alter(PG_FUNCTION_ARGS)
{
	NameArg		topic = arg_name(fcinfo, 0, "topic", NAME_SHORT);
	Datum		values[NATTS];
	bool		nulls[NATTS] = {false};
	bool		given[NATTS] = {false};
	Relation	rel;
	HeapTuple	row;

	read_options(fcinfo, values, nulls, given);
	row = config_edit(&kind, &topic, &rel);
	config_save(rel, row, values, nulls, given);
	PG_RETURN_BOOL(true);
}

static void
before_drop(const NameArg *topic)
{
	if (group_exists_on(topic))
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("outbox topic \"%s\" still has groups", name_cstring(*topic)),
				 errhint("Drop them first with outbox_group_drop().")));
	topic_set_removed_through(topic, position_head());
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_outbox_topic_drop);

Datum
distsys_outbox_topic_drop(PG_FUNCTION_ARGS)
{
	NameArg		topic = arg_name(fcinfo, 0, "topic", NAME_SHORT);

	PG_RETURN_BOOL(config_drop(&kind, &topic, arg_bool(fcinfo, 1, "if_exists"), before_drop));
}
