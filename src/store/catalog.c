/*
 * catalog.c: OIDs of our own relations, see catalog.h.
 *
 * The cache is dropped whole by any invalidation that may concern it; the
 * callbacks only clear flags. Nothing is remembered about what is absent.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "store/catalog.h"

static const char *const names[CATALOG_COUNT] = {
	[TABLE_TOKEN_STATE] = "token_state",
	[TABLE_LEASE] = "lease_grant",
	[TABLE_LEASE_SESSION] = "lease_session",
	[TABLE_LEASE_SESSION_MEMBER] = "lease_session_member",
	[TABLE_LEASE_EVENT] = "lease_event",
	[TABLE_LEADER] = "leader_term",
	[TABLE_FENCE] = "fence",
	[TABLE_IDEMPOTENCY_POLICY] = "idempotency_policy",
	[TABLE_IDEMPOTENCY_RECORD] = "idempotency_record",
	[TABLE_RATE_LIMIT_POLICY] = "rate_limit_policy",
	[TABLE_RATE_LIMIT_BUCKET] = "rate_limit_bucket",
	[TABLE_RATE_LIMIT_TIER] = "rate_limit_tier",
	[TABLE_RATE_LIMIT_TIER_POLICY] = "rate_limit_tier_policy",
	[TABLE_RATE_LIMIT_SUBJECT] = "rate_limit_subject",
	[TABLE_RATE_LIMIT_OVERRIDE] = "rate_limit_override",
	[TABLE_RATE_LIMIT_RESERVATION] = "rate_limit_reservation",
	[TABLE_RATE_LIMIT_SNAPSHOT] = "rate_limit_snapshot",
	[TABLE_OUTBOX_TOPIC] = "outbox_topic",
	[TABLE_OUTBOX_EVENT] = "outbox_event_log",
	[TABLE_OUTBOX_GROUP] = "outbox_group",
	[TABLE_OUTBOX_CURSOR] = "outbox_cursor",
	[TABLE_OUTBOX_RETRY] = "outbox_retry",
	[TABLE_OUTBOX_DEAD_LETTER] = "outbox_dead_letter",
	[TABLE_OUTBOX_SETTLED] = "outbox_settled",
	[TABLE_OUTBOX_RETAINED] = "outbox_retained",
	[TABLE_SEMAPHORE] = "semaphore",
	[TABLE_SEMAPHORE_PERMIT] = "semaphore_permit",
	[SEQUENCE_LEASE_EVENT] = "lease_event_counter",
	[SEQUENCE_TOKEN] = "token_counter",
	[SEQUENCE_POSITION] = "position_counter",
	[SEQUENCE_RECEIPT] = "receipt_counter",
	[SEQUENCE_RESERVATION] = "reservation_counter",
	[TYPE_LEASE] = "lease",
	[TYPE_LEADER] = "leader",
	[TYPE_IDEMPOTENCY_RESULT] = "idempotency_result",
	[TYPE_RATE_LIMIT_RESULT] = "rate_limit_result",
	[TYPE_OUTBOX_EVENT] = "outbox_event",
	[TYPE_OUTBOX_DELIVERY] = "outbox_delivery",
	[TYPE_SEMAPHORE_GRANT] = "semaphore_grant"
};

typedef struct Entry
{
	Oid			relid;
	Oid			rowtype;
} Entry;

static Entry entries[CATALOG_COUNT];

static void
forget_all(void)
{
	memset(entries, 0, sizeof(entries));
}

static void
on_relcache_invalidation(Datum arg, Oid relid)
{
	if (relid == InvalidOid)
	{
		forget_all();
		return;
	}
	for (int i = 0; i < CATALOG_COUNT; i++)
	{
		if (entries[i].relid == relid)
			entries[i].relid = InvalidOid;
	}
}

static void
on_namespace_invalidation(Datum arg, int cacheid, uint32 hashvalue)
{
	forget_all();
}

Oid
catalog_relid_missing_ok(CatalogTable which)
{
	Entry	   *entry = &entries[which];
	Oid			schema;

	if (OidIsValid(entry->relid))
		return entry->relid;

	schema = get_namespace_oid(DISTSYS_SCHEMA, true);
	if (!OidIsValid(schema))
		return InvalidOid;
	entry->rowtype = InvalidOid;
	entry->relid = get_relname_relid(names[which], schema);
	return entry->relid;
}

Oid
catalog_relid(CatalogTable which)
{
	Oid			relid = catalog_relid_missing_ok(which);

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("relation \"%s.%s\" is missing", DISTSYS_SCHEMA, names[which]),
				 errhint("Run CREATE EXTENSION distsys, or ALTER EXTENSION distsys UPDATE when the library is newer than the extension.")));
	return relid;
}

Relation
catalog_open(CatalogTable which, LOCKMODE mode)
{
	Relation	rel;

	/* dropped, and perhaps created again, since we looked: the invalidation has arrived with the lock */
	while ((rel = try_relation_open(catalog_relid(which), mode)) == NULL)
		CHECK_FOR_INTERRUPTS();
	return rel;
}

Oid
catalog_type(CatalogTable which)
{
	Entry	   *entry = &entries[which];

	if (OidIsValid(entry->relid) && OidIsValid(entry->rowtype))
		return entry->rowtype;
	entry->rowtype = get_rel_type_id(catalog_relid(which));
	return entry->rowtype;
}

void
catalog_init(void)
{
	CacheRegisterRelcacheCallback(on_relcache_invalidation, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, on_namespace_invalidation, (Datum) 0);
}
