"""Who held what, and when: from the operations of one token the time in which its client may believe to hold it.

A hold begins when the grant is answered. It ends when its time is over, counted by the client from before its call
(rule of the documentation: `ttl_remaining` from before the call, on a monotonic clock), or when the client asks to
release. A transaction that has asserted the lease, and has ended well, held it from the assert to its end whatever the
time says. So a hold claims nothing that a client could not rely on: two that overlap are a violation without excuse.
"""

S = 1_000_000_000


class Hold:
    def __init__(self, name, token, first):
        self.name, self.token, self.client, self.first = name, token, first.client, first
        self.begin = self.end = first.end
        self.operations = [first]
        self.released = False
        self.early_loss = None                  # the operation that said "lost" too early


def lease_holds(history):
    """All holds of leases, by name and begin."""
    by_token = {}
    for o in history.of("acquire", "renew", "assert", "release"):
        token = o["token"]
        if token is not None:
            by_token.setdefault((o.name, token), []).append(o)
    holds = []
    for (name, token), operations in by_token.items():
        grants = [o for o in operations if o.kind == "acquire" and o.ok()]
        if grants:
            holds.append(lease_hold(name, token, grants[0], [o for o in operations if o is not grants[0]]))
    return sorted(holds, key=lambda h: (h.name, h.begin))


def lease_hold(name, token, first, operations):
    hold = Hold(name, token, first)
    valid = first.begin + int(first["left"] * S)        # what the client may believe
    proven = first.end                                  # what the server has said since
    for o in operations:
        if o.begin < first.begin:
            continue
        hold.operations.append(o)
        if o.kind == "acquire" and o.ok():              # the same request, asked again
            valid = max(valid, o.begin + int(o["left"] * S))
        elif o.kind == "renew" and o.outcome == "ok":
            valid, proven = o.begin + int(o["left"] * S), o.begin
        elif o.kind == "renew" and o.outcome == "unknown":
            valid = min(valid, o.begin + int(o["ttl"] * S))
        elif o.kind == "assert" and o.outcome == "ok":
            proven = max(proven, o.begin, pinned_until(o))
        elif o.outcome == "lost" or (o.kind == "release" and o.outcome != "failed"):
            hold.released = o.kind == "release" and o.outcome == "ok"
            if o.outcome in ("lost", "refused") and o.answered < valid:
                hold.early_loss = o
            valid = min(valid, o.begin)
            break
        else:
            hold.operations.pop()
    hold.end = max(valid, proven)
    return hold


def pinned_until(o):
    """The beginning of the COMMIT that went well; any other transaction may have ended, in the server, before its client knew."""
    return o.commit.begin if o.commit is not None and o.commit.kind == "commit" and o.commit.outcome == "ok" else 0


def advisory_holds(history):
    """Locks of transactions and sessions: held while the connection lives, which only a good end proves."""
    holds, open_sessions = [], {}
    for o in history.of("xact_lock", "session_lock", "session_unlock"):
        if o.outcome != "ok":
            continue
        if o.kind == "xact_lock" and o.commit is not None and o.commit.outcome == "ok":
            hold = Hold("xact " + o.name, (o.client, o.life, o.serial), o)
            hold.begin, hold.end = o.answered, o.commit.begin
            holds.append(hold)
        elif o.kind == "session_lock":
            open_sessions[o.name, o["token"]] = o
        elif o.kind == "session_unlock" and (o.name, o["token"]) in open_sessions:
            first = open_sessions.pop((o.name, o["token"]))
            hold = Hold("session " + o.name, o["token"], first)
            hold.begin, hold.end = first.answered, o.begin
            hold.operations.append(o)
            holds.append(hold)
    return sorted(holds, key=lambda h: (h.name, h.begin))


def takeovers(holds):
    """Grants of a lease whose holder before has not released it: its time was over."""
    return sum(1 for before, after in zip(holds, holds[1:]) if before.name == after.name and not before.released)
