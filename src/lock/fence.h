/*
 * fence.h: the check at the resource: the highest fencing token it has seen.
 */
#ifndef DISTSYS_FENCE_H
#define DISTSYS_FENCE_H

#include "core/arg.h"

/* false when token is lower than the highest seen (*highest); else it is recorded and holds the resource to the end of the transaction. */
extern bool fence_pass(const NameArg *resource, int64 token, int64 *highest);
/* The highest token seen, 0 when none. */
extern int64 fence_current(const NameArg *resource);

#endif							/* DISTSYS_FENCE_H */
