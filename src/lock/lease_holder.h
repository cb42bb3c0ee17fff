/*
 * lease_holder.h: how a holder's row is locked for writing, for the files of leases and leaders only.
 */
#ifndef DISTSYS_LEASE_HOLDER_H
#define DISTSYS_LEASE_HOLDER_H

#include "lock/lease_row.h"

/*
 * Pins the lease, locks the grant for writing and reads it: the row, or NULL with *why when token is not the
 * live grant; then nothing is locked.
 */
extern HeapTuple lease_hold(const LeaseKind *kind, Relation rel, const NameArg *name, int64 token,
							Lease *lease, ClockReading *now, const char **why);
/* The same; SD002, and 42501 for a role without the holder's rights. */
extern HeapTuple lease_hold_or_raise(const LeaseKind *kind, Relation rel, const NameArg *name, int64 token,
									 Lease *lease, ClockReading *now);
/* Gives back what lease_hold() has locked: for a call that writes nothing after all. */
extern void lease_let_go(const LeaseKind *kind, const NameArg *name, int64 token, LOCKMODE pin_mode);
/* The mode of NAME that pins this grant. */
extern LOCKMODE lease_pin_mode(const Lease *lease);
extern void lease_lock_grant(const LeaseKind *kind, const NameArg *name, int64 token);
extern void lease_check_role(const LeaseKind *kind, const NameArg *name, Oid role);
pg_noreturn extern void lease_raise_not_held(const LeaseKind *kind, const NameArg *name, const char *why);

#endif							/* DISTSYS_LEASE_HOLDER_H */
