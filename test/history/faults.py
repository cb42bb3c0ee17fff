"""What goes wrong: a plan from the seed, and the hands that carry it out.

The plan is made before anything runs and says when, what and whom. A fault begins when it is due and the one before it
is over. What a fault did is kept as events, since checkers excuse some losses by them and nothing else:

  crash    the server died and came back; what was not flushed is gone
  promote  the primary is dead, and a standby that had stopped receiving takes its place
"""

import heapq
import os
import signal
import time

import psycopg2

from journal import Event
from server import alive

# fault: how often per second, as long as the run is
RATES = {"pause": 1.2, "kill": 0.8, "restart": 0.25, "promote": 0.1, "pooler": 0.25, "clock": 0.6, "cancel": 0.8}
KINDS = (*RATES, "hash")        # hash holds for the whole run: see settings()
CANCELS = 30                    # in one burst

BACKENDS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND usename LIKE 'client%' ORDER BY pid"


class Fault:
    def __init__(self, at, kind, draw):
        self.at, self.kind, self.draw = at, kind, draw      # draw: a number in [0, 1) that decides about the rest

    def __repr__(self):
        return f"{self.at:.2f} s {self.kind}"


def plan(world, kinds, seconds):
    """Each kind at its own rate, once at least. The first tenth and the last quarter of the run are calm."""
    faults = []
    for kind in kinds:
        if kind in RATES:
            random = world.random("fault", kind)
            count = max(1, round(RATES[kind] * seconds))
            faults += [Fault(seconds * (0.1 + 0.65 * (n + random.random()) / count), kind, random.random()) for n in range(count)]
    return sorted(faults, key=lambda f: f.at)


def settings(kinds):
    return {"distsys.hash_bits": 4} if "hash" in kinds else {}


class Clients:
    """The processes: starts them, and starts those again that died."""

    def __init__(self, world, fork, main):
        self.world, self.fork, self.main = world, fork, main
        self.lives = [0] * world.clients
        self.processes = [self.start(n) for n in range(world.clients)]

    def start(self, number):
        process = self.fork.Process(target=self.main, args=(self.world, number, self.lives[number]), daemon=True)
        process.start()
        return process

    def restart_dead(self):
        for number, process in enumerate(self.processes):
            if not process.is_alive():
                if process.exitcode != -signal.SIGKILL:
                    raise SystemExit(f"client {number} failed (exit code {process.exitcode})")
                self.lives[number] += 1
                self.world.state[number] = 0
                self.processes[number] = self.start(number)

    def signal(self, number, what):
        try:
            os.kill(self.processes[number].pid, what)
        except ProcessLookupError:
            pass

    def end(self):
        """Whatever happened: nothing is left running, not even a process that is stopped."""
        for process in self.processes:
            process.kill()
            process.join()


class Faults:
    def __init__(self, world, clients, cluster, pooler, plan):
        self.world, self.clients, self.cluster, self.pooler = world, clients, cluster, pooler
        self.plan, self.events, self.counts = plan, [], {}
        self.later = []                         # (when, number, what): the second halves of faults
        self.stopped = set()                    # clients that are paused
        self.longest_pause = 0.0
        self.step = 0                           # of the wall clock, seconds
        self.connection = self.connected_to = None

    def count(self, what, n=1):
        self.counts[what] = self.counts.get(what, 0) + n

    def note(self, kind, begin, detail=""):
        self.events.append(Event(kind, begin, time.monotonic_ns(), detail))

    def after(self, seconds, what):
        heapq.heappush(self.later, (time.monotonic() + seconds, len(self.later) + len(self.events), what))

    # ---- when ------------------------------------------------------------------

    def run(self, seconds):
        """The whole plan; returns when the time is over and every fault is, too."""
        began = time.monotonic()
        while True:
            now = time.monotonic()
            self.clients.restart_dead()
            if self.later and self.later[0][0] <= now:
                heapq.heappop(self.later)[2]()
            elif self.plan and self.plan[0].at <= now - began:
                fault = self.plan.pop(0)
                getattr(self, "inject_" + fault.kind)(fault.draw)
            elif now - began >= seconds and not self.plan and not self.later:
                return
            else:
                time.sleep(0.005)

    # ---- clients ---------------------------------------------------------------

    def inject_pause(self, draw):
        """SIGSTOP for three times the longest ttl: a garbage collection, a stopped virtual machine."""
        number = int(draw * self.world.clients)
        if number in self.stopped or len(self.stopped) >= max(1, self.world.clients // 2):
            return
        seconds = 3 * self.world.longest_ttl_s()
        begin = time.monotonic_ns()
        self.clients.signal(number, signal.SIGSTOP)
        self.stopped.add(number)
        self.count("clients paused")

        def go_on():
            self.clients.signal(number, signal.SIGCONT)
            self.stopped.discard(number)
            self.longest_pause = max(self.longest_pause, (time.monotonic_ns() - begin) / 1e9)
            self.note("pause", begin, f"of client {number}")
        self.after(seconds, go_on)

    def inject_kill(self, draw):
        """A client is killed, or its server process is told to end."""
        begin = time.monotonic_ns()
        if int(draw * 1000) % 2:
            number = int(draw * self.world.clients)
            self.clients.signal(number, signal.SIGKILL)
            self.clients.processes[number].join()
            self.count("clients killed")
            self.note("kill", begin, f"of client {number}")
        else:
            self.count("connections cut", self.on_backend(draw, "SELECT pg_terminate_backend(%s)"))
            self.note("kill", begin, "of a connection")

    def inject_cancel(self, draw):
        """A burst of cancels, each a few milliseconds after the one before."""
        random = self.world.random("cancel", draw)
        for n in range(CANCELS):
            self.after(n * 0.004 + 0.004 * random.random(), lambda: self.cancel_one(random.random()))

    def cancel_one(self, draw):
        self.count("cancels sent", self.on_backend(draw, "SELECT pg_cancel_backend(%s)"))

    def on_backend(self, draw, sql):
        """Does something to a server process of a client; the number of processes hit."""
        try:
            backends = [pid for pid, in self.admin(BACKENDS)]
            if backends:
                self.admin(sql, backends[int(draw * len(backends))])
            return min(1, len(backends))
        except psycopg2.Error:
            return 0

    def admin(self, sql, *parameters):
        """A statement on a connection that stays open as long as the server does."""
        try:
            return self.on_connection(sql, parameters)
        except psycopg2.Error as e:
            if e.pgcode is not None and e.pgcode[:3] != "57P":
                raise
            self.connection.close()             # a fault has cut it
            return self.on_connection(sql, parameters)

    def on_connection(self, sql, parameters):
        if self.connection is None or self.connection.closed or self.connected_to is not self.cluster.primary:
            self.connected_to = self.cluster.primary
            self.connection = self.connected_to.connect(application="faults")
        with self.connection.cursor() as cursor:
            cursor.execute(sql, parameters or None)
            return cursor.fetchall() if cursor.description else []

    # ---- servers ---------------------------------------------------------------

    def inject_restart(self, draw):
        """The server dies: shut down immediately, kill -9 of everything, or kill -9 of one of its processes."""
        begin = time.monotonic_ns()
        server, how = self.cluster.primary, ("shut down immediately", "killed", "killed one process of")[int(draw * 3)]
        if how == "killed one process of":
            pid = self.admin(BACKENDS)
            if not pid:
                return
            checkpointer = self.admin("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")[0][0]
            os.kill(pid[0][0], signal.SIGKILL)
            deadline = time.monotonic() + 30
            while alive(checkpointer) and time.monotonic() < deadline:      # the postmaster ends all the others
                time.sleep(0.005)
        else:
            server.kill() if how == "killed" else server.stop()
            server.start()
        server.wait_until("SELECT NOT pg_is_in_recovery()")
        self.count("server crashes")
        self.note("crash", begin, how)

    def inject_promote(self, draw):
        """The standby stops receiving, a little later the primary dies and the standby takes its place."""
        if self.cluster.with_standby:
            self.cluster.cut_off_standby()
            self.after(0.2 + 0.5 * draw, self.fail_over)

    def fail_over(self):
        self.cluster.primary.kill()
        begin = time.monotonic_ns()
        self.cluster.promote_standby()
        self.world.port[0] = self.cluster.primary.port
        if self.pooler is not None:
            self.pooler.restart(self.cluster.primary)
        self.count("failovers")
        self.note("promote", begin)
        self.cluster.start_standby()

    def inject_pooler(self, draw):
        begin = time.monotonic_ns()
        if draw < 0.5:
            self.pooler.restart(self.cluster.primary)
            self.count("pooler restarts")
            self.note("pooler", begin, "restarted")
        else:
            self.pooler.signal(signal.SIGSTOP)
            self.count("pooler pauses")

            def go_on():
                self.pooler.signal(signal.SIGCONT)
                self.note("pooler", begin, "paused")
            self.after(0.3 + draw, go_on)

    def inject_clock(self, draw):
        """The wall clock is set an hour forward or back, on the servers that are there."""
        begin = time.monotonic_ns()
        self.step = 0 if self.step else (3600 if draw < 0.5 else -3600)
        self.admin("LOAD 'distsys'")            # which knows the setting
        self.admin(f"ALTER SYSTEM SET distsys.clock_step = '{self.step} s'")
        self.admin("SELECT pg_reload_conf()")
        self.count("clock steps")
        self.note("clock", begin, f"to {self.step:+} s")
