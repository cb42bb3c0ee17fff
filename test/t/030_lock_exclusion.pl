# Mutual exclusion under contention, with holders that are paused for three times their TTL.
#
# Clients append to lists. Each append reads the last number, pauses, and writes the next: a lost
# update is a number that is there twice. Guarded by lease_assert or fence_assert in the same transaction there is
# none, and the order of the entries is the order of the tokens; without the guard the same run finds
# both violations, so the checker can find them. No holder loses a lease that has not expired.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $clients = 8;
my $seconds = 5;

my $node = PostgreSQL::Test::Cluster->new('exclusion');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\nmax_connections = 60\nshared_preload_libraries = 'distsys'\n");
$node->start;
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION distsys;
CREATE TABLE list (run text, name text, number int, token bigint, at timestamptz DEFAULT clock_timestamp());
CREATE TABLE lost (run text, name text, code text, elapsed interval);

CREATE PROCEDURE append(run text, guard text, ttl interval, pause float) LANGUAGE plpgsql AS $$
DECLARE
    list_name text := 'list ' || floor(random() * 4);
    began timestamptz := clock_timestamp();
    lease distsys.lease;
    last int;
BEGIN
    SELECT * INTO lease FROM distsys.lease_acquire(list_name, 'client', ttl, CASE WHEN random() < 0.5 THEN interval '0' ELSE interval '20 ms' END);
    COMMIT;
    IF NOT lease.acquired THEN
        RETURN;
    END IF;
    IF random() < 0.05 THEN
        PERFORM pg_sleep(pause);        -- stopped before the guard
    END IF;
    BEGIN
        IF guard = 'lease' THEN
            PERFORM distsys.lease_assert(list_name, lease.token);
        ELSIF guard = 'fence' THEN
            PERFORM distsys.fence_assert(list_name, lease.token);
        END IF;
        last := coalesce((SELECT max(l.number) FROM list l WHERE l.run = append.run AND l.name = list_name), 0);
        IF random() < 0.05 THEN
            PERFORM pg_sleep(pause);    -- stopped in the middle of the work
        END IF;
        INSERT INTO list VALUES (run, list_name, last + 1, lease.token);
    EXCEPTION WHEN sqlstate 'SD001' OR sqlstate 'SD002' THEN
        INSERT INTO lost VALUES (run, list_name, sqlstate, clock_timestamp() - began);
    END;
    COMMIT;
    BEGIN
        PERFORM distsys.lease_renew(list_name, lease.token);
    EXCEPTION WHEN sqlstate 'SD002' THEN
        INSERT INTO lost VALUES (run, list_name, 'renew', clock_timestamp() - began);
    END;
    COMMIT;
    PERFORM distsys.lease_release(list_name, lease.token);
END $$;

CREATE VIEW twice AS SELECT run, count(*) AS n FROM (SELECT run, name, number FROM list GROUP BY 1, 2, 3 HAVING count(*) > 1) d GROUP BY 1;
CREATE VIEW inverted AS SELECT run, count(*) AS n
    FROM (SELECT run, token < lag(token) OVER (PARTITION BY run, name ORDER BY number, at) AS lower FROM list) d WHERE lower GROUP BY 1;
SQL

sub run
{
	my ($run, $guard, $options) = @_;
	my $script = $node->basedir . "/$run.sql";

	append_to_file($script, "CALL append('$run', '$guard', '200 ms', 0.6);\n");
	local $ENV{PGOPTIONS} = $options if $options;
	$node->command_ok([ 'pgbench', '-n', '-c', $clients, '-j', 2, '-T', $seconds, '-f', $script, 'postgres' ], "$run: run");
	note("$run: " . $node->safe_psql('postgres', "SELECT (SELECT count(*) FROM list WHERE run = '$run') || ' entries, ' || (SELECT count(*) FROM lost WHERE run = '$run') || ' lost'"));
}

sub violations { my ($view, $run) = @_; return $node->safe_psql('postgres', "SELECT coalesce(sum(n), 0) FROM $view WHERE run = '$run'"); }
sub lost_early { return $node->safe_psql('postgres', "SELECT count(*) FROM lost WHERE run = '$_[0]' AND code <> 'SD001' AND elapsed < '200 ms'"); }

for (['lease', 'lease', ''], ['fence', 'fence', ''], ['collisions', 'lease', '-c distsys.hash_bits=1'])
{
	my ($run, $guard, $options) = @$_;

	run($run, $guard, $options);
	cmp_ok($node->safe_psql('postgres', "SELECT count(*) FROM list WHERE run = '$run'"), '>', 50, "$run: there was work");
	is(violations('twice', $run),    0, "$run: no update was lost");
	is(violations('inverted', $run), 0, "$run: entries are in the order of their tokens");
	is(lost_early($run), 0, "$run: nobody lost a lease that had not expired");
}
run('bare', 'none', '');
cmp_ok(violations('twice', 'bare'), '>', 0, 'without a guard the checker finds lost updates');

# A heartbeat beside an open guarded transaction and 16 that wait to acquire: it never waits for a lock.
my $token = $node->safe_psql('postgres', "SELECT token FROM distsys.lease_acquire('beat', 'holder', '1 min')");
my $pin = $node->background_psql('postgres');
$pin->query_safe("BEGIN; SELECT distsys.lease_assert('beat', $token);");

my $wait = $node->basedir . '/wait.sql';
append_to_file($wait, "SELECT reason FROM distsys.lease_acquire('beat', 'waiter', '1 min', '5 s');\n");
my $waiters = IPC::Run::start([ 'pgbench', '-n', '-h', $node->host, '-p', $node->port, '-c', 16, '-j', 1, '-t', 1, '-f', $wait, 'postgres' ], '>', \my $out, '2>', \my $err);
$node->poll_query_until('postgres', "SELECT count(*) = 16 FROM pg_stat_activity WHERE query LIKE '%waiter%' AND state = 'active' AND pid <> pg_backend_pid()");

my $beat = $node->background_psql('postgres');
$beat->query_safe("SET lock_timeout = '1 ms'");
my ($beats, @took) = (0);
for (1 .. 40)
{
	my $began = time;

	$beats++ if $beat->query_safe("SELECT acquired FROM distsys.lease_renew('beat', $token)") eq 't';
	push @took, time - $began;
}
is($beats, 40, 'every heartbeat beside a pin and 16 waiters went through without waiting for a lock');
cmp_ok((sort { $a <=> $b } @took)[20], '<', 0.05, 'the median of them took less than 50 ms');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%waiter%' AND state = 'active' AND pid <> pg_backend_pid()"),
	16, 'all that time 16 sessions waited');
$beat->quit;
$pin->query_safe('COMMIT');
$pin->quit;
$waiters->finish;

# What was decided is counted.
is($node->safe_psql('postgres', "SELECT string_agg(domain || ' ' || metric, ', ' ORDER BY domain, metric) FROM distsys.stats WHERE domain IN ('lease', 'fence') AND metric NOT LIKE 'wait%' AND value > 0"),
	'fence passed, fence stale, lease acquired, lease contended, lease lost, lease refused, lease released, lease renewed, lease timed_out', 'every outcome is counted');

# Waits that end at the very moment at which the lock is released: true or false, never an error, and what was
# not got is not held. By our own bound, and by the caller's lock_timeout.
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION hold_briefly(wait interval) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    token bigint;
BEGIN
    BEGIN
        token := distsys.session_lock('brief', wait);
    EXCEPTION WHEN lock_not_available THEN
        IF wait IS NOT NULL THEN
            RAISE EXCEPTION 'our own bound was an error';
        END IF;
    END;
    IF token IS NULL AND EXISTS (SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory') THEN
        RAISE EXCEPTION 'held after it was not got';
    END IF;
    PERFORM pg_sleep(0.001 * random());
    IF token IS NOT NULL THEN
        PERFORM distsys.session_unlock('brief', token);
    END IF;
END $$;
SQL
my %brief = (
	"session lock, our bound" => "SELECT hold_briefly('1 ms');\n",
	"session lock, lock_timeout" => "SET lock_timeout = '1 ms';\nSELECT hold_briefly(NULL);\n",
	"xact lock, our bound" => "BEGIN;\nSELECT distsys.xact_lock('brief', '1 ms');\nSELECT pg_sleep(0.001 * random());\nCOMMIT;\n");
for my $what (sort keys %brief)
{
	my $script = $node->basedir . '/brief.sql';

	unlink $script;
	append_to_file($script, $brief{$what});
	$node->command_ok([ 'pgbench', '-n', '-c', 8, '-j', 2, '-T', 4, '-f', $script, 'postgres' ], "$what: every wait ends well");
}

# After all this nothing is held.
is($node->safe_psql('postgres', 'SELECT count(*) FROM distsys.locks WHERE pid <> pg_backend_pid()'), 0, 'no key lock is left');
$node->stop;
done_testing();
