/*
 * dead_letter.h: events that a group has given up, with a copy of the event.
 */
#ifndef DISTSYS_DEAD_LETTER_H
#define DISTSYS_DEAD_LETTER_H

#include "core/arg.h"
#include "outbox/event.h"

/* Under the group's key lock. reason: text or 0. */
extern void dead_letter_put(const NameArg *group, const OutboxEvent *event, int32 attempts, Datum reason);
extern void dead_letter_delete_all(const NameArg *topic, const NameArg *group);

#endif							/* DISTSYS_DEAD_LETTER_H */
