/*
 * operator.h: what people on call do to one key.
 */
#ifndef DISTSYS_RATE_OPERATOR_H
#define DISTSYS_RATE_OPERATOR_H

#include "ratelimit/limiter.h"

/* The bucket is full again and no longer blocked; false: it was. */
extern bool operator_reset(const NameArg *policy, const NameArg *key);
/* Blocks a key for so long; 0: lifts the block. false: there was none to lift. reason (text) may be 0. */
extern bool operator_block(const NameArg *policy, const NameArg *key, int64 duration_us, Datum reason);

#endif							/* DISTSYS_RATE_OPERATOR_H */
