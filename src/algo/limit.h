/*
 * limit.h: every algorithm whose state has a fixed size, behind one face.
 *
 *   token_bucket, gcra, leaky_bucket   one exact engine (bucket.h): they admit the same and differ in what they report
 *   fixed_window, calendar             a count per window; any stretch of one window's length admits at most twice the quota
 *   sliding_window                     two counts, the one before weighted by what of it is still in sight: an estimate,
 *                                      a true window can hold just under twice the quota
 *
 * The exact log (sliding_window_log) has a state that grows: log.h.
 *
 * Times are microseconds on any one clock. Order of calls: a state is made by
 * limit_full() or stored; limit_refill() brings it to now; all others work on a state
 * that is up to date. Nothing here raises, allocates or calls the server, so all of it may run under a spinlock.
 *
 * Plain C: no server header.
 */
#ifndef DISTSYS_LIMIT_H
#define DISTSYS_LIMIT_H

#include "algo/bucket.h"

typedef enum LimitAlgorithm
{
	LIMIT_TOKEN_BUCKET,
	LIMIT_GCRA,
	LIMIT_SLIDING_LOG,
	LIMIT_SLIDING_WINDOW,
	LIMIT_FIXED_WINDOW,
	LIMIT_LEAKY_BUCKET,
	LIMIT_CALENDAR
} LimitAlgorithm;

typedef struct LimitRule
{
	LimitAlgorithm algorithm;
	bool		first_hit;		/* fixed_window: the window begins with its first take, not on the grid */
	BucketLimit limit;			/* buckets: reduced; windows: burst is the quota */
	int64_t		origin_us;		/* fixed_window, sliding_window: a moment at which a window of the grid begins */
	int64_t		window[3];		/* calendar: begin of the window that holds now, of the next, and of the one after; the caller's duty */
} LimitRule;

typedef struct LimitState
{
	int64_t		a;				/* buckets: credit; windows: taken in this window */
	int64_t		b;				/* sliding_window: taken in the window before; other windows: begin of this one */
	int64_t		at_us;			/* when the state was right */
} LimitState;

typedef BucketVerdict LimitVerdict;
typedef BucketChange LimitChange;

/* Largest cost and count: sums of two fit. */
#define LIMIT_COUNT_MAX (INT64_MAX / 4)

extern bool limit_is_bucket(LimitAlgorithm algorithm);
/* Can it be computed with? Buckets: burst * period below 2^63; windows: quota at most LIMIT_COUNT_MAX. */
extern bool limit_fits(const LimitRule *rule);
extern bool limit_same(const LimitRule *x, const LimitRule *y);

extern LimitState limit_full(const LimitRule *rule, int64_t now_us);
/* Brings the state up to now. A clock that went back more than a second starts the count anew from there, with what was taken. */
extern void limit_refill(const LimitRule *rule, LimitState *state, int64_t now_us);
/* Is it no different from a state that nobody has used? Then it need not be kept. */
extern bool limit_is_full(const LimitRule *rule, const LimitState *state);

/* cost: 0 .. burst. */
extern LimitVerdict limit_judge(const LimitRule *rule, const LimitState *state, int64_t cost);
/* Takes what limit_judge() found to be within. */
extern void limit_take(const LimitRule *rule, LimitState *state, int64_t cost);
/* Takes any cost, into debt if need be; a window's debt ends with it. false: out of range, and nothing is taken. */
extern bool limit_charge(const LimitRule *rule, LimitState *state, int64_t cost);
/* Gives back up to the full state; returns the whole tokens. */
extern int64_t limit_refund(const LimitRule *rule, LimitState *state, int64_t cost);

/* leaky_bucket: how long what was just taken waits for its turn behind what was there before. Others: 0. */
extern int64_t limit_turn(const LimitRule *rule, const LimitState *state, int64_t cost);

/*
 * Buckets only. A reservation takes now what will be there after a delay;
 * -1: not within max_delay_us, and nothing is taken. A cancelled one gives back
 * its cost while it is the last one and its time has not come, else nothing: those after
 * it were timed by it. (Giving back a part, as golang.org/x/time/rate does, lets a few cancels in
 * a row admit more than the bound: the last promise then acts in a bucket that has run over meanwhile.)
 */
extern int64_t limit_reserve(const LimitRule *rule, LimitState *state, int64_t cost, int64_t max_delay_us);
extern int64_t limit_cancel(const LimitRule *rule, LimitState *state, int64_t cost, int64_t act_at_us);

/* Carries the state over to another rule, also of another algorithm. A full state stays full. */
extern void limit_convert(const LimitRule *from, const LimitRule *to, LimitChange change, LimitState *state);
/* The same in parts, for states that are not a LimitState: what is left, in whole tokens, below 0 in debt. */
extern int64_t limit_tokens(const LimitRule *rule, const LimitState *state);
extern int64_t limit_convert_tokens(int64_t tokens, int64_t from_burst, int64_t to_burst, LimitChange change);
extern LimitState limit_of_tokens(const LimitRule *rule, int64_t tokens, int64_t now_us);

#endif							/* DISTSYS_LIMIT_H */
