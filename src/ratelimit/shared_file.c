/*
 * shared_file.c: the file of shared limits, see shared_file.h.
 *
 * A header, records, a checksum. A crash leaves no file, since it is removed as soon as it is read: the
 * snapshot table serves then. What cannot be read or does not fit is logged and left out.
 */
#include "postgres.h"

#include <unistd.h>

#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "compat.h"
#include "pgstat.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"
#include "storage/ipc.h"

#include "ratelimit/shared_file.h"
#include "ratelimit/shared_saved.h"

#define FILE_NAME PGSTAT_STAT_PERMANENT_DIRECTORY "/distsys_rate_limits.stat"

/* Another library or another server does not read what this one wrote. */
typedef struct FileHeader
{
	uint32		magic;
	uint32		server;
	uint32		record_size;
	int32		count;
} FileHeader;

#define FILE_MAGIC 0x64726c31

static FileHeader
header_for(int32 count)
{
	FileHeader	header = {FILE_MAGIC, PG_MAJORVERSION_NUM, sizeof(SharedSaved), count};

	return header;
}

static bool
put(FILE *file, const void *data, size_t size, pg_crc32c *crc)
{
	COMP_CRC32C(*crc, data, size);
	return fwrite(data, size, 1, file) == 1;
}

static bool
get(FILE *file, void *data, size_t size, pg_crc32c *crc)
{
	if (fread(data, size, 1, file) != 1)
		return false;
	COMP_CRC32C(*crc, data, size);
	return true;
}

/* ---- writing ---- */

static bool
write_partition(FILE *file, int partition, int64 now, int64 step, int32 *count, pg_crc32c *crc)
{
	SharedEntry *entry;
	ShmapKey	key;
	uint32		place = 0;

	while ((entry = shmap_next(&shared_map, partition, &place, &key)) != NULL)
	{
		SharedSaved saved;

		memset(&saved, 0, sizeof(saved));
		if (!shared_save(&key, entry, now, step, &saved))
			continue;
		if (!put(file, &saved, sizeof(saved), crc))
			return false;
		(*count)++;
	}
	return true;
}

static bool
write_records(FILE *file)
{
	FileHeader	header = header_for(0);
	int64		now = shared_now();
	int64		step = shared_step();
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	if (fwrite(&header, sizeof(header), 1, file) != 1)
		return false;
	for (int partition = 0; partition < SHMAP_PARTITIONS; partition++)
	{
		if (!write_partition(file, partition, now, step, &header.count, &crc))
			return false;
	}
	FIN_CRC32C(crc);
	return fwrite(&crc, sizeof(crc), 1, file) == 1 && fseek(file, 0, SEEK_SET) == 0 &&
		fwrite(&header, sizeof(header), 1, file) == 1;
}

static void
report_failure(const char *verb)
{
	ereport(LOG,
			(errcode_for_file_access(),
			 errmsg("could not %s file \"%s\": %m", verb, FILE_NAME)));
}

/* An immediate shutdown is a crash: processes ended in the middle of a change. */
static bool
shut_down_cleanly(void)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);
	bool		clean = crc_ok && (control->state == DB_SHUTDOWNED || control->state == DB_SHUTDOWNED_IN_RECOVERY);

	pfree(control);
	return clean;
}

/* The postmaster's exit: all other processes are gone. */
static void
write_file(int code, Datum arg)
{
	FILE	   *file;
	bool		written;

	if (code != 0 || !shut_down_cleanly())
		return;
	file = AllocateFile(FILE_NAME ".tmp", PG_BINARY_W);
	if (file == NULL)
	{
		report_failure("create");
		return;
	}
	written = write_records(file);
	if (FreeFile(file) != 0 || !written)
	{
		report_failure("write");
		unlink(FILE_NAME ".tmp");
		return;
	}
	(void) durable_rename(FILE_NAME ".tmp", FILE_NAME, LOG);
}

/* ---- reading ---- */

static bool
same_header(const FileHeader *header)
{
	FileHeader	expected = header_for(header->count);

	return memcmp(header, &expected, sizeof(expected)) == 0;
}

/* Twice: first the checksum, then, with `restore`, the records. */
static bool
read_records(FILE *file, bool restore, int *lost)
{
	FileHeader	header;
	pg_crc32c	crc;
	pg_crc32c	stored;

	INIT_CRC32C(crc);
	if (fseek(file, 0, SEEK_SET) != 0 || fread(&header, sizeof(header), 1, file) != 1 || !same_header(&header))
		return false;
	for (int i = 0; i < header.count; i++)
	{
		SharedSaved saved;

		if (!get(file, &saved, sizeof(saved), &crc))
			return false;
		if (restore && !shared_restore(&saved))
			(*lost)++;
	}
	FIN_CRC32C(crc);
	return fread(&stored, sizeof(stored), 1, file) == 1 && EQ_CRC32C(crc, stored);
}

static void
read_file(void)
{
	FILE	   *file = AllocateFile(FILE_NAME, PG_BINARY_R);
	int			lost = 0;
	bool		read;

	if (file == NULL)
	{
		if (errno != ENOENT)
			report_failure("read");
		return;
	}
	read = read_records(file, false, &lost) && read_records(file, true, &lost);
	FreeFile(file);
	unlink(FILE_NAME);
	if (!read)
		ereport(LOG,
				(errmsg("file \"%s\" is of another version or damaged: ignored", FILE_NAME)));
	else if (lost > 0)
		ereport(LOG,
				(errmsg("%d shared rate limits found no room in shared memory", lost),
				 errhint("Raise distsys.rate_limit_shared_keys.")));
	else
		shared_set_complete();
}

void
shared_file_start(void)
{
	on_shmem_exit(write_file, (Datum) 0);
	read_file();
}
