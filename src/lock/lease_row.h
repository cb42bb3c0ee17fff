/*
 * lease_row.h: the table lease_grant, for the files of leases only.
 *
 * One row per name: slot 0 is the exclusive grant. Its columns, its key, its NAME lock.
 */
#ifndef DISTSYS_LEASE_ROW_H
#define DISTSYS_LEASE_ROW_H

#include "core/keylock.h"
#include "lock/lease.h"
#include "store/row.h"

enum
{
	ATTR_NAME = 1,
	ATTR_SLOT,
	ATTR_OWNER,
	ATTR_ROLE,
	ATTR_MODE,
	ATTR_TOKEN,
	ATTR_TTL_US,
	ATTR_ACQUIRED_AT,
	ATTR_EXPIRES_AT,
	ATTR_EXPIRES_BOOT,
	ATTR_CLOCK_ID,
	ATTR_GRANT_XID,
	ATTR_RELEASED,
	ATTR_REQUEST_ID,
	ATTR_DATA,
	ATTR_MIN_HOLD_UNTIL,
	ATTR_SESSION_ID,
	NATTS = ATTR_SESSION_ID
};

#define EXCLUSIVE_SLOT 0

extern void lease_row_key(const NameArg *name, Datum *key);
extern void lease_name_tag(LOCKTAG *tag, const NameArg *name);
/* Reads without a lock; false: no row. The newest committed version, or our own. */
extern bool lease_read_latest(Relation rel, const NameArg *name, Lease *lease);
extern void lease_deadline_values(const Deadline *deadline, Datum *values);

#endif							/* DISTSYS_LEASE_ROW_H */
