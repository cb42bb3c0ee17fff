#!/usr/bin/env python3
"""Many clients on few names, faults, and checkers that read what the clients were answered.

Called by script/history, which installs the extension where it does no harm. Exit code: 0 clean, 1 violations, 2 the
run was too empty to prove anything, 3 the run itself failed. With --mutant: 0 the checker found the mistake, 1 not.
"""

import argparse
import contextlib
import os
import random
import signal
import sys
import time

import check_append
import check_errors
import check_linear
import check_liveness
import check_overlap
import check_tokens
import client
import faults
import holds
import mutants
import report
from journal import read_history
from permits import Permits
from server import Cluster, Pooler, ServerError
from workload import WORKLOADS
from world import PARKED, World, fork

HERE = os.path.dirname(os.path.abspath(__file__))
PERMITS = 3                     # of each semaphore, at first and at the end
SWEPT = ("distsys.lease_grant", "distsys.leader_term", "distsys.lease_session", "distsys.lease_session_member", f"distsys.semaphore_permit WHERE slot > {PERMITS}")
PARK_S = 20                     # a story is over by then


def arguments():
    p = argparse.ArgumentParser(prog="script/history")
    p.add_argument("--seconds", type=float, default=20)
    p.add_argument("--seed", type=int)
    p.add_argument("--clients", type=int, default=8)
    p.add_argument("--names", type=int, default=4)
    p.add_argument("--ttl", default="200..600")
    p.add_argument("--faults", default="all")
    p.add_argument("--workload", default="all")
    p.add_argument("--mutant", choices=(*mutants.MUTANTS, "all"))
    p.add_argument("--no-preload", action="store_true")
    p.add_argument("--bindir", help=argparse.SUPPRESS)          # programs of the server
    p.add_argument("--pgbouncer", help=argparse.SUPPRESS)
    p.add_argument("--work", help=argparse.SUPPRESS)            # empty folder
    a = p.parse_args()
    a.seed = random.SystemRandom().randrange(1 << 31) if a.seed is None else a.seed
    a.faults = words(p, "--faults", a.faults, faults.KINDS)
    a.workload = words(p, "--workload", a.workload, tuple(WORKLOADS))
    try:
        a.ttl = tuple(map(int, a.ttl.split("..")))
    except ValueError:
        p.error("--ttl: two numbers of milliseconds, as 200..600")
    if len(a.ttl) != 2 or not 100 <= a.ttl[0] <= a.ttl[1]:
        p.error("--ttl: from 100 on, the lower one first")
    if not 2 <= a.clients <= 16 or a.names < 1 or a.seconds < 1:
        p.error("--clients: 2 to 16; --names: at least 1; --seconds: at least 1")
    return a


def words(parser, option, text, known):
    chosen = known if text == "all" else () if text == "none" else tuple(text.split(","))
    for word in chosen:
        if word not in known:
            parser.error(f"{option}: {word} is not one of {', '.join(known)}")
    return chosen


class Run:
    """Clients at work on a fresh database of a cluster that is up, and the verdict."""

    def __init__(self, options, cluster, name, kinds, mutant=None):
        self.options, self.cluster, self.kinds, self.mutant = options, cluster, kinds, mutant
        self.folder = os.path.join(options.work, name)
        self.pooler = self.clients = None
        os.mkdir(self.folder)

    def execute(self):
        """Returns the violations and the reasons why nothing is proven."""
        try:
            self.start()
            self.work()
            return self.judge()
        finally:
            if self.clients is not None:
                self.clients.end()
            if self.pooler is not None:
                self.pooler.stop()

    def start(self):
        o = self.options
        self.cluster.fresh_database()
        server = self.cluster.primary
        with open(os.path.join(HERE, "schema.sql")) as schema:
            server.query(schema.read())
        if self.mutant is not None:
            server.query(self.mutant.sql)
        if o.pgbouncer and self.mutant is None:
            self.pooler = Pooler(o.pgbouncer, o.work, ("client_sync", "client_async"))
        functions = {name for name, in server.query("SELECT proname FROM pg_proc WHERE pronamespace = 'distsys'::regnamespace")}
        workloads = [WORKLOADS[w] for w in o.workload if WORKLOADS[w][0].NEEDS in functions]
        self.world = World(o.seed, self.folder, o.work, o.clients, o.names, o.ttl, functions, workloads, self.mutant, self.pooler is not None, not o.no_preload)
        self.world.port[0] = server.port
        self.create(server)
        self.cluster.start_standby()
        if self.pooler is not None:
            self.pooler.start(server)
        kinds = [k for k in self.kinds if k != "pooler" or self.pooler is not None]
        self.plan = faults.plan(self.world, kinds, o.seconds)

    def create(self, server):
        for n in self.world.numbers:
            server.query("SELECT distsys.semaphore_create(%s, %s)", f"semaphore {n}", PERMITS)
            server.query(f"CREATE TABLE attached_{n} PARTITION OF entry FOR VALUES IN ('attached lease {n}')")
            server.query(f"SELECT {self.world.function('fence_attach')}(%s, %s)", f"attached_{n}", f"lease {n}")

    def work(self):
        self.began = time.monotonic_ns()
        self.clients = faults.Clients(self.world, fork, client.main)
        self.faults = faults.Faults(self.world, self.clients, self.cluster, self.pooler, list(self.plan))
        self.faults.run(self.options.seconds)
        self.world.stop[0] = 1
        deadline = time.monotonic() + PARK_S
        while any(state != PARKED for state in self.world.state):
            self.clients.restart_dead()
            if time.monotonic() > deadline:
                raise ServerError(f"clients do not end: {[n for n, s in enumerate(self.world.state) if s != PARKED]}")
            time.sleep(0.01)
        self.worked_s = (time.monotonic_ns() - self.began) / 1e9

    def judge(self):
        server = self.cluster.primary
        entries = server.query("SELECT list, number, id, previous, token FROM entry ORDER BY list, number, id")
        found = check_liveness.check(self.world, server, self.world.longest_ttl_s(), PERMITS, SWEPT)
        self.world.leave[0] = 1
        h = self.history = read_history(self.folder, self.faults.events, self.began)
        permits = Permits(h, PERMITS)
        found += check_overlap.check(h, permits) + check_tokens.check(h) + check_append.check(h, entries)
        linear, self.searched, self.given_up = check_linear.check(h, permits, self.world.longest_ttl_s())
        self.held = holds.holds(h, ("lease", "election", "semaphore"))
        self.entries = len(entries)
        return found + linear + check_errors.check(h, permits), self.empty()

    def empty(self):
        """What this run should have seen and has not: then it proves nothing."""
        outcomes = {(o.kind, o.outcome) for o in self.history.operations}
        reasons = []
        if "lease" in self.options.workload:
            reasons += ["no lease was granted"] * (not any(h.name.startswith("lease") for h in self.held))
            reasons += ["nothing was appended"] * (not self.entries)
            reasons += ["no unguarded write was refused"] * (("append", "lost") not in outcomes)
            reasons += ["no expired lease was taken over"] * ("pause" in self.kinds and not holds.takeovers(self.held))
            reasons += ["no stale token was refused"] * ("pause" in self.kinds and not {("assert", "lost"), ("renew", "lost")} & outcomes)
        if "semaphore" in self.options.workload:
            reasons += ["no permit was refused"] * (not any(o.family == "semaphore" and o.outcome == "refused" for o in self.history.of("acquire")))
            reasons += ["no semaphore was resized"] * (("resize", "ok") not in outcomes)
        reasons += ["no call was left without an answer"] * (bool({"kill", "restart", "promote"} & set(self.kinds)) and not any(o == "unknown" for _, o in outcomes))
        for kind, what in (("pause", "clients paused"), ("restart", "server crashes"), ("promote", "failovers"), ("clock", "clock steps"), ("cancel", "cancels sent")):
            reasons += [f"there were no {what}"] * (kind in self.kinds and not self.faults.counts.get(what))
        return reasons

    def report(self, found):
        report.operations(self.history)
        report.faults(self.faults)
        print()
        report.line("takeovers", holds.takeovers(self.held), f"of {len(self.held):,} grants: the holder before had not released it")
        report.line("entries", self.entries, "in the guarded lists")
        report.line("calls put in order", self.searched, f"the search was given up {self.given_up} times" if self.given_up else "")
        report.violations(found, self.history)


@contextlib.contextmanager
def cluster_for(o, kinds):
    # no grant that a failover forgets lasts longer than new ones are delayed
    settings = {**faults.settings(kinds), "distsys.failover_min_delay": o.ttl[1], **({} if o.no_preload else {"shared_preload_libraries": "distsys"})}
    cluster = Cluster(o.bindir, o.work, settings, "promote" in kinds)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def run_faults(o):
    print(f"seed {o.seed}: {o.clients} clients, {o.names} names, {o.seconds:g} s, faults: {', '.join(o.faults) or 'none'}", flush=True)
    with cluster_for(o, o.faults) as cluster:
        run = Run(o, cluster, "run", o.faults)
        found, empty = run.execute()
    run.report(found)
    print()
    if found:
        print(f"NOT CLEAN: {len(found)} violations. The same plan again: script/history --seed {o.seed} {replay(o)}")
        return 1
    if empty:
        print(f"PROVED NOTHING: {'; '.join(empty)}. Give it more --seconds. (seed {o.seed})")
        return 2
    print(f"clean: {len(run.history.operations):,} calls in {run.worked_s:.1f} s (seed {o.seed})")
    return 0


def replay(o):
    return f"--seconds {o.seconds:g} --clients {o.clients} --names {o.names} --ttl {o.ttl[0]}..{o.ttl[1]} --faults {','.join(o.faults) or 'none'} --workload {','.join(o.workload)}"


def run_mutants(o):
    """One run for each; short, on few names and with a short ttl, so that what is broken shows."""
    chosen = list(mutants.MUTANTS.values()) if o.mutant == "all" else [mutants.MUTANTS[o.mutant]]
    o.names, o.ttl = 2, (150, 250)
    missed = 0
    print(f"seed {o.seed}", flush=True)
    with cluster_for(o, ()) as cluster:
        for number, mutant in enumerate(chosen, 1):
            o.workload = (mutant.workload,)
            run = Run(o, cluster, mutant.name, ("pause",), mutant)
            found, _ = run.execute()
            missed += not verdict(number, mutant, found)
            if len(chosen) == 1:
                run.report(found)
    return 1 if missed else 0


def verdict(number, mutant, found):
    """One line as TAP has it: did the checker find what it is for?"""
    counts = {c: sum(v.checker == c for v in found) for c in sorted({v.checker for v in found})}
    good = mutant.found_by in counts
    print(f"{'ok' if good else 'not ok'} {number} - {mutant.name}, {mutant.mistake}: {mutant.found_by} {'finds' if good else 'does not find'} it"
          f" ({', '.join(f'{c} {n}' for c, n in counts.items()) or 'nothing found'})", flush=True)
    return good


def main():
    o = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    try:
        return run_mutants(o) if o.mutant else run_faults(o)
    except ServerError as e:
        print(f"script/history: the run failed: {e} (seed {o.seed})", file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
