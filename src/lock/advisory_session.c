/*
 * advisory_session.c: locks that fall with the server connection.
 *
 * A session lock survives ROLLBACK. It cannot be handed through a transaction pooler: the lock stays with the
 * server connection. So it is never re-entrant (a second client of the pool must not inherit it) and unlocking
 * elsewhere is an error. One that a client left behind stays visible in the view locks.
 */
#include "postgres.h"

#include "access/xact.h"
#include "compat.h"
#include "utils/memutils.h"

#include "core/call.h"
#include "core/guc.h"
#include "core/xact.h"
#include "lock/advisory.h"
#include "lock/held_name.h"
#include "store/token.h"

/* The session locks of this backend; the lock table, not this list, says whether one is still held. */
typedef struct SessionLock
{
	LOCKTAG		tag;
	int64		token;
	TimestampTz statement;		/* when the statement that took it began */
} SessionLock;

static SessionLock *session_locks = NULL;
static int	nsession_locks = 0;
static int	max_session_locks = 0;

/* Forgets what DISCARD ALL or pg_advisory_unlock_all() has freed. */
static void
drop_freed_session_locks(void)
{
	for (int i = 0; i < nsession_locks;)
	{
		if (LockHeldByMe(&session_locks[i].tag, ExclusiveLock, false))
			i++;
		else
			session_locks[i] = session_locks[--nsession_locks];
	}
}

static void
reserve_session_lock(void)
{
	int			size = Max(8, max_session_locks * 2);

	if (nsession_locks == max_session_locks || nsession_locks >= guc_max_keys_per_transaction)
		drop_freed_session_locks();
	if (nsession_locks >= guc_max_keys_per_transaction)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("session may hold at most %d session locks", guc_max_keys_per_transaction),
				 errhint("Unlock some, or raise distsys.max_keys_per_transaction together with max_locks_per_transaction.")));
	if (nsession_locks < max_session_locks)
		return;
	if (session_locks == NULL)
		session_locks = MemoryContextAlloc(TopMemoryContext, size * sizeof(SessionLock));
	else
		session_locks = repalloc(session_locks, size * sizeof(SessionLock));
	max_session_locks = size;
}

static int
find_session_lock(const LOCKTAG *tag)
{
	for (int i = 0; i < nsession_locks; i++)
	{
		if (memcmp(&session_locks[i].tag, tag, sizeof(LOCKTAG)) == 0)
			return i;
	}
	return -1;
}

static void
forget_session_lock(const LOCKTAG *tag)
{
	int			i = find_session_lock(tag);

	if (i >= 0)
		session_locks[i] = session_locks[--nsession_locks];
}

static void
check_not_inherited(const NameArg *name, const LOCKTAG *tag)
{
	if (LockHeldByMe(tag, ExclusiveLock, false))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("session lock \"%s\" is already held by this server connection", name_cstring(*name)),
				 errdetail("Session locks are not re-entrant."),
				 errhint("Behind a transaction pooler another client may hold it on the same connection: session locks need session pooling or a direct connection.")));
	forget_session_lock(tag);	/* DISCARD ALL or pg_advisory_unlock_all() freed it */
}

/* The lock outlives a rollback, a new epoch does not: the token after it would be lower. */
static void
check_epoch(void)
{
	if (token_epoch_uncommitted())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("token epoch was raised by this transaction"),
				 errhint("Take a session lock after its commit.")));
}

/* Takes the lock and draws its token; true and *token, or false when the wait has elapsed. */
static bool
session_lock(const NameArg *name, int64 wait_us, int64 *token)
{
	LOCKTAG		tag;

	PreventCommandDuringRecovery("session_lock()");
	PreventCommandIfReadOnly("session_lock()");
	PreventCommandIfParallelMode("session_lock()");
	keylock_tag(&tag, KEYLOCK_SESSION, name->data, name->len);
	check_epoch();
	check_not_inherited(name, &tag);
	reserve_session_lock();
	held_name_note(&tag, name);
	if (!keylock_session_wait(&tag, ExclusiveLock, wait_us))
		return false;

	PG_TRY();
	{
		*token = token_issue();
	}
	PG_CATCH();
	{
		(void) LockRelease(&tag, ExclusiveLock, true);
		PG_RE_THROW();
	}
	PG_END_TRY();
	session_locks[nsession_locks].tag = tag;
	session_locks[nsession_locks].token = *token;
	session_locks[nsession_locks].statement = GetCurrentStatementStartTimestamp();
	nsession_locks++;
	return true;
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_session_lock);

Datum
distsys_session_lock(PG_FUNCTION_ARGS)
{
	NameArg		name = arg_name(fcinfo, 0, "name", NAME_LONG);
	int64		token;

	if (!session_lock(&name, lock_arg_wait(fcinfo, 1), &token))
		PG_RETURN_NULL();
	PG_RETURN_INT64(token);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_session_unlock);

Datum
distsys_session_unlock(PG_FUNCTION_ARGS)
{
	NameArg		name = arg_name(fcinfo, 0, "name", NAME_LONG);
	int64		token = arg_token(fcinfo, 1);
	LOCKTAG		tag;
	int			i;

	keylock_tag(&tag, KEYLOCK_SESSION, name.data, name.len);
	i = find_session_lock(&tag);
	if (i < 0 || session_locks[i].token != token || !LockHeldByMe(&tag, ExclusiveLock, false))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("session lock \"%s\" is not held by this server connection with this token", name_cstring(name)),
				 errhint("Behind a transaction pooler the lock stays with the connection that took it: session locks need session pooling or a direct connection. The view distsys.locks shows who holds it.")));
	(void) LockRelease(&tag, ExclusiveLock, true);
	forget_session_lock(&tag);
	PG_RETURN_BOOL(true);
}

/*
 * By an error, or by ROLLBACK? A procedure that rolls back goes on, and one message may hold the lock and the ROLLBACK.
 * Where the server cleans up after an error there is no error context any more; a procedure's language has one.
 */
static bool
aborted_by_error(void)
{
	return error_context_stack == NULL && TransactionBlockStatusCode() != 'E';
}

/* The (sub)transaction was aborted because the statement that took them has failed. */
static void
give_back_locks_of_failed_statement(bool committed)
{
	if (committed || !aborted_by_error())
		return;
	for (int i = nsession_locks - 1; i >= 0; i--)
	{
		if (session_locks[i].statement != GetCurrentStatementStartTimestamp())
			continue;
		if (LockHeldByMe(&session_locks[i].tag, ExclusiveLock, false))
			(void) LockRelease(&session_locks[i].tag, ExclusiveLock, true);
		session_locks[i] = session_locks[--nsession_locks];
	}
}

static void
give_back_in_savepoint(bool committed, int nest_level)
{
	give_back_locks_of_failed_statement(committed);
}

void
advisory_session_init(void)
{
	static const XactActions actions = {.end = give_back_locks_of_failed_statement, .sub_end = give_back_in_savepoint};

	xact_register(&actions);
}

/* ---- waiting without a snapshot ---- */

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_session_lock_wait);

/*
 * Ends the transaction it was called in, so that nothing, not even a catalog
 * snapshot, holds back the holder's CREATE INDEX CONCURRENTLY while this waits.
 */
Datum
distsys_session_lock_wait(PG_FUNCTION_ARGS)
{
	NameArg		name;
	int64		wait_us;
	int64		token = 0;
	bool		locked;
	Datum		values[1];
	bool		nulls[1];

	call_check(fcinfo, "session_lock_wait()");
	name = arg_name(fcinfo, 0, "name", NAME_LONG);
	wait_us = lock_arg_wait(fcinfo, 1);
	PreventCommandDuringRecovery("session_lock_wait()");

	call_begin();
	locked = session_lock(&name, wait_us, &token);
	call_end();

	values[0] = Int64GetDatum(token);
	nulls[0] = !locked;
	return call_result(fcinfo, values, nulls);
}
