"""The history: what each client called, when, and what it was answered.

A client writes a line before each call and a line after it, each with one write(), so a kill takes nothing back that
was said before. Times are CLOCK_MONOTONIC in nanoseconds, which is one clock for all processes of the machine.

An outcome is one of
  ok        it was done
  refused   the answer is no: nothing was done
  lost      SD001 or SD002: the token is not the live grant; nothing was done
  failed    another error: nothing was done
  unknown   no answer came: it may have been done, or may still be
"""

import json
import os
import time

OUTCOMES = ("ok", "refused", "lost", "failed", "unknown")
HORIZON = 10_000_000_000        # nanoseconds: a call whose client is gone has ended by then


class Journal:
    """The writing side."""

    def __init__(self, folder, client, life):
        self.file = os.open(os.path.join(folder, f"{client:03}.{life:04}.journal"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.serial = 0

    def line(self, *fields):
        os.write(self.file, (json.dumps(fields) + "\n").encode())

    def call(self, kind, name, arguments, transaction):
        self.serial += 1
        self.line("call", self.serial, time.monotonic_ns(), kind, name, arguments, transaction)
        return self.serial

    def answer(self, serial, outcome, code, result):
        self.line("answer", serial, time.monotonic_ns(), outcome, code, result)


class Operation:
    """One call. In a transaction `commit` is the COMMIT or ROLLBACK that ended it, None when there was none.

    name: what it is about; its first word is the family: lease, semaphore, election, ...
    whole: for a part of a call about several names that call, else None
    """

    __slots__ = ("client", "life", "serial", "kind", "name", "arguments", "transaction", "begin", "answered", "outcome", "code", "result", "commit", "whole")

    def __init__(self, client, life, serial, begin, kind, name, arguments, transaction):
        self.client, self.life, self.serial, self.kind, self.name = client, life, serial, kind, name
        self.arguments, self.transaction, self.begin = arguments, transaction, begin
        self.answered = self.commit = self.code = self.whole = None
        self.outcome, self.result = "unknown", {}

    @property
    def family(self):
        return self.name.split()[0] if self.name else ""

    def part(self, kind, name, result, outcome=None, **arguments):
        """What this call is for one of its names."""
        o = Operation(self.client, self.life, self.serial, self.begin, kind, name, {**self.arguments, **arguments}, self.transaction)
        o.answered, o.outcome, o.code, o.commit, o.whole = self.answered, outcome or self.outcome, self.code, self.commit, self
        o.result = result
        return o

    @property
    def settled(self):
        """What became of it, the end of its transaction included."""
        if self.transaction is None or self.kind in ("commit", "rollback"):
            return self.outcome
        if self.outcome != "ok":
            return "failed" if self.outcome == "unknown" else self.outcome
        if self.commit is None or self.commit.kind == "rollback":
            return "failed"
        return self.commit.outcome

    @property
    def end(self):
        """When it was settled; None: nobody knows."""
        if self.commit is not None and self.outcome == "ok":
            return self.commit.answered
        return self.answered

    @property
    def asked(self):
        """When; a request that was asked again, for the first time."""
        return self["first"] or self.begin

    def ok(self):
        return self.settled == "ok"

    def __getitem__(self, key):
        """A field of the answer, or else an argument."""
        return self.result[key] if key in self.result else self.arguments.get(key)

    def describe(self, origin):
        at = (self.begin - origin) / 1e9
        took = "" if self.answered is None else f"+{(self.answered - self.begin) / 1e6:.1f} ms"
        inside = f" in tx {self.transaction}" if self.transaction is not None else ""
        told = ", ".join(f"{k} {v}" for k, v in {**self.arguments, **self.result}.items() if v is not None)
        code = f" {self.code}" if self.code else ""
        return f"{at:9.4f} s {took:>11}  client {self.client}.{self.life}{inside}: {self.kind} {self.name or ''} ({told}) {self.outcome}{code}"


class Event:
    """A fault, or the part of one that checkers have to know about."""

    def __init__(self, kind, begin, end, detail=""):
        self.kind, self.begin, self.end, self.detail = kind, begin, end, detail

    def describe(self, origin):
        return f"{(self.begin - origin) / 1e9:9.4f} s {f'+{(self.end - self.begin) / 1e6:.1f} ms':>11}  FAULT {self.kind} {self.detail}"


class History:
    """All operations in the order of their beginning, and the faults."""

    def __init__(self, operations, events, origin):
        self.operations = sorted(operations, key=lambda o: o.begin)
        self.events = sorted(events, key=lambda e: e.begin)
        self.origin = origin

    def of(self, *kinds, families=None):
        return (o for o in self.operations if o.kind in kinds and (families is None or o.family in families))

    def faults(self, *kinds):
        return [e for e in self.events if e.kind in kinds]

    def around(self, operations, more=3):
        """Lines for a report: the operations themselves, and what else happened to their names while they ran."""
        names = {o.name for o in operations} - {None}
        first = min(o.begin for o in operations) - 50_000_000
        last = max(o.end or o.begin for o in operations)
        near = [o for o in self.operations if o.name in names and first <= (o.end or o.begin) and o.begin <= last]
        chosen = set(operations)
        keep = {o for n, o in enumerate(near) if any(other in chosen for other in near[max(0, n - more):n + more + 1])}
        lines = [(o.begin, ("* " if o in chosen else "  ") + o.describe(self.origin)) for o in keep | chosen]
        lines += [(e.begin, "  " + e.describe(self.origin)) for e in self.events if e.begin <= last and e.end >= first]
        return [text for _, text in sorted(lines)]


def read_history(folder, events, origin):
    operations = []
    for file in sorted(os.listdir(folder)):
        if file.endswith(".journal"):
            client, life = map(int, file.split(".")[:2])
            operations += read_journal(os.path.join(folder, file), client, life)
    return History(operations, events, origin)


def read_journal(path, client, life):
    operations, open_transactions = {}, {}
    with open(path) as lines:
        for line in lines:
            what, serial, at, *rest = json.loads(line)
            if what == "call":
                o = operations[serial] = Operation(client, life, serial, at, *rest)
                if o.transaction is not None:
                    members = open_transactions.setdefault(o.transaction, [])
                    if o.kind in ("commit", "rollback"):
                        for member in members:
                            member.commit = o
                    members.append(o)
            else:
                o = operations[serial]
                o.answered, (o.outcome, o.code, o.result) = at, rest
    return list(operations.values()) + [part for o in operations.values() if o.kind in PARTS for part in PARTS[o.kind](o)]


def grants(o):
    """All or nothing: when it is not known which, it is so for each."""
    if o.outcome not in ("ok", "unknown"):
        return []
    return [o.part("acquire", name, o.result.get("grants", {}).get(name, {})) for name in o.arguments["names"]]


def heartbeats(o):
    """A session is renewed: each of its leases is, or is said to be lost. Nothing is said of one that was told to be lost before."""
    if o.outcome not in ("ok", "unknown"):
        return []
    told = {lease["token"]: lease for lease in o.result.get("leases", {}).values() if lease["reason"] == "ok"}
    lost = {name for name, lease in o.result.get("leases", {}).items() if lease["reason"] == "lost"}
    found = []
    for name, token in o.arguments["tokens"].items():
        if o.outcome == "unknown" or token in told:
            found.append(o.part("renew", name, {"left": told[token]["left"]} if token in told else {}, token=token))
        elif name in lost:
            found.append(o.part("renew", name, {}, "lost", token=token))
    return found


def releases(o):
    """A session is closed. When it had fewer leases than it got, it is not known which."""
    if o.outcome not in ("ok", "unknown"):
        return []
    all_of_them = o.outcome == "ok" and o.result["released"] == len(o.arguments["tokens"])
    return [o.part("release", name, {}, "ok" if all_of_them else "unknown", token=token) for name, token in o.arguments["tokens"].items()]


PARTS = {"acquire_all": grants, "session_renew": heartbeats, "session_close": releases}
