"""A lock that a majority of three independent servers must grant, and what it is good for.

Such a lock saves work: hardly ever do two clients do the same job, also while one of the servers is down. It does not
protect data: a client that is late still believes to hold it, and since the tokens of different servers have no
common order, nothing can refuse him. The last phase shows that. For protection use one primary with synchronous
standbys, and lease_assert or a fence.

QuorumLock is the recipe. The rest starts three servers, lets clients compete for jobs while servers stop, and counts
how often two clients were at the same job. Exit code 0: as promised.
"""

import argparse
import os
import random
import subprocess
import sys
import threading
import time

import psycopg2

TTL = 2.0                               # seconds
SERVER_TIMEOUT = 0.5                    # for one answer of one server: small beside the ttl, or a slow server costs validity
CLIENTS, JOBS = 6, 2


class QuorumLock:
    """One client's side of the lock. Every client names the servers in the same order: who gets the first one mostly
    gets the others, so that clients do not split the votes."""

    def __init__(self, servers, owner):
        self.servers, self.owner = servers, owner
        self.connections = [None] * len(servers)

    def ask(self, number, sql, *values):
        """One value from one server; None when it cannot be had in time."""
        try:
            if self.connections[number] is None:
                self.connections[number] = psycopg2.connect(self.servers[number], options=f"-c statement_timeout={SERVER_TIMEOUT * 1000:.0f}")
                self.connections[number].autocommit = True
            with self.connections[number].cursor() as cursor:
                cursor.execute(sql, values)
                return cursor.fetchone()[0]
        except psycopg2.Error:
            self.connections[number] = None
            return None

    def acquire(self, name, ttl):
        """Returns until when the lock is good, by time.monotonic(), and the tokens; or None."""
        begun = time.monotonic()
        tokens = [self.ask(n, "SELECT token FROM distsys.lease_acquire(%s, %s, make_interval(secs => %s))", name, self.owner, ttl)
                  for n in range(len(self.servers))]
        granted = [n for n, token in enumerate(tokens) if token is not None]
        asked = time.monotonic()
        for n in granted:
            validity = self.ask(n, """SELECT coalesce(extract(epoch FROM distsys.quorum_validity(clock_timestamp() - make_interval(secs => %s),
                                      make_interval(secs => %s), %s, %s)), 0)""", asked - begun, ttl, len(self.servers), len(granted))
            if validity is not None:
                if validity > 0:
                    return asked + float(validity), tokens
                break
        self.release(name, tokens)
        return None

    def release(self, name, tokens):
        for n, token in enumerate(tokens):
            if token is not None:
                self.ask(n, "SELECT distsys.lease_release(%s, %s)", name, token)


# ---- the demonstration ------------------------------------------------------

class Server:
    def __init__(self, bindir, folder):
        self.bindir, self.folder = bindir, folder
        self.dsn = f"host={folder} dbname=postgres user=postgres"
        os.mkdir(folder)
        self.run("initdb", "-D", f"{folder}/data", "-A", "trust", "-U", "postgres", "--no-sync")
        with open(f"{folder}/data/postgresql.conf", "a") as conf:
            conf.write(f"listen_addresses = ''\nunix_socket_directories = '{folder}'\nshared_buffers = 16MB\nshared_preload_libraries = 'distsys'\n")
        self.start()
        connection = psycopg2.connect(self.dsn)
        connection.autocommit = True
        connection.cursor().execute("CREATE EXTENSION distsys")
        connection.close()

    def run(self, program, *options):
        with open(f"{self.folder}/log", "a") as log:
            subprocess.run([f"{self.bindir}/{program}", *options], stdout=log, stderr=log, check=True)

    def start(self):
        self.run("pg_ctl", "-D", f"{self.folder}/data", "-l", f"{self.folder}/server.log", "-w", "start")

    def kill(self):
        self.run("pg_ctl", "-D", f"{self.folder}/data", "-m", "immediate", "-w", "stop")


class Board:
    """Who is at which job, as somebody sees it who looks at all clients at once."""

    def __init__(self):
        self.mutex = threading.Lock()
        self.counts = dict(acquired=0, refused=0, overlaps=0, late=0)
        self.present = {}

    def count(self, what):
        with self.mutex:
            self.counts[what] += 1

    def enter(self, job, who):
        with self.mutex:
            self.counts["acquired"] += 1
            if self.present.get(job):
                self.counts["overlaps"] += 1
            self.present.setdefault(job, set()).add(who)

    def leave(self, job, who):
        with self.mutex:
            self.present[job].discard(who)


def client(number, servers, board, stop):
    lock = QuorumLock([s.dsn for s in servers], f"client {number}")
    dice = random.Random(number)
    while not stop.is_set():
        job = f"job {dice.randrange(JOBS)}"
        grant = lock.acquire(job, TTL)
        if grant is None:
            board.count("refused")
            time.sleep(dice.uniform(0.01, 0.05))        # at random, or the same clients split the votes again
            continue
        until, tokens = grant
        board.enter(job, number)
        time.sleep(dice.uniform(0.005, 0.02))           # the job
        if time.monotonic() > until:
            board.count("late")
        board.leave(job, number)
        lock.release(job, tokens)


def compete(servers, seconds):
    """Clients compete for a while; returns what was counted."""
    board, stop = Board(), threading.Event()
    threads = [threading.Thread(target=client, args=(n, servers, board, stop)) for n in range(CLIENTS)]
    for t in threads:
        t.start()
    time.sleep(seconds)
    stop.set()
    for t in threads:
        t.join()
    return board.counts


def insist(servers, owner, job):
    """Acquires the job's lock, again and again for a while: a busy machine may be too slow for a try."""
    lock, give_up = QuorumLock([s.dsn for s in servers], owner), time.monotonic() + 30
    while time.monotonic() < give_up:
        grant = lock.acquire(job, TTL)
        if grant is not None:
            return grant
        time.sleep(0.05)
    return None


def pause_a_holder(servers):
    """A client that stops after it got the lock, for longer than it is good, and then goes on as if nothing were."""
    board = Board()
    grant = insist(servers, "paused", "late job")
    if grant is not None:
        board.enter("late job", "paused")
        if insist(servers, "next", "late job") is not None:
            board.enter("late job", "next")
        if time.monotonic() > grant[0]:
            board.count("late")
    return board.counts


def report(phase, counts):
    print(f"  {phase:<44}" + "".join(f"{counts[k]:>10}" for k in ("acquired", "refused", "overlaps", "late")), flush=True)


def main():
    parser = argparse.ArgumentParser(description="A lock over three servers.")
    parser.add_argument("--bindir", required=True, help="of the servers' programs")
    parser.add_argument("--work", required=True, help="an empty folder")
    parser.add_argument("--seconds", type=float, default=9, help="of competing, in all")
    options = parser.parse_args()

    servers = []
    try:
        for n in range(3):
            servers.append(Server(options.bindir, f"{options.work}/server{n}"))
        print(f"\n  {CLIENTS} clients, {JOBS} jobs, three servers{'':<9}" + "".join(f"{k:>10}" for k in ("acquired", "refused", "overlaps", "late")))
        part = options.seconds / 3
        all_up = compete(servers, part)
        report("all servers are up", all_up)
        servers[1].kill()
        one_down = compete(servers, part)
        report("one is down", one_down)
        servers[0].kill()
        two_down = compete(servers, part)
        report("two are down: no majority", two_down)
        for n in (0, 1):
            servers[n].start()
        again = compete(servers, part)
        report("all are up again", again)
        paused = pause_a_holder(servers)
        report("a holder is paused beyond its validity", paused)
    finally:
        for server in servers:
            try:
                server.kill()
            except subprocess.CalledProcessError:
                pass                                    # it is down already

    expected = (all(c["acquired"] > 0 and c["overlaps"] == 0 for c in (all_up, one_down, again)) and two_down["acquired"] == 0
                and paused["overlaps"] == 1)
    print("\n  It saves work: one client per job, also with a server down. It does not protect data: the client that was"
          "\n  paused goes on, and no token can refuse him." if expected else "\n  NOT AS PROMISED")
    return 0 if expected else 1


if __name__ == "__main__":
    sys.exit(main())
