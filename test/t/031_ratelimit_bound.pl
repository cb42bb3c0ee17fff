# The bound of the token bucket over an admit log: many clients on one key and on many, across a crash, while the policy
# changes, with several limits in random order. The same check finds a limiter that reads and writes without the lock.
use strict;
use warnings;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('bound');
$node->init;
$node->append_conf('postgresql.conf', "max_connections = 40\nlog_statement = none\n");
$node->start;
sub sql { return $node->safe_psql('postgres', $_[0]) }

sql(q{
	CREATE EXTENSION distsys;
	CREATE TABLE admits (id bigint GENERATED ALWAYS AS IDENTITY, run text, key text, at timestamptz, cost bigint);
	-- how many tokens the fullest window of any key holds beyond q / period * its length
	CREATE FUNCTION fullest(run text, q numeric, period_us numeric) RETURNS numeric LANGUAGE sql AS $$
		WITH a AS (SELECT key, id, extract(epoch FROM at) * 1000000 AS t_us, cost, sum(cost) OVER (PARTITION BY key ORDER BY at, id) AS cum
		           FROM admits WHERE admits.run = fullest.run),
		     x AS (SELECT key, id, t_us, cum * period_us - q * t_us AS hi, (cum - cost) * period_us - q * t_us AS lo FROM a),
		     s AS (SELECT hi, min(lo) OVER (PARTITION BY key ORDER BY t_us, id ROWS UNBOUNDED PRECEDING) AS mn FROM x)
		SELECT max(hi - mn) / period_us FROM s
	$$;
	SELECT distsys.rate_limit_create('hot', quota => 100, period => '1 s', burst => 50);
	SELECT distsys.rate_limit_create('moving', quota => 100, period => '1 s', burst => 50);
	SELECT distsys.rate_limit_create(p, quota => 1000, period => '1 s') FROM unnest('{a,b,c,d}'::text[]) p;
	SELECT distsys.rate_limit_create('slow', quota => 1000, period => '300 days');
	SELECT distsys.rate_limit_create('empty', quota => 1, period => '300 days');
});

# Runs pgbench in the background; returns a handle to finish.
sub load
{
	my ($name, $clients, $seconds, $script) = @_;
	my $file = "${PostgreSQL::Test::Utils::tmp_check}/$name.sql";
	append_to_file($file, $script) unless -e $file;
	my ($out, $err) = ('', '');
	my $run = IPC::Run::start([ 'pgbench', '-n', '-M', 'prepared', '-c', $clients, '-j', 2, '-T', $seconds, '-f', $file, $node->connstr('postgres') ],
		'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(60));
	return { run => $run, out => \$out, err => \$err };
}
sub finish { my ($l) = @_; eval { $l->{run}->finish }; return ${ $l->{err} } }

my $hot = q{
\set cost random(1, 3)
\set n random(1, 20)
INSERT INTO admits (run, key, at, cost) SELECT 'hot', key, decided_at, :cost FROM distsys.rate_limit_take('hot', CASE WHEN :n > 10 THEN 'hot' ELSE 'k' || :n END, :cost) WHERE allowed;
};

# --- one key and many, across a crash
my $l = load('hot', 16, 3, $hot);
finish($l);
$l = load('hot', 16, 20, $hot);
sleep 1;
$node->stop('immediate');
finish($l);
$node->start;
$l = load('hot', 16, 2, $hot);
unlike(finish($l), qr/aborted|ERROR/, 'no call fails');
cmp_ok(sql("SELECT count(*) FROM admits WHERE run = 'hot'"), '>', 300, 'many were admitted');
cmp_ok(sql("SELECT fullest('hot', 100, 1000000)"), '<=', 50, 'never more than burst + quota / period * t in any window, also over a crash');

# --- a policy that changes under load: never more than the larger bound
my $moving = q{
INSERT INTO admits (run, key, at, cost) SELECT 'moving', key, decided_at, 1 FROM distsys.rate_limit_take('moving', 'hot') WHERE allowed;
};
$l = load('moving', 12, 4, $moving);
for my $i (1 .. 30)
{
	my ($quota, $burst, $way) = ($i % 2 ? (40, 20) : (100, 50), (qw(proportionally as_is))[ $i % 3 == 0 ]);
	sql("SELECT distsys.rate_limit_alter('moving', quota => $quota, burst => $burst, on_change => '$way')");
}
unlike(finish($l), qr/aborted|ERROR/, 'no call fails while the policy changes');
cmp_ok(sql("SELECT fullest('moving', 100, 1000000)"), '<=', 50, 'never more than the larger bound');

# --- several limits in random order: no deadlock, all or nothing
sql("SELECT allowed FROM distsys.rate_limit_take('empty', 'k'); SELECT allowed FROM distsys.rate_limit_take('slow', 'k')");
my $before = sql("SELECT b FROM distsys.rate_limit_bucket b WHERE policy IN ('slow', 'empty')");
my $several = q{
SELECT allowed FROM distsys.rate_limit_http((SELECT array_agg(p ORDER BY random()) FROM unnest('{a,b,c,d}'::text[]) p), '{k,k,k,k}');
SELECT allowed FROM distsys.rate_limit_http((SELECT array_agg(p ORDER BY random()) FROM unnest('{a,slow,empty}'::text[]) p), '{k,k,k}');
};
$l = load('several', 16, 4, $several);
unlike(finish($l), qr/aborted|ERROR/, 'no call fails in random order');
is(sql("SELECT b FROM distsys.rate_limit_bucket b WHERE policy IN ('slow', 'empty')"), $before, 'one limit was exhausted: the others are as they were');
is(sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"), '0', 'no deadlock');

# --- the check is worth something: a limiter that reads, computes and writes as people write it
sql(q{
	CREATE TABLE naive (key text PRIMARY KEY, tokens numeric, at timestamptz);
	INSERT INTO naive VALUES ('hot', 50, clock_timestamp());
	CREATE FUNCTION naive_take(OUT allowed boolean, OUT decided_at timestamptz) LANGUAGE plpgsql AS $$
	DECLARE
		r naive;
		left_over numeric;
	BEGIN
		SELECT * INTO r FROM naive WHERE key = 'hot';
		decided_at := clock_timestamp();
		left_over := least(50, r.tokens + 100 * extract(epoch FROM decided_at - r.at));
		allowed := left_over >= 1;
		IF allowed THEN
			UPDATE naive SET tokens = left_over - 1, at = decided_at WHERE key = 'hot';
		END IF;
	END
	$$;
});
$l = load('naive', 16, 3, q{
INSERT INTO admits (run, key, at, cost) SELECT 'naive', 'hot', decided_at, 1 FROM naive_take() WHERE allowed;
});
finish($l);
cmp_ok(sql("SELECT fullest('naive', 100, 1000000)"), '>', 50, 'the check finds a limiter without the lock');

$node->stop;
done_testing();
