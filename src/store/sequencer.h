/*
 * sequencer.h: gives events a position in commit order, without a slot, a gap
 * timeout or an exclusive lock.
 *
 * Events of a transaction wait in one tuplestore and are written at
 * PRE_COMMIT under a SHARE lock that falls after the commit is visible, with positions drawn
 * after that lock. A reader learns the settled bound: every position up to it is visible
 * or will never exist.
 */
#ifndef DISTSYS_SEQUENCER_H
#define DISTSYS_SEQUENCER_H

#include "store/row.h"

/* Columns of outbox_event_log; their names are the ones that Debezium's outbox event router reads. */
enum
{
	EVENT_TOPIC = 1,			/* aggregatetype */
	EVENT_POSITION,
	EVENT_ID,
	EVENT_TYPE,
	EVENT_KEY,					/* aggregateid */
	EVENT_PAYLOAD,
	EVENT_BODY,
	EVENT_HEADERS,
	EVENT_OCCURRED_AT,
	EVENT_NATTS = EVENT_OCCURRED_AT
};

/*
 * Appends a row for outbox_event to the transaction's pending list; values are all columns,
 * EVENT_POSITION is filled at PRE_COMMIT; values must be detoasted. 55000 after the flush of this transaction.
 */
extern void sequencer_append(const Datum *values, const bool *nulls);
/*
 * The settled bound as of now, waiting up to distsys.outbox_read_wait for commits in progress.
 * Must be called before the scan's snapshot is taken (row_scan_begin).
 */
extern int64 sequencer_settle(void);
/* Notes a settled bound in outbox_settled, where standbys and readers whose wait timed out find it. Needs a transaction that may write; now and then only. */
extern void sequencer_record(int64 settled);
/* Waits for publishers in their commit and keeps others out to the end of this transaction (all tags, Exclusive). */
extern void sequencer_stop(void);
extern void sequencer_init(void);

#endif							/* DISTSYS_SEQUENCER_H */
