/*
 * quorum.c: how long a lock is good that a majority of independent servers has granted.
 *
 * Arithmetic for the client side of a lock over several servers (docs/lock.md has the recipe). Nothing is stored or
 * locked here. Such a lock saves work and does not protect data: the tokens of different servers have no common order,
 * so a holder that is late cannot be refused.
 */
#include "postgres.h"

#include <math.h>

#include "compat.h"
#include "utils/fmgrprotos.h"

#include "core/arg.h"
#include "core/clock.h"
#include "lock/lease_arg.h"

/* Taken off besides the drift: what the servers and the client round and take to look at a clock. */
#define CLOCK_GRANULARITY (2 * MILLISECONDS)

#define MAX_NODES 1000

/* How long ago a call began, by this server's wall clock. */
static int64
elapsed_since(TimestampTz started)
{
	TimestampTz now = clock_wall();

	if (TIMESTAMP_NOT_FINITE(started) || started > now)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("started must not be infinite or in the future"),
				 errhint("Count on your own clock: started => clock_timestamp() - make_interval(secs => $elapsed).")));
	return now - started;
}

/* The share of the ttl by which the clocks may run apart. */
static double
arg_drift(FunctionCallInfo fcinfo, int argno)
{
	double		drift;

	arg_not_null(fcinfo, argno, "drift");
	drift = DatumGetFloat8(DirectFunctionCall1(numeric_float8, PG_GETARG_DATUM(argno)));
	if (!(drift >= 0 && drift < 1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("drift is out of range"),
				 errdetail("It is %g, the range is 0 to less than 1.", drift),
				 errhint("It is a share of the ttl: 0.01 is one percent.")));
	return drift;
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_quorum_validity);

/* NULL: no majority, or nothing left. */
Datum
distsys_quorum_validity(PG_FUNCTION_ARGS)
{
	int64		elapsed;
	int64		ttl_us;
	int32		nodes;
	int32		granted;
	double		drift;
	int64		left;

	arg_not_null(fcinfo, 0, "started");
	elapsed = elapsed_since(PG_GETARG_TIMESTAMPTZ(0));
	ttl_us = lease_arg_ttl(fcinfo, 1);
	nodes = arg_int32(fcinfo, 2, "nodes", 1, MAX_NODES);
	granted = arg_int32(fcinfo, 3, "granted", 0, nodes);
	drift = arg_drift(fcinfo, 4);

	left = ttl_us - (int64) ceil(ttl_us * drift) - CLOCK_GRANULARITY;
	if (granted <= nodes / 2 || elapsed >= left)
		PG_RETURN_NULL();
	return interval_datum(left - elapsed);
}
