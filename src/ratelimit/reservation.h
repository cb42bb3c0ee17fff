/*
 * reservation.h: what was reserved ahead, so that it can be cancelled.
 *
 * The tokens are taken from the limit when the reservation is made; a row of
 * rate_limit_reservation remembers which, until its time comes. It belongs to
 * the transaction, as the take does. Numbers are below 2^53; durable ones are even, shared ones odd.
 */
#ifndef DISTSYS_RATE_RESERVATION_H
#define DISTSYS_RATE_RESERVATION_H

#include "ratelimit/limiter.h"
#include "store/sweep.h"

/* Numbers the take, which holds the key lock, and stores what it has reserved. */
extern void reservation_insert(RateTake *take);
/* Gives back what is not promised to later ones; 0 as well when it is unknown, cancelled or has acted. SD202: the limit is held by somebody else. */
extern int64 reservation_cancel(int64 reservation);

/* Job: removes reservations that have acted. */
extern void rate_limit_reservation_sweep(JobSlice *slice);

#endif							/* DISTSYS_RATE_RESERVATION_H */
