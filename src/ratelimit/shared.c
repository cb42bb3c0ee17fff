/*
 * shared.c: limits in shared memory, see shared.h.
 */
#include "postgres.h"

#include "ratelimit/shared.h"

void
shared_require(void)
{
	arg_not_built("storage 'shared'", "Use storage => 'durable'.");
}

void
shared_take(RateTake *takes, int n, bool go)
{
	shared_require();
}

void
shared_peek(RateTake *takes, int n)
{
	shared_require();
}

void
shared_undo(RateTake *takes, int n)
{
}

bool
shared_reset(RateTake *take)
{
	shared_require();
	return false;
}

bool
shared_block(RateTake *take, int64 duration_us)
{
	shared_require();
	return false;
}
