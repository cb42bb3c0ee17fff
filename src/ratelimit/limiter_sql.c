/*
 * limiter_sql.c: the SQL functions over one limit: arguments in, rows out.
 */
#include "postgres.h"

#include "compat.h"
#include "utils/builtins.h"

#include "core/refusal.h"
#include "core/result.h"
#include "ratelimit/answer.h"
#include "ratelimit/limiter.h"
#include "ratelimit/operator.h"
#include "ratelimit/reservation.h"
#include "ratelimit/shared.h"

/* Longest delay of a reservation. */
#define RESERVE_MAX (INT64CONST(366) * 24 * 60 * 60 * SECONDS)

/* Longest block: 100 years. */
#define BLOCK_MAX (INT64CONST(36525) * 24 * 60 * 60 * SECONDS)

#define MAX_NUMBER ((INT64CONST(1) << 53) - 1)

/* (policy, key, cost) */
static void
read_take(FunctionCallInfo fcinfo, RateTake *take, RateVerb verb)
{
	memset(take, 0, sizeof(*take));
	take->verb = verb;
	take->policy = arg_name(fcinfo, 0, "policy", NAME_SHORT);
	take->key = arg_name(fcinfo, 1, "key", NAME_LONG);
	take->cost = arg_int64(fcinfo, 2, "cost", 0, PG_INT64_MAX);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_rate_limit_take);

Datum
distsys_rate_limit_take(PG_FUNCTION_ARGS)
{
	RateTake	take;

	read_take(fcinfo, &take, RATE_TAKE);
	limiter_take(&take, 1);
	PG_RETURN_DATUM(answer_row(&take));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_rate_limit_peek);

Datum
distsys_rate_limit_peek(PG_FUNCTION_ARGS)
{
	RateTake	take;

	read_take(fcinfo, &take, RATE_TAKE);
	limiter_peek(&take, 1);
	PG_RETURN_DATUM(answer_row(&take));
}

/* Raises what a call that does not answer with a row cannot say: the limit was not to be had. */
static void
check_reached(const RateTake *take)
{
	if (take->reason == RATE_CONTENDED || take->reason == RATE_UNAVAILABLE)
		limiter_raise_unreachable(&take->policy, take->reason);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_rate_limit_take_or_raise);

Datum
distsys_rate_limit_take_or_raise(PG_FUNCTION_ARGS)
{
	RateTake	take;
	Datum		row;
	bool		reached;

	read_take(fcinfo, &take, RATE_TAKE);
	limiter_take(&take, 1);
	row = answer_row(&take);
	reached = take.reason != RATE_CONTENDED && take.reason != RATE_UNAVAILABLE;
	if (!take.allowed)
		ereport(ERROR,
				(errcode_sd(reached ? ERRCODE_SD_RATE_LIMITED : ERRCODE_SD_LIMITER_UNAVAILABLE),
				 errmsg("rate limit \"%s\" refuses", name_cstring(take.policy)),
				 errdetail("%s", result_row_json(row))));
	PG_RETURN_DATUM(row);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_rate_limit_take_up_to);

/* 0 .. cost; all of it when nothing is limited */
Datum
distsys_rate_limit_take_up_to(PG_FUNCTION_ARGS)
{
	RateTake	take;

	read_take(fcinfo, &take, RATE_TAKE_UP_TO);
	limiter_take(&take, 1);
	if (!take.allowed)
		PG_RETURN_INT64(0);
	PG_RETURN_INT64(take.config.mode == RATE_ENFORCE && take.reason == RATE_OK ? take.granted : take.cost);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_rate_limit_charge);

Datum
distsys_rate_limit_charge(PG_FUNCTION_ARGS)
{
	RateTake	take;

	read_take(fcinfo, &take, RATE_CHARGE);
	limiter_take(&take, 1);
	PG_RETURN_DATUM(answer_row(&take));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_rate_limit_refund);

Datum
distsys_rate_limit_refund(PG_FUNCTION_ARGS)
{
	RateTake	take;

	read_take(fcinfo, &take, RATE_REFUND);
	limiter_take(&take, 1);
	check_reached(&take);
	PG_RETURN_INT64(take.granted);
}

/* ---- reservations ---- */

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_rate_limit_reserve);

/* (granted, reason, reservation, delay, act_at) */
Datum
distsys_rate_limit_reserve(PG_FUNCTION_ARGS)
{
	RateTake	take;
	Datum		values[5];
	bool		nulls[5] = {false};

	read_take(fcinfo, &take, RATE_RESERVE);
	take.wait_us = arg_interval(fcinfo, 3, "wait", 0, RESERVE_MAX, "The longest delay that is worth a reservation.");
	limiter_take(&take, 1);
	values[0] = BoolGetDatum(take.allowed);
	values[1] = CStringGetTextDatum(answer_reason(take.reason));
	nulls[2] = take.reservation == 0;
	values[2] = Int64GetDatum(take.reservation);
	nulls[3] = nulls[4] = !take.allowed;
	values[3] = interval_datum(take.delay_us);
	values[4] = TimestampTzGetDatum(take.decided_at + take.delay_us);
	return result_record(fcinfo, values, nulls);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_rate_limit_cancel);

Datum
distsys_rate_limit_cancel(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(reservation_cancel(arg_int64(fcinfo, 0, "reservation", 1, MAX_NUMBER)));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_rate_limit_wait);

/* The row is as of the end of the wait. */
Datum
distsys_rate_limit_wait(PG_FUNCTION_ARGS)
{
	RateTake	take;
	RateTake	after;

	read_take(fcinfo, &take, RATE_RESERVE);
	take.wait_us = arg_function_wait(fcinfo, 3, NULL);
	limiter_require_shared(&take.policy, "rate_limit_wait()");
	limiter_take(&take, 1);
	if (take.allowed && take.delay_us > 0)
	{
		shared_wait(&take);
		after = take;
		after.cost = 0;
		after.verb = RATE_TAKE;
		limiter_peek(&after, 1);
		take.verdict = after.verdict;
		take.decided_at = after.decided_at;
	}
	PG_RETURN_DATUM(answer_row(&take));
}

/* ---- operators ---- */

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_rate_limit_reset);

Datum
distsys_rate_limit_reset(PG_FUNCTION_ARGS)
{
	NameArg		policy = arg_name(fcinfo, 0, "policy", NAME_SHORT);
	NameArg		key = arg_name(fcinfo, 1, "key", NAME_LONG);

	PG_RETURN_BOOL(operator_reset(&policy, &key));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_rate_limit_block);

Datum
distsys_rate_limit_block(PG_FUNCTION_ARGS)
{
	NameArg		policy = arg_name(fcinfo, 0, "policy", NAME_SHORT);
	NameArg		key = arg_name(fcinfo, 1, "key", NAME_LONG);
	int64		duration = arg_interval(fcinfo, 2, "duration", 1, BLOCK_MAX, NULL);
	NameArg		reason = {.datum = (Datum) 0};

	if (!PG_ARGISNULL(3))
		reason = arg_name(fcinfo, 3, "reason", NAME_LONG);
	PG_RETURN_BOOL(operator_block(&policy, &key, duration, reason.datum));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_rate_limit_unblock);

Datum
distsys_rate_limit_unblock(PG_FUNCTION_ARGS)
{
	NameArg		policy = arg_name(fcinfo, 0, "policy", NAME_SHORT);
	NameArg		key = arg_name(fcinfo, 1, "key", NAME_LONG);

	PG_RETURN_BOOL(operator_block(&policy, &key, 0, (Datum) 0));
}
