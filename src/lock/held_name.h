/*
 * held_name.h: names of advisory locks, for the view locks. Shared memory: only when preloaded.
 */
#ifndef DISTSYS_HELD_NAME_H
#define DISTSYS_HELD_NAME_H

#include "core/arg.h"
#include "core/keylock.h"

/* This backend is about to take or to wait for the lock of this name. Cannot fail. */
extern void held_name_note(const LOCKTAG *tag, const NameArg *name);
extern void held_name_init(void);

#endif							/* DISTSYS_HELD_NAME_H */
