/*
 * semaphore.h: semaphores: at most so many permits of a name are held at a time, each for a time.
 */
#ifndef DISTSYS_SEMAPHORE_H
#define DISTSYS_SEMAPHORE_H

#include "utils/uuid.h"

#include "core/arg.h"
#include "core/clock.h"
#include "store/sweep.h"

/* Most permits of one semaphore: a call that is refused reads all slots, about 1 us each. */
#define SEMAPHORE_MAX_PERMITS 10000

typedef enum SemaphoreReason
{
	SEMAPHORE_OK,
	SEMAPHORE_NO_PERMIT,
	SEMAPHORE_QUEUE_FULL,
	SEMAPHORE_TIMEOUT,
	SEMAPHORE_FAILOVER_DELAY
} SemaphoreReason;

typedef struct SemaphoreConfig
{
	int32		permits;
	int32		queue_limit;	/* -1: none */
} SemaphoreConfig;

/* What acquire is asked for. */
typedef struct SemaphoreRequest
{
	NameArg		name;
	NameArg		owner;
	int64		ttl_us;
	int			permits;
	const pg_uuid_t *request_id;	/* NULL: none */
} SemaphoreRequest;

/* One grant: a token and the slots that it holds, all with the same times. */
typedef struct SemaphoreGrant
{
	int64		token;
	int			nslots;
	int32	   *slots;			/* from 1 */
	int64		ttl_us;
	int64		left_us;
	TimestampTz expires_at;		/* on this server's wall clock */
	int64		retry_us;		/* refused: until it may be granted without a release; -1: not known */
} SemaphoreGrant;

/* ---- configuration ---- */

/* 42704 with the create call in the HINT when it is unknown. */
extern void semaphore_config_get(const NameArg *name, SemaphoreConfig *config);
extern bool semaphore_config_find(const NameArg *name, SemaphoreConfig *config);

/* ---- permits ---- */

/* Grants so many permits or says why not. *again: this is the live grant that the same request_id has got before. */
extern SemaphoreReason semaphore_acquire(const SemaphoreRequest *request, int64 wait_us, SemaphoreGrant *grant, bool *again);
/* ttl_us 0: the ttl it has. SD002 unless token is a live grant. */
extern void semaphore_renew(const NameArg *name, int64 token, int64 ttl_us, SemaphoreGrant *grant);
extern bool semaphore_release(const NameArg *name, int64 token);
/* SD002 unless token is a live grant; keeps its slots from being granted again to the end of the (sub)transaction. */
extern void semaphore_assert(const NameArg *name, int64 token);
/* Slots that are held now; more than there are permits while it shrinks. */
extern int	semaphore_in_use(const NameArg *name);
/* How many sessions wait for permits now. */
extern int	semaphore_waiting(const NameArg *name);
/* Calls those who wait once this transaction has ended. */
extern void semaphore_wake(const NameArg *name);

/* Job: removes dead permits of slots that are not granted any more. */
extern void semaphore_sweep(JobSlice *slice);
extern void semaphore_init(void);

#endif							/* DISTSYS_SEMAPHORE_H */
