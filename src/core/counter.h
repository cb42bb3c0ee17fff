/*
 * counter.h: draws numbers from a sequence's page, as nextval does, but n
 * consecutive ones at once, without touching the session's lastval(), and with
 * the LSN that makes them unique over a crash.
 */
#ifndef DISTSYS_COUNTER_H
#define DISTSYS_COUNTER_H

#include "access/xlogdefs.h"

/* First of n consecutive values; *lsn: flush up to here before anybody outside may see them. */
extern int64 counter_draw(Oid sequence, int64 n, XLogRecPtr *lsn);
/* The last value drawn, 0 when none. */
extern int64 counter_last(Oid sequence);

#endif							/* DISTSYS_COUNTER_H */
