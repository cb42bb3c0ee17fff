/*
 * xact.h: the one pair of transaction callbacks of the extension. Modules hang
 * their actions in at library load; nobody else calls RegisterXactCallback.
 */
#ifndef DISTSYS_XACT_H
#define DISTSYS_XACT_H

typedef struct XactActions
{
	/* is there anything for pre_commit to do? NULL: always ask it */
	bool		(*pending) (void);
	/* may raise; runs with an active snapshot, before the commit record */
	void		(*pre_commit) (void);
	/* PREPARE TRANSACTION: raise 0A000 when there is state that cannot survive it */
	void		(*pre_prepare) (void);
	/* after commit or abort of the top transaction: must not raise or allocate */
	void		(*end) (bool committed);
	/* a subtransaction of that nest level ended: must not raise */
	void		(*sub_end) (bool committed, int nest_level);
} XactActions;

/*
 * What a module's state was when each subtransaction that changed it began: a rollback to it
 * goes back there, a commit hands the mark on to the parent. Marks of the top transaction are not kept: its end clears all.
 */
typedef struct XactMark
{
	int			nest_level;
	int64		value;
} XactMark;

typedef struct XactMarks
{
	XactMark   *stack;
	int			n;
	int			max;
} XactMarks;

/* Before the state changes, since this can fail: notes what it is, once per subtransaction. */
extern void xact_mark(XactMarks *marks, int64 value);
/* From sub_end. true: the subtransaction has a mark and was rolled back; *value is the state to go back to. */
extern bool xact_marks_sub_end(XactMarks *marks, bool committed, int nest_level, int64 *value);
/* From end. */
extern void xact_marks_clear(XactMarks *marks);

extern void xact_init(void);
extern void xact_register(const XactActions *actions);

/* This transaction's commit must be on disk when COMMIT returns (leases, claims): ForceSyncCommit and distsys.durability at PRE_COMMIT. PREPARE then is 0A000 when refuse_prepare. */
extern void xact_require_durable(bool refuse_prepare);

/*
 * A write whose loss in a crash harms nobody (a release) need not wait for the disk, when it is all that its transaction
 * writes: begin before it, and when that says true, end after it. Whatever else the transaction does brings the
 * session's synchronous_commit back.
 */
extern bool xact_relaxed_begin(void);
extern void xact_relaxed_end(void);

#endif							/* DISTSYS_XACT_H */
