"""The words of the benchmark: a load, a rival with its goal, a case, and what measuring them yields."""
import dataclasses
import statistics
import typing

KEYS = 10_000       # distinct keys or rows that the clients work on, where it is not one hot one
CLIENTS = 16        # where the goals are judged
PIPELINE = 16       # calls sent before the first answer is awaited, in the pipelined cases

FSYNC, ASYNC, MEMORY = "fsync", "async", "memory"   # how a call's writes are committed; MEMORY: it writes nothing


@dataclasses.dataclass
class Load:
    """A pgbench script on the private PostgreSQL server."""
    name: str
    script: str
    kind: str = "ours"          # ours | bare | usual | pgq
    per: int = 1                # calls in one run of the script
    before: tuple = ()          # SQL statements before every round
    transactions: int = 0       # a fixed number of runs of the script instead of a time
    parts: dict = dataclasses.field(default_factory=dict)   # name -> text in the statement whose own latency is wanted


@dataclasses.dataclass
class RedisLoad:
    """Commands for redis-benchmark, one after the other; a step that begins with Lua code is sent as EVALSHA."""
    name: str
    steps: list                 # of (Lua or None, [arguments])
    keyspace: int = KEYS        # __rand_int__ of the keys
    pipeline: int = 1
    durable: bool = False       # appendonly yes, appendfsync always; else no persistence at all
    fill: str = ""              # key format: before the last step of every round ten times as many keys as requests exist
    kind: str = "redis"


@dataclasses.dataclass
class Goal:
    """At least so many times the rival's rate; with `floor`, or at least so many a second, whichever is lower."""
    least: float
    floor: float = 0

    def met(self, ratio, rate):
        return ratio >= self.least or (self.floor > 0 and rate >= self.floor)

    def __str__(self):
        return f"{self.least:.2f}" + (f" or {self.floor:,.0f}/s" if self.floor else "")


@dataclasses.dataclass
class Rival:
    load: typing.Any
    goal: typing.Any = None     # a Goal, or one for each commit mode as a dict; not judged in a sweep
    commits: tuple = (FSYNC, ASYNC, MEMORY)
    sweep: bool = True          # also measured with other numbers of clients
    setup: tuple = ()           # SQL statements before

    def goal_for(self, commit):
        return self.goal.get(commit) if isinstance(self.goal, dict) else self.goal


@dataclasses.dataclass
class Case:
    """One call and what it is measured against, in every commit mode and with every number of clients."""
    domain: str
    name: str
    ours: Load
    rivals: list
    setup: tuple = ()           # SQL statements before
    commits: tuple = (FSYNC, ASYNC)
    clients: int = CLIENTS
    sweep: tuple = ()           # other numbers of clients, for orientation
    quick: bool = True          # part of the smoke run


@dataclasses.dataclass
class Probe:
    """A measurement that is no ratio of two loads: `run(bench)` yields facts."""
    domain: str
    name: str
    run: typing.Callable
    setup: tuple = ()
    quick: bool = True


@dataclasses.dataclass
class Sample:
    """One round of one load. Latencies in milliseconds, None where the load driver does not say."""
    rate: float
    p50: float = None
    p99: float = None
    p999: float = None
    parts: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Comparison:
    """The medians of a call and one rival; the ratio is the median of the rounds' ratios, low and high their ends."""
    domain: str
    case: str
    clients: int
    commit: str
    rival: str
    kind: str
    ours: Sample
    theirs: Sample
    ratio: float
    low: float
    high: float
    goal: Goal = None
    swept: bool = False

    @property
    def met(self):
        return None if self.goal is None else self.goal.met(self.ratio, self.ours.rate)


@dataclasses.dataclass
class Fact:
    domain: str
    name: str
    value: str
    goal: str = ""
    met: bool = None


@dataclasses.dataclass
class Missing:
    """What was not measured, and why. A failure is one that nobody expects."""
    domain: str
    name: str
    reason: str
    failure: bool = False


class Failed(Exception):
    """A load did not run as it should."""


def median_sample(samples):
    def of(values):
        values = [v for v in values if v is not None]
        return statistics.median(values) if values else None
    parts = {name: of([s.parts.get(name) for s in samples]) for name in samples[0].parts}
    return Sample(of([s.rate for s in samples]), of([s.p50 for s in samples]), of([s.p99 for s in samples]),
                  of([s.p999 for s in samples]), parts)


def percentile(ordered, share):
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None
