/*
 * arg.c: reads and checks arguments, see arg.h. One guard per precondition.
 */
#include "postgres.h"

#include <limits.h>

#include "catalog/pg_type.h"
#include "common/int.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "core/arg.h"
#include "core/guc.h"

static void
raise_null(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("%s must not be null", what)));
}

void
arg_not_null(FunctionCallInfo fcinfo, int argno, const char *what)
{
	if (PG_ARGISNULL(argno))
		raise_null(what);
}

void
arg_not_built(const char *what, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s is not supported by this version", what),
			 hint ? errhint("%s", hint) : 0));
	pg_unreachable();
}

static void
check_length(int len, const char *what, int max_bytes)
{
	if (len > max_bytes)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("%s is too long", what),
				 errdetail("It has %d bytes, the limit is %d.", len, max_bytes)));
}

NameArg
arg_name_datum(Datum value, const char *what, int max_bytes)
{
	text	   *t = DatumGetTextPP(value);
	NameArg		name;

	name.data = VARDATA_ANY(t);
	name.len = VARSIZE_ANY_EXHDR(t);
	name.datum = PointerGetDatum(t);

	if (name.len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be empty", what)));
	check_length(name.len, what, max_bytes);
	for (int i = 0; i < name.len; i++)
	{
		unsigned char c = (unsigned char) name.data[i];

		if (c < 0x20 || c == 0x7f)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s contains a control character", what),
					 errdetail("The byte at position %d is 0x%02x.", i + 1, c)));
	}
	return name;
}

NameArg
arg_name(FunctionCallInfo fcinfo, int argno, const char *what, int max_bytes)
{
	arg_not_null(fcinfo, argno, what);
	return arg_name_datum(PG_GETARG_DATUM(argno), what, max_bytes);
}

char *
name_cstring(NameArg name)
{
	return pnstrdup(name.data, name.len);
}

bool
arg_text(FunctionCallInfo fcinfo, int argno, const char *what, int max_bytes, NameArg *out)
{
	text	   *t;

	if (PG_ARGISNULL(argno))
		return false;
	t = PG_GETARG_TEXT_PP(argno);
	out->data = VARDATA_ANY(t);
	out->len = VARSIZE_ANY_EXHDR(t);
	out->datum = PointerGetDatum(t);
	if (max_bytes > 0)
		check_length(out->len, what, max_bytes);
	return true;
}

int
arg_word(FunctionCallInfo fcinfo, int argno, const char *what, const char *const *words)
{
	char	   *word;
	StringInfoData list;

	arg_not_null(fcinfo, argno, what);
	word = text_to_cstring(PG_GETARG_TEXT_PP(argno));
	for (int i = 0; words[i] != NULL; i++)
	{
		if (strcmp(word, words[i]) == 0)
			return i;
	}

	initStringInfo(&list);
	for (int i = 0; words[i] != NULL; i++)
		appendStringInfo(&list, "%s%s", i > 0 ? ", " : "", words[i]);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s \"%s\" is unknown", what, pnstrdup(word, pg_mbcliplen(word, strlen(word), NAME_SHORT))),
			 errhint("Known: %s.", list.data)));
}

static void
check_range(const char *what, int64 value, int64 min, int64 max)
{
	if (value < min || value > max)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is out of range", what),
				 errdetail("It is %lld, the range is %lld to %lld.",
						   (long long) value, (long long) min, (long long) max)));
}

int64
arg_int64(FunctionCallInfo fcinfo, int argno, const char *what, int64 min, int64 max)
{
	arg_not_null(fcinfo, argno, what);
	check_range(what, PG_GETARG_INT64(argno), min, max);
	return PG_GETARG_INT64(argno);
}

int32
arg_int32(FunctionCallInfo fcinfo, int argno, const char *what, int32 min, int32 max)
{
	arg_not_null(fcinfo, argno, what);
	check_range(what, PG_GETARG_INT32(argno), min, max);
	return PG_GETARG_INT32(argno);
}

bool
arg_bool(FunctionCallInfo fcinfo, int argno, const char *what)
{
	arg_not_null(fcinfo, argno, what);
	return PG_GETARG_BOOL(argno);
}

int64
arg_token(FunctionCallInfo fcinfo, int argno)
{
	return arg_int64(fcinfo, argno, "token", 1, PG_INT64_MAX);
}

/* Months have no fixed length, and 17 knows infinite intervals (all fields at their limit, so months too). */
static bool
interval_in_us(const Interval *value, int64 *us)
{
	int64		days_us;

	if (value->month != 0)
		return false;
	if (pg_mul_s64_overflow((int64) value->day, USECS_PER_DAY, &days_us))
		return false;
	return !pg_add_s64_overflow(days_us, value->time, us);
}

int64
interval_to_us(const Interval *value, const char *what, int64 min_us, int64 max_us, const char *hint)
{
	int64		us;

	if (!interval_in_us(value, &us))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a finite interval without months or years", what),
				 errhint("Write it in days, hours, minutes or seconds.")));
	if (us < min_us || us > max_us)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is out of range", what),
				 errdetail("It is %.3f s, the range is %.3f s to %.3f s.",
						   us / 1e6, min_us / 1e6, max_us / 1e6),
				 hint ? errhint("%s", hint) : 0));
	return us;
}

int64
arg_interval(FunctionCallInfo fcinfo, int argno, const char *what, int64 min_us, int64 max_us, const char *hint)
{
	arg_not_null(fcinfo, argno, what);
	return interval_to_us(PG_GETARG_INTERVAL_P(argno), what, min_us, max_us, hint);
}

int64
arg_function_wait(FunctionCallInfo fcinfo, int argno, const char *call_form)
{
	char	   *hint = "Zero means: do not wait. The limit is distsys.max_function_wait.";

	arg_not_null(fcinfo, argno, "wait");
	if (call_form != NULL)
		hint = psprintf("Zero means: do not wait. The limit is distsys.max_function_wait; to wait longer use %s.",
						call_form);
	return arg_interval(fcinfo, argno, "wait", 0, (int64) guc_max_function_wait * MILLISECONDS, hint);
}

/* Takes an array apart: one dimension, no NULL inside. */
static void
array_elements(FunctionCallInfo fcinfo, int argno, const char *what, Oid type, bool allow_empty,
			   Datum **elements, int *n)
{
	ArrayType  *array;
	bool	   *nulls;

	arg_not_null(fcinfo, argno, what);
	array = PG_GETARG_ARRAYTYPE_P(argno);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("%s must have one dimension", what)));
	deconstruct_array(array, type, type == TEXTOID ? -1 : sizeof(int64), type == TEXTOID ? false : FLOAT8PASSBYVAL,
					  type == TEXTOID ? TYPALIGN_INT : TYPALIGN_DOUBLE, elements, &nulls, n);
	if (*n == 0 && !allow_empty)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be empty", what)));
	for (int i = 0; i < *n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must not contain null", what)));
	}
}

NameArg *
arg_name_array(FunctionCallInfo fcinfo, int argno, const char *what, int max_bytes, bool allow_empty, int *n)
{
	Datum	   *elements;
	NameArg    *names;

	array_elements(fcinfo, argno, what, TEXTOID, allow_empty, &elements, n);
	names = palloc(sizeof(NameArg) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
		names[i] = arg_name_datum(elements[i], what, max_bytes);
	return names;
}

int64 *
arg_int64_array(FunctionCallInfo fcinfo, int argno, const char *what, int64 min, int64 max, int *n)
{
	Datum	   *elements;
	int64	   *numbers;

	array_elements(fcinfo, argno, what, INT8OID, true, &elements, n);
	numbers = palloc(sizeof(int64) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		numbers[i] = DatumGetInt64(elements[i]);
		if (numbers[i] < min || numbers[i] > max)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s is out of range", what),
					 errdetail("Element %d is %lld, the range is %lld to %lld.",
							   i + 1, (long long) numbers[i], (long long) min, (long long) max)));
	}
	return numbers;
}

Datum
interval_datum(int64 us)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = us;
	return IntervalPGetDatum(interval);
}

int32
seconds_up(int64 us)
{
	int64		seconds = us <= 0 ? 0 : us / SECONDS + (us % SECONDS != 0);

	return (int32) Min(seconds, INT_MAX);
}
