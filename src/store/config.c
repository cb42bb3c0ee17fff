/*
 * config.c: cached configuration, see config.h.
 *
 * An invalidation raises the cache's generation; an entry is valid while its
 * generation is the cache's. The generation is read before the load, so that
 * an invalidation during a load makes its result void.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "compat.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"

#include "core/keylock.h"
#include "store/config.h"

/* The names with a line feed between them, which no name contains. */
typedef char ConfigKey[NAME_LONG + 1 + NAME_SHORT + 1];

/* In the hash table; the domain's entry follows. */
typedef struct CachedRow
{
	ConfigKey	key;			/* hash key, must be first */
	uint64		generation;
	bool		absent;			/* there is no such row */
	char		entry[FLEXIBLE_ARRAY_MEMBER];
} CachedRow;

struct ConfigCache
{
	CatalogTable table;
	Size		entry_size;
	int			max_rows;		/* 0: as many as there are, and no absent ones */
	ConfigLoad	load;
	Oid			relid;			/* what the entries were read from */
	uint64		generation;
	HTAB	   *rows;
	ConfigCache *next;
};

static ConfigCache *caches = NULL;

static void
on_relcache_invalidation(Datum arg, Oid relid)
{
	for (ConfigCache *cache = caches; cache != NULL; cache = cache->next)
	{
		if (relid == InvalidOid || relid == cache->relid)
			cache->generation++;
	}
}

ConfigCache *
config_cache_create(CatalogTable table, Size entry_size, ConfigLoad load)
{
	ConfigCache *cache = MemoryContextAllocZero(TopMemoryContext, sizeof(ConfigCache));
	HASHCTL		ctl = {0};

	cache->table = table;
	cache->entry_size = entry_size;
	cache->load = load;
	cache->generation = 1;
	ctl.keysize = sizeof(ConfigKey);
	ctl.entrysize = MAXALIGN(offsetof(CachedRow, entry) + entry_size);
	ctl.hcxt = TopMemoryContext;
	cache->rows = hash_create("distsys configuration", 64, &ctl, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);

	if (caches == NULL)
		CacheRegisterRelcacheCallback(on_relcache_invalidation, (Datum) 0);
	cache->next = caches;
	caches = cache;
	return cache;
}

ConfigCache *
config_cache_create_bounded(CatalogTable table, Size entry_size, ConfigLoad load, int max_rows)
{
	ConfigCache *cache = config_cache_create(table, entry_size, load);

	cache->max_rows = max_rows;
	return cache;
}

static void
make_key(char *key, const NameArg *name1, const NameArg *name2)
{
	memcpy(key, name1->data, name1->len);
	key += name1->len;
	if (name2 != NULL)
	{
		*key++ = '\n';
		memcpy(key, name2->data, name2->len);
		key += name2->len;
	}
	*key = '\0';
}

/* Reads the row by a fresh catalog snapshot, whatever the isolation level: a stale policy must not be kept. */
static bool
load_row(ConfigCache *cache, const NameArg *name1, const NameArg *name2, void *entry, uint64 *generation)
{
	Relation	rel = catalog_open(cache->table, AccessShareLock);
	Oid			pk = RelationGetPrimaryKeyIndex(rel, false);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	cache->relid = RelationGetRelid(rel);
	*generation = cache->generation;
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_TEXTEQ, name1->datum);
	if (name2 != NULL)
		ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ, name2->datum);
	scan = systable_beginscan(rel, pk, OidIsValid(pk), NULL, name2 != NULL ? 2 : 1, keys);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		memset(entry, 0, cache->entry_size);
		cache->load(entry, rel, tuple);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return HeapTupleIsValid(tuple);
}

/* A bounded cache that is full is emptied: what is in use comes back at once. */
static void
make_room(ConfigCache *cache)
{
	HASH_SEQ_STATUS seq;
	CachedRow  *row;

	if (cache->max_rows == 0 || hash_get_num_entries(cache->rows) < cache->max_rows)
		return;
	hash_seq_init(&seq, cache->rows);
	while ((row = hash_seq_search(&seq)) != NULL)
		(void) hash_search(cache->rows, row->key, HASH_REMOVE, NULL);
}

bool
config_get(ConfigCache *cache, const NameArg *name1, const NameArg *name2, void *out)
{
	ConfigKey	key;
	CachedRow  *row;
	uint64		generation;
	bool		found;

	if (name1->len > NAME_LONG || (name2 != NULL && name2->len > NAME_SHORT))
		return false;
	AcceptInvalidationMessages();
	make_key(key, name1, name2);
	row = hash_search(cache->rows, key, HASH_FIND, NULL);
	if (row != NULL && row->generation == cache->generation)
	{
		if (!row->absent)
			memcpy(out, row->entry, cache->entry_size);
		return !row->absent;
	}
	found = load_row(cache, name1, name2, out, &generation);
	if (!found && cache->max_rows == 0)
		return false;
	make_room(cache);
	row = hash_search(cache->rows, key, HASH_ENTER, NULL);
	row->generation = generation;
	row->absent = !found;
	if (found)
		memcpy(row->entry, out, cache->entry_size);
	return found;
}

uint64
config_generation(ConfigCache *cache)
{
	AcceptInvalidationMessages();
	return cache->generation;
}

uint64
config_scan(ConfigCache *cache, const NameArg *name1, ConfigVisit visit, void *arg)
{
	Relation	rel = catalog_open(cache->table, AccessShareLock);
	Oid			pk = RelationGetPrimaryKeyIndex(rel, false);
	uint64		generation = cache->generation;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	cache->relid = RelationGetRelid(rel);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_TEXTEQ, name1->datum);
	scan = systable_beginscan(rel, pk, OidIsValid(pk), NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		visit(rel, tuple, arg);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return generation;
}

void
config_changed(Relation rel)
{
	CacheInvalidateRelcache(rel);
	/* so that this backend knows it at once */
	CommandCounterIncrement();
}

/* ---- create, alter, drop ---- */

void
config_raise_unknown(const ConfigKind *kind, const NameArg *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("%s \"%s\" does not exist", kind->label, name_cstring(*name)),
			 errhint("Create it: SELECT distsys.%s_create(%s%s);", kind->function,
					 quote_literal_cstr(name_cstring(*name)), kind->create_rest)));
	pg_unreachable();
}

static void
config_tag(const ConfigKind *kind, const NameArg *name, LOCKTAG *tag)
{
	keylock_tag2(tag, KEYLOCK_CONFIG, kind->key, strlen(kind->key), name->data, name->len);
}

void
config_lock(const ConfigKind *kind, const NameArg *name)
{
	LOCKTAG		tag;

	config_tag(kind, name, &tag);
	(void) keylock_wait(&tag, ExclusiveLock, KEYLOCK_FOR_EVER);
}

bool
config_try_lock(const ConfigKind *kind, const NameArg *name)
{
	LOCKTAG		tag;

	config_tag(kind, name, &tag);
	return keylock_try(&tag, ExclusiveLock);
}

void
config_unlock(const ConfigKind *kind, const NameArg *name)
{
	LOCKTAG		tag;

	config_tag(kind, name, &tag);
	keylock_release(&tag, ExclusiveLock);
}

/* Opens the table for <function>_<verb>(), locks the name and reads its row; NULL: there is none. */
static HeapTuple
open_row(const ConfigKind *kind, const char *verb, const NameArg *name, Relation *rel)
{
	*rel = row_open_write(kind->table, psprintf("%s_%s()", kind->function, verb));
	config_lock(kind, name);
	return row_read_locked(*rel, &name->datum);
}

/* Nothing is to be done: who makes sure of it when he starts, and stays in his transaction, is in nobody's way. */
static bool
leave_as_it_is(const ConfigKind *kind, const NameArg *name, Relation rel)
{
	row_close_unwritten(rel);
	config_unlock(kind, name);
	return false;
}

bool
config_create(const ConfigKind *kind, const NameArg *name, Datum *values, bool *nulls, bool if_not_exists)
{
	Relation	rel;
	bool		exists = open_row(kind, "create", name, &rel) != NULL;

	if (exists && !if_not_exists)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("%s \"%s\" already exists", kind->label, name_cstring(*name)),
				 errhint("Use if_not_exists => true, or %s_%s().", kind->function, kind->change ? kind->change : "alter")));
	if (exists)
		return leave_as_it_is(kind, name, rel);
	row_insert(rel, values, nulls);
	config_changed(rel);
	row_close(rel);
	return true;
}

HeapTuple
config_edit(const ConfigKind *kind, const NameArg *name, Relation *rel)
{
	HeapTuple	row = open_row(kind, kind->change ? kind->change : "alter", name, rel);

	if (row == NULL)
		config_raise_unknown(kind, name);
	return row;
}

void
config_save(Relation rel, HeapTuple row, Datum *values, bool *nulls, bool *replace)
{
	row_update(rel, row, values, nulls, replace);
	config_changed(rel);
	row_close(rel);
}

bool
config_drop(const ConfigKind *kind, const NameArg *name, bool if_exists, void (*before_drop) (const NameArg *name))
{
	Relation	rel;
	HeapTuple	row = open_row(kind, "drop", name, &rel);

	if (row == NULL && !if_exists)
		config_raise_unknown(kind, name);
	if (row == NULL)
		return leave_as_it_is(kind, name, rel);
	if (before_drop != NULL)
		before_drop(name);
	row_delete(rel, row);
	config_changed(rel);
	row_close(rel);
	return true;
}

/* ---- the trigger ---- */

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys__config_changed);

/* The statement trigger of configuration tables. */
Datum
distsys__config_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("_config_changed() can only be called as a trigger")));
	CacheInvalidateRelcache(((TriggerData *) fcinfo->context)->tg_relation);
	return PointerGetDatum(NULL);
}
