#!/usr/bin/env python3
"""The payment path under fire: clients replay an access log as payments while things go wrong; then an audit.

Called by script/demo, which makes the server. Exit code: 0 nothing doubled, lost or out of order; 1 otherwise.
"""

import argparse
import os
import sys
import time

import psycopg2

import accesslog
import client
import consumer
from audit import Audit
from faults import Faults
from report import report
from world import World


def arguments():
    p = argparse.ArgumentParser(prog="script/demo")
    p.add_argument("file", nargs="?")
    p.add_argument("--clients", type=int, default=8)
    p.add_argument("--seconds", type=float, default=15)
    p.add_argument("--without", choices=("claim", "fence", "transaction"))
    p.add_argument("--server", help=argparse.SUPPRESS)          # folder of the server's socket
    p.add_argument("--work", help=argparse.SUPPRESS)            # folder for the journals
    p.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    a = p.parse_args()
    if not 2 <= a.clients <= 40:
        p.error("--clients: 2 to 40")
    return a


class Progress:
    """One line that moves on a terminal, a line every five seconds elsewhere."""

    def __init__(self, world):
        self.world, self.began, self.shown, self.terminal = world, time.monotonic(), 0, sys.stdout.isatty()

    def show(self):
        now = time.monotonic()
        if now - self.shown < (0.2 if self.terminal else 5):
            return
        self.shown = now
        t = self.world.total
        text = (f"  {now - self.began:5.1f} s   {t('first'):,} payments, {t('replay'):,} replays, {t('in_progress'):,} in progress,"
                f" {t('limited'):,} limited, {t('delivered'):,} delivered")
        print(("\r" + text + "   ") if self.terminal else text, end="" if self.terminal else "\n", flush=True)

    def end(self):
        if self.terminal:
            print()


def run(world, admin, seconds):
    """Lets clients and consumer work for a while, hurts them, and waits for the consumer to catch up."""
    faults = Faults(world, admin, client.main, consumer.main)
    try:
        return run_with(faults, world, admin, seconds)
    finally:
        faults.end()


def run_with(faults, world, admin, seconds):
    began, progress = time.monotonic(), Progress(world)
    strike, finished = began + 0.5, lambda: all(world.done[c] >= len(world.lists[c]) for c in range(world.clients))
    while time.monotonic() - began < seconds and not finished():
        time.sleep(0.05)
        faults.restart_dead()
        faults.resume()
        if time.monotonic() > strike:
            faults.strike()
            strike = time.monotonic() + 0.3
        progress.show()
    faults.restart_dead()
    world.stop[0] = 1
    faults.finish(range(world.clients))
    elapsed = time.monotonic() - began

    deadline = time.monotonic() + 20
    with admin.cursor() as c:
        while time.monotonic() < deadline:
            faults.restart_dead([world.clients])
            c.execute("SELECT (SELECT lag_events FROM distsys.outbox_groups) + (SELECT count(*) FROM distsys.outbox_retry)")
            if c.fetchone()[0] == 0:
                break
            time.sleep(0.05)
    world.stop[0] = 2
    faults.finish([world.clients])
    progress.end()
    return faults.counts, elapsed


def housekeeping(admin):
    with admin.cursor() as c:
        c.execute("SELECT coalesce(sum(rows_removed), 0)::bigint, count(*), count(*) FILTER (WHERE consecutive_failures > 0) FROM distsys.worker_jobs")
        return c.fetchone()


def main():
    a = arguments()
    if a.file:
        requests, skipped = accesslog.read(a.file)
        source = f"{os.path.basename(a.file)}: {len(requests):,} requests" + (f", {skipped:,} lines of another shape skipped" if skipped else "")
    else:
        requests, skipped = accesslog.generate(20000, seed=1)
        source = "a generated access log"
    if a.check:
        return 0
    world = World(f"host={a.server} dbname=shop", a.work, requests, a.clients, a.without)
    admin = psycopg2.connect(world.dsn, user="postgres")
    admin.autocommit = True
    with admin.cursor() as c:
        c.execute("SELECT current_setting('server_version'), (distsys.version()).extension")
        server, extension = c.fetchone()
    print(f"  {a.clients} clients in {world.shards} shards replay {source}", flush=True)
    faults, seconds = run(world, admin, a.seconds)
    audit = Audit(world, admin)
    report(audit, faults, seconds, f"Payments on PostgreSQL {server.split()[0]} with distsys {extension}: {a.clients} clients, {source}",
           housekeeping(admin), a.without)
    return 0 if audit.clean() else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
