/*
 * shared_file.h: shared limits over a clean restart: the postmaster writes them to a file when it
 * shuts down, and reads and removes it when it starts.
 */
#ifndef DISTSYS_SHARED_FILE_H
#define DISTSYS_SHARED_FILE_H

/* Once, in the postmaster, when shared memory is ready. */
extern void shared_file_start(void);

#endif							/* DISTSYS_SHARED_FILE_H */
