/*
 * sweep.h: housekeeping of tables that have no index on a time: walks the heap
 * in slices and deletes rows that their domain condemns, each under its key lock.
 */
#ifndef DISTSYS_SWEEP_H
#define DISTSYS_SWEEP_H

#include "storage/block.h"
#include "storage/lock.h"
#include "store/row.h"

/* One slice of a job. A job function has the shape void job(JobSlice *slice) and is called in its own transaction (or in maintain()'s). */
typedef struct JobSlice
{
	int			max_rows;		/* set by the caller: remove no more, each holds a key lock to the end of the transaction */
	BlockNumber block;			/* where a sweep goes on; 0 at the start of a run */
	bool		more;			/* set by the job: call again, there is more to do */
	int64		rows_removed;	/* set by the job, of this slice */
} JobSlice;

typedef struct RowSweep
{
	/* may the row go? asked once without and once under the lock */
	bool		(*dead) (Relation rel, HeapTuple tuple, void *arg);
	/* the key lock that every writer of this row takes */
	void		(*tag) (Relation rel, HeapTuple tuple, LOCKTAG *tag, void *arg);
	void	   *arg;
} RowSweep;

/* One slice: at most 256 pages and slice->max_rows rows. A row whose key lock is taken is skipped. */
extern void sweep_slice(Relation rel, const RowSweep *sweep, JobSlice *slice);

#endif							/* DISTSYS_SWEEP_H */
