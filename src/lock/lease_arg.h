/*
 * lease_arg.h: arguments and words that the SQL functions of leases and leaders share.
 */
#ifndef DISTSYS_LEASE_ARG_H
#define DISTSYS_LEASE_ARG_H

#include "fmgr.h"

#include "lock/lease.h"

extern int64 lease_arg_ttl(FunctionCallInfo fcinfo, int argno);
/* NULL: 0 */
extern int64 lease_arg_optional_ttl(FunctionCallInfo fcinfo, int argno);
/* NULL: NULL */
extern const pg_uuid_t *lease_arg_uuid(FunctionCallInfo fcinfo, int argno);
/* jsonb of at most 8 kB, 22001; NULL: 0 */
extern Datum lease_arg_data(FunctionCallInfo fcinfo, int argno, const char *what);
extern const char *lease_reason_word(LeaseReason reason);
/* "takes effect at commit" */
extern void lease_notice_in_transaction(const LeaseKind *kind, const NameArg *name);

#endif							/* DISTSYS_LEASE_ARG_H */
