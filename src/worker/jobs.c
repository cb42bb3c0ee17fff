/*
 * jobs.c: the table of housekeeping jobs, see jobs.h.
 */
#include "postgres.h"

#include "core/arg.h"
#include "core/guc.h"
#include "core/keylock.h"
#include "core/stats.h"
#include "idempotency/record.h"
#include "lock/leader.h"
#include "lock/lease_session.h"
#include "lock/semaphore.h"
#include "outbox/retention.h"
#include "ratelimit/durable.h"
#include "ratelimit/reservation.h"
#include "ratelimit/shared_snapshot.h"
#include "worker/jobs.h"

/* A failing job is tried again at least this often. */
#define LONGEST_DELAY (INT64CONST(3600) * SECONDS)

const Job	jobs[] = {
	{"lease_sweep", 30, TABLE_LEASE, lease_sweep},
	{"leader_sweep", 60, TABLE_LEADER, leader_sweep},
	{"lease_session_sweep", 60, TABLE_LEASE_SESSION, lease_session_sweep},
	{"lease_session_member_sweep", 60, TABLE_LEASE_SESSION_MEMBER, lease_session_member_sweep},
	{"semaphore_sweep", 60, TABLE_SEMAPHORE_PERMIT, semaphore_sweep},
	{"idempotency_expire", 60, TABLE_IDEMPOTENCY_RECORD, idempotency_expire},
	{"rate_limit_sweep", 60, TABLE_RATE_LIMIT_BUCKET, rate_limit_sweep},
	{"rate_limit_reservation_sweep", 60, TABLE_RATE_LIMIT_RESERVATION, rate_limit_reservation_sweep},
	{"rate_limit_snapshot", SHARED_SNAPSHOT_PERIOD_S, TABLE_RATE_LIMIT_SNAPSHOT, rate_limit_snapshot},
	{"outbox_retention", 60, TABLE_OUTBOX_EVENT, outbox_retention},
	{"outbox_settle", 10, TABLE_OUTBOX_SETTLED, outbox_settle},
};

int
jobs_count(void)
{
	StaticAssertStmt(lengthof(jobs) <= JOBS_MAX, "JOBS_MAX is the room in shared memory");
	return lengthof(jobs);
}

int64
job_delay(const Job *job, int failures)
{
	int64		delay = job->period_s * SECONDS / guc_worker_speedup;

	while (failures-- > 0 && delay < LONGEST_DELAY)
		delay *= 2;
	return Min(delay, LONGEST_DELAY);
}

void
job_run_slice(const Job *job, JobSlice *slice, int max_rows)
{
	slice->max_rows = at_most(Min(max_rows, JOB_SLICE_ROWS), keylock_room());
	slice->more = false;
	slice->rows_removed = 0;
	if (guc_worker_fail_job != NULL && strcmp(job->name, guc_worker_fail_job) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("job \"%s\" fails because distsys.worker_fail_job says so", job->name)));
	if (OidIsValid(catalog_relid_missing_ok(job->table)))
		job->run(slice);
	if (slice->rows_removed > 0)
		stats_add("worker", job->name, "rows_removed", slice->rows_removed);
}
