"""What a run did, what it saw, and what the checkers say."""

from collections import Counter

from journal import OUTCOMES

SHOWN = 5                       # violations of each checker in full


def line(label, value, remark=""):
    value = f"{value:,}" if isinstance(value, int) else value
    print(f"  {label:<30}{value:>9}   {remark}".rstrip())


def operations(history):
    counts, codes = {}, Counter()
    for o in history.operations:
        if o.whole is None:
            counts.setdefault(call(o), Counter())[o.outcome] += 1
            codes[o.code] += 1
    print(f"\n  {'call':<24}" + "".join(f"{outcome:>10}" for outcome in OUTCOMES))
    for what, by in sorted(counts.items()):
        print(f"  {what:<24}" + "".join(f"{by[outcome] or '.':>10}" for outcome in OUTCOMES))
    del codes[None]
    print("  errors: " + (", ".join(f"{code} {n}" for code, n in sorted(codes.items())) or "none"))


def call(o):
    return f"{o.family} {o.kind}".strip()


def faults(faults):
    print()
    for what, n in sorted(faults.counts.items()):
        line(what, n)
    if faults.longest_pause:
        line("longest pause", f"{faults.longest_pause:.1f} s")


def violations(found, history):
    for checker in sorted({v.checker for v in found}):
        mine = [v for v in found if v.checker == checker]
        print(f"\nVIOLATION {checker}: {len(mine)}")
        for v in mine[:SHOWN]:
            print(f"  {v.text}")
            for text in history.around(v.operations) if v.operations else ():
                print(f"    {text}")
        if len(mine) > SHOWN:
            print(f"  ... and {len(mine) - SHOWN} more")
