/*
 * catalog.h: the OIDs of our own tables, sequences and row types, looked up by
 * name in schema distsys and cached until a relcache or namespace invalidation.
 */
#ifndef DISTSYS_CATALOG_H
#define DISTSYS_CATALOG_H

#include "storage/lockdefs.h"
#include "utils/relcache.h"

#define DISTSYS_SCHEMA "distsys"

typedef enum CatalogTable
{
	TABLE_TOKEN_STATE,
	TABLE_LEASE,
	TABLE_LEASE_SESSION,
	TABLE_LEASE_SESSION_MEMBER,
	TABLE_LEASE_EVENT,
	TABLE_LEADER,
	TABLE_FENCE,
	TABLE_IDEMPOTENCY_POLICY,
	TABLE_IDEMPOTENCY_RECORD,
	TABLE_RATE_LIMIT_POLICY,
	TABLE_RATE_LIMIT_BUCKET,
	TABLE_RATE_LIMIT_TIER,
	TABLE_RATE_LIMIT_TIER_POLICY,
	TABLE_RATE_LIMIT_SUBJECT,
	TABLE_RATE_LIMIT_OVERRIDE,
	TABLE_RATE_LIMIT_RESERVATION,
	TABLE_RATE_LIMIT_SNAPSHOT,	/* shared limits, for the next life of the server */
	TABLE_OUTBOX_TOPIC,
	TABLE_OUTBOX_EVENT,
	TABLE_OUTBOX_GROUP,			/* configuration of a group */
	TABLE_OUTBOX_CURSOR,		/* state of a group */
	TABLE_OUTBOX_RETRY,
	TABLE_OUTBOX_DEAD_LETTER,
	TABLE_OUTBOX_SETTLED,
	TABLE_OUTBOX_RETAINED,		/* what retention has removed */
	TABLE_SEMAPHORE,
	TABLE_SEMAPHORE_PERMIT,
	SEQUENCE_LEASE_EVENT,
	SEQUENCE_TOKEN,
	SEQUENCE_POSITION,
	SEQUENCE_RECEIPT,
	SEQUENCE_RESERVATION,
	TYPE_LEASE,
	TYPE_LEADER,
	TYPE_IDEMPOTENCY_RESULT,
	TYPE_RATE_LIMIT_RESULT,
	TYPE_OUTBOX_EVENT,
	TYPE_OUTBOX_DELIVERY,
	TYPE_SEMAPHORE_GRANT,
	CATALOG_COUNT
} CatalogTable;

/* OID of the relation; 55000 when the extension is not (completely) there. */
extern Oid	catalog_relid(CatalogTable which);
/* Opens it under that lock; 55000 also when it has been dropped while we waited for the lock. */
extern Relation catalog_open(CatalogTable which, LOCKMODE mode);
/* InvalidOid when it is not there: for workers that look whether there is anything to do. */
extern Oid	catalog_relid_missing_ok(CatalogTable which);
/* OID of the row type of a TYPE_ entry. */
extern Oid	catalog_type(CatalogTable which);
extern void catalog_init(void);

#endif							/* DISTSYS_CATALOG_H */
