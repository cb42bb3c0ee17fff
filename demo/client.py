"""A client of the payment API: sends its share of the requests, one after the other, some of them again.

Two clients and more make up a shard. A shard's accounts are its own: it holds the lease shard-N, whichever of its
clients acquired it, and every payment asserts that lease and passes the fence of the ledger with its token.
"""

import json
import random
import signal
import time

import psycopg2

from world import IDLE, INSIDE, OUTSIDE, Journal, Stopwatch

SCOPE = "POST /payments"
TTL = 2.0                               # of a shard's lease, seconds

RESENT = 0.06                           # the client lost the answer and asks again
SLOW = 0.03                             # something takes long inside the transaction, and a sibling sends the same
ROLLED_BACK = 0.03
STALE = 0.02                            # tried with the token before, as after a long pause
BY_FENCE = 0.5                          # of those: by the fence alone, without asserting the lease


class Stopped(Exception):
    """The demonstration is over."""


class Refused(Exception):
    """The payment was not made: its transaction is rolled back and it is tried again."""


class Client:
    def __init__(self, world, seat):
        self.world, self.seat, self.shard = world, seat, seat % world.shards
        self.lease, self.fence = f"shard-{self.shard}", f"ledger/{self.shard}"
        self.random = random.Random()
        self.journal = Journal(world.folder, f"client-{seat}")
        self.connect()

    def connect(self):
        self.connection = self.world.connect("shop", f"client-{self.seat}")
        self.call = Stopwatch(self.connection)

    # ---- the shard's lease ---------------------------------------------------

    def held_token(self):
        """The token of the shard's lease: acquires it when nobody has it, renews it after a third of its time."""
        w, s = self.world, self.shard
        while not w.stop[0]:
            now, token = time.monotonic(), w.token[s]
            if w.handover[s]:
                w.handover[s] = 0
                if token > w.lost[s]:
                    self.call("lease_release", "SELECT distsys.lease_release(%s, %s)", self.lease, token)
                    w.lost[s] = token
            elif token > w.lost[s] and now < w.renew_at[s]:
                return token
            elif token > w.lost[s] and now < w.deadline[s]:
                w.renew_at[s] = now + TTL / 3               # a sibling need not
                try:
                    left, = self.call("lease_renew", "SELECT extract(epoch FROM ttl_remaining) FROM distsys.lease_renew(%s, %s)", self.lease, token)
                    w.deadline[s] = now + float(left)       # counted from before the call, on our own clock
                except psycopg2.DatabaseError as e:
                    if e.pgcode != "SD002":
                        raise
                    w.lost[s] = max(w.lost[s], token)
            else:
                acquired, new, left = self.call(
                    "lease_acquire",
                    "SELECT acquired, token, extract(epoch FROM ttl_remaining) FROM distsys.lease_acquire(%s, %s, make_interval(secs => %s))",
                    self.lease, f"client-{self.seat}", TTL)
                if acquired:
                    w.previous[s] = token
                    w.deadline[s], w.renew_at[s] = now + float(left), now + TTL / 3
                    w.token[s] = new
                else:
                    time.sleep(0.02 + 0.02 * self.random.random())
        raise Stopped

    # ---- one request ---------------------------------------------------------

    def pay(self, request, token, slow, guards):
        """The transaction: claim, guard, book, publish, store the answer. Returns the outcome and the answer."""
        body = json.dumps({"from": request.address, "to": request.merchant, "amount": request.amount})
        self.world.state[self.seat] = INSIDE
        self.call("BEGIN", "BEGIN")
        claim = None
        if self.world.without != "claim":
            status, claim, answer = self.call(
                "idempotency_begin", "SELECT status, token, response_body FROM distsys.idempotency_begin(%s, %s, distsys.fingerprint_json(%s))",
                SCOPE, request.key, body)
            if status not in ("started", "resumed"):
                self.call("ROLLBACK", "ROLLBACK")
                return status, answer
        if "lease" in guards:
            self.call("lease_assert", "SELECT distsys.lease_assert(%s, %s)", self.lease, token)
        if "fence" in guards:
            self.call("fence_assert", "SELECT distsys.fence_assert(%s, %s)", self.fence, token)
        entry, = self.call(
            "INSERT ledger",
            "WITH entry AS (INSERT INTO ledger (payment, account, amount, shard, token)"
            " VALUES (%s, %s, %s, %s, %s), (%s, %s, %s, %s, %s) RETURNING id) SELECT min(id) FROM entry",
            request.key, request.address, -request.amount, self.shard, token,
            request.key, request.merchant, request.amount, self.shard, token)
        if slow:
            self.tell_sibling(request)
            time.sleep(0.03)
        self.call(
            "outbox_publish", "SELECT distsys.outbox_publish('payments', 'payment.booked', jsonb_build_object('payment', %s, 'amount', %s), key => %s)",
            request.key, request.amount, request.address)
        answer = json.dumps({"payment": request.key, "entry": entry})
        if claim is not None:
            self.call("idempotency_complete", "SELECT distsys.idempotency_complete(%s, %s, %s, 201, %s)", SCOPE, request.key, claim, answer)
        if self.random.random() < ROLLED_BACK:
            raise Refused("rolled_back")
        self.call("COMMIT", "COMMIT")
        return "first", answer

    def attempt(self, number, slow):
        w, request = self.world, self.world.requests[number]
        w.state[self.seat] = OUTSIDE
        before = time.monotonic()
        allowed, reason = self.call("rate_limit_take", "SELECT allowed, reason FROM distsys.rate_limit_take('per address', %s)", request.address)
        limit = (request.address, before, time.monotonic()) if allowed else None
        if not allowed:
            return reason, None, None

        token, guards = self.held_token(), ("lease", "fence")
        stale = self.random.random() < STALE and 0 < w.previous[self.shard] < token
        if stale:
            token = w.previous[self.shard]
            # the fence knows a token once a payment has passed with it; before, the lease refuses
            if self.random.random() < BY_FENCE and (self.call("fence_current", "SELECT distsys.fence_current(%s)", self.fence)[0] or 0) > token:
                guards = ("fence",)
        if w.without == "fence":
            guards = ()
        try:
            outcome, answer = self.pay(request, token, slow, guards)
            if stale and outcome == "first":
                self.journal.write("stale", "accepted")
            return outcome, answer, limit
        except Refused as e:
            self.call("ROLLBACK", "ROLLBACK")
            return str(e), None, limit
        except psycopg2.DatabaseError as e:
            if e.pgcode not in ("SD001", "SD002"):
                raise
            self.call("ROLLBACK", "ROLLBACK")
            self.journal.write("stale", "refused" if stale else "outrun", e.pgcode)
            if not stale:
                w.lost[self.shard] = max(w.lost[self.shard], token)
            return "refused", None, limit
        finally:
            w.state[self.seat] = OUTSIDE

    def serve(self, number):
        """Sends a request until it has an answer; then perhaps again, as a client does that lost the answer."""
        slow = self.random.random() < SLOW
        while not self.world.stop[0]:
            try:
                outcome, answer, limit = self.attempt(number, slow)
            except (psycopg2.OperationalError, psycopg2.InterfaceError):
                # the connection is gone, and whether COMMIT happened nobody knows: ask again
                self.journal.write("answer", number, "cut", None, None, self.call.taken)
                self.connect()
                continue
            self.journal.write("answer", number, outcome, answer, limit, self.call.taken)
            self.call.taken.clear()
            if outcome in self.world.counts:
                self.world.count(outcome, self.seat)
            slow = False
            if outcome == "in_progress":
                time.sleep(0.01 + 0.02 * self.random.random())
            elif outcome in ("first", "replay"):
                if self.random.random() >= RESENT:
                    return
            elif outcome in ("limited", "contended"):
                return
            elif outcome not in ("rolled_back", "refused"):
                raise RuntimeError(f"unexpected answer: {outcome}")

    def tell_sibling(self, request):
        siblings = [c for c in self.world.members(self.shard) if c != self.seat]
        if siblings:
            number = self.world.lists[self.seat][self.world.done[self.seat]]
            self.world.again[self.random.choice(siblings)] = number + 1

    def run(self):
        w, mine = self.world, self.world.lists[self.seat]
        while not w.stop[0]:
            if w.again[self.seat]:
                number, w.again[self.seat] = w.again[self.seat] - 1, 0
                self.serve(number)
            elif w.done[self.seat] < len(mine):
                self.serve(mine[w.done[self.seat]])
                if not w.stop[0]:
                    w.done[self.seat] += 1      # after the answer: whoever comes after a kill sends it again
            else:
                time.sleep(0.02)
            w.state[self.seat] = IDLE


def main(world, seat):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        Client(world, seat).run()
    except Stopped:
        pass
