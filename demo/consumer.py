"""The bookkeeper: fetches events and acknowledges them in the transaction that books them."""

import random
import signal
import time

import psycopg2

from world import IDLE, INSIDE, Journal, Stopwatch

ROLLED_BACK = 0.03
GIVEN_BACK = 0.01                       # of the events: come again after a delay
BATCH = 100


class Consumer:
    def __init__(self, world):
        self.world, self.seat = world, world.clients
        self.journal = Journal(world.folder, "consumer")
        self.connect()

    def connect(self):
        self.connection = self.world.connect("bookkeeper", "consumer")
        self.call = Stopwatch(self.connection)

    def book(self, events):
        self.call("INSERT booking", "INSERT INTO booking (payment, amount, position, attempt)"
                                    " SELECT * FROM unnest(%s::uuid[], %s::bigint[], %s::bigint[], %s::int[])",
                  *[list(column) for column in zip(*events)])

    def batch(self):
        """One transaction; true when there was something to do."""
        self.call("BEGIN", "BEGIN")
        self.world.state[self.seat] = INSIDE
        events = self.call.rows(
            "outbox_fetch", "SELECT receipt, payload->>'payment', (payload->>'amount')::bigint, position, attempt"
            " FROM distsys.outbox_fetch('payments', 'bookkeeping', 'bookkeeper', %s)", BATCH)
        back = [e[0] for e in events if e[4] == 1 and random.random() < GIVEN_BACK]
        if back:
            self.call("outbox_nack", "SELECT count(*) FROM distsys.outbox_nack('payments', 'bookkeeping', %s, delay => '200 ms', reason => 'not now')", back)
        keep = [e for e in events if e[0] not in back]
        if keep and self.world.without == "transaction":
            self.call("outbox_ack", "SELECT distsys.outbox_ack('payments', 'bookkeeping', %s)", [e[0] for e in keep])
            self.call("COMMIT", "COMMIT")                   # acknowledged, and not booked yet
            self.call("BEGIN", "BEGIN")
        if keep:
            self.book([e[1:] for e in keep])
            if self.world.without != "transaction":
                self.call("outbox_ack", "SELECT distsys.outbox_ack('payments', 'bookkeeping', %s)", [e[0] for e in keep])
        if keep and random.random() < ROLLED_BACK:
            self.call("ROLLBACK", "ROLLBACK")
            self.journal.write("consumed", "rolled_back", 0, self.call.taken)
        else:
            self.call("COMMIT", "COMMIT")
            self.world.counts["delivered"][self.seat] += len(keep)
            if events:
                self.journal.write("consumed", "booked", len(keep), self.call.taken)
        self.call.taken.clear()
        return bool(events)

    def run(self):
        while self.world.stop[0] < 2:
            try:
                busy = self.batch()
            except (psycopg2.OperationalError, psycopg2.InterfaceError):
                self.connect()
                continue
            finally:
                self.world.state[self.seat] = IDLE
            if not busy:
                time.sleep(0.02)


def main(world):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Consumer(world).run()
