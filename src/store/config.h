/*
 * config.h: configuration rows (policies, topics, groups) cached in C.
 *
 * Configuration is ordinary SQL: each such table has an ENABLE ALWAYS
 * statement trigger distsys._config_changed() that sends a relcache invalidation (DML alone
 * sends none), and row_insert/row_update/row_delete callers use config_changed(rel).
 * Entries are loaded with a fresh catalog snapshot. Effective at the next call after the commit.
 */
#ifndef DISTSYS_CONFIG_H
#define DISTSYS_CONFIG_H

#include "core/arg.h"
#include "store/catalog.h"
#include "store/row.h"

typedef struct ConfigCache ConfigCache;
/* Fills a zeroed entry from the row; entry holds no pointers (text goes into fixed char arrays). */
typedef void (*ConfigLoad) (void *entry, Relation rel, HeapTuple tuple);

/* The primary key of the table is one text column, or two of which the second is a short name. Call once, lazily. */
extern ConfigCache *config_cache_create(CatalogTable table, Size entry_size, ConfigLoad load);
/* The same for tables that may have a row for every user: at most max_rows entries, among them what is absent. */
extern ConfigCache *config_cache_create_bounded(CatalogTable table, Size entry_size, ConfigLoad load, int max_rows);
/* Copies the entry into *out; false: no such row. name2 may be NULL. */
extern bool config_get(ConfigCache *cache, const NameArg *name1, const NameArg *name2, void *out);
/* Rises when the table has changed: what was derived from config_scan() is valid while the generation that it returned is the cache's. */
extern uint64 config_generation(ConfigCache *cache);
/* Visits the rows whose first key column is name1, by a fresh catalog snapshot. */
typedef void (*ConfigVisit) (Relation rel, HeapTuple tuple, void *arg);
extern uint64 config_scan(ConfigCache *cache, const NameArg *name1, ConfigVisit visit, void *arg);
/* After our own row_insert/row_update/row_delete on a configuration table. */
extern void config_changed(Relation rel);

/* ---- create, alter, drop ---- */

/* A kind of configuration that is named by one word. */
typedef struct ConfigKind
{
	CatalogTable table;
	const char *key;			/* of its key locks: the table's name */
	const char *label;			/* in messages: "outbox topic" */
	const char *function;		/* its functions are <function>_create(), _alter(), _drop() */
	const char *create_rest;	/* what follows the name in the create call that a HINT shows */
	const char *change;			/* its function that changes it is <function>_<change>(); NULL: _alter() */
} ConfigKind;

/* 42704 with the create call in the HINT. */
pg_noreturn extern void config_raise_unknown(const ConfigKind *kind, const NameArg *name);
/* Serialises changes of one name, to the end of the transaction. */
extern void config_lock(const ConfigKind *kind, const NameArg *name);
/* The same without waiting. */
extern bool config_try_lock(const ConfigKind *kind, const NameArg *name);
/* Gives it back when nothing was changed. */
extern void config_unlock(const ConfigKind *kind, const NameArg *name);
/* true: created; false: it was there. 42710 unless if_not_exists. */
extern bool config_create(const ConfigKind *kind, const NameArg *name, Datum *values, bool *nulls, bool if_not_exists);
/* Opens the table and reads the row for a change; 42704. */
extern HeapTuple config_edit(const ConfigKind *kind, const NameArg *name, Relation *rel);
/* Writes the change and closes the table. */
extern void config_save(Relation rel, HeapTuple row, Datum *values, bool *nulls, bool *replace);
/* true: dropped; false: it was not there. 42704 unless if_exists. before_drop (may be NULL) may refuse by an error. */
extern bool config_drop(const ConfigKind *kind, const NameArg *name, bool if_exists, void (*before_drop) (const NameArg *name));

#endif							/* DISTSYS_CONFIG_H */
