"""Tokens rise in real time: when one was answered before another was asked for, it is the lower one.

One order for the whole database, over crashes, failovers and names, and for tokens that were seen in a transaction
that then rolled back, too. Nobody but the same request gets the same token twice.
"""

from violation import Violation

NAME = "tokens"
KINDS = ("acquire", "transfer", "session_lock")
LIMIT = 1 << 53


class Draw:
    """A token as it was seen: drawn between begin and answered."""

    def __init__(self, operation):
        self.operation, self.token, self.request = operation, operation.result["token"], operation["request"]
        self.begin, self.answered = operation.asked, operation.answered


def check(history):
    draws = [Draw(o) for o in history.of(*KINDS) if o.outcome == "ok"]
    return out_of_range(draws) + twice(draws) + falling(draws)


def out_of_range(draws):
    return [Violation(NAME, f"token {d.token} is not between 1 and 2^53 - 1", [d.operation]) for d in draws if not 0 < d.token < LIMIT]


def twice(draws):
    found, first = [], {}
    for d in draws:
        before = first.setdefault(d.token, d)
        if before is not d and (d.request is None or d.request != before.request):
            found.append(Violation(NAME, f"token {d.token} was issued twice", [before.operation, d.operation]))
    return found


def falling(draws):
    """Goes through the draws as they begin, with the highest token answered before each."""
    found, highest = [], None
    answered = sorted(draws, key=lambda d: d.answered)
    next_answered = 0
    for d in sorted(draws, key=lambda d: d.begin):
        while answered[next_answered].answered < d.begin:
            if highest is None or answered[next_answered].token > highest.token:
                highest = answered[next_answered]
            next_answered += 1
        if highest is not None and d.token <= highest.token and not same_request(d, highest):
            found.append(Violation(NAME, f"token {d.token} was issued after {highest.token} had been seen", [highest.operation, d.operation]))
    return found


def same_request(a, b):
    return a.request is not None and a.request == b.request
