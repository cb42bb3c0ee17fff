/*
 * guc.h: every setting of the extension. docs/settings.md has a line for each.
 */
#ifndef DISTSYS_GUC_H
#define DISTSYS_GUC_H

/* Which numbers xact_lock uses. */
typedef enum AdvisoryKeyspace
{
	ADVISORY_KEYSPACE_PRIVATE,
	ADVISORY_KEYSPACE_SHARED	/* those of pg_advisory_xact_lock(bigint) */
} AdvisoryKeyspace;

/* What xact_lock does about a snapshot that does not see the holder before. */
typedef enum StaleSnapshot
{
	STALE_SNAPSHOT_ERROR,
	STALE_SNAPSHOT_WARNING,
	STALE_SNAPSHOT_OFF
} StaleSnapshot;

extern int	guc_durability;				/* a SyncCommitLevel; SYNCHRONOUS_COMMIT_OFF: do not force */
extern int	guc_max_keys_per_transaction;
extern int	guc_max_function_wait;		/* ms */
extern int	guc_lease_max_ttl;			/* ms */
extern int	guc_failover_delay;			/* ms after a promotion without new grants; -1: decided at the promotion */
extern int	guc_failover_min_delay;		/* ms */
extern bool guc_notice_in_transaction;
extern int	guc_advisory_keyspace;		/* an AdvisoryKeyspace */
extern int	guc_stale_snapshot;			/* a StaleSnapshot */
extern bool guc_http_sqlstate;			/* refusals are raised as PostgREST's PTnnn */
extern int	guc_rate_limit_wait;		/* ms */
extern int	guc_rate_limit_shared_keys;	/* entries of the shared memory map */
extern int	guc_outbox_max_bytes;		/* bytes of one payload */
extern int	guc_outbox_read_wait;		/* ms a reader waits for commits in progress */
extern bool guc_worker_enabled;
extern int	guc_worker_max;				/* per-database workers at once */

/* developer settings, superuser only: tests move time and force collisions */
extern int	guc_clock_offset;			/* ms added to both clocks: time passes */
extern int	guc_clock_step;				/* ms added to the wall clock only: somebody set the clock */
extern int	guc_hash_bits;				/* bits of a name's hash that are used, 64 = all */
extern int	guc_worker_speedup;			/* jobs run this many times as often */
extern char *guc_worker_fail_job;		/* this job fails; "" or NULL: none */

extern void guc_init(void);

#endif							/* DISTSYS_GUC_H */
