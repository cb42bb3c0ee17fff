/*
 * group.h: consumer groups and their cursors.
 */
#ifndef DISTSYS_GROUP_H
#define DISTSYS_GROUP_H

#include "core/arg.h"
#include "core/clock.h"
#include "core/keylock.h"
#include "store/row.h"

typedef struct GroupConfig
{
	int64		ttl_us;			/* of a claim */
	int32		max_attempts;
	int64		backoff_base_us;
	int64		backoff_cap_us;
} GroupConfig;

/* An event that was handed out and is not settled yet. */
typedef struct Delivery
{
	int64		receipt;
	int64		position;
	int32		attempt;
	bool		retried;		/* it came from outbox_retry, which has a copy */
} Delivery;

/*
 * The state of a group, one row. Everything up to position is settled: acknowledged, in
 * outbox_retry or in outbox_dead_letter. Receipts from claim_base to
 * receipt_last belong to the present claim.
 */
typedef struct Cursor
{
	int64		position;
	int64		fetched;		/* the highest position ever handed out */
	int64		epoch;			/* rises with each claim by somebody else */
	Datum		member;			/* 0: none yet */
	int32		pid;			/* of the backend that fetched */
	int64		claim_base;
	int64		receipt_last;
	int64		ttl_through;	/* the deadline counts for receipts up to this one */
	Deadline	deadline;
	Delivery   *in_flight;		/* in the order of their positions */
	int			nin_flight;
} Cursor;

/* 42704 with the create call in the HINT. */
extern void group_get(const NameArg *topic, const NameArg *group, GroupConfig *config);
extern bool group_exists_on(const NameArg *topic);
extern void group_tag(LOCKTAG *tag, const NameArg *topic, const NameArg *group);

/* Reads the row; the group's key lock is held in Exclusive. */
extern HeapTuple cursor_read_locked(Relation rel, const NameArg *topic, const NameArg *group, Cursor *cursor);
extern void cursor_write(Relation rel, HeapTuple old, const NameArg *topic, const NameArg *group, const Cursor *cursor);
/* Is the event of that position among these, which are in the order of their positions? */
extern bool deliveries_have(const Delivery *deliveries, int n, int64 position);
/* The lowest position that some group of the topic has not settled; PG_INT64_MAX when no group holds anything back. */
extern int64 cursor_lowest(const NameArg *topic);

#endif							/* DISTSYS_GROUP_H */
