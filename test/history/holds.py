"""Who held what, and when: from the operations of one token the time in which its client may believe to hold it.

A hold begins when the grant is answered. It ends when its time is over, counted by the client from before its call
(rule of the documentation: `ttl_remaining` from before the call, on a monotonic clock), or when the client asks to
release. A transaction that has asserted the lease, and has ended well, held it from the assert to its end whatever the
time says. So a hold claims nothing that a client could not rely on: two that overlap are a violation without excuse.
"""

S = 1_000_000_000


class Hold:
    """One grant. valid: until when its client may believe in it; proven: until when the server has said so since."""

    def __init__(self, first, token):
        self.name, self.token, self.client, self.first = first.name, token, first.client, first
        self.shared = first["mode"] == "shared"
        self.permits = first["permits"] or 1
        self.begin = self.valid = self.proven = first.end
        self.operations = [first]
        self.released = False
        self.revived = None                     # the failover after which the server says that it is live, whatever has been before
        self.early_loss = None                  # the operation that said "lost" too early

    @property
    def end(self):
        return max(self.valid, self.proven)

    def cut(self, at):
        """Its client cannot believe in it any longer than this."""
        self.valid = max(self.begin, min(self.valid, at))


GRANTING = ("acquire", "transfer")


def holds(history, families):
    """All holds of these families, by name and begin."""
    by_token, promotions = {}, history.faults("promote")
    for o in history.of("acquire", "transfer", "renew", "assert", "release", families=families):
        for token in {o.arguments.get("token"), o.result.get("token")} - {None}:
            by_token.setdefault((o.name, token), []).append(o)
    found = []
    for (_, token), operations in by_token.items():
        grants = [o for o in operations if o.kind in GRANTING and o.result.get("token") == token and o.ok()]
        if grants:
            later = [o for o in operations if o is not grants[0]]
            failover = next((p for p in promotions if grants[0].begin < p.begin), None)
            found.append(one_hold(token, grants[0], [o for o in later if not after(failover, o)]))
            found += revived(token, grants[0], [o for o in later if after(failover, o)], failover)
    for o in history.of("break", families=families):
        if o.outcome in ("ok", "unknown"):
            cut_by_break(found, o)
    return sorted(found, key=lambda h: (h.name, h.begin))


def one_hold(token, first, operations):
    hold = Hold(first, token)
    hold.valid = first.begin + int(first["left"] * S)
    for o in operations:
        if o.begin < first.begin:
            continue
        hold.operations.append(o)
        if o.kind == "acquire" and o.ok():              # the same request, asked again
            hold.valid = max(hold.valid, o.begin + int(o["left"] * S))
        elif o.kind == "renew" and o.outcome == "ok":
            hold.valid, hold.proven = o.begin + int(o["left"] * S), o.begin
        elif o.kind == "renew" and o.outcome == "unknown":
            hold.valid = min(hold.valid, o.begin + int(o["ttl"] * S))
        elif o.kind == "assert" and o.outcome == "ok":
            hold.proven = max(hold.proven, o.begin, pinned_until(o))
        elif ends(o):
            hold.released = o.kind != "assert" and o.kind != "renew" and o.outcome == "ok"
            if o.answered is not None and o.answered < hold.valid and (o.outcome == "lost" or o.kind == "release" and o.outcome == "refused"):
                hold.early_loss = o
            hold.valid = min(hold.valid, o.begin)
            if o.kind == "release" and o.outcome == "ok" and first["min_hold"] is not None:      # nobody's, and nobody else's
                hold.valid = max(hold.valid, first.begin + int(first["min_hold"] * S))
            break
        else:
            hold.operations.pop()
    return hold


def after(failover, o):
    """Is it about what the new primary knows? Who gives a grant away does that, whoever answers."""
    return failover is not None and (o.begin > failover.begin or not ends(o) and (o.answered is None or o.answered > failover.begin))


def revived(token, first, operations, failover):
    """A failover forgets what came last, perhaps that the grant was over: what is said after it proves nothing about before."""
    found = []
    for o in operations:
        if o.kind in ("renew", "assert") and o.outcome == "ok":
            hold = Hold(first, token)
            hold.operations.append(o)
            hold.begin, hold.revived = o.answered, failover
            hold.valid = o.begin + int(o["left"] * S) if o.kind == "renew" else 0
            hold.proven = pinned_until(o) if o.kind == "assert" else 0
            found.append(hold)
        elif ends(o):
            for hold in found:
                hold.cut(o.begin)
    return found


def ends(o):
    """The client gives it away, may have done so, or has been told that it is lost."""
    if o.outcome == "lost":
        return True
    if o.kind == "release":
        return o.outcome != "failed"
    return o.kind == "transfer" and o.outcome in ("ok", "unknown")


def cut_by_break(found, o):
    """Whatever was held while an operator broke it, or granted with the answer under way, may be over; what is proven or pinned stays."""
    for hold in found:
        if hold.name == o.name and (o.outcome == "unknown" or hold.first.begin < o.answered):
            if o.begin < hold.valid:
                hold.cut(o.begin)
            if hold.early_loss is not None and hold.early_loss.answered > o.begin:
                hold.early_loss = None


def pinned_until(o):
    """The beginning of the COMMIT that went well; any other transaction may have ended, in the server, before its client knew."""
    return o.commit.begin if o.commit is not None and o.commit.kind == "commit" and o.commit.outcome == "ok" else 0


def advisory_holds(history):
    """Locks of transactions and sessions: held while the connection lives, which only a good end proves."""
    found, open_sessions = [], {}
    for o in history.of("xact_lock", "session_lock", "session_unlock"):
        if o.outcome != "ok":
            continue
        if o.kind == "xact_lock" and o.commit is not None and o.commit.outcome == "ok":
            hold = Hold(o, (o.client, o.life, o.serial))
            hold.name, hold.begin, hold.valid, hold.proven = "transaction's " + o.name, o.answered, o.answered, o.commit.begin
            found.append(hold)
        elif o.kind == "session_lock":
            open_sessions[o.name, o["token"]] = o
        elif o.kind == "session_unlock" and (o.name, o["token"]) in open_sessions:
            hold = Hold(open_sessions.pop((o.name, o["token"])), o["token"])
            hold.name, hold.proven = "session's " + o.name, o.begin
            hold.operations.append(o)
            found.append(hold)
    return sorted(found, key=lambda h: (h.name, h.begin))


def takeovers(found):
    """Grants over one whose holder has not released it: its time was over."""
    return sum(1 for before, after in zip(found, found[1:]) if before.name == after.name and not before.released and not after.shared and not after.name.startswith("semaphore"))
