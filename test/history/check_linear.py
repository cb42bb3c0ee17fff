"""Linearizability: is there an order of the calls, each at one moment between its beginning and its end, in which every
answer is the right one?

One search per name, over the whole history, in the way of Wing, Gong and Lowe: configurations are pairs of a state and
the calls that have been given their moment although they have not returned yet. When a call returns, every
configuration tries all orders of the calls that are open until that call has had its moment; none left means that
there is no such order. Calls without an answer may take effect at any time while their server process may live, or never.

A state is a set of grants. Time is known by intervals only: a grant made at some moment between a and b expires
between a + ttl and b + ttl. Where that leaves something open both are allowed, so there is no false alarm. A crash may
take back a release, and a failover more than that: the search goes on from an unknown state.
"""

from violation import Violation

NAME = "linear"

S = 1_000_000_000
HORIZON = 10 * S                # a call whose client is gone has ended by then
TOO_MANY = 4000                 # configurations: give up, go on from an unknown state

UNKNOWN = None                  # a state that may be any


def reads(o):
    return o.kind in ("assert", "get")


def outcome_of(o):
    """A look is what it was, whatever became of its transaction."""
    return o.outcome if reads(o) else o.settled


def end_of(o):
    return o.answered if reads(o) else o.end


class Grant(tuple):
    """(token, owner, weight, earliest, latest): when it expires is between earliest and latest."""

    __slots__ = ()
    token = property(lambda g: g[0])
    owner = property(lambda g: g[1])
    weight = property(lambda g: g[2])
    earliest = property(lambda g: g[3])
    latest = property(lambda g: g[4])


class Grants:
    """The model: permits are out for a while. A mutex has one; each step gives the states after it, [] = impossible."""

    def __init__(self, capacity=1):
        self.capacity = capacity

    def step(self, o, state, low, high):
        """o takes effect at a moment between low and high."""
        if state is not UNKNOWN:
            state = frozenset(g for g in state if g.latest >= low)
        answer = outcome_of(o)
        if answer in ("ok", "unknown"):
            return getattr(self, o.kind)(o, state, low, high)
        if o.kind in ("acquire", "get"):
            return self.taken(o, state)
        return self.not_held(o, state, high)

    def acquire(self, o, state, low, high):
        weight = o["weight"] or 1
        ns = int(o["ttl"] * S)
        new = Grant((o["token"], o.arguments["owner"], weight, low + ns, min(high, o.answered or high) + ns))
        if state is UNKNOWN:
            return [frozenset([new])] if self.capacity == 1 else [UNKNOWN]
        if any(g.token == new.token for g in state if o["request"] is not None):
            return [state]                      # asked before, and the same answer
        states = []
        if o["request"] is not None:            # asked before perhaps, and the answer was lost
            states = [state - {g} | {Grant((new.token, *g[1:]))} for g in state if g.token is None and g.owner == new.owner]
        if sum(g.weight for g in state if g.earliest > high) + weight <= self.capacity:
            states.append(frozenset([new]) if self.capacity == 1 else state | {new})
        return states

    def get(self, o, state, low, high):
        if o["live"]:
            return self.taken(o, state)
        if state is UNKNOWN:
            return [frozenset()]
        return [frozenset()] if all(g.earliest <= high for g in state) else []

    def taken(self, o, state):
        """Somebody has it: a refusal that names him, or a look."""
        if state is UNKNOWN or o.kind == "acquire" and (o["reason"] != "held" or o.result.get("owner") is None):
            return [state]
        return [state] if any(g.owner == o.result["owner"] for g in state) else []

    def renew(self, o, state, low, high):
        if state is UNKNOWN:
            return [UNKNOWN] if self.capacity != 1 else [frozenset([self.renewed(o, (o["token"], o.result.get("owner"), 1), low, high)])]
        return [state - {g} | {self.renewed(o, g, low, high)} for g in state if g.token == o["token"]]

    def renewed(self, o, grant, low, high):
        ns = int(o["ttl"] * S)
        return Grant((*grant[:3], low + ns, min(high, o.answered or high) + ns))

    def release(self, o, state, low, high):
        if state is UNKNOWN:
            return [UNKNOWN] if self.capacity != 1 else [frozenset()]
        return [state - {g} for g in state if g.token == o["token"]]

    def held(self, o, state, low, high):
        return [state] if state is UNKNOWN or any(g.token == o["token"] for g in state) else []

    def not_held(self, o, state, high):
        """The token is not the live grant."""
        if state is UNKNOWN:
            return [UNKNOWN]
        mine = [g for g in state if g.token == o["token"]]
        if not mine:
            return [state]
        return [state - set(mine)] if all(g.earliest <= high for g in mine) else []


setattr(Grants, "assert", Grants.held)


class Search:
    """The search over the calls of one name."""

    def __init__(self, model):
        self.model = model
        self.open = {}                          # number of the call: the call
        self.configurations = {(UNKNOWN, 0, frozenset())}       # state, no moment before this one, had their moment
        self.given_up = self.returned = 0

    def forget(self, at):
        """What has been may be undone, and who was under way without ever getting an answer is dead."""
        self.open = {n: o for n, o in self.open.items() if outcome_of(o) != "unknown"}
        self.configurations = {(UNKNOWN, 0, frozenset())}

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
                self.forget(at)
                self.open.pop(number, None)
                return True
        del self.open[number]
        self.configurations = reached
        if not reached:
            self.forget(at)
            return False
        return True


def events_of(operations, faults):
    """(time, what, number or None), in the order of time."""
    events = [(at, "forget", None) for e in faults for at in (e.begin, e.end)]
    for number, o in enumerate(operations):
        events.append((o.begin, "invoke", number))
        if outcome_of(o) == "unknown":
            events.append((o.begin + HORIZON, "expire", number))
        else:
            events.append((end_of(o), "finish", number))
    return sorted(events, key=lambda e: e[0])


def check_name(model, operations, faults):
    found, search = [], Search(model)
    for at, what, number in events_of(operations, faults):
        if what == "forget":
            search.forget(at)
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
    before = [p for p in operations if p.end is not None and p.end < o.begin and p.settled == "ok" and p.kind in ("acquire", "renew", "release")]
    return before[-2:] + [p for p in near if p is not o][-4:] + [o]


def check(history):
    """Violations, and what was searched: calls, and how often it was given up."""
    faults = history.faults("crash", "promote")
    by_name = {}
    for o in history.of("acquire", "renew", "release", "assert", "get"):
        if outcome_of(o) != "failed" and not (reads(o) and outcome_of(o) == "unknown"):
            by_name.setdefault(o.name, []).append(o)
    found, calls, given_up = [], 0, 0
    for operations in by_name.values():
        more, search = check_name(Grants(), operations, faults)
        found += more
        calls, given_up = calls + search.returned, given_up + search.given_up
    return found, calls, given_up
