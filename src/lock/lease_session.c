/*
 * lease_session.c: sessions of leases, see lease_session.h.
 *
 * A row per session and one per (session, name, token). The leases stay what they are: each has its own ttl, is renewed,
 * released and asserted by its token, and a session that is over (closed, not renewed in time) has none of them live
 * for longer than their ttl. So a heartbeat is one statement and one commit, however many leases there are.
 *
 * The session's row is written under its key lock in Exclusive mode; acquire takes no lock of the session, so a
 * heartbeat never waits for it. A lease granted while its session is being closed ends by its ttl, and a job removes
 * its row here. That row is deleted under the lock of the grant; who finds it taken leaves the row to the one who has
 * it, so that a heartbeat of many waits for nobody's open transaction.
 *
 * A heartbeat keeps the locks of all leases to its commit: more than it could lock are not granted under one session.
 */
#include "postgres.h"

#include "compat.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "core/guc.h"
#include "core/refusal.h"
#include "core/stats.h"
#include "core/xact.h"
#include "lock/lease_holder.h"
#include "lock/lease_session.h"

/* A session that is over is kept this long. */
#define SWEEP_AFTER (60 * SECONDS)

enum
{
	SESSION_ID = 1,
	SESSION_OWNER,
	SESSION_ROLE,
	SESSION_TTL_US,
	SESSION_EXPIRES_AT,
	SESSION_EXPIRES_BOOT,
	SESSION_CLOCK_ID,
	NSESSION = SESSION_CLOCK_ID
};

enum
{
	MEMBER_SESSION = 1,
	MEMBER_NAME,
	MEMBER_TOKEN,
	NMEMBER = MEMBER_TOKEN
};

typedef struct Session
{
	Oid			role;
	int64		ttl_us;
	int64		left_us;
} Session;

static void
session_tag(LOCKTAG *tag, const pg_uuid_t *id)
{
	keylock_tag(tag, KEYLOCK_LEASE_SESSION, (const char *) id->data, UUID_LEN);
}

static void
read_session(Relation rel, HeapTuple row, const ClockReading *now, Session *session)
{
	Datum		values[NSESSION];
	bool		nulls[NSESSION];
	Deadline	deadline;

	heap_deform_tuple(row, RelationGetDescr(rel), values, nulls);
	session->role = DatumGetObjectId(values[SESSION_ROLE - 1]);
	session->ttl_us = DatumGetInt64(values[SESSION_TTL_US - 1]);
	deadline.wall = DatumGetTimestampTz(values[SESSION_EXPIRES_AT - 1]);
	deadline.boot = DatumGetInt64(values[SESSION_EXPIRES_BOOT - 1]);
	deadline.id = DatumGetInt64(values[SESSION_CLOCK_ID - 1]);
	session->left_us = deadline_left(&deadline, now);
}

static void
check_session(Relation rel, HeapTuple row, const ClockReading *now, Session *session)
{
	if (row != NULL)
		read_session(rel, row, now, session);
	if (row == NULL || session->left_us <= 0)
		ereport(ERROR,
				(errcode_sd(ERRCODE_SD_LEASE_NOT_HELD),
				 errmsg("lease session is over"),
				 errdetail("It was closed, or not renewed within its ttl."),
				 errhint("Open a new session with lease_session_open() and acquire its leases again.")));
	if (!has_privs_of_role(GetUserId(), session->role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for lease session"),
				 errdetail("It was opened by role \"%s\".", refusal_role(session->role))));
}

void
lease_session_check(const pg_uuid_t *id, int64 *ttl_us, Oid *role)
{
	Relation	rel = row_open_read(TABLE_LEASE_SESSION);
	Datum		key = UUIDPGetDatum(id);
	HeapTuple	row = row_read_latest(rel, &key);
	ClockReading now = clock_read();
	Session		session;

	check_session(rel, row, &now, &session);
	row_close(rel);
	*ttl_us = session.ttl_us;
	*role = session.role;
}

/* Each lease takes two locks in a renewal; the fifth that is left is for those that are acquired at the same time. */
static void
check_room(Relation rel, const pg_uuid_t *id)
{
	int			limit = Max(guc_max_keys_per_transaction * 2 / 5, 1);
	Datum		prefix = UUIDPGetDatum(id);
	RowScan    *scan = row_scan_begin(rel, 1, &prefix, NULL);
	int			n = 0;

	while (n < limit && row_scan_next(scan) != NULL)
		n++;
	row_scan_end(scan);
	if (n == limit)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("lease session holds %d leases already", limit),
				 errdetail("More could not be renewed in one transaction, which holds at most %d keys.", guc_max_keys_per_transaction),
				 errhint("Open another session for the others.")));
}

void
lease_session_add(const pg_uuid_t *id, const NameArg *name, int64 token)
{
	Relation	rel = row_open_write(TABLE_LEASE_SESSION_MEMBER, "lease_acquire()");
	Datum		values[NMEMBER];
	bool		nulls[NMEMBER] = {false};

	check_room(rel, id);
	values[MEMBER_SESSION - 1] = UUIDPGetDatum(id);
	values[MEMBER_NAME - 1] = name->datum;
	values[MEMBER_TOKEN - 1] = Int64GetDatum(token);
	row_insert(rel, values, nulls);
	row_close(rel);
}

static void
deadline_columns(int64 ttl_us, Datum *values)
{
	ClockReading now = clock_read();
	Deadline	deadline = deadline_after(&now, ttl_us);

	values[SESSION_EXPIRES_AT - 1] = TimestampTzGetDatum(deadline.wall);
	values[SESSION_EXPIRES_BOOT - 1] = Int64GetDatum(deadline.boot);
	values[SESSION_CLOCK_ID - 1] = Int64GetDatum(deadline.id);
}

void
lease_session_open(const NameArg *owner, int64 ttl_us, pg_uuid_t *id)
{
	Relation	rel = row_open_write(TABLE_LEASE_SESSION, "lease_session_open()");
	Datum		values[NSESSION];
	bool		nulls[NSESSION] = {false};

	*id = *DatumGetUUIDP(DirectFunctionCall1(gen_random_uuid, (Datum) 0));
	values[SESSION_ID - 1] = UUIDPGetDatum(id);
	values[SESSION_OWNER - 1] = owner->datum;
	values[SESSION_ROLE - 1] = ObjectIdGetDatum(GetUserId());
	values[SESSION_TTL_US - 1] = Int64GetDatum(ttl_us);
	deadline_columns(ttl_us, values);
	row_insert(rel, values, nulls);
	row_close(rel);
	xact_require_durable(true);
}

/* Its leases, as committed and by this transaction: palloc'd. */
static SessionLease *
read_members(Relation rel, const pg_uuid_t *id, int *n)
{
	Datum		prefix = UUIDPGetDatum(id);
	RowScan    *scan = row_scan_begin(rel, 1, &prefix, NULL);
	SessionLease *members = palloc(sizeof(SessionLease));
	int			size = 1;
	HeapTuple	row;

	*n = 0;
	while ((row = row_scan_next(scan)) != NULL)
	{
		HeapTuple	copy = heap_copytuple(row);

		if (*n == size)
			members = repalloc(members, (size *= 2) * sizeof(SessionLease));
		memset(&members[*n], 0, sizeof(SessionLease));
		members[*n].name = arg_name_datum(row_get(rel, copy, MEMBER_NAME, NULL), "name", NAME_LONG);
		members[*n].token = DatumGetInt64(row_get(rel, copy, MEMBER_TOKEN, NULL));
		(*n)++;
	}
	row_scan_end(scan);
	return members;
}

/* Leaves it to a transaction that is renewing or releasing that grant, and to the job if it comes to nothing. */
static void
remove_member(Relation rel, const pg_uuid_t *id, const NameArg *name, int64 token)
{
	Datum		key[NMEMBER] = {UUIDPGetDatum(id), name->datum, Int64GetDatum(token)};
	LOCKTAG		tag;
	HeapTuple	row;

	lease_grant_tag(&lease_kind, &tag, name, token);
	if (!keylock_try(&tag, ExclusiveLock))
		return;
	row = row_read_locked(rel, key);
	if (row != NULL)
		row_delete(rel, row);
}

void
lease_session_remove(const pg_uuid_t *id, const NameArg *name, int64 token)
{
	Relation	rel = row_open_write(TABLE_LEASE_SESSION_MEMBER, "lease_release()");

	remove_member(rel, id, name, token);
	row_close(rel);
}

static void
lock_session(const pg_uuid_t *id)
{
	LOCKTAG		tag;

	session_tag(&tag, id);
	if (!keylock_wait(&tag, ExclusiveLock, (int64) guc_max_function_wait * MILLISECONDS))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("lease session is being renewed or closed by another transaction"),
				 errhint("Renew in autocommit mode.")));
}

static void
prolong_session(Relation rel, const pg_uuid_t *id)
{
	Datum		values[NSESSION] = {0};
	bool		nulls[NSESSION] = {false};
	bool		replace[NSESSION] = {false};
	Datum		key = UUIDPGetDatum(id);
	HeapTuple	row = row_read_locked(rel, &key);
	ClockReading now = clock_read();
	Session		session;

	check_session(rel, row, &now, &session);
	deadline_columns(session.ttl_us, values);
	replace[SESSION_EXPIRES_AT - 1] = replace[SESSION_EXPIRES_BOOT - 1] = replace[SESSION_CLOCK_ID - 1] = true;
	row_update(rel, row, values, nulls, replace);
	xact_require_durable(true);
}

SessionLease *
lease_session_renew(const pg_uuid_t *id, int *n)
{
	Relation	rel = row_open_write(TABLE_LEASE_SESSION, "lease_session_renew()");
	Relation	member_rel = row_open_write(TABLE_LEASE_SESSION_MEMBER, "lease_session_renew()");
	SessionLease *members;

	lock_session(id);
	prolong_session(rel, id);
	members = read_members(member_rel, id, n);
	for (int i = 0; i < *n; i++)
	{
		members[i].reason = lease_try_renew(&lease_kind, &members[i].name, members[i].token, 0, &members[i].lease);
		if (members[i].reason == LEASE_LOST)
		{
			remove_member(member_rel, id, &members[i].name, members[i].token);
			stats_add("lease", "", "lost", 1);
		}
	}
	row_close(member_rel);
	row_close(rel);
	return members;
}

int64
lease_session_close(const pg_uuid_t *id)
{
	Relation	rel = row_open_write(TABLE_LEASE_SESSION, "lease_session_close()");
	Relation	member_rel;
	Datum		key = UUIDPGetDatum(id);
	ClockReading now;
	SessionLease *members;
	Session		session;
	HeapTuple	row;
	int64		released = 0;
	int			n;

	lock_session(id);
	row = row_read_locked(rel, &key);
	if (row == NULL)
	{
		row_close(rel);
		return 0;
	}
	now = clock_read();
	read_session(rel, row, &now, &session);
	if (session.left_us > 0)
		check_session(rel, row, &now, &session);
	member_rel = row_open_write(TABLE_LEASE_SESSION_MEMBER, "lease_session_close()");
	members = read_members(member_rel, id, &n);
	for (int i = 0; i < n; i++)
	{
		released += lease_release(&lease_kind, &members[i].name, members[i].token);
		remove_member(member_rel, id, &members[i].name, members[i].token);
	}
	row_delete(rel, row);
	row_close(member_rel);
	row_close(rel);
	return released;
}

/* ---- housekeeping ---- */

static bool
session_over(Relation rel, HeapTuple row, void *arg)
{
	ClockReading now = clock_read();
	Session		session;

	read_session(rel, row, &now, &session);
	return session.left_us < -SWEEP_AFTER;
}

static void
session_row_tag(Relation rel, HeapTuple row, LOCKTAG *tag, void *arg)
{
	session_tag(tag, DatumGetUUIDP(row_get(rel, row, SESSION_ID, NULL)));
}

/* Acquired under a session that is no more; the lease is not released: somebody may renew it by its token still. */
static bool
member_left_behind(Relation rel, HeapTuple row, void *arg)
{
	Relation	session_rel = row_open_read(TABLE_LEASE_SESSION);
	Datum		key = row_get(rel, row, MEMBER_SESSION, NULL);
	bool		left_behind = row_read_latest(session_rel, &key) == NULL;

	row_close(session_rel);
	return left_behind;
}

static void
member_row_tag(Relation rel, HeapTuple row, LOCKTAG *tag, void *arg)
{
	NameArg		name = arg_name_datum(row_get(rel, row, MEMBER_NAME, NULL), "name", NAME_LONG);

	lease_grant_tag(&lease_kind, tag, &name, DatumGetInt64(row_get(rel, row, MEMBER_TOKEN, NULL)));
}

void
lease_session_sweep(JobSlice *slice)
{
	static const RowSweep sweep = {.dead = session_over, .tag = session_row_tag};
	Relation	rel = row_open_write(TABLE_LEASE_SESSION, "lease_session_sweep()");

	sweep_slice(rel, &sweep, slice);
	row_close(rel);
}

void
lease_session_member_sweep(JobSlice *slice)
{
	static const RowSweep sweep = {.dead = member_left_behind, .tag = member_row_tag};
	Relation	rel = row_open_write(TABLE_LEASE_SESSION_MEMBER, "lease_session_member_sweep()");

	sweep_slice(rel, &sweep, slice);
	row_close(rel);
}
