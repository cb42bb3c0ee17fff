/*
 * policy_sql.c: creates, alters and drops rate limit policies; checks what the table's constraints cannot say well.
 */
#include "postgres.h"

#include "compat.h"
#include "pgtime.h"
#include "utils/builtins.h"

#include "algo/log.h"
#include "core/clock.h"
#include "ratelimit/policy_row.h"
#include "ratelimit/shared.h"
#include "ratelimit/tier.h"

#define PERIOD_HINT "A bare number is seconds; write '1 min' or make_interval(secs => 60)."

/* ---- checking ---- */

static void
check_ascii(const NameArg *name, const char *what)
{
	for (int i = 0; i < name->len; i++)
	{
		if (IS_HIGHBIT_SET(name->data[i]))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s must be ASCII", what),
					 errdetail("It is sent in HTTP headers.")));
	}
}

#define ARG(column) ((column) - 1)

/* An option that is not given is not looked at. */
static void
check_word(FunctionCallInfo fcinfo, int column, const char *what, const char *const *words)
{
	if (!PG_ARGISNULL(ARG(column)))
		(void) arg_word(fcinfo, ARG(column), what, words);
}

static void
check_words(FunctionCallInfo fcinfo)
{
	check_word(fcinfo, ATTR_ALGORITHM, "algorithm", policy_algorithms);
	check_word(fcinfo, ATTR_STORAGE, "storage", policy_storages);
	check_word(fcinfo, ATTR_ON_ABORT, "on_abort", policy_on_aborts);
	check_word(fcinfo, ATTR_ON_RESTART, "on_restart", policy_on_restarts);
	check_word(fcinfo, ATTR_ON_ERROR, "on_error", policy_on_errors);
	check_word(fcinfo, ATTR_IN_TRANSACTION, "in_transaction", policy_in_transactions);
	check_word(fcinfo, ATTR_MODE, "mode", policy_modes);
	check_word(fcinfo, ATTR_ANCHOR, "anchor", policy_anchors);
	check_word(fcinfo, ATTR_CALENDAR_UNIT, "calendar_unit", calendar_units);
}

static void
check_time_zone(FunctionCallInfo fcinfo)
{
	NameArg		name = arg_name(fcinfo, ARG(ATTR_TIME_ZONE), "time_zone", NAME_SHORT);

	if (pg_tzset(name_cstring(name)) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time_zone \"%s\" is unknown", name_cstring(name)),
				 errhint("The view pg_timezone_names has the names.")));
}

/* Reads columns quota .. quota_unit from the arguments, each by itself; a NULL argument is "not given". */
static void
read_options(FunctionCallInfo fcinfo, Datum *values, bool *nulls, bool *given)
{
	NameArg		unit;

	for (int column = ATTR_QUOTA; column <= NOPTIONS; column++)
	{
		given[ARG(column)] = !PG_ARGISNULL(ARG(column));
		nulls[ARG(column)] = !given[ARG(column)];
		values[ARG(column)] = PG_GETARG_DATUM(ARG(column));
	}
	check_words(fcinfo);
	if (given[ARG(ATTR_TIME_ZONE)])
		check_time_zone(fcinfo);
	if (given[ARG(ATTR_BLOCK_FOR)])
		(void) arg_interval(fcinfo, ARG(ATTR_BLOCK_FOR), "block_for", 1, PERIOD_MAX, NULL);
	if (given[ARG(ATTR_QUOTA)])
		(void) arg_int64(fcinfo, ARG(ATTR_QUOTA), "quota", 1, PG_INT64_MAX);
	if (given[ARG(ATTR_BURST)])
		(void) arg_int64(fcinfo, ARG(ATTR_BURST), "burst", 1, PG_INT64_MAX);
	if (given[ARG(ATTR_QUOTA_UNIT)])
	{
		unit = arg_name(fcinfo, ARG(ATTR_QUOTA_UNIT), "quota_unit", NAME_SHORT);
		check_ascii(&unit, "quota_unit");
	}
}

static int
value_word(const Datum *values, const bool *nulls, int column, const char *const *words)
{
	return nulls[ARG(column)] ? -1 : policy_word(values[ARG(column)], words);
}

pg_noreturn static void
raise_belongs(const char *option, const char *algorithm)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s belongs to algorithm %s", option, algorithm)));
	pg_unreachable();
}

/* The unit that a period of exactly one unit names; -1: none. */
static int
period_unit(const Interval *period)
{
	static const Interval units[] = {
		[CALENDAR_MINUTE] = {60 * SECONDS, 0, 0}, [CALENDAR_HOUR] = {3600 * SECONDS, 0, 0}, [CALENDAR_DAY] = {0, 1, 0},
		[CALENDAR_WEEK] = {0, 7, 0}, [CALENDAR_MONTH] = {0, 0, 1}, [CALENDAR_YEAR] = {0, 0, 12}
	};

	for (int unit = CALENDAR_MINUTE; unit <= CALENDAR_YEAR; unit++)
	{
		if (period->time == units[unit].time && period->day == units[unit].day && period->month == units[unit].month)
			return unit;
	}
	return -1;
}

/* A calendar limit: its unit is named by the period, by calendar_unit, or by both alike. */
static void
check_calendar(Datum *values, bool *nulls, bool *given)
{
	int			unit = value_word(values, nulls, ATTR_CALENDAR_UNIT, calendar_units);
	int			named = period_unit(DatumGetIntervalP(values[ARG(ATTR_PERIOD)]));

	/* of an alter, what was not given follows */
	if (unit != named && named >= 0 && given[ARG(ATTR_PERIOD)] && !given[ARG(ATTR_CALENDAR_UNIT)])
		unit = named;
	if (named < 0 || unit != named)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("period of a calendar limit must be one calendar_unit"),
				 errhint("For example period => '1 month', calendar_unit => 'month'; units are minute, hour, day, week ('7 days'), month and year.")));
	given[ARG(ATTR_CALENDAR_UNIT)] |= nulls[ARG(ATTR_CALENDAR_UNIT)] || given[ARG(ATTR_PERIOD)];
	values[ARG(ATTR_CALENDAR_UNIT)] = CStringGetTextDatum(calendar_units[unit]);
	nulls[ARG(ATTR_CALENDAR_UNIT)] = false;
}

static void
check_belongings(Datum *values, bool *nulls, LimitAlgorithm algorithm)
{
	char	   *zone = TextDatumGetCString(values[ARG(ATTR_TIME_ZONE)]);

	if (value_word(values, nulls, ATTR_ANCHOR, policy_anchors) == 1 && algorithm != LIMIT_FIXED_WINDOW)
		raise_belongs("anchor 'first_hit'", "fixed_window");
	if (algorithm != LIMIT_CALENDAR && !nulls[ARG(ATTR_CALENDAR_UNIT)])
		raise_belongs("calendar_unit", "calendar");
	if (algorithm != LIMIT_CALENDAR && pg_strcasecmp(zone, "UTC") != 0)
		raise_belongs("a time_zone other than UTC", "calendar");
	if (!limit_is_bucket(algorithm) && !nulls[ARG(ATTR_BURST)] &&
		DatumGetInt64(values[ARG(ATTR_BURST)]) != DatumGetInt64(values[ARG(ATTR_QUOTA)]))
		raise_belongs("burst", "token_bucket, gcra or leaky_bucket");
}

static void
check_storage(Datum *values, bool *nulls, const bool *given)
{
	bool		shared = value_word(values, nulls, ATTR_STORAGE, policy_storages) == 1;

	if (!shared && value_word(values, nulls, ATTR_ON_ABORT, policy_on_aborts) == 1)
		arg_not_built("on_abort 'keep' with durable storage",
					  "A durable take rolls back with its transaction: take the limit as its own statement before BEGIN, or use storage => 'shared'.");
	if (shared && given[ARG(ATTR_STORAGE)])
		shared_require();
}

static void
check_fits(int64 quota, int64 period_us, int64 burst, LimitAlgorithm algorithm)
{
	LimitRule	rule = {.algorithm = algorithm, .limit = {quota, period_us, burst}};

	if (algorithm == LIMIT_SLIDING_LOG && quota > LOG_QUOTA_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("quota of a sliding_window_log is out of range"),
				 errdetail("It is %lld, the limit is %d: each take writes the time of every token in the window.", (long long) quota, LOG_QUOTA_MAX),
				 errhint("Use sliding_window, or a token_bucket.")));
	if (limit_is_bucket(algorithm))
		bucket_limit_reduce(&rule.limit);
	if (!limit_fits(&rule))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg(limit_is_bucket(algorithm) ? "burst times period is out of range" : "quota is out of range"),
				 limit_is_bucket(algorithm) ?
				 errdetail("burst (default: quota) times period in microseconds, divided by what quota and period have in common, must be below 2^63.") : 0,
				 limit_is_bucket(algorithm) ?
				 errhint("Lower the burst, or choose a quota that divides the period.") : 0));
}

/* The rules over several columns, on the whole row. */
static void
check_policy(Datum *values, bool *nulls, bool *given)
{
	LimitAlgorithm algorithm = (LimitAlgorithm) value_word(values, nulls, ATTR_ALGORITHM, policy_algorithms);
	int64		quota = DatumGetInt64(values[ARG(ATTR_QUOTA)]);
	int64		burst = nulls[ARG(ATTR_BURST)] ? quota : DatumGetInt64(values[ARG(ATTR_BURST)]);
	int64		period_us;

	if (algorithm == LIMIT_CALENDAR)
	{
		check_calendar(values, nulls, given);
		period_us = 1;
	}
	else
		period_us = interval_to_us(DatumGetIntervalP(values[ARG(ATTR_PERIOD)]), "period", 1, PERIOD_MAX, PERIOD_HINT);
	check_belongings(values, nulls, algorithm);
	check_storage(values, nulls, given);
	check_fits(quota, period_us, burst, algorithm);
}

/* ---- SQL ---- */

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_rate_limit_create);

Datum
distsys_rate_limit_create(PG_FUNCTION_ARGS)
{
	static const char *const required[] = {NULL, "quota", "period", NULL, "algorithm", "storage", NULL, "on_restart",
	"on_error", "in_transaction", "mode", NULL, "time_zone", "anchor", NULL, "quota_unit"};
	NameArg		name = arg_name(fcinfo, 0, "policy", NAME_SHORT);
	bool		if_not_exists = arg_bool(fcinfo, NOPTIONS, "if_not_exists");
	Datum		values[NATTS];
	bool		nulls[NATTS] = {false};
	bool		given[NATTS] = {false};

	check_ascii(&name, "policy");
	for (int i = 1; i < NOPTIONS; i++)
	{
		if (required[i] != NULL)
			arg_not_null(fcinfo, i, required[i]);
	}
	read_options(fcinfo, values, nulls, given);
	check_policy(values, nulls, given);
	values[ARG(ATTR_POLICY)] = name.datum;
	values[ARG(ATTR_ON_CHANGE)] = CStringGetTextDatum("proportionally");
	values[ARG(ATTR_CHANGED_AT)] = TimestampTzGetDatum(clock_wall());
	PG_RETURN_BOOL(config_create(&policy_kind, &name, values, nulls, if_not_exists));
}

/* Takes what was not given from the row. */
static void
merge(Relation rel, HeapTuple row, Datum *values, bool *nulls, const bool *given)
{
	for (int column = ATTR_QUOTA; column <= NOPTIONS; column++)
	{
		if (!given[ARG(column)])
			values[ARG(column)] = row_get(rel, row, column, &nulls[ARG(column)]);
	}
}

static void
clear(int column, const char *value, Datum *values, bool *nulls, bool *given)
{
	if (given[ARG(column)])
		return;
	given[ARG(column)] = true;
	nulls[ARG(column)] = value == NULL;
	values[ARG(column)] = value == NULL ? (Datum) 0 : CStringGetTextDatum(value);
}

/* A new algorithm does not inherit options that are not its own. */
static void
clear_foreign_options(Datum *values, bool *nulls, bool *given)
{
	LimitAlgorithm algorithm = (LimitAlgorithm) value_word(values, nulls, ATTR_ALGORITHM, policy_algorithms);

	if (algorithm != LIMIT_CALENDAR)
	{
		clear(ATTR_CALENDAR_UNIT, NULL, values, nulls, given);
		clear(ATTR_TIME_ZONE, "UTC", values, nulls, given);
	}
	if (algorithm != LIMIT_FIXED_WINDOW)
		clear(ATTR_ANCHOR, "epoch", values, nulls, given);
	if (!limit_is_bucket(algorithm))
		clear(ATTR_BURST, NULL, values, nulls, given);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_rate_limit_alter);

Datum
distsys_rate_limit_alter(PG_FUNCTION_ARGS)
{
	NameArg		name = arg_name(fcinfo, 0, "policy", NAME_SHORT);
	Datum		values[NATTS];
	bool		nulls[NATTS] = {false};
	bool		given[NATTS] = {false};
	int			on_change = arg_word(fcinfo, NOPTIONS, "on_change", policy_changes);
	Relation	rel;
	HeapTuple	row;

	read_options(fcinfo, values, nulls, given);
	row = config_edit(&policy_kind, &name, &rel);
	merge(rel, row, values, nulls, given);
	if (given[ARG(ATTR_ALGORITHM)])
		clear_foreign_options(values, nulls, given);
	check_policy(values, nulls, given);
	if (given[ARG(ATTR_QUOTA)] || given[ARG(ATTR_PERIOD)] || given[ARG(ATTR_BURST)] || given[ARG(ATTR_ALGORITHM)] || given[ARG(ATTR_ANCHOR)])
	{
		/* other options leave alone what the last change of the limit said */
		values[ARG(ATTR_ON_CHANGE)] = CStringGetTextDatum(policy_changes[on_change]);
		values[ARG(ATTR_CHANGED_AT)] = TimestampTzGetDatum(clock_wall());
		given[ARG(ATTR_ON_CHANGE)] = given[ARG(ATTR_CHANGED_AT)] = true;
	}
	config_save(rel, row, values, nulls, given);
	PG_RETURN_BOOL(true);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_rate_limit_drop);

Datum
distsys_rate_limit_drop(PG_FUNCTION_ARGS)
{
	NameArg		name = arg_name(fcinfo, 0, "policy", NAME_SHORT);

	PG_RETURN_BOOL(config_drop(&policy_kind, &name, arg_bool(fcinfo, 1, "if_exists"), rate_tier_check_unused));
}
