"""What all processes of a run know: how it is set up, and a few numbers in shared memory.

Each number has one writer, and there is no lock: a process that is killed leaves none behind.
"""

import multiprocessing
import random

fork = multiprocessing.get_context("fork")

MS = 1_000_000                  # nanoseconds
WORKING, PARKED = 0, 1          # state of a client


class World:
    """seed: of every decision. mutant: a Mutant or None. workloads: classes of workload.py with their weights."""

    def __init__(self, seed, folder, server_folder, clients, names, ttl_ms, functions, workloads, mutant=None, pooler=False, preloaded=True):
        self.seed, self.folder, self.server_folder, self.clients, self.ttl_ms = seed, folder, server_folder, clients, ttl_ms
        self.stale_share = 0.2 if mutant is None else 0.4   # of the steps that use a token which may be dead
        self.numbers = range(names)                         # of leases, of semaphores, ...
        self.functions, self.workloads, self.mutant, self.pooler, self.preloaded = functions, workloads, mutant, pooler, preloaded
        self.stop = multiprocessing.RawArray("b", 1)        # finish what you are at, then park
        self.leave = multiprocessing.RawArray("b", 1)       # disconnect
        self.port = multiprocessing.RawArray("i", 1)        # of the primary
        self.state = multiprocessing.RawArray("b", clients)
        self.done = multiprocessing.RawArray("q", clients)  # operations

    def random(self, *purpose):
        """A generator of its own for each purpose, so that one does not disturb the decisions of another."""
        return random.Random(" ".join(map(str, (self.seed, *purpose))))

    def names(self, family):
        few = self.numbers[:(len(self.numbers) + 1) // 2] if family in ("semaphore", "election") else self.numbers
        return [f"{family} {n}" for n in few]

    def longest_ttl_s(self):
        return self.ttl_ms[1] / 1000

    def has(self, name):
        """Is there such a call, and does it go with the mutant?"""
        return name in self.functions and (self.mutant is None or name in self.mutant.functions)

    def function(self, name):
        mutated = self.mutant is not None and name in self.mutant.functions
        return f"{'mutant' if mutated else 'distsys'}.{name}"
