/*
 * distsys.c: what happens when the library is loaded.
 *
 * In shared_preload_libraries it also gets shared memory and starts the
 * launcher; loaded later, by the first call, everything durable works.
 */
#include "postgres.h"

#include "compat.h"

#include "core/guc.h"
#include "core/keylock.h"
#include "core/shmem.h"
#include "core/stats.h"
#include "core/waitlist.h"
#include "core/xact.h"
#include "lock/advisory.h"
#include "lock/held_name.h"
#include "lock/last_writer.h"
#include "lock/leader.h"
#include "lock/lease.h"
#include "lock/semaphore.h"
#include "ratelimit/shared.h"
#include "store/catalog.h"
#include "store/sequencer.h"
#include "store/token.h"
#include "worker/launcher.h"

DISTSYS_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	guc_init();
	stats_init();
	waitlist_init();
	shared_init();
	launcher_init();
	held_name_init();
	last_writer_init();
	shmem_init();
	xact_init();
	keylock_init();
	sequencer_init();
	catalog_init();
	token_init();
	advisory_session_init();
	lease_init();
	leader_init();
	semaphore_init();
}
