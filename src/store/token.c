/*
 * token.c: epochs, tokens, positions, receipts; see token.h.
 *
 * The one row of token_state is made when something is first given out and rewritten when the
 * identity has changed. What it says is derived the same way by every
 * backend, so a backend that cannot write it (read-only, somebody else is
 * writing it) goes on with the same numbers.
 *
 * A risen timeline is a promotion: the row keeps when that was and the longest ttl that was known when it was
 * first seen. When it was says the timeline's history file; without that it is when it is first seen, which only delays grants longer.
 *
 * token_epoch_bump() and token_advance() hold the sequencer's tags alone, so
 * that no publisher draws a position of the old epoch after a reader has seen one of the new.
 */
#include "postgres.h"

#include <sys/stat.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_control.h"
#include "compat.h"
#include "utils/inval.h"
#include "utils/timestamp.h"

#include "core/arg.h"
#include "core/counter.h"
#include "core/guc.h"
#include "core/keylock.h"
#include "core/xact.h"
#include "store/config.h"
#include "store/row.h"
#include "store/sequencer.h"
#include "store/token.h"

/* More promotions than a database sees between two records of its timeline. */
#define RESTORE_JUMP 256

enum
{
	ATTR_SINGLETON = 1,
	ATTR_BASE,
	ATTR_TIMELINE,
	ATTR_SYSTEM,
	ATTR_DATABASE,
	ATTR_RELATION,
	ATTR_LEASE_FLOOR,
	ATTR_PROMOTED_AT,
	ATTR_PROMOTED_BOOT,
	ATTR_PROMOTED_CLOCK,
	ATTR_LONGEST_TTL_US,
	NATTS = ATTR_LONGEST_TTL_US
};

typedef struct TokenState
{
	Oid			relid;			/* cache key: the state table; invalid = not loaded */
	int64		base;			/* epoch = base + timeline */
	int64		timeline;		/* when the base was decided */
	bool		recorded;		/* there is a row */
	int64		lease_floor;
	Deadline	promoted;		/* when the last promotion was; wall 0: never */
	int64		longest_ttl_us; /* of the grants that were known then */
} TokenState;

static TokenState state;
static uint64 invalidations = 0;

#define MAX_TTL_COLUMNS 4

static struct
{
	CatalogTable table;
	int			attnum;
}			ttl_columns[MAX_TTL_COLUMNS];
static int	nttl_columns = 0;

void
token_register_ttl(CatalogTable table, int attnum)
{
	Assert(nttl_columns < MAX_TTL_COLUMNS);
	ttl_columns[nttl_columns].table = table;
	ttl_columns[nttl_columns++].attnum = attnum;
}

static int64
longest_ttl_us(CatalogTable table, int attnum)
{
	Relation	rel = row_open_read(table);
	RowScan    *scan = row_scan_begin(rel, 0, NULL, NULL);
	int64		longest = 0;
	HeapTuple	row;

	while ((row = row_scan_next(scan)) != NULL)
	{
		int64		ttl_us = DatumGetInt64(row_get(rel, row, attnum, NULL));

		longest = Max(longest, ttl_us);
	}
	row_scan_end(scan);
	row_close(rel);
	return longest;
}

static void
on_relcache_invalidation(Datum arg, Oid relid)
{
	invalidations++;
	if (relid == InvalidOid || relid == state.relid)
		state.relid = InvalidOid;
}

static int64
current_timeline(void)
{
	TimeLineID	timeline;

	if (!RecoveryInProgress())
		return GetWALInsertionTimeLine();
	(void) GetXLogReplayRecPtr(&timeline);
	return timeline;
}

static int64
current_epoch(void)
{
	return state.base + current_timeline();
}

/* What this database is: a restored or copied one differs in at least one of these. */
static void
identity(Relation rel, int64 *system, int64 *database, int64 *relation)
{
	*system = (int64) GetSystemIdentifier();
	*database = MyDatabaseId;
	*relation = RelationGetRelid(rel);
}

/* How long ago this server began its timeline, which is when it wrote the history file; 0: not known. */
static int64
timeline_age_us(int64 timeline)
{
	char		path[MAXPGPATH];
	struct stat file;

	TLHistoryFilePath(path, (TimeLineID) timeline);
	if (stat(path, &file) != 0)
		return 0;
	/* the time of a file may lack its fraction */
	return at_least(GetCurrentTimestamp() - time_t_to_timestamptz(file.st_mtime) - 1 * SECONDS, 0);
}

/*
 * A promotion that nobody has recorded yet. Remembered, and not seen anew at each call: the record is rolled back with its
 * transaction, and a caller who always rolls back when he is refused would be refused for ever.
 */
static void
see_promotion(TokenState *derived)
{
	static TokenState seen;
	ClockReading now = clock_read();

	if (seen.timeline != derived->timeline)
	{
		seen.promoted = deadline_after(&now, -timeline_age_us(derived->timeline));
		seen.longest_ttl_us = 0;
		for (int i = 0; i < nttl_columns; i++)
		{
			int64		longest_us = longest_ttl_us(ttl_columns[i].table, ttl_columns[i].attnum);

			seen.longest_ttl_us = Max(seen.longest_ttl_us, longest_us);
		}
		seen.timeline = derived->timeline;
	}
	derived->promoted = seen.promoted;
	derived->longest_ttl_us = seen.longest_ttl_us;
}

/* Fills *derived from the row (NULL: none yet) for the database as it is now; true when the row should be rewritten. */
static bool
derive(Relation rel, HeapTuple row, TokenState *derived)
{
	int64		timeline = current_timeline();
	int64		system,
				database,
				relation;
	int64		stored_timeline;
	bool		same;

	derived->relid = RelationGetRelid(rel);
	derived->timeline = timeline;
	derived->recorded = row != NULL;
	derived->base = 0;
	derived->lease_floor = 0;
	memset(&derived->promoted, 0, sizeof(derived->promoted));
	derived->longest_ttl_us = 0;
	if (row == NULL)
		return true;

	derived->base = DatumGetInt64(row_get(rel, row, ATTR_BASE, NULL));
	derived->lease_floor = DatumGetInt64(row_get(rel, row, ATTR_LEASE_FLOOR, NULL));
	stored_timeline = DatumGetInt64(row_get(rel, row, ATTR_TIMELINE, NULL));
	derived->promoted.wall = DatumGetTimestampTz(row_get(rel, row, ATTR_PROMOTED_AT, NULL));
	derived->promoted.boot = DatumGetInt64(row_get(rel, row, ATTR_PROMOTED_BOOT, NULL));
	derived->promoted.id = DatumGetInt64(row_get(rel, row, ATTR_PROMOTED_CLOCK, NULL));
	derived->longest_ttl_us = DatumGetInt64(row_get(rel, row, ATTR_LONGEST_TTL_US, NULL));
	identity(rel, &system, &database, &relation);
	same = DatumGetInt64(row_get(rel, row, ATTR_SYSTEM, NULL)) == system &&
		DatumGetInt64(row_get(rel, row, ATTR_DATABASE, NULL)) == database &&
		DatumGetInt64(row_get(rel, row, ATTR_RELATION, NULL)) == relation &&
		stored_timeline <= timeline;
	if (same && stored_timeline < timeline && !RecoveryInProgress())
		see_promotion(derived);
	if (same)
		return stored_timeline < timeline;

	derived->base += stored_timeline + RESTORE_JUMP - timeline;
	derived->lease_floor = (derived->base + timeline) << TOKEN_COUNTER_BITS;
	return true;
}

static void
write_state(Relation rel, HeapTuple old, const TokenState *next)
{
	Datum		values[NATTS];
	bool		nulls[NATTS] = {false};
	bool		replace[NATTS];
	int64		system,
				database,
				relation;

	identity(rel, &system, &database, &relation);
	values[ATTR_SINGLETON - 1] = BoolGetDatum(true);
	values[ATTR_BASE - 1] = Int64GetDatum(next->base);
	values[ATTR_TIMELINE - 1] = Int64GetDatum(next->timeline);
	values[ATTR_SYSTEM - 1] = Int64GetDatum(system);
	values[ATTR_DATABASE - 1] = Int64GetDatum(database);
	values[ATTR_RELATION - 1] = Int64GetDatum(relation);
	values[ATTR_LEASE_FLOOR - 1] = Int64GetDatum(next->lease_floor);
	values[ATTR_PROMOTED_AT - 1] = TimestampTzGetDatum(next->promoted.wall);
	values[ATTR_PROMOTED_BOOT - 1] = Int64GetDatum(next->promoted.boot);
	values[ATTR_PROMOTED_CLOCK - 1] = Int64GetDatum(next->promoted.id);
	values[ATTR_LONGEST_TTL_US - 1] = Int64GetDatum(next->longest_ttl_us);
	memset(replace, true, sizeof(replace));
	if (old == NULL)
		row_insert(rel, values, nulls);
	else
		row_update(rel, old, values, nulls, replace);
	config_changed(rel);
}

static void
state_tag(LOCKTAG *tag)
{
	keylock_tag(tag, KEYLOCK_TOKEN_STATE, "", 0);
}

/* Records what was derived, if that is possible here and now. */
static void
try_record(void)
{
	Datum		key = BoolGetDatum(true);
	LOCKTAG		tag;
	Relation	rel;
	HeapTuple	row;
	TokenState	derived;

	if (RecoveryInProgress() || XactReadOnly || IsInParallelMode())
		return;
	state_tag(&tag);
	if (!keylock_try(&tag, ExclusiveLock))
		return;
	rel = row_open_write(TABLE_TOKEN_STATE, "token_issue()");
	row = row_read_locked(rel, &key);
	if (derive(rel, row, &derived))
	{
		write_state(rel, row, &derived);
		row_close(rel);
		derived.recorded = true;
	}
	else
	{
		row_close_unwritten(rel);
		keylock_release(&tag, ExclusiveLock);
	}
	state = derived;
}

/*
 * issuing: something is about to be given out that a restored copy of this database must know of. Else a missing row is
 * left missing: a worker that looks around while a dump is being restored must not make the row that the dump brings.
 */
static void
load_state(bool issuing)
{
	static bool registered = false;
	Datum		key = BoolGetDatum(true);
	Relation	rel;
	HeapTuple	row;
	TokenState	derived;
	uint64		before;
	bool		rewrite;

	if (!registered)
	{
		CacheRegisterRelcacheCallback(on_relcache_invalidation, (Datum) 0);
		registered = true;
	}
	AcceptInvalidationMessages();
	/* a session that was open during a promotion knows the old timeline */
	if (OidIsValid(state.relid) && state.recorded && state.timeline == current_timeline())
		return;

	rel = row_open_read(TABLE_TOKEN_STATE);
	before = invalidations;
	row = row_read_latest(rel, &key);
	rewrite = derive(rel, row, &derived);
	row_close(rel);
	/* whole or not at all: looking for the longest ttl can be cancelled */
	state = derived;
	/* the row may have been changed after the snapshot by which it was read */
	if (invalidations != before)
		state.relid = InvalidOid;
	if (rewrite && (state.recorded || issuing))
		try_record();
}

static int64
compose(int64 counter)
{
	int64		token = (current_epoch() << TOKEN_COUNTER_BITS) + counter;

	if (token <= 0 || token >= TOKEN_LIMIT)
		ereport(ERROR,
				(errcode(ERRCODE_SEQUENCE_GENERATOR_LIMIT_EXCEEDED),
				 errmsg("fencing tokens are used up")));
	return token;
}

/* The first of n consecutive numbers of a counter, with the epoch above it. */
static int64
draw(CatalogTable counter, int64 n, XLogRecPtr *lsn)
{
	int64		first;

	load_state(true);
	first = counter_draw(catalog_relid(counter), n, lsn);
	(void) compose(first + n - 1);
	return compose(first);
}

int64
token_issue(void)
{
	XLogRecPtr	lsn;
	int64		token = draw(SEQUENCE_TOKEN, 1, &lsn);

	XLogFlush(lsn);
	return token;
}

int64
position_draw(int64 n)
{
	XLogRecPtr	lsn;

	return draw(SEQUENCE_POSITION, n, &lsn);
}

int64
position_head(void)
{
	load_state(false);
	return compose(counter_last(catalog_relid(SEQUENCE_POSITION)));
}

int64
receipt_draw(int64 n)
{
	XLogRecPtr	lsn;
	int64		first = draw(SEQUENCE_RECEIPT, n, &lsn);

	XLogFlush(lsn);
	return first;
}

int64
token_lease_floor(void)
{
	load_state(false);
	return state.lease_floor;
}

static int64
failover_delay_us(void)
{
	if (guc_failover_delay >= 0)
		return (int64) guc_failover_delay * MILLISECONDS;
	return Max(state.longest_ttl_us, (int64) guc_failover_min_delay * MILLISECONDS);
}

/* Microseconds until `us` after the promotion; 0: there was none. */
static int64
left_after_promotion(const ClockReading *now, int64 us)
{
	if (state.promoted.wall == 0)
		return 0;
	return deadline_left(&state.promoted, now) + us;
}

int64
token_grant_delay(const ClockReading *now)
{
	load_state(false);
	return at_least(left_after_promotion(now, failover_delay_us()), 0);
}

int64
token_promoted_left(const ClockReading *now, int64 ttl_us)
{
	load_state(false);
	return left_after_promotion(now, ttl_us);
}

int32
token_epoch(void)
{
	load_state(false);
	return (int32) current_epoch();
}

/* Has this transaction raised the epoch? Until it commits a rollback takes the epoch back, and not what was given out in it. */
static bool raised = false;
static XactMarks raised_marks;

static void
raised_end(bool committed)
{
	raised = false;
	xact_marks_clear(&raised_marks);
}

static void
raised_sub_end(bool committed, int nest_level)
{
	int64		before;

	if (xact_marks_sub_end(&raised_marks, committed, nest_level, &before))
		raised = before != 0;
}

bool
token_epoch_uncommitted(void)
{
	return raised;
}

void
token_init(void)
{
	static const XactActions actions = {.end = raised_end, .sub_end = raised_sub_end};

	xact_register(&actions);
}

/* Raises the base by `by` epochs, for good. */
static void
raise_epoch(int64 by, const char *command)
{
	Datum		key = BoolGetDatum(true);
	LOCKTAG		tag;
	Relation	rel = row_open_write(TABLE_TOKEN_STATE, command);
	HeapTuple	row;
	TokenState	next;

	sequencer_stop();
	state_tag(&tag);
	(void) keylock_wait(&tag, ExclusiveLock, KEYLOCK_FOR_EVER);
	row = row_read_locked(rel, &key);
	(void) derive(rel, row, &next);
	next.base += by;
	if (((next.base + next.timeline) << TOKEN_COUNTER_BITS) >= TOKEN_LIMIT)
		ereport(ERROR,
				(errcode(ERRCODE_SEQUENCE_GENERATOR_LIMIT_EXCEEDED),
				 errmsg("token epoch would pass its limit of %d", (int) (TOKEN_LIMIT >> TOKEN_COUNTER_BITS) - 1)));
	xact_mark(&raised_marks, raised);
	write_state(rel, row, &next);
	row_close(rel);
	raised = true;
}

int32
token_epoch_bump(void)
{
	raise_epoch(1, "token_epoch_bump()");
	return token_epoch();
}

/* What every later token and every later position is above. */
static int64
lowest_head(void)
{
	return compose(at_most(counter_last(catalog_relid(SEQUENCE_TOKEN)), counter_last(catalog_relid(SEQUENCE_POSITION))));
}

int64
token_advance(int64 min_token)
{
	load_state(false);
	if (lowest_head() < min_token)
	{
		raise_epoch((min_token >> TOKEN_COUNTER_BITS) - current_epoch() + 1, "token_advance()");
		load_state(false);
	}
	return compose(counter_last(catalog_relid(SEQUENCE_TOKEN)));
}
