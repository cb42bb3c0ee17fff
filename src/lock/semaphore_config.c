/*
 * semaphore_config.c: semaphores as configuration: an ordinary table, cached; create, resize, drop.
 *
 * Neither resize nor drop touches a permit, so neither blocks nor is blocked. Slots above
 * the size, and those of a dropped semaphore, are not granted again; permits in them live on until
 * they are released or expire, and are counted again when the size grows or the name is created again.
 */
#include "postgres.h"

#include "compat.h"

#include "lock/semaphore.h"
#include "store/config.h"
#include "store/table_view.h"

/* Columns of the table, and of the arguments of create: one less. */
enum
{
	ATTR_NAME = 1,
	ATTR_PERMITS,
	ATTR_QUEUE_LIMIT,
	NATTS = ATTR_QUEUE_LIMIT
};

static const ConfigKind kind = {
	.table = TABLE_SEMAPHORE,
	.key = "semaphore",
	.label = "semaphore",
	.function = "semaphore",
	.create_rest = ", permits => 10",
	.change = "resize"
};

static ConfigCache *cache = NULL;

static void
load(void *entry, Relation rel, HeapTuple tuple)
{
	SemaphoreConfig *config = (SemaphoreConfig *) entry;
	bool		unlimited;
	Datum		limit = row_get(rel, tuple, ATTR_QUEUE_LIMIT, &unlimited);

	config->permits = DatumGetInt32(row_get(rel, tuple, ATTR_PERMITS, NULL));
	config->queue_limit = unlimited ? -1 : DatumGetInt32(limit);
}

bool
semaphore_config_find(const NameArg *name, SemaphoreConfig *config)
{
	if (cache == NULL)
		cache = config_cache_create(TABLE_SEMAPHORE, sizeof(SemaphoreConfig), load);
	return config_get(cache, name, NULL, config);
}

void
semaphore_config_get(const NameArg *name, SemaphoreConfig *config)
{
	if (!semaphore_config_find(name, config))
		config_raise_unknown(&kind, name);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_semaphore_create);

Datum
distsys_semaphore_create(PG_FUNCTION_ARGS)
{
	NameArg		name = arg_name(fcinfo, 0, "name", NAME_LONG);
	Datum		values[NATTS] = {0};
	bool		nulls[NATTS] = {false};

	values[ATTR_NAME - 1] = name.datum;
	values[ATTR_PERMITS - 1] = Int32GetDatum(arg_int32(fcinfo, 1, "permits", 1, SEMAPHORE_MAX_PERMITS));
	nulls[ATTR_QUEUE_LIMIT - 1] = PG_ARGISNULL(2);
	if (!PG_ARGISNULL(2))
		values[ATTR_QUEUE_LIMIT - 1] = Int32GetDatum(arg_int32(fcinfo, 2, "queue_limit", 0, PG_INT32_MAX));
	PG_RETURN_BOOL(config_create(&kind, &name, values, nulls, arg_bool(fcinfo, 3, "if_not_exists")));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_semaphore_resize);

/* false: it had that many permits already. */
Datum
distsys_semaphore_resize(PG_FUNCTION_ARGS)
{
	NameArg		name = arg_name(fcinfo, 0, "name", NAME_LONG);
	int32		permits = arg_int32(fcinfo, 1, "permits", 1, SEMAPHORE_MAX_PERMITS);
	Datum		values[NATTS] = {0};
	bool		nulls[NATTS] = {false};
	bool		replace[NATTS] = {false};
	Relation	rel;
	HeapTuple	row = config_edit(&kind, &name, &rel);

	if (DatumGetInt32(row_get(rel, row, ATTR_PERMITS, NULL)) == permits)
	{
		row_close(rel);
		PG_RETURN_BOOL(false);
	}
	values[ATTR_PERMITS - 1] = Int32GetDatum(permits);
	replace[ATTR_PERMITS - 1] = true;
	config_save(rel, row, values, nulls, replace);
	/* those who wait for more may have it; those who ask for more than there is are told so */
	semaphore_wake(&name);
	PG_RETURN_BOOL(true);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_semaphore_drop);

Datum
distsys_semaphore_drop(PG_FUNCTION_ARGS)
{
	NameArg		name = arg_name(fcinfo, 0, "name", NAME_LONG);
	bool		dropped = config_drop(&kind, &name, arg_bool(fcinfo, 1, "if_exists"), NULL);

	if (dropped)
		semaphore_wake(&name);
	PG_RETURN_BOOL(dropped);
}

/* ---- the view semaphores ---- */

static void
view_columns(Relation rel, HeapTuple row, Datum *values, bool *nulls)
{
	NameArg		name = arg_name_datum(row_get(rel, row, ATTR_NAME, NULL), "name", NAME_LONG);

	values[0] = name.datum;
	values[1] = row_get(rel, row, ATTR_PERMITS, NULL);
	values[2] = Int32GetDatum(semaphore_in_use(&name));
	values[3] = Int32GetDatum(semaphore_waiting(&name));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys__semaphores);

/* Rows (name, permits, in_use, waiting). */
Datum
distsys__semaphores(PG_FUNCTION_ARGS)
{
	return table_view(fcinfo, TABLE_SEMAPHORE, view_columns);
}
