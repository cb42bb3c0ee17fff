"""After the last fault: every name can be had soon, nothing is locked, nothing is left.

The clients have stopped and are still connected, so what their sessions hold would be seen.
"""

import time

from violation import Violation

NAME = "liveness"
GRACE_S = 2.0                   # for the machine

ACQUIRE = {
    "lease": ("lease_acquire", "SELECT acquired, reason FROM {function}(%s, 'afterwards', '100 ms', make_interval(secs => 0))"),
    "election": ("leader_campaign", "SELECT elected, reason FROM {function}(%s, 'afterwards', '100 ms')"),
    "semaphore": ("semaphore_acquire", "SELECT acquired, reason FROM {function}(%s, 'afterwards', '100 ms', {permits})"),
}
LOCKED = "SELECT count(*), string_agg(DISTINCT kind || ' ' || coalesce(name, '?'), ', ') FROM distsys.locks WHERE kind <> 'worker'"


def check(world, server, failover_delay_s, permits, tables):
    """server: the primary. permits: how many a semaphore is given for this. tables: which must be empty after a sweep."""
    connection = server.connect()
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET client_min_messages = error")
            return locked(cursor) + unavailable(world, cursor, failover_delay_s, permits) + left_over(cursor, tables)
    finally:
        connection.close()


def until(condition, seconds):
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer is None or time.monotonic() > deadline:
            return answer
        time.sleep(0.02)


def locked(cursor):
    def look():
        cursor.execute(LOCKED)
        n, what = cursor.fetchone()
        return what if n else None
    what = until(look, GRACE_S)
    return [Violation(NAME, f"locks are still held: {what}")] if what else []


def unavailable(world, cursor, failover_delay_s, permits):
    """A semaphore has to give all its permits at once."""
    seconds = world.longest_ttl_s() + failover_delay_s + GRACE_S
    deadline, found = time.monotonic() + seconds, []
    for name in world.names("semaphore"):
        cursor.execute("SELECT distsys.semaphore_resize(%s, %s)", (name, permits))
    for family, (function, sql) in ACQUIRE.items():
        for name in world.names(family):
            def acquire():
                cursor.execute(sql.format(function=world.function(function), permits=permits), (name,))
                acquired, reason = cursor.fetchone()
                return None if acquired else reason
            reason = until(acquire, deadline - time.monotonic())
            if reason is not None:
                found.append(Violation(NAME, f"{name} cannot be had {seconds:.1f} s after the last fault: {reason}"))
    return found


def left_over(cursor, tables):
    """Dead rows go with the sweep. Time passes by moving both clocks, by more than a fault may have set the wall clock back."""
    cursor.execute("SET distsys.clock_offset = '5 h'")
    found = []
    for table in tables:
        def look():
            cursor.execute("SELECT count(*) FROM distsys.maintain()")
            cursor.execute(f"SELECT count(*) FROM {table}")
            return cursor.fetchone()[0] or None
        n = until(look, GRACE_S)
        if n:
            found.append(Violation(NAME, f"{n} rows of {table} are left after the sweep"))
    return found
