/*
 * launcher.c: starts a worker in each database that has work.
 *
 * One process, started by the postmaster when recovery is over, so a standby
 * has none and a promotion starts it. It is attached to the shared catalogs
 * only and stands in nobody's way. It finds databases by looking at
 * pg_database, at start and every minute; the first visit of a worker tells whether the extension is
 * there. CREATE EXTENSION pokes it at commit.
 *
 *   unknown --visit--> present   visited whenever a job is due
 *                  \-> absent    remembered here; visited again when poked, and once an hour
 *
 * No free worker slot, a worker that dies at connect, a database that somebody wants:
 * tried again later, with one line in the log where there is something to do about it.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "compat.h"
#include "libpq/pqsignal.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "core/arg.h"
#include "core/guc.h"
#include "core/shmem.h"
#include "core/wait.h"
#include "core/xact.h"
#include "worker/launcher.h"
#include "worker/status.h"
#include "worker/worker.h"

#define MAX_WORKERS 16			/* the upper bound of distsys.worker_max */
#define SCAN_EVERY (60 * SECONDS)
/* A database without the extension is looked at again after this, should a poke have been lost. */
#define ABSENT_FOR (3600 * SECONDS)
/* Wait this long for a free worker slot, for a database that somebody wants, or for room. */
#define SHORT_PAUSE (2 * SECONDS)

PGDLLEXPORT void distsys_launcher_main(Datum arg);

typedef struct Running
{
	Oid			database;		/* InvalidOid: free */
	BackgroundWorkerHandle *handle;
} Running;

typedef struct Absent
{
	Oid			database;		/* key */
	TimestampTz until;
	bool		seen;			/* in the present scan of pg_database */
} Absent;

static Running running[MAX_WORKERS];
static HTAB *absent = NULL;
/* one log line per state */
static bool said_no_slot = false;
static bool said_no_room = false;

static void
forget_all_absent(void)
{
	HASHCTL		control = {0};

	if (absent != NULL)
		hash_destroy(absent);
	control.keysize = sizeof(Oid);
	control.entrysize = sizeof(Absent);
	control.hcxt = TopMemoryContext;
	absent = hash_create("distsys databases without the extension", 64, &control,
						 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* --- which databases are there? */

/* OIDs of the databases that a worker can connect to, in the current memory context. */
static List *
list_databases(void)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *databases = NIL;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old;

		if (!form->datallowconn || form->datistemplate || form->datconnlimit == DATCONNLIMIT_INVALID_DB)
			continue;
		old = MemoryContextSwitchTo(context);
		databases = lappend_oid(databases, form->oid);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return databases;
}

/* false: there is no room for it. */
static bool
visit_new_database(Oid database, TimestampTz now)
{
	Absent	   *entry = hash_search(absent, &database, HASH_FIND, NULL);

	if (entry != NULL)
		entry->seen = true;
	/* a time further ahead than that was written before the clock was set back */
	if (entry != NULL && entry->until > now && entry->until <= now + ABSENT_FOR)
		return true;
	return status_visit(database);
}

static void
say_no_room(void)
{
	if (!said_no_room)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("distsys launcher looks after %d databases and there are more", STATUS_DATABASES),
				 errhint("Call distsys.maintain() from a scheduler in the others.")));
	said_no_room = true;
}

/* Most databases take their room for one visit only: they do not have the extension. */
static bool
all_present(const DatabaseDue *known, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (known[i].state != DATABASE_PRESENT)
			return false;
	}
	return n == STATUS_DATABASES;
}

/*
 * A database that was dropped leaves the registry and the list of the absent.
 * `known` is older than `databases`, so a new one is not taken for dropped.
 */
static void
forget_dropped(const DatabaseDue *known, int n, const List *databases)
{
	HASH_SEQ_STATUS seq;
	Absent	   *entry;

	for (int i = 0; i < n; i++)
	{
		if (!list_member_oid(databases, known[i].database))
			status_forget(known[i].database);
	}
	hash_seq_init(&seq, absent);
	while ((entry = hash_seq_search(&seq)) != NULL)
	{
		if (!entry->seen)
			(void) hash_search(absent, &entry->database, HASH_REMOVE, NULL);
		else
			entry->seen = false;
	}
}

/* Returns when to look again. */
static TimestampTz
scan_databases(TimestampTz now)
{
	DatabaseDue known[STATUS_DATABASES];
	int			n = status_databases(known);
	List	   *databases = list_databases();
	bool		room = true;
	ListCell   *cell;

	foreach(cell, databases)
	{
		Oid			database = lfirst_oid(cell);
		bool		is_known = false;

		for (int i = 0; i < n && !is_known; i++)
			is_known = known[i].database == database;
		if (!is_known && !visit_new_database(database, now))
			room = false;
	}
	forget_dropped(known, n, databases);
	list_free(databases);
	if (room)
		return now + SCAN_EVERY;
	if (!all_present(known, n))
		return now + SHORT_PAUSE;
	say_no_room();
	return now + SCAN_EVERY;
}

/* --- workers */

static void
collect_finished(void)
{
	for (int i = 0; i < MAX_WORKERS; i++)
	{
		pid_t		pid;

		if (!OidIsValid(running[i].database) ||
			GetBackgroundWorkerPid(running[i].handle, &pid) != BGWH_STOPPED)
			continue;
		pfree(running[i].handle);
		running[i].database = InvalidOid;
	}
}

static void
remember_absent(Oid database, TimestampTz now)
{
	Absent	   *entry;

	if (!status_forget_absent(database))
		return;
	entry = hash_search(absent, &database, HASH_ENTER, NULL);
	entry->until = now + ABSENT_FOR;
	entry->seen = true;
}

/* A place for one more worker, or NULL; NULL too when one is there already. */
static Running *
free_place(Oid database)
{
	Running    *place = NULL;

	for (int i = 0; i < Min(guc_worker_max, MAX_WORKERS); i++)
	{
		if (!OidIsValid(running[i].database))
			place = &running[i];
	}
	for (int i = 0; i < MAX_WORKERS; i++)
	{
		if (running[i].database == database)
			return NULL;
	}
	return place;
}

/* Does anybody want the database for himself? A worker would wait for him at connect and take a slot. */
static bool
database_is_free(Oid database)
{
	bool		is_free;

	StartTransactionCommand();
	is_free = worker_lock_object(DatabaseRelationId, database, InvalidOid, RowExclusiveLock);
	CommitTransactionCommand();
	return is_free;
}

static void
say_no_slot(void)
{
	if (!said_no_slot)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("distsys launcher found no free worker slot"),
				 errhint("Increase max_worker_processes. The launcher goes on trying.")));
	said_no_slot = true;
}

/* Returns when to look at this database again. */
static TimestampTz
start_worker(Oid database, Running *place, TimestampTz now)
{
	if (!database_is_free(database))
		return now + SHORT_PAUSE;
	/* before the worker can end */
	status_visit_begins(database, now);
	if (!worker_start(database, &place->handle))
	{
		status_visit_ended(database, now + SHORT_PAUSE);
		say_no_slot();
		return now + SHORT_PAUSE;
	}
	said_no_slot = false;
	place->database = database;
	return DT_NOEND;
}

static int
by_due(const void *a, const void *b)
{
	TimestampTz x = ((const DatabaseDue *) a)->due;
	TimestampTz y = ((const DatabaseDue *) b)->due;

	return x < y ? -1 : x > y;
}

/* Starts what is due, what has been due for longest first; returns when something will be due next. */
static TimestampTz
start_due(TimestampTz now)
{
	DatabaseDue due[STATUS_DATABASES];
	int			n = status_databases(due);
	TimestampTz next = DT_NOEND;

	qsort(due, n, sizeof(DatabaseDue), by_due);
	for (int i = 0; i < n; i++)
	{
		Running    *place = free_place(due[i].database);

		if (due[i].state == DATABASE_ABSENT)
			remember_absent(due[i].database, now);
		else if (due[i].due > now)
			next = Min(next, due[i].due);
		else if (place != NULL)
			next = at_most(next, start_worker(due[i].database, place, now));
		/* else the end of a worker sets our latch */
	}
	return next;
}

/* --- the process */

static void
handle_interrupts(void)
{
	/* a shutdown is nothing to log a FATAL for */
	if (ProcDiePending)
		proc_exit(1);
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

void
distsys_launcher_main(Datum arg)
{
	TimestampTz next_scan = 0;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	SetConfigOption("application_name", "distsys launcher", PGC_USERSET, PGC_S_SESSION);
	/* a snapshot that is serializable, read-only and deferrable waits for other transactions */
	SetConfigOption("default_transaction_isolation", "read committed", PGC_USERSET, PGC_S_SESSION);
	forget_all_absent();
	status_launcher_is_me();
	pgstat_report_activity(STATE_IDLE, NULL);

	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();
		TimestampTz next = now + SCAN_EVERY;

		handle_interrupts();
		if (status_take_rescan())
		{
			forget_all_absent();
			next_scan = 0;
		}
		collect_finished();
		if (guc_worker_enabled)
		{
			/* also when the clock was set back */
			if (now >= next_scan || next_scan > now + SCAN_EVERY)
				next_scan = scan_databases(now);
			next = at_most(start_due(now), next_scan);
		}
		wait_latch(Max(next - now, 1), WAIT_LAUNCHER);
	}
}

/* --- the poke of CREATE EXTENSION */

static bool poke_at_commit = false;

static void
poke(bool committed)
{
	if (!poke_at_commit)
		return;
	poke_at_commit = false;
	if (!committed)
		return;
	if (!status_visit(MyDatabaseId))
		status_ask_rescan();
	status_wake_launcher();
}

static const XactActions poke_actions = {.end = poke};

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys__poke);

/* A rolled back savepoint is not noticed: the visit then finds nothing. */
Datum
distsys__poke(PG_FUNCTION_ARGS)
{
	poke_at_commit = shmem_available();
	PG_RETURN_BOOL(poke_at_commit);
}

void
launcher_init(void)
{
	BackgroundWorker launcher = {0};

	status_init();
	xact_register(&poke_actions);
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;
	launcher.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	launcher.bgw_start_time = BgWorkerStart_RecoveryFinished;
	launcher.bgw_restart_time = 10;
	snprintf(launcher.bgw_library_name, BGW_MAXLEN, "distsys");
	snprintf(launcher.bgw_function_name, BGW_MAXLEN, "distsys_launcher_main");
	snprintf(launcher.bgw_name, BGW_MAXLEN, "distsys launcher");
	snprintf(launcher.bgw_type, BGW_MAXLEN, "distsys launcher");
	RegisterBackgroundWorker(&launcher);
}
