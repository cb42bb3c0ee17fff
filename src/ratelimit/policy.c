/*
 * policy.c: rate limit policies: an ordinary table, cached; create, alter, drop.
 */
#include "postgres.h"

#include "compat.h"
#include "pgtime.h"
#include "utils/builtins.h"

#include "core/clock.h"
#include "core/keylock.h"
#include "ratelimit/policy.h"
#include "store/config.h"
#include "store/row.h"

/* Columns of the table, and of the arguments of create and alter: one less. */
enum
{
	ATTR_POLICY = 1,
	ATTR_QUOTA,
	ATTR_PERIOD,
	ATTR_BURST,
	ATTR_ALGORITHM,
	ATTR_STORAGE,
	ATTR_ON_ABORT,
	ATTR_ON_RESTART,
	ATTR_ON_ERROR,
	ATTR_IN_TRANSACTION,
	ATTR_MODE,
	ATTR_CALENDAR_UNIT,
	ATTR_TIME_ZONE,
	ATTR_ANCHOR,
	ATTR_BLOCK_FOR,
	ATTR_QUOTA_UNIT,
	ATTR_ON_CHANGE,
	ATTR_CHANGED_AT,
	NATTS = ATTR_CHANGED_AT,
	NOPTIONS = ATTR_QUOTA_UNIT	/* what create and alter have in common */
};

#define PERIOD_MAX (INT64CONST(366) * 24 * 60 * 60 * SECONDS)

static const char *const algorithms[] = {"token_bucket", "gcra", "sliding_window_log", "sliding_window",
"fixed_window", "leaky_bucket", "calendar", NULL};
static const char *const storages[] = {"durable", "shared", NULL};
static const char *const on_aborts[] = {"refund", "keep", NULL};
static const char *const on_restarts[] = {"snapshot", "full", "empty", NULL};
static const char *const on_errors[] = {"open", "closed", NULL};
static const char *const in_transactions[] = {"allow", "forbid", NULL};
static const char *const modes[] = {"enforce", "shadow", "disabled", NULL};
static const char *const anchors[] = {"epoch", "first_hit", NULL};
static const char *const calendar_units[] = {"minute", "hour", "day", "week", "month", "year", NULL};
static const char *const changes[] = {"reset", "proportionally", "as_is", "additive", NULL};

static const ConfigKind kind = {
	.table = TABLE_RATE_LIMIT_POLICY,
	.key = "rate_limit_policy",
	.label = "rate limit policy",
	.function = "rate_limit",
	.create_rest = ", quota => 100, period => '1 min'"
};

static ConfigCache *cache = NULL;

/* ---- reading ---- */

static int
word_index(Datum value, const char *const *words)
{
	char	   *word = TextDatumGetCString(value);
	int			i;

	for (i = 0; words[i] != NULL && strcmp(word, words[i]) != 0; i++)
		;
	pfree(word);
	return words[i] == NULL ? 0 : i;	/* the table's CHECK knows the words */
}

static void
load(void *entry, Relation rel, HeapTuple tuple)
{
	RatePolicy *policy = (RatePolicy *) entry;
	bool		isnull;
	Datum		burst;

	policy->quota = DatumGetInt64(row_get(rel, tuple, ATTR_QUOTA, NULL));
	policy->period_us = interval_to_us(DatumGetIntervalP(row_get(rel, tuple, ATTR_PERIOD, NULL)),
									   "period", 1, PERIOD_MAX, NULL);
	burst = row_get(rel, tuple, ATTR_BURST, &isnull);
	policy->limit.quota = policy->quota;
	policy->limit.period_us = policy->period_us;
	policy->limit.burst = isnull ? policy->quota : DatumGetInt64(burst);
	bucket_limit_reduce(&policy->limit);
	policy->mode = (RateMode) word_index(row_get(rel, tuple, ATTR_MODE, NULL), modes);
	policy->forbid_transaction = word_index(row_get(rel, tuple, ATTR_IN_TRANSACTION, NULL), in_transactions) == 1;
	policy->on_change = (BucketChange) word_index(row_get(rel, tuple, ATTR_ON_CHANGE, NULL), changes);
	policy->changed_at = DatumGetTimestampTz(row_get(rel, tuple, ATTR_CHANGED_AT, NULL));
	text_to_cstring_buffer(DatumGetTextPP(row_get(rel, tuple, ATTR_QUOTA_UNIT, NULL)),
						   policy->quota_unit, sizeof(policy->quota_unit));
}

void
rate_policy_get(const NameArg *name, RatePolicy *policy)
{
	if (cache == NULL)
		cache = config_cache_create(TABLE_RATE_LIMIT_POLICY, sizeof(RatePolicy), load);
	if (!config_get(cache, name, NULL, policy))
		config_raise_unknown(&kind, name);
}

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

/* The word of an option; 0, the default, when it was not given. */
static int
option_word(FunctionCallInfo fcinfo, int column, const char *what, const char *const *words)
{
	return PG_ARGISNULL(ARG(column)) ? 0 : arg_word(fcinfo, ARG(column), what, words);
}

/* false: not given, or UTC. */
static bool
other_time_zone(FunctionCallInfo fcinfo)
{
	NameArg		name;

	if (!arg_text(fcinfo, ARG(ATTR_TIME_ZONE), "time_zone", NAME_LONG, &name))
		return false;
	if (pg_tzset(name_cstring(name)) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time_zone \"%s\" is unknown", name_cstring(name)),
				 errhint("The view pg_timezone_names has the names.")));
	return pg_strcasecmp(name_cstring(name), "UTC") != 0;
}

/* Every word is checked before one that is known but not built raises 0A000. */
static void
check_words(FunctionCallInfo fcinfo)
{
	int			algorithm = option_word(fcinfo, ATTR_ALGORITHM, "algorithm", algorithms);
	int			storage = option_word(fcinfo, ATTR_STORAGE, "storage", storages);
	int			on_abort = option_word(fcinfo, ATTR_ON_ABORT, "on_abort", on_aborts);
	int			anchor = option_word(fcinfo, ATTR_ANCHOR, "anchor", anchors);
	bool		zone = other_time_zone(fcinfo);

	(void) option_word(fcinfo, ATTR_CALENDAR_UNIT, "calendar_unit", calendar_units);
	(void) option_word(fcinfo, ATTR_ON_RESTART, "on_restart", on_restarts);
	(void) option_word(fcinfo, ATTR_ON_ERROR, "on_error", on_errors);
	(void) option_word(fcinfo, ATTR_IN_TRANSACTION, "in_transaction", in_transactions);
	(void) option_word(fcinfo, ATTR_MODE, "mode", modes);
	if (!PG_ARGISNULL(ARG(ATTR_BLOCK_FOR)))
		(void) arg_interval(fcinfo, ARG(ATTR_BLOCK_FOR), "block_for", 1, PERIOD_MAX, NULL);

	if (algorithm != 0)
		arg_not_built(psprintf("algorithm '%s'", algorithms[algorithm]), "Use algorithm => 'token_bucket'.");
	if (storage != 0)
		arg_not_built("storage 'shared'", "Use storage => 'durable'.");
	if (on_abort != 0)
		arg_not_built("on_abort 'keep' with durable storage",
					  "A durable take rolls back with its transaction: take the limit as its own statement before BEGIN.");
	if (anchor != 0)
		arg_not_built("anchor 'first_hit'", "It belongs to the algorithm fixed_window.");
	if (!PG_ARGISNULL(ARG(ATTR_CALENDAR_UNIT)))
		arg_not_built("calendar_unit", "It belongs to the algorithm calendar.");
	if (zone)
		arg_not_built("a time_zone other than UTC", "It belongs to the algorithm calendar.");
	if (!PG_ARGISNULL(ARG(ATTR_BLOCK_FOR)))
		arg_not_built("block_for", "Leave block_for null.");
}

/* Reads columns quota .. quota_unit from the arguments; a NULL argument is "not given". */
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
	if (given[ARG(ATTR_QUOTA)])
		(void) arg_int64(fcinfo, ARG(ATTR_QUOTA), "quota", 1, PG_INT64_MAX);
	if (given[ARG(ATTR_PERIOD)])
		(void) arg_interval(fcinfo, ARG(ATTR_PERIOD), "period", 1, PERIOD_MAX,
							"A bare number is seconds; write '1 min' or make_interval(secs => 60).");
	if (given[ARG(ATTR_BURST)])
		(void) arg_int64(fcinfo, ARG(ATTR_BURST), "burst", 1, PG_INT64_MAX);
	if (given[ARG(ATTR_QUOTA_UNIT)])
	{
		unit = arg_name(fcinfo, ARG(ATTR_QUOTA_UNIT), "quota_unit", NAME_SHORT);
		check_ascii(&unit, "quota_unit");
	}
}

static void
check_fits(int64 quota, int64 period_us, int64 burst)
{
	BucketLimit limit = {quota, period_us, burst};

	bucket_limit_reduce(&limit);
	if (!bucket_limit_fits(&limit))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("burst times period is out of range"),
				 errdetail("burst (default: quota) times period in microseconds, divided by what quota and period have in common, must be below 2^63."),
				 errhint("Lower the burst, or choose a quota that divides the period.")));
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
	int64		quota;

	check_ascii(&name, "policy");
	for (int i = 1; i < NOPTIONS; i++)
	{
		if (required[i] != NULL)
			arg_not_null(fcinfo, i, required[i]);
	}
	read_options(fcinfo, values, nulls, given);
	quota = PG_GETARG_INT64(ARG(ATTR_QUOTA));
	check_fits(quota, interval_to_us(PG_GETARG_INTERVAL_P(ARG(ATTR_PERIOD)), "period", 1, PERIOD_MAX, NULL),
			   given[ARG(ATTR_BURST)] ? PG_GETARG_INT64(ARG(ATTR_BURST)) : quota);
	values[ARG(ATTR_POLICY)] = name.datum;
	values[ARG(ATTR_ON_CHANGE)] = CStringGetTextDatum("proportionally");
	values[ARG(ATTR_CHANGED_AT)] = TimestampTzGetDatum(clock_wall());
	PG_RETURN_BOOL(config_create(&kind, &name, values, nulls, if_not_exists));
}

/* Takes what was not given from the row, for checks over several columns. */
static void
merge(Relation rel, HeapTuple row, Datum *values, bool *nulls, const bool *given)
{
	for (int column = ATTR_QUOTA; column <= ATTR_BURST; column++)
	{
		if (!given[ARG(column)])
			values[ARG(column)] = row_get(rel, row, column, &nulls[ARG(column)]);
	}
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_rate_limit_alter);

Datum
distsys_rate_limit_alter(PG_FUNCTION_ARGS)
{
	NameArg		name = arg_name(fcinfo, 0, "policy", NAME_SHORT);
	Datum		values[NATTS];
	bool		nulls[NATTS] = {false};
	bool		given[NATTS] = {false};
	int			on_change = arg_word(fcinfo, NOPTIONS, "on_change", changes);
	Relation	rel;
	HeapTuple	row;

	read_options(fcinfo, values, nulls, given);
	row = config_edit(&kind, &name, &rel);
	merge(rel, row, values, nulls, given);
	check_fits(DatumGetInt64(values[ARG(ATTR_QUOTA)]),
			   interval_to_us(DatumGetIntervalP(values[ARG(ATTR_PERIOD)]), "period", 1, PERIOD_MAX, NULL),
			   DatumGetInt64(values[nulls[ARG(ATTR_BURST)] ? ARG(ATTR_QUOTA) : ARG(ATTR_BURST)]));
	if (given[ARG(ATTR_QUOTA)] || given[ARG(ATTR_PERIOD)] || given[ARG(ATTR_BURST)])
	{
		/* other options leave alone what the last change of the limit said */
		values[ARG(ATTR_ON_CHANGE)] = CStringGetTextDatum(changes[on_change]);
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

	PG_RETURN_BOOL(config_drop(&kind, &name, arg_bool(fcinfo, 1, "if_exists"), NULL));
}
