/*
 * leader.h: leaders of elections. A term of a leader is a lease of its own kind: the term's number is its
 * fencing token, the candidate its owner, the value its data.
 */
#ifndef DISTSYS_LEADER_H
#define DISTSYS_LEADER_H

#include "lock/lease.h"

extern const LeaseKind leader_kind;

/* Leaves the election's leadership; successor (may be NULL) alone can be elected for as long as the term would have lasted. false: not led any more. */
extern bool leader_resign(const NameArg *election, int64 term, const NameArg *successor);
/* Asks the present leader to resign; he sees it at his next renewal. false: there is none. */
extern bool leader_request_step_down(const NameArg *election, const char *reason);
/* Job: removes terms that have been over for a minute. */
extern void leader_sweep(JobSlice *slice);
extern void leader_init(void);

#endif							/* DISTSYS_LEADER_H */
