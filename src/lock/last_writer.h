/*
 * last_writer.h: which transaction last held a lock exclusively and wrote, for snapshots that are older than it.
 * Shared memory: only when preloaded.
 */
#ifndef DISTSYS_LAST_WRITER_H
#define DISTSYS_LAST_WRITER_H

#include "core/keylock.h"
#include "utils/snapshot.h"

/* Before a lock is taken exclusively: makes room, so that the commit need not. May raise. */
extern void last_writer_reserve(const LOCKTAG *tag);
/*
 * May the snapshot not show what the last exclusive holder has written? Ask with the lock held. A wrong answer is
 * always yes; without shared memory it is always no.
 */
extern bool last_writer_unseen(const LOCKTAG *tag, Snapshot snapshot);
extern void last_writer_init(void);

#endif							/* DISTSYS_LAST_WRITER_H */
