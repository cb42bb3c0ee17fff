/*
 * token.h: fencing tokens and event positions: (epoch << 40) + counter, a
 * bigint below 2^53, one rising order for the whole database.
 *
 * epoch = base + timeline, so it rises by itself at a promotion. The base is in
 * the one-row table token_state together with the identity it was computed for
 * (system identifier, database, table OID, timeline); anything but a risen timeline
 * (restore, copy of the database, pg_upgrade) jumps the base by 256 and expires
 * older leases.
 */
#ifndef DISTSYS_TOKEN_H
#define DISTSYS_TOKEN_H

#include "access/xlogdefs.h"

#include "core/clock.h"
#include "store/catalog.h"

#define TOKEN_COUNTER_BITS 40
#define TOKEN_LIMIT (INT64CONST(1) << 53)

/* A new token, unique from the moment it is seen: flushed before return, whatever becomes of the transaction. */
extern int64 token_issue(void);
/* First of n consecutive positions; durable with this transaction's commit. */
extern int64 position_draw(int64 n);
/* The highest position drawn so far, in the same layout. Not on a standby. */
extern int64 position_head(void);
/*
 * First of n consecutive delivery receipts, in the same layout: a server that was promoted without the last ones draws the same
 * counts again, and a late acknowledgement of those must not settle what is in flight there. Flushed before return.
 */
extern int64 receipt_draw(int64 n);
/* Leases whose token is below this are expired: they were granted before a restore. */
extern int64 token_lease_floor(void);
extern int32 token_epoch(void);

/*
 * After a promotion the server may lack the last grants of its predecessor. Until distsys.failover_delay after
 * it no new grant is made: microseconds left, 0: none.
 */
extern int64 token_grant_delay(const ClockReading *now);
/* What is known to be granted lasts at least its ttl from the promotion on, since a renewal may be lost: microseconds left, <= 0: no more. */
extern int64 token_promoted_left(const ClockReading *now, int64 ttl_us);
/* That table's column attnum is the ttl of grants, in microseconds: the longest is looked up at a promotion. */
extern void token_register_ttl(CatalogTable table, int attnum);

/* Operators: a new epoch; at least the epoch after that of min_token. Both wait for publishers in their commit and hold them off to the end of this transaction. */
extern int32 token_epoch_bump(void);
/* Returns a token that every later one is above, and that is at least min_token. */
extern int64 token_advance(int64 min_token);
/* Has this transaction raised the epoch? A token of it that outlives a rollback would be higher than later ones. */
extern bool token_epoch_uncommitted(void);
extern void token_init(void);

#endif							/* DISTSYS_TOKEN_H */
