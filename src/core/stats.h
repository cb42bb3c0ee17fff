/*
 * stats.h: counters in shared memory, seen in the view distsys.stats. Without
 * shared_preload_libraries counting is a no-op and the view is empty. Counted
 * when decided, not when committed.
 */
#ifndef DISTSYS_STATS_H
#define DISTSYS_STATS_H

/*
 * Adds to the counter (database, domain, object, metric). object: a policy,
 * topic or group name of at most 63 bytes, "" for the whole domain. Cheap
 * (a hash and an atomic add); takes no lock once the counter exists.
 */
extern void stats_add(const char *domain, const char *object, const char *metric, int64 n);

/* The same for a counter that is used so often that it is remembered. It lives as long as the server; NULL when there is none. */
typedef struct StatsSlot StatsCounter;
extern StatsCounter *stats_counter(const char *domain, const char *object, const char *metric);
extern void stats_count(StatsCounter *counter, int64 n);

extern void stats_init(void);	/* registers the shared memory segment; before shmem_init() */

#endif							/* DISTSYS_STATS_H */
