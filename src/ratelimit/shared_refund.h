/*
 * shared_refund.h: what a transaction gives back to shared limits when it aborts (on_abort 'refund').
 *
 * Exactly once: at the abort of the (sub)transaction that took it, or when the backend ends
 * inside it. Nothing at commit. PREPARE with something pending is 0A000: the server tells nobody of
 * a ROLLBACK PREPARED.
 */
#ifndef DISTSYS_SHARED_REFUND_H
#define DISTSYS_SHARED_REFUND_H

#include "ratelimit/shared_map.h"

typedef struct SharedRefund
{
	ShmapKey	key;
	int64		amount;			/* below 0: was given back, and is taken again */
	int64		at_us;			/* when, by shared_now(); a window that is over gets nothing back */
	int64		reservation;	/* instead of all that: cancel this, see shared_reservation.h; 0: none */
} SharedRefund;

extern void shared_refund_init(void);
/* Makes room for n more, since that can fail, before anything is taken. */
extern void shared_refund_reserve(int n);
extern void shared_refund_note(const SharedRefund *refund);
/* What was noted last is owed no more. */
extern void shared_refund_forget(void);
/* Gives it back now. */
extern void shared_refund_give(const SharedRefund *refund);

#endif							/* DISTSYS_SHARED_REFUND_H */
