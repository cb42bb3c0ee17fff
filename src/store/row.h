/*
 * row.h: point access to our own tables, the way the server treats its
 * catalogs: through the primary key, without SPI, plan cache or statement
 * snapshot. No lost update, no 40001 in REPEATABLE READ or SERIALIZABLE, no
 * predicate locks.
 *
 * Exactly two ways to read one row:
 *   row_read_locked  SnapshotSelf, with the row's key lock held in a mode that
 *                    excludes every writer: one version is visible, the newest.
 *   row_read_latest  no lock: newest committed version (or our own), by a fresh
 *                    registered snapshot; on a standby by the active snapshot.
 *
 * Rules that callers keep:
 *   - whoever writes a row holds its key lock (keylock.h) in Exclusive mode
 *   - key columns are the primary key's, in order, all given as Datums
 *   - what a constraint would have checked has been checked: none fires here;
 *     neither do triggers or defaults: every column is given
 *   - hot columns are in no index (fillfactor 50..70), so updates are HOT
 */
#ifndef DISTSYS_ROW_H
#define DISTSYS_ROW_H

#include "access/htup_details.h"
#include "store/catalog.h"
#include "utils/rel.h"

/* For reading: AccessShareLock, dropped by row_close. Works on a standby. */
extern Relation row_open_read(CatalogTable table);
/* For writing: 25006 in a read-only transaction or on a standby (message names `command`); RowExclusiveLock, kept to commit. */
extern Relation row_open_write(CatalogTable table, const char *command);
extern void row_close(Relation rel);
/* Like row_close for a table opened for writing when nothing was written: drops the table lock at once. */
extern void row_close_unwritten(Relation rel);

/* palloc'd copy or NULL; t_self is set, so it can be passed to row_update/row_delete. */
extern HeapTuple row_read_locked(Relation rel, const Datum *key);
extern HeapTuple row_read_latest(Relation rel, const Datum *key);

/* These end with CommandCounterIncrement(). A concurrent manual write of the row (UPDATE by hand) is 40001. */
extern void row_insert(Relation rel, Datum *values, bool *nulls);
/* replace[i]: column i (attnum - 1) gets values[i]/nulls[i] */
extern void row_update(Relation rel, HeapTuple old, Datum *values, bool *nulls, bool *replace);
extern void row_delete(Relation rel, HeapTuple old);
/* Deletes every row whose first nprefix key columns equal prefix; the caller's lock covers them all. */
extern void row_delete_all(CatalogTable table, const char *command, int nprefix, const Datum *prefix);

/* Many rows at once: opens the indexes once; end does the CommandCounterIncrement(). */
typedef struct RowInserter RowInserter;
extern RowInserter *row_inserter_begin(Relation rel);
extern void row_inserter_put(RowInserter *inserter, const Datum *values, const bool *nulls);
extern void row_inserter_end(RowInserter *inserter);

/* The row's primary key as Datums that point into the tuple; key has room for 3. */
extern void row_key(Relation rel, HeapTuple tuple, Datum *key);

/* One attribute by number. *isnull may be NULL when the column is NOT NULL. */
extern Datum row_get(Relation rel, HeapTuple tuple, int attnum, bool *isnull);
/* "Reading implies durable": flushes the commit of the transaction that wrote this version (nothing to do for our own or on a standby). */
extern void row_make_durable(HeapTuple tuple);

/*
 * Ordered scan over the primary key: rows whose first nprefix key columns equal
 * prefix and, when after is not NULL, whose next key column (an integer) is greater than
 * *after. Each row once, as of a fresh snapshot taken at begin (on a standby
 * the active snapshot); no predicate locks. The tuple is valid until the next call.
 */
typedef struct RowScan RowScan;
extern RowScan *row_scan_begin(Relation rel, int nprefix, const Datum *prefix, const int64 *after);
/* The same from the first key column (text) on: rows whose value is greater than `above` (0: all rows). */
extern RowScan *row_scan_begin_above(Relation rel, Datum above);
extern HeapTuple row_scan_next(RowScan *scan);
/* Is the version just returned visible to the caller's own active snapshot too? */
extern bool row_scan_caller_sees(RowScan *scan);
extern void row_scan_end(RowScan *scan);
/* Has another transaction written this version that the transaction's own snapshot does not see? */
extern bool row_written_after_snapshot(HeapTuple row);

#endif							/* DISTSYS_ROW_H */
