/*
 * topic.h: topics of the outbox, and what retention has left of them.
 */
#ifndef DISTSYS_TOPIC_H
#define DISTSYS_TOPIC_H

#include "core/arg.h"
#include "store/row.h"

/* 42704 with the create call in the HINT when there is no such topic. */
extern void topic_check(const NameArg *topic);
/* Retention of a topic in microseconds; false: no such topic. */
extern bool topic_retention(const NameArg *topic, int64 *retention_us);
/* Events up to here were removed; 0: none. */
extern int64 topic_removed_through(const NameArg *topic);
extern void topic_set_removed_through(const NameArg *topic, int64 position);
/* The same, and 22003 when a position (> 0) is below it. */
extern int64 topic_check_retained(const NameArg *topic, int64 position);
/* Serialises create, alter and drop of a topic and of its groups. */
extern void topic_lock(const NameArg *topic);
/* The same without waiting. */
extern bool topic_try_lock(const NameArg *topic);
/* Gives it back when nothing was changed. */
extern void topic_unlock(const NameArg *topic);

#endif							/* DISTSYS_TOPIC_H */
