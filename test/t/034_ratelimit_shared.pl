# Limits in shared memory: the bound under many clients, no WAL and no tuple, refunds when a backend is terminated, clean and
# crash restarts with every on_restart, ten times more keys than there is room for, calls over both storages in random order.
use strict;
use warnings;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('shared');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'distsys'\nmax_connections = 100\nlog_statement = none\n"
	  . "distsys.rate_limit_shared_keys = 2000\nautovacuum = off\n"
	  . "distsys.worker_enabled = off\nrestart_after_crash = on\n");
$node->start;
sub sql { return $node->safe_psql('postgres', $_[0]) }
sub remaining { my ($policy, $key) = @_; return sql("SELECT remaining FROM distsys.rate_limit_peek('$policy', '$key')") }
sub metric { return sql("SELECT coalesce(sum(value), 0) FROM distsys.stats WHERE domain = 'rate_limit' AND metric = '$_[0]'") }

sql('CREATE EXTENSION distsys');
sql(slurp_file('test/helper/admits.sql'));
sql(q{
	SELECT distsys.rate_limit_create('hot', quota => 100, period => '1 s', burst => 50, storage => 'shared', on_restart => 'empty');
	SELECT distsys.rate_limit_create('moving', quota => 100, period => '1 s', burst => 50, storage => 'shared');
	SELECT distsys.rate_limit_create('refund', quota => 10, period => '300 days', storage => 'shared', on_abort => 'refund');
	SELECT distsys.rate_limit_create('r_' || r, quota => 10, period => '300 days', storage => 'shared', on_restart => r)
		FROM unnest('{full,empty,snapshot}'::text[]) r;
	SELECT distsys.rate_limit_create(p, quota => 1000, period => '1 s', storage => CASE WHEN p < 'c' THEN 'durable' ELSE 'shared' END)
		FROM unnest('{a,b,c,d}'::text[]) p;
	SELECT distsys.rate_limit_create('slow_' || s, quota => 1000, period => '300 days', storage => s) FROM unnest('{durable,shared}'::text[]) s;
	SELECT distsys.rate_limit_create('empty_' || s, quota => 1, period => '300 days', storage => s) FROM unnest('{durable,shared}'::text[]) s;
	SELECT distsys.rate_limit_create('short', quota => 1, period => '1 ms', storage => 'shared');
	SELECT distsys.rate_limit_create('long_' || e, quota => 1, period => '300 days', storage => 'shared', on_error => e, on_restart => 'full')
		FROM unnest('{open,closed}'::text[]) e;
});

# Runs pgbench in the background; returns a handle to finish. DISTSYS_TEST_LONG=1: 64 clients for a minute, and ten minutes in random order.
my ($many, $long, $very_long) = $ENV{DISTSYS_TEST_LONG} ? (64, 60, 600) : (16, 2, 4);
sub load
{
	my ($name, $clients, $seconds, $script) = @_;
	my $file = $node->basedir . "/$name.sql";
	append_to_file($file, $script) unless -e $file;
	my ($out, $err) = ('', '');
	my $run = IPC::Run::start([ 'pgbench', '-n', '-M', 'prepared', '-c', $clients, '-j', 2, '-T', $seconds, '-f', $file, $node->connstr('postgres') ],
		'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout($seconds + 60));
	return { run => $run, out => \$out, err => \$err };
}
sub finish { my ($l) = @_; eval { $l->{run}->finish }; return ${ $l->{err} } }

# --- nothing is written: neither by takes nor by refusals
sql("SELECT remaining FROM distsys.rate_limit_take('hot', 'w')");
my $written = "SELECT pg_current_wal_insert_lsn(), (SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables WHERE schemaname = 'distsys')";
sql('CHECKPOINT');
my ($same, $allowed) = (0, 0);
# the server writes by itself now and then: one undisturbed round of three is enough
for my $try (1 .. 3)
{
	my $before = sql($written);
	$allowed = sql("SELECT count(*) FILTER (WHERE allowed) FROM generate_series(1, 20000) g, distsys.rate_limit_take('hot', CASE WHEN g > 0 THEN 'w' END)");
	$same ||= sql($written) eq $before;
}
cmp_ok($allowed, '<', 20000, 'some were refused');
cmp_ok($allowed, '>', 0, 'some were allowed');
ok($same, 'no WAL and no tuple');

# --- the bound: one hot key and some others, 16 clients, over a crash of the server with on_restart 'empty'
my $hot = q{
\set cost random(1, 3)
\set n random(1, 20)
INSERT INTO admits (run, key, at, cost) SELECT 'hot', key, decided_at, :cost FROM distsys.rate_limit_take('hot', CASE WHEN :n > 10 THEN 'hot' ELSE 'k' || :n END, :cost) WHERE allowed;
};
finish(load('hot', $many, $long, $hot));
my $l = load('hot', $many, 20, $hot);
sleep 1;
$node->stop('immediate');
finish($l);
$node->start;
unlike(finish(load('hot', 16, 2, $hot)), qr/aborted|ERROR/, 'no call fails');
cmp_ok(sql("SELECT count(*) FROM admits WHERE run = 'hot'"), '>', 300, 'many were admitted');
cmp_ok(sql("SELECT fullest('hot', 100, 1000000)"), '<=', 50, "never more than burst + quota / period * t, also over a crash with 'empty'");

# --- a policy that changes under load
$l = load('moving', 12, 4, q{
INSERT INTO admits (run, key, at, cost) SELECT 'moving', key, decided_at, 1 FROM distsys.rate_limit_take('moving', 'hot') WHERE allowed;
});
for my $i (1 .. 30)
{
	my ($quota, $burst, $way) = ($i % 2 ? (40, 20) : (100, 50), (qw(proportionally as_is))[ $i % 3 == 0 ]);
	sql("SELECT distsys.rate_limit_alter('moving', quota => $quota, burst => $burst, on_change => '$way')");
}
unlike(finish($l), qr/aborted|ERROR/, 'no call fails while the policy changes');
cmp_ok(sql("SELECT fullest('moving', 100, 1000000)"), '<=', 50, 'never more than the larger bound');

# --- a backend that is terminated inside its transaction gives back, exactly once
my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query_safe("BEGIN; SELECT allowed FROM distsys.rate_limit_take('refund', 'k', 3); SAVEPOINT s; SELECT allowed FROM distsys.rate_limit_take('refund', 'k', 2)");
is(remaining('refund', 'k'), '5', 'others see what an open transaction has taken');
my $pid = sql("SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction'");
sql("SELECT pg_terminate_backend($pid, 10000)");
is(remaining('refund', 'k'), '10', 'terminated: given back');
eval { $session->quit };
$node->psql('postgres', "BEGIN; SELECT allowed FROM distsys.rate_limit_take('refund', 'k', 3); SELECT pg_terminate_backend(pg_backend_pid())");
is(remaining('refund', 'k'), '10', 'terminated by itself: given back');
$node->psql('postgres', "BEGIN; SELECT allowed FROM distsys.rate_limit_take('refund', 'k', 3)");
is(remaining('refund', 'k'), '10', 'the client has gone: given back');
sql("BEGIN; SELECT allowed FROM distsys.rate_limit_take('refund', 'k', 3); COMMIT");
is(remaining('refund', 'k'), '7', 'committed: kept');

# --- restarts
my @policies = qw(r_full r_empty r_snapshot);
sub states { return join ' ', map { remaining($_, $_[0]) } @policies }
sql("SELECT distsys.rate_limit_take(p, 'k', 4) FROM unnest('{r_full,r_empty,r_snapshot}'::text[]) p");
sql("SELECT distsys.rate_limit_block('r_snapshot', 'blocked', '1 day')") if sql("SELECT to_regproc('distsys.rate_limit_block') IS NOT NULL") eq 't';
$node->restart;
is(states('k'), '10 0 6', 'clean restart: full, empty, as it was');
is(remaining('refund', 'k'), '7', 'and so is another policy');
is(states('unused'), '10 0 10', 'a key that was not in use');
ok(!-e $node->data_dir . '/pg_stat/distsys_rate_limits.stat', 'the file is gone when it was read');
# a snapshot, some more takes, a crash: as it was in the snapshot
sql("SELECT * FROM distsys.maintain()");
is(sql("SELECT count(*) FROM distsys.rate_limit_snapshot WHERE policy = 'r_snapshot'"), sql("SELECT 1 + (to_regproc('distsys.rate_limit_block') IS NOT NULL)::int"), 'the snapshot has what is in use');
is(sql("SELECT count(*) FROM distsys.rate_limit_snapshot WHERE policy IN ('r_full', 'r_empty', 'hot')"), '0', 'and nothing else');
sql("SELECT distsys.rate_limit_take('r_snapshot', 'k', 1)");
$node->stop('immediate');
$node->start;
is(states('k'), '10 0 6', 'crash: full, empty, as in the snapshot');
is(remaining('refund', 'k'), '7', 'and so is another policy');
sql("SELECT distsys.rate_limit_take('r_snapshot', 'k', 1)");
sql("SELECT * FROM distsys.maintain()");
is(remaining('r_snapshot', 'k'), '5', 'what was taken since is not overwritten when the worker brings the rest');
# a crash of one backend starts shared memory anew
$node->psql('postgres', "COPY (SELECT pg_backend_pid()) TO PROGRAM 'xargs kill -9'");
$node->poll_query_until('postgres', 'SELECT true');
is(states('k'), '10 0 5', 'a backend was killed: as in the snapshot');
# a key that is full again leaves the snapshot
sql("SELECT distsys.rate_limit_reset('r_snapshot', 'k')");
sql("SELECT * FROM distsys.maintain()");
is(sql("SELECT count(*) FROM distsys.rate_limit_snapshot WHERE policy = 'r_snapshot'"), sql("SELECT (to_regproc('distsys.rate_limit_block') IS NOT NULL)::int"), 'a full limit leaves the snapshot');
# a damaged file is ignored
sql("SELECT distsys.rate_limit_take('r_snapshot', 'k', 1)");
$node->stop;
my $file = $node->data_dir . '/pg_stat/distsys_rate_limits.stat';
ok(-s $file, 'a clean shutdown leaves a file');
open(my $fh, '+<', $file) or die $!;
seek($fh, 40, 0);
print $fh 'x';
close $fh;
$node->start;
is(remaining('r_snapshot', 'k'), '10', 'a damaged file is ignored');

# --- ten times more keys than there is room for
my $keys = 20000;
my $evicted = metric('shared_evicted');
is(sql("SELECT count(*) FROM generate_series(1, $keys) g, distsys.rate_limit_take('short', 'k' || g) WHERE allowed"), $keys, 'short limits: every key is admitted');
cmp_ok(metric('shared_evicted'), '>', $evicted, 'full ones have made room');
is(metric('unavailable'), '0', 'there was always room');
is(sql("SELECT count(*) FILTER (WHERE allowed) || ' ' || count(*) FILTER (WHERE reason = 'ok') FROM generate_series(1, 500) g, distsys.rate_limit_take('long_open', 'k' || g)"),
	'500 500', 'long limits, while there is room');
my ($ok, $open) = split / /, sql("SELECT count(*) FILTER (WHERE reason = 'ok') || ' ' || count(*) FILTER (WHERE allowed AND reason = 'unavailable') FROM generate_series(501, $keys) g, distsys.rate_limit_take('long_open', 'k' || g)");
is($ok + $open, $keys - 500, 'no room: on_error open lets all pass');
cmp_ok($ok, '>=', 2000 - 500 - 200, 'what the setting says has room');
is(metric('unavailable'), $open, 'and counts those that it could not limit');
is(sql("SELECT count(*) FROM generate_series(1, 500) g, distsys.rate_limit_take('long_open', 'k' || g) WHERE allowed"), '0', 'nobody lost his state');
cmp_ok(sql("SELECT count(*) FILTER (WHERE NOT allowed AND reason = 'unavailable') FROM generate_series(1, 5000) g, distsys.rate_limit_take('long_closed', 'k' || g)"),
	'>', 4000, 'on_error closed refuses');
is(sql("SELECT count(*) FROM generate_series(1, 5000) g, distsys.rate_limit_take('long_closed', 'k' || g) WHERE allowed"), '0', 'and admits nothing twice');
like(sql("SELECT status || problem::text FROM distsys.rate_limit_http('{long_closed}', '{k4999}')"), qr/^(503|429)/, 'as HTTP');
$node->restart;

# --- both storages in random order
sql("SELECT distsys.rate_limit_take('empty_' || s, 'k') FROM unnest('{durable,shared}'::text[]) s");
sql("SELECT distsys.rate_limit_take('slow_' || s, 'k') FROM unnest('{durable,shared}'::text[]) s");
my $state = "SELECT (SELECT b FROM distsys.rate_limit_bucket b WHERE policy = 'slow_durable'), (SELECT remaining FROM distsys.rate_limit_peek('slow_shared', 'k'))";
my $before = sql($state);
sql("SELECT distsys.rate_limit_take('empty_' || s, 'k') FROM unnest('{durable,shared}'::text[]) s");
unlike(finish(load('several', 16, $very_long, q{
SELECT allowed FROM distsys.rate_limit_http((SELECT array_agg(p ORDER BY random()) FROM unnest('{a,b,c,d}'::text[]) p), '{k,k,k,k}');
SELECT allowed FROM distsys.rate_limit_http((SELECT array_agg(p ORDER BY random()) FROM unnest('{a,c,slow_durable,slow_shared,empty_durable}'::text[]) p), '{k,k,k,k,k}');
SELECT allowed FROM distsys.rate_limit_http((SELECT array_agg(p ORDER BY random()) FROM unnest('{a,c,slow_durable,slow_shared,empty_shared}'::text[]) p), '{k,k,k,k,k}');
})), qr/aborted|ERROR/, 'no call fails in random order');
is(sql($state), $before, 'one limit was exhausted: the others are as they were');
is(sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"), '0', 'no deadlock');

# --- waiting: in order of arrival, given back by a terminate
sql("SELECT distsys.rate_limit_create('turn', quota => 2, period => '1 s', burst => 1, storage => 'shared', on_restart => 'full')");
sql("SELECT distsys.rate_limit_create('slowly', quota => 1000, period => '1 h', burst => 1, storage => 'shared', on_restart => 'full')");
sql('CREATE TABLE turns (id serial, who int)');
sql("SELECT distsys.rate_limit_charge('turn', 'k', 8)");
my @waiters;
for my $who (1 .. 3)
{
	my ($out, $err) = ('', '');
	push @waiters, IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c',
			"INSERT INTO turns (who) SELECT $who FROM distsys.rate_limit_wait('turn', 'k', 1, '10 s') WHERE allowed" ],
		'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(60));
	$node->poll_query_until('postgres', "SELECT count(*) + (SELECT count(*) FROM turns) >= $who FROM pg_stat_activity WHERE query LIKE 'INSERT INTO turns%' AND state = 'active' AND wait_event IN ('Extension', 'DistsysRateLimit')");
}
$_->finish for @waiters;
is(sql("SELECT string_agg(who::text, ' ' ORDER BY id) FROM turns"), '1 2 3', 'waiters are served in order of arrival');
sql("SELECT distsys.rate_limit_take('slowly', 'k')");
my ($wout, $werr) = ('', '');
my $waiter = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', "SELECT distsys.rate_limit_wait('slowly', 'k', 1, '10 s')" ],
	'<', \undef, '>', \$wout, '2>', \$werr, IPC::Run::timeout(60));
$node->poll_query_until('postgres', "SELECT reset_after > '3.6 s' FROM distsys.rate_limit_peek('slowly', 'k')");
sql("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE query LIKE 'SELECT distsys.rate_limit_wait(''slowly''%'");
eval { $waiter->finish };
is(sql("SELECT reset_after <= '3.6 s' FROM distsys.rate_limit_peek('slowly', 'k')"), 't', 'a waiter that is terminated gives back');

# --- a standby counts for itself; promoted, it goes on from the snapshot
sql("SELECT distsys.rate_limit_take('r_snapshot', k, 4) FROM unnest('{s,p}'::text[]) k");
sql("SELECT * FROM distsys.maintain()");
$node->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('copy');
$standby->init_from_backup($node, 'copy', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
sub on_standby { return $standby->safe_psql('postgres', $_[0]) }
is(on_standby("SELECT allowed || ' ' || remaining FROM distsys.rate_limit_take('r_snapshot', 's')"), 'true 9', 'a shared take works on a standby, which counts for itself');
my ($ret, $out, $err) = $standby->psql('postgres', "SELECT distsys.rate_limit_take('slow_durable', 'k')");
like($err, qr/recovery/, 'a durable one does not');
$node->stop('immediate');
$standby->promote;
is(on_standby("SELECT remaining FROM distsys.rate_limit_peek('r_snapshot', 's')"), '9', 'a key that it has counted');
is(on_standby("SELECT remaining FROM distsys.rate_limit_peek('r_snapshot', 'p')"), '6', 'others come from the snapshot');
$standby->stop;

done_testing();
