"""A client: one process with one real connection, which makes calls and keeps the journal.

What it decides to do comes from the seed; what it is answered does not, so a seed replays the plan and not every step.
Odd clients go through PgBouncer when there is one, the others directly; every second pair does not want durable
commits. Two clients share an owner label, as two processes of one host do.
"""

import os
import time

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from journal import Journal
from server import DATABASE, POOLER_PORT
from world import PARKED, WORKING

LOST = ("SD001", "SD002")

# what PgBouncer says when it has not found a server for the call: it was not made
NOT_SENT = ("server login", "cannot connect to server", "query_wait_timeout")


class Gone(Exception):
    """The connection is gone. code: None, or the SQLSTATE with which the pooler has refused the call before."""

    def __init__(self, code=None):
        super().__init__(code)
        self.code = code


class Failed(Exception):
    """The call was answered with an error; code: its SQLSTATE."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


class Stopped(Exception):
    """The run is over."""


class Client:
    def __init__(self, world, number, life):
        self.world, self.number, self.life = world, number, life
        self.random = world.random("client", number, life)
        self.journal = Journal(world.folder, number, life)
        self.pooled = world.pooler and number % 2 == 1
        self.role = "client_async" if number // 2 % 2 else "client_sync"
        self.owner = f"host {number // 2}"
        self.parent = os.getppid()
        self.transactions = 0
        self.transaction = self.isolation = None
        self.connection = None

    # ---- the connection --------------------------------------------------------

    def check_stop(self):
        if self.world.stop[0]:
            raise Stopped
        if os.getppid() != self.parent:         # nobody would ever tell us to stop
            os._exit(1)

    def connect(self):
        self.disconnect()
        while True:
            self.check_stop()
            try:
                self.connection = psycopg2.connect(
                    host=self.world.server_folder, port=POOLER_PORT if self.pooled else self.world.port[0],
                    user=self.role, dbname=DATABASE, application_name=self.owner, connect_timeout=5)
                self.connection.autocommit = True           # BEGIN and COMMIT are written out
                self.cursor = self.connection.cursor()
                return
            except psycopg2.Error:
                time.sleep(0.02 + 0.03 * self.random.random())

    def disconnect(self):
        if self.connection is not None:
            self.connection.close()
        self.connection = self.transaction = None

    def execute(self, sql, parameters):
        """The row that comes back, or None. Raises Failed or Gone."""
        try:
            self.cursor.execute(sql, parameters)
            return self.cursor.fetchone() if self.cursor.description else None
        except psycopg2.Error as e:
            code = e.pgcode
            if any(text in str(e) for text in NOT_SENT):
                raise Gone(code or "08P01") from e
            if self.connection.closed or code is None or code[:2] == "08" or code[:3] == "57P":
                raise Gone from e
            raise Failed(code) from e

    # ---- calls -----------------------------------------------------------------

    def call(self, kind, name, sql, parameters, arguments=(), read=lambda row: ("ok", {})):
        """Makes a call and journals it. read: outcome and fields of the journal from the row. Returns (outcome, fields)."""
        self.world.done[self.number] += 1
        serial = self.journal.call(kind, name, dict(arguments), self.transaction)
        try:
            row = self.execute(sql, parameters)
        except Gone as e:
            self.journal.answer(serial, "failed" if e.code else "unknown", e.code, {"error": " ".join(str(e.__cause__).split())})
            self.transaction = None
            raise
        except Failed as e:
            self.journal.answer(serial, "lost" if e.code in LOST else "failed", e.code, {})
            raise
        outcome, fields = read(row)
        self.journal.answer(serial, outcome, None, fields)
        return outcome, fields

    def begin(self, isolation="READ COMMITTED"):
        self.execute(f"BEGIN ISOLATION LEVEL {isolation}", None)
        self.isolation = isolation
        self.transactions += 1
        self.transaction = self.transactions

    def end(self, how="commit"):
        """Ends the transaction. A COMMIT that is answered with ROLLBACK has failed."""
        read = lambda row: ("ok" if self.cursor.statusmessage == how.upper() else "failed", {})
        try:
            return self.call(how, None, how.upper(), None, {"isolation": self.isolation}, read)[0]
        finally:
            self.transaction = None

    def roll_back(self):
        """Out of the transaction, also when a cancel hits the ROLLBACK."""
        while self.connection.info.transaction_status != TRANSACTION_STATUS_IDLE:
            try:
                self.end("rollback")
            except Failed:
                pass
        self.transaction = None

    def pause(self, seconds):
        """Does not go on, as a process that waits for something or is stopped by its machine."""
        until = time.monotonic() + seconds
        while not self.world.stop[0] and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))

    # ---- the life of a client --------------------------------------------------

    def step(self):
        workloads, weights = zip(*self.workloads)
        workload = self.random.choices(workloads, weights)[0]
        try:
            workload.step()
        except Failed:
            self.roll_back()

    def run(self):
        self.workloads = [(workload(self), weight) for workload, weight in self.world.workloads]
        try:
            self.connect()
            while True:
                self.check_stop()
                try:
                    self.step()
                except Gone:
                    time.sleep(0.02 + 0.03 * self.random.random())
                    self.connect()
        except Stopped:
            pass
        self.park()

    def park(self):
        """Stays connected: what this session has left behind can be looked for."""
        self.world.state[self.number] = PARKED
        while not self.world.leave[0] and os.getppid() == self.parent:
            time.sleep(0.01)
        self.disconnect()


def main(world, number, life):
    world.state[number] = WORKING
    Client(world, number, life).run()
