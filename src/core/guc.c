/*
 * guc.c: defines the settings. docs/settings.md says what each is for.
 */
#include "postgres.h"

#include <limits.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/guc.h"

#include "core/guc.h"

int			guc_durability = SYNCHRONOUS_COMMIT_ON;
int			guc_max_keys_per_transaction = 1000;
int			guc_max_function_wait = 10000;
int			guc_lease_max_ttl = 15 * 60 * 1000;
int			guc_failover_delay = -1;
int			guc_failover_min_delay = 10 * 1000;
bool		guc_notice_in_transaction = true;
int			guc_advisory_keyspace = ADVISORY_KEYSPACE_PRIVATE;
int			guc_stale_snapshot = STALE_SNAPSHOT_ERROR;
bool		guc_http_sqlstate = false;
int			guc_rate_limit_wait = 100;
int			guc_rate_limit_shared_keys = 100000;
int			guc_outbox_max_bytes = 1024 * 1024;
int			guc_outbox_read_wait = 1000;
bool		guc_worker_enabled = true;
int			guc_worker_max = 2;
int			guc_clock_offset = 0;
int			guc_clock_step = 0;
int			guc_hash_bits = 64;
int			guc_worker_speedup = 1;
char	   *guc_worker_fail_job = NULL;

/* The words of synchronous_commit; "off" leaves the decision to the session. */
static const struct config_enum_entry durability_options[] = {
	{"off", SYNCHRONOUS_COMMIT_OFF, false},
	{"local", SYNCHRONOUS_COMMIT_LOCAL_FLUSH, false},
	{"remote_write", SYNCHRONOUS_COMMIT_REMOTE_WRITE, false},
	{"on", SYNCHRONOUS_COMMIT_ON, false},
	{"remote_apply", SYNCHRONOUS_COMMIT_REMOTE_APPLY, false},
	{NULL, 0, false}
};

static const struct config_enum_entry keyspace_options[] = {
	{"private", ADVISORY_KEYSPACE_PRIVATE, false},
	{"shared", ADVISORY_KEYSPACE_SHARED, false},
	{NULL, 0, false}
};

static const struct config_enum_entry stale_snapshot_options[] = {
	{"error", STALE_SNAPSHOT_ERROR, false},
	{"warning", STALE_SNAPSHOT_WARNING, false},
	{"off", STALE_SNAPSHOT_OFF, false},
	{NULL, 0, false}
};

static void
define_limits(void)
{
	DefineCustomEnumVariable("distsys.durability",
							 "How durable a granted lease or claim is when COMMIT returns, whatever synchronous_commit says.",
							 "off: the session's synchronous_commit decides, and a crash can take back a grant.",
							 &guc_durability, SYNCHRONOUS_COMMIT_ON, durability_options,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("distsys.max_keys_per_transaction",
							"Most key locks that one transaction may hold.",
							"Each takes a place in the server's lock table, which all sessions share.",
							&guc_max_keys_per_transaction, 1000, 1, INT_MAX,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("distsys.max_function_wait",
							"Longest wait that a function accepts; CALL forms wait longer without a snapshot.",
							NULL,
							&guc_max_function_wait, 10000, 0, INT_MAX,
							PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("distsys.lease_max_ttl",
							"Longest time to live of a lease.",
							NULL,
							&guc_lease_max_ttl, 15 * 60 * 1000, 100, INT_MAX,
							PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("distsys.failover_delay",
							"How long after a promotion new leases, permits and terms are refused.",
							"-1: as long as the longest ttl that the new primary knows of, at least distsys.failover_min_delay. 0: not at all.",
							&guc_failover_delay, -1, -1, INT_MAX,
							PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("distsys.failover_min_delay",
							"Least delay after a promotion when distsys.failover_delay is -1.",
							NULL,
							&guc_failover_min_delay, 10 * 1000, 0, INT_MAX,
							PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("distsys.rate_limit_wait",
							"How long rate_limit_take waits for another transaction that uses the same bucket.",
							NULL,
							&guc_rate_limit_wait, 100, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("distsys.rate_limit_shared_keys",
							"How many keys of shared rate limits have room in shared memory.",
							"About 80 bytes each. Only with shared_preload_libraries.",
							&guc_rate_limit_shared_keys, 100000, 1000, 100 * 1000 * 1000,
							/* the server knows no such thing after its start; without shared memory it has no effect */
							process_shared_preload_libraries_in_progress ? PGC_POSTMASTER : PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("distsys.outbox_max_bytes",
							"Largest payload of one event.",
							NULL,
							&guc_outbox_max_bytes, 1024 * 1024, 1024, 256 * 1024 * 1024,
							PGC_SUSET, GUC_UNIT_BYTE, NULL, NULL, NULL);
	DefineCustomIntVariable("distsys.outbox_read_wait",
							"How long a reader waits for commits in progress before it stops at the settled position.",
							NULL,
							&guc_outbox_read_wait, 1000, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
}

static void
define_behaviour(void)
{
	DefineCustomBoolVariable("distsys.notice_in_transaction",
							 "Say when a lease that is acquired in a transaction block takes effect at commit only.",
							 NULL,
							 &guc_notice_in_transaction, true,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("distsys.advisory_keyspace",
							 "Whether xact_lock(name) and pg_advisory_xact_lock(lock_key(name)) exclude each other.",
							 "All sessions need the same value.",
							 &guc_advisory_keyspace, ADVISORY_KEYSPACE_PRIVATE, keyspace_options,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("distsys.stale_snapshot",
							 "What xact_lock and fence_pass do when the transaction's snapshot does not see who held the name before.",
							 NULL,
							 &guc_stale_snapshot, STALE_SNAPSHOT_ERROR, stale_snapshot_options,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("distsys.http_sqlstate",
							 "Raise refusals as PT409, PT422, PT429 or PT503, which PostgREST answers with that HTTP status.",
							 NULL,
							 &guc_http_sqlstate, false,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("distsys.worker_enabled",
							 "Run the housekeeping workers.",
							 NULL,
							 &guc_worker_enabled, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("distsys.worker_max",
							"Most housekeeping workers at once, each in one database.",
							NULL,
							&guc_worker_max, 2, 1, 16,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
}

static void
define_developer_settings(void)
{
	DefineCustomIntVariable("distsys.clock_offset",
							"Developer setting: added to both clocks, as if time had passed.",
							NULL,
							&guc_clock_offset, 0, INT_MIN, INT_MAX,
							PGC_SUSET, GUC_UNIT_MS | GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);
	DefineCustomIntVariable("distsys.clock_step",
							"Developer setting: added to the wall clock only, as if somebody had set it.",
							NULL,
							&guc_clock_step, 0, INT_MIN, INT_MAX,
							PGC_SUSET, GUC_UNIT_MS | GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);
	DefineCustomIntVariable("distsys.hash_bits",
							"Developer setting: bits of a name's hash that key locks use; few bits force collisions.",
							NULL,
							&guc_hash_bits, 64, 1, 64,
							PGC_SUSET, GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);
	DefineCustomIntVariable("distsys.worker_speedup",
							"Developer setting: housekeeping jobs run this many times as often.",
							NULL,
							&guc_worker_speedup, 1, 1, 1000,
							PGC_SUSET, GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);
	DefineCustomStringVariable("distsys.worker_fail_job",
							   "Developer setting: the housekeeping job of this name fails.",
							   NULL,
							   &guc_worker_fail_job, "",
							   PGC_SUSET, GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);
}

void
guc_init(void)
{
	define_limits();
	define_behaviour();
	define_developer_settings();
	MarkGUCPrefixReserved("distsys");
}
