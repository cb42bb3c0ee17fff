/*
 * maintain.c: what a person asks of the housekeeping: maintain() runs every job
 * now, distsys.worker_jobs shows how each one is doing.
 *
 * maintain() works in the caller's transaction: each job in a subtransaction
 * of its own, so that one that fails does not take the others with it. It needs no
 * shared memory, so a scheduler can call it where the library is not preloaded.
 */
#include "postgres.h"

#include "access/xact.h"
#include "compat.h"
#include "portability/instr_time.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "core/arg.h"
#include "core/keylock.h"
#include "core/result.h"
#include "core/shmem.h"
#include "worker/jobs.h"
#include "worker/status.h"

/* A job that maintain() runs gets this long, and its share of the keys that the transaction may hold; more is left to the next call. */
#define MAINTAIN_MS 2000.0

static int64
run_slices(const Job *job, int max_rows, double *elapsed_ms)
{
	JobSlice	slice = {0};
	int64		removed = 0;
	instr_time	start;
	instr_time	now;

	INSTR_TIME_SET_CURRENT(start);
	do
	{
		CHECK_FOR_INTERRUPTS();
		job_run_slice(job, &slice, max_rows - (int) removed);
		removed += slice.rows_removed;
		INSTR_TIME_SET_CURRENT(now);
		INSTR_TIME_SUBTRACT(now, start);
		*elapsed_ms = INSTR_TIME_GET_MILLISEC(now);
	} while (slice.more && removed < max_rows && *elapsed_ms < MAINTAIN_MS);
	return removed;
}

/* Runs the job in a subtransaction; returns the message of its error, or NULL. */
static char *
run_guarded(const Job *job, int max_rows, int64 *removed, double *elapsed_ms)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	char	   *volatile message = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		*removed = run_slices(job, max_rows, elapsed_ms);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		/* a cancel is meant for the whole call */
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		{
			MemoryContextSwitchTo(context);
			CurrentResourceOwner = owner;
			ReThrowError(error);
		}
		message = psprintf("%s (SQLSTATE %s)", error->message, unpack_sql_state(error->sqlerrcode));
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return message;
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_maintain);

/* maintain() -> SETOF (job text, rows_removed bigint, elapsed interval, error text) */
Datum
distsys_maintain(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly("distsys.maintain()");
	PreventCommandDuringRecovery("distsys.maintain()");
	PreventCommandIfParallelMode("distsys.maintain()");

	result_begin_set(fcinfo);
	for (int i = 0; i < jobs_count(); i++)
	{
		int64		removed = 0;
		double		elapsed_ms = 0;
		/* what one leaves of its share is for those after it */
		char	   *error = run_guarded(&jobs[i], keylock_room() / (jobs_count() - i), &removed, &elapsed_ms);
		Datum		values[4];
		bool		nulls[4] = {false};

		values[0] = CStringGetTextDatum(jobs[i].name);
		values[1] = Int64GetDatum(removed);
		values[2] = interval_datum((int64) (elapsed_ms * MILLISECONDS));
		nulls[3] = error == NULL;
		values[3] = error ? CStringGetTextDatum(error) : (Datum) 0;
		result_put(fcinfo, values, nulls);
	}
	return (Datum) 0;
}

static Datum
instant(TimestampTz value, bool *isnull)
{
	*isnull = value == 0;
	return TimestampTzGetDatum(value);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys__worker_jobs);

/*
 * One row per job: (job, period, last_started_at, last_success_at, next_run_at, consecutive_failures,
 * last_error, rows_removed); NULLs from the third on when no worker looks after this database.
 */
Datum
distsys__worker_jobs(PG_FUNCTION_ARGS)
{
	result_begin_set(fcinfo);
	for (int i = 0; i < jobs_count(); i++)
	{
		JobStatus	status = {0};
		bool		known = shmem_available() && status_job(MyDatabaseId, i, &status);
		Datum		values[8];
		bool		nulls[8] = {false};

		values[0] = CStringGetTextDatum(jobs[i].name);
		values[1] = interval_datum(jobs[i].period_s * SECONDS);
		values[2] = instant(status.last_started_at, &nulls[2]);
		values[3] = instant(status.last_success_at, &nulls[3]);
		values[4] = instant(status.next_run_at, &nulls[4]);
		values[5] = Int32GetDatum(status.failures);
		nulls[5] = nulls[7] = !known;
		nulls[6] = status.last_error[0] == '\0';
		values[6] = CStringGetTextDatum(status.last_error);
		values[7] = Int64GetDatum(status.rows_removed);
		result_put(fcinfo, values, nulls);
	}
	return (Datum) 0;
}
