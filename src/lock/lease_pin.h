/*
 * lease_pin.h: the leases that this transaction has asserted.
 */
#ifndef DISTSYS_LEASE_PIN_H
#define DISTSYS_LEASE_PIN_H

#include "lock/lease.h"

/* lease_assert() has succeeded: so it is to the end of this (sub)transaction. Leases proper only. */
extern void lease_pin_note(const LeaseKind *kind, const NameArg *name);
extern void lease_pin_init(void);

#endif							/* DISTSYS_LEASE_PIN_H */
