/*
 * status.h: what launcher and workers know about each database, in shared
 * memory: whether the extension is there, when its next job is due, and the
 * state of each job. Seen in the view distsys.worker_jobs. Starts empty after
 * a restart; everything in it is found again by a visit.
 *
 * A database that was looked at and does not have the extension takes no room
 * here: the launcher keeps those in a list of its own.
 */
#ifndef DISTSYS_STATUS_H
#define DISTSYS_STATUS_H

#include "datatype/timestamp.h"
#include "worker/jobs.h"

/* Databases with the extension that one server's launcher looks after. */
#define STATUS_DATABASES 256
#define STATUS_ERROR_LEN 256

typedef enum DatabaseState
{
	DATABASE_UNKNOWN,			/* to be visited */
	DATABASE_ABSENT,			/* visited: no extension; the launcher takes the entry away */
	DATABASE_PRESENT
} DatabaseState;

typedef struct DatabaseDue
{
	Oid			database;
	DatabaseState state;
	TimestampTz due;			/* of the next visit; DT_NOEND while a worker is there */
} DatabaseDue;

typedef struct JobStatus
{
	TimestampTz last_started_at;	/* 0: never */
	TimestampTz last_success_at;	/* 0: never */
	TimestampTz next_run_at;	/* 0: at once */
	int32		failures;		/* in a row */
	int64		rows_removed;	/* since the server started */
	char		last_error[STATUS_ERROR_LEN];	/* stays after a success */
} JobStatus;

extern void status_init(void);	/* registers the segment; before shmem_init() */

/* --- the registry of databases. Without an entry the calls do nothing. */

/* Gives the database an entry and has it visited as soon as possible. false: no room. Safe in a commit callback. */
extern bool status_visit(Oid database);
/* The launcher starts a worker there: until it says status_visit_ended(), the next try waits longer each time. */
extern void status_visit_begins(Oid database, TimestampTz now);
/* A regular end; the next visit is due with the next job, but not before that time (0: no bound). */
extern void status_visit_ended(Oid database, TimestampTz not_before);
/* What the worker found. status_absent: false when somebody asked for a visit meanwhile: look again. */
extern void status_present(Oid database);
extern bool status_absent(Oid database);
extern void status_forget(Oid database);
/* Forgets it if it is (still) absent. */
extern bool status_forget_absent(Oid database);
/* Copies all entries (room for STATUS_DATABASES); returns how many. */
extern int	status_databases(DatabaseDue *due);

/* --- the jobs of one database */

/* I am the worker of this database, until I exit; false: there is one already. Call once. */
extern bool status_claim(Oid database);
/* false: no entry */
extern bool status_job(Oid database, int job, JobStatus *out);
extern void status_job_started(Oid database, int job, TimestampTz now);
extern void status_job_removed(Oid database, int job, int64 rows);
extern void status_job_succeeded(Oid database, int job, TimestampTz now);
/* Returns how many times in a row. */
extern int	status_job_failed(Oid database, int job, TimestampTz now, const char *error);

/* --- waking the launcher */

extern void status_launcher_is_me(void);
/* Safe in a commit callback. */
extern void status_wake_launcher(void);
/* Look at every database again, for somebody who found no room. Safe in a commit callback. */
extern void status_ask_rescan(void);
extern bool status_take_rescan(void);

#endif							/* DISTSYS_STATUS_H */
