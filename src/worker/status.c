/*
 * status.c: the registry of databases and jobs in shared memory, see status.h.
 *
 * One LWLock guards everything; it is held for a walk over at most 256 entries
 * and nothing is called under it. The launcher adds, postpones and forgets
 * entries; a worker writes its own entry only; CREATE EXTENSION adds one at commit.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/timestamp.h"

#include "core/arg.h"
#include "core/shmem.h"
#include "worker/status.h"

typedef struct DatabaseStatus
{
	Oid			database;		/* InvalidOid: free */
	DatabaseState state;
	bool		asked;			/* for a visit, after the worker last looked for the extension */
	int			failures;		/* visits in a row that did not come to a regular end */
	TimestampTz not_before;		/* of the next visit */
	int			worker_pid;		/* 0: none */
	JobStatus	jobs[JOBS_MAX];
} DatabaseStatus;

typedef struct WorkerShared
{
	int			launcher_pid;
	bool		rescan;
	DatabaseStatus databases[STATUS_DATABASES];
} WorkerShared;

/* A visit that failed (FATAL at connect, no free worker slot) is tried again after 10 s, doubled up to an hour. */
#define FIRST_RETRY (10 * SECONDS)
#define LAST_RETRY (3600 * SECONDS)

static WorkerShared *shared = NULL;
static LWLockPadded *locks = NULL;

static Size
status_size(void)
{
	return sizeof(WorkerShared);
}

static void
status_init_memory(void *memory)
{
	/* all zero: no launcher, every entry free */
}

static const ShmemSegment segment = {
	.name = "DistsysWorker",
	.size = status_size,
	.init = status_init_memory,
	.memory = (void **) &shared,
	.nlocks = 1,
	.locks = &locks
};

void
status_init(void)
{
	shmem_register(&segment);
}

static DatabaseStatus *
find_database(Oid database)
{
	Assert(LWLockHeldByMe(&locks->lock));
	for (int i = 0; i < STATUS_DATABASES; i++)
	{
		if (shared->databases[i].database == database)
			return &shared->databases[i];
	}
	return NULL;
}

bool
status_visit(Oid database)
{
	DatabaseStatus *entry;

	LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
	entry = find_database(database);
	if (entry == NULL)
	{
		entry = find_database(InvalidOid);
		if (entry != NULL)
		{
			memset(entry, 0, sizeof(*entry));
			entry->database = database;
		}
	}
	if (entry != NULL)
	{
		entry->asked = true;
		entry->not_before = 0;
		if (entry->state == DATABASE_ABSENT)
			entry->state = DATABASE_UNKNOWN;
	}
	LWLockRelease(&locks->lock);
	return entry != NULL;
}

void
status_visit_begins(Oid database, TimestampTz now)
{
	DatabaseStatus *entry;

	LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
	entry = find_database(database);
	if (entry != NULL)
	{
		entry->not_before = now + Min(FIRST_RETRY << Min(entry->failures, 20), LAST_RETRY);
		entry->failures++;
	}
	LWLockRelease(&locks->lock);
}

void
status_visit_ended(Oid database, TimestampTz not_before)
{
	DatabaseStatus *entry;

	LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
	entry = find_database(database);
	if (entry != NULL)
	{
		entry->failures = 0;
		entry->not_before = not_before;
	}
	LWLockRelease(&locks->lock);
}

void
status_present(Oid database)
{
	DatabaseStatus *entry;

	LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
	entry = find_database(database);
	if (entry != NULL)
		entry->state = DATABASE_PRESENT;
	LWLockRelease(&locks->lock);
}

bool
status_absent(Oid database)
{
	DatabaseStatus *entry;
	bool		look_again = false;

	LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
	entry = find_database(database);
	if (entry != NULL)
	{
		look_again = entry->asked;
		entry->asked = false;
		if (!look_again)
			entry->state = DATABASE_ABSENT;
	}
	LWLockRelease(&locks->lock);
	return !look_again;
}

bool
status_forget_absent(Oid database)
{
	DatabaseStatus *entry;
	bool		absent;

	LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
	entry = find_database(database);
	absent = entry != NULL && entry->state == DATABASE_ABSENT && entry->worker_pid == 0;
	if (absent)
		entry->database = InvalidOid;
	LWLockRelease(&locks->lock);
	return absent;
}

void
status_forget(Oid database)
{
	DatabaseStatus *entry;

	LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
	entry = find_database(database);
	if (entry != NULL)
		entry->database = InvalidOid;
	LWLockRelease(&locks->lock);
}

/*
 * When is this job due? A clock that was set back does not stop it: a time that lies
 * further ahead than the job's own delay counts as "now".
 */
static TimestampTz
job_due(const JobStatus *status, int job, TimestampTz now)
{
	if (status->next_run_at > now + job_delay(&jobs[job], status->failures))
		return now;
	return status->next_run_at;
}

static TimestampTz
database_due(const DatabaseStatus *entry, TimestampTz now)
{
	TimestampTz due = DT_NOEND;
	/* the same for a clock that was set back */
	TimestampTz not_before = entry->not_before > now + LAST_RETRY ? now : entry->not_before;

	if (entry->worker_pid != 0)
		return DT_NOEND;
	if (entry->state == DATABASE_UNKNOWN)
		return not_before;
	for (int i = 0; i < jobs_count(); i++)
		due = at_most(due, job_due(&entry->jobs[i], i, now));
	return Max(due, not_before);
}

int
status_databases(DatabaseDue *due)
{
	TimestampTz now = GetCurrentTimestamp();
	int			n = 0;

	LWLockAcquire(&locks->lock, LW_SHARED);
	for (int i = 0; i < STATUS_DATABASES; i++)
	{
		DatabaseStatus *entry = &shared->databases[i];

		if (!OidIsValid(entry->database))
			continue;
		due[n].database = entry->database;
		due[n].state = entry->state;
		due[n].due = database_due(entry, now);
		n++;
	}
	LWLockRelease(&locks->lock);
	return n;
}

/* At exit of a worker, also by FATAL: the entry is free for the next, if it is still mine. */
static void
leave_database(int code, Datum arg)
{
	DatabaseStatus *entry;

	LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
	entry = find_database(DatumGetObjectId(arg));
	if (entry != NULL && entry->worker_pid == MyProcPid)
		entry->worker_pid = 0;
	LWLockRelease(&locks->lock);
}

bool
status_claim(Oid database)
{
	DatabaseStatus *entry;
	bool		mine;

	before_shmem_exit(leave_database, ObjectIdGetDatum(database));
	LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
	entry = find_database(database);
	mine = entry != NULL && entry->worker_pid == 0;
	if (mine)
		entry->worker_pid = MyProcPid;
	LWLockRelease(&locks->lock);
	return mine;
}

bool
status_job(Oid database, int job, JobStatus *out)
{
	DatabaseStatus *entry;

	LWLockAcquire(&locks->lock, LW_SHARED);
	entry = find_database(database);
	if (entry != NULL)
	{
		*out = entry->jobs[job];
		out->next_run_at = job_due(out, job, GetCurrentTimestamp());
	}
	LWLockRelease(&locks->lock);
	return entry != NULL;
}

void
status_job_started(Oid database, int job, TimestampTz now)
{
	DatabaseStatus *entry;

	LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
	entry = find_database(database);
	if (entry != NULL)
		entry->jobs[job].last_started_at = now;
	LWLockRelease(&locks->lock);
}

void
status_job_removed(Oid database, int job, int64 rows)
{
	DatabaseStatus *entry;

	LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
	entry = find_database(database);
	if (entry != NULL)
		entry->jobs[job].rows_removed += rows;
	LWLockRelease(&locks->lock);
}

void
status_job_succeeded(Oid database, int job, TimestampTz now)
{
	DatabaseStatus *entry;

	LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
	entry = find_database(database);
	if (entry != NULL)
	{
		JobStatus  *status = &entry->jobs[job];

		status->failures = 0;
		status->last_success_at = now;
		status->next_run_at = now + job_delay(&jobs[job], 0);
	}
	LWLockRelease(&locks->lock);
}

int
status_job_failed(Oid database, int job, TimestampTz now, const char *error)
{
	DatabaseStatus *entry;
	int			failures = 0;
	/* not in the middle of a character: it is shown as text */
	int			len = pg_mbcliplen(error, strlen(error), STATUS_ERROR_LEN - 1);

	LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
	entry = find_database(database);
	if (entry != NULL)
	{
		JobStatus  *status = &entry->jobs[job];

		failures = ++status->failures;
		memcpy(status->last_error, error, len);
		status->last_error[len] = '\0';
		status->next_run_at = now + job_delay(&jobs[job], failures);
	}
	LWLockRelease(&locks->lock);
	return failures;
}

static void
leave_launcher(int code, Datum arg)
{
	LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
	if (shared->launcher_pid == MyProcPid)
		shared->launcher_pid = 0;
	LWLockRelease(&locks->lock);
}

void
status_launcher_is_me(void)
{
	before_shmem_exit(leave_launcher, (Datum) 0);
	LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
	shared->launcher_pid = MyProcPid;
	LWLockRelease(&locks->lock);
}

void
status_wake_launcher(void)
{
	PGPROC	   *proc;
	int			pid;

	LWLockAcquire(&locks->lock, LW_SHARED);
	pid = shared->launcher_pid;
	LWLockRelease(&locks->lock);

	/* none runs on a standby, or during a restart of it: it looks at every database when it starts */
	proc = pid == 0 ? NULL : BackendPidGetProc(pid);
	if (proc != NULL)
		SetLatch(&proc->procLatch);
}

void
status_ask_rescan(void)
{
	LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
	shared->rescan = true;
	LWLockRelease(&locks->lock);
}

bool
status_take_rescan(void)
{
	bool		rescan;

	LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
	rescan = shared->rescan;
	shared->rescan = false;
	LWLockRelease(&locks->lock);
	return rescan;
}
