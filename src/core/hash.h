/*
 * hash.h: SHA-256 by the server's own implementation.
 */
#ifndef DISTSYS_HASH_H
#define DISTSYS_HASH_H

#include "common/sha2.h"

/* One piece of input. */
typedef struct HashPiece
{
	const void *data;
	size_t		len;
} HashPiece;

extern void hash_sha256(const void *data, size_t len, uint8 digest[PG_SHA256_DIGEST_LENGTH]);
/* Of the concatenation of n pieces. */
extern void hash_sha256_pieces(const HashPiece *pieces, int n, uint8 digest[PG_SHA256_DIGEST_LENGTH]);

#endif							/* DISTSYS_HASH_H */
