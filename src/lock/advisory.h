/*
 * advisory.h: locks of which nothing is stored, for the files of advisory helpers only.
 */
#ifndef DISTSYS_ADVISORY_H
#define DISTSYS_ADVISORY_H

#include "core/arg.h"
#include "core/keylock.h"

/* First 8 bytes of SHA-256 of the name, big-endian. */
extern uint64 lock_key(const NameArg *name);
/* The tag of xact_lock(name): distsys.advisory_keyspace says in which space. */
extern void lock_xact_tag(LOCKTAG *tag, const NameArg *name);
/* `wait` of the advisory helpers: NULL is for ever. */
extern int64 lock_arg_wait(FunctionCallInfo fcinfo, int argno);
extern void advisory_session_init(void);

#endif							/* DISTSYS_ADVISORY_H */
