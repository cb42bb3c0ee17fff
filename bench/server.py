"""The private PostgreSQL server, and pgbench as its load driver.

pgbench runs with two threads and prepared statements. Latencies are those of its per-transaction log, of a sample where
there are many, so that writing the log does not slow what is measured.
"""
import os
import re
import signal
import subprocess
import time

import psycopg2

from case import ASYNC, Failed, Sample, percentile
from process import Process, load_command

SETTINGS = """
listen_addresses = ''
max_connections = 150
shared_preload_libraries = 'distsys'
shared_buffers = '512MB'
max_wal_size = '8GB'
checkpoint_timeout = '60min'
autovacuum_naptime = '10s'
"""
LOGGED = 20_000     # transactions whose latency is written down in a round


class Postgres(Process):
    def __init__(self, pg_config):
        super().__init__("distsys-bench.", signal.SIGQUIT)
        self.bin = subprocess.check_output([pg_config, "--bindir"], text=True).strip()
        self.share = subprocess.check_output([pg_config, "--sharedir"], text=True).strip()
        self.rates = {}         # what a load did last, to choose how many of its latencies to log

    def launch(self):
        self.run(f"{self.bin}/initdb", "-D", f"{self.dir}/data", "-A", "trust", "-U", "bench", "--no-sync")
        with open(self.dir / "data/postgresql.conf", "a", encoding="utf-8") as conf:
            conf.write(f"{SETTINGS}unix_socket_directories = '{self.dir}'\n")
        self.start(f"{self.bin}/postgres", "-D", f"{self.dir}/data")
        for _ in range(300):
            try:
                self.connect().close()
                return
            except psycopg2.OperationalError:
                if not self.alive():
                    raise Failed(f"the server did not start: {self.last_words()}") from None
                time.sleep(0.1)
        raise Failed("the server did not answer in 30 s")

    def connect(self):
        connection = psycopg2.connect(host=str(self.dir), user="bench", dbname="postgres")
        connection.autocommit = True
        return connection

    def sql(self, *texts):
        """Runs statements, each text a round trip and, of itself, a transaction; the rows of the last one."""
        connection = self.connect()
        try:
            with connection.cursor() as cursor:
                for text in texts:
                    cursor.execute(text)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def has_extension(self, name):
        return os.path.exists(f"{self.share}/extension/{name}.control")

    def load(self, load, clients, seconds, commit, again=False):
        """The load for so many seconds, after those in which the connections warm up, or for its number of transactions."""
        if load.before:
            self.sql(*load.before)
        for old in self.dir.glob("latency*"):
            old.unlink()
        length = ["-t", str(load.transactions)] if load.transactions else ["-T", str(warm_up(clients) + seconds), "-P", "1"]
        out, err = self.pgbench(load, clients, commit, *length, *(["-r"] if load.parts else []), *self.log_options(load, clients, seconds))
        failed = re.search(r"number of failed transactions: (\d+)", out)
        if failed and failed[1] != "0":
            raise Failed(f"{failed[1]} failed transactions in {load.name}")
        rate = float(re.search(r"tps = ([\d.]+)", out)[1]) if load.transactions else last_rate(progress(err), seconds)
        if rate == 0:                   # on a very busy machine the clients may take the whole round to connect
            if again:
                raise Failed(f"{load.name}: not one transaction ended in time")
            return self.load(load, clients, 5 * seconds, commit, again=True)
        self.rates[load.name, clients] = rate
        return Sample(rate * load.per, *self.latencies(seconds), statement_latencies(out, load.parts))

    def load_for_long(self, load, clients, seconds, commit, every):
        """The rates of the parts of a long run."""
        _, err = self.pgbench(load, clients, commit, "-T", str(seconds), "-P", str(every))
        return [rate for _, rate in progress(err)]

    def pgbench(self, load, clients, commit, *options):
        script = self.dir / "script.sql"
        script.write_text(load.script)
        command = [f"{self.bin}/pgbench", "-n", "-M", "prepared", "-h", str(self.dir), "-U", "bench", "-f", str(script),
                   "-c", str(clients), "-j", str(min(2, clients)), "-D", "counter=0", *options, "postgres"]
        return load_command(command, 180, PGOPTIONS=OPTIONS[commit == ASYNC])

    def log_options(self, load, clients, seconds):
        expected = load.transactions * clients or self.rates.get((load.name, clients), 10_000) * seconds
        share = min(1, LOGGED / expected)
        return ["-l", "--log-prefix", str(self.dir / "latency"), *(["--sampling-rate", f"{share:.4f}"] if share < 1 else [])]

    def latencies(self, seconds):
        """p50, p99 and p99.9 of what ended in the last seconds."""
        taken = []
        for path in self.dir.glob("latency*"):
            with open(path, encoding="ascii") as lines:
                taken += [logged(line) for line in lines if line.count(" ") >= 5]
        last = max((ended for ended, _ in taken), default=0)
        recent = sorted(latency for ended, latency in taken if ended > last - seconds)
        return [percentile(recent, share) for share in (0.5, 0.99, 0.999)]


def warm_up(clients):
    """Seconds in which connections are made, caches filled and memory mapped; the more clients, the longer."""
    return 1 + clients // 32


def progress(err):
    """(end in seconds, transactions a second) of the parts of a run, from pgbench -P."""
    return [(float(end), float(rate)) for end, rate in re.findall(r"progress: ([\d.]+) s, ([\d.]+) tps", err)]


def last_rate(parts, seconds):
    """The mean rate of the last seconds; the parts are not all of one length on a busy machine."""
    begin, total, length = 0, 0, 0
    for end, rate in parts:
        if end > parts[-1][0] - seconds + 0.5:
            total, length = total + rate * (end - begin), length + end - begin
        begin = end
    return total / length if length else 0


def logged(line):
    """(end in seconds, latency in milliseconds) of a line of pgbench's log."""
    _, _, latency, _, second, microsecond = line.split()[:6]
    return int(second) + int(microsecond) / 1_000_000, int(latency) / 1000


OPTIONS = {
    # asynchronous: the session's commit is, and the operator has said that grants and claims may be too
    True: "-c synchronous_commit=off -c distsys.durability=off",
    False: "-c synchronous_commit=on",
}


def statement_latencies(out, parts):
    """Mean latency in ms of the statements that contain a text, from pgbench -r."""
    found = {}
    for name, text in parts.items():
        taken = [float(m[1]) for m in re.finditer(r"^ +([\d.]+) +\d* +(.*)$", out, re.M) if text in m[2]]
        if not taken:
            raise Failed(f"pgbench did not report the statement with {text}")
        found[name] = sum(taken) / len(taken)
    return found
