/*
 * worker.c: runs the due jobs of one database and leaves.
 *
 * Each slice of a job is a transaction of its own, and between slices none is
 * open. Before each slice, and every 500 ms while it lingers, the worker tries
 * the lock of its database; when DROP DATABASE, CREATE DATABASE ... TEMPLATE or
 * ALTER DATABASE has it, the worker leaves, so that they succeed (they wait five seconds for others
 * to leave). In each transaction it holds the extension's lock, so DROP EXTENSION waits for one slice at most,
 * and looks again whether the extension is there.
 *
 * It is connected as the bootstrap superuser and therefore runs our own jobs only: they use
 * the row store, which calls nobody's functions.
 *
 * A job that fails is logged at its first failure in a row and tried again later and
 * later; the others go on.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "compat.h"
#include "libpq/pqsignal.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/arg.h"
#include "core/guc.h"
#include "core/stats.h"
#include "core/wait.h"
#include "worker/jobs.h"
#include "worker/status.h"
#include "worker/worker.h"

/* Stays this long for a job that is due soon: cheaper than a new process. */
#define LINGER (3 * SECONDS)
/* Tries the lock of the database this often meanwhile. */
#define PROBE_EVERY (500 * MILLISECONDS)
/* Not again before this, when somebody wants the database or the extension. */
#define STAY_AWAY (2 * SECONDS)

PGDLLEXPORT void distsys_worker_main(Datum arg);

bool
worker_start(Oid database, BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = ObjectIdGetDatum(database);
	worker.bgw_notify_pid = MyProcPid;
	snprintf(worker.bgw_library_name, BGW_MAXLEN, "distsys");
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "distsys_worker_main");
	snprintf(worker.bgw_name, BGW_MAXLEN, "distsys worker for database %u", database);
	snprintf(worker.bgw_type, BGW_MAXLEN, "distsys worker");
	return RegisterDynamicBackgroundWorker(&worker, handle);
}

bool
worker_lock_object(Oid catalog, Oid object, Oid database, LOCKMODE mode)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, database, catalog, object, 0);
	if (LockAcquire(&tag, mode, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	/* what was committed before the lock was ours is seen now */
	AcceptInvalidationMessages();
	return true;
}

static void
begin(const char *activity)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, activity);
}

static void
commit(void)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
}

/* In a transaction: may we work in this database, now? */
static bool
database_is_ours(void)
{
	return worker_lock_object(DatabaseRelationId, MyDatabaseId, InvalidOid, RowExclusiveLock);
}

typedef enum ExtensionState
{
	EXTENSION_ABSENT,
	EXTENSION_BUSY,				/* DROP or ALTER EXTENSION is at work */
	EXTENSION_LOCKED			/* there, and it stays to the end of this transaction */
} ExtensionState;

static ExtensionState
lock_extension(void)
{
	Oid			extension = get_extension_oid("distsys", true);

	if (!OidIsValid(extension))
		return EXTENSION_ABSENT;
	if (!worker_lock_object(ExtensionRelationId, extension, MyDatabaseId, AccessShareLock))
		return EXTENSION_BUSY;
	return get_extension_oid("distsys", true) == extension ? EXTENSION_LOCKED : EXTENSION_ABSENT;
}

/* Leaves for a regular reason. */
static void
leave(TimestampTz not_before)
{
	if (IsTransactionState())
		commit();
	status_visit_ended(MyDatabaseId, not_before);
	proc_exit(0);
}

/* Between transactions. */
static void
leave_if_told(void)
{
	/* a shutdown is nothing to log a FATAL for */
	if (ProcDiePending)
		proc_exit(1);
	CHECK_FOR_INTERRUPTS();
}

/* Starts a transaction in which the job may run; else leaves for good. */
static void
begin_or_leave(const char *activity)
{
	ExtensionState state;

	begin(activity);
	if (!database_is_ours())
		leave(GetCurrentTimestamp() + STAY_AWAY);
	while ((state = lock_extension()) == EXTENSION_ABSENT)
	{
		if (status_absent(MyDatabaseId))
			leave(0);
		commit();
		begin(activity);
	}
	if (state == EXTENSION_BUSY)
		leave(GetCurrentTimestamp() + STAY_AWAY);
	status_present(MyDatabaseId);
}

static void
job_failed(int job)
{
	ErrorData  *error;

	MemoryContextSwitchTo(TopMemoryContext);
	error = CopyErrorData();
	if (status_job_failed(MyDatabaseId, job, GetCurrentTimestamp(), error->message) == 1)
		EmitErrorReport();
	FreeErrorData(error);
	stats_add("worker", jobs[job].name, "failed", 1);
	AbortCurrentTransaction();
	FlushErrorState();
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
}

static void
add_context(void *arg)
{
	errcontext("housekeeping job \"%s\" in database %u", ((const Job *) arg)->name, MyDatabaseId);
}

/* One slice in its own transaction. */
static void
run_slice(int job, JobSlice *slice)
{
	ErrorContextCallback callback = {0};

	begin_or_leave(jobs[job].name);
	callback.callback = add_context;
	callback.arg = unconstify(Job *, &jobs[job]);
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	PG_TRY();
	{
		job_run_slice(&jobs[job], slice, JOB_SLICE_ROWS);
		commit();
		status_job_removed(MyDatabaseId, job, slice->rows_removed);
		if (!slice->more)
			status_job_succeeded(MyDatabaseId, job, GetCurrentTimestamp());
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		job_failed(job);
		memset(slice, 0, sizeof(*slice));
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	error_context_stack = callback.previous;
}

/* One slice of each job that is due or has more to do; returns the microseconds until the next. */
static int64
run_due_jobs(JobSlice *slices)
{
	int64		next = PG_INT64_MAX;

	for (int i = 0; i < jobs_count(); i++)
	{
		TimestampTz now = GetCurrentTimestamp();
		JobStatus	status;

		leave_if_told();
		if (!status_job(MyDatabaseId, i, &status))
			leave(0);
		if (!slices[i].more && status.next_run_at > now)
		{
			next = Min(next, status.next_run_at - now);
			continue;
		}
		if (!slices[i].more)
			status_job_started(MyDatabaseId, i, now);
		run_slice(i, &slices[i]);
		next = 0;
	}
	return next;
}

static void
set(const char *name, const char *value)
{
	/* not every setting is there in every version */
	if (GetConfigOption(name, true, false) != NULL)
		SetConfigOption(name, value, PGC_USERSET, PGC_S_SESSION);
}

/* Nobody waits for the commits of this process, it waits for nobody's lock, and what a database sets for its users is not for it. */
static void
configure(void)
{
	set("application_name", "distsys worker");
	set("search_path", "pg_catalog, pg_temp");
	set("synchronous_commit", "off");
	set("lock_timeout", "1s");
	set("transaction_timeout", "0");
	set("default_transaction_read_only", "off");
	set("default_transaction_isolation", "read committed");
}

void
distsys_worker_main(Datum arg)
{
	Oid			database = DatumGetObjectId(arg);
	JobSlice	slices[JOBS_MAX] = {0};

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	if (!status_claim(database))
		proc_exit(0);
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	configure();

	begin_or_leave("looking for the extension");
	commit();
	for (;;)
	{
		int64		idle = run_due_jobs(slices);

		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (!guc_worker_enabled || idle > LINGER)
			leave(0);
		if (idle > 0)
		{
			wait_latch(Min(idle, PROBE_EVERY), WAIT_WORKER);
			leave_if_told();
			begin_or_leave("looking for the extension");
			commit();
		}
	}
}
