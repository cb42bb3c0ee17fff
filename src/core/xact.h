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

extern void xact_init(void);
extern void xact_register(const XactActions *actions);

/* This transaction's commit must be on disk when COMMIT returns (leases, claims): ForceSyncCommit and distsys.durability at PRE_COMMIT. PREPARE then is 0A000 when refuse_prepare. */
extern void xact_require_durable(bool refuse_prepare);

#endif							/* DISTSYS_XACT_H */
