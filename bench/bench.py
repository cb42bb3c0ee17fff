#!/usr/bin/env python3
"""Measures distsys calls as ratios against yardsticks in the same run.

Every case is a pair of pgbench scripts, the call and its yardstick, run
alternately on a private throw-away server in short rounds; the medians make the
ratio, so that other load on the machine hits both alike. Absolute numbers are printed for
orientation only.

    script/bench [--rounds N] [--seconds N] [--clients N] [--only WORD] [--durability fsync|async|both]
"""
import argparse
import contextlib
import os
import pathlib
import pwd
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

KEYS = 10_000  # distinct rows that the clients work on


class Case:
    """One call against its yardstick; `goal` is the least ratio, `setup` runs once before."""

    def __init__(self, name, call, yardstick, goal, setup="", modes=("fsync", "async")):
        self.name, self.call, self.yardstick, self.goal = name, call, yardstick, goal
        self.setup, self.modes = setup, modes


BARE_UPDATE = rf"""\set k random(1, {KEYS})
UPDATE bare_row SET n = n + 1, at = clock_timestamp() WHERE k = 'k' || :k;
"""
BARE_SETUP = f"""
CREATE TABLE IF NOT EXISTS bare_row (k text COLLATE "C" PRIMARY KEY, n bigint NOT NULL, at timestamptz, filler text) WITH (fillfactor = 50);
INSERT INTO bare_row SELECT 'k' || g, 0, now(), repeat('x', 60) FROM generate_series(1, {KEYS}) g ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS bare_event (LIKE distsys.outbox_event_log INCLUDING ALL);
CREATE SEQUENCE IF NOT EXISTS bare_position;
CREATE TABLE IF NOT EXISTS bare_claim (scope text COLLATE "C", key text COLLATE "C", body text, at timestamptz, PRIMARY KEY (scope, key));
CREATE TABLE IF NOT EXISTS bare_ledger (id bigserial PRIMARY KEY, account text, amount bigint, at timestamptz);
"""

CASES = [
    # every client keeps to its own names, as lease holders do; a lease taken by a client is re-taken by it after release
    Case("lease_acquire (then release)",
         r"""\set k random(1, 500)
SELECT acquired, token FROM distsys.lease_acquire('a' || :client_id || '.' || :k, 'bench', '30 s') \gset
SELECT distsys.lease_release('a' || :client_id || '.' || :k, :token);
""",
         rf"""\set k random(1, {KEYS})
UPDATE bare_row SET n = n + 1, at = clock_timestamp() WHERE k = 'k' || :k;
\set k random(1, {KEYS})
UPDATE bare_row SET n = n + 1, at = clock_timestamp() WHERE k = 'k' || :k;
""", 0.9,
         setup="""DO $$ BEGIN FOR i IN 0..15 LOOP FOR j IN 1..500 LOOP
  PERFORM distsys.lease_release('a' || i || '.' || j, token) FROM distsys.lease_acquire('a' || i || '.' || j, 'bench', '30 s'); COMMIT; END LOOP; END LOOP; END $$;"""),
    Case("lease_renew",
         r"""\set k random(1, 500)
SELECT token FROM bench_lease WHERE c = :client_id AND k = :k \gset
SELECT acquired FROM distsys.lease_renew('r' || :client_id || '.' || :k, :token);
""",
         rf"""\set k random(1, 500)
SELECT token FROM bench_lease WHERE c = :client_id AND k = :k \gset
\set k random(1, {KEYS})
UPDATE bare_row SET n = n + 1, at = clock_timestamp() WHERE k = 'k' || :k;
""", 0.9,
         setup="""CREATE TABLE bench_lease AS SELECT c, k, l.token FROM generate_series(0, 15) c, generate_series(1, 500) k,
         LATERAL distsys.lease_acquire('r' || c || '.' || k, 'bench', '15 min') l WHERE false;
CREATE UNIQUE INDEX ON bench_lease (c, k);
DO $$ BEGIN FOR i IN 0..15 LOOP FOR j IN 1..500 LOOP
  INSERT INTO bench_lease SELECT i, j, token FROM distsys.lease_acquire('r' || i || '.' || j, 'bench', '15 min'); END LOOP; COMMIT; END LOOP; END $$;
ANALYZE bench_lease;"""),
    Case("rate_limit_take, admitted",
         rf"""\set k random(1, {KEYS})
SELECT allowed FROM distsys.rate_limit_take('bench_many', 'k' || :k);
""", BARE_UPDATE, 0.9,
         setup="SELECT distsys.rate_limit_create('bench_many', quota => 1000000, period => '1 s');"),
    Case("rate_limit_take, refused",
         r"""\set k random(1, 100)
SELECT (distsys.rate_limit_take('bench_none', 'k' || :k)).allowed;
""", "SELECT 1;\n", 0.8,
         setup="""SELECT distsys.rate_limit_create('bench_none', quota => 1, period => '1 day');
SELECT count(*) FROM generate_series(1, 100) g, LATERAL distsys.rate_limit_take('bench_none', 'k' || g) t;""",
         modes=("fsync",)),
    Case("xact_lock",
         rf"""\set k random(1, {KEYS})
SELECT distsys.xact_lock('k' || :k, '0');
""",
         rf"""\set k random(1, {KEYS})
SELECT pg_try_advisory_xact_lock(hashtextextended('k' || :k, 0));
""", 0.9, modes=("fsync",)),
    Case("outbox_publish",
         r"""\set k random(1, 1000000)
SELECT distsys.outbox_publish('bench', 'payment.created', '{"id": 4711, "amount": 1234, "currency": "EUR"}', 'k' || :k);
""",
         r"""\set k random(1, 1000000)
INSERT INTO bare_event VALUES ('bench', nextval('bare_position'), gen_random_uuid(), 'payment.created', 'k' || :k, '{"id": 4711, "amount": 1234, "currency": "EUR"}', NULL, NULL, clock_timestamp());
""", 0.9,
         setup="SELECT distsys.outbox_topic_create('bench');"),
    Case("idempotency begin + complete",
         r"""\set k random(1, 1000000000)
BEGIN;
SELECT token FROM distsys.idempotency_begin('bench', 'c' || :client_id || '.' || :k, sha256('x')) \gset
SELECT distsys.idempotency_complete('bench', 'c' || :client_id || '.' || :k, :token, 201, '{"ok": true}');
COMMIT;
""",
         r"""\set k random(1, 1000000000)
BEGIN;
INSERT INTO bare_claim VALUES ('bench', 'c' || :client_id || '.' || :k, '{"ok": true}', clock_timestamp()) ON CONFLICT DO NOTHING;
INSERT INTO bare_ledger (account, amount, at) VALUES ('a', :k, clock_timestamp());
COMMIT;
""", 0.5),
]


class Server:
    """A private server in a temporary folder, run by an unprivileged user, on a Unix socket."""

    def __init__(self, pg_config):
        self.bin = subprocess.check_output([pg_config, "--bindir"], text=True).strip()
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="distsys-bench."))
        self.user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        if os.geteuid() == 0:
            shutil.chown(self.dir, self.user)

    def run(self, program, *args, **kw):
        command = [f"{self.bin}/{program}", *args]
        if os.geteuid() == 0:
            command = ["runuser", "-u", self.user, "--", *command]
        kw.setdefault("cwd", self.dir)
        done = subprocess.run(command, text=True, capture_output=True, **kw)
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed: {done.stderr.strip()}")
        return done.stdout

    def start(self):
        self.run("initdb", "-D", f"{self.dir}/data", "-A", "trust", "-U", "bench", "--no-sync")
        with open(self.dir / "data/postgresql.conf", "a") as conf:
            conf.write(f"listen_addresses = ''\nunix_socket_directories = '{self.dir}'\nmax_connections = 120\n"
                       "shared_preload_libraries = 'distsys'\nshared_buffers = '512MB'\nmax_wal_size = '4GB'\n"
                       "checkpoint_timeout = '30min'\nautovacuum_naptime = '10s'\n")
        self.run("pg_ctl", "-D", f"{self.dir}/data", "-w", "-l", f"{self.dir}/log", "start")

    def stop(self):
        with contextlib.suppress(Exception):
            self.run("pg_ctl", "-D", f"{self.dir}/data", "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.dir, ignore_errors=True)

    def sql(self, text):
        return self.run("psql", "-X", "-q", "-A", "-t", "-h", str(self.dir), "-U", "bench", "-d", "postgres",
                        "-v", "ON_ERROR_STOP=1", "-f", "-", input=text)

    def pgbench(self, script, clients, seconds):
        path = self.dir / "script.sql"
        path.write_text(script)
        out = self.run("pgbench", "-n", "-M", "prepared", "-h", str(self.dir), "-U", "bench", "-f", str(path),
                       "-c", str(clients), "-j", "2", "-T", str(seconds), "postgres")
        failed = re.search(r"number of failed transactions: (\d+)", out)
        if failed and failed[1] != "0":
            raise RuntimeError(f"{failed[1]} failed transactions\n{script}")
        return float(re.search(r"tps = ([\d.]+)", out)[1])


def set_mode(server, mode):
    """async: the session's commit is asynchronous, and the operator has said that grants may be too."""
    value = "on" if mode == "fsync" else "off"
    for setting in ("synchronous_commit", "distsys.durability"):
        server.sql(f"ALTER SYSTEM SET {setting} = '{value}'")
    server.sql("SELECT pg_reload_conf()")


def measure(server, case, args):
    """Medians of call and yardstick over alternating rounds."""
    calls, yardsticks = [], []
    for _ in range(args.rounds):
        yardsticks.append(server.pgbench(case.yardstick, args.clients, args.seconds))
        calls.append(server.pgbench(case.call, args.clients, args.seconds))
    return statistics.median(calls), statistics.median(yardsticks)


def hot_share(server):
    """Share of HOT updates of the lease table, after 100,000 renewals."""
    row = server.sql("""SELECT pg_stat_force_next_flush(); SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables
                        WHERE schemaname = 'distsys' AND relname = 'lease_grant'""").strip().split("\n")[-1]
    updates, hot = (int(x) for x in row.split("|"))
    return updates, hot / max(updates, 1)


def renewals(server, n):
    server.sql(f"""DO $$ DECLARE t bigint; BEGIN
        SELECT token INTO t FROM distsys.lease_acquire('hot', 'bench', '15 min'); COMMIT;
        FOR i IN 1..{n} LOOP PERFORM distsys.lease_renew('hot', t); COMMIT; END LOOP; END $$""")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--only", default="")
    parser.add_argument("--durability", choices=("fsync", "async", "both"), default="both")
    parser.add_argument("--pg-config", default=os.environ.get("PG_CONFIG", "pg_config"))
    args = parser.parse_args()

    server = Server(args.pg_config)
    short = []
    try:
        server.start()
        server.sql("CREATE EXTENSION distsys")
        server.sql(BARE_SETUP)
        print(f"{server.sql('SELECT version()').split(' (')[0]}, {os.cpu_count()} cores, {args.clients} clients, "
              f"prepared statements, medians of {args.rounds} rounds of {args.seconds} s\n")
        print(f"{'call':32} {'commit':7} {'per second':>11} {'yardstick':>11} {'ratio':>6} {'goal':>5}")
        for case in CASES:
            if args.only not in case.name:
                continue
            if case.setup:
                server.sql(case.setup)
            for mode in case.modes:
                if args.durability not in (mode, "both"):
                    continue
                set_mode(server, mode)
                call, yardstick = measure(server, case, args)
                ratio = call / yardstick
                mark = "" if ratio >= case.goal else "  below"
                short += [case.name] if mark else []
                print(f"{case.name:32} {mode:7} {call:11,.0f} {yardstick:11,.0f} {ratio:6.2f} {case.goal:5.2f}{mark}",
                      flush=True)
        if args.only in "renewals HOT":
            set_mode(server, "async")
            server.sql("SELECT pg_stat_reset()")
            renewals(server, 100_000)
            updates, share = hot_share(server)
            print(f"\n{updates:,} lease renewals: {share:.2%} HOT (goal: over 99 %)")
            short += ["HOT"] if share <= 0.99 else []
    finally:
        server.stop()
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
