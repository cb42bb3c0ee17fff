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

/* The primary key of the table is one or two text columns. Call once, lazily. */
extern ConfigCache *config_cache_create(CatalogTable table, Size entry_size, ConfigLoad load);
/* Copies the entry into *out; false: no such row. name2 may be NULL. */
extern bool config_get(ConfigCache *cache, const NameArg *name1, const NameArg *name2, void *out);
/* After our own row_insert/row_update/row_delete on a configuration table. */
extern void config_changed(Relation rel);

#endif							/* DISTSYS_CONFIG_H */
