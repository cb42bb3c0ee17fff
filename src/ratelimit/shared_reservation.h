/*
 * shared_reservation.h: what was reserved ahead from shared limits, so that it can be cancelled.
 *
 * A reservation is an entry of the same map until its time comes; then it may go, since nothing can be given back. Numbers
 * are odd, below 2^53 and cannot be guessed. Whoever removes the entry gives back: it happens once.
 */
#ifndef DISTSYS_SHARED_RESERVATION_H
#define DISTSYS_SHARED_RESERVATION_H

#include "ratelimit/shared_map.h"

/* Remembers a reservation from the limit; act_at by shared_now(). 0: there is no room, and it cannot be cancelled. */
extern int64 shared_reservation_make(const ShmapKey *limit, int64 cost, int64 act_at);
/* What was given back; 0: unknown, cancelled, has acted, or promised to later ones. */
extern int64 shared_reservation_cancel(int64 number);

#endif							/* DISTSYS_SHARED_RESERVATION_H */
