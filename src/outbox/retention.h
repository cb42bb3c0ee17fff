/*
 * retention.h: the outbox's housekeeping.
 */
#ifndef DISTSYS_RETENTION_H
#define DISTSYS_RETENTION_H

#include "store/sweep.h"

/* Job: removes events older than their topic's retention that every group has settled. */
extern void outbox_retention(JobSlice *slice);
/* Job: notes the settled bound for standbys. */
extern void outbox_settle(JobSlice *slice);

#endif							/* DISTSYS_RETENTION_H */
