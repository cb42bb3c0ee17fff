/*
 * lease_sql.c: the SQL functions of leases: arguments in, rows out.
 */
#include "postgres.h"

#include "access/xact.h"
#include "compat.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "core/guc.h"
#include "core/refusal.h"
#include "core/result.h"
#include "lock/lease_arg.h"
#include "lock/lease_session.h"
#include "store/row.h"

#define TTL_MIN (100 * MILLISECONDS)
#define TTL_HINT "A bare number is seconds; write '30 s' or make_interval(secs => 30). The limit is distsys.lease_max_ttl."

/* The row is written again at each renewal. */
#define DATA_BYTES 8192

static const char *const modes[] = {"exclusive", "shared", NULL};
static const char *const reasons[] = {
	[LEASE_OK] = "ok",
	[LEASE_HELD] = "held",
	[LEASE_PINNED] = "pinned",
	[LEASE_MIN_HOLD] = "min_hold",
	[LEASE_FAILOVER_DELAY] = "failover_delay",
	[LEASE_TIMEOUT] = "timeout",
	[LEASE_FREE] = "free",
	[LEASE_LOST] = "lost"
};

/* Row type distsys.lease */
enum
{
	OUT_ACQUIRED,
	OUT_REASON,
	OUT_NAME,
	OUT_OWNER,
	OUT_MODE,
	OUT_TOKEN,
	OUT_ACQUIRED_AT,
	OUT_EXPIRES_AT,
	OUT_TTL_REMAINING,
	OUT_RETRY_AFTER,
	OUT_DATA,
	NOUT
};

/* ---- arguments, also of leaders ---- */

const char *
lease_reason_word(LeaseReason reason)
{
	return reasons[reason];
}

int64
lease_arg_ttl(FunctionCallInfo fcinfo, int argno)
{
	return arg_interval(fcinfo, argno, "ttl", TTL_MIN, (int64) guc_lease_max_ttl * MILLISECONDS, TTL_HINT);
}

int64
lease_arg_optional_ttl(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? 0 : lease_arg_ttl(fcinfo, argno);
}

const pg_uuid_t *
lease_arg_uuid(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? NULL : PG_GETARG_UUID_P(argno);
}

Datum
lease_arg_data(FunctionCallInfo fcinfo, int argno, const char *what)
{
	Jsonb	   *data;

	if (PG_ARGISNULL(argno))
		return (Datum) 0;
	data = PG_GETARG_JSONB_P(argno);
	if (VARSIZE(data) > DATA_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("%s is too large", what),
				 errdetail("It has %zu bytes, the limit is %d.", (size_t) VARSIZE(data), DATA_BYTES),
				 errhint("Keep an address or a reference there; every renewal writes it again.")));
	return JsonbPGetDatum(data);
}

/* Also decides whose the lease will be. */
static const pg_uuid_t *
arg_session(FunctionCallInfo fcinfo, int argno, LeaseRequest *request)
{
	const pg_uuid_t *id = lease_arg_uuid(fcinfo, argno);
	int64		session_ttl_us;

	request->role = GetUserId();
	if (id == NULL)
		return NULL;
	lease_session_check(id, &session_ttl_us, &request->role);
	request->ttl_us = Max(request->ttl_us, session_ttl_us);
	return id;
}

/* ---- rows ---- */

/* Fills what a holder and a bystander may both know; the token only for roles that have the holder's rights. */
static void
describe(const NameArg *name, const Lease *lease, bool show_token, Datum *values, bool *nulls)
{
	memset(nulls, true, NOUT * sizeof(bool));
	values[OUT_NAME] = name->datum;
	nulls[OUT_NAME] = false;
	if (lease->owner == (Datum) 0)
		return;
	values[OUT_OWNER] = lease->owner;
	values[OUT_MODE] = CStringGetTextDatum(modes[lease->shared]);
	values[OUT_TOKEN] = Int64GetDatum(lease->token);
	values[OUT_ACQUIRED_AT] = TimestampTzGetDatum(lease->acquired_at);
	values[OUT_EXPIRES_AT] = TimestampTzGetDatum(lease->expires_at);
	values[OUT_TTL_REMAINING] = interval_datum(lease->left_us);
	values[OUT_DATA] = lease->data;
	nulls[OUT_OWNER] = nulls[OUT_MODE] = false;
	nulls[OUT_ACQUIRED_AT] = nulls[OUT_EXPIRES_AT] = nulls[OUT_TTL_REMAINING] = false;
	nulls[OUT_TOKEN] = !show_token;
	nulls[OUT_DATA] = lease->data == (Datum) 0;
}

static void
set_verdict(bool acquired, LeaseReason reason, int64 retry_us, Datum *values, bool *nulls)
{
	values[OUT_ACQUIRED] = BoolGetDatum(acquired);
	values[OUT_REASON] = CStringGetTextDatum(reasons[reason]);
	nulls[OUT_ACQUIRED] = nulls[OUT_REASON] = false;
	nulls[OUT_RETRY_AFTER] = acquired || retry_us <= 0;
	if (!nulls[OUT_RETRY_AFTER])
		values[OUT_RETRY_AFTER] = interval_datum(retry_us);
}

static void
answer_columns(const NameArg *name, const LeaseAnswer *answer, bool acquired, Datum *values, bool *nulls)
{
	describe(name, &answer->lease, acquired, values, nulls);
	set_verdict(acquired, answer->reason, answer->retry_us, values, nulls);
}

static Datum
lease_row(const NameArg *name, const Lease *lease, bool acquired, LeaseReason reason)
{
	Datum		values[NOUT] = {0};
	bool		nulls[NOUT];

	describe(name, lease, acquired, values, nulls);
	set_verdict(acquired, reason, lease->left_us, values, nulls);
	return result_row(catalog_type(TYPE_LEASE), values, nulls);
}

/* Drivers open transactions that nobody sees; until its COMMIT no one else sees the grant, and its ttl runs. */
void
lease_notice_in_transaction(const LeaseKind *kind, const NameArg *name)
{
	if (!guc_notice_in_transaction || !IsTransactionBlock())
		return;
	ereport(NOTICE,
			(errmsg("%s \"%s\" takes effect at commit", kind->noun, name_cstring(*name)),
			 errhint("Acquire it in autocommit mode; set distsys.notice_in_transaction = off when this is meant.")));
}

/* ---- acquire ---- */

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_lease_acquire);

Datum
distsys_lease_acquire(PG_FUNCTION_ARGS)
{
	LeaseRequest request = {0};
	LeaseAnswer answer;
	Datum		values[NOUT] = {0};
	bool		nulls[NOUT];
	int64		wait_us;
	bool		acquired;

	request.name = arg_name(fcinfo, 0, "name", NAME_LONG);
	request.owner = arg_name(fcinfo, 1, "owner", NAME_LONG);
	request.ttl_us = lease_arg_ttl(fcinfo, 2);
	wait_us = arg_function_wait(fcinfo, 3, "CALL lease_lock()");
	request.shared = arg_word(fcinfo, 4, "mode", modes) == 1;
	request.request_id = lease_arg_uuid(fcinfo, 5);
	request.data = lease_arg_data(fcinfo, 6, "data");
	request.min_hold_us = arg_interval(fcinfo, 7, "min_hold", 0, request.ttl_us, "min_hold must not be longer than ttl.");
	request.session_id = arg_session(fcinfo, 8, &request);

	acquired = lease_acquire(&lease_kind, &request, 1, wait_us, &answer);
	if (acquired && !answer.again)
		lease_notice_in_transaction(&lease_kind, &request.name);
	answer_columns(&request.name, &answer, acquired, values, nulls);
	PG_RETURN_DATUM(result_row(catalog_type(TYPE_LEASE), values, nulls));
}

static int
by_name(const void *a, const void *b)
{
	const NameArg *x = (const NameArg *) a;
	const NameArg *y = (const NameArg *) b;
	int			order = memcmp(x->data, y->data, Min(x->len, y->len));

	return order != 0 ? order : x->len - y->len;
}

/* Sorted, without duplicates. */
static NameArg *
arg_names(FunctionCallInfo fcinfo, int argno, int *n)
{
	NameArg    *names = arg_name_array(fcinfo, argno, "names", NAME_LONG, false, n);
	int			kept = 0;

	qsort(names, *n, sizeof(NameArg), by_name);
	for (int i = 0; i < *n; i++)
	{
		if (kept == 0 || by_name(&names[kept - 1], &names[i]) != 0)
			names[kept++] = names[i];
	}
	*n = kept;
	return names;
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_lease_acquire_all);

Datum
distsys_lease_acquire_all(PG_FUNCTION_ARGS)
{
	LeaseRequest common = {0};
	int			n;
	NameArg    *names = arg_names(fcinfo, 0, &n);
	LeaseRequest *requests = palloc(n * sizeof(LeaseRequest));
	LeaseAnswer *answers = palloc(n * sizeof(LeaseAnswer));
	int64		wait_us;
	bool		acquired;

	common.owner = arg_name(fcinfo, 1, "owner", NAME_LONG);
	common.ttl_us = lease_arg_ttl(fcinfo, 2);
	wait_us = arg_function_wait(fcinfo, 3, NULL);
	common.shared = arg_word(fcinfo, 4, "mode", modes) == 1;
	common.request_id = lease_arg_uuid(fcinfo, 5);
	common.session_id = arg_session(fcinfo, 6, &common);
	for (int i = 0; i < n; i++)
	{
		requests[i] = common;
		requests[i].name = names[i];
	}
	result_begin_set(fcinfo);
	acquired = lease_acquire(&lease_kind, requests, n, wait_us, answers);
	for (int i = 0; i < n; i++)
	{
		Datum		values[NOUT] = {0};
		bool		nulls[NOUT];

		if (acquired && !answers[i].again)
			lease_notice_in_transaction(&lease_kind, &names[i]);
		answer_columns(&names[i], &answers[i], acquired, values, nulls);
		result_put(fcinfo, values, nulls);
	}
	return (Datum) 0;
}

/* ---- holders ---- */

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_lease_renew);

Datum
distsys_lease_renew(PG_FUNCTION_ARGS)
{
	NameArg		name = arg_name(fcinfo, 0, "name", NAME_LONG);
	int64		token = arg_token(fcinfo, 1);
	int64		ttl_us = lease_arg_optional_ttl(fcinfo, 2);
	Lease		lease;

	lease_renew(&lease_kind, &name, token, ttl_us, &lease);
	PG_RETURN_DATUM(lease_row(&name, &lease, true, LEASE_OK));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_lease_release);

Datum
distsys_lease_release(PG_FUNCTION_ARGS)
{
	NameArg		name = arg_name(fcinfo, 0, "name", NAME_LONG);

	PG_RETURN_BOOL(lease_release(&lease_kind, &name, arg_token(fcinfo, 1)));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_lease_assert);

Datum
distsys_lease_assert(PG_FUNCTION_ARGS)
{
	NameArg		name = arg_name(fcinfo, 0, "name", NAME_LONG);
	int64		token = arg_token(fcinfo, 1);

	lease_assert(&lease_kind, &name, token, arg_interval(fcinfo, 2, "min_remaining", 0, PG_INT64_MAX, NULL));
	PG_RETURN_BOOL(true);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_lease_set_data);

Datum
distsys_lease_set_data(PG_FUNCTION_ARGS)
{
	NameArg		name = arg_name(fcinfo, 0, "name", NAME_LONG);
	int64		token = arg_token(fcinfo, 1);

	lease_set_data(&lease_kind, &name, token, lease_arg_data(fcinfo, 2, "data"));
	PG_RETURN_BOOL(true);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_lease_transfer);

Datum
distsys_lease_transfer(PG_FUNCTION_ARGS)
{
	NameArg		name = arg_name(fcinfo, 0, "name", NAME_LONG);
	int64		token = arg_token(fcinfo, 1);
	NameArg		new_owner = arg_name(fcinfo, 2, "new_owner", NAME_LONG);
	int64		ttl_us = lease_arg_optional_ttl(fcinfo, 3);
	Lease		lease;
	bool		transferred = lease_transfer(&lease_kind, &name, token, &new_owner, ttl_us, &lease);

	PG_RETURN_DATUM(lease_row(&name, &lease, transferred, transferred ? LEASE_OK : LEASE_PINNED));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_lease_break);

Datum
distsys_lease_break(PG_FUNCTION_ARGS)
{
	NameArg		name = arg_name(fcinfo, 0, "name", NAME_LONG);
	int64		after_us = arg_interval(fcinfo, 1, "break_after", 0, (int64) INT_MAX * SECONDS, NULL);
	NameArg		reason;
	bool		has_reason = arg_text(fcinfo, 2, "reason", 1024, &reason);
	int64		free_us = lease_break(&lease_kind, &name, after_us, has_reason ? name_cstring(reason) : NULL);

	if (free_us < 0)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(interval_datum(free_us));
}

/* ---- sessions ---- */

static const pg_uuid_t *
arg_session_id(FunctionCallInfo fcinfo)
{
	arg_not_null(fcinfo, 0, "id");
	return PG_GETARG_UUID_P(0);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_lease_session_open);

Datum
distsys_lease_session_open(PG_FUNCTION_ARGS)
{
	NameArg		owner = arg_name(fcinfo, 0, "owner", NAME_LONG);
	int64		ttl_us = lease_arg_ttl(fcinfo, 1);
	pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));

	lease_session_open(&owner, ttl_us, id);
	PG_RETURN_UUID_P(id);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_lease_session_renew);

Datum
distsys_lease_session_renew(PG_FUNCTION_ARGS)
{
	int			n;
	SessionLease *members;

	result_begin_set(fcinfo);
	members = lease_session_renew(arg_session_id(fcinfo), &n);
	for (int i = 0; i < n; i++)
	{
		Datum		values[NOUT] = {0};
		bool		nulls[NOUT];
		Lease		none = {0};
		bool		held = members[i].reason != LEASE_LOST;

		describe(&members[i].name, held ? &members[i].lease : &none, held, values, nulls);
		set_verdict(held, members[i].reason, 0, values, nulls);
		result_put(fcinfo, values, nulls);
	}
	return (Datum) 0;
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_lease_session_close);

Datum
distsys_lease_session_close(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(lease_session_close(arg_session_id(fcinfo)));
}

/* ---- reading ---- */

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_lease_get);

/* One row per grant of the name that is live, or that was the last: acquired says which. */
Datum
distsys_lease_get(PG_FUNCTION_ARGS)
{
	NameArg		name = arg_name(fcinfo, 0, "name", NAME_LONG);
	int			n;
	Lease	   *leases = lease_read(&lease_kind, &name, &n);
	bool		any_live = false;

	for (int i = 0; i < n; i++)
		any_live |= leases[i].live;
	result_begin_set(fcinfo);
	for (int i = 0; i < n; i++)
	{
		Datum		values[NOUT] = {0};
		bool		nulls[NOUT];

		if (any_live && !leases[i].live)
			continue;
		describe(&name, &leases[i], has_privs_of_role(GetUserId(), leases[i].role), values, nulls);
		set_verdict(leases[i].live, leases[i].live ? LEASE_HELD : LEASE_FREE, 0, values, nulls);
		result_put(fcinfo, values, nulls);
		if (!any_live)
			break;
	}
	return (Datum) 0;
}
