"""Rate limits, against bare statements, the upsert function of the web, and Lua scripts in Redis."""
import statistics
import time

from case import ASYNC, CLIENTS, FSYNC, KEYS, MEMORY, PIPELINE, Case, Fact, Goal, Load, Probe, RedisLoad, Rival
from yardsticks import HOT_UPDATE, SELECT, UPDATE, pipelined

# The bucket as it is written in blog posts and libraries: a hash with the tokens and the time, the server's clock.
LUA_BUCKET = """
local capacity, rate, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local state = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = math.min(capacity, (tonumber(state[1]) or capacity) + (now - (tonumber(state[2]) or now)) * rate)
local allowed = tokens >= cost
if allowed then tokens = tokens - cost end
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', string.format('%.6f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil(capacity / rate * 1000))
return { allowed and 1 or 0, math.floor(tokens) }
"""
# The exact sliding window: a sorted set with one member for each admitted call.
LUA_WINDOW = """
local window, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - window)
local used = redis.call('ZCARD', KEYS[1])
if used >= limit then return { 0, 0 } end
redis.call('ZADD', KEYS[1], now, string.format('%d:%d', now, math.random(1000000)))
redis.call('PEXPIRE', KEYS[1], math.ceil(window / 1000))
return { 1, limit - used - 1 }
"""


def redis_bucket(name, key, **kw):
    return RedisLoad(name, [(LUA_BUCKET, ["1", key, "1000000", "1000000", "1"])], **kw)


MANY = "b:__rand_int__"
REDIS = redis_bucket("Redis Lua token bucket", MANY)
REDIS_HOT = redis_bucket("Redis Lua token bucket, one hot key", "b:hot")
REDIS_PIPELINED = redis_bucket(f"Redis Lua token bucket, pipelined by {PIPELINE}", MANY, pipeline=PIPELINE)
REDIS_DURABLE = redis_bucket("Redis Lua token bucket, appendfsync always", MANY, durable=True)
REDIS_DURABLE_HOT = redis_bucket("Redis Lua token bucket, appendfsync always", "b:hot", durable=True)


def redis_window(suffix, durable):
    return RedisLoad("Redis sorted-set window" + suffix, [(LUA_WINDOW, ["1", "w:__rand_int__", "1000000", "100"])], durable=durable)


REDIS_WINDOW = redis_window("", False)


def take(policy):
    return f"\\set k random(1, {KEYS})\nSELECT (distsys.rate_limit_take('{policy}', 'k' || :k)).allowed;\n"


def take_hot(policy):
    return f"SELECT (distsys.rate_limit_take('{policy}', 'k1')).allowed;\n"


def policy(name, options="", quota=1_000_000):
    return f"SELECT distsys.rate_limit_create('{name}', quota => {quota}, period => '1 s'{options}, if_not_exists => true);\n"


def filled(name):
    return f"SELECT count(*) FROM generate_series(1, {KEYS}) g, LATERAL distsys.rate_limit_take('{name}', 'k' || g) t;\n"


def filled_in_slices(name):
    """A durable key stays locked to the end of its transaction, and a transaction may hold a thousand."""
    return f"""DO $$ BEGIN FOR g IN 1..{KEYS} LOOP PERFORM distsys.rate_limit_take('{name}', 'k' || g);
        IF g % 500 = 0 THEN COMMIT; END IF; END LOOP; END $$;"""


def shared(name, options="", quota=1_000_000):
    """The first call tells whether this version has it."""
    return policy(name, ", storage => 'shared'" + options, quota), f"SELECT distsys.rate_limit_take('{name}', 'k1')"


SHARED = shared("bench_shared")
DURABLE = policy("bench_durable")
USUAL = Load("PL/pgSQL upsert function", rf"""\set k random(1, {KEYS})
SELECT usual_take('k' || :k, 1000000, 1000000);
""", "usual")
USUAL_HOT = Load("PL/pgSQL upsert function, one hot key", "SELECT usual_take('k1', 1000000, 1000000);\n", "usual")


def inside_plpgsql(bench):
    """Microseconds a call in a loop, least of three: what a trigger or a function pays."""
    best = min(bench.postgres.sql("SELECT bench_loop(100000)")[0][0] for _ in range(3))
    yield Fact("ratelimit", "rate_limit_take, shared, inside PL/pgSQL", f"{best:.2f} us a call", "under 2 us", best < 2)


LOOP = """CREATE OR REPLACE FUNCTION bench_loop(n int) RETURNS float8 LANGUAGE plpgsql AS $$
DECLARE began timestamptz := clock_timestamp(); ok boolean;
BEGIN
  FOR i IN 1..n LOOP ok := (distsys.rate_limit_take('bench_shared', 'k1')).allowed; END LOOP;
  RETURN extract(epoch FROM clock_timestamp() - began) * 1000000 / n;
END $$;
"""


def beside_snapshot(bench):
    """The rate of a hot row in the last sixth of the time for which somebody holds a snapshot, and without one."""
    hold = bench.options.hold
    goal = Goal(0.5)
    for load in (Load("rate_limit_take, durable, one hot key", take_hot("bench_durable")), HOT_UPDATE):
        ours = load.kind == "ours"
        if not ours and bench.options.quick:
            continue
        before = statistics.median(bench.postgres.load(load, CLIENTS, bench.options.seconds, ASYNC).rate for _ in range(bench.options.rounds))
        holder = bench.postgres.connect()
        with holder.cursor() as cursor:
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SELECT count(*) FROM bare_hot")
            rates = bench.postgres.load_for_long(load, CLIENTS, hold, ASYNC, max(1, hold // 12))
        holder.close()
        late = statistics.mean(rates[-2:])
        yield Fact("ratelimit", f"{load.name}, beside a snapshot held for {hold} s, async",
                   f"{before:,.0f} a second before, {late:,.0f} at the end: {late / before:.2f}",
                   f"{goal.least:.2f}" if ours else "", goal.met(late / before, late) if ours else None)
        time.sleep(0.2)


CASES = [
    Case("ratelimit", "rate_limit_take, shared", Load("shared", take("bench_shared")),
         [Rival(SELECT, Goal(0.75)), Rival(REDIS, Goal(1.3))],
         setup=(*SHARED, filled("bench_shared")), commits=(MEMORY,), sweep=(1, 4, 64)),
    Case("ratelimit", "rate_limit_take, shared, one hot key", Load("shared hot", take_hot("bench_shared")),
         [Rival(Load("rate_limit_take, shared, many keys", take("bench_shared"), "bare"), Goal(0.9)), Rival(REDIS_HOT)],
         setup=SHARED, commits=(MEMORY,)),
    Case("ratelimit", f"rate_limit_take, shared, pipelined by {PIPELINE}",
         pipelined(take("bench_shared"), "shared pipelined", "ours", PIPELINE),
         [Rival(REDIS_PIPELINED, Goal(2.5)), Rival(pipelined("SELECT 1;\n", f"SELECT 1, pipelined by {PIPELINE}", "bare", PIPELINE))],
         setup=SHARED, commits=(MEMORY,)),
    Case("ratelimit", "rate_limit_take, shared, sliding_window", Load("shared window", take("bench_window")),
         [Rival(REDIS_WINDOW)], setup=shared("bench_window", ", algorithm => 'sliding_window'", 100), commits=(MEMORY,), quick=False),
    Case("ratelimit", "rate_limit_take, durable, sliding_window_log", Load("durable log", take("bench_log")),
         [Rival(redis_window(", appendfsync always", True), commits=(FSYNC,)), Rival(REDIS_WINDOW, commits=(ASYNC,))],
         setup=(policy("bench_log", ", algorithm => 'sliding_window_log'", 100),), quick=False),
    Case("ratelimit", "rate_limit_take, durable", Load("durable", take("bench_durable")),
         [Rival(UPDATE, Goal(0.95)), Rival(USUAL, sweep=False), Rival(REDIS_DURABLE, commits=(FSYNC,), sweep=False),
          Rival(REDIS, commits=(ASYNC,), sweep=False)],
         setup=(DURABLE, filled_in_slices("bench_durable")), sweep=(1, 4, 64)),
    Case("ratelimit", "rate_limit_take, durable, one hot key", Load("durable hot", take_hot("bench_durable")),
         [Rival(HOT_UPDATE), Rival(USUAL_HOT), Rival(REDIS_DURABLE_HOT, commits=(FSYNC,))], setup=(DURABLE,)),
    Case("ratelimit", "rate_limit_take, durable, refused",
         Load("refused", "\\set k random(1, 100)\nSELECT (distsys.rate_limit_take('bench_none', 'k' || :k)).allowed;\n"),
         [Rival(SELECT, Goal(0.8))], commits=(MEMORY,),
         setup=("SELECT distsys.rate_limit_create('bench_none', quota => 1, period => '1 day', if_not_exists => true)",
                "SELECT count(*) FROM generate_series(1, 100) g, LATERAL distsys.rate_limit_take('bench_none', 'k' || g) t")),
    Probe("ratelimit", "rate_limit_take, shared, inside PL/pgSQL", inside_plpgsql, setup=(*SHARED, LOOP)),
]
LONG = [Probe("ratelimit", "rate_limit_take, durable, hot row beside a held snapshot", beside_snapshot, setup=(DURABLE,))]
