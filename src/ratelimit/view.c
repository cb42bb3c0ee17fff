/*
 * view.c: rows of the views rate_limits and rate_limit_hot_keys.
 */
#include "postgres.h"

#include "compat.h"
#include "utils/builtins.h"

#include "core/result.h"
#include "ratelimit/durable.h"
#include "ratelimit/shared.h"
#include "ratelimit/view.h"

enum
{
	OUT_POLICY,
	OUT_KEY,
	OUT_STORAGE,
	OUT_ALGORITHM,
	OUT_CAPACITY,
	OUT_REMAINING,
	OUT_RESET_AFTER,
	OUT_BLOCKED_UNTIL,
	OUT_BLOCKED_REASON,
	OUT_LAST_USED_AT,
	NOUT
};

static void
put_limit(const RateEntry *entry, void *arg)
{
	FunctionCallInfo fcinfo = (FunctionCallInfo) arg;
	Datum		values[NOUT];
	bool		nulls[NOUT] = {false};

	values[OUT_POLICY] = entry->policy;
	nulls[OUT_KEY] = entry->key == (Datum) 0;
	values[OUT_KEY] = entry->key;
	values[OUT_STORAGE] = CStringGetTextDatum(entry->shared ? "shared" : "durable");
	values[OUT_ALGORITHM] = CStringGetTextDatum(algorithm_name(entry->rule->algorithm));
	values[OUT_CAPACITY] = Int64GetDatum(entry->rule->limit.burst);
	values[OUT_REMAINING] = Int64GetDatum(entry->remaining);
	values[OUT_RESET_AFTER] = interval_datum(entry->reset_us);
	nulls[OUT_BLOCKED_UNTIL] = entry->blocked_until == 0;
	values[OUT_BLOCKED_UNTIL] = TimestampTzGetDatum(entry->blocked_until);
	nulls[OUT_BLOCKED_REASON] = entry->blocked_reason == (Datum) 0;
	values[OUT_BLOCKED_REASON] = entry->blocked_reason;
	values[OUT_LAST_USED_AT] = TimestampTzGetDatum(entry->used_at);
	result_put(fcinfo, values, nulls);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys__rate_limits);

Datum
distsys__rate_limits(PG_FUNCTION_ARGS)
{
	result_begin_set(fcinfo);
	durable_list(put_limit, fcinfo);
	shared_list(put_limit, fcinfo);
	return (Datum) 0;
}

/* (policy, key, takes, last_used_at) */
static void
put_hot_key(const RateEntry *entry, void *arg)
{
	FunctionCallInfo fcinfo = (FunctionCallInfo) arg;
	Datum		values[4] = {entry->policy, entry->key, Int64GetDatum(entry->uses), TimestampTzGetDatum(entry->used_at)};
	bool		nulls[4] = {false};

	result_put(fcinfo, values, nulls);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys__rate_limit_shared_hot_keys);

Datum
distsys__rate_limit_shared_hot_keys(PG_FUNCTION_ARGS)
{
	result_begin_set(fcinfo);
	shared_hot_keys(put_hot_key, fcinfo);
	return (Datum) 0;
}
