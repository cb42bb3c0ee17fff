/*
 * lease_history.h: what happened to leases beside acquire, renew and release: the last events of the database.
 */
#ifndef DISTSYS_LEASE_HISTORY_H
#define DISTSYS_LEASE_HISTORY_H

#include "lock/lease.h"

/* event: expired (taken over by another grant), broken, transferred. lease: the grant it is about. reason may be NULL. */
extern void lease_history_add(const LeaseKind *kind, const NameArg *name, const char *event, const Lease *lease, const char *reason);

#endif							/* DISTSYS_LEASE_HISTORY_H */
