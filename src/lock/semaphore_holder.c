/*
 * semaphore_holder.c: what the holder of permits does: renew, release, assert.
 *
 * Locks as in semaphore.c, on each slot of the grant in the order of slots. A holder whose lock is
 * refused looks whether his permit is live: if so, a claim that came too late lets go of the slot in a
 * moment, or another call of his renews or releases it.
 *
 * A pin ends with its (sub)transaction, a renewal or release is undone by its rollback.
 */
#include "postgres.h"

#include "compat.h"
#include "utils/acl.h"

#include "core/guc.h"
#include "core/refusal.h"
#include "core/stats.h"
#include "core/wait.h"
#include "core/xact.h"
#include "lock/semaphore_row.h"
#include "store/token.h"

/* A holder tries again after this long while somebody else has the slot. */
#define SLOT_RETRY (1 * MILLISECONDS)

/* The locked slots of one grant. */
typedef struct Held
{
	int			nslots;
	int32	   *slots;
	int			nlocked;
	HeapTuple  *rows;			/* as they are under the locks */
	Permit		permit;			/* of the first slot */
	ClockReading now;
} Held;

static const char not_granted[] = "This token was never granted for it, or its slots have been granted again since.";

static void
raise_not_held(const NameArg *name, const char *why)
{
	stats_add("semaphore", "", "lost", 1);
	ereport(ERROR,
			(errcode_sd(ERRCODE_SD_LEASE_NOT_HELD),
			 errmsg("permit of semaphore \"%s\" is not held with this token", name_cstring(*name)),
			 errdetail("%s", why),
			 errhint("Stop the work that it protects, or acquire a permit again.")));
}

static void
check_role(const NameArg *name, Oid role)
{
	if (!has_privs_of_role(GetUserId(), role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for permit of semaphore \"%s\"", name_cstring(*name)),
				 errdetail("It is held by role \"%s\".", refusal_role(role)),
				 errhint("Give short-lived logins a common role: ALTER ROLE login SET role = 'service'.")));
}

/* Is this row part of the live grant of token? NULL, or the reason why not. */
static const char *
why_not_held(const Permit *permit, int64 token)
{
	if (permit->token != token)
		return not_granted;
	if (!permit->live)
		return permit->token >= token_lease_floor() ?
			"It has expired or was released." : "It was granted before this database was restored.";
	return NULL;
}

/* Judges a slot's row; NULL: it is part of the live grant. */
static const char *
judge(Relation rel, HeapTuple row, int64 token, Held *held, Permit *permit)
{
	if (row == NULL)
		return not_granted;
	held->now = clock_read();
	permit_from_row(rel, row, &held->now, permit);
	return why_not_held(permit, token);
}

/* Takes one slot in `mode`. NULL, or the reason why token is not its live grant. */
static const char *
lock_slot(Relation rel, const NameArg *name, int32 slot, int64 token, LOCKMODE mode, Held *held)
{
	int64		until = wait_clock() + (int64) guc_max_function_wait * MILLISECONDS;
	LOCKTAG		tag;
	Datum		key[2];

	permit_tag(&tag, name, slot);
	permit_key(name, slot, key);
	while (!keylock_try(&tag, mode))
	{
		Permit		permit;
		const char *why = judge(rel, row_read_latest(rel, key), token, held, &permit);

		if (why != NULL)
			return why;
		if (wait_clock() >= until)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("permit of semaphore \"%s\" is locked by another transaction", name_cstring(*name)),
					 errhint("Renew in autocommit mode: the permit is locked until the transaction that renews or releases it ends.")));
		wait_sleep(SLOT_RETRY, WAIT_SEMAPHORE);
	}
	held->nlocked++;
	return NULL;
}

static void
unlock_slots(const NameArg *name, LOCKMODE mode, Held *held)
{
	LOCKTAG		tag;

	while (held->nlocked > 0)
	{
		permit_tag(&tag, name, held->slots[--held->nlocked]);
		keylock_release(&tag, mode);
	}
}

/* Locks the slots that are said to be token's and judges them. NULL: they are; else nothing is locked. */
static const char *
lock_slots(Relation rel, const NameArg *name, int64 token, LOCKMODE mode, Held *held)
{
	const char *why = held->nslots == 0 ? not_granted : NULL;
	Permit		permit;

	held->nlocked = 0;
	held->rows = palloc(Max(held->nslots, 1) * sizeof(HeapTuple));
	for (int i = 0; i < held->nslots && why == NULL; i++)
		why = lock_slot(rel, name, held->slots[i], token, mode, held);
	for (int i = 0; i < held->nslots && why == NULL; i++)
	{
		Datum		key[2];

		permit_key(name, held->slots[i], key);
		/* pins leave renewals alone */
		held->rows[i] = mode == RowExclusiveLock ? row_read_latest(rel, key) : row_read_locked(rel, key);
		why = judge(rel, held->rows[i], token, held, i == 0 ? &held->permit : &permit);
	}
	if (why != NULL)
		unlock_slots(name, mode, held);
	return why;
}

static const char *
lock_grant(Relation rel, const NameArg *name, int64 token, LOCKMODE mode, Held *held)
{
	SemaphoreConfig config;
	const char *why = not_granted;

	held->nslots = grant_recall(rel, token, &held->slots);
	if (held->nslots > 0)
		why = lock_slots(rel, name, token, mode, held);
	if (why == not_granted)
	{
		held->nslots = grant_search(rel, name, token, &held->slots);
		why = lock_slots(rel, name, token, mode, held);
	}
	/* a name that was mistyped is worth an error; permits of a dropped semaphore are not mistyped */
	if (held->nslots == 0 && !semaphore_config_find(name, &config))
		semaphore_config_get(name, &config);
	return why;
}

void
semaphore_renew(const NameArg *name, int64 token, int64 ttl_us, SemaphoreGrant *grant)
{
	Relation	rel = row_open_write(TABLE_SEMAPHORE_PERMIT, "semaphore_renew()");
	Datum		values[NATTS] = {0};
	bool		nulls[NATTS] = {false};
	bool		replace[NATTS] = {false};
	Held		held;
	const char *why = lock_grant(rel, name, token, ShareUpdateExclusiveLock, &held);
	Deadline	deadline;

	if (why != NULL)
		raise_not_held(name, why);
	check_role(name, held.permit.role);

	grant->token = token;
	grant->nslots = held.nslots;
	grant->slots = held.slots;
	grant->ttl_us = ttl_us > 0 ? ttl_us : held.permit.ttl_us;
	grant->left_us = grant->ttl_us;
	deadline = deadline_after(&held.now, grant->ttl_us);
	grant->expires_at = deadline.wall;
	grant->retry_us = -1;

	values[ATTR_TTL_US - 1] = Int64GetDatum(grant->ttl_us);
	permit_deadline_values(&deadline, values);
	replace[ATTR_TTL_US - 1] = true;
	replace[ATTR_EXPIRES_AT - 1] = true;
	replace[ATTR_EXPIRES_BOOT - 1] = true;
	replace[ATTR_CLOCK_ID - 1] = true;
	for (int i = 0; i < held.nslots; i++)
		row_update(rel, held.rows[i], values, nulls, replace);
	row_close(rel);
	xact_require_durable(true);
	stats_add("semaphore", "", "renewed", 1);
}

bool
semaphore_release(const NameArg *name, int64 token)
{
	Relation	rel = row_open_write(TABLE_SEMAPHORE_PERMIT, "semaphore_release()");
	Datum		values[NATTS] = {0};
	bool		nulls[NATTS] = {false};
	bool		replace[NATTS] = {false};
	bool		relaxed = xact_relaxed_begin();
	Held		held;

	if (lock_grant(rel, name, token, ShareUpdateExclusiveLock, &held) != NULL)
	{
		row_close_unwritten(rel);
		return false;
	}
	check_role(name, held.permit.role);
	values[ATTR_RELEASED - 1] = BoolGetDatum(true);
	replace[ATTR_RELEASED - 1] = true;
	for (int i = 0; i < held.nslots; i++)
		row_update(rel, held.rows[i], values, nulls, replace);
	row_close(rel);
	/* lost in a crash, the permits are held for the rest of their ttl; no grant of them is on disk before it */
	if (relaxed)
		xact_relaxed_end();
	semaphore_wake(name);
	stats_add("semaphore", "", "released", 1);
	return true;
}

void
semaphore_assert(const NameArg *name, int64 token)
{
	Relation	rel;
	Held		held;
	const char *why;

	PreventCommandDuringRecovery("semaphore_assert()");
	/* a pin of a parallel worker would end with the worker */
	PreventCommandIfParallelMode("semaphore_assert()");
	rel = row_open_read(TABLE_SEMAPHORE_PERMIT);
	why = lock_grant(rel, name, token, RowExclusiveLock, &held);
	row_close(rel);
	if (why != NULL)
		raise_not_held(name, why);
	/* a slot that expires meanwhile is free when the pin falls */
	semaphore_wake(name);
}
