"""Guarded lists: every append that was committed is there once, follows the one before it, and tokens never fall.

`entries` is what the table says at the end: (list, number, id, previous, token) by list and number. An append may be
missing only if the server said it can be: its commit was asynchronous and the server crashed, or a standby that had
not got it was promoted. The log is lost from its end only, so it has to be gone with everything that came later.

A list in a table with a fence lets nobody write who has not asserted its lease, whatever becomes of the write later.
"""

from itertools import groupby

from violation import Violation

NAME = "append"


def check(history, entries):
    appends = {o["id"]: o for o in history.of("append")}
    found = []
    for _, of_list in groupby(entries, key=lambda e: e[0]):
        found += chain(list(of_list), appends)
    return found + ghosts(entries, appends) + missing(history, entries, appends) + unguarded(appends)


def chain(entries, appends):
    """Each entry names the one before it; a number that is there twice is a lost update."""
    found = []
    for before, after in zip(entries, entries[1:]):
        name, number, id, previous, token = after
        operations = [appends[e[2]] for e in (before, after) if e[2] in appends]
        if number == before[1]:
            found.append(Violation(NAME, f"lost update: {before[2]} and {id} of {name} both followed {previous}", operations))
        elif number != before[1] + 1 or previous != before[2]:
            found.append(Violation(NAME, f"{id} of {name} followed {previous}, and the entry before it is {before[2]}", operations))
        if token < before[4]:
            found.append(Violation(NAME, f"stale write: {id} of {name} with token {token} came after token {before[4]}", operations))
    return found


def ghosts(entries, appends):
    """Entries that nobody wrote, or that were rolled back."""
    found = []
    for name, _, id, _, _ in entries:
        o = appends.get(id)
        if o is None or o.settled in ("failed", "lost"):
            found.append(Violation(NAME, f"{id} of {name} is there and was never committed", [o] if o else []))
    return found


def missing(history, entries, appends):
    present = {e[2] for e in entries}
    survivors = [o for o in appends.values() if o["id"] in present and o.ok()]
    found = []
    for o in appends.values():
        if o.ok() and o["id"] not in present and not may_be_gone(history, o, survivors):
            found.append(Violation(NAME, f"{o['id']} of {o.name} was committed and is not there", [o, o.commit]))
    return found


def unguarded(appends):
    return [Violation(NAME, f"{o['id']} was let into {o.name}, which asks for the lease: there was only {o['instead']}", [o])
            for o in appends.values() if o["instead"] and o.outcome == "ok"]


def may_be_gone(history, append, survivors):
    kinds = ("promote",) if append["durable"] else ("promote", "crash")
    for e in history.faults(*kinds):
        # the answer to its COMMIT may have been under way for longer than the server lived
        if e.end > append.commit.begin and not any(s.begin > append.end and s.end < e.begin for s in survivors):
            return True
    return False
