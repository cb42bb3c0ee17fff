/*
 * headers.h: what a web framework sends about rate limits.
 *
 * ietf: draft-ietf-httpapi-ratelimit-headers, structured-field lists (RFC 9651) named RateLimit-Policy and
 * RateLimit; draft06 and x: the older fields with one number each, for the tightest limit.
 */
#ifndef DISTSYS_HEADERS_H
#define DISTSYS_HEADERS_H

#include "ratelimit/limiter.h"

typedef enum HeaderStyle
{
	HEADER_IETF,
	HEADER_X,
	HEADER_DRAFT06
} HeaderStyle;

/* When to come back: 0 when allowed, and when coming back cannot help. */
extern int64 take_retry_us(const RateTake *take);
/* 200, 429 quota exceeded, 503 contended */
extern int	headers_status(const RateTake *takes, int n);
/* jsonb object: field name -> value */
extern Datum headers_json(const RateTake *takes, int n, HeaderStyle style);
/* jsonb: problem details (RFC 9457) */
extern Datum headers_problem(const RateTake *takes, int n, int status);
/* text[]: the policies that refuse */
extern Datum headers_violated(const RateTake *takes, int n);

#endif							/* DISTSYS_HEADERS_H */
