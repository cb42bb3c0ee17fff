/*
 * window.h: fixed, calendar and sliding (two counter) windows, behind limit.h.
 *
 * A window's count is what was taken in it. When a clock is set back the count
 * stays and its window becomes the one of the new time: nothing is admitted twice, and
 * nobody is shut out for longer than that window.
 *
 * Plain C: no server header.
 */
#ifndef DISTSYS_WINDOW_H
#define DISTSYS_WINDOW_H

#include "algo/limit.h"

extern LimitState window_full(const LimitRule *rule, int64_t now_us);
extern void window_refill(const LimitRule *rule, LimitState *state, int64_t now_us);
extern bool window_is_full(const LimitRule *rule, const LimitState *state);
extern LimitVerdict window_judge(const LimitRule *rule, const LimitState *state, int64_t cost);
/* Whole tokens that are left, below 0 in debt. */
extern int64_t window_tokens(const LimitRule *rule, const LimitState *state);

#endif							/* DISTSYS_WINDOW_H */
