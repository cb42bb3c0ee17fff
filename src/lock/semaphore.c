/*
 * semaphore.c: one attempt to get permits, and how the locks of a semaphore work.
 *
 * One row per slot in semaphore_permit, each with a key lock:
 *
 *   SLOT   RowExclusive          pin: semaphore_assert
 *          ShareUpdateExclusive  renew, release: they write the row, beside pins
 *          Exclusive             a claim, only of a slot that looks free
 *
 * Nobody ever waits in the queue of a slot: a claim that cannot have it at once
 * takes another, so claims of one semaphore run in parallel. A slot that is being claimed,
 * renewed or released by an open transaction, or is pinned, counts as taken.
 *
 * Two more tags per semaphore. CLAIM, Exclusive for a moment within a call: two claims of several permits
 * would each take what the other lacks; and counting before joining the queue.
 * QUEUE, RowShare by each session that waits, so that they can be counted. A request_id has a tag of
 * its own, so that a retry beside the first attempt does not get a second grant.
 *
 * Order: table, request, CLAIM, SLOT. Rollback gives everything back, rows and
 * locks. A crash takes back nothing that was committed, whatever
 * synchronous_commit says (xact_require_durable). On a standby everything but reading is 25006.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "compat.h"
#include "utils/acl.h"

#include "core/waitlist.h"
#include "core/xact.h"
#include "lock/semaphore_row.h"
#include "store/token.h"

/* A claim of several permits waits so long for another one to choose its slots; without it both may be refused. */
#define CLAIM_WAIT (20 * MILLISECONDS)

/* Slots that are tried before all are read. */
#define PROBES 4

void
semaphore_tag(LOCKTAG *tag, const NameArg *name)
{
	keylock_tag(tag, KEYLOCK_SEMAPHORE, name->data, name->len);
}

static void
request_tag(LOCKTAG *tag, const SemaphoreRequest *request)
{
	keylock_tag2(tag, KEYLOCK_SEMAPHORE_REQUEST, request->name.data, request->name.len,
				 (const char *) request->request_id, sizeof(pg_uuid_t));
}

/* ---- claiming ---- */

/* Slots that are locked and found free under the lock. */
typedef struct Claim
{
	int			wanted;
	int			n;
	int32	   *slots;
	HeapTuple  *rows;			/* NULL: not there yet */
} Claim;

static void
claim_slot(Relation rel, const NameArg *name, int32 slot, Claim *claim)
{
	LOCKTAG		tag;
	Datum		key[2];
	HeapTuple	row;
	ClockReading now;
	Permit		permit;

	permit_tag(&tag, name, slot);
	if (!keylock_try(&tag, ExclusiveLock))
		return;
	permit_key(name, slot, key);
	row = row_read_locked(rel, key);
	now = clock_read();
	if (row != NULL)
	{
		permit_from_row(rel, row, &now, &permit);
		if (permit.live)
		{
			keylock_release(&tag, ExclusiveLock);
			return;
		}
	}
	claim->slots[claim->n] = slot;
	claim->rows[claim->n] = row;
	claim->n++;
}

static void
give_back(const NameArg *name, Claim *claim)
{
	LOCKTAG		tag;

	while (claim->n > 0)
	{
		permit_tag(&tag, name, claim->slots[--claim->n]);
		keylock_release(&tag, ExclusiveLock);
	}
}

static bool
looks_free(Relation rel, const NameArg *name, int32 slot)
{
	Datum		key[2];
	HeapTuple	row;
	ClockReading now;
	Permit		permit;

	permit_key(name, slot, key);
	row = row_read_latest(rel, key);
	if (row == NULL)
		return true;
	now = clock_read();
	permit_from_row(rel, row, &now, &permit);
	return !permit.live;
}

static int32
random_slot(int permits)
{
	return 1 + (int32) pg_prng_uint64_range(&pg_global_prng_state, 0, permits - 1);
}

/* A few slots first: this backend's own, where nobody else begins, then any. */
static void
claim_by_probing(Relation rel, const NameArg *name, int permits, Claim *claim)
{
	int32		slot = 1 + MyProcNumber % permits;

	for (int i = 0; i < Min(PROBES, permits) && claim->n == 0; i++)
	{
		if (looks_free(rel, name, slot))
			claim_slot(rel, name, slot, claim);
		slot = random_slot(permits);
	}
}

/* Reads all slots and takes free ones: one from anywhere, several in their order. Fills *retry_us when there are not enough. */
static void
claim_by_reading(Relation rel, const NameArg *name, int permits, Claim *claim, int64 *retry_us)
{
	int			first;
	SlotMap		map;

	slot_map_read(rel, name, permits, &map);
	*retry_us = slot_map_retry(&map, claim->wanted);
	if (map.in_use + claim->wanted <= permits)
	{
		first = claim->wanted == 1 ? random_slot(map.usable) - 1 : 0;
		for (int i = 0; i < map.usable && claim->n < claim->wanted; i++)
		{
			int			slot = (first + i) % map.usable;

			if (map.left_us[slot] == 0)
				claim_slot(rel, name, slot + 1, claim);
		}
	}
	pfree(map.left_us);
}

static void
claim_permits(Relation rel, const NameArg *name, int permits, Claim *claim, int64 *retry_us)
{
	LOCKTAG		tag;
	bool		alone;

	if (claim->wanted == 1)
	{
		if (!slots_held_above(rel, name, permits))
			claim_by_probing(rel, name, permits, claim);
		if (claim->n == 0)
			claim_by_reading(rel, name, permits, claim, retry_us);
		return;
	}
	semaphore_tag(&tag, name);
	alone = keylock_wait(&tag, ExclusiveLock, CLAIM_WAIT);
	claim_by_reading(rel, name, permits, claim, retry_us);
	if (alone)
		keylock_release(&tag, ExclusiveLock);
	if (claim->n < claim->wanted && claim->n > 0)
	{
		give_back(name, claim);
		/* the first of those who wait may have found these taken */
		semaphore_wake(name);
	}
}

/* ---- granting ---- */

static void
write_grant(Relation rel, const SemaphoreRequest *request, const Claim *claim, SemaphoreGrant *grant)
{
	ClockReading now = clock_read();
	Deadline	deadline = deadline_after(&now, request->ttl_us);
	Datum		values[NATTS] = {0};
	bool		nulls[NATTS] = {false};
	bool		replace[NATTS];

	grant->token = token_issue();
	grant->nslots = claim->n;
	grant->slots = claim->slots;
	grant->ttl_us = request->ttl_us;
	grant->left_us = request->ttl_us;
	grant->expires_at = deadline.wall;

	values[ATTR_NAME - 1] = request->name.datum;
	values[ATTR_OWNER - 1] = request->owner.datum;
	values[ATTR_ROLE - 1] = ObjectIdGetDatum(GetUserId());
	values[ATTR_TOKEN - 1] = Int64GetDatum(grant->token);
	values[ATTR_TTL_US - 1] = Int64GetDatum(request->ttl_us);
	values[ATTR_ACQUIRED_AT - 1] = TimestampTzGetDatum(now.wall);
	permit_deadline_values(&deadline, values);
	values[ATTR_RELEASED - 1] = BoolGetDatum(false);
	nulls[ATTR_REQUEST_ID - 1] = request->request_id == NULL;
	if (request->request_id != NULL)
		values[ATTR_REQUEST_ID - 1] = UUIDPGetDatum(request->request_id);

	memset(replace, true, sizeof(replace));
	for (int i = 0; i < claim->n; i++)
	{
		values[ATTR_SLOT - 1] = Int32GetDatum(claim->slots[i]);
		if (claim->rows[i] == NULL)
			row_insert(rel, values, nulls);
		else
			row_update(rel, claim->rows[i], values, nulls, replace);
	}
	grant_remember(rel, grant->token, grant->nslots, grant->slots);
	xact_require_durable(true);
}

/*
 * What this very request has got before, and its answer was lost. It is given
 * out as an answer, so a crash must not take it back.
 */
static bool
find_granted(Relation rel, const SemaphoreRequest *request, SemaphoreGrant *grant)
{
	RowScan    *scan = row_scan_begin(rel, 1, &request->name.datum, NULL);
	ClockReading now = clock_read();
	HeapTuple	row;
	bool		found = false;

	while (!found && (row = row_scan_next(scan)) != NULL)
	{
		Permit		permit;

		permit_from_row(rel, row, &now, &permit);
		found = permit.live && permit.has_request &&
			memcmp(request->request_id, &permit.request_id, sizeof(pg_uuid_t)) == 0 &&
			has_privs_of_role(GetUserId(), permit.role);
		if (!found)
			continue;
		row_make_durable(row);
		grant->token = permit.token;
		grant->ttl_us = permit.ttl_us;
		grant->left_us = permit.left_us;
		grant->expires_at = permit.expires_at;
	}
	row_scan_end(scan);
	if (found)
		grant->nslots = grant_search(rel, &request->name, grant->token, &grant->slots);
	/* none: released and granted again in this moment */
	return grant->nslots > 0;
}

static bool
claim_and_grant(Relation rel, const SemaphoreRequest *request, int permits, SemaphoreGrant *grant)
{
	Claim		claim = {.wanted = request->permits};

	claim.slots = palloc(request->permits * sizeof(int32));
	claim.rows = palloc(request->permits * sizeof(HeapTuple));
	claim_permits(rel, &request->name, permits, &claim, &grant->retry_us);
	if (claim.n < claim.wanted)
		return false;
	write_grant(rel, request, &claim, grant);
	/* more may be free; and what it took is, when it is rolled back */
	semaphore_wake(&request->name);
	return true;
}

static SemaphoreReason
decide(Relation rel, const SemaphoreRequest *request, int permits, SemaphoreGrant *grant)
{
	ClockReading now = clock_read();
	int64		delay_us = token_grant_delay(&now);
	LOCKTAG		queue;

	if (delay_us > 0)
	{
		grant->retry_us = delay_us;
		return SEMAPHORE_FAILOVER_DELAY;
	}
	semaphore_tag(&queue, &request->name);
	if (waitlist_must_wait(&queue, false))
	{
		waitlist_call(&queue);
		return SEMAPHORE_NO_PERMIT;
	}
	return claim_and_grant(rel, request, permits, grant) ? SEMAPHORE_OK : SEMAPHORE_NO_PERMIT;
}

/* One attempt at a time for each request_id: another that is not committed may have got the grant. */
static SemaphoreReason
decide_request(Relation rel, const SemaphoreRequest *request, int permits, SemaphoreGrant *grant, bool *again)
{
	LOCKTAG		tag;
	bool		alone;
	SemaphoreReason reason = SEMAPHORE_NO_PERMIT;

	request_tag(&tag, request);
	alone = keylock_try(&tag, ExclusiveLock);
	*again = find_granted(rel, request, grant);
	if (!*again && alone)
		reason = decide(rel, request, permits, grant);
	if (reason != SEMAPHORE_OK && alone)
		keylock_release(&tag, ExclusiveLock);
	return reason;
}

static int
permits_there_are(const SemaphoreRequest *request)
{
	SemaphoreConfig config;

	semaphore_config_get(&request->name, &config);
	if (request->permits > config.permits)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("permits is out of range"),
				 errdetail("Semaphore \"%s\" has %d, %d were asked for.",
						   name_cstring(request->name), config.permits, request->permits)));
	return config.permits;
}

SemaphoreReason
semaphore_try(const SemaphoreRequest *request, SemaphoreGrant *grant, bool *again)
{
	Relation	rel = row_open_write(TABLE_SEMAPHORE_PERMIT, "semaphore_acquire()");
	int			permits = permits_there_are(request);
	SemaphoreReason reason;

	memset(grant, 0, sizeof(*grant));
	grant->retry_us = -1;
	*again = false;
	if (request->request_id == NULL)
		reason = decide(rel, request, permits, grant);
	else
		reason = decide_request(rel, request, permits, grant, again);
	if (reason == SEMAPHORE_OK)
		row_close(rel);
	else
		row_close_unwritten(rel);
	return *again ? SEMAPHORE_OK : reason;
}
