/*
 * several_sql.c: the SQL functions over several limits, all or nothing, and
 * what a web framework sends about them.
 */
#include "postgres.h"

#include "compat.h"
#include "utils/builtins.h"

#include "core/result.h"
#include "ratelimit/answer.h"
#include "ratelimit/headers.h"
#include "ratelimit/limiter.h"
#include "ratelimit/tier.h"

static const char *const styles[] = {"ietf", "x", "draft06", NULL};

/* policies and keys: arrays of one length; cost: of each */
static RateTake *
read_limits(FunctionCallInfo fcinfo, int64 cost, int *n)
{
	int			nkeys;
	NameArg    *policies = arg_name_array(fcinfo, 0, "policies", NAME_SHORT, false, n);
	NameArg    *keys = arg_name_array(fcinfo, 1, "keys", NAME_LONG, false, &nkeys);
	RateTake   *takes;

	if (nkeys != *n)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("policies and keys must have the same length"),
				 errdetail("They have %d and %d elements.", *n, nkeys)));
	takes = palloc0(*n * sizeof(RateTake));
	for (int i = 0; i < *n; i++)
	{
		takes[i].policy = policies[i];
		takes[i].key = keys[i];
		takes[i].cost = cost;
	}
	return takes;
}

/* (policies, keys, costs): costs NULL is 1 each. */
static RateTake *
read_takes(FunctionCallInfo fcinfo, int *n)
{
	RateTake   *takes = read_limits(fcinfo, 1, n);
	int64	   *costs;
	int			ncosts;

	if (PG_ARGISNULL(2))
		return takes;
	costs = arg_int64_array(fcinfo, 2, "costs", 0, PG_INT64_MAX, &ncosts);
	if (ncosts != *n)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("policies and costs must have the same length"),
				 errdetail("They have %d and %d elements.", *n, ncosts)));
	for (int i = 0; i < *n; i++)
		takes[i].cost = costs[i];
	return takes;
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_rate_limit_take_all);

Datum
distsys_rate_limit_take_all(PG_FUNCTION_ARGS)
{
	int			n;
	RateTake   *takes = read_takes(fcinfo, &n);

	limiter_take(takes, n);
	answer_set(fcinfo, takes, n);
	return (Datum) 0;
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_rate_limit_take_for);

/* (subject, cost, policies) */
Datum
distsys_rate_limit_take_for(PG_FUNCTION_ARGS)
{
	NameArg		subject = arg_name(fcinfo, 0, "subject", NAME_LONG);
	int64		cost = arg_int64(fcinfo, 1, "cost", 0, PG_INT64_MAX);
	NameArg    *policies;
	RateTake   *takes;
	int			n;

	policies = PG_ARGISNULL(2) ? rate_tier_policies(&subject, &n) :
		arg_name_array(fcinfo, 2, "policies", NAME_SHORT, false, &n);
	takes = palloc0(n * sizeof(RateTake));
	for (int i = 0; i < n; i++)
	{
		takes[i].policy = policies[i];
		takes[i].key = subject;
		takes[i].cost = cost;
		takes[i].by_subject = true;
	}
	limiter_take(takes, n);
	answer_set(fcinfo, takes, n);
	return (Datum) 0;
}

/* ---- HTTP ---- */

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_rate_limit_http);

/* (allowed, status, headers, problem, violated) */
Datum
distsys_rate_limit_http(PG_FUNCTION_ARGS)
{
	int			n;
	RateTake   *takes = read_takes(fcinfo, &n);
	HeaderStyle style = (HeaderStyle) arg_word(fcinfo, 3, "style", styles);
	int			status;
	Datum		values[5];
	bool		nulls[5] = {false};

	limiter_take(takes, n);
	status = headers_status(takes, n);
	values[0] = BoolGetDatum(takes[0].allowed);
	values[1] = Int32GetDatum(status);
	values[2] = headers_json(takes, n, style);
	nulls[3] = takes[0].allowed;
	values[3] = nulls[3] ? (Datum) 0 : headers_problem(takes, n, status);
	values[4] = headers_violated(takes, n);
	return result_record(fcinfo, values, nulls);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_rate_limit_headers);

/* (policies, keys, style): looks only */
Datum
distsys_rate_limit_headers(PG_FUNCTION_ARGS)
{
	int			n;
	RateTake   *takes = read_limits(fcinfo, 0, &n);
	HeaderStyle style = (HeaderStyle) arg_word(fcinfo, 2, "style", styles);

	limiter_peek(takes, n);
	PG_RETURN_DATUM(headers_json(takes, n, style));
}
