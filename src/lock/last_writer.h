/*
 * last_writer.h: which transaction last held a lock and wrote, for snapshots that are older than it.
 * Shared memory: only when preloaded.
 */
#ifndef DISTSYS_LAST_WRITER_H
#define DISTSYS_LAST_WRITER_H

#include "core/arg.h"
#include "core/keylock.h"
#include "utils/snapshot.h"

/* Before a lock is taken, exclusively or in a weaker mode by those that write beside each other: makes room, so that the commit need not. May raise. */
extern void last_writer_reserve(const LOCKTAG *tag, LOCKMODE mode);
/*
 * May the snapshot not show what the last such holders have written? Ask with the lock held, exclusively if there are weaker ones. A wrong answer is
 * always yes; without shared memory it is always no.
 */
extern bool last_writer_unseen(const LOCKTAG *tag, Snapshot snapshot);
/* 40001, or the warning that distsys.stale_snapshot asks for. noun: "lock" of that name. */
extern void last_writer_report_stale(const char *noun, const NameArg *name, const char *detail, const char *hint);
extern void last_writer_init(void);

#endif							/* DISTSYS_LAST_WRITER_H */
