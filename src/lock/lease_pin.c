/*
 * lease_pin.c: remembers by full name which leases this transaction has asserted; the lock of a pin knows a hash only.
 *
 * The list lives in TopTransactionContext. A rolled back subtransaction takes its pins with it, as it does with their locks.
 */
#include "postgres.h"

#include "access/xact.h"
#include "compat.h"
#include "utils/memutils.h"

#include "core/xact.h"
#include "lock/lease_pin.h"

typedef struct PinnedName
{
	struct PinnedName *next;
	int			nest_level;		/* of the outermost subtransaction that asserted it and is not over */
	int			len;
	char		data[FLEXIBLE_ARRAY_MEMBER];
} PinnedName;

static PinnedName *pinned = NULL;

static PinnedName *
find(const NameArg *name)
{
	PinnedName *pin = pinned;

	while (pin != NULL && (pin->len != name->len || memcmp(pin->data, name->data, name->len) != 0))
		pin = pin->next;
	return pin;
}

bool
lease_pinned(const NameArg *name)
{
	return find(name) != NULL;
}

void
lease_pin_note(const LeaseKind *kind, const NameArg *name)
{
	PinnedName *pin;

	if (kind != &lease_kind || find(name) != NULL)
		return;
	pin = MemoryContextAlloc(TopTransactionContext, offsetof(PinnedName, data) + name->len);
	pin->nest_level = GetCurrentTransactionNestLevel();
	pin->len = name->len;
	memcpy(pin->data, name->data, name->len);
	pin->next = pinned;
	pinned = pin;
}

static void
pins_end(bool committed)
{
	pinned = NULL;
}

static void
pins_sub_end(bool committed, int nest_level)
{
	PinnedName **link = &pinned;

	while (*link != NULL)
	{
		if ((*link)->nest_level < nest_level)
			link = &(*link)->next;
		else if (committed)
		{
			(*link)->nest_level = nest_level - 1;
			link = &(*link)->next;
		}
		else
			*link = (*link)->next;
	}
}

static const XactActions pin_actions = {
	.end = pins_end,
	.sub_end = pins_sub_end
};

void
lease_pin_init(void)
{
	xact_register(&pin_actions);
}
