/*
 * calendar.c: windows of calendar limits, see calendar.h.
 */
#include "postgres.h"

#include "pgtime.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "core/arg.h"
#include "core/result.h"
#include "ratelimit/calendar.h"

const char *const calendar_units[] = {"minute", "hour", "day", "week", "month", "year", NULL};

static const int64 lengths[] = {
	[CALENDAR_MINUTE] = 60 * SECONDS,
	[CALENDAR_HOUR] = 3600 * SECONDS,
	[CALENDAR_DAY] = 86400 * SECONDS,
	[CALENDAR_WEEK] = 7 * 86400 * SECONDS,
	[CALENDAR_MONTH] = 30 * 86400 * SECONDS,
	[CALENDAR_YEAR] = 365 * 86400 * SECONDS
};

int64
calendar_length(CalendarUnit unit)
{
	return lengths[unit];
}

static void
out_of_range(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
			 errmsg("calendar window is out of range")));
}

/* The moment at which the local date (Julian day) begins. */
static TimestampTz
midnight(int julian, pg_tz *zone)
{
	struct pg_tm tm;
	TimestampTz result;
	int			offset;

	memset(&tm, 0, sizeof(tm));
	j2date(julian, &tm.tm_year, &tm.tm_mon, &tm.tm_mday);
	offset = DetermineTimeZoneOffset(&tm, zone);
	if (tm2timestamp(&tm, 0, &offset, &result) != 0)
		out_of_range();
	return result;
}

/* The Julian day at which the unit that is `ahead` of the one with this date begins. */
static int
first_day(CalendarUnit unit, const struct pg_tm *tm, int ahead)
{
	int			julian = date2j(tm->tm_year, tm->tm_mon, tm->tm_mday);
	int			months = tm->tm_year * 12 + tm->tm_mon - 1 + ahead;

	switch (unit)
	{
		case CALENDAR_DAY:
			return julian + ahead;
		case CALENDAR_WEEK:
			/* Julian day 0 was a Monday */
			return julian - julian % 7 + 7 * ahead;
		case CALENDAR_MONTH:
			return date2j(months / 12, months % 12 + 1, 1);
		default:
			return date2j(tm->tm_year + ahead, 1, 1);
	}
}

static void
short_windows(CalendarUnit unit, const struct pg_tm *tm, fsec_t fsec, TimestampTz now, TimestampTz window[3])
{
	int64		into = tm->tm_sec * SECONDS + fsec + (unit == CALENDAR_HOUR ? tm->tm_min * 60 * SECONDS : 0);

	for (int i = 0; i < 3; i++)
		window[i] = now - into + i * lengths[unit];
}

void
calendar_windows(CalendarUnit unit, const char *time_zone, TimestampTz now, TimestampTz window[3])
{
	pg_tz	   *zone = pg_tzset(time_zone);
	struct pg_tm tm;
	fsec_t		fsec;
	int			offset;
	int			ahead = 0;

	if (zone == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time_zone \"%s\" is unknown", time_zone),
				 errhint("The view pg_timezone_names has the names.")));
	if (timestamp2tm(now, &offset, &tm, &fsec, NULL, zone) != 0)
		out_of_range();
	if (unit <= CALENDAR_HOUR)
	{
		short_windows(unit, &tm, fsec, now, window);
		return;
	}
	/* before the second of two midnights the day has not begun */
	if (midnight(first_day(unit, &tm, 0), zone) > now)
		ahead = -1;
	for (int i = 0; i < 3; i++)
		window[i] = midnight(first_day(unit, &tm, ahead + i), zone);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys__calendar_window);

/* (unit, time_zone, at) -> (begins, ends) */
Datum
distsys__calendar_window(PG_FUNCTION_ARGS)
{
	CalendarUnit unit = (CalendarUnit) arg_word(fcinfo, 0, "unit", calendar_units);
	NameArg		zone = arg_name(fcinfo, 1, "time_zone", NAME_SHORT);
	TimestampTz window[3];
	Datum		values[2];
	bool		nulls[2] = {false};

	arg_not_null(fcinfo, 2, "at");
	if (TIMESTAMP_NOT_FINITE(PG_GETARG_TIMESTAMPTZ(2)))
		out_of_range();
	calendar_windows(unit, name_cstring(zone), PG_GETARG_TIMESTAMPTZ(2), window);
	values[0] = TimestampTzGetDatum(window[0]);
	values[1] = TimestampTzGetDatum(window[1]);
	return result_record(fcinfo, values, nulls);
}
