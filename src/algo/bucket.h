/*
 * bucket.h: the token bucket in exact integers.
 *
 * Credit is counted in units of token x microsecond: each microsecond adds
 * `quota` units, a token costs `period_us` units, the bucket holds burst *
 * period_us. Nothing is rounded, so any window of t microseconds admits at most
 * burst + quota * t / period_us tokens, and a saturating client gets no less
 * than that minus one. (Rounding the interval between tokens to microseconds
 * admits 43 % too much at 700,000 per second.)
 *
 * Plain C: no server header.
 */
#ifndef DISTSYS_BUCKET_H
#define DISTSYS_BUCKET_H

#include <stdbool.h>
#include <stdint.h>

/* A limit: quota tokens per period_us, at most burst at once. All >= 1. */
typedef struct BucketLimit
{
	int64_t		quota;
	int64_t		period_us;
	int64_t		burst;
} BucketLimit;

typedef struct BucketState
{
	int64_t		credit;			/* at most burst * period_us; below 0 is debt */
	int64_t		at_us;			/* when credit was right */
} BucketState;

/* What a request meets. Times are microseconds from the moment of the state. */
typedef struct BucketVerdict
{
	bool		within;			/* the cost is there */
	int64_t		remaining;		/* whole tokens */
	int64_t		retry_us;		/* until the cost will be there, 0 when it is */
	int64_t		reset_us;		/* until the bucket is full */
	int64_t		next_us;		/* until there is one whole token more, 0 when full */
} BucketVerdict;

typedef enum BucketChange
{
	BUCKET_RESET,				/* full */
	BUCKET_PROPORTIONALLY,		/* as full as it was */
	BUCKET_AS_IS,				/* the same tokens */
	BUCKET_ADDITIVE				/* the same tokens and what the burst has grown */
} BucketChange;

/*
 * The same rate in the smallest numbers: 10 million a month is 1 per 259,200 us.
 * What is stored and computed with is reduced.
 */
extern void bucket_limit_reduce(BucketLimit *limit);
/* Does burst * period_us fit, so that nothing below overflows? */
extern bool bucket_limit_fits(const BucketLimit *limit);
extern BucketState bucket_full(const BucketLimit *limit, int64_t now_us);
/* Brings the state up to now. A clock that went back more than a second starts the count anew from there. */
extern void bucket_refill(const BucketLimit *limit, BucketState *state, int64_t now_us);
/* cost: 0 .. burst. The state is up to date. */
extern BucketVerdict bucket_judge(const BucketLimit *limit, const BucketState *state, int64_t cost);
extern void bucket_take(const BucketLimit *limit, BucketState *state, int64_t cost);
/* Takes any cost, into debt if need be. false: more debt than can be counted, and nothing is taken. */
extern bool bucket_charge(const BucketLimit *limit, BucketState *state, int64_t cost);
/* Gives back, up to the full bucket; returns the whole tokens. */
extern int64_t bucket_refund(const BucketLimit *limit, BucketState *state, int64_t cost);
/* Carries the state over to another limit. A full bucket stays full: it is no different from one that nobody has used. */
extern void bucket_convert(const BucketLimit *from, const BucketLimit *to, BucketChange change, BucketState *state);

#endif							/* DISTSYS_BUCKET_H */
