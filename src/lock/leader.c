/*
 * leader.c: what leaders have beside leases: a request to step down, and a successor.
 *
 * Campaign, renew, proclaim, assert are acquire, renew, set_data and assert of a lease in the table leader_term, so
 * what lease.c says of locks, rollback, crash, failover and standby holds here.
 *
 * resign releases the term. With a successor the place stays his until the term would have ended; he need not queue.
 */
#include "postgres.h"

#include "compat.h"
#include "catalog/pg_collation.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "core/result.h"
#include "core/stats.h"
#include "core/waitlist.h"
#include "lock/leader.h"
#include "lock/lease_arg.h"
#include "lock/lease_holder.h"
#include "store/table_view.h"
#include "store/token.h"

/* A campaign of priority below 0 is never elected: its word for that. */
#define NOT_ELIGIBLE "not_eligible"

/* A reason to step down, for people. */
#define REASON_BYTES 1024

static int64
reserved_us(const Lease *over, const LeaseRequest *request)
{
	ClockReading now = clock_read();
	int64		left_us = deadline_left(&over->deadline, &now);

	if (over->successor == (Datum) 0 || left_us <= 0)
		return 0;
	if (DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID, over->successor, request->owner.datum)))
		return -1;
	return left_us;
}

const LeaseKind leader_kind = {
	.table = TABLE_LEADER,
	.name_space = KEYLOCK_LEADER_NAME,
	.grant_space = KEYLOCK_LEADER_GRANT,
	.domain = "leader",
	.acquire_call = "leader_campaign()",
	.set_data_call = "leader_proclaim()",
	.noun = "leadership of election",
	.token_noun = "term",
	.reserved_us = reserved_us
};

bool
leader_resign(const NameArg *election, int64 term, const NameArg *successor)
{
	Relation	rel = row_open_write(TABLE_LEADER, "leader_resign()");
	LeaseChange change = {0};
	ClockReading now;
	const char *why;
	Lease		lease;
	LOCKTAG		tag;
	HeapTuple	row = lease_hold(&leader_kind, rel, election, term, &lease, &now, &why);

	if (row == NULL)
	{
		row_close_unwritten(rel);
		return false;
	}
	lease_check_role(&leader_kind, election, lease.role);
	lease_change_set(&change, ATTR_RELEASED, BoolGetDatum(true));
	if (successor != NULL)
		lease_change_set(&change, ATTR_SUCCESSOR, successor->datum);
	row_update(rel, row, change.values, change.nulls, change.replace);
	row_close(rel);
	lease_name_tag(&leader_kind, &tag, election);
	if (successor != NULL)
		waitlist_wake_all_at_end(&tag);
	else
		waitlist_wake_at_end(&tag);
	stats_add("leader", "", "resigned", 1);
	return true;
}

bool
leader_request_step_down(const NameArg *election, const char *reason)
{
	Relation	rel = row_open_write(TABLE_LEADER, "leader_request_step_down()");
	LeaseChange change = {0};
	ClockReading now;
	const char *why;
	Lease		lease;
	HeapTuple	row = NULL;

	if (lease_read_latest(rel, election, EXCLUSIVE_SLOT, &lease) != NULL && lease.live)
		row = lease_hold(&leader_kind, rel, election, lease.token, &lease, &now, &why);
	if (row == NULL)
	{
		row_close_unwritten(rel);
		return false;
	}
	lease_change_set(&change, ATTR_STEP_DOWN, CStringGetTextDatum(reason));
	row_update(rel, row, change.values, change.nulls, change.replace);
	row_close(rel);
	stats_add("leader", "", "step_down_requested", 1);
	return true;
}

void
leader_sweep(JobSlice *slice)
{
	lease_sweep_kind(&leader_kind, slice);
}

void
leader_init(void)
{
	token_register_ttl(TABLE_LEADER, ATTR_TTL_US);
}

/* ---- SQL ---- */

/* Row type distsys.leader */
enum
{
	OUT_ELECTED,
	OUT_REASON,
	OUT_ELECTION,
	OUT_CANDIDATE,
	OUT_TERM,
	OUT_VALUE,
	OUT_EXPIRES_AT,
	OUT_TTL_REMAINING,
	OUT_STEP_DOWN_REQUESTED,
	NOUT
};

static void
leader_columns(const NameArg *election, const Lease *lease, bool elected, const char *reason, bool show_term, Datum *values, bool *nulls)
{
	memset(nulls, true, NOUT * sizeof(bool));
	values[OUT_ELECTED] = BoolGetDatum(elected);
	values[OUT_REASON] = CStringGetTextDatum(reason);
	values[OUT_ELECTION] = election->datum;
	nulls[OUT_ELECTED] = nulls[OUT_REASON] = nulls[OUT_ELECTION] = false;
	if (lease->owner == (Datum) 0)
		return;
	values[OUT_CANDIDATE] = lease->owner;
	values[OUT_TERM] = Int64GetDatum(lease->token);
	values[OUT_VALUE] = lease->data;
	values[OUT_EXPIRES_AT] = TimestampTzGetDatum(lease->expires_at);
	values[OUT_TTL_REMAINING] = interval_datum(lease->left_us);
	values[OUT_STEP_DOWN_REQUESTED] = BoolGetDatum(lease->step_down);
	nulls[OUT_CANDIDATE] = nulls[OUT_EXPIRES_AT] = nulls[OUT_TTL_REMAINING] = nulls[OUT_STEP_DOWN_REQUESTED] = false;
	nulls[OUT_TERM] = !show_term;
	nulls[OUT_VALUE] = lease->data == (Datum) 0;
}

static Datum
leader_row(const NameArg *election, const Lease *lease, bool elected, const char *reason)
{
	Datum		values[NOUT] = {0};
	bool		nulls[NOUT];

	leader_columns(election, lease, elected, reason, elected, values, nulls);
	return result_row(catalog_type(TYPE_LEADER), values, nulls);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_leader_campaign);

Datum
distsys_leader_campaign(PG_FUNCTION_ARGS)
{
	LeaseRequest request = {0};
	LeaseAnswer answer = {0};
	int64		wait_us;
	bool		elected;

	request.role = GetUserId();
	request.name = arg_name(fcinfo, 0, "election", NAME_LONG);
	request.owner = arg_name(fcinfo, 1, "candidate", NAME_LONG);
	request.ttl_us = lease_arg_ttl(fcinfo, 2);
	wait_us = arg_function_wait(fcinfo, 3, NULL);
	request.data = lease_arg_data(fcinfo, 4, "value");
	request.priority = arg_int32(fcinfo, 5, "priority", PG_INT32_MIN, PG_INT32_MAX);
	request.request_id = lease_arg_uuid(fcinfo, 6);
	if (request.priority < 0)
	{
		int			n;
		Lease	   *leases = lease_read(&leader_kind, &request.name, &n);

		if (n > 0 && leases[0].live)
			answer.lease = leases[0];
		PG_RETURN_DATUM(leader_row(&request.name, &answer.lease, false, NOT_ELIGIBLE));
	}
	elected = lease_acquire(&leader_kind, &request, 1, wait_us, &answer);
	if (elected && !answer.again)
		lease_notice_in_transaction(&leader_kind, &request.name);
	PG_RETURN_DATUM(leader_row(&request.name, &answer.lease, elected, lease_reason_word(answer.reason)));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_leader_renew);

Datum
distsys_leader_renew(PG_FUNCTION_ARGS)
{
	NameArg		election = arg_name(fcinfo, 0, "election", NAME_LONG);
	Lease		lease;

	lease_renew(&leader_kind, &election, arg_int64(fcinfo, 1, "term", 1, TOKEN_LIMIT - 1), 0, &lease);
	PG_RETURN_DATUM(leader_row(&election, &lease, true, lease_reason_word(LEASE_OK)));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_leader_proclaim);

Datum
distsys_leader_proclaim(PG_FUNCTION_ARGS)
{
	NameArg		election = arg_name(fcinfo, 0, "election", NAME_LONG);
	int64		term = arg_int64(fcinfo, 1, "term", 1, TOKEN_LIMIT - 1);

	lease_set_data(&leader_kind, &election, term, lease_arg_data(fcinfo, 2, "value"));
	PG_RETURN_BOOL(true);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_leader_resign);

Datum
distsys_leader_resign(PG_FUNCTION_ARGS)
{
	NameArg		election = arg_name(fcinfo, 0, "election", NAME_LONG);
	int64		term = arg_int64(fcinfo, 1, "term", 1, TOKEN_LIMIT - 1);
	NameArg		successor;

	if (PG_ARGISNULL(2))
		PG_RETURN_BOOL(leader_resign(&election, term, NULL));
	successor = arg_name(fcinfo, 2, "successor", NAME_LONG);
	PG_RETURN_BOOL(leader_resign(&election, term, &successor));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_leader_assert);

Datum
distsys_leader_assert(PG_FUNCTION_ARGS)
{
	NameArg		election = arg_name(fcinfo, 0, "election", NAME_LONG);

	lease_assert(&leader_kind, &election, arg_int64(fcinfo, 1, "term", 1, TOKEN_LIMIT - 1), 0);
	PG_RETURN_BOOL(true);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_leader_request_step_down);

Datum
distsys_leader_request_step_down(PG_FUNCTION_ARGS)
{
	NameArg		election = arg_name(fcinfo, 0, "election", NAME_LONG);
	NameArg		reason;

	arg_not_null(fcinfo, 1, "reason");
	(void) arg_text(fcinfo, 1, "reason", REASON_BYTES, &reason);
	PG_RETURN_BOOL(leader_request_step_down(&election, name_cstring(reason)));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_leader_current);

/* The leader, or no row. */
Datum
distsys_leader_current(PG_FUNCTION_ARGS)
{
	NameArg		election = arg_name(fcinfo, 0, "election", NAME_LONG);
	int			n;
	Lease	   *leases = lease_read(&leader_kind, &election, &n);

	result_begin_set(fcinfo);
	if (n > 0 && leases[0].live)
	{
		Datum		values[NOUT] = {0};
		bool		nulls[NOUT];

		leader_columns(&election, &leases[0], true, lease_reason_word(LEASE_HELD),
					   has_privs_of_role(GetUserId(), leases[0].role), values, nulls);
		result_put(fcinfo, values, nulls);
	}
	return (Datum) 0;
}

static void
view_columns(Relation rel, HeapTuple row, Datum *values, bool *nulls)
{
	ClockReading now = clock_read();
	Lease		lease;

	lease_from_row(rel, row, &now, &lease);
	values[0] = lease.name;
	values[1] = lease.owner;
	values[2] = ObjectIdGetDatum(lease.role);
	values[3] = BoolGetDatum(lease.live);
	values[4] = Int64GetDatum(lease.token);
	nulls[4] = !has_privs_of_role(GetUserId(), lease.role);
	values[5] = lease.data;
	nulls[5] = lease.data == (Datum) 0;
	values[6] = TimestampTzGetDatum(lease.acquired_at);
	values[7] = TimestampTzGetDatum(lease.expires_at);
	values[8] = interval_datum(lease.left_us);
	values[9] = BoolGetDatum(lease.step_down);
	values[10] = row_get(rel, row, ATTR_STEP_DOWN, &nulls[10]);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys__leaders);

/* Rows (election, candidate, role, live, term, value, acquired_at, expires_at, ttl_remaining, step_down_requested, step_down_reason). */
Datum
distsys__leaders(PG_FUNCTION_ARGS)
{
	return table_view(fcinfo, TABLE_LEADER, view_columns);
}
