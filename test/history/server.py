"""Private servers on Unix sockets: a primary with a standby, and a PgBouncer in front of them.

Everything lives in one folder and runs as the user who runs this; it may not be root. fsync is off: faults end
processes, not machines, and what was written to a file survives that. What was not written is lost, and with
wal_writer_delay at its longest that is everything that no COMMIT and no call has flushed.
"""

import os
import shutil
import signal
import subprocess
import time

import psycopg2

POOLER_PORT = 6432
DATABASE = "history"

CONF = """
listen_addresses = ''
unix_socket_directories = '{folder}'
max_connections = 100
fsync = off
wal_writer_delay = 10s
wal_level = replica
hot_standby = on
max_wal_senders = 6
wal_keep_size = 256MB
restart_after_crash = on
log_line_prefix = '%m [%p] %a '
autovacuum_naptime = 1s
"""


class ServerError(Exception):
    """A server did not do what a test needs of it; no statement about the product."""


class Server:
    """One PostgreSQL server in folder/name."""

    def __init__(self, bindir, folder, name, port, settings):
        self.bindir, self.folder, self.port = bindir, folder, port
        self.data, self.log = os.path.join(folder, name), os.path.join(folder, name + ".log")
        self.settings = settings

    def program(self, name, *arguments):
        done = subprocess.run([os.path.join(self.bindir, name), *arguments], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, cwd=self.folder)
        if done.returncode != 0:
            raise ServerError(f"{name}: {done.stdout.strip()}\n{self.last_log()}")

    def last_log(self):
        try:
            with open(self.log, errors="replace") as log:
                return "".join(log.readlines()[-10:])
        except OSError:
            return ""

    def create(self):
        self.program("initdb", "-D", self.data, "-A", "trust", "-U", "postgres", "--no-sync", "--no-instructions", "-E", "UTF8", "--locale=C")
        with open(os.path.join(self.data, "postgresql.conf"), "a") as conf:
            conf.write(CONF.format(folder=self.folder))
            conf.writelines(f"{name} = '{value}'\n" for name, value in self.settings.items())

    def copy_of(self, primary):
        """Makes this a standby of primary."""
        shutil.rmtree(self.data, ignore_errors=True)
        self.program("pg_basebackup", "-D", self.data, "-h", self.folder, "-p", str(primary.port), "-U", "postgres", "-X", "stream", "-c", "fast", "-R", "--no-sync")

    def start(self):
        self.program("pg_ctl", "-D", self.data, "-w", "-t", "60", "-l", self.log, "-o", f"-p {self.port}", "start")

    def stop(self):
        if os.path.exists(os.path.join(self.data, "postmaster.pid")):
            self.program("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop")

    def pid(self):
        with open(os.path.join(self.data, "postmaster.pid")) as file:
            return int(file.readline())

    def kill(self):
        """kill -9 of the postmaster and then of its children, which would otherwise finish what they are at."""
        postmaster = self.pid()
        os.kill(postmaster, signal.SIGSTOP)     # it starts no more
        processes = [postmaster, *children(postmaster)]
        for pid in processes:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        deadline = time.monotonic() + 10
        while any(alive(pid) for pid in processes):
            if time.monotonic() > deadline:
                raise ServerError("the server does not die")
            time.sleep(0.005)
        # a zombie that nobody reaps would pass for a server that runs
        for lock in (os.path.join(self.data, "postmaster.pid"), os.path.join(self.folder, f".s.PGSQL.{self.port}.lock")):
            os.remove(lock)

    def connect(self, user="postgres", application="history", database=DATABASE):
        c = psycopg2.connect(host=self.folder, port=self.port, user=user, dbname=database, application_name=application, connect_timeout=10)
        c.autocommit = True
        return c

    def query(self, sql, *parameters, database=DATABASE):
        """Rows of one statement, on a connection of its own."""
        c = self.connect(database=database)
        try:
            with c.cursor() as cursor:
                cursor.execute(sql, parameters or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            c.close()

    def wait_until(self, sql, seconds=30):
        deadline = time.monotonic() + seconds
        while True:
            try:
                if self.query(sql)[0][0]:
                    return
            except psycopg2.OperationalError:
                pass
            if time.monotonic() > deadline:
                raise ServerError(f"not true after {seconds} s: {sql}\n{self.last_log()}")
            time.sleep(0.02)


class Cluster:
    """A primary, and a standby when one is wanted. The two change places at a promotion."""

    def __init__(self, bindir, folder, settings, with_standby):
        self.servers = [Server(bindir, folder, f"server{n}", 5432 + n, settings) for n in range(2)]
        self.now = 0
        self.with_standby = with_standby

    @property
    def primary(self):
        return self.servers[self.now]

    @property
    def standby(self):
        return self.servers[1 - self.now]

    def start(self):
        self.primary.create()
        self.primary.start()

    def fresh_database(self):
        self.primary.query(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)", database="postgres")
        self.primary.query(f"CREATE DATABASE {DATABASE}", database="postgres")

    def start_standby(self):
        """A fresh copy of the primary, which is itself no standby any more."""
        if self.with_standby:
            self.standby.stop()
            self.standby.copy_of(self.primary)
            self.standby.start()

    def cut_off_standby(self):
        self.standby.query("ALTER SYSTEM SET primary_conninfo = ''")
        self.standby.query("SELECT pg_reload_conf()")
        self.standby.wait_until("SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)")

    def promote_standby(self):
        """It takes the place of the primary, which is dead."""
        self.standby.program("pg_ctl", "-D", self.standby.data, "-w", "promote")
        self.standby.wait_until("SELECT NOT pg_is_in_recovery()")
        self.now = 1 - self.now

    def stop(self):
        for server in self.servers:
            try:
                server.stop()
            except (ServerError, subprocess.TimeoutExpired):
                pass


class Pooler:
    """PgBouncer in transaction mode."""

    def __init__(self, program, folder, users):
        self.program, self.folder = program, folder
        self.ini, self.process = os.path.join(folder, "pgbouncer.ini"), None
        with open(os.path.join(folder, "users.txt"), "w") as file:
            file.writelines(f'"{user}" ""\n' for user in users)

    def write_ini(self, server):
        with open(self.ini, "w") as file:
            file.write(f"""[databases]
{DATABASE} = host={self.folder} port={server.port}
[pgbouncer]
listen_addr =
listen_port = {POOLER_PORT}
unix_socket_dir = {self.folder}
auth_type = trust
auth_file = {self.folder}/users.txt
pool_mode = transaction
default_pool_size = 12
max_client_conn = 200
server_login_retry = 0.1
server_round_robin = 1
query_wait_timeout = 5
logfile = {self.folder}/pgbouncer.log
pidfile = {self.folder}/pgbouncer.pid
log_connections = 0
log_disconnections = 0
ignore_startup_parameters = extra_float_digits,options
""")

    def start(self, server):
        self.write_ini(server)
        self.process = subprocess.Popen([self.program, "-q", self.ini], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder)

    def signal(self, number):
        if self.process is not None:
            self.process.send_signal(number)

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def restart(self, server):
        self.stop()
        self.start(server)


def stat(pid):
    """The fields of /proc/PID/stat after the name: state, parent, ..."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()


def alive(pid):
    """A zombie is dead: init reaps it when it likes."""
    try:
        return stat(pid)[0] != "Z"
    except OSError:
        return False


def children(parent):
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if int(stat(pid)[1]) == parent:
                found.append(int(pid))
        except OSError:                         # it has ended meanwhile
            pass
    return found
