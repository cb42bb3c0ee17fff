#!/usr/bin/env python3
"""Measures distsys against bare statements, the usual SQL solutions, Redis and PgQ, all in one run.

Every call and its rivals run in turn, in several short rounds, on private throw-away servers on Unix sockets. What counts
is the ratio; the ends of the rounds' ratios show the noise. Absolute numbers are for orientation.

  --only WORD     cases whose name or domain contains it
  --rounds N      rounds of every load (3)          --seconds N   length of a round (2)
  --commit        fsync | async | both              --no-sweep    16 clients only, not 1, 4 and 64 (in fewer rounds)
  --hold N        seconds for which a snapshot is held beside a hot row (60)
  --minutes N     about so long at most; what is left then is named
  --quick         a smoke run of about a minute: one round of a second, 16 clients, asynchronous commit, goals are shown and not judged
  --write-docs    rewrites docs/benchmarks.md and its pictures

Exit code 1: a goal was missed, or something could not be measured that should have been.
"""
import argparse
import os
import pathlib
import sys

import psycopg2

import cases_idempotency
import cases_lock
import cases_outbox
import cases_ratelimit
import machine
import report
from case import Failed, Missing
from measure import Bench, run_all
from process import stop_on_signals

CASES = [*cases_ratelimit.CASES, *cases_lock.CASES, *cases_idempotency.CASES, *cases_outbox.CASES, *cases_ratelimit.LONG]


def read_options():
    parser = argparse.ArgumentParser(prog="script/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=int, default=2, help=argparse.SUPPRESS)
    parser.add_argument("--hold", type=int, default=60, help=argparse.SUPPRESS)
    parser.add_argument("--minutes", type=float, default=1440, help=argparse.SUPPRESS)
    parser.add_argument("--commit", choices=("fsync", "async", "both"), default="both", help=argparse.SUPPRESS)
    parser.add_argument("--no-sweep", dest="sweep", action="store_false", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--write-docs", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--pg-config", default=os.environ.get("PG_CONFIG", "pg_config"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.hold, options.sweep, options.commit = 1, 1, 4, False, "async"
    if min(options.rounds, options.seconds, options.hold) < 1:
        parser.error("--rounds, --seconds and --hold are at least 1")
    return options


def chosen(options):
    return [case for case in CASES if options.only in f"{case.domain} {case.name}" and (case.quick or not options.quick)]


def main():
    options = read_options()
    cases = chosen(options)
    if not cases:
        print(f"script/bench: no case is called like {options.only}", file=sys.stderr)
        return 2
    stop_on_signals()
    bench, found = Bench(options), []
    try:
        bench.start()
        facts = machine.describe(bench)
        print(report.heading(facts, options), flush=True)
        for result in run_all(bench, cases):
            found.append(result)
            print(report.line(result, found), flush=True)
    except (Failed, psycopg2.Error) as error:
        print(f"script/bench: {str(error).strip()}", file=sys.stderr)
        return 1
    finally:
        bench.stop()
    print(report.summary(found, bench.absent, options))
    if options.write_docs:
        report.write(found, facts, bench.absent, options, pathlib.Path(__file__).parent.parent / "docs")
    failed = [r for r in found if isinstance(r, Missing) and r.failure]
    missed = [r for r in found if not isinstance(r, Missing) and r.met is False]
    if all(isinstance(r, Missing) for r in found):
        print("script/bench: nothing was measured", file=sys.stderr)
        return 1
    return 1 if failed or (missed and not options.quick) else 0


if __name__ == "__main__":
    sys.exit(main())
