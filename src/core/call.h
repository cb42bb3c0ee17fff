/*
 * call.h: procedures that end the transaction they were called in.
 *
 * A CALL form works in short transactions of its own, so that what it has done is durable on
 * return, and waits between them without a snapshot, so that nobody's vacuum or CREATE INDEX
 * CONCURRENTLY waits for it:
 *
 *   call_check(fcinfo, "lease_lock()");    before anything else
 *   read and check the arguments
 *   call_begin();                          the transaction so far is committed
 *   ... work; call_commit(); sleep; work ...
 *   call_end();
 *   return call_result(fcinfo, values, nulls);
 *
 * The server does not stop a C procedure that commits inside a transaction block: call_check does.
 * Such a procedure has no SET clause and no SECURITY DEFINER: either makes it atomic. It reaches
 * tables through the row store only, which needs a snapshot pushed after call_begin.
 *
 * After call_begin and call_commit the backend holds no snapshot. Whatever looks at a catalog
 * takes one again: call InvalidateCatalogSnapshot() before each sleep that follows.
 * Arguments and palloc'd results live in the caller's context, which outlasts the commits.
 */
#ifndef DISTSYS_CALL_H
#define DISTSYS_CALL_H

#include "fmgr.h"

/* 2D000 inside a transaction block, a function, an exception block or a pipeline; `function` is named in the message. */
extern void call_check(FunctionCallInfo fcinfo, const char *function);
/* Commits what came before; a new transaction begins. */
extern void call_begin(void);
/* Ends the current transaction; a new one begins. */
extern void call_commit(void);
extern void call_end(void);
/* The row of the INOUT parameters; after call_end. */
extern Datum call_result(FunctionCallInfo fcinfo, const Datum *values, const bool *nulls);

#endif							/* DISTSYS_CALL_H */
