"""Exclusive means alone: no two holds of a name overlap, and nobody loses a lease before its time is over.

Knows no false alarm: a hold is only the time in which its client was entitled to believe in it (holds.py). A failover
to a standby that lags may forget grants: `protected` says whether distsys.failover_delay bridges that.
"""

from holds import advisory_holds, lease_holds
from violation import Violation

NAME = "overlap"


def check(history, protected):
    leases = lease_holds(history)
    promotions = history.faults("promote")
    if not protected:
        for hold in leases:
            cut_at(hold, promotions)
    return overlaps(leases) + overlaps(advisory_holds(history)) + early_losses(leases, promotions)


def cut_at(hold, promotions):
    for p in promotions:
        if hold.begin <= p.end:
            hold.end = max(hold.begin, min(hold.end, p.begin))


def overlaps(holds):
    """holds: sorted by name and begin. One that was over when its client heard of it is none."""
    found, longest = [], None
    for hold in (h for h in holds if h.begin < h.end):
        if longest is not None and longest.name == hold.name and hold.begin < longest.end and hold.token != longest.token:
            ms = (min(longest.end, hold.end) - hold.begin) / 1e6
            found.append(Violation(NAME, f"clients {longest.client} and {hold.client} held {hold.name} at the same time, for {ms:.1f} ms",
                                   longest.operations + hold.operations))
        if longest is None or longest.name != hold.name or hold.end > longest.end:
            longest = hold
    return found


def early_losses(holds, promotions):
    found = []
    for hold in holds:
        lost = hold.early_loss
        if lost is not None and not any(hold.first.begin <= p.end and p.begin <= lost.answered for p in promotions):
            found.append(Violation(NAME, f"client {hold.client} lost {hold.name} before its time was over", hold.operations))
    return found
