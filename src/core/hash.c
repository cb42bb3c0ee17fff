/*
 * hash.c: SHA-256, see hash.h.
 */
#include "postgres.h"

#include "common/cryptohash.h"

#include "core/hash.h"

static void
check(int status, pg_cryptohash_ctx *context)
{
	if (status < 0)
		elog(ERROR, "SHA-256 failed: %s", pg_cryptohash_error(context));
}

void
hash_sha256_pieces(const HashPiece *pieces, int n, uint8 digest[PG_SHA256_DIGEST_LENGTH])
{
	pg_cryptohash_ctx *context = pg_cryptohash_create(PG_SHA256);

	if (context == NULL)
		elog(ERROR, "SHA-256 is not available");
	check(pg_cryptohash_init(context), context);
	for (int i = 0; i < n; i++)
		check(pg_cryptohash_update(context, pieces[i].data, pieces[i].len), context);
	check(pg_cryptohash_final(context, digest, PG_SHA256_DIGEST_LENGTH), context);
	pg_cryptohash_free(context);
}

void
hash_sha256(const void *data, size_t len, uint8 digest[PG_SHA256_DIGEST_LENGTH])
{
	HashPiece	piece = {data, len};

	hash_sha256_pieces(&piece, 1, digest);
}
