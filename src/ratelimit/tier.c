/*
 * tier.c: the limits of a subject, see tier.h.
 *
 * Four caches, one per table. Tables with a row for every customer are cached
 * boundedly, and that a customer has no row is remembered as well. The policies of a tier are
 * one list per tier, valid as long as the table's cache.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "compat.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "core/clock.h"
#include "ratelimit/tier.h"
#include "store/config.h"
#include "store/row.h"

#define CACHED_ROWS 8192

/* Longer chains are taken for a circle. */
#define MAX_PARENTS 32

#define DEFAULT_TIER "default"

/* rate_limit_tier */
enum
{
	TIER_PARENT = 2
};

/* rate_limit_tier_policy (tier, policy, ...) and rate_limit_override (subject, policy, ..., valid_until) */
enum
{
	LIMIT_POLICY = 2,
	LIMIT_QUOTA,
	LIMIT_BURST,
	LIMIT_PERIOD,
	LIMIT_UNLIMITED,
	LIMIT_VALID_UNTIL
};

/* rate_limit_subject */
enum
{
	SUBJECT_TIER = 2,
	SUBJECT_VALID_UNTIL
};

typedef struct Tier
{
	char		parent[NAME_SHORT + 1];	/* "": none */
} Tier;

/* What a tier or an override says otherwise; 0: nothing. */
typedef struct Terms
{
	int64		quota;
	int64		burst;
	int64		period_us;
	bool		unlimited;
	TimestampTz valid_until;
} Terms;

typedef struct Subject
{
	char		tier[NAME_SHORT + 1];
	TimestampTz valid_until;
} Subject;

static ConfigCache *tiers = NULL;
static ConfigCache *tier_policies = NULL;
static ConfigCache *subjects = NULL;
static ConfigCache *overrides = NULL;

/* ---- loading ---- */

static void
get_name(Relation rel, HeapTuple tuple, int column, char *name)
{
	bool		isnull;
	Datum		value = row_get(rel, tuple, column, &isnull);

	name[0] = '\0';
	if (!isnull)
		text_to_cstring_buffer(DatumGetTextPP(value), name, NAME_SHORT + 1);
}

static TimestampTz
get_until(Relation rel, HeapTuple tuple, int column)
{
	bool		isnull;
	Datum		value = row_get(rel, tuple, column, &isnull);

	return isnull ? PG_INT64_MAX : DatumGetTimestampTz(value);
}

static int64
get_number(Relation rel, HeapTuple tuple, int column)
{
	bool		isnull;
	Datum		value = row_get(rel, tuple, column, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

static void
load_tier(void *entry, Relation rel, HeapTuple tuple)
{
	get_name(rel, tuple, TIER_PARENT, ((Tier *) entry)->parent);
}

static void
load_terms(void *entry, Relation rel, HeapTuple tuple)
{
	Terms	   *terms = (Terms *) entry;
	bool		no_period;
	Datum		period = row_get(rel, tuple, LIMIT_PERIOD, &no_period);

	terms->quota = get_number(rel, tuple, LIMIT_QUOTA);
	terms->burst = get_number(rel, tuple, LIMIT_BURST);
	terms->period_us = no_period ? 0 : interval_to_us(DatumGetIntervalP(period), "period", 1, PG_INT64_MAX, NULL);
	terms->unlimited = DatumGetBool(row_get(rel, tuple, LIMIT_UNLIMITED, NULL));
	terms->valid_until = PG_INT64_MAX;
}

static void
load_override(void *entry, Relation rel, HeapTuple tuple)
{
	load_terms(entry, rel, tuple);
	((Terms *) entry)->valid_until = get_until(rel, tuple, LIMIT_VALID_UNTIL);
}

static void
load_subject(void *entry, Relation rel, HeapTuple tuple)
{
	Subject    *subject = (Subject *) entry;

	get_name(rel, tuple, SUBJECT_TIER, subject->tier);
	subject->valid_until = get_until(rel, tuple, SUBJECT_VALID_UNTIL);
}

static void
make_caches(void)
{
	if (overrides != NULL)
		return;
	tiers = config_cache_create(TABLE_RATE_LIMIT_TIER, sizeof(Tier), load_tier);
	tier_policies = config_cache_create_bounded(TABLE_RATE_LIMIT_TIER_POLICY, sizeof(Terms), load_terms, CACHED_ROWS);
	subjects = config_cache_create_bounded(TABLE_RATE_LIMIT_SUBJECT, sizeof(Subject), load_subject, CACHED_ROWS);
	overrides = config_cache_create_bounded(TABLE_RATE_LIMIT_OVERRIDE, sizeof(Terms), load_override, CACHED_ROWS);
}

/* ---- the chain of tiers ---- */

/* A tier and its way up; start with tier_of(), go on with tier_up(). */
typedef struct TierWalk
{
	NameArg		name;
	char		parent[NAME_SHORT + 1];
	int			height;
} TierWalk;

static NameArg
name_of(const char *cstring)
{
	NameArg		name;

	name.datum = CStringGetTextDatum(cstring);
	name.data = VARDATA_ANY(DatumGetPointer(name.datum));
	name.len = strlen(cstring);
	return name;
}

static void
enter_tier(TierWalk *walk, const char *tier)
{
	Tier		entry;

	walk->name = name_of(tier);
	if (!config_get(tiers, &walk->name, NULL, &entry))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("rate limit tier \"%s\" does not exist", tier),
				 errhint("Create it: INSERT INTO distsys.rate_limit_tier (tier) VALUES (%s);", quote_literal_cstr(tier))));
	strlcpy(walk->parent, entry.parent, sizeof(walk->parent));
}

static void
tier_of(TierWalk *walk, const NameArg *subject)
{
	Subject		entry;
	bool		found;

	make_caches();
	found = config_get(subjects, subject, NULL, &entry) && entry.valid_until > clock_wall();
	walk->height = 0;
	enter_tier(walk, found ? entry.tier : DEFAULT_TIER);
}

static bool
tier_up(TierWalk *walk)
{
	char		parent[NAME_SHORT + 1];

	if (walk->parent[0] == '\0')
		return false;
	if (++walk->height > MAX_PARENTS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("rate limit tier \"%s\" has more than %d parents", walk->parent, MAX_PARENTS),
				 errhint("Look for a circle in distsys.rate_limit_tier.")));
	strlcpy(parent, walk->parent, sizeof(parent));
	enter_tier(walk, parent);
	return true;
}

/* ---- the limit of one policy ---- */

static bool
find_terms(const NameArg *subject, const NameArg *policy, Terms *terms)
{
	TierWalk	walk;

	tier_of(&walk, subject);
	if (config_get(overrides, subject, policy, terms) && terms->valid_until > clock_wall())
		return true;
	do
	{
		if (config_get(tier_policies, &walk.name, policy, terms))
			return true;
	} while (tier_up(&walk));
	return false;
}

void
rate_tier_limit(const NameArg *subject, const NameArg *policy, RatePolicy *limit)
{
	Terms		terms;

	rate_policy_get(policy, limit);
	if (!find_terms(subject, policy, &terms))
		return;
	limit->unlimited = terms.unlimited;
	if (!terms.unlimited)
		rate_policy_adjust(limit, terms.quota, terms.period_us, terms.burst, policy);
}

/* ---- the policies of a tier ---- */

typedef struct PolicyList
{
	char		tier[NAME_SHORT + 1];	/* hash key */
	int			n;
	int			room;
	char		(*names)[NAME_SHORT + 1];
} PolicyList;

static HTAB *lists = NULL;
static MemoryContext lists_context = NULL;
static uint64 lists_generation = 0;

/* The lists are dropped together: configuration changes seldom. */
static void
drop_lists(uint64 generation)
{
	HASHCTL		ctl = {0};

	if (lists_context == NULL)
		lists_context = AllocSetContextCreate(TopMemoryContext, "distsys rate limit tiers", ALLOCSET_SMALL_SIZES);
	MemoryContextReset(lists_context);
	ctl.keysize = NAME_SHORT + 1;
	ctl.entrysize = sizeof(PolicyList);
	ctl.hcxt = lists_context;
	lists = hash_create("distsys rate limit tiers", 16, &ctl, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	lists_generation = generation;
}

static void
add_to_list(Relation rel, HeapTuple tuple, void *arg)
{
	PolicyList *list = (PolicyList *) arg;

	if (list->n == list->room)
	{
		list->room = Max(8, list->room * 2);
		list->names = list->names == NULL ? palloc(list->room * (NAME_SHORT + 1)) :
			repalloc(list->names, list->room * (NAME_SHORT + 1));
	}
	get_name(rel, tuple, LIMIT_POLICY, list->names[list->n++]);
}

/* The tier's own policies; the list is the caller's until its next call here. */
static PolicyList
own_policies(const NameArg *tier)
{
	char	   *name = name_cstring(*tier);
	uint64		generation = config_generation(tier_policies);
	PolicyList	fresh = {0};
	PolicyList *list;

	if (lists == NULL || lists_generation != generation)
		drop_lists(generation);
	list = hash_search(lists, name, HASH_FIND, NULL);
	if (list != NULL)
		return *list;
	strlcpy(fresh.tier, name, sizeof(fresh.tier));
	generation = config_scan(tier_policies, tier, add_to_list, &fresh);
	/* a change that arrived meanwhile makes the list void: it serves this call */
	if (generation == config_generation(tier_policies) && generation == lists_generation)
	{
		char		(*names)[NAME_SHORT + 1] = fresh.names;

		if (fresh.n > 0)
		{
			names = MemoryContextAlloc(lists_context, fresh.n * (NAME_SHORT + 1));
			memcpy(names, fresh.names, fresh.n * (NAME_SHORT + 1));
		}
		list = hash_search(lists, name, HASH_ENTER, NULL);
		*list = fresh;
		list->names = names;
	}
	return fresh;
}

static int
compare_strings(const void *a, const void *b)
{
	return strcmp((const char *) a, (const char *) b);
}

NameArg *
rate_tier_policies(const NameArg *subject, int *n)
{
	TierWalk	walk;
	PolicyList	all = {0};
	NameArg    *names;

	tier_of(&walk, subject);
	do
	{
		PolicyList	own = own_policies(&walk.name);

		if (own.n == 0)
			continue;
		all.names = all.names == NULL ? palloc(own.n * (NAME_SHORT + 1)) :
			repalloc(all.names, (all.n + own.n) * (NAME_SHORT + 1));
		memcpy(all.names[all.n], own.names, own.n * (NAME_SHORT + 1));
		all.n += own.n;
	} while (tier_up(&walk));
	if (all.n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the rate limit tier of this subject has no limits"),
				 errhint("Add some: INSERT INTO distsys.rate_limit_tier_policy (tier, policy) VALUES (%s, ...);",
						 quote_literal_cstr(name_cstring(walk.name)))));
	qsort(all.names, all.n, NAME_SHORT + 1, compare_strings);
	names = palloc(all.n * sizeof(NameArg));
	*n = 0;
	for (int i = 0; i < all.n; i++)
	{
		if (i == 0 || strcmp(all.names[i - 1], all.names[i]) != 0)
			names[(*n)++] = name_of(all.names[i]);
	}
	return names;
}

/* ---- dropping a policy ---- */

/* Nobody may be adding a use of it either, so the table is locked against writers to the end of the transaction. */
static void
check_table(CatalogTable table, const NameArg *policy, const char *what)
{
	Relation	rel = catalog_open(table, ShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;
	char		name[NAME_SHORT + 1];
	bool		used = false;

	while (!used && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		get_name(rel, tuple, LIMIT_POLICY, name);
		used = strlen(name) == policy->len && memcmp(name, policy->data, policy->len) == 0;
	}
	systable_endscan(scan);
	table_close(rel, NoLock);
	if (used)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("rate limit policy \"%s\" is in use by %s", name_cstring(*policy), what),
				 errhint("Delete its rows from distsys.rate_limit_tier_policy and distsys.rate_limit_override first.")));
}

void
rate_tier_check_unused(const NameArg *policy)
{
	check_table(TABLE_RATE_LIMIT_TIER_POLICY, policy, "a tier");
	check_table(TABLE_RATE_LIMIT_OVERRIDE, policy, "an override");
}
