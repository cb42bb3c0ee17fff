"""What goes wrong while the payments run: kills, cut connections, pauses, a lease that changes hands."""

import os
import random
import signal
import time

from world import INSIDE, fork


class Faults:
    """Owns the processes: starts them, hurts them, and starts those again that died."""

    def __init__(self, world, admin, client_main, consumer_main):
        self.world, self.admin = world, admin
        self.client_main, self.consumer_main = client_main, consumer_main
        self.counts = dict.fromkeys(("killed", "consumer killed", "cut", "paused", "handed over"), 0)
        self.paused = {}                        # seat: until when
        self.deck = []                          # faults to come, so that each has its turn
        self.processes = [self.start(seat) for seat in range(world.clients + 1)]

    def start(self, seat):
        main, arguments = (self.client_main, (self.world, seat)) if seat < self.world.clients else (self.consumer_main, (self.world,))
        process = fork.Process(target=main, args=arguments, daemon=True)
        process.start()
        return process

    def restart_dead(self, seats=None):
        for seat in range(self.world.clients + 1) if seats is None else seats:
            if not self.processes[seat].is_alive():
                self.check(self.processes[seat])
                self.world.state[seat] = 0
                self.processes[seat] = self.start(seat)

    def check(self, process):
        if process.exitcode not in (0, -signal.SIGKILL):
            raise SystemExit(f"a process of the demonstration failed (exit code {process.exitcode})")

    def kill(self, seat):
        """kill -9 in the middle of a transaction: stops the process to look, and tries until it is in one."""
        process, deadline = self.processes[seat], time.monotonic() + 1
        while time.monotonic() < deadline and process.is_alive():
            os.kill(process.pid, signal.SIGSTOP)
            if self.world.state[seat] == INSIDE:
                os.kill(process.pid, signal.SIGKILL)
                process.join()
                self.counts["killed" if seat < self.world.clients else "consumer killed"] += 1
                return
            os.kill(process.pid, signal.SIGCONT)
            time.sleep(0.002 * random.random())

    def cut(self, seat):
        with self.admin.cursor() as c:
            c.execute("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = %s", (f"client-{seat}",))
            self.counts["cut"] += c.fetchone()[0]

    def pause(self, seat):
        """A long pause (garbage collection, a stopped virtual machine), and a successor takes the shard over meanwhile."""
        os.kill(self.processes[seat].pid, signal.SIGSTOP)
        self.paused[seat] = time.monotonic() + 1.5
        self.counts["paused"] += 1
        self.hand_over(seat % self.world.shards)

    def hand_over(self, shard):
        self.world.handover[shard] = 1
        self.counts["handed over"] += 1

    def resume(self, everybody=False):
        for seat, until in list(self.paused.items()):
            if everybody or time.monotonic() > until:
                os.kill(self.processes[seat].pid, signal.SIGCONT)
                del self.paused[seat]

    def strike(self):
        """One fault, in random order."""
        if not self.deck:
            self.deck = ["kill", "kill", "cut", "cut", "consumer", "hand over", "pause"]
            random.shuffle(self.deck)
        seat = random.choice([s for s in range(self.world.clients) if s not in self.paused])
        fault = self.deck.pop()
        if fault == "kill":
            self.kill(seat)
        elif fault == "consumer":
            self.kill(self.world.clients)
        elif fault == "cut":
            self.cut(seat)
        elif fault == "hand over":
            self.hand_over(seat % self.world.shards)
        elif not self.paused and self.world.clients > 2:
            self.pause(seat)

    def finish(self, seats):
        self.resume(everybody=True)
        for seat in seats:
            self.processes[seat].join(30)
            if self.processes[seat].is_alive():
                raise SystemExit("a process of the demonstration does not end")
            self.check(self.processes[seat])

    def end(self):
        """Whatever happened: nothing is left running, not even a process that is stopped."""
        for process in self.processes:
            process.kill()
