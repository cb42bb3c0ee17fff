"""Nothing fails that has no reason to: every SQLSTATE that a call was answered with has to be in this list.

40001 is the answer to a stale snapshot and to conflicts of the application's own rows, never of ours: so not in READ
COMMITTED, and never from a call that grants, prolongs or releases. 22023 is the answer to who asks for more permits than there are.
"""

from collections import Counter

from violation import Violation

NAME = "errors"

CANCELLED, SERIALIZATION, NO_SERVER, OUT_OF_RANGE = "57014", "40001", "08P01", "22023"
LOST = {"session_renew": "SD002", "renew": "SD002", "transfer": "SD002", "assert": "SD002", "fence": "SD001"}
WITH_SNAPSHOT = ("assert", "fence", "append", "commit")


def expected(o, permits):
    if o.code in (CANCELLED, NO_SERVER, None):
        return True
    if o.code == SERIALIZATION:
        return o.kind in WITH_SNAPSHOT and o["isolation"] != "READ COMMITTED"
    if o.kind == "acquire" and o["session"] is not None and o.code == "SD002":
        return True                             # its session is over
    if o.kind == "acquire" and o.code == OUT_OF_RANGE:
        return o.family == "semaphore" and o["permits"] > permits.least(o)
    if o.kind == "append" and o["instead"]:
        return o.code == "SD002"
    return o.code == LOST.get(o.kind)


def check(history, permits):
    odd = [o for o in history.operations if not expected(o, permits)]
    counts = Counter((o.kind, o.code) for o in odd)
    first = {}
    for o in odd:
        first.setdefault((o.kind, o.code), o)
    return [Violation(NAME, f"{kind} was answered with {code}, {n} times", [first[kind, code]]) for (kind, code), n in counts.items()]
