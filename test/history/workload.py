"""What clients do, one small story at a time: a workload is a class with a step().

Every story may end early: by a refusal, by an error, by the end of the connection. Tokens that a client has lost, or
has left behind, it tries again later: a stale token has to be refused.
"""

import time
import uuid

from client import Failed, Gone

ISOLATION = ("READ COMMITTED", "READ COMMITTED", "READ COMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")

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


class Leases:
    """Acquire, renew, guarded appends, release; now and then none of it in time."""

    NEEDS = "lease_acquire"

    def __init__(self, client):
        self.client, self.random, self.world = client, client.random, client.world
        self.stale = {}                         # name: a token that is or may be dead
        self.function = client.world.function

    def chance(self, probability):
        return self.random.random() < probability

    def ttl(self):
        low, high = self.world.ttl_ms
        return self.random.randint(low, high) / 1000

    def step(self):
        name = self.random.choice(self.world.names)
        if name in self.stale and self.chance(0.2):
            self.use_stale(name)
            return
        ttl = self.ttl()
        token = self.acquire(name, ttl)
        if token is None:
            self.client.pause(0.05 * ttl * self.random.random())
            return
        try:
            self.hold(name, token, ttl)
        finally:
            self.stale[name] = token

    # ---- acquire ---------------------------------------------------------------

    def acquire(self, name, ttl):
        """The token, or None. In autocommit mode, in a transaction that began earlier, or asked twice."""
        wait = self.random.choice((0, 0, 0, 0.02, 0.2))
        way = self.random.random()
        if way < 0.7:
            return self.ask(name, ttl, wait)
        if way < 0.85:
            return self.acquire_in_transaction(name, ttl, wait)
        return self.acquire_with_request(name, ttl, wait)

    def ask(self, name, ttl, wait, **more):
        request = more.get("request")
        sql = f"{LEASE}{self.function('lease_acquire')}(%s, %s, make_interval(secs => %s), make_interval(secs => %s), request_id => %s)"
        arguments = {"owner": self.client.owner, "ttl": ttl, "wait": wait, **more}
        outcome, fields = self.client.call("acquire", name, sql, (name, self.client.owner, ttl, wait, request), arguments, grant)
        return fields["token"] if outcome == "ok" else None

    def acquire_in_transaction(self, name, ttl, wait):
        """The time of a grant is that of the call, not that of BEGIN; a token seen is used up also by a rollback."""
        isolation = self.random.choice(ISOLATION)
        self.client.begin(isolation)
        self.client.execute("SELECT 1", None)
        self.client.pause(self.random.random() * ttl)
        token = self.ask(name, ttl, wait, isolation=isolation)
        if self.chance(0.3):
            self.client.end("rollback")
            return None
        return token if self.client.end() == "ok" else None

    def acquire_with_request(self, name, ttl, wait):
        """Asks again with the same id when the answer is lost, and now and then when it is not."""
        request = str(uuid.UUID(int=self.random.getrandbits(128)))
        first = time.monotonic_ns()
        try:
            token = self.ask(name, ttl, wait, request=request, first=first)
            if token is None or self.chance(0.5):
                return token
        except Gone:
            self.client.connect()
        return self.ask(name, ttl, wait, request=request, first=first)

    # ---- hold ------------------------------------------------------------------

    def hold(self, name, token, ttl):
        for _ in range(self.random.randint(0, 3)):
            action = self.random.random()
            if action < 0.3:
                self.renew(name, token, self.ttl())
            elif action < 0.65:
                self.append(f"lease {name}", "lease", name, token, ttl)
            elif action < 0.8:
                self.append(f"fence {name}", "fence", name, token, ttl)
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

    def get(self, name):
        sql = f"SELECT acquired, owner FROM {self.function('lease_get')}(%s)"
        read = lambda row: ("ok", {"live": bool(row and row[0]), "owner": row[1] if row else None})
        self.client.call("get", name, sql, (name,), {}, read)

    def append(self, to, guard, name, token, ttl):
        """The guarded critical section: read the last entry, take some time, write the next one."""
        c, isolation = self.client, self.random.choice(ISOLATION)
        if guard == "fence":
            isolation = "READ COMMITTED"        # a fence does not look at the snapshot, says its page
        c.begin(isolation)
        if guard == "lease":
            c.call("assert", name, f"SELECT {self.function('lease_assert')}(%s, %s)", (name, token), {"token": token, "isolation": isolation})
        else:
            c.call("fence", to, f"SELECT {self.function('fence_assert')}(%s, %s)", (to, token), {"token": token, "isolation": isolation})
        self.work(ttl)
        number, previous = c.execute("SELECT number, id FROM entry WHERE list = %s ORDER BY number DESC LIMIT 1", (to,)) or (0, None)
        self.work(ttl)
        entry = f"{c.number}.{c.life}.{c.transactions}"
        c.call("append", to, "INSERT INTO entry VALUES (%s, %s, %s, %s, %s)", (to, number + 1, entry, previous, token),
               {"id": entry, "number": number + 1, "previous": previous, "token": token, "isolation": isolation, "durable": c.role == "client_sync"})
        c.end()

    def work(self, ttl):
        kind = self.random.random()
        if kind < 0.05:
            self.client.pause(2 * ttl * self.random.random())
        elif kind < 0.4:
            self.client.pause(0.02 * self.random.random())

    # ---- stale tokens ----------------------------------------------------------

    def use_stale(self, name):
        token = self.stale[name]
        action = self.random.random()
        if action < 0.3:
            self.renew(name, token, self.ttl())
        elif action < 0.5:
            self.release(name, token)
        elif action < 0.8:
            self.append(f"lease {name}", "lease", name, token, self.ttl())
        else:
            self.append(f"fence {name}", "fence", name, token, self.ttl())


class Advisory:
    """Locks that the server frees: of the transaction, and of the session for clients that have one."""

    NEEDS = "session_lock"

    def __init__(self, client):
        self.client, self.random, self.function = client, client.random, client.world.function

    def step(self):
        name = f"mutex {self.random.choice(self.client.world.names)}"
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
WORKLOADS = {"lease": (Leases, 8), "advisory": (Advisory, 1)}
