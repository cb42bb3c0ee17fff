/*
 * shared_snapshot.h: shared limits over a crash and a failover: once a minute a job writes those that stay in use for longer
 * into the table rate_limit_snapshot.
 *
 * What happens to a shared limit with on_restart 'snapshot':
 *   clean restart    as it was (shared_file.h)
 *   crash            as in the last snapshot: what was taken since may be taken again, at most what a full
 *                    limit gives and a minute adds; limits that are full again within a minute begin full
 *   failover         the same, from the snapshot that has arrived at the standby
 * 'full' begins full at every start, 'empty' with nothing: never more than the limit's bound, also over a crash.
 */
#ifndef DISTSYS_SHARED_SNAPSHOT_H
#define DISTSYS_SHARED_SNAPSHOT_H

#include "ratelimit/shared_map.h"
#include "store/sweep.h"

#define SHARED_SNAPSHOT_PERIOD_S 60

/* A key that is not in the map: brings it from the snapshot of the last life if it is there. Not under a partition's lock. */
extern void shared_snapshot_bring(const ShmapKey *key);

/* Job: brings what the last life left, then writes and removes rows. */
extern void rate_limit_snapshot(JobSlice *slice);

#endif							/* DISTSYS_SHARED_SNAPSHOT_H */
