"""What the processes of the demonstration share: counters and lease tokens in shared memory, and a journal each.

Every slot of shared memory has at most one writer at a time or only ever rises, and there is no lock: a process that
is killed cannot leave one behind.
"""

import json
import multiprocessing
import os
import time

import psycopg2

fork = multiprocessing.get_context("fork")

IDLE, OUTSIDE, INSIDE = 0, 1, 2         # state of a process: between requests, before BEGIN, in a transaction
COUNTERS = ("first", "replay", "in_progress", "limited", "delivered")


class World:
    def __init__(self, dsn, folder, requests, clients, without):
        self.dsn, self.folder, self.requests, self.clients, self.without = dsn, folder, requests, clients, without
        self.shards = max(1, clients // 2)
        share = lambda n: multiprocessing.RawArray("q", n)
        self.stop = share(1)
        self.state = share(clients + 1)                     # the last one is the consumer's
        self.done = share(clients)                          # how far a client is in its list
        self.again = share(clients)                         # a request that a sibling asks to send at the same time
        self.counts = {name: share(clients + 1) for name in COUNTERS}
        self.token = share(self.shards)                     # what the shard believes to hold
        self.lost = share(self.shards)                      # the highest token known to be lost
        self.previous = share(self.shards)                  # the token before
        self.handover = share(self.shards)                  # somebody is asked to give the lease to a successor
        self.renew_at = multiprocessing.RawArray("d", self.shards)
        self.deadline = multiprocessing.RawArray("d", self.shards)
        self.lists = [[] for _ in range(clients)]           # which requests each client sends
        for number, r in enumerate(requests):
            shard = hash_of(r.address) % self.shards
            members = self.members(shard)
            self.lists[members[number % len(members)]].append(number)

    def members(self, shard):
        return [c for c in range(self.clients) if c % self.shards == shard]

    def count(self, name, who):
        self.counts[name][who] += 1

    def total(self, name):
        return sum(self.counts[name])

    def connect(self, role, name):
        c = psycopg2.connect(self.dsn, user=role, application_name=name)
        c.autocommit = True                                 # BEGIN and COMMIT are written out below
        return c


def hash_of(text):
    """The same in every run, unlike hash()."""
    value = 0
    for byte in text.encode():
        value = (value * 31 + byte) & 0xFFFFFFFF
    return value


class Journal:
    """One line for each answer that a process was given, written before it goes on: what a kill cannot take back."""

    def __init__(self, folder, name):
        self.file = open(os.path.join(folder, f"{name}.{os.getpid()}.journal"), "w", buffering=1)

    def write(self, *fields):
        self.file.write(json.dumps(fields) + "\n")


def read_journals(folder):
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".journal"):
            continue
        with open(os.path.join(folder, name)) as lines:
            for line in lines:
                if line.endswith("\n"):                     # else its writer was killed in the middle of it
                    yield json.loads(line)


class Stopwatch:
    """Runs statements and notes how long each answer took, in milliseconds."""

    def __init__(self, connection):
        self.cursor, self.taken = connection.cursor(), []

    def rows(self, call, statement, *arguments):
        began = time.monotonic()
        self.cursor.execute(statement, arguments)
        rows = self.cursor.fetchall() if self.cursor.description else []
        self.taken.append((call, round((time.monotonic() - began) * 1000, 3)))
        return rows

    def __call__(self, call, statement, *arguments):
        rows = self.rows(call, statement, *arguments)
        return rows[0] if rows else None
