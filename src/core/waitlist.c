/*
 * waitlist.c: queues of waiting sessions, see waitlist.h.
 *
 * An array with one place per backend, guarded by one LWLock; a queue is the places with the same
 * tag, in the order of (priority, ticket). There are as many places as backends, so the
 * list cannot be full and a scan of it is short; `waiting` says without the lock that there is nobody.
 *
 * Calling a waiter marks its place and sets its latch, which is looked up at use. Calls that a transaction owes
 * are made when its locks are gone (a resource release callback): at XACT_EVENT_COMMIT they are still held,
 * and the woken would find the thing taken.
 *
 * A crash of any backend empties the list with the rest of shared memory.
 */
#include "postgres.h"

#include "compat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "core/shmem.h"
#include "core/waitlist.h"

/* Who was called has this long to come; then others may go before him. */
#define GRACE_US (100 * MILLISECONDS)

/* Tags whose heads this transaction will call; with more it calls everybody of the database. */
#define MAX_CALLS 32

/* So many are woken after the lock is released, more while it is held. */
#define MAX_WOKEN_LATER 16

/* What searching needs, kept apart from the names so that a scan touches little memory. */
typedef struct Place
{
	LOCKTAG		tag;			/* locktag_type 0 and all zero: nobody */
	uint64		ticket;
	int64		called_at;			/* 0: not called since it last looked */
	int64		away_until;		/* waits for something else, and will look then or before */
	int			priority;
	bool		occupied;
	bool		shared;
} Place;

typedef struct Label
{
	char		name[NAME_LONG + 1];
	char		owner[NAME_LONG + 1];
	int			pid;
	TimestampTz since;
} Label;

typedef struct WaitList
{
	pg_atomic_uint32 waiting;	/* occupied places */
	uint64		last_ticket;
	Place		places[FLEXIBLE_ARRAY_MEMBER];	/* MaxBackends, then as many labels */
} WaitList;

static WaitList *list = NULL;
static LWLockPadded *locks = NULL;

typedef struct Call
{
	LOCKTAG		tag;
	bool		at_commit;		/* and at abort; else at abort only */
	bool		whole_queue;
} Call;

static Call calls[MAX_CALLS];
static int	ncalls = 0;
static bool call_everybody = false;

/* Who was called under the lock and is woken after it. */
static Place *to_wake[MAX_WOKEN_LATER];
static int	nto_wake = 0;

static Size
labels_offset(void)
{
	return MAXALIGN(offsetof(WaitList, places) + MaxBackends * sizeof(Place));
}

static Size
waitlist_size(void)
{
	return labels_offset() + MaxBackends * sizeof(Label);
}

static void
init_memory(void *memory)
{
	pg_atomic_init_u32(&((WaitList *) memory)->waiting, 0);
}

static const ShmemSegment segment = {
	.name = "DistsysWaitlist",
	.size = waitlist_size,
	.init = init_memory,
	.memory = (void **) &list,
	.nlocks = 1,
	.locks = &locks
};

static Label *
label_of(int place)
{
	return (Label *) ((char *) list + labels_offset()) + place;
}

static Place *
my_place(void)
{
	return &list->places[MyProcNumber];
}

bool
waitlist_available(void)
{
	return shmem_available() && MyProcNumber < MaxBackends;
}

static bool
nobody_waits(void)
{
	return !waitlist_available() || pg_atomic_read_u32(&list->waiting) == 0;
}

/* ---- searching; the lock is held ---- */

static bool
waits_for(const Place *place, const LOCKTAG *tag)
{
	return place->occupied && memcmp(&place->tag, tag, sizeof(LOCKTAG)) == 0;
}

static bool
is_before(const Place *a, const Place *b)
{
	return a->priority != b->priority ? a->priority > b->priority : a->ticket < b->ticket;
}

static Place *
head_of(const LOCKTAG *tag)
{
	Place	   *head = NULL;

	Assert(LWLockHeldByMe(&locks->lock));
	for (int i = 0; i < MaxBackends; i++)
	{
		Place	   *place = &list->places[i];

		if (waits_for(place, tag) && (head == NULL || is_before(place, head)))
			head = place;
	}
	return head;
}

static void
wake(const Place *place)
{
	SetLatch(&GetPGProcByNumber(place - list->places)->procLatch);
}

static void
call(Place *place, int64 now)
{
	if (place->called_at == 0)
		place->called_at = now;
	if (nto_wake < MAX_WOKEN_LATER)
		to_wake[nto_wake++] = place;
	else
		wake(place);
}

/* Releases the lock and wakes who was called: that is a system call for each, in which the lock would keep others waiting. */
static void
release_and_wake(void)
{
	LWLockRelease(&locks->lock);
	while (nto_wake > 0)
		wake(to_wake[--nto_wake]);
}

/* Calls the first of the queue, and with a shared one every shared one up to the first who wants it alone. */
static void
call_head(const LOCKTAG *tag, int64 now)
{
	Place	   *head = head_of(tag);
	Place	   *alone = NULL;

	if (head == NULL)
		return;
	call(head, now);
	if (!head->shared)
		return;
	for (int i = 0; i < MaxBackends; i++)
	{
		Place	   *place = &list->places[i];

		if (waits_for(place, tag) && !place->shared && (alone == NULL || is_before(place, alone)))
			alone = place;
	}
	for (int i = 0; i < MaxBackends; i++)
	{
		Place	   *place = &list->places[i];

		if (waits_for(place, tag) && place->shared && (alone == NULL || is_before(place, alone)))
			call(place, now);
	}
}

/* tag NULL: all of this database. */
static void
call_all(const LOCKTAG *tag, int64 now)
{
	for (int i = 0; i < MaxBackends; i++)
	{
		Place	   *place = &list->places[i];

		if (tag != NULL ? waits_for(place, tag) : place->occupied && place->tag.locktag_field1 == MyDatabaseId)
			call(place, now);
	}
}

/* ---- waiting ---- */

static void
leave(bool pass_on)
{
	int64		now;
	Place	   *place;
	LOCKTAG		tag;

	if (!waitlist_available() || !my_place()->occupied)
		return;
	now = wait_clock();
	LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
	place = my_place();
	tag = place->tag;
	memset(place, 0, sizeof(*place));
	pg_atomic_fetch_sub_u32(&list->waiting, 1);
	if (pass_on)
		call_head(&tag, now);
	release_and_wake();
}

static void
leave_at_exit(int code, Datum arg)
{
	leave(true);
}

static void
copy_name(char *to, const NameArg *name)
{
	memcpy(to, name->data, name->len);
	to[name->len] = '\0';
}

bool
waitlist_join(const LOCKTAG *tag, const NameArg *name, const NameArg *owner, bool shared, int priority)
{
	static bool registered = false;
	Label	   *label;
	Place	   *place;

	if (!waitlist_available() || waits_for(my_place(), tag))
		return false;
	if (!registered)
	{
		before_shmem_exit(leave_at_exit, (Datum) 0);
		registered = true;
	}
	leave(true);
	LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
	label = label_of(MyProcNumber);
	copy_name(label->name, name);
	copy_name(label->owner, owner);
	label->pid = MyProcPid;
	label->since = GetCurrentTimestamp();
	place = my_place();
	place->tag = *tag;
	place->ticket = ++list->last_ticket;
	place->called_at = place->away_until = 0;
	place->priority = priority;
	place->shared = shared;
	place->occupied = true;
	pg_atomic_fetch_add_u32(&list->waiting, 1);
	LWLockRelease(&locks->lock);
	return true;
}

void
waitlist_leave(void)
{
	leave(false);
}

void
waitlist_give_up(void)
{
	leave(true);
}

void
waitlist_away(int64 us)
{
	int64		now = wait_clock();

	if (!waitlist_available() || !my_place()->occupied)
		return;
	LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
	my_place()->away_until = us > 0 ? now + us : 0;
	/* back again it looks at once, so the call has been heard */
	my_place()->called_at = 0;
	LWLockRelease(&locks->lock);
}

bool
waitlist_must_wait(const LOCKTAG *tag, bool shared)
{
	int64		now;
	const Place *me;
	bool		must = false;

	if (nobody_waits())
		return false;
	now = wait_clock();
	LWLockAcquire(&locks->lock, LW_SHARED);
	me = waits_for(my_place(), tag) ? my_place() : NULL;
	for (int i = 0; i < MaxBackends && !must; i++)
	{
		Place	   *place = &list->places[i];

		must = place != me && waits_for(place, tag) &&
			(me == NULL || is_before(place, me)) &&
			!(shared && place->shared) &&
			(place->called_at == 0 || now - place->called_at < GRACE_US || now < place->away_until);
	}
	LWLockRelease(&locks->lock);
	return must;
}

void
waitlist_call(const LOCKTAG *tag)
{
	int64		now;

	if (nobody_waits())
		return;
	now = wait_clock();
	LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
	call_head(tag, now);
	release_and_wake();
}

int
waitlist_length(const LOCKTAG *tag)
{
	int			n = 0;

	if (nobody_waits())
		return 0;
	LWLockAcquire(&locks->lock, LW_SHARED);
	for (int i = 0; i < MaxBackends; i++)
		n += waits_for(&list->places[i], tag);
	LWLockRelease(&locks->lock);
	return n;
}

bool
waitlist_first(void)
{
	bool		first;

	if (!waitlist_available() || !my_place()->occupied)
		return true;
	LWLockAcquire(&locks->lock, LW_SHARED);
	first = head_of(&my_place()->tag) == my_place();
	LWLockRelease(&locks->lock);
	return first;
}

/* Have we been called since we last looked? A call that comes while we look is kept for the next sleep. */
static bool
answer_call(void)
{
	/* read without the lock: a caller sets our latch after the call, and we reset it before we look */
	const volatile Place *me = my_place();

	if (!me->occupied)
		return true;
	if (me->called_at == 0)
		return false;
	LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
	my_place()->called_at = 0;
	LWLockRelease(&locks->lock);
	return true;
}

void
waitlist_sleep(int64 us, WaitPoint point)
{
	int64		until = wait_clock() + us;

	while (!answer_call() && us > 0)
	{
		wait_sleep(us, point);
		us = until - wait_clock();
	}
}

/* ---- waking ---- */

static void
owe_call(const LOCKTAG *tag, bool at_commit, bool whole_queue)
{
	if (!waitlist_available())
		return;
	for (int i = 0; i < ncalls; i++)
	{
		if (memcmp(&calls[i].tag, tag, sizeof(LOCKTAG)) != 0)
			continue;
		calls[i].at_commit |= at_commit;
		calls[i].whole_queue |= whole_queue;
		return;
	}
	if (ncalls == MAX_CALLS)
	{
		call_everybody = true;
		return;
	}
	calls[ncalls].tag = *tag;
	calls[ncalls].whole_queue = whole_queue;
	calls[ncalls++].at_commit = at_commit;
}

void
waitlist_wake_at_end(const LOCKTAG *tag)
{
	owe_call(tag, true, false);
}

void
waitlist_wake_all_at_end(const LOCKTAG *tag)
{
	owe_call(tag, true, true);
}

void
waitlist_wake_at_abort(const LOCKTAG *tag)
{
	owe_call(tag, false, false);
}

/* Called for each resource owner of the ending transaction, when all its locks are gone: the first call does it. */
static void
on_resource_release(ResourceReleasePhase phase, bool isCommit, bool isTopLevel, void *arg)
{
	int64		now;

	if (phase != RESOURCE_RELEASE_AFTER_LOCKS || !isTopLevel || ncalls == 0)
		return;
	if (!nobody_waits())
	{
		now = wait_clock();
		LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
		for (int i = 0; i < ncalls; i++)
		{
			if (calls[i].whole_queue)
				call_all(&calls[i].tag, now);
			else if (calls[i].at_commit || !isCommit)
				call_head(&calls[i].tag, now);
		}
		if (call_everybody)
			call_all(NULL, now);
		release_and_wake();
	}
	ncalls = 0;
	call_everybody = false;
}

/* ---- looking ---- */

static int
by_name_and_position(const void *a, const void *b)
{
	const WaitlistEntry *x = (const WaitlistEntry *) a;
	const WaitlistEntry *y = (const WaitlistEntry *) b;
	int			order = strcmp(x->name, y->name);

	return order != 0 ? order : x->position - y->position;
}

static int
position_of(const Place *place)
{
	int			position = 1;

	for (int i = 0; i < MaxBackends; i++)
		position += waits_for(&list->places[i], &place->tag) && is_before(&list->places[i], place);
	return position;
}

WaitlistEntry *
waitlist_entries(uint32 space, int *n)
{
	WaitlistEntry *entries;

	*n = 0;
	if (nobody_waits())
		return NULL;
	entries = palloc(MaxBackends * sizeof(WaitlistEntry));
	LWLockAcquire(&locks->lock, LW_SHARED);
	for (int i = 0; i < MaxBackends; i++)
	{
		const Place *place = &list->places[i];
		WaitlistEntry *entry = &entries[*n];

		if (!place->occupied || place->tag.locktag_field1 != MyDatabaseId || place->tag.locktag_field4 != space)
			continue;
		memcpy(entry->name, label_of(i)->name, sizeof(entry->name));
		memcpy(entry->owner, label_of(i)->owner, sizeof(entry->owner));
		entry->pid = label_of(i)->pid;
		entry->since = label_of(i)->since;
		entry->position = position_of(place);
		(*n)++;
	}
	LWLockRelease(&locks->lock);
	if (*n > 1)
		qsort(entries, *n, sizeof(WaitlistEntry), by_name_and_position);
	return entries;
}

void
waitlist_init(void)
{
	shmem_register(&segment);
	RegisterResourceReleaseCallback(on_resource_release, NULL);
}
