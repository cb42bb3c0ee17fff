/*
 * xact.c: the transaction callbacks, see xact.h.
 *
 * Order inside CommitTransaction: deferred triggers, then PRE_COMMIT (here:
 * may raise), the commit record, visibility, COMMIT (must not raise), locks.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "core/guc.h"
#include "core/xact.h"

#define MAX_ACTIONS 16

static const XactActions *actions[MAX_ACTIONS];
static int	nactions = 0;

static bool durable_commit = false;
static bool no_prepare = false;
static XLogRecPtr relaxed_to = InvalidXLogRecPtr;	/* end of all that was logged when a relaxed write ended */

void
xact_register(const XactActions *more)
{
	Assert(nactions < MAX_ACTIONS);
	actions[nactions++] = more;
}

void
xact_require_durable(bool refuse_prepare)
{
	durable_commit = true;
	no_prepare |= refuse_prepare;
}

void
xact_mark(XactMarks *marks, int64 value)
{
	int			level = GetCurrentTransactionNestLevel();

	if (level <= 1 || (marks->n > 0 && marks->stack[marks->n - 1].nest_level == level))
		return;
	if (marks->n == marks->max)
	{
		int			max = Max(16, marks->max * 2);

		marks->stack = marks->stack == NULL ?
			MemoryContextAlloc(TopMemoryContext, max * sizeof(XactMark)) :
			repalloc(marks->stack, max * sizeof(XactMark));
		marks->max = max;
	}
	marks->stack[marks->n].nest_level = level;
	marks->stack[marks->n].value = value;
	marks->n++;
}

bool
xact_marks_sub_end(XactMarks *marks, bool committed, int nest_level, int64 *value)
{
	XactMark   *top = marks->n > 0 ? &marks->stack[marks->n - 1] : NULL;
	int			parent = nest_level - 1;

	if (top == NULL || top->nest_level != nest_level)
		return false;
	if (!committed)
	{
		*value = top->value;
		marks->n--;
		return true;
	}
	if (parent <= 1 || (marks->n > 1 && top[-1].nest_level == parent))
		marks->n--;
	else
		top->nest_level = parent;
	return false;
}

void
xact_marks_clear(XactMarks *marks)
{
	marks->n = 0;
}

/*
 * Here and not where the grant is made: a later SET LOCAL, a function's SET clause or a
 * savepoint rollback would undo it there.
 */
static void
make_commit_durable(void)
{
	if (guc_durability == SYNCHRONOUS_COMMIT_OFF)
		return;
	ForceSyncCommit();
	if (synchronous_commit < guc_durability)
		(void) set_config_option("synchronous_commit",
								 GetConfigOption("distsys.durability", false, false),
								 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

bool
xact_relaxed_begin(void)
{
	return !TransactionIdIsValid(GetTopTransactionIdIfAny()) && XLogRecPtrIsInvalid(XactLastRecEnd);
}

void
xact_relaxed_end(void)
{
	relaxed_to = XactLastRecEnd;
}

static void
relax_commit(void)
{
	if (synchronous_commit > SYNCHRONOUS_COMMIT_OFF)
		(void) set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

static void
run_pre_commit(void)
{
	for (int i = 0; i < nactions; i++)
	{
		if (actions[i]->pre_commit == NULL)
			continue;
		if (actions[i]->pending != NULL && !actions[i]->pending())
			continue;
		PushActiveSnapshot(GetTransactionSnapshot());
		actions[i]->pre_commit();
		PopActiveSnapshot();
	}
	if (durable_commit)
		make_commit_durable();
	else if (!XLogRecPtrIsInvalid(relaxed_to) && relaxed_to == XactLastRecEnd)
		relax_commit();
}

static void
run_pre_prepare(void)
{
	for (int i = 0; i < nactions; i++)
	{
		if (actions[i]->pre_prepare != NULL)
			actions[i]->pre_prepare();
	}
	if (no_prepare)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction that has acquired a lease"),
				 errhint("Acquire the lease in a transaction of its own.")));
	if (durable_commit)
		make_commit_durable();
}

static void
run_end(bool committed)
{
	durable_commit = false;
	no_prepare = false;
	relaxed_to = InvalidXLogRecPtr;
	for (int i = 0; i < nactions; i++)
	{
		if (actions[i]->end != NULL)
			actions[i]->end(committed);
	}
}

static void
on_xact_event(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			run_pre_commit();
			break;
		case XACT_EVENT_PRE_PREPARE:
			run_pre_prepare();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
			run_end(true);
			break;
		case XACT_EVENT_ABORT:
			run_end(false);
			break;
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_PARALLEL_ABORT:
			/* nothing of ours runs in a parallel worker */
			break;
	}
}

static void
on_subxact_event(SubXactEvent event, SubTransactionId mySubid, SubTransactionId parentSubid, void *arg)
{
	bool		committed = (event == SUBXACT_EVENT_COMMIT_SUB);

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	for (int i = 0; i < nactions; i++)
	{
		if (actions[i]->sub_end != NULL)
			actions[i]->sub_end(committed, GetCurrentTransactionNestLevel());
	}
}

void
xact_init(void)
{
	RegisterXactCallback(on_xact_event, NULL);
	RegisterSubXactCallback(on_subxact_event, NULL);
}
