"""How many permits a semaphore had, and when: what may have been in force is known by numbers and times.

A resize comes into force at some moment between its call and the answer to its COMMIT, and all that was settled before
it began is over then. Without an answer it may come into force as long as its server process may live, or never. A
crash or a failover may have taken back any resize, so after it any number may be in force until the next one is set.
A call may go by any number that was in force since it was made.
"""

from bisect import bisect_right

from journal import HORIZON


class Permits:
    def __init__(self, history, first):
        """first: how many each semaphore has at the beginning."""
        by_name, faults = {}, history.faults("crash", "promote")
        for o in history.of("resize"):
            if o.settled in ("ok", "unknown"):
                by_name.setdefault(o.name, []).append(o)
        self.never_resized = [(0, {first})]
        self.times = {name: steps(resizes, faults, first) for name, resizes in by_name.items()}

    def numbers(self, o):
        """Those that the call o may have gone by."""
        times = self.times.get(o.name, self.never_resized)
        first, last = bisect_right(times, (o.asked,)) - 1, bisect_right(times, (o.answered or o.begin + HORIZON,))
        return set().union(*(numbers for _, numbers in times[first:last]))

    def most(self, o):
        return max(self.numbers(o))

    def least(self, o):
        return min(self.numbers(o))


def last_moment(resize):
    return resize.end if resize.ok() else (resize.commit or resize).begin + HORIZON


def steps(resizes, faults, first):
    """[(time, numbers)]: what may be in force from then on, in the order of time."""
    events = [(o.begin, "call", o) for o in resizes] + [(o.end, "over", o) for o in resizes if o.ok()] + [(e.begin, "fault", e) for e in faults]
    possible, ever, found = {first: 0}, {first}, [(0, {first})]     # possible: each until when it may come into force
    for at, what, about in sorted(events, key=lambda e: e[0]):
        if what == "call":
            number = about.arguments["permits"]
            ever.add(number)
            possible[number] = max(last_moment(about), possible.get(number, 0))
        elif what == "over":
            possible = {number: last for number, last in possible.items() if last >= about.begin}
        else:
            possible = {number: max(about.end, possible.get(number, 0)) for number in ever}
        found.append((at, set(possible)))
    return found
