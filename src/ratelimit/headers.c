/*
 * headers.c: rate limit headers and problem documents, see headers.h.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"

#include "core/arg.h"
#include "ratelimit/headers.h"

/* A structured-field integer has at most 15 digits. */
#define SF_INTEGER_MAX INT64CONST(999999999999999)

/* How long to stay away from a bucket that somebody else holds. */
#define CONTENDED_RETRY (100 * MILLISECONDS)

/* Not refused for what was taken, but for where it is counted. */
static bool
out_of_reach(const RateTake *take)
{
	return take->reason == RATE_CONTENDED || take->reason == RATE_UNAVAILABLE;
}

int64
take_retry_us(const RateTake *take)
{
	if (take->allowed || take->within || take->never)
		return 0;
	return out_of_reach(take) ? CONTENDED_RETRY : take->verdict.retry_us;
}

/* A calendar's window has the length of this month, or of this day. */
static int64
take_window_us(const RateTake *take)
{
	const LimitRule *rule = &take->config.rule;

	return rule->algorithm == LIMIT_CALENDAR ? rule->window[1] - rule->window[0] : take->config.period_us;
}

static bool
refuses(const RateTake *take)
{
	return !take->within && take->reason != RATE_SHADOWED;
}

int
headers_status(const RateTake *takes, int n)
{
	if (takes[0].allowed)
		return 200;
	for (int i = 0; i < n; i++)
	{
		if (refuses(&takes[i]) && !out_of_reach(&takes[i]))
			return 429;
	}
	return 503;
}

/* A structured-field string: quoted, with \ before quote and backslash. */
static void
append_sf_string(StringInfo out, const char *data, int len)
{
	appendStringInfoChar(out, '"');
	for (int i = 0; i < len; i++)
	{
		if (data[i] == '"' || data[i] == '\\')
			appendStringInfoChar(out, '\\');
		appendStringInfoChar(out, data[i]);
	}
	appendStringInfoChar(out, '"');
}

static void
append_parameter(StringInfo out, const char *name, int64 value)
{
	appendStringInfo(out, ";%s=%lld", name, (long long) Min(value, SF_INTEGER_MAX));
}

static void
append_field(StringInfo json, const char *name, const char *value)
{
	appendStringInfoString(json, json->len > 1 ? ", " : "");
	escape_json(json, name);
	appendStringInfoString(json, ": ");
	escape_json(json, value);
}

static void
append_number_field(StringInfo json, const char *name, int64 value)
{
	append_field(json, name, psprintf("%lld", (long long) Min(value, SF_INTEGER_MAX)));
}

static void
append_ietf(StringInfo json, const RateTake *takes, int n)
{
	StringInfoData policies;
	StringInfoData limits;

	initStringInfo(&policies);
	initStringInfo(&limits);
	for (int i = 0; i < n; i++)
	{
		const RateTake *take = &takes[i];

		appendStringInfoString(&policies, i > 0 ? ", " : "");
		append_sf_string(&policies, take->policy.data, take->policy.len);
		append_parameter(&policies, "q", take->config.quota);
		append_parameter(&policies, "w", seconds_up(take_window_us(take)));
		if (strcmp(take->config.quota_unit, "requests") != 0)
		{
			appendStringInfoString(&policies, ";qu=");
			append_sf_string(&policies, take->config.quota_unit, strlen(take->config.quota_unit));
		}

		appendStringInfoString(&limits, i > 0 ? ", " : "");
		append_sf_string(&limits, take->policy.data, take->policy.len);
		append_parameter(&limits, "r", take->verdict.remaining);
		append_parameter(&limits, "t", seconds_up(take->verdict.next_us));
	}
	append_field(json, "RateLimit-Policy", policies.data);
	append_field(json, "RateLimit", limits.data);
}

/* The limit that the older styles tell about: the first that refuses, else the one with the least left. */
static const RateTake *
tightest(const RateTake *takes, int n)
{
	const RateTake *found = &takes[0];

	for (int i = 0; i < n; i++)
	{
		if (refuses(&takes[i]))
			return &takes[i];
		if (takes[i].verdict.remaining < found->verdict.remaining)
			found = &takes[i];
	}
	return found;
}

/* In Unix time, rounded up. */
static int64
epoch_seconds_after(TimestampTz at, int64 us)
{
	return (at + Min(us, PG_INT64_MAX - SECONDS - at) + SECONDS - 1) / SECONDS +
		(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY;
}

static void
append_single(StringInfo json, const RateTake *take, HeaderStyle style)
{
	const char *prefix = style == HEADER_X ? "X-RateLimit" : "RateLimit";
	int64		reset = style == HEADER_X ?
		epoch_seconds_after(take->decided_at, take->verdict.reset_us) : seconds_up(take->verdict.reset_us);

	append_number_field(json, psprintf("%s-Limit", prefix), take->config.rule.limit.burst);
	append_number_field(json, psprintf("%s-Remaining", prefix), take->verdict.remaining);
	append_number_field(json, psprintf("%s-Reset", prefix), reset);
}

/* Never earlier than the `t` of any limit that refuses. 0: none. */
static int32
retry_after_s(const RateTake *takes, int n)
{
	int32		longest = 0;

	for (int i = 0; i < n; i++)
	{
		if (!refuses(&takes[i]))
			continue;
		if (takes[i].never)
			return 0;
		longest = at_least(longest, at_least(seconds_up(take_retry_us(&takes[i])), seconds_up(takes[i].verdict.next_us)));
	}
	return longest;
}

Datum
headers_json(const RateTake *takes, int n, HeaderStyle style)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	if (style == HEADER_IETF)
		append_ietf(&json, takes, n);
	else
		append_single(&json, tightest(takes, n), style);
	if (retry_after_s(takes, n) > 0)
		append_number_field(&json, "Retry-After", retry_after_s(takes, n));
	appendStringInfoChar(&json, '}');
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data));
}

Datum
headers_problem(const RateTake *takes, int n, int status)
{
	StringInfoData json;
	bool		first = true;

	initStringInfo(&json);
	appendStringInfo(&json, "{\"type\": \"https://iana.org/assignments/http-problem-types#%s\", \"title\": \"%s\", \"status\": %d, \"violated-policies\": [",
					 status == 429 ? "quota-exceeded" : "temporary-reduced-capacity",
					 status == 429 ? "Request cannot be satisfied as assigned quota has been exceeded" :
					 "Request cannot be satisfied due to temporary server capacity constraints",
					 status);
	for (int i = 0; i < n; i++)
	{
		if (!refuses(&takes[i]))
			continue;
		appendStringInfoString(&json, first ? "" : ", ");
		escape_json(&json, name_cstring(takes[i].policy));
		first = false;
	}
	appendStringInfoString(&json, "]}");
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data));
}

Datum
headers_violated(const RateTake *takes, int n)
{
	Datum	   *names = palloc(n * sizeof(Datum));
	int			count = 0;

	for (int i = 0; i < n; i++)
	{
		if (refuses(&takes[i]))
			names[count++] = takes[i].policy.datum;
	}
	return PointerGetDatum(construct_array(names, count, TEXTOID, -1, false, TYPALIGN_INT));
}
