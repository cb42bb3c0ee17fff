# The bound of every algorithm over an admit log, each by its own rule, in both storages: many clients on one key and on
# many, across a crash, while the policy changes, with several limits in random order. Each check finds one token too
# many, and a limiter that reads and writes without the lock. Each load is a number of calls, or RATE_LIMIT_SECONDS.
use strict;
use warnings;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# DISTSYS_TEST_LONG=1: 64 clients for a minute where it matters most
my ($many, $long) = $ENV{DISTSYS_TEST_LONG} ? (64, 60) : (16, 3);
my $node = PostgreSQL::Test::Cluster->new('bound');
$node->init;
$node->append_conf('postgresql.conf', "max_connections = 100\nlog_statement = none\nshared_preload_libraries = 'distsys'\ndistsys.rate_limit_wait = '5s'\n");
my $load_for = $ENV{RATE_LIMIT_SECONDS} ? "-T $ENV{RATE_LIMIT_SECONDS}" : '-t 30';
$node->start;
sub sql { return $node->safe_psql('postgres', $_[0]) }

sql('CREATE EXTENSION distsys');
sql(slurp_file('test/helper/admits.sql'));
sql(q{
	-- what the fullest stretch of one period, and the fullest window of the grid, hold
	CREATE FUNCTION fullest_stretch(run text, period interval) RETURNS numeric LANGUAGE plpgsql AS $$
		DECLARE
			most numeric;
		BEGIN
			-- a token leaves when it is one period old
			EXECUTE format('SELECT max(s) FROM (SELECT sum(cost) OVER (PARTITION BY key ORDER BY at RANGE BETWEEN %L::interval PRECEDING AND CURRENT ROW) AS s
			                FROM admits WHERE run = %L) x', period - interval '1 us', run) INTO most;
			RETURN most;
		END
	$$;
	CREATE FUNCTION fullest_window(run text, period interval) RETURNS numeric LANGUAGE sql AS $$
		SELECT max(s) FROM (SELECT sum(cost) AS s FROM admits WHERE admits.run = fullest_window.run
		                    GROUP BY key, floor(extract(epoch FROM at) / extract(epoch FROM period))) x
	$$;
	-- the same for windows that begin with their first token
	CREATE FUNCTION fullest_hit(run text, period interval) RETURNS numeric LANGUAGE plpgsql AS $$
		DECLARE
			a record;
			window_key text;
			begins timestamptz;
			held numeric;
			most numeric := 0;
		BEGIN
			FOR a IN SELECT key, at, cost FROM admits WHERE admits.run = fullest_hit.run ORDER BY key, at, id LOOP
				IF window_key IS DISTINCT FROM a.key OR a.at >= begins + period THEN
					window_key := a.key;
					begins := a.at;
					held := 0;
				END IF;
				held := held + a.cost;
				most := greatest(most, held);
			END LOOP;
			RETURN most;
		END
	$$;
	-- the estimate of two counters at its highest, when it was made
	CREATE FUNCTION fullest_estimate(run text, period interval) RETURNS numeric LANGUAGE sql AS $$
		WITH a AS (SELECT key, id, at, cost, floor(extract(epoch FROM at) / extract(epoch FROM period)) AS w,
		                  extract(epoch FROM at) / extract(epoch FROM period) AS t FROM admits WHERE admits.run = fullest_estimate.run),
		     w AS (SELECT key, w, sum(cost) AS total FROM a GROUP BY key, w)
		SELECT max(estimate) FROM (
			SELECT sum(a.cost) OVER (PARTITION BY a.key, a.w ORDER BY a.at, a.id) + coalesce(before.total, 0) * (1 - (a.t - a.w)) AS estimate
			FROM a LEFT JOIN w before ON before.key = a.key AND before.w = a.w - 1) e
	$$;
	SELECT distsys.rate_limit_create('hot', quota => 100, period => '1 s', burst => 50);
	SELECT distsys.rate_limit_create('moving', quota => 100, period => '1 s', burst => 50);
	SELECT distsys.rate_limit_create(p, quota => 1000, period => '1 s') FROM unnest('{a,b,c,d}'::text[]) p;
	SELECT distsys.rate_limit_create('slow', quota => 1000, period => '300 days');
	SELECT distsys.rate_limit_create('empty', quota => 1, period => '300 days');
});

# Runs pgbench in the background, for so many seconds or by its own option; returns a handle to finish.
sub load
{
	my ($name, $clients, $seconds, $script) = @_;
	my $file = "${PostgreSQL::Test::Utils::tmp_check}/$name.sql";
	append_to_file($file, $script) unless -e $file;
	my ($out, $err) = ('', '');
	my $run = IPC::Run::start([ 'pgbench', '-n', '-M', 'prepared', '-c', $clients, '-j', 2, ($seconds =~ /-/ ? split(/ /, $seconds) : ('-T', $seconds)), '-f', $file, $node->connstr('postgres') ],
		'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(120));
	return { run => $run, out => \$out, err => \$err };
}
sub finish { my ($l) = @_; eval { $l->{run}->finish }; return ${ $l->{err} } }

my $hot = q{
\set cost random(1, 3)
\set n random(1, 20)
INSERT INTO admits (run, key, at, cost) SELECT 'hot', key, decided_at, :cost FROM distsys.rate_limit_take('hot', CASE WHEN :n > 10 THEN 'hot' ELSE 'k' || :n END, :cost) WHERE allowed;
};

# --- one key and many, across a crash
my $l = load('hot', $many, $long, $hot);
finish($l);
$l = load('hot', $many, 20, $hot);
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

# --- every other algorithm, in both storages: the bound is what its definition says
my @algorithms = (
	[ 'gcra',               '',                       "fullest('%s', 100, 1000000)" ],
	[ 'leaky_bucket',       '',                       "fullest('%s', 100, 1000000)" ],
	[ 'fixed_window',       '',                       "fullest_window('%s', '1 s')" ],
	[ 'fixed_window',       ", anchor => 'first_hit'", "fullest_hit('%s', '1 s')" ],
	[ 'sliding_window',     '',                       "fullest_estimate('%s', '1 s')" ],
	[ 'sliding_window_log', '',                       "fullest_stretch('%s', '1 s')" ],
	[ 'calendar',           '',                       "fullest_window('%s', '1 min')" ],
	[ 'token_bucket',       '',                       "fullest('%s', 100, 1000000)" ]);
for my $storage ('durable', 'shared')
{
	for my $row (@algorithms)
	{
		my ($algorithm, $more, $check) = @$row;
		my $run = $storage . '_' . $algorithm . ($more ? '_first_hit' : '');
		my $period = $algorithm eq 'calendar' ? '1 min' : '1 s';
		$check = sprintf($check, $run);
		sql("SELECT distsys.rate_limit_create('$run', quota => 100, period => '$period', algorithm => '$algorithm', storage => '$storage'$more)");
		$l = load($run, 16, $load_for, qq{
\\set cost random(1, 3)
\\set n random(1, 20)
INSERT INTO admits (run, key, at, cost) SELECT '$run', key, decided_at, :cost FROM distsys.rate_limit_take('$run', CASE WHEN :n > 10 THEN 'hot' ELSE 'k' || :n END, :cost) WHERE allowed;
});
		unlike(finish($l), qr/aborted|ERROR/, "$run: no call fails");
		my ($most, $hot) = (sql("SELECT $check"), sql("SELECT coalesce(sum(cost), 0) FROM admits WHERE run = '$run' AND key = 'hot'"));
		cmp_ok($hot, '>=', 97, "$run: the hot key was used up");
		cmp_ok($most, '<=', 100, "$run: never more than its rule allows");
		# one take that should not have been admitted, at the moment of the last
		sql("INSERT INTO admits (run, key, at, cost) SELECT '$run', key, at, 100 FROM admits WHERE run = '$run' AND key = 'hot' ORDER BY at DESC LIMIT 1");
		cmp_ok(sql("SELECT $check"), '>', 100, "$run: the check finds one that is too much");
	}
}

# --- windows whose quota changes under load
for my $row ([ 'fixed_window', "fullest_window('%s', '1 s')" ], [ 'sliding_window', "fullest_estimate('%s', '1 s')" ], [ 'sliding_window_log', "fullest_stretch('%s', '1 s')" ])
{
	my ($algorithm, $check) = @$row;
	my $run = "moving_$algorithm";
	sql("SELECT distsys.rate_limit_create('$run', quota => 100, period => '1 s', algorithm => '$algorithm')");
	$l = load($run, 12, '-t 100', qq{
INSERT INTO admits (run, key, at, cost) SELECT '$run', 'hot', decided_at, 1 FROM distsys.rate_limit_take('$run', 'hot') WHERE allowed;
});
	for my $i (1 .. 15)
	{
		my ($quota, $way) = ($i % 2 ? 40 : 100, (qw(proportionally as_is))[ $i % 3 == 0 ]);
		sql("SELECT distsys.rate_limit_alter('$run', quota => $quota, on_change => '$way')");
	}
	unlike(finish($l), qr/aborted|ERROR/, "$run: no call fails while the quota changes");
	cmp_ok(sql('SELECT ' . sprintf($check, $run)), '<=', 100, "$run: never more than the larger quota");
}

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
