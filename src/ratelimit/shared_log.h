/*
 * shared_log.h: sliding window logs in shared memory.
 *
 * The entry of the limit says how many tokens count (state.a) and when the newest was taken (state.at_us); their
 * times are in entries of their own, four each, in the same partition. state.b = 1: there are none, all
 * were taken at at_us: so it is after a restart, and when there was no room. That counts no token shorter than it should, so it never
 * admits too much. All functions run under the partition's lock: no error, no allocation.
 */
#ifndef DISTSYS_SHARED_LOG_H
#define DISTSYS_SHARED_LOG_H

#include "algo/log.h"
#include "ratelimit/shared_map.h"

/* The log as it is stored, not brought to now; log->times has room. */
extern void shared_log_load(const ShmapKey *key, const SharedEntry *entry, LimitLog *log);
/* The entry is pinned by its rule. Adds to *evicted. */
extern void shared_log_store(const ShmapKey *key, SharedEntry *entry, const LimitLog *log, int64 now, int *evicted);
/* What the entry alone tells: has every token left the window? How long until then, as seen by the newest; how many count at most. */
extern bool shared_log_is_full(const LimitRule *rule, const LimitState *state, int64 now);
extern int64 shared_log_full_in(const LimitRule *rule, const LimitState *state, int64 now);
extern int64 shared_log_remaining(const LimitRule *rule, const LimitState *state, int64 now);
/* Is nothing in a part of a log in sight any more? */
extern bool shared_log_part_is_over(const SharedEntry *part, int64 now);

#endif							/* DISTSYS_SHARED_LOG_H */
