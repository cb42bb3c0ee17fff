/*
 * claim.h: claiming an idempotency key, working under the claim, storing the answer.
 */
#ifndef DISTSYS_IDEMPOTENCY_CLAIM_H
#define DISTSYS_IDEMPOTENCY_CLAIM_H

#include "idempotency/record.h"

typedef enum ClaimStatus
{
	CLAIM_STARTED,				/* the caller runs */
	CLAIM_RESUMED,				/* the caller goes on from the recovery point */
	CLAIM_REPLAY,				/* finished: the stored answer */
	CLAIM_IN_PROGRESS,			/* a live holder */
	CLAIM_MISMATCH,				/* same key, other request */
	CLAIM_EXHAUSTED				/* max_attempts of the policy are used up */
} ClaimStatus;

typedef struct ClaimRequest
{
	NameArg		scope;
	NameArg		key;
	Datum		fingerprint;	/* 0: none */
	Datum		request_id;		/* 0: none */
	NameArg		policy;
	int64		ttl_us;			/* 0: the policy's */
	int64		wait_us;
} ClaimRequest;

/* What is known of the record; known = false: its holder has not committed yet. */
typedef struct ClaimAnswer
{
	ClaimStatus status;
	bool		known;
	Record		record;
	int64		left_us;		/* of the claim, or of the retention once finished */
	ClockReading now;
} ClaimAnswer;

extern void claim_begin(const ClaimRequest *request, ClaimAnswer *answer);

/* The stored answer, for complete and for a final failure. Datums of 0 are NULL. */
typedef struct ClaimResponse
{
	int32		code;
	bool		has_code;
	Datum		body;
	Datum		bytes;
	Datum		headers;
	Datum		error;
} ClaimResponse;

/* All of these: 42704 unknown key, SD103 when token is not the newest claim, 42501 wrong role. */
extern void claim_complete(const NameArg *scope, const NameArg *key, int64 token, const ClaimResponse *response);
extern void claim_fail(const NameArg *scope, const NameArg *key, int64 token, Datum error);
extern void claim_checkpoint(const NameArg *scope, const NameArg *key, int64 token, Datum recovery_point, Datum data, int64 ttl_us);
extern void claim_renew(const NameArg *scope, const NameArg *key, int64 token, int64 ttl_us, ClaimAnswer *answer);
extern bool claim_get(const NameArg *scope, const NameArg *key, ClaimAnswer *answer);
extern bool claim_forget(const NameArg *scope, const NameArg *key);

#endif							/* DISTSYS_IDEMPOTENCY_CLAIM_H */
