/*
 * lease_session.h: one heartbeat for many leases.
 */
#ifndef DISTSYS_LEASE_SESSION_H
#define DISTSYS_LEASE_SESSION_H

#include "lock/lease.h"

/* A lease of a session, and what became of it at a renewal. */
typedef struct SessionLease
{
	NameArg		name;
	int64		token;
	LeaseReason reason;
	Lease		lease;
} SessionLease;

/*
 * SD002 unless the session is live, 42501 for a stranger. A lease of it lasts at least as long as its ttl and belongs to its
 * role, so that whoever may renew the session may renew its leases.
 */
extern void lease_session_check(const pg_uuid_t *id, int64 *ttl_us, Oid *role);
/* The lease was granted under that session, in this transaction. 54000 when the session has too many to be renewed at once. */
extern void lease_session_add(const pg_uuid_t *id, const NameArg *name, int64 token);

/* The lease was released. */
extern void lease_session_remove(const pg_uuid_t *id, const NameArg *name, int64 token);

extern void lease_session_open(const NameArg *owner, int64 ttl_us, pg_uuid_t *id);
/*
 * Prolongs the session and its leases, each by its own ttl; lost ones leave the session. One that another transaction is
 * renewing or releasing is LEASE_HELD and stays as it is. SD002 when the session is over.
 */
extern SessionLease *lease_session_renew(const pg_uuid_t *id, int *n);
/* Releases its leases; how many. 0 when there is no such session. */
extern int64 lease_session_close(const pg_uuid_t *id);
/* Jobs: sessions that are over; leases of sessions that are no more leave them. */
extern void lease_session_sweep(JobSlice *slice);
extern void lease_session_member_sweep(JobSlice *slice);

#endif							/* DISTSYS_LEASE_SESSION_H */
