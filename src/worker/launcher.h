/*
 * launcher.h: the process that starts a worker in each database that has work.
 */
#ifndef DISTSYS_LAUNCHER_H
#define DISTSYS_LAUNCHER_H

/* Registers the launcher with the postmaster, and the poke of CREATE EXTENSION. At library load, before shmem_init(). */
extern void launcher_init(void);

#endif							/* DISTSYS_LAUNCHER_H */
