/*
 * lease_row.h: the rows of leases, for the files of leases and leaders only.
 *
 * Key (name, slot): slot 0 is the exclusive grant, shared grants have slots from 1 on, as many as were ever held
 * together. Who may write a row:
 *
 *   acquire of slot 0          NAME Exclusive
 *   acquire of a shared slot   NAME Share, SLOT Exclusive, and GRANT Exclusive of the dead grant in it
 *   holder (renew, release)    NAME RowExclusive (exclusive grant) or RowShare (shared), GRANT Exclusive
 */
#ifndef DISTSYS_LEASE_ROW_H
#define DISTSYS_LEASE_ROW_H

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
	ATTR_BROKEN,
	ATTR_MIN_HOLD_UNTIL,
	ATTR_MIN_HOLD_BOOT,
	ATTR_REQUEST_ID,
	ATTR_DATA,
	ATTR_SESSION_ID,
	NATTS = ATTR_SESSION_ID,
	/* further columns of leader_term */
	ATTR_STEP_DOWN,
	ATTR_SUCCESSOR,
	NATTS_MAX = ATTR_SUCCESSOR
};

#define EXCLUSIVE_SLOT INT64CONST(0)

/* A change of a row: set what changes, then lease_row_write(). */
typedef struct LeaseChange
{
	Datum		values[NATTS_MAX];
	bool		nulls[NATTS_MAX];
	bool		replace[NATTS_MAX];
} LeaseChange;

extern void lease_change_set(LeaseChange *change, int attnum, Datum value);
extern void lease_change_null(LeaseChange *change, int attnum);
/* Every column of a new grant; those of leaders that come after are NULL. request_id, session_id: NULL when none. */
extern void lease_grant_columns(const Lease *lease, const pg_uuid_t *request_id, const pg_uuid_t *session_id, LeaseChange *change);
/* Expiry at `deadline`; the end of min_hold goes over to the same clock. */
extern void lease_change_deadline(LeaseChange *change, const Lease *lease, const ClockReading *now, const Deadline *deadline);

extern void lease_name_tag(const LeaseKind *kind, LOCKTAG *tag, const NameArg *name);
extern void lease_intent_tag(const LeaseKind *kind, LOCKTAG *tag, const NameArg *name);
extern void lease_grant_tag(const LeaseKind *kind, LOCKTAG *tag, const NameArg *name, int64 token);
/* Slots are small and tokens are not: one space for both. */
extern void lease_slot_tag(const LeaseKind *kind, LOCKTAG *tag, const NameArg *name, int64 slot);

extern void lease_from_row(Relation rel, HeapTuple row, const ClockReading *now, Lease *lease);
/* One row: by a lock that excludes every writer, or as committed. NULL: there is none, and *lease is zero. */
extern HeapTuple lease_read_locked(Relation rel, const NameArg *name, int64 slot, Lease *lease, ClockReading *now);
extern HeapTuple lease_read_latest(Relation rel, const NameArg *name, int64 slot, Lease *lease);
/* The grant with this token, as committed. NULL: there is none, and *lease is the exclusive one, or zero. */
extern HeapTuple lease_find(Relation rel, const NameArg *name, int64 token, Lease *lease);
/* The shared grants of a name, as committed; the tuple is valid until the next call. */
extern RowScan *lease_scan_shared(Relation rel, const NameArg *name);

#endif							/* DISTSYS_LEASE_ROW_H */
