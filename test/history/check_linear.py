"""Linearizability: is there an order of the calls, each at one moment between its beginning and its end, in which every
answer is the right one?

One search per name, over the whole history, in the way of Wing, Gong and Lowe: configurations are pairs of a state and
the calls that have been given their moment although they have not returned yet. When a call returns, every
configuration tries all orders of the calls that are open until that call has had its moment; none left means that
there is no such order. Calls without an answer may take effect at any time while their server process may live, or never.

A state is a set of grants. Time is known by intervals only: a grant made at some moment between a and b expires
between a + ttl and b + ttl. Where that leaves something open both are allowed, so there is no false alarm. A crash may
take back a release, and a failover more than that: for the longest ttl after it there may be grants that we do not know.
A semaphore may be resized: a grant needs room in the greatest number that may have been in force during its call (permits.py).
"""

from journal import HORIZON
from violation import Violation

NAME = "linear"

S = 1_000_000_000
NOTICED = 2 * S                 # a promotion is known to everybody by then: from there on old grants have their ttl once more
TOO_MANY = 4000                 # configurations: give up, go on without knowing

ALL = 1 << 20                   # what an exclusive grant takes of a lease, and a shared one takes 1 of

KINDS = ("acquire", "transfer", "renew", "release", "assert", "get", "break")


def looks(o):
    return o.kind in ("assert", "get")


def outcome_of(o):
    """A look is what it was, whatever became of its transaction."""
    return o.outcome if looks(o) else o.settled


def end_of(o):
    return o.answered if looks(o) else o.end


def latest(o, high):
    """Until when it took effect. An error is no answer: the server may have been at it when the connection was gone."""
    return min(high, o.answered) if outcome_of(o) == "ok" and o.answered is not None else high


class Grant(tuple):
    """(token, owner, weight, earliest, latest): when it expires is between earliest and latest. Token and owner None: not known."""

    __slots__ = ()
    token = property(lambda g: g[0])
    owner = property(lambda g: g[1])
    weight = property(lambda g: g[2])
    earliest = property(lambda g: g[3])
    latest = property(lambda g: g[4])


class Grants:
    """The model: parts of a capacity are out for a while. Each step gives the states after it, [] = impossible.

    A lease, shared and exclusive, is a capacity of which an exclusive grant takes all; a semaphore is one by itself.
    """

    def __init__(self, capacity):
        self.capacity = capacity
        self.forgiving_until = 0                # until then there may be grants from before that are not in the state

    def step(self, o, state, low, high):
        """o takes effect at a moment between low and high."""
        state = frozenset(g for g in state if g.latest >= low)
        if outcome_of(o) in ("ok", "unknown"):
            states = getattr(self, o.kind.replace("assert", "held").replace("break", "broken"))(o, state, low, high)
        elif o.kind in ("acquire", "get"):
            states = self.taken(o, state)
        elif o.kind == "break" or o.kind == "transfer" and outcome_of(o) == "refused":
            states = [state]                    # there was nothing to break; it was pinned
        else:
            states = self.not_held(o, state, high)
        if not states and low <= self.forgiving_until:
            return [self.forgiven(o, state, low, high)]
        return states

    def room(self, o):
        return self.capacity

    def weight(self, o):
        return o["permits"] or (1 if o["mode"] == "shared" else self.capacity)

    def new_grant(self, o, low, high, weight):
        ns = int(o["ttl"] * S)
        return Grant((o.result.get("token"), o.arguments.get("owner"), weight, low + ns, latest(o, high) + ns))

    def beside(self, state, weight):
        """What may be held beside a new grant of this weight."""
        return frozenset(g for g in state if weight < self.capacity and g.weight < self.capacity)

    def acquire(self, o, state, low, high):
        new = self.new_grant(o, low, high, self.weight(o))
        if any(g.token == new.token for g in state if o["request"] is not None):
            return [state]                      # asked before, and the same answer
        states = []
        if o["request"] is not None:            # asked before perhaps, and the answer was lost
            states = [state - {g} | {Grant((new.token, *g[1:]))} for g in state if g.token is None and g.owner == new.owner]
        if sum(g.weight for g in state if g.earliest > high) + new.weight <= self.room(o):
            states.append(self.beside(state, new.weight) | {new})
        return states

    def transfer(self, o, state, low, high):
        return [state - {g} | {self.new_grant(o, low, high, g.weight)} for g in state if g.token == o.arguments["token"]]

    def get(self, o, state, low, high):
        if o["live"]:
            return self.taken(o, state)
        return [frozenset()] if all(g.earliest <= high for g in state) else []

    def taken(self, o, state):
        """Somebody has it: a refusal that names him, or a look. A place that a successor is waited for is named after the one who left."""
        if o.kind == "acquire" and (o["reason"] != "held" or o.result.get("owner") is None or o.family != "lease"):
            return [state]
        return [state] if any(g.owner in (o.result["owner"], None) for g in state) else []

    def renew(self, o, state, low, high):
        return [state - {g} | {self.renewed(o, g, low, high)} for g in state if g.token == o["token"]]

    def renewed(self, o, grant, low, high):
        ns = int(o["ttl"] * S)
        return Grant((*grant[:3], low + ns, latest(o, high) + ns))

    def release(self, o, state, low, high):
        return [state - {g} for g in state if g.token == o["token"]]

    def held(self, o, state, low, high):
        return [state] if any(g.token == o["token"] for g in state) else []

    def not_held(self, o, state, high):
        """The token is not the live grant."""
        mine = [g for g in state if g.token == o.arguments["token"]]
        return [state - set(mine)] if all(g.earliest <= high for g in mine) else []

    def broken(self, o, state, low, high):
        """An operator ends what he has found; what came in between he may have missed."""
        return [frozenset(Grant((*g[:3], min(g.earliest, low), g.latest)) for g in state)]

    def forgiven(self, o, state, low, high):
        """The state after a call that a grant from before explains: what the call itself says is true."""
        if outcome_of(o) != "ok" or o.kind not in ("acquire", "transfer", "renew"):
            return state
        if o.kind == "renew":
            return state | {self.renewed(o, Grant((o["token"], None, 1, 0, 0)), low, high)}
        new = self.new_grant(o, low, high, self.weight(o))
        return self.beside(state, new.weight) | {new}


class SizedGrants(Grants):
    """A semaphore, whose capacity changes."""

    def __init__(self, permits):
        super().__init__(ALL)
        self.room = permits.most


class Search:
    """The search over the calls of one name, which begins when nothing is held."""

    def __init__(self, model, longest_ttl):
        self.model, self.longest_ttl = model, longest_ttl
        self.open = {}                          # number of the call: the call
        self.given_up = self.returned = 0
        self.start_again()

    def start_again(self):
        self.configurations = {(frozenset(), 0, frozenset())}   # state, no moment before this one, who had their moment

    def forget(self, until):
        """What has been may be undone, and who was under way without ever getting an answer is dead."""
        self.open = {n: o for n, o in self.open.items() if outcome_of(o) != "unknown"}
        self.lose_track(until)

    def lose_track(self, until):
        self.model.forgiving_until = max(self.model.forgiving_until, until)
        self.start_again()

    def invoke(self, number, o):
        self.open[number] = o

    def give_up_waiting(self, number):
        """An unanswered call that has not taken effect by now never will."""
        if self.open.pop(number, None) is not None:
            self.configurations = {(s, f, done - {number}) for s, f, done in self.configurations}

    def finish(self, number, at):
        """The call returns at this time; False: there is no order that explains its answer."""
        if number not in self.open:
            return True
        self.returned += 1
        reached, seen, stack = set(), set(self.configurations), list(self.configurations)
        while stack:
            state, floor, done = stack.pop()
            if number in done:
                reached.add((state, floor, done - {number}))
                continue
            for n, o in self.open.items():
                if n in done:
                    continue
                low = max(o.begin, floor)
                for after in self.model.step(o, state, low, at):
                    configuration = (after, low, done | {n})
                    if configuration not in seen:
                        seen.add(configuration)
                        stack.append(configuration)
            if len(seen) > TOO_MANY:
                self.given_up += 1
                self.forget(at + self.longest_ttl)
                self.open.pop(number, None)
                return True
        del self.open[number]
        self.configurations = reached
        if not reached:
            self.lose_track(at + self.longest_ttl)
            return False
        return True


def events_of(operations, faults, longest_ttl):
    """(time, what, number of the call; of a fault until when it excuses), in the order of time."""
    events = []
    for e in faults:
        until = e.end + longest_ttl + (NOTICED if e.kind == "promote" else 0)
        events += [(e.begin, "forget", until), (e.end, "forget", until)]
    for number, o in enumerate(operations):
        events.append((o.begin, "invoke", number))
        if outcome_of(o) == "unknown":
            events.append((o.begin + HORIZON, "expire", number))
        else:
            events.append((end_of(o), "finish", number))
    return sorted(events, key=lambda e: e[0])


def check_name(model, operations, faults, longest_ttl):
    found, search = [], Search(model, longest_ttl)
    for at, what, number in events_of(operations, faults, longest_ttl):
        if what == "forget":
            search.forget(number)
        elif what == "invoke":
            search.invoke(number, operations[number])
        elif what == "expire":
            search.give_up_waiting(number)
        elif not search.finish(number, at):
            o = operations[number]
            found.append(Violation(NAME, f"no order of the calls of {o.name} explains this {o.kind}: {o.outcome}", context(operations, number)))
    return found, search


def context(operations, number):
    """The calls under way with this one, and the last one that changed something before."""
    o = operations[number]
    near = [p for p in operations if p.begin <= end_of(o) and (end_of(p) or p.begin + HORIZON) >= o.begin]
    before = [p for p in operations if p.end is not None and p.end < o.begin and p.settled == "ok" and not looks(p)]
    return before[-2:] + [p for p in near if p is not o][-4:] + [o]


def check(history, permits, longest_ttl_s):
    """Violations, and what was searched: calls, and how often it was given up."""
    faults = history.faults("crash", "promote")
    by_name = {}
    for o in history.of(*KINDS, families=("lease", "election", "semaphore")):
        if outcome_of(o) != "failed" and not (looks(o) and outcome_of(o) == "unknown"):
            by_name.setdefault(o.name, []).append(o)
    found, calls, given_up = [], 0, 0
    for name, operations in by_name.items():
        model = SizedGrants(permits) if name.startswith("semaphore") else Grants(ALL)
        more, search = check_name(model, operations, faults, int(longest_ttl_s * S))
        found += more
        calls, given_up = calls + search.returned, given_up + search.given_up
    return found, calls, given_up
