"""Leases, semaphores and advisory locks, against bare statements, lease tables of the web, and the lock recipe of Redis."""
import dataclasses

from case import ASYNC, CLIENTS, FSYNC, MEMORY, KEYS, Case, Fact, Goal, Load, Probe, RedisLoad, Rival
from yardsticks import HOT_UPDATE, UPDATE, UPDATES

# every client keeps to its own names, as holders of leases do
NAMES = 150
NAME = "'a' || :client_id || '.' || :k"

# SET NX PX and the compare-and-delete of Redis' own documentation
LUA_UNLOCK = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end"


def redis_lock(name, durable):
    return RedisLoad(name, [(None, ["SET", "lock:__rand_int__", "token", "NX", "PX", "30000"]),
                            (LUA_UNLOCK, ["1", "lock:__rand_int__", "token"])],
                     keyspace=1_000_000_000, fill="lock:%012d", durable=durable)


USUAL_LEASE = Load("lease table: INSERT ON CONFLICT, UPDATE", rf"""\set k random(1, {NAMES})
INSERT INTO usual_lease VALUES ({NAME}, 'bench', clock_timestamp() + '30 s') ON CONFLICT (name)
  DO UPDATE SET owner = EXCLUDED.owner, until = EXCLUDED.until WHERE usual_lease.until < clock_timestamp();
UPDATE usual_lease SET until = '-infinity' WHERE name = {NAME} AND owner = 'bench';
""", "usual")

USUAL_SEMAPHORE = Load("slot table: FOR UPDATE SKIP LOCKED", r"""UPDATE usual_slot SET owner = 'bench', until = clock_timestamp() + '30 s'
  WHERE slot = (SELECT slot FROM usual_slot WHERE owner IS NULL LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING slot \gset
UPDATE usual_slot SET owner = NULL WHERE slot = :slot;
""", "usual")

USUAL_HANDOFF = Load("pg_advisory_lock, pg_advisory_unlock", "SELECT pg_advisory_lock(4711);\nSELECT pg_advisory_unlock(4711);\n", "usual")

ACQUIRED = "1 / acquired::int AS acquired"      # a refusal ends the run with an error instead of counting as done

ACQUIRE = rf"""\set k random(1, {NAMES})
SELECT {ACQUIRED}, token FROM distsys.lease_acquire({NAME}, 'bench', '30 s') \gset
SELECT distsys.lease_release({NAME}, :token);
"""
# a counter of each client: each of its names once in a round, and free before it
FREE_NAMES = 2000
ACQUIRE_FREE = f"""\\set counter :counter + 1
SELECT {ACQUIRED} FROM distsys.lease_acquire('b' || :client_id || '.' || :counter, 'bench', '15 min');
"""
FREE_ALL = """DO $$ DECLARE l record; n int := 0; BEGIN
  FOR l IN SELECT name, token FROM distsys.leases WHERE live AND name LIKE 'b%' LOOP
    PERFORM distsys.lease_release(l.name, l.token);
    n := n + 1;
    IF n % 100 = 0 THEN COMMIT; END IF;
  END LOOP; END $$"""
HANDOFF = rf"""SELECT {ACQUIRED}, token FROM distsys.lease_acquire('hot', 'c' || :client_id, '30 s', wait => '9 s') \gset
SELECT distsys.lease_release('hot', :token);
"""
SEMAPHORE = rf"""SELECT {ACQUIRED}, token FROM distsys.semaphore_acquire('bench', 'c' || :client_id, '30 s') \gset
SELECT distsys.semaphore_release('bench', :token);
"""


def every_name(prefix, clients, names):
    """So that each has its row."""
    return f"""DO $$ BEGIN FOR c IN 0..{clients - 1} LOOP FOR k IN 1..{names} LOOP
  PERFORM distsys.lease_release('{prefix}' || c || '.' || k, token) FROM distsys.lease_acquire('{prefix}' || c || '.' || k, 'bench', '30 s');
  IF k % 100 = 0 THEN COMMIT; END IF;
  END LOOP; COMMIT; END LOOP; END $$"""


RENEW_SETUP = (f"""CREATE TABLE bench_lease AS SELECT c, k, l.token FROM generate_series(0, 15) c, generate_series(1, {NAMES}) k,
  LATERAL distsys.lease_acquire('r' || c || '.' || k, 'bench', '15 min') l WHERE false""",
               "CREATE UNIQUE INDEX ON bench_lease (c, k)",
               f"""DO $$ BEGIN FOR i IN 0..15 LOOP FOR j IN 1..{NAMES} LOOP
  INSERT INTO bench_lease SELECT i, j, token FROM distsys.lease_acquire('r' || i || '.' || j, 'bench', '15 min');
  END LOOP; COMMIT; END LOOP; END $$""", "ANALYZE bench_lease")
TOKEN = rf"""\set k random(1, {NAMES})
SELECT token FROM bench_lease WHERE c = :client_id AND k = :k \gset
"""


def renewals_are_hot(bench):
    """100,000 renewals of one lease: HOT all of them, or the index grows."""
    count = 10_000 if bench.options.quick else 100_000
    counters = """SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE schemaname = 'distsys' AND relname = 'lease_grant'"""
    before = bench.postgres.sql(counters)[0]
    bench.postgres.sql("SET synchronous_commit = off", "SET distsys.durability = off", f"""DO $$ DECLARE t bigint; BEGIN
        SELECT token INTO t FROM distsys.lease_acquire('hot renewals', 'bench', '15 min'); COMMIT;
        FOR i IN 1..{count} LOOP PERFORM distsys.lease_renew('hot renewals', t); COMMIT; END LOOP; END $$""", "SELECT pg_stat_force_next_flush()")
    after = bench.postgres.sql(counters)[0]
    share = (after[1] - before[1]) / max(1, after[0] - before[0])
    yield Fact("lock", f"{after[0] - before[0]:,} lease renewals", f"{share:.2%} HOT", "over 99 %", share > 0.99)


CASES = [
    Case("lock", "lease_acquire + lease_release",
         Load("pair", ACQUIRE, parts={"lease_release": "lease_release"}),
         [Rival(UPDATES, Goal(0.9)), Rival(USUAL_LEASE, sweep=False),
          Rival(redis_lock("Redis SET NX PX + compare-and-delete", False), Goal(0.5), commits=(ASYNC,), sweep=False),
          Rival(redis_lock("Redis SET NX PX + compare-and-delete, appendfsync always", True), Goal(1.0), commits=(FSYNC,), sweep=False)],
         setup=(every_name("a", 64, NAMES),), sweep=(1, 4, 64)),
    Case("lock", "lease_acquire of a free lease", Load("acquire", ACQUIRE_FREE, transactions=FREE_NAMES, before=(FREE_ALL,)),
         [Rival(dataclasses.replace(UPDATE, transactions=FREE_NAMES), Goal(0.9))],
         setup=(every_name("b", CLIENTS, FREE_NAMES),)),
    Case("lock", "lease_renew",
         Load("renew", TOKEN + "SELECT acquired FROM distsys.lease_renew('r' || :client_id || '.' || :k, :token);\n"),
         [Rival(Load("bare UPDATE by key", TOKEN + rf"\set k random(1, {KEYS})" + """
UPDATE bare_row SET n = n + 1, at = clock_timestamp() WHERE k = 'k' || :k;
""", "bare"), Goal(0.9))],
         setup=RENEW_SETUP),
    Case("lock", "hand-off of one hot lease between waiting clients", Load("hand-off", HANDOFF),
         [Rival(HOT_UPDATE, {FSYNC: Goal(0.8), ASYNC: Goal(0.5, floor=5000)}), Rival(USUAL_HANDOFF)]),
    Case("lock", "semaphore_acquire + semaphore_release, 100 permits",
         Load("semaphore", SEMAPHORE, parts={"semaphore_acquire": "semaphore_acquire", "semaphore_release": "semaphore_release"}),
         [Rival(UPDATES, Goal(0.5)), Rival(USUAL_SEMAPHORE)],
         setup=("SELECT distsys.semaphore_create('bench', 100)",)),
    Case("lock", "xact_lock", Load("xact_lock", rf"""\set k random(1, {KEYS})
SELECT distsys.xact_lock('k' || :k, '0');
"""), [Rival(Load("pg_try_advisory_xact_lock(hashtextextended())", rf"""\set k random(1, {KEYS})
SELECT pg_try_advisory_xact_lock(hashtextextended('k' || :k, 0));
""", "usual"), Goal(0.9))], commits=(MEMORY,)),
    Probe("lock", "lease renewals are HOT", renewals_are_hot),
]
