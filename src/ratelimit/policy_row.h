/*
 * policy_row.h: the rows of rate limit policies, for those who read (policy.c) and write (policy_sql.c) them.
 */
#ifndef DISTSYS_RATE_POLICY_ROW_H
#define DISTSYS_RATE_POLICY_ROW_H

#include "ratelimit/policy.h"
#include "store/config.h"

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

extern const ConfigKind policy_kind;

/* The words of the columns, in the order of the enums they stand for. */
extern const char *const policy_algorithms[];
extern const char *const policy_storages[];
extern const char *const policy_on_aborts[];
extern const char *const policy_on_restarts[];
extern const char *const policy_on_errors[];
extern const char *const policy_in_transactions[];
extern const char *const policy_modes[];
extern const char *const policy_anchors[];
extern const char *const policy_changes[];

/* Which of the words the text is. */
extern int	policy_word(Datum value, const char *const *words);

#endif							/* DISTSYS_RATE_POLICY_ROW_H */
