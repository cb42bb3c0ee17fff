/*
 * lock_name.c: from the name of an advisory lock to its number.
 *
 * xact_lock and session_lock live in key lock spaces of their own and never meet the application's
 * pg_advisory_* numbers, unless distsys.advisory_keyspace says that xact_lock shall.
 */
#include "postgres.h"

#include "common/sha2.h"
#include "compat.h"
#include "port/pg_bswap.h"
#include "utils/builtins.h"

#include "core/guc.h"
#include "core/hash.h"
#include "lock/advisory.h"

/* pg_advisory_*(bigint): field4 of its tags */
#define PG_ADVISORY_BIGINT 1

uint64
lock_key(const NameArg *name)
{
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	uint64		key;

	hash_sha256(name->data, name->len, digest);
	memcpy(&key, digest, sizeof(key));
	return pg_ntoh64(key);
}

void
lock_xact_tag(LOCKTAG *tag, const NameArg *name)
{
	uint64		key;

	if (guc_advisory_keyspace == ADVISORY_KEYSPACE_PRIVATE)
	{
		keylock_tag(tag, KEYLOCK_XACT, name->data, name->len);
		return;
	}
	key = lock_key(name);
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (key >> 32), (uint32) key, PG_ADVISORY_BIGINT);
}

int64
lock_arg_wait(FunctionCallInfo fcinfo, int argno)
{
	if (PG_ARGISNULL(argno))
		return KEYLOCK_FOR_EVER;
	return arg_interval(fcinfo, argno, "wait", 0, INT64CONST(2000000000) * MILLISECONDS,
						"Zero means: do not wait; null means: for as long as it takes.");
}

/* ---- SQL ---- */

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_lock_key);

Datum
distsys_lock_key(PG_FUNCTION_ARGS)
{
	NameArg		name = arg_name(fcinfo, 0, "name", NAME_LONG);

	PG_RETURN_INT64((int64) lock_key(&name));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_lock_name);

/* namespace:id */
Datum
distsys_lock_name(PG_FUNCTION_ARGS)
{
	NameArg		namespace = arg_name(fcinfo, 0, "namespace", NAME_LONG - 21);

	arg_not_null(fcinfo, 1, "id");
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%s:%lld", name_cstring(namespace), (long long) PG_GETARG_INT64(1))));
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys__lock_id);

/* The number under which pg_locks shows the key lock of (space, name) or (space, name, number): what the view locks resolves names with. */
Datum
distsys__lock_id(PG_FUNCTION_ARGS)
{
	int32		space = arg_int32(fcinfo, 0, "space", KEYLOCK_XACT, KEYLOCK_LAST_SPACE);
	NameArg		name = arg_name(fcinfo, 1, "name", NAME_LONG);
	LOCKTAG		tag;

	if (PG_ARGISNULL(2))
		keylock_tag(&tag, (KeylockSpace) space, name.data, name.len);
	else
		keylock_tag_num(&tag, (KeylockSpace) space, name.data, name.len, PG_GETARG_INT64(2));
	PG_RETURN_INT64((int64) (((uint64) tag.locktag_field2 << 32) | tag.locktag_field3));
}
