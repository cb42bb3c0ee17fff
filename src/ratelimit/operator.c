/*
 * operator.c: what people on call do to one key, see operator.h.
 *
 * Durable: under the key lock, which waits for open takes, to the end of the transaction.
 */
#include "postgres.h"

#include "compat.h"

#include "core/clock.h"
#include "core/guc.h"
#include "core/keylock.h"
#include "ratelimit/durable.h"
#include "ratelimit/limiter.h"
#include "ratelimit/operator.h"
#include "ratelimit/request.h"
#include "ratelimit/shared.h"
#include "store/row.h"

/* Opens the table, locks the key and waits for open takes, as long as a function may. */
static Relation
lock_for_operator(RateTake *take, const char *command)
{
	Relation	rel = row_open_write(TABLE_RATE_LIMIT_BUCKET, command);

	if (!keylock_wait(&take->tag, ExclusiveLock, (int64) guc_max_function_wait * MILLISECONDS))
		limiter_raise_unreachable(&take->policy, RATE_CONTENDED);
	return rel;
}

static void
unlock_unwritten(Relation rel, const RateTake *take)
{
	keylock_release(&take->tag, ExclusiveLock);
	row_close_unwritten(rel);
}

bool
operator_reset(const NameArg *policy, const NameArg *key)
{
	RateTake	take = {.policy = *policy, .key = *key};
	Datum		values[2] = {policy->datum, key->datum};
	Relation	rel;
	HeapTuple	row;

	request_prepare(&take, 0);
	if (take.config.shared)
	{
		shared_require();
		return shared_reset(&take);
	}
	rel = lock_for_operator(&take, "rate_limit_reset()");
	row = row_read_locked(rel, values);
	if (row == NULL)
	{
		unlock_unwritten(rel, &take);
		return false;
	}
	row_delete(rel, row);
	row_close(rel);
	return true;
}

bool
operator_block(const NameArg *policy, const NameArg *key, int64 duration_us, Datum reason)
{
	RateTake	take = {.policy = *policy, .key = *key};
	Relation	rel;
	TimestampTz now;

	request_prepare(&take, 0);
	if (take.config.shared)
	{
		shared_require();
		return shared_block(&take, duration_us);
	}
	rel = lock_for_operator(&take, duration_us > 0 ? "rate_limit_block()" : "rate_limit_unblock()");
	now = clock_wall();
	durable_judge_locked(rel, &take, now);
	if (duration_us == 0 && take.blocked_until <= now)
	{
		unlock_unwritten(rel, &take);
		return false;
	}
	durable_write_block(rel, &take, duration_us == 0 ? 0 : now + duration_us, reason);
	row_close(rel);
	return true;
}
