"""The audit: compares what clients were told (their journals) with the ledger and with the bookings, in plain SQL and
Python. It asks no function of distsys whether distsys was right."""

import collections

from world import read_journals

BURST, PER_SECOND = 20, 10              # of the policy in schema.sql

PAYMENTS = "SELECT payment::text, count(*) FROM ledger WHERE amount < 0 GROUP BY payment"

# A row of a lower token that committed after one of a higher token: a writer that had lost its lease got in.
STALE = """
    SELECT count(*) FROM (
        SELECT token, max(token) OVER (PARTITION BY shard ORDER BY pg_xact_commit_timestamp(xmin)
                                       GROUPS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS seen
        FROM ledger WHERE amount < 0) AS l
    WHERE token < seen"""


class Audit:
    def __init__(self, world, admin):
        self.world, self.cursor = world, admin.cursor()
        self.outcomes, self.calls = collections.Counter(), collections.defaultdict(list)
        self.stale, self.consumed = collections.Counter(), collections.Counter()
        self.lines = 0
        self.told = collections.defaultdict(set)                # payment: the answers that clients were given
        self.admitted = collections.defaultdict(list)           # address: when, as (before, after) the call
        self.read()
        self.compare()

    def query(self, statement):
        self.cursor.execute(statement)
        return self.cursor.fetchall()

    def read(self):
        asked = set()
        for line in read_journals(self.world.folder):
            kind, rest = line[0], line[1:]
            if kind == "answer":
                number, outcome, answer, limit, taken = rest
                self.outcomes[outcome] += 1
                asked.add(number)
                if outcome in ("first", "replay"):
                    self.told[self.world.requests[number].key].add(answer)
                if limit:
                    self.admitted[limit[0]].append(limit[1:])
            elif kind == "stale":
                self.stale[rest[0]] += 1
                continue
            else:
                outcome, count, taken = rest
                self.consumed[outcome] += count
            for call, milliseconds in taken:
                self.calls[call].append(milliseconds)
        self.lines = len(asked)

    def compare(self):
        booked = dict(self.query(PAYMENTS))
        delivered = dict(self.query("SELECT payment::text, count(*) FROM booking GROUP BY payment"))
        self.payments = len(booked)
        self.entries = sum(booked.values())
        self.delivered = sum(delivered.values())
        self.redelivered = self.query("SELECT count(*) FROM booking WHERE attempt > 1")[0][0]
        self.published = self.query("SELECT count(*) FROM distsys.outbox_event_log WHERE aggregatetype = 'payments'")[0][0]
        self.unanswered = sum(1 for payment in booked if payment not in self.told)

        self.duplicates = sum(n - 1 for n in delivered.values()) + sum(1 for p in delivered if p not in booked)
        self.lost_payments = sum(1 for p in self.told if p not in booked)
        self.lost_events = sum(1 for p in booked if p not in delivered)
        self.losses = self.lost_payments + self.lost_events
        self.double_charges = self.entries - self.payments
        self.stale_accepted = max(self.query(STALE)[0][0], self.stale["accepted"])
        self.differing = sum(1 for answers in self.told.values() if len(answers) > 1)
        self.unbalanced = abs(self.query("SELECT coalesce(sum(amount), 0)::bigint FROM ledger")[0][0])
        self.over_limit = sum(over_limit(sorted(times)) for times in self.admitted.values())

    def clean(self):
        return not any((self.duplicates, self.losses, self.double_charges, self.stale_accepted,
                        self.differing, self.unbalanced, self.over_limit)) and self.payments > 0


def over_limit(times):
    """Admissions beyond burst + rate * t in any window. An admission happened somewhere between before and after, so a
    window is counted from the earliest before to the latest after, which favours the limiter by the time of one call."""
    over, lowest = 0, None
    for n, (before, after) in enumerate(times):
        level = n - PER_SECOND * before
        lowest = level if lowest is None else min(lowest, level)
        over = max(over, n + 1 - PER_SECOND * after - lowest - BURST)
    return int(over) if over >= 1 else 0
