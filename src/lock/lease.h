/*
 * lease.h: leases, held for a time across transactions, connections and poolers.
 */
#ifndef DISTSYS_LEASE_H
#define DISTSYS_LEASE_H

#include "utils/uuid.h"

#include "core/arg.h"
#include "core/clock.h"
#include "store/sweep.h"

typedef enum LeaseReason
{
	LEASE_OK,
	LEASE_HELD,
	LEASE_PINNED,
	LEASE_TIMEOUT
} LeaseReason;

/* A lease as the row has it, judged at one reading of the clock. Datums point into memory of the current context. */
typedef struct Lease
{
	Datum		name;
	Datum		owner;			/* 0: not known, the grant is not committed yet */
	Oid			role;
	int64		token;
	int64		ttl_us;
	TimestampTz acquired_at;
	Deadline	deadline;
	int64		grant_xid;		/* full transaction id of the grant */
	bool		has_request;
	pg_uuid_t	request_id;		/* of the call that got it */
	bool		live;
	int64		left_us;		/* until it expires, when live */
	TimestampTz expires_at;		/* on this server's wall clock */
} Lease;

/* What acquire is asked for. */
typedef struct LeaseRequest
{
	NameArg		name;
	NameArg		owner;
	int64		ttl_us;
	const pg_uuid_t *request_id;	/* NULL: none */
} LeaseRequest;

/*
 * Grants the lease or says why not; *lease is the grant, or the present holder when it is known (owner != 0).
 * *again: this is the live grant that the same request_id has got before.
 */
extern LeaseReason lease_acquire(const LeaseRequest *request, int64 wait_us, Lease *lease, bool *again);
/* ttl_us 0: the ttl it has. SD002 unless token is the live grant. */
extern void lease_renew(const NameArg *name, int64 token, int64 ttl_us, Lease *lease);
extern bool lease_release(const NameArg *name, int64 token);
/* SD002 unless token is the live grant with at least min_remaining_us left; pins it to the end of the (sub)transaction. */
extern void lease_assert(const NameArg *name, int64 token, int64 min_remaining_us);
/* The lease as it is, without a lock; false: no such row. */
extern bool lease_read(const NameArg *name, Lease *lease);

/* Reads a row of lease_grant. */
extern void lease_from_row(Relation rel, HeapTuple row, const ClockReading *now, Lease *lease);

/* Job: removes leases that have been dead for a minute. */
extern void lease_sweep(JobSlice *slice);

#endif							/* DISTSYS_LEASE_H */
