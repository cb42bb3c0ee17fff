/*
 * jobs.h: the housekeeping jobs, a static table that the domains fill. Each
 * runs in the worker and, the same code, in distsys.maintain().
 */
#ifndef DISTSYS_JOBS_H
#define DISTSYS_JOBS_H

typedef struct JobSlice
{
	BlockNumber block;			/* where a sweep goes on; 0 at the start of a run */
	bool		more;			/* set by the job: call again, there is more to do */
	int64		rows_removed;	/* set by the job, of this slice */
} JobSlice;

#endif							/* DISTSYS_JOBS_H */
