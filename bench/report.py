"""What was found, as lines on the terminal and as docs/benchmarks.md with a picture for each domain."""
import itertools

import svg
from case import CLIENTS, Comparison, Fact, Missing

TITLES = {"ratelimit": "Rate limits", "lock": "Locks", "idempotency": "Idempotency keys", "outbox": "Outbox"}
COMMITS = {"fsync": "fsync", "async": "asynchronous commit", "memory": "nothing written"}


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def milliseconds(sample):
    if sample.p50 is None:
        return ""
    return " / ".join("-" if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}" for value in (sample.p50, sample.p99, sample.p999))


def verdict(result):
    return "" if result.met is None else "met" if result.met else "MISSED"


# ---- terminal --------------------------------------------------------------

def heading(facts, options):
    lines = [f"{what}: {value}" for what, value in facts]
    return "\n".join(lines + ["", f"medians of {options.rounds} rounds of {options.seconds} s; ratio = ours / theirs (ends of the rounds); "
                                  "latencies p50 / p99 / p99.9 in ms"])


def line(result, found):
    """The line of a result, under a heading when it begins a new call."""
    before = found[-2] if len(found) > 1 else None
    out = ""
    if before is None or before.domain != result.domain:
        out += f"\n== {TITLES[result.domain]}\n"
    if isinstance(result, Missing):
        return out + f"{result.name}\n    {'FAILED' if result.failure else 'skipped'}: {result.reason}"
    if isinstance(result, Fact):
        return out + f"{result.name}\n    {result.value}" + (f"   goal {result.goal} {verdict(result)}" if result.goal else "")
    if not same_call(before, result):
        out += f"{result.case}\n"
    if not same_condition(before, result):
        out += f"  {clients(result.clients)}, {COMMITS[result.commit]}: {number(result.ours.rate)}/s   {milliseconds(result.ours)}\n"
    ends = f"({result.low:.2f}-{result.high:.2f})"
    goal = f"goal {result.goal} {verdict(result)}" if result.goal else ""
    return out + (f"      {result.ratio:6.2f} {ends:13} {result.rival:58} {number(result.theirs.rate):>9}/s  {goal}").rstrip()


def clients(count):
    return f"{count:3} client" + "s" * (count > 1)


def same_call(before, result):
    return isinstance(before, Comparison) and before.case == result.case and before.domain == result.domain


def same_condition(before, result):
    return same_call(before, result) and (before.clients, before.commit) == (result.clients, result.commit)


def summary(found, absent, options):
    judged = [r for r in found if not isinstance(r, Missing) and r.met is not None]
    missed = [r for r in judged if not r.met]
    lines = ["", f"{len(judged)} goals, {len(judged) - len(missed)} met, {len(missed)} missed" + (" (a smoke run does not judge)" if options.quick else "")]
    lines += [f"  missed: {describe(r)}" for r in missed]
    lines += [f"  {'FAILED' if r.failure else 'skipped'}: {r.name}: {r.reason}" for r in found if isinstance(r, Missing)]
    lines += [f"  without a peer: {reason}" for reason in absent.values()]
    return "\n".join(lines)


def describe(result):
    if isinstance(result, Fact):
        return f"{result.name}: {result.value} (goal {result.goal})"
    return f"{where(result)}: {result.ratio:.2f} of {result.rival}" + (f" (goal {result.goal})" if result.goal else "")


def where(result):
    return f"{result.case}, {COMMITS[result.commit]}" + ("" if result.clients == CLIENTS else f", {result.clients} client{'s' * (result.clients > 1)}")


# ---- docs/benchmarks.md ----------------------------------------------------

HOW = f"""Written by `script/bench --write-docs`; do not edit. `script/setup --bench` installs the peers.

What counts is the ratio: ours divided by theirs, calls a second, both in the same run on the same machine. Every call and
its rivals run in turn, round by round; the ratio is the median of the rounds' ratios, the numbers behind it in brackets
are their lowest and highest. Where these are far apart, the machine was busy with something else, and the ratio means little. Absolute
numbers are for orientation: clients and servers share the cores.

- **Servers**: private throw-away ones on Unix sockets. PostgreSQL with `shared_preload_libraries = 'distsys'`,
  `shared_buffers = 512MB` and room for the WAL of the whole run, otherwise the defaults. Redis without persistence, and with `appendonly yes, appendfsync always`.
- **Load**: `pgbench -M prepared` with two threads, and `redis-benchmark --threads 2`: both C programs of about the same cost
  a request. The first seconds of a round of pgbench, in which connections warm up, do not count: each fills its caches and maps the
  shared memory for itself, a few milliseconds of work. Scripts for Redis are sent as `EVALSHA`. redis-benchmark sends one kind of command, so a pair (lock, unlock) is
  two runs and its rate the harmonic sum; every unlock finds a lock to delete.
- **fsync** is `synchronous_commit = on`. **Asynchronous commit** is `synchronous_commit = off` with `distsys.durability = off`: with
  the default `on` a grant waits for its flush by design, and the comparison with an unflushed `UPDATE` would measure the disk.
- **{CLIENTS} clients** where nothing else is said; goals are judged there. Many keys are 10,000. Latencies are p50 / p99 / p99.9 in
  milliseconds, as the load driver saw them; of a pipelined call, those of the whole batch.
- **The usual SQL** is what one finds on the web, written as well as its idea allows: an `INSERT ON CONFLICT` bucket in a PL/pgSQL
  function, a lease table, a slot table and a queue with `SKIP LOCKED`, `INSERT ON CONFLICT` keys. It has no fencing tokens, no exact
  arithmetic, no commit order; that is why it is cheaper where it is.
"""


def write(found, facts, absent, options, docs):
    text = ["# Benchmarks", "", HOW, "| | |", "|---|---|", *(f"| {what} | {value} |" for what, value in facts),
            f"| rounds | {options.rounds} of {options.seconds} s each |", "", *goals(found), "", *losses(found), "", *not_measured(found, absent)]
    for domain, title in TITLES.items():
        results = [r for r in found if r.domain == domain and not isinstance(r, Missing)]
        if results:
            text += ["", f"## {title}", "", *picture(domain, title, results, docs), *table(results), "", *fact_list(results)]
    (docs / "benchmarks.md").write_text("\n".join(text).rstrip() + "\n", encoding="utf-8")


def goals(found):
    judged = [r for r in found if not isinstance(r, Missing) and r.met is not None]
    missed = [r for r in judged if not r.met]
    yield f"**{len(judged) - len(missed)} of {len(judged)} goals met.**" + (" Missed:" if missed else "")
    yield ""
    yield from (f"- {describe(r)}" for r in missed)


def losses(found):
    """Where every round was slower than the rival, the largest loss first; a rival that is the same call in another form is none."""
    lost = [r for r in found if isinstance(r, Comparison) and not r.swept and r.high < 1 and not r.rival.startswith("rate_limit_take")]
    yield "## Where we lose"
    yield ""
    yield "Every round of these was slower than the rival:" if lost else "Nowhere in every round."
    yield ""
    for kind, title in KINDS:
        rows = sorted((r for r in lost if r.kind == kind), key=lambda r: r.ratio)
        if rows:
            yield f"- against {title}: " + "; ".join(f"{where(r)}: **{r.ratio:.2f}** ({r.rival})" for r in rows)


KINDS = [("redis", "Redis"), ("pgq", "PgQ"), ("usual", "the usual SQL"), ("bare", "a bare statement, which does less")]


def not_measured(found, absent):
    missing = [r for r in found if isinstance(r, Missing)]
    if missing or absent:
        yield "Not measured:"
        yield ""
        yield from (f"- {r.name}: {r.reason}" for r in missing)
        yield from (f"- {reason}" for reason in absent.values())


def picture(domain, title, results, docs):
    comparisons = [r for r in results if isinstance(r, Comparison)]
    if comparisons:
        name = f"benchmarks-{domain}.svg"
        (docs / name).write_text(svg.picture(title, comparisons), encoding="utf-8")
        yield f"![{title}: ratios to every rival]({name})"
        yield ""


def table(results):
    comparisons = [r for r in results if isinstance(r, Comparison)]
    if not comparisons:
        return
    yield "| call | clients | commit | a second | p50 / p99 / p99.9 ms | against | a second | its p50 / p99 / p99.9 | ratio | goal |"
    yield "|---|---:|---|---:|---|---|---:|---|---|---|"
    for _, group in itertools.groupby(comparisons, key=lambda r: (r.case, r.clients, r.commit)):
        for position, r in enumerate(group):
            ours = (r.case, r.clients, "" if r.commit == "memory" else r.commit, number(r.ours.rate), milliseconds(r.ours)) if position == 0 else ("",) * 5
            goal = f"{r.goal} {verdict(r)}" if r.goal else ""
            yield "| " + " | ".join(map(str, (*ours, r.rival, number(r.theirs.rate), milliseconds(r.theirs),
                                              f"**{r.ratio:.2f}** ({r.low:.2f}-{r.high:.2f})", goal))) + " |"


def fact_list(results):
    for r in results:
        if isinstance(r, Fact):
            yield f"- {r.name}: **{r.value}**" + (f" (goal {r.goal}, {verdict(r)})" if r.goal else "")
