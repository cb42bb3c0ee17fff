"""The table at the end."""


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))]


def line(label, value, remark=""):
    value = f"{value:,}" if isinstance(value, int) else value
    print(f"  {label:<30}{value:>9}   {remark}".rstrip())


def report(audit, faults, seconds, title, housekeeping, without):
    a, o = audit, audit.outcomes
    answers = sum(o.values())
    print(f"\n{title}\n")
    line("requests", answers, f"for {a.lines:,} lines of the log; a line may be sent more than once")
    line("  limited", o["limited"] + o["contended"], "429: the address had its 10 a second, 20 at once")
    line("  first runs", o["first"])
    line("  replays", o["replay"], "sent again, answered with the stored answer")
    line("  in progress", o["in_progress"], "409: a sibling was at it")
    line("  rolled back", o["rolled_back"] + o["refused"] + o["cut"], "and sent again by the client")
    line("payments", a.payments, f"{a.unanswered:,} of them committed, and nobody was there to hear of it" if a.unanswered else "")
    line("events published", a.published)
    line("events delivered", a.delivered, f"{a.redelivered:,} of them at a second attempt or later")
    print()
    line("clients killed (-9)", faults["killed"], "in mid-transaction")
    line("consumers killed (-9)", faults["consumer killed"], "in mid-transaction")
    line("connections cut", faults["cut"])
    line("clients paused 1.5 s", faults["paused"])
    line("leases handed over", faults["handed over"], "to a sibling, with a new fencing token")
    line("tries with a stale token", a.stale["refused"] + a.stale["accepted"],
         f"on purpose; {a.stale['outrun']:,} more by clients whose lease had moved on")
    print()
    line("duplicates", a.duplicates, "events booked twice, or without a payment")
    line("losses", a.losses, "payments that a client was told of, or events of payments, that are not there")
    line("double charges", a.double_charges, "keys with more than one payment in the ledger")
    line("stale tokens accepted", a.stale_accepted, "ledger rows behind a higher token of their shard")
    line("replays that differ", a.differing, "in any byte from the first answer")
    line("cents out of balance", a.unbalanced)
    line("admitted over the limit", a.over_limit)
    print()
    line("payments per second", f"{a.payments / seconds:,.0f}", f"in {seconds:.1f} s, each {PER_PAYMENT}")
    line("answers per second", f"{answers / seconds:,.0f}")
    line("removed by the worker", housekeeping[0], f"expired rows, while it ran; {housekeeping[1]} jobs, {housekeeping[2]} failed")
    print(f"\n  {'call (ms)':<30}{'calls':>9}{'p50':>9}{'p99':>9}")
    for call, values in sorted(a.calls.items(), key=lambda item: ORDER.index(item[0]) if item[0] in ORDER else 99):
        print(f"  {call:<30}{len(values):>9,}{percentile(values, 0.5):>9.2f}{percentile(values, 0.99):>9.2f}")
    print()
    if a.clean():
        print("  Nothing doubled, nothing lost, no stale writer.")
    else:
        print("  NOT CLEAN: see the numbers above that should be 0." + (f" (run without {without})" if without else ""))


PER_PAYMENT = "limited, claimed, fenced, booked, published"
ORDER = ["rate_limit_take", "BEGIN", "idempotency_begin", "lease_assert", "fence_assert", "INSERT ledger", "outbox_publish",
         "idempotency_complete", "COMMIT", "ROLLBACK", "lease_acquire", "lease_renew", "lease_release", "fence_current",
         "outbox_fetch", "INSERT booking", "outbox_ack", "outbox_nack"]
