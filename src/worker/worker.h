/*
 * worker.h: the short-lived process that runs the due jobs of one database.
 */
#ifndef DISTSYS_WORKER_H
#define DISTSYS_WORKER_H

#include "storage/lockdefs.h"

/* Starts a worker; false: the server has no free worker slot. */
struct BackgroundWorkerHandle;
extern bool worker_start(Oid database, struct BackgroundWorkerHandle **handle);

/*
 * Takes the lock that DDL on this object (a database, an extension) conflicts
 * with, for the rest of the transaction, without waiting. false: somebody wants the object.
 */
extern bool worker_lock_object(Oid catalog, Oid object, Oid database, LOCKMODE mode);

#endif							/* DISTSYS_WORKER_H */
