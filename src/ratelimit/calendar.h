/*
 * calendar.h: the windows of a calendar limit, in a time zone.
 *
 * Minutes and hours are counted from the local clock's full minute and hour;
 * days, weeks (Monday), months and years begin at local midnight, so a day may have
 * 23 or 25 hours. A midnight that does not exist is the moment of the change; of
 * one that comes twice the second counts.
 */
#ifndef DISTSYS_CALENDAR_H
#define DISTSYS_CALENDAR_H

#include "datatype/timestamp.h"

typedef enum CalendarUnit
{
	CALENDAR_MINUTE,
	CALENDAR_HOUR,
	CALENDAR_DAY,
	CALENDAR_WEEK,
	CALENDAR_MONTH,
	CALENDAR_YEAR
} CalendarUnit;

/* The words, in the order of the units. */
extern const char *const calendar_units[];
/* The unit's usual length in microseconds: month 30 days, year 365. */
extern int64 calendar_length(CalendarUnit unit);
/* Begin of the window that holds `now`, of the next, and of the one after. 22023: the zone is unknown. */
extern void calendar_windows(CalendarUnit unit, const char *time_zone, TimestampTz now, TimestampTz window[3]);

#endif							/* DISTSYS_CALENDAR_H */
