/*
 * shared_rule.h: the rules by which shared limits are counted, in shared memory, so that an entry
 * of any database and policy can be judged by whoever needs its room.
 *
 * A slot is constant while entries use it (each pins it). It serves another rule once
 * nobody does: its generation tells.
 */
#ifndef DISTSYS_SHARED_RULE_H
#define DISTSYS_SHARED_RULE_H

#include "ratelimit/policy.h"

/* Distinct rules in use at once: policies, their variants by tier and override, and windows of calendars. */
#define SHARED_RULES 4096

typedef struct SharedRuleRef
{
	uint16		slot;
	uint32		generation;
} SharedRuleRef;

/* What a slot says besides the rule. */
typedef struct SharedRuleInfo
{
	Oid			database;
	RateRestart on_restart;
	int64		since;			/* by shared_now() */
	char		policy[NAME_SHORT + 1];
} SharedRuleInfo;

extern void shared_rule_init(void);	/* before shmem_init() */

/* Finds or makes the slot of a rule, on the clock of shared_now(). false: there is no room. Not under a partition's lock. */
extern bool shared_rule_get(Oid database, const NameArg *policy, const LimitRule *rule, RateRestart on_restart, SharedRuleRef *ref);

/* The others: no error, no lock; fit for a partition's lock. */

/* One more entry uses it. false: the slot serves another rule now. */
extern bool shared_rule_pin(SharedRuleRef ref);
/* One more entry uses a slot that is pinned already. */
extern void shared_rule_pin_more(uint16 slot);
extern void shared_rule_unpin(uint16 slot);
/* Of a slot that an entry uses, which the partition's lock keeps. */
extern const LimitRule *shared_rule_of(uint16 slot);
extern const SharedRuleInfo *shared_rule_info(uint16 slot);

#endif							/* DISTSYS_SHARED_RULE_H */
