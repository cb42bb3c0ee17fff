/*
 * jobs.h: the housekeeping jobs, one static table that the domains fill.
 *
 * A job is called slice by slice, each in a transaction of its own (the
 * worker) or in a subtransaction of the caller's (maintain()). It reaches
 * tables through the row store only, so no code of a user runs in it.
 */
#ifndef DISTSYS_JOBS_H
#define DISTSYS_JOBS_H

#include "store/sweep.h"

typedef struct Job
{
	const char *name;
	int			period_s;		/* from the end of one run to the start of the next */
	CatalogTable table;			/* nothing to do while the SQL objects are of an older version and lack it */
	void		(*run) (JobSlice *slice);
} Job;

/* Room in shared memory for each database. */
#define JOBS_MAX 16

extern const Job jobs[];
extern int	jobs_count(void);

/* Microseconds until the next run after `failures` failures in a row: the period, doubled each time up to an hour. */
extern int64 job_delay(const Job *job, int failures);
/* One slice of at most JOB_SLICE_ROWS and at most max_rows rows; raises what the job raises. */
#define JOB_SLICE_ROWS 500
extern void job_run_slice(const Job *job, JobSlice *slice, int max_rows);

#endif							/* DISTSYS_JOBS_H */
