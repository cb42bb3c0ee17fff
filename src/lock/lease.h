/*
 * lease.h: leases, held for a time across transactions, connections and poolers.
 *
 * A kind of lease has its own table and its own key locks: leases proper, and the
 * terms of leaders (leader.h). Everything about granting, holding and taking over is written once.
 */
#ifndef DISTSYS_LEASE_H
#define DISTSYS_LEASE_H

#include "utils/uuid.h"

#include "core/arg.h"
#include "core/clock.h"
#include "core/keylock.h"
#include "store/sweep.h"

struct Lease;
struct LeaseRequest;

typedef struct LeaseKind
{
	CatalogTable table;			/* its first columns are those of lease_grant */
	KeylockSpace name_space;
	KeylockSpace grant_space;
	const char *domain;			/* of its statistics; its functions are <domain>_<verb>() */
	const char *acquire_call;	/* "lease_acquire()" */
	const char *set_data_call;
	const char *noun;			/* in messages: lease "x" is not held with this token */
	const char *token_noun;
	/* May be NULL. Is the dead grant's place kept for somebody else than who asks? Microseconds, 0: no, -1: for who asks. */
	int64		(*reserved_us) (const struct Lease *dead, const struct LeaseRequest *request);
} LeaseKind;

extern const LeaseKind lease_kind;

typedef enum LeaseReason
{
	LEASE_OK,
	LEASE_HELD,
	LEASE_PINNED,
	LEASE_MIN_HOLD,
	LEASE_FAILOVER_DELAY,
	LEASE_TIMEOUT,
	LEASE_FREE,					/* nothing against it, but another name of the same call was refused */
	LEASE_LOST					/* of a session: not held any more */
} LeaseReason;

/* One grant as its row has it, judged at one reading of the clock. Datums point into memory of the current context. */
typedef struct Lease
{
	Datum		name;
	int64		slot;
	Datum		owner;			/* 0: not known, the grant is not committed yet */
	Oid			role;
	bool		shared;
	int64		token;
	int64		ttl_us;
	TimestampTz acquired_at;
	Deadline	deadline;
	int64		grant_xid;		/* full transaction id of the grant */
	bool		released;
	bool		broken;			/* may not be renewed */
	bool		has_hold;		/* hold: nobody gets it before, even when it is released */
	Deadline	hold;
	bool		has_request;
	pg_uuid_t	request_id;		/* of the call that got it */
	Datum		data;			/* jsonb; 0: none */
	bool		has_session;
	pg_uuid_t	session_id;
	bool		step_down;		/* leaders: asked to resign */
	Datum		successor;		/* leaders: who alone may follow until the deadline; 0: anybody */
	/* judged */
	bool		live;
	int64		left_us;		/* until it expires, when live */
	int64		hold_left_us;	/* until somebody else may get it, when it is not live */
	TimestampTz expires_at;		/* on this server's wall clock */
} Lease;

/* What acquire is asked for. */
typedef struct LeaseRequest
{
	NameArg		name;
	NameArg		owner;
	Oid			role;			/* whose it will be; the caller has its rights */
	bool		shared;
	int			priority;		/* in the queue: higher first */
	int64		ttl_us;
	int64		min_hold_us;
	const pg_uuid_t *request_id;	/* NULL: none */
	const pg_uuid_t *session_id;	/* NULL: none */
	Datum		data;			/* jsonb; 0: none */
} LeaseRequest;

/* What became of one request. */
typedef struct LeaseAnswer
{
	LeaseReason reason;
	bool		again;			/* ok: the live grant that the same request_id has got before */
	Lease		lease;			/* the grant, or the present holder when it is known (owner != 0) */
	int64		retry_us;		/* refused: when it may be free, 0: not known */
} LeaseAnswer;

/* ---- acquire (lease.c) ---- */

/* All n or none, requests sorted by name without duplicates. Refused: those that stand in the way say why, the others are LEASE_FREE. */
extern bool lease_acquire(const LeaseKind *kind, const LeaseRequest *requests, int n, int64 wait_us, LeaseAnswer *answers);
/* One attempt that does not wait; *obstacle: the request that was refused. */
extern bool lease_try(const LeaseKind *kind, const LeaseRequest *requests, int n, LeaseAnswer *answers, int *obstacle);
/*
 * For CALL forms: the place in the queue (true: new, so try once more before the sleep), and a sleep without a snapshot or a
 * transaction's lock. begin before the first sleep; end in any case, also in PG_CATCH.
 */
extern void lease_begin_waiting(const LeaseKind *kind, const LeaseRequest *request);
extern void lease_end_waiting(bool acquired);
extern bool lease_queue(const LeaseKind *kind, const LeaseRequest *request);
extern void lease_sleep(const LeaseAnswer *answer, int64 left_us, int64 *poll_us);
/* Once this transaction has ended, who waits for the name looks again. */
extern void lease_call_waiters(const LeaseKind *kind, const NameArg *name);
/* Counts what an acquire came to; waited_us 0: it did not wait. lease_acquire() does it itself. */
extern void lease_count(const LeaseKind *kind, bool acquired, LeaseReason reason, int64 waited_us);
/* Did this session itself get that grant? */
extern bool lease_granted_here(int64 token);

/* ---- holders (lease_holder.c, lease_change.c) ---- */

/* ttl_us 0: the ttl it has. SD002 unless token is the live grant. */
extern void lease_renew(const LeaseKind *kind, const NameArg *name, int64 token, int64 ttl_us, Lease *lease);
/* The same as a question, LEASE_OK or LEASE_LOST; LEASE_HELD: another transaction is renewing or releasing it, which is not waited for. */
extern LeaseReason lease_try_renew(const LeaseKind *kind, const NameArg *name, int64 token, int64 ttl_us, Lease *lease);
extern bool lease_release(const LeaseKind *kind, const NameArg *name, int64 token);
/* SD002 unless token is the live grant with at least min_remaining_us left; pins it to the end of the (sub)transaction. */
extern void lease_assert(const LeaseKind *kind, const NameArg *name, int64 token, int64 min_remaining_us);
/* Has lease_assert() succeeded for the lease of this name in this transaction, and is it pinned still? */
extern bool lease_pinned(const NameArg *name);
/* data: jsonb, 0: none. SD002. */
extern void lease_set_data(const LeaseKind *kind, const NameArg *name, int64 token, Datum data);
/* A new grant for new_owner without a free gap. SD002; false: a transaction of somebody else has it pinned. */
extern bool lease_transfer(const LeaseKind *kind, const NameArg *name, int64 token, const NameArg *new_owner, int64 ttl_us, Lease *lease);
/* No grant of the name outlives after_us from now. Returns when it is free, in microseconds; -1: nobody held it. */
extern int64 lease_break(const LeaseKind *kind, const NameArg *name, int64 after_us, const char *reason);

/* ---- reading (lease_row.c) ---- */

/* The grants of a name as they are, without a lock: palloc'd, the exclusive one (slot 0) first. */
extern Lease *lease_read(const LeaseKind *kind, const NameArg *name, int *n);
/* Removes grants that have been dead for a minute. */
extern void lease_sweep_kind(const LeaseKind *kind, JobSlice *slice);
/* Job: that, of leases. */
extern void lease_sweep(JobSlice *slice);
extern void lease_init(void);

#endif							/* DISTSYS_LEASE_H */
