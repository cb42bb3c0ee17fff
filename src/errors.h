/*
 * errors.h: our own SQLSTATEs, one class: SD. Clients branch on these, so a
 * released code never changes its meaning. Everything else uses the server's
 * standard codes.
 */
#ifndef DISTSYS_ERRORS_H
#define DISTSYS_ERRORS_H

#include "utils/elog.h"

/* locks */
#define ERRCODE_SD_FENCING_TOKEN_STALE MAKE_SQLSTATE('S', 'D', '0', '0', '1')
#define ERRCODE_SD_LEASE_NOT_HELD MAKE_SQLSTATE('S', 'D', '0', '0', '2')
#define ERRCODE_SD_WOULD_DEADLOCK MAKE_SQLSTATE('S', 'D', '0', '0', '4')

/* idempotency */
#define ERRCODE_SD_IDEMPOTENCY_IN_PROGRESS MAKE_SQLSTATE('S', 'D', '1', '0', '1')
#define ERRCODE_SD_IDEMPOTENCY_MISMATCH MAKE_SQLSTATE('S', 'D', '1', '0', '2')
#define ERRCODE_SD_IDEMPOTENCY_CLAIM_LOST MAKE_SQLSTATE('S', 'D', '1', '0', '3')

/* rate limits */
#define ERRCODE_SD_RATE_LIMITED MAKE_SQLSTATE('S', 'D', '2', '0', '1')
#define ERRCODE_SD_LIMITER_UNAVAILABLE MAKE_SQLSTATE('S', 'D', '2', '0', '2')

/* outbox */
#define ERRCODE_SD_DELIVERY_NOT_HELD MAKE_SQLSTATE('S', 'D', '3', '0', '1')

#endif /* DISTSYS_ERRORS_H */
