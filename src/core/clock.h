/*
 * clock.h: the one place that tells the time. Read it after the key lock is
 * held, never use now(): a transaction's start may be hours ago.
 *
 * Two clocks: the wall clock, and CLOCK_BOOTTIME, which nobody can set. A
 * Deadline carries both and the identity of the boot clock (boot id plus time
 * namespace). On the machine that wrote it the boot clock judges, elsewhere
 * (another host, after a reboot) the wall clock does.
 */
#ifndef DISTSYS_CLOCK_H
#define DISTSYS_CLOCK_H

#include "datatype/timestamp.h"

typedef struct ClockReading
{
	TimestampTz wall;			/* microseconds, as timestamptz */
	int64		boot;			/* microseconds since boot */
	int64		id;				/* identity of the boot clock, 0 = unknown */
} ClockReading;

/* The three columns that every row with a TTL has: timestamptz, bigint, bigint. */
typedef struct Deadline
{
	TimestampTz wall;
	int64		boot;
	int64		id;
} Deadline;

extern ClockReading clock_read(void);
extern TimestampTz clock_wall(void);
/* Microseconds on a clock that nobody can set: for state that does not outlive the server. */
extern int64 clock_boot(void);

extern Deadline deadline_after(const ClockReading *now, int64 us);
/* microseconds left; <= 0 means passed */
extern int64 deadline_left(const Deadline *deadline, const ClockReading *now);
/* When left_us pass by the wall clock as it is now: at another time than the deadline says when somebody has set that clock since. */
extern TimestampTz deadline_wall(const Deadline *deadline, const ClockReading *now, int64 left_us);

#endif							/* DISTSYS_CLOCK_H */
