/*
 * answer.c: rows of type rate_limit_result, see answer.h.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "core/result.h"
#include "ratelimit/answer.h"
#include "ratelimit/headers.h"
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

const char *
answer_reason(RateReason reason)
{
	return reasons[reason];
}

/*
 * What the algorithms report differently: a token bucket says when there will be one token
 * more; GCRA, when the next cell conforms, which is now while one is left; a leaky
 * bucket, when it is the turn of what was just let in.
 */
static int64
next_after_us(const RateTake *take)
{
	if (take->config.rule.algorithm == LIMIT_GCRA && take->verdict.remaining > 0)
		return 0;
	if (take->config.rule.algorithm == LIMIT_LEAKY_BUCKET && take->allowed && take->verb == RATE_TAKE)
		return take->delay_us;
	return take->verdict.next_us;
}

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
	values[OUT_NEXT_AFTER] = interval_datum(next_after_us(take));
	values[OUT_WITHIN] = BoolGetDatum(take->within);
	values[OUT_DECIDED_AT] = TimestampTzGetDatum(take->decided_at);
}

Datum
answer_row(const RateTake *take)
{
	Datum		values[NOUT];
	bool		nulls[NOUT];

	take_columns(take, values, nulls);
	return result_row(catalog_type(TYPE_RATE_LIMIT_RESULT), values, nulls);
}

void
answer_set(FunctionCallInfo fcinfo, const RateTake *takes, int n)
{
	Datum		values[NOUT];
	bool		nulls[NOUT];

	result_begin_set(fcinfo);
	for (int i = 0; i < n; i++)
	{
		take_columns(&takes[i], values, nulls);
		result_put(fcinfo, values, nulls);
	}
}
