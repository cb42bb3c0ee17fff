/*
 * hint.h: where the newest version of a row was the last time.
 */
#ifndef DISTSYS_HINT_H
#define DISTSYS_HINT_H

#include "access/htup.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

/*
 * A copy of the version that the snapshot sees, found from the remembered
 * place along the row's versions; NULL: nothing is remembered, or it leads
 * nowhere. The caller compares the key: the place may be another row's by now.
 */
extern HeapTuple hint_read(Relation rel, uint32 hash, Snapshot snapshot);
extern void hint_remember(Relation rel, uint32 hash, ItemPointer tid);

#endif							/* DISTSYS_HINT_H */
