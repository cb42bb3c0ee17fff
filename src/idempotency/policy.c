/*
 * policy.c: idempotency policies: an ordinary table, cached.
 *
 * The policy "default" lives here, not in a row of the install script: a row
 * would collide with the one in a restored dump. A row of that name overrides it.
 */
#include "postgres.h"

#include "compat.h"
#include "utils/builtins.h"

#include "core/keylock.h"
#include "idempotency/policy.h"
#include "store/config.h"
#include "store/row.h"

#define RETENTION_MIN (1 * SECONDS)
#define RETENTION_MAX (INT64CONST(3650) * 24 * 60 * 60 * SECONDS)
#define RESPONSE_BYTES_MAX (256 * 1024 * 1024)

enum
{
	ATTR_POLICY = 1,
	ATTR_RETENTION,
	ATTR_TTL,
	ATTR_REQUIRE_FINGERPRINT,
	ATTR_MAX_RESPONSE_BYTES,
	ATTR_MAX_ATTEMPTS,
	NATTS = ATTR_MAX_ATTEMPTS
};

static const IdempotencyPolicy builtin = {
	.retention_us = INT64CONST(24) * 60 * 60 * SECONDS,
	.ttl_us = 60 * SECONDS,
	.require_fingerprint = true,
	.max_response_bytes = 1024 * 1024,
	.max_attempts = 0
};

static const ConfigKind kind = {
	.table = TABLE_IDEMPOTENCY_POLICY,
	.key = "idempotency_policy",
	.label = "idempotency policy",
	.function = "idempotency_policy",
	.create_rest = ""
};

static ConfigCache *cache = NULL;

static void
load(void *entry, Relation rel, HeapTuple tuple)
{
	IdempotencyPolicy *policy = (IdempotencyPolicy *) entry;
	bool		isnull;
	Datum		attempts;

	policy->retention_us = interval_to_us(DatumGetIntervalP(row_get(rel, tuple, ATTR_RETENTION, NULL)),
										  "retention", RETENTION_MIN, RETENTION_MAX, NULL);
	policy->ttl_us = interval_to_us(DatumGetIntervalP(row_get(rel, tuple, ATTR_TTL, NULL)),
									"ttl", CLAIM_TTL_MIN, CLAIM_TTL_MAX, NULL);
	policy->require_fingerprint = DatumGetBool(row_get(rel, tuple, ATTR_REQUIRE_FINGERPRINT, NULL));
	policy->max_response_bytes = DatumGetInt32(row_get(rel, tuple, ATTR_MAX_RESPONSE_BYTES, NULL));
	attempts = row_get(rel, tuple, ATTR_MAX_ATTEMPTS, &isnull);
	policy->max_attempts = isnull ? 0 : DatumGetInt32(attempts);
}

static bool
lookup(const NameArg *name, IdempotencyPolicy *policy)
{
	if (cache == NULL)
		cache = config_cache_create(TABLE_IDEMPOTENCY_POLICY, sizeof(IdempotencyPolicy), load);
	return config_get(cache, name, NULL, policy);
}

void
idempotency_policy_get(const NameArg *name, IdempotencyPolicy *policy)
{
	if (lookup(name, policy))
		return;
	if (name->len != 7 || memcmp(name->data, "default", 7) != 0)
		config_raise_unknown(&kind, name);
	*policy = builtin;
}

void
idempotency_policy_of_record(Datum name, IdempotencyPolicy *policy)
{
	NameArg		checked = arg_name_datum(name, "policy", NAME_SHORT);

	if (!lookup(&checked, policy))
		*policy = builtin;
}

/* ---- SQL ---- */

/* Checks the options from argument 1 on; replace[] tells which were given (NULL: not). */
static void
read_options(FunctionCallInfo fcinfo, Datum *values, bool *nulls, bool *replace)
{
	for (int i = ATTR_RETENTION; i <= NATTS; i++)
	{
		nulls[i - 1] = PG_ARGISNULL(i - 1);
		replace[i - 1] = !nulls[i - 1];
		values[i - 1] = PG_GETARG_DATUM(i - 1);
	}
	if (replace[ATTR_RETENTION - 1])
		(void) arg_interval(fcinfo, 1, "retention", RETENTION_MIN, RETENTION_MAX, NULL);
	if (replace[ATTR_TTL - 1])
		(void) arg_interval(fcinfo, 2, "ttl", CLAIM_TTL_MIN, CLAIM_TTL_MAX, CLAIM_TTL_HINT);
	if (replace[ATTR_MAX_RESPONSE_BYTES - 1])
		(void) arg_int32(fcinfo, 4, "max_response_bytes", 0, RESPONSE_BYTES_MAX);
	if (replace[ATTR_MAX_ATTEMPTS - 1])
		(void) arg_int32(fcinfo, 5, "max_attempts", 1, PG_INT32_MAX);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_idempotency_policy_create);

Datum
distsys_idempotency_policy_create(PG_FUNCTION_ARGS)
{
	NameArg		name = arg_name(fcinfo, 0, "policy", NAME_SHORT);
	Datum		values[NATTS];
	bool		nulls[NATTS] = {false};
	bool		given[NATTS] = {false};
	bool		if_not_exists = arg_bool(fcinfo, 6, "if_not_exists");

	arg_not_null(fcinfo, 1, "retention");
	arg_not_null(fcinfo, 2, "ttl");
	arg_not_null(fcinfo, 3, "require_fingerprint");
	arg_not_null(fcinfo, 4, "max_response_bytes");
	read_options(fcinfo, values, nulls, given);
	values[ATTR_POLICY - 1] = name.datum;
	PG_RETURN_BOOL(config_create(&kind, &name, values, nulls, if_not_exists));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_idempotency_policy_alter);

Datum
distsys_idempotency_policy_alter(PG_FUNCTION_ARGS)
{
	NameArg		name = arg_name(fcinfo, 0, "policy", NAME_SHORT);
	Datum		values[NATTS];
	bool		nulls[NATTS] = {false};
	bool		replace[NATTS] = {false};
	Relation	rel;
	HeapTuple	row;

	read_options(fcinfo, values, nulls, replace);
	row = config_edit(&kind, &name, &rel);
	config_save(rel, row, values, nulls, replace);
	PG_RETURN_BOOL(true);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_idempotency_policy_drop);

Datum
distsys_idempotency_policy_drop(PG_FUNCTION_ARGS)
{
	NameArg		name = arg_name(fcinfo, 0, "policy", NAME_SHORT);

	PG_RETURN_BOOL(config_drop(&kind, &name, arg_bool(fcinfo, 1, "if_exists"), NULL));
}
