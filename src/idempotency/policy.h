/*
 * policy.h: how long keys are kept and what a begin must bring.
 */
#ifndef DISTSYS_IDEMPOTENCY_POLICY_H
#define DISTSYS_IDEMPOTENCY_POLICY_H

#include "core/arg.h"

typedef struct IdempotencyPolicy
{
	int64		retention_us;
	int64		ttl_us;
	bool		require_fingerprint;
	int32		max_response_bytes;
	int32		max_attempts;	/* 0: no limit */
} IdempotencyPolicy;

/* 42704 with the create call in the HINT when it is unknown. "default" exists without a row. */
extern void idempotency_policy_get(const NameArg *name, IdempotencyPolicy *policy);
/* The same for a record whose policy may have been dropped since: then the built-in one. */
extern void idempotency_policy_of_record(Datum name, IdempotencyPolicy *policy);

/* Bounds of a claim's ttl, for arg_interval. */
#define CLAIM_TTL_MIN (100 * MILLISECONDS)
#define CLAIM_TTL_MAX (24 * 60 * 60 * SECONDS)
#define CLAIM_TTL_HINT "A bare number is seconds; write '60 s' or make_interval(secs => 60)."

#endif							/* DISTSYS_IDEMPOTENCY_POLICY_H */
