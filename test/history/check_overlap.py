"""Exclusive means alone: no two holds of a name overlap unless both are shared, permits never exceed their number, and
nobody loses what he holds before its time is over. Who holds permits when their number falls keeps them: it counts for
those who are granted some later.

Knows no false alarm: a hold is only the time in which its client was entitled to believe in it (holds.py). A failover
to a standby that lags forgets grants; the server is set up so that distsys.failover_delay bridges that.
"""

from holds import advisory_holds, holds
from violation import Violation

NAME = "overlap"


def check(history, permits):
    """permits: how many a semaphore had when."""
    alone, counted = holds(history, ("lease", "election")), holds(history, ("semaphore",))
    promotions = history.faults("promote")
    return (overlaps(alone) + overlaps(advisory_holds(history)) + too_many(counted, permits) +
            early_losses(alone + counted, promotions))


def overlaps(found):
    """found: sorted by name and begin. One that was over when its client heard of it is none."""
    violations, last, last_alone = [], None, None
    for hold in (h for h in found if h.begin < h.end):
        if last is not None and last.name != hold.name:
            last = last_alone = None
        other = last_alone if hold.shared else last
        if other is not None and hold.begin < other.end and hold.token != other.token and not forgotten(hold, other):
            ms = (min(other.end, hold.end) - hold.begin) / 1e6
            violations.append(Violation(NAME, f"clients {other.client} and {hold.client} held {hold.name} at the same time, for {ms:.1f} ms",
                                        other.operations + hold.operations))
        if last is None or hold.end > last.end:
            last = hold
        if not hold.shared and (last_alone is None or hold.end > last_alone.end):
            last_alone = hold
    return violations


def forgotten(a, b):
    """One was over or not, which a failover forgot, and the other it forgot altogether. Then only their tokens tell them apart."""
    return any(x.revived is not None and y.begin < x.revived.begin for x, y in ((a, b), (b, a)))


def too_many(found, permits):
    """Sums up the permits that are held, name by name. Whichever was granted last had room: it was answered after this one was asked for."""
    violations = []
    changes = [(h.name, at, sign, h) for h in found if h.begin < h.end for at, sign in ((h.begin, 1), (h.end, -1))]
    held, name = [], None
    for of, _, sign, hold in sorted(changes, key=lambda c: c[:3]):
        if of != name:
            held, name = [], of
        if sign < 0:
            held.remove(hold)
            continue
        held.append(hold)
        total = sum(h.permits for h in held)
        room = max(permits.most(h.first) for h in held if h.begin >= hold.first.asked)
        if total > room:
            violations.append(Violation(NAME, f"{total} permits of {name} were held at the same time, it had {room}", [h.first for h in held]))
    return violations


def early_losses(found, promotions):
    violations = []
    for hold in found:
        lost = hold.early_loss
        if lost is not None and not any(hold.first.begin <= p.end and p.begin <= lost.answered for p in promotions):
            violations.append(Violation(NAME, f"client {hold.client} lost {hold.name} before its time was over", hold.operations))
    return violations
