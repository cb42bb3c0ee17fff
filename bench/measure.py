"""Runs a case: the call and its rivals in turn, round by round, so that what else the machine does hits all of them alike."""
import dataclasses
import time

import psycopg2
from psycopg2 import errorcodes

import pgq
import redis
import yardsticks
from case import MEMORY, Comparison, Failed, Missing, RedisLoad, median_sample
from server import Postgres

NOT_BUILT = (errorcodes.UNDEFINED_FUNCTION, errorcodes.FEATURE_NOT_SUPPORTED)


class Bench:
    """The servers of one run. A peer that is not installed is None, and why is in `absent`."""

    def __init__(self, options):
        self.options, self.absent = options, {}
        self.until = time.monotonic() + options.minutes * 60
        self.postgres = Postgres(options.pg_config)
        self.redis = {False: None, True: None}

    def start(self):
        self.postgres.launch()
        self.postgres.sql("CREATE EXTENSION distsys")
        self.postgres.sql(yardsticks.SETUP)
        if redis.available():
            for durable in self.redis:
                self.redis[durable] = redis.Redis(durable)
                self.redis[durable].launch()
        else:
            self.absent["redis"] = "Redis is not installed (script/setup --bench)"
        if self.postgres.has_extension("pgq"):
            self.postgres.sql(*pgq.SETUP)
        else:
            self.absent["pgq"] = "PgQ is not installed for this server (script/setup --bench)"

    def out_of_time(self):
        return time.monotonic() > self.until

    def stop(self):
        for server in (self.postgres, *self.redis.values()):
            if server is not None:
                server.stop()

    def load(self, load, clients, commit):
        if isinstance(load, RedisLoad):
            return self.redis[load.durable].load(load, clients, self.options.seconds)
        return self.postgres.load(load, clients, self.options.seconds, commit)


def set_up(bench, case):
    """None, or why the case cannot be measured yet."""
    try:
        bench.postgres.sql(*case.setup)
        for rival in getattr(case, "rivals", ()):
            if rival.load.kind not in bench.absent:
                bench.postgres.sql(*rival.setup)
        bench.postgres.sql("CHECKPOINT")
    except psycopg2.Error as error:
        if error.pgcode in NOT_BUILT and "distsys" in str(error) + "".join(case.setup):
            return f"not built yet: {error.diag.message_primary} ({error.pgcode})"
        raise Failed(f"setup: {error}") from None
    return None


def conditions(case, options, swept):
    """(clients, commit): those that goals are judged in, or those of the sweep."""
    for commit in case.commits:
        if options.commit in (commit, "both") or commit == MEMORY:
            for clients in case.sweep if swept else (case.clients,):
                yield clients, commit


def rivals_of(bench, case, commit, swept):
    for rival in case.rivals:
        if commit in rival.commits and rival.load.kind not in bench.absent and (rival.sweep or not swept):
            yield rival


def run_case(bench, case):
    """Yields what was found: comparisons, facts, and what is missing. Returns whether the case can be measured at all."""
    try:
        reason = "no time was left" if bench.out_of_time() else set_up(bench, case)
        if reason is not None:
            yield Missing(case.domain, case.name, reason)
            return False
        if hasattr(case, "run"):
            yield from case.run(bench)
            return False
    except (Failed, psycopg2.Error) as error:
        yield Missing(case.domain, case.name, str(error).strip(), failure=True)
        return False
    yield from run_conditions(bench, case, swept=False)
    return True


def run_conditions(bench, case, swept):
    by_itself = []
    for clients, commit in conditions(case, bench.options, swept):
        where = f"{case.name}, {clients} client{'s' * (clients > 1)}, {commit}"
        try:
            if bench.out_of_time():
                yield Missing(case.domain, where, "no time was left")
            else:
                yield from compare(bench, case, clients, commit, swept, by_itself)
        except (Failed, psycopg2.Error) as error:
            yield Missing(case.domain, where, str(error).strip(), failure=True)
    yield from by_itself


def compare(bench, case, clients, commit, swept, by_itself):
    """The comparisons of one condition; those of single statements, which come last, go to by_itself."""
    rivals = list(rivals_of(bench, case, commit, swept))
    loads = [case.ours, *(rival.load for rival in rivals)]
    rounds = {load.name: [] for load in loads}
    for number in range(max(1, bench.options.rounds // 2) if swept else bench.options.rounds):
        turn = number % len(loads)              # nobody is always the first
        for load in loads[turn:] + loads[:turn]:
            rounds[load.name].append(bench.load(load, clients, commit))
    for rival in rivals:
        yield comparison(case, case.name, clients, commit, rival, rounds[case.ours.name], rounds[rival.load.name], swept)
    if not swept:
        by_itself += parts(case, clients, commit, rivals, rounds)


def comparison(case, name, clients, commit, rival, ours, theirs, swept):
    ratios = sorted(a.rate / b.rate for a, b in zip(ours, theirs))
    middle = len(ratios) // 2
    ratio = ratios[middle] if len(ratios) % 2 else (ratios[middle - 1] + ratios[middle]) / 2
    return Comparison(case.domain, name, clients, commit, rival.load.name, rival.load.kind, median_sample(ours), median_sample(theirs),
                      ratio, ratios[0], ratios[-1], None if swept else rival.goal_for(commit), swept)


def parts(case, clients, commit, rivals, rounds):
    """Each statement of the call's script by itself, from its mean latency, against the one statement of the yardstick."""
    yardstick = next((rival for rival in rivals if getattr(rival.load, "parts", None)), None)
    if yardstick is None:
        return
    single = dataclasses.replace(yardstick, load=dataclasses.replace(yardstick.load, name="a bare UPDATE by key"))
    theirs = [rate_of_part(sample, "", clients) for sample in rounds[yardstick.load.name]]
    for part in case.ours.parts:
        ours = [rate_of_part(sample, part, clients) for sample in rounds[case.ours.name]]
        yield comparison(case, f"{part} by itself", clients, commit, single, ours, theirs, False)


def rate_of_part(sample, part, clients):
    latency = sample.parts[part]
    return dataclasses.replace(sample, rate=clients * 1000 / latency, p50=None, p99=None, p999=None, parts={})


def run_all(bench, cases):
    """What goals are judged by first, then the sweeps over numbers of clients; results as they come."""
    measurable = []
    for case in cases:
        if (yield from run_case(bench, case)):
            measurable.append(case)
    if bench.options.sweep:
        for case in measurable:
            yield from run_conditions(bench, case, swept=True)

