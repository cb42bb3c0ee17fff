/*
 * clock.c: the wall clock and the boot clock, see clock.h.
 */
#include "postgres.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "common/hashfn.h"
#include "utils/timestamp.h"

#include "core/clock.h"
#include "core/guc.h"

/* Deadlines beyond this are never computed: 200 years in microseconds. */
#define FAR_AHEAD INT64CONST(6311520000000000)

/* Two clocks that are read one after the other, and slewed, tell the same time: microseconds. */
#define CLOCK_AGREES 100000

/* Reads a small file of /proc whole; -1 when it is not there. */
static int
read_proc_file(const char *path, char *buffer, int size)
{
	int			fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t		n;

	if (fd < 0)
		return -1;
	n = read(fd, buffer, size - 1);
	close(fd);
	if (n < 0)
		return -1;
	buffer[n] = '\0';
	return (int) n;
}

/*
 * Containers share the boot id and may shift CLOCK_BOOTTIME by a time
 * namespace, so both make the identity. 0: there is no such clock here.
 */
static int64
boot_clock_identity(void)
{
	static int64 identity = -1;
	char		boot_id[128];
	char		offsets[256];
	uint64		hash;
	int			n;

	if (identity != -1)
		return identity;

#ifndef CLOCK_BOOTTIME
	return identity = 0;
#endif
	n = read_proc_file("/proc/sys/kernel/random/boot_id", boot_id, sizeof(boot_id));
	if (n <= 0)
		return identity = 0;
	hash = hash_bytes_extended((unsigned char *) boot_id, n, 0);

	n = read_proc_file("/proc/self/timens_offsets", offsets, sizeof(offsets));
	if (n > 0)
	{
		const char *line = strstr(offsets, "boottime");

		if (line != NULL)
			hash = hash_bytes_extended((const unsigned char *) line, (int) strcspn(line, "\n"), hash);
	}
	/* positive, so that it is never mistaken for "unknown" */
	identity = (int64) (hash & PG_INT64_MAX);
	return identity == 0 ? (identity = 1) : identity;
}

TimestampTz
clock_wall(void)
{
	return GetCurrentTimestamp() + ((int64) guc_clock_offset + guc_clock_step) * 1000;
}

#ifdef CLOCK_BOOTTIME
#define BOOT_CLOCK CLOCK_BOOTTIME
#else
#define BOOT_CLOCK CLOCK_MONOTONIC
#endif

int64
clock_boot(void)
{
	struct timespec ts = {0};

	(void) clock_gettime(BOOT_CLOCK, &ts);
	return (int64) ts.tv_sec * 1000000 + ts.tv_nsec / 1000 + (int64) guc_clock_offset * 1000;
}

ClockReading
clock_read(void)
{
	ClockReading now;

	now.wall = clock_wall();
	now.boot = clock_boot();
	now.id = boot_clock_identity();
	return now;
}

Deadline
deadline_after(const ClockReading *now, int64 us)
{
	Deadline	deadline;

	us = Min(us, FAR_AHEAD);
	deadline.wall = now->wall + us;
	deadline.boot = now->boot + us;
	deadline.id = now->id;
	return deadline;
}

int64
deadline_left(const Deadline *deadline, const ClockReading *now)
{
	if (deadline->id != 0 && deadline->id == now->id)
		return deadline->boot - now->boot;
	return deadline->wall - now->wall;
}

TimestampTz
deadline_wall(const Deadline *deadline, const ClockReading *now, int64 left_us)
{
	/* what has passed is not moved: only its wall time says when */
	return left_us > 0 && llabs(now->wall + left_us - deadline->wall) > CLOCK_AGREES ? now->wall + left_us : deadline->wall;
}
