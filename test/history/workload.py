"""What clients do, one small story at a time: a workload is a class with a step().

Every story may end early: by a refusal, by an error, by the end of the connection. Tokens that a client has lost, or
has left behind, it tries again later: a stale token has to be refused.
"""

import contextlib
import time
import uuid

from client import Failed, Gone

ISOLATION = ("READ COMMITTED", "READ COMMITTED", "READ COMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")

MOST_PERMITS = 5                # a semaphore is made as big as this, and as small as one

LEASE = "SELECT acquired, reason, owner, token, extract(epoch FROM ttl_remaining)::float8 FROM "


def grant(row):
    """A row of LEASE as the journal has it."""
    acquired, reason, owner, token, left = row
    fields = {"reason": reason, "owner": owner, "left": left}
    if acquired:
        fields["token"] = token
    return ("ok" if acquired else "refused"), fields


def prolonged(row):
    """The same of a renewal, which is one of the token that was given."""
    outcome, fields = grant(row)
    fields.pop("token", None)
    return outcome, fields


def yes_or_no(row):
    return ("ok" if row[0] else "refused"), {}


class Story:
    """What the workloads have in common."""

    def __init__(self, client):
        self.client, self.random, self.world, self.function = client, client.random, client.world, client.world.function
        self.stale = {}                         # name: a token that is or may be dead, and how it was held

    def chance(self, probability):
        return self.random.random() < probability

    def ttl(self):
        low, high = self.world.ttl_ms
        return self.random.randint(low, high) / 1000

    def wait(self):
        return self.random.choice((0, 0, 0, 0.02, 0.2))

    def append(self, to, guard, name, token, ttl):
        """The guarded critical section: read the last entry, take some time, write the next one."""
        c, isolation = self.client, self.random.choice(ISOLATION)
        if guard == "fence_assert" and not self.world.preloaded:
            isolation = "READ COMMITTED"        # then a fence does not notice every snapshot that is too old, says its page
        c.begin(isolation)
        if self.chance(0.3):
            c.execute("SELECT 1", None)         # a snapshot that is older than the guard
            self.work(ttl)
        self.pass_guard(guard, name, token)
        self.work(ttl)
        self.write(to, token, ttl)

    def pass_guard(self, guard, name, token):
        self.client.call("fence" if guard == "fence_assert" else "assert", name, f"SELECT {self.function(guard)}(%s, %s)", (name, token),
                         {"token": token, "isolation": self.client.isolation})

    def write(self, to, token, ttl, instead=None):
        """The rest of a critical section. instead: what has been done in place of asserting the lease of a table with a fence."""
        c = self.client
        number, previous = c.execute("SELECT number, id FROM entry WHERE list = %s ORDER BY number DESC LIMIT 1", (to,)) or (0, None)
        self.work(ttl)
        entry = f"{c.number}.{c.life}.{c.transactions}"
        c.call("append", to, "INSERT INTO entry VALUES (%s, %s, %s, %s, %s)", (to, number + 1, entry, previous, token),
               {"id": entry, "number": number + 1, "previous": previous, "token": token, "isolation": c.isolation, "durable": c.role == "client_sync",
                "instead": instead})
        c.end()

    def work(self, ttl):
        kind = self.random.random()
        if kind < 0.05:
            self.client.pause(2 * ttl * self.random.random())
        elif kind < 0.4:
            self.client.pause(0.02 * self.random.random())


class Leases(Story):
    """Acquire, renew, guarded appends, release; now and then none of it in time. Some of it shared."""

    NEEDS = "lease_acquire"

    def step(self):
        action = self.random.random()
        name = self.random.choice(self.world.names("lease"))
        if name in self.stale and self.chance(self.world.stale_share):
            self.use_stale(name)
        elif action < 0.05 and self.world.has("lease_acquire_all"):
            self.several()
        elif action < 0.06 and self.world.has("lease_break"):
            self.break_(name)
        elif action < 0.16 and self.world.has("lease_session_open"):
            self.session()
        else:
            self.one(name, "shared" if self.chance(0.2) else "exclusive")

    def one(self, name, mode):
        ttl = self.ttl()
        token = self.acquire(name, ttl, mode)
        if token is None:
            self.client.pause(0.05 * ttl * self.random.random())
            return
        try:
            self.hold(name, token, ttl, mode)
        finally:
            self.stale[name] = token, mode

    # ---- acquire ---------------------------------------------------------------

    def acquire(self, name, ttl, mode):
        """The token, or None. In autocommit mode, in a transaction that began earlier, asked twice, or by CALL."""
        wait, way = self.wait(), self.random.random()
        if way < 0.6:
            return self.ask(name, ttl, wait, mode)
        if way < 0.75:
            return self.acquire_in_transaction(name, ttl, wait, mode)
        if way < 0.9 or mode == "shared":
            return self.acquire_with_request(name, ttl, wait, mode)
        return self.acquire_by_call(name, ttl, wait)

    def ask(self, name, ttl, wait, mode, **more):
        optional = {"request_id": ("%s", "request"), "min_hold": ("make_interval(secs => %s)", "min_hold"), "session_id": ("%s", "session")}
        given = {parameter: (value, key) for parameter, (value, key) in optional.items() if key in more}
        if not given and self.world.mutant is None and self.chance(0.1):
            more["min_hold"], given = ttl * self.random.random(), {"min_hold": optional["min_hold"]}
        sql = (f"{LEASE}{self.function('lease_acquire')}(%s, %s, make_interval(secs => %s), make_interval(secs => %s), %s"
               + "".join(f", {parameter} => {value}" for parameter, (value, _) in given.items()) + ")")
        arguments = {"owner": self.client.owner, "ttl": ttl, "wait": wait, "mode": mode, **more}
        outcome, fields = self.client.call("acquire", name, sql, (name, self.client.owner, ttl, wait, mode, *(more[key] for _, key in given.values())), arguments, grant)
        return fields["token"] if outcome == "ok" else None

    def acquire_in_transaction(self, name, ttl, wait, mode):
        """The time of a grant is that of the call, not that of BEGIN; a token seen is used up also by a rollback."""
        isolation = self.random.choice(ISOLATION)
        self.client.begin(isolation)
        self.client.execute("SELECT 1", None)
        self.client.pause(self.random.random() * ttl)
        token = self.ask(name, ttl, wait, mode, isolation=isolation)
        if self.chance(0.3):
            self.client.end("rollback")
            return None
        return token if self.client.end() == "ok" else None

    def acquire_with_request(self, name, ttl, wait, mode):
        """Asks again with the same id when the answer is lost, and now and then when it is not."""
        request = str(uuid.UUID(int=self.random.getrandbits(128)))
        first = time.monotonic_ns()
        try:
            token = self.ask(name, ttl, wait, mode, request=request, first=first)
            if token is None or self.chance(0.5):
                return token
        except Gone:
            self.client.connect()
        return self.ask(name, ttl, wait, mode, request=request, first=first)

    def acquire_by_call(self, name, ttl, wait):
        """The waiting form, which has transactions of its own."""
        if not self.world.has("lease_lock"):
            return self.ask(name, ttl, wait, "exclusive")
        read = lambda row: ("refused", {"reason": "timeout"}) if row[0] is None else ("ok", {"token": row[0], "left": row[2].total_seconds()})
        outcome, fields = self.client.call("acquire", name, f"CALL {self.function('lease_lock')}(%s, %s, make_interval(secs => %s), make_interval(secs => %s))",
                                           (name, self.client.owner, ttl, wait), {"owner": self.client.owner, "ttl": ttl, "wait": wait, "call": True}, read)
        return fields["token"] if outcome == "ok" else None

    def several(self):
        """Two names, all or nothing, in any order."""
        names = self.random.sample(self.world.names("lease"), min(2, len(self.world.numbers)))
        ttl, wait = self.ttl(), self.wait()
        read = lambda row: ("ok" if row and row[0] else "refused", {"grants": row[1] if row and row[0] else {}})
        sql = (f"SELECT bool_and(acquired), json_object_agg(name, json_build_object('token', token, 'left', extract(epoch FROM ttl_remaining)))"
               f" FROM {self.function('lease_acquire_all')}(%s::text[], %s, make_interval(secs => %s), make_interval(secs => %s))")
        outcome, fields = self.client.call("acquire_all", "lease " + "+".join(names), sql, (names, self.client.owner, ttl, wait),
                                           {"names": names, "owner": self.client.owner, "ttl": ttl, "wait": wait}, read)
        if outcome == "ok":
            for name in names:
                token = fields["grants"][name]["token"]
                self.stale[name] = token, "exclusive"
            for name in names:
                self.hold(name, fields["grants"][name]["token"], ttl, "exclusive")

    def session(self):
        """Several leases under one heartbeat, which may come too late."""
        c, ttl = self.client, self.ttl()
        _, opened = c.call("session_open", None, f"SELECT {self.function('lease_session_open')}(%s, make_interval(secs => %s))",
                           (c.owner, ttl), {"ttl": ttl}, lambda row: ("ok", {"session": row[0]}))
        session, tokens = opened["session"], {}
        for name in self.random.sample(self.world.names("lease"), min(2, len(self.world.numbers))):
            token = self.ask(name, ttl, self.wait(), self.random.choice(("exclusive", "exclusive", "shared")), session=session)
            if token is not None:
                tokens[name] = token
        if not tokens:
            return
        about = {"session": session, "tokens": tokens, "ttl": ttl}
        for _ in range(self.random.randint(1, 4)):
            self.client.pause(ttl * self.random.choice((0.2, 0.4, 0.4, 1.1)))
            read = lambda row: ("ok", {"leases": row[0] or {}})
            sql = ("SELECT json_object_agg(name, json_build_object('token', token, 'reason', reason, 'left', extract(epoch FROM ttl_remaining)))"
                   f" FROM {self.function('lease_session_renew')}(%s)")
            c.call("session_renew", "session " + "+".join(tokens), sql, (session,), about, read)
        c.call("session_close", "session " + "+".join(tokens), f"SELECT {self.function('lease_session_close')}(%s)", (session,), about,
               lambda row: ("ok", {"released": row[0]}))
        self.stale.update((name, (token, "exclusive")) for name, token in tokens.items())

    # ---- hold ------------------------------------------------------------------

    def hold(self, name, token, ttl, mode):
        for _ in range(self.random.randint(0, 3)):
            action = self.random.random()
            if action < 0.25:
                self.renew(name, token, self.ttl())
            elif action < 0.55:
                self.guarded(name, token, ttl, mode)
            elif action < 0.65:
                self.fenced(name, token, ttl, mode)
            elif action < 0.8:
                self.unguarded(name, token, ttl)
            elif action < 0.84:
                token = self.transfer(name, token, mode) or token
            elif action < 0.9:
                self.get(name)
            elif action < 0.97:
                self.client.pause(0.5 * ttl * self.random.random())
            else:
                self.client.pause(3 * ttl)
        if self.chance(0.85):
            self.release(name, token)
            if self.chance(0.1):
                self.release(name, token)

    def renew(self, name, token, ttl):
        sql = f"{LEASE}{self.function('lease_renew')}(%s, %s, make_interval(secs => %s))"
        self.client.call("renew", name, sql, (name, token, ttl), {"token": token, "ttl": ttl}, prolonged)

    def release(self, name, token):
        sql = f"SELECT {self.function('lease_release')}(%s, %s)"
        self.client.call("release", name, sql, (name, token), {"token": token}, yes_or_no)

    def transfer(self, name, token, mode):
        """To itself under another label: what counts is the token."""
        if not self.world.has("lease_transfer"):
            return None
        ttl = self.ttl()
        sql = f"{LEASE}{self.function('lease_transfer')}(%s, %s, %s, make_interval(secs => %s))"
        outcome, fields = self.client.call("transfer", name, sql, (name, token, self.client.owner, ttl),
                                           {"token": token, "owner": self.client.owner, "ttl": ttl, "mode": mode}, grant)
        return fields["token"] if outcome == "ok" else None

    def get(self, name):
        sql = f"SELECT coalesce(bool_or(acquired), false), min(owner) FILTER (WHERE acquired) FROM {self.function('lease_get')}(%s)"
        self.client.call("get", name, sql, (name,), {}, lambda row: ("ok", {"live": row[0], "owner": row[1]}))

    def break_(self, name):
        sql = f"SELECT {self.function('lease_break')}(%s, reason => 'history')"
        self.client.call("break", name, sql, (name,), {}, lambda row: ("ok" if row[0] is not None else "refused", {}))

    def guarded(self, name, token, ttl, mode):
        """Shared holders do not exclude each other, so they only read."""
        if mode == "exclusive":
            attached = self.world.has("fence_attach") and self.chance(0.3)
            self.append(f"{'attached' if attached else 'list'} {name}", "lease_assert", name, token, ttl)
            return
        isolation = self.random.choice(ISOLATION)
        self.client.begin(isolation)
        self.pass_guard("lease_assert", name, token)
        self.work(ttl)
        self.client.end()

    def fenced(self, name, token, ttl, mode):
        resource = "fence" + name.removeprefix("lease")
        if mode == "exclusive":
            self.append(f"list {resource}", "fence_assert", resource, token, ttl)

    def unguarded(self, name, token, ttl):
        """A write to a table with a fence when this transaction has not asserted its lease, or does not any more: it has to be refused."""
        if not self.world.has("fence_attach"):
            return
        c, to = self.client, f"attached {name}"
        others = [f"attached {n}" for n in self.world.names("lease") if n != name]
        instead = self.random.choice(("nothing", "the fence", "an assert that was rolled back", *(["another lease"] * 2 if others else [])))
        c.begin(self.random.choice(ISOLATION))
        if instead == "the fence":
            self.pass_guard("fence_assert", "fence" + name.removeprefix("lease"), token)
        elif instead == "another lease":
            to = self.random.choice(others)
            self.pass_guard("lease_assert", name, token)
        elif instead == "an assert that was rolled back":
            c.execute("SAVEPOINT before", None)
            with contextlib.suppress(Failed):
                self.pass_guard("lease_assert", name, token)
            c.execute("ROLLBACK TO SAVEPOINT before", None)
        self.write(to, token, ttl, instead)

    def use_stale(self, name):
        (token, mode), action = self.stale[name], self.random.random()
        if action < 0.3:
            self.renew(name, token, self.ttl())
        elif action < 0.45:
            self.release(name, token)
        elif action < 0.5:
            self.transfer(name, token, mode)
        elif action < 0.75:
            self.guarded(name, token, self.ttl(), mode)
        elif action < 0.9:
            self.fenced(name, token, self.ttl(), mode)
        else:
            self.unguarded(name, token, self.ttl())


class Semaphores(Story):
    """Permits, one or several at once."""

    NEEDS = "semaphore_acquire"

    def step(self):
        name = self.random.choice(self.world.names("semaphore"))
        if self.world.has("semaphore_resize") and self.chance(0.08):
            self.resize(name)
            return
        if name in self.stale and self.chance(self.world.stale_share):
            self.use(name, self.stale[name])
            return
        ttl, permits = self.ttl(), self.random.choice((1, 1, 2))
        token = self.acquire(name, ttl, permits)
        if token is None:
            self.client.pause(0.05 * ttl * self.random.random())
            return
        self.stale[name] = token
        for _ in range(self.random.randint(0, 2)):
            self.use(name, token)
            self.client.pause(0.2 * ttl * self.random.random())
        if self.chance(0.85):
            self.release(name, token)

    def acquire(self, name, ttl, permits):
        request = str(uuid.UUID(int=self.random.getrandbits(128))) if self.chance(0.2) else None
        arguments = {"owner": self.client.owner, "ttl": ttl, "permits": permits, "wait": self.wait()}
        first = time.monotonic_ns()
        try:
            return self.ask(name, arguments, request, first)
        except Gone:
            if request is None:
                raise
            self.client.connect()
        return self.ask(name, arguments, request, first)

    def ask(self, name, arguments, request, first):
        sql = (f"SELECT acquired, reason, NULL, token, extract(epoch FROM ttl_remaining)::float8"
               f" FROM {self.function('semaphore_acquire')}(%s, %s, make_interval(secs => %s), %s, make_interval(secs => %s), %s)")
        if request is not None:
            arguments = {**arguments, "request": request, "first": first}
        outcome, fields = self.client.call("acquire", name, sql, (name, *(arguments[k] for k in ("owner", "ttl", "permits", "wait")), request), arguments, grant)
        return fields["token"] if outcome == "ok" else None

    def resize(self, name):
        """More permits, or fewer, also than are held: from COMMIT on for others."""
        permits = self.random.randint(1, MOST_PERMITS)
        self.client.begin(self.random.choice(ISOLATION))
        self.client.call("resize", name, f"SELECT {self.function('semaphore_resize')}(%s, %s)", (name, permits), {"permits": permits, "isolation": self.client.isolation}, yes_or_no)
        self.work(self.ttl())
        self.client.end(self.random.choice(("commit", "commit", "commit", "rollback")))

    def use(self, name, token):
        """What a holder does, or one who believes that he still is."""
        action = self.random.random()
        if action < 0.5:
            ttl = self.ttl()
            sql = f"SELECT acquired, reason, NULL, NULL, extract(epoch FROM ttl_remaining)::float8 FROM {self.function('semaphore_renew')}(%s, %s, make_interval(secs => %s))"
            self.client.call("renew", name, sql, (name, token, ttl), {"token": token, "ttl": ttl}, prolonged)
        elif action < 0.9:
            self.client.begin()
            self.pass_guard("semaphore_assert", name, token)
            self.work(self.ttl())
            self.client.end()
        else:
            self.release(name, token)

    def release(self, name, token):
        self.client.call("release", name, f"SELECT {self.function('semaphore_release')}(%s, %s)", (name, token), {"token": token}, yes_or_no)


class Elections(Story):
    """Leaders who renew their term, write guarded by it, and resign or do not."""

    NEEDS = "leader_campaign"
    LEADER = "SELECT elected, reason, candidate, term, extract(epoch FROM ttl_remaining)::float8 FROM "

    def step(self):
        name = self.random.choice(self.world.names("election"))
        if name in self.stale and self.chance(self.world.stale_share):
            self.lead(name, *self.stale[name])
            return
        ttl, wait = self.ttl(), self.wait()
        sql = f"{self.LEADER}{self.function('leader_campaign')}(%s, %s, make_interval(secs => %s), make_interval(secs => %s))"
        outcome, fields = self.client.call("acquire", name, sql, (name, self.client.owner, ttl, wait), {"owner": self.client.owner, "ttl": ttl, "wait": wait}, grant)
        if outcome != "ok":
            self.client.pause(0.05 * ttl * self.random.random())
            return
        self.stale[name] = fields["token"], ttl
        for _ in range(self.random.randint(1, 3)):
            self.lead(name, fields["token"], ttl)
        if self.chance(0.7):
            self.resign(name, fields["token"])

    def lead(self, name, term, ttl):
        action = self.random.random()
        if action < 0.3:
            self.client.call("renew", name, f"{self.LEADER}{self.function('leader_renew')}(%s, %s)", (name, term), {"token": term, "ttl": ttl}, prolonged)
        elif action < 0.8:
            self.append(f"list {name}", "leader_assert", name, term, ttl)
        elif action < 0.9:
            sql = f"SELECT coalesce(bool_or(elected), false), min(candidate) FILTER (WHERE elected) FROM {self.function('leader_current')}(%s)"
            self.client.call("get", name, sql, (name,), {}, lambda row: ("ok", {"live": row[0], "owner": row[1]}))
        else:
            self.client.pause(0.5 * ttl * self.random.random())

    def resign(self, name, term):
        """Perhaps with a successor, for whom the place is kept."""
        successor = f"host {self.random.randrange(max(1, self.world.clients // 2))}" if self.chance(0.3) else None
        self.client.call("release", name, f"SELECT {self.function('leader_resign')}(%s, %s, %s)", (name, term, successor), {"token": term, "successor": successor}, yes_or_no)


class Advisory:
    """Locks that the server frees: of the transaction, and of the session for clients that have one."""

    NEEDS = "session_lock"

    def __init__(self, client):
        self.client, self.random, self.function = client, client.random, client.world.function

    def step(self):
        name = self.random.choice(self.client.world.names("mutex"))
        wait = self.random.choice((0, 0, 0.02, 0.2))
        if self.client.pooled or self.random.random() < 0.5:
            self.for_a_transaction(name, wait)
        else:
            self.for_a_session(name, wait)

    def for_a_transaction(self, name, wait):
        self.client.begin()
        sql = f"SELECT {self.function('xact_lock')}(%s, make_interval(secs => %s))"
        locked, _ = self.client.call("xact_lock", name, sql, (name, wait), {"wait": wait}, yes_or_no)
        if locked == "ok":
            self.client.pause(0.03 * self.random.random())
        self.client.end(self.random.choice(("commit", "commit", "rollback")))

    def for_a_session(self, name, wait):
        read = lambda row: ("refused", {}) if row[0] is None else ("ok", {"token": row[0]})
        sql = f"SELECT {self.function('session_lock')}(%s, make_interval(secs => %s))"
        locked, fields = self.client.call("session_lock", name, sql, (name, wait), {"wait": wait}, read)
        if locked != "ok":
            return
        self.client.pause(0.03 * self.random.random())
        while True:
            try:
                self.client.call("session_unlock", name, f"SELECT {self.function('session_unlock')}(%s, %s)",
                                 (name, fields["token"]), {"token": fields["token"]}, yes_or_no)
                return
            except Failed as e:
                if e.code != "57014":           # cancelled: it is still held
                    raise


# name on the command line: class, share of the steps
WORKLOADS = {"lease": (Leases, 6), "semaphore": (Semaphores, 3), "election": (Elections, 2), "advisory": (Advisory, 1)}
