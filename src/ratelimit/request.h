/*
 * request.h: the limits of one call: their policies, what they answer before
 * they are looked at, and the order in which they are decided.
 */
#ifndef DISTSYS_RATE_REQUEST_H
#define DISTSYS_RATE_REQUEST_H

#include "ratelimit/limiter.h"

/* Reads the policy and fills in the answer of a limit that is full. 42704 unknown, 0A000 a reservation from a window. */
extern void request_prepare(RateTake *take, int ord);
/* 55000 as well: a shared limit without shared memory. */
extern void request_prepare_all(RateTake *takes, int n);
/* Durable limits first, in the order in which locks are taken. 22023 the same limit twice, 25001 a policy forbids transaction blocks. */
extern void request_sort(RateTake *takes, int n);
/* As they were asked for. */
extern void request_restore_order(RateTake *takes, int n);
extern int	request_count_durable(const RateTake *takes, int n);

#endif							/* DISTSYS_RATE_REQUEST_H */
