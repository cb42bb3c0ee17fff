/*
 * limiter_sql.c: the SQL functions of rate limits: arguments in, rows out.
 */
#include "postgres.h"

#include "compat.h"
#include "utils/builtins.h"

#include "core/result.h"
#include "errors.h"
#include "ratelimit/headers.h"
#include "ratelimit/limiter.h"
#include "store/catalog.h"

static const char *const reasons[] = {
	[RATE_OK] = "ok",
	[RATE_LIMITED] = "limited",
	[RATE_COST_EXCEEDS_LIMIT] = "cost_exceeds_limit",
	[RATE_BLOCKED] = "blocked",
	[RATE_CONTENDED] = "contended",
	[RATE_UNAVAILABLE] = "unavailable",
	[RATE_SHADOWED] = "shadow",
	[RATE_IS_UNLIMITED] = "unlimited",
	[RATE_IS_DISABLED] = "disabled"
};

/* Row type distsys.rate_limit_result */
enum
{
	OUT_ALLOWED,
	OUT_REASON,
	OUT_POLICY,
	OUT_KEY,
	OUT_QUOTA,
	OUT_REMAINING,
	OUT_RETRY_AFTER,
	OUT_RETRY_AFTER_S,
	OUT_RESET_AFTER,
	OUT_NEXT_AFTER,
	OUT_WITHIN,
	OUT_DECIDED_AT,
	NOUT
};

static void
take_columns(const RateTake *take, Datum *values, bool *nulls)
{
	int64		retry_us = take_retry_us(take);

	memset(nulls, false, NOUT * sizeof(bool));
	values[OUT_ALLOWED] = BoolGetDatum(take->allowed);
	values[OUT_REASON] = CStringGetTextDatum(reasons[take->reason]);
	values[OUT_POLICY] = take->policy.datum;
	values[OUT_KEY] = take->key.datum;
	values[OUT_QUOTA] = Int64GetDatum(take->config.quota);
	values[OUT_REMAINING] = Int64GetDatum(take->verdict.remaining);
	nulls[OUT_RETRY_AFTER] = nulls[OUT_RETRY_AFTER_S] = retry_us <= 0;
	values[OUT_RETRY_AFTER] = interval_datum(retry_us);
	values[OUT_RETRY_AFTER_S] = Int32GetDatum(seconds_up(retry_us));
	values[OUT_RESET_AFTER] = interval_datum(take->verdict.reset_us);
	values[OUT_NEXT_AFTER] = interval_datum(take->verdict.next_us);
	values[OUT_WITHIN] = BoolGetDatum(take->within);
	values[OUT_DECIDED_AT] = TimestampTzGetDatum(take->decided_at);
}

static Datum
take_row(const RateTake *take)
{
	Datum		values[NOUT];
	bool		nulls[NOUT];

	take_columns(take, values, nulls);
	return result_row(catalog_type(TYPE_RATE_LIMIT_RESULT), values, nulls);
}

/* (policy, key, cost) */
static void
read_take(FunctionCallInfo fcinfo, RateTake *take)
{
	memset(take, 0, sizeof(*take));
	take->policy = arg_name(fcinfo, 0, "policy", NAME_SHORT);
	take->key = arg_name(fcinfo, 1, "key", NAME_LONG);
	take->cost = arg_int64(fcinfo, 2, "cost", 0, PG_INT64_MAX);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_rate_limit_take);

Datum
distsys_rate_limit_take(PG_FUNCTION_ARGS)
{
	RateTake	take;

	read_take(fcinfo, &take);
	limiter_take(&take, 1);
	PG_RETURN_DATUM(take_row(&take));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_rate_limit_peek);

Datum
distsys_rate_limit_peek(PG_FUNCTION_ARGS)
{
	RateTake	take;

	read_take(fcinfo, &take);
	limiter_peek(&take, 1);
	PG_RETURN_DATUM(take_row(&take));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_rate_limit_take_or_raise);

Datum
distsys_rate_limit_take_or_raise(PG_FUNCTION_ARGS)
{
	RateTake	take;
	Datum		row;

	read_take(fcinfo, &take);
	limiter_take(&take, 1);
	row = take_row(&take);
	if (!take.allowed)
		ereport(ERROR,
				(errcode(take.reason == RATE_CONTENDED || take.reason == RATE_UNAVAILABLE ? ERRCODE_SD_LIMITER_UNAVAILABLE : ERRCODE_SD_RATE_LIMITED),
				 errmsg("rate limit \"%s\" refuses", name_cstring(take.policy)),
				 errdetail("%s", result_row_json(row))));
	PG_RETURN_DATUM(row);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_rate_limit_reset);

Datum
distsys_rate_limit_reset(PG_FUNCTION_ARGS)
{
	NameArg		policy = arg_name(fcinfo, 0, "policy", NAME_SHORT);
	NameArg		key = arg_name(fcinfo, 1, "key", NAME_LONG);

	PG_RETURN_BOOL(limiter_reset(&policy, &key));
}

/* ---- HTTP ---- */

static const char *const styles[] = {"ietf", "x", "draft06", NULL};

/* (policies, keys, costs): arrays of one length; costs NULL is 1 each. */
static RateTake *
read_takes(FunctionCallInfo fcinfo, int *n)
{
	int			nkeys;
	int			ncosts;
	NameArg    *policies = arg_name_array(fcinfo, 0, "policies", NAME_SHORT, false, n);
	NameArg    *keys = arg_name_array(fcinfo, 1, "keys", NAME_LONG, false, &nkeys);
	int64	   *costs = NULL;
	RateTake   *takes;

	ncosts = *n;
	if (!PG_ARGISNULL(2))
		costs = arg_int64_array(fcinfo, 2, "costs", 0, PG_INT64_MAX, &ncosts);
	if (nkeys != *n || ncosts != *n)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("policies, keys and costs must have the same length"),
				 errdetail("They have %d, %d and %d elements.", *n, nkeys, ncosts)));

	takes = palloc0(*n * sizeof(RateTake));
	for (int i = 0; i < *n; i++)
	{
		takes[i].policy = policies[i];
		takes[i].key = keys[i];
		takes[i].cost = costs == NULL ? 1 : costs[i];
	}
	return takes;
}

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
