"""Private Redis servers, and redis-benchmark as their load driver.

redis-benchmark is a C program of about the same cost a request as pgbench, run with two threads as pgbench is. It sends one
kind of command: a pair of commands is measured as two runs, and the pair's rate is the harmonic sum of their rates.
"""
import re
import shutil
import signal
import subprocess
import time

from case import Failed, Sample
from process import Process, load_command

FIRST = 2_000       # requests of the very first run of a load, which tells how many fill a round


def available():
    return shutil.which("redis-server") is not None and shutil.which("redis-benchmark") is not None


class Redis(Process):
    def __init__(self, durable):
        super().__init__("distsys-bench-redis.", signal.SIGKILL)
        self.socket = str(self.dir / "socket")
        self.durable, self.rates = durable, {}

    def launch(self):
        persistence = ["yes", "--appendfsync", "always"] if self.durable else ["no"]
        self.start(shutil.which("redis-server"), "--port", "0", "--unixsocket", self.socket, "--unixsocketperm", "777",
                   "--dir", str(self.dir), "--save", "", "--appendonly", *persistence)
        for _ in range(100):
            if subprocess.run(["redis-cli", "-s", self.socket, "ping"], capture_output=True, text=True).stdout.strip() == "PONG":
                return
            time.sleep(0.1)
        raise Failed(f"Redis did not start: {self.last_words()}")

    def cli(self, *arguments):
        answer = load_command(["redis-cli", "-s", self.socket, *arguments], 60)[0].strip()
        if answer.startswith(("ERR", "NOSCRIPT", "WRONGTYPE")):
            raise Failed(f"redis-cli {arguments[0]}: {answer}")
        return answer

    def load(self, load, clients, seconds):
        if load.fill:
            self.cli("flushall")
        samples = [self.step(load, number, clients, seconds) for number in range(len(load.steps))]
        if len(samples) == 1:
            return samples[0]
        return Sample(1 / sum(1 / s.rate for s in samples))

    def step(self, load, number, clients, seconds):
        code, arguments = load.steps[number]
        command = ["evalsha", self.cli("script", "load", code), *arguments] if code else arguments
        self.answers_well(code, arguments)
        known = self.rates.get((load.name, number, clients))
        if known is None:
            known = self.benchmark(load, command, clients, FIRST, load.keyspace).rate
        requests = max(FIRST, int(known * seconds))
        keyspace = load.keyspace
        if load.fill and number == len(load.steps) - 1:
            keyspace = 10 * requests
            self.cli("flushall")
            self.cli("eval", FILL, "0", load.fill, str(keyspace), arguments[-1])
        sample = self.benchmark(load, command, clients, requests, keyspace)
        self.rates[load.name, number, clients] = sample.rate
        return sample

    def answers_well(self, code, arguments):
        """redis-benchmark does not look at the answers, so look at one."""
        arguments = [a.replace("__rand_int__", "probe") for a in arguments]
        self.cli(*(["eval", code, *arguments] if code else arguments))

    def benchmark(self, load, command, clients, requests, keyspace):
        out = load_command(["redis-benchmark", "-s", self.socket, "-c", str(clients), "-n", str(requests), "-r", str(keyspace),
                            "-P", str(load.pipeline), "--threads", str(min(2, clients)), "--precision", "3", *command], 120)[0]
        rate = re.search(r"throughput summary: ([\d.]+)", out)
        if rate is None:
            raise Failed(f"redis-benchmark: {out[-400:]}")
        return Sample(float(rate[1]), *(latency(out, share) for share in (50, 99, 99.9)))


# Keys as redis-benchmark writes them: twelve digits in place of __rand_int__.
FILL = "for i = 0, tonumber(ARGV[2]) - 1 do redis.call('SET', string.format(ARGV[1], i), ARGV[3]) end"


def latency(out, share):
    """The first step of redis-benchmark's distribution that holds so many per cent."""
    steps = out.split("Cumulative distribution")[0]
    for reached, taken in re.findall(r"^([\d.]+)% <= ([\d.]+) milliseconds", steps, re.M):
        if float(reached) >= share:
            return float(taken)
    return None
