# The housekeeping worker: rows go away by themselves, and it stands in nobody's way.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'distsys'
distsys.worker_speedup = 30		# 30 s becomes 1 s
distsys.clock_offset = '0'
max_worker_processes = 8
});
$node->start;

sub sql { return $node->safe_psql(@_) }

# The launcher and its workers, as anybody sees them.
sub count_backends
{
	my ($type, $database) = @_;
	my $where = defined $database ? "AND datname = '$database'" : '';
	return sql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = '$type' $where");
}

# Expired leases, seen by the worker as soon as it is told that time has passed.
sub make_leases
{
	my ($database, $n) = @_;
	# in batches below distsys.max_keys_per_transaction
	my $script = '';
	for (my $i = 1; $i <= $n; $i += 500)
	{
		my $last = $i + 499 < $n ? $i + 499 : $n;
		$script .= "SELECT count(*) FROM generate_series($i, $last) i, distsys.lease_acquire('dead' || i, 'me', '10 s');\n";
	}
	# one statement, one transaction
	$node->psql($database, $script, on_error_die => 1);
}
sub pass_time
{
	my ($offset) = @_;
	sql('postgres', "ALTER SYSTEM SET distsys.clock_offset = '$offset'");
	sql('postgres', 'SELECT pg_reload_conf()');
}
my $rows_left = "SELECT count(*) = 0 FROM distsys.leases";

# --- without the extension anywhere
is(count_backends('distsys launcher'), 1, 'there is a launcher');
sql('postgres', 'CREATE DATABASE bare');
sql('postgres', 'CREATE DATABASE app');

# --- CREATE EXTENSION is noticed at commit, well before the minute's scan
sql('app', 'CREATE EXTENSION distsys');
make_leases('app', 50);
ok($node->poll_query_until('app', "SELECT bool_and(last_success_at IS NOT NULL) FROM distsys.worker_jobs"),
	'every job has run after CREATE EXTENSION');
is(sql('app', 'SELECT count(*) FROM distsys.leases'), '50', 'live leases stay');
pass_time('1 h');
ok($node->poll_query_until('app', $rows_left), 'expired rows go away without a call');
is(sql('app', "SELECT rows_removed FROM distsys.worker_jobs WHERE job = 'lease_sweep'"), '50', 'and are counted');
is(sql('app', "SELECT value FROM distsys.stats WHERE domain = 'worker' AND object = 'lease_sweep' AND metric = 'rows_removed'"), '50', 'in stats too');
is(sql('app', "SELECT bool_and(next_run_at > last_success_at AND consecutive_failures = 0 AND last_error IS NULL AND database = 'app') FROM distsys.worker_jobs"),
	't', 'worker_jobs tells the state of each job');

# --- a database without the extension is left alone
is(count_backends('distsys worker', 'bare'), 0, 'no worker stays in a database without the extension');
is(sql('bare', "SELECT count(*) FROM pg_extension WHERE extname = 'distsys'"), '0', 'and nothing was made there');
my $log = slurp_file($node->logfile);
unlike($log, qr/ERROR/, 'nothing was logged as an error');

# --- it leaves when somebody wants the database, while it works and while it lingers
sub time_of
{
	my ($statement) = @_;
	my $start = time();
	my ($ret, $out, $err) = $node->psql('postgres', $statement, timeout => 30);
	is($ret, 0, $statement) or diag($err);
	cmp_ok(time() - $start, '<', 5, "$statement: did not wait for the server's five seconds");
}
for my $round (1 .. 3)
{
	$node->poll_query_until('postgres', "SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'distsys worker' AND datname = 'app'");
	time_of("CREATE DATABASE copy$round TEMPLATE app");
}
make_leases('copy2', 20000);
pass_time('3 h');
sql('copy2', 'SELECT distsys._poke()');
$node->poll_query_until('postgres', "SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'distsys worker' AND datname = 'copy2'");
time_of('DROP DATABASE copy2');
sql('copy3', 'SELECT distsys._poke()');
$node->poll_query_until('postgres', "SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'distsys worker' AND datname = 'copy3'");
time_of('ALTER DATABASE copy3 RENAME TO copy4');
time_of('DROP DATABASE copy4');
ok($node->poll_query_until('app', "SELECT bool_and(consecutive_failures = 0) FROM distsys.worker_jobs"), 'the other database goes on');

# --- DROP EXTENSION and CREATE EXTENSION beside a busy worker
make_leases('app', 5000);
pass_time('5 h');
for my $round (1 .. 5)
{
	my ($ret, $out, $err) = $node->psql('app', 'DROP EXTENSION distsys', timeout => 30);
	is($ret, 0, "DROP EXTENSION, round $round") or diag($err);
	($ret, $out, $err) = $node->psql('app', 'CREATE EXTENSION distsys', timeout => 30);
	is($ret, 0, "CREATE EXTENSION, round $round") or diag($err);
	make_leases('app', 1000);
	pass_time(5 + $round * 2 . ' h');
}
ok($node->poll_query_until('app', $rows_left), 'the worker is back after CREATE EXTENSION');
$log = slurp_file($node->logfile);
unlike($log, qr/could not open relation|cache lookup failed|PANIC|TRAP/, 'and never saw half an extension');
# the time in which it is open is longer than the worker's lock_timeout: it must not wait for a table
sql('app', 'BEGIN; DROP EXTENSION distsys; SELECT pg_sleep(3); ROLLBACK');
make_leases('app', 10);
pass_time('20 h');
ok($node->poll_query_until('app', $rows_left), 'a DROP EXTENSION that is rolled back changes nothing');
is(sql('app', 'SELECT count(last_error) FROM distsys.worker_jobs'), '0', 'and no job has met a half-dropped extension');

# --- a failing job backs off, is logged once, and the others go on
my $before = -s $node->logfile;
sql('postgres', "ALTER SYSTEM SET distsys.worker_fail_job = 'lease_sweep'");
sql('postgres', 'SELECT pg_reload_conf()');
ok($node->poll_query_until('app', "SELECT consecutive_failures >= 2 FROM distsys.worker_jobs WHERE job = 'lease_sweep'"), 'failures are counted');
like(sql('app', "SELECT last_error FROM distsys.worker_jobs WHERE job = 'lease_sweep'"), qr/worker_fail_job/, 'the error is shown');
is(sql('app', "SELECT next_run_at > last_started_at + period / 30 FROM distsys.worker_jobs WHERE job = 'lease_sweep'"), 't', 'the next try is later than usual');
my $others = "FROM distsys.worker_jobs WHERE job <> 'lease_sweep'";
my $t0 = sql('app', 'SELECT clock_timestamp()');
if (sql('app', "SELECT count(*) $others") > 0)
{
	ok($node->poll_query_until('app', "SELECT bool_and(consecutive_failures = 0 AND last_success_at > '$t0') $others"), 'the other jobs go on');
}
is(sql('app', "SELECT value >= 2 FROM distsys.stats WHERE domain = 'worker' AND object = 'lease_sweep' AND metric = 'failed'"), 't', 'failures are in stats');
$log = slurp_file($node->logfile, $before);
my $oid    = sql('app', "SELECT oid FROM pg_database WHERE datname = 'app'");
my $logged = () = $log =~ /CONTEXT:\s+housekeeping job "lease_sweep" in database $oid\b/g;
is($logged, 1, 'logged once for this state of this database');
like($log, qr/housekeeping job "lease_sweep" in database/, 'with its context');
sql('postgres', 'ALTER SYSTEM RESET distsys.worker_fail_job');
sql('postgres', 'SELECT pg_reload_conf()');
ok($node->poll_query_until('app', "SELECT consecutive_failures = 0 AND last_error IS NOT NULL FROM distsys.worker_jobs WHERE job = 'lease_sweep'"), 'it recovers by itself; the last error stays visible');

# --- killed worker, killed launcher, switched off
$node->poll_query_until('app', "SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'distsys worker' AND datname = 'app'");
sql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'distsys worker'");
$t0 = sql('app', 'SELECT clock_timestamp()');
ok($node->poll_query_until('app', "SELECT last_success_at > '$t0' FROM distsys.worker_jobs WHERE job = 'lease_sweep'"), 'a worker that was terminated comes back');
sql('postgres', 'ALTER SYSTEM SET distsys.worker_enabled = off');
sql('postgres', 'SELECT pg_reload_conf()');
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'distsys worker'"), 'worker_enabled = off ends the workers');
sql('postgres', 'ALTER SYSTEM RESET distsys.worker_enabled');
sql('postgres', 'SELECT pg_reload_conf()');
$t0 = sql('app', 'SELECT clock_timestamp()');
ok($node->poll_query_until('app', "SELECT last_success_at > '$t0' FROM distsys.worker_jobs WHERE job = 'lease_sweep'"), 'and on again starts them');

# --- a standby has none, a promotion starts it
$node->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'b', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
is($standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'distsys%'"), '0', 'no launcher on a standby');
is($standby->safe_psql('app', "SELECT count(*) > 0 AND count(last_started_at) = 0 FROM distsys.worker_jobs"), 't', 'worker_jobs on a standby says: never');
my ($ret, $out, $err) = $standby->psql('app', 'SELECT * FROM distsys.maintain()', extra_params => [ '-v', 'VERBOSITY=sqlstate' ]);
like($err, qr/25006/, 'maintain() on a standby is 25006');
$node->stop('fast');
$log = slurp_file($node->logfile);
unlike($log, qr/FATAL:.*distsys launcher/, 'a shutdown logs no FATAL for the launcher');
$standby->promote;
ok($standby->poll_query_until('app', "SELECT bool_and(last_success_at IS NOT NULL) FROM distsys.worker_jobs"), 'after the promotion the jobs run');

# --- no free worker slot: said once, and tried again
$standby->append_conf('postgresql.conf', "max_worker_processes = 2\n");	# the launcher and the logical replication launcher
$standby->restart;
sub slots_said
{
	my $n = () = slurp_file($standby->logfile) =~ /found no free worker slot/g;
	return $n;
}
for (1 .. 100) { last if slots_said() > 0; select(undef, undef, undef, 0.1) }
sleep(5);
is(slots_said(), 1, 'an exhausted max_worker_processes is logged once');
is($standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'distsys launcher'"), '1', 'the launcher goes on');
$standby->safe_psql('app', "SELECT distsys.maintain()");
$standby->stop;

# --- more databases than one worker can visit in time: each has its turn, and not only the first ones again and again
my $crowd = PostgreSQL::Test::Cluster->new('crowd');
$crowd->init;
$crowd->append_conf('postgresql.conf', q{
shared_preload_libraries = 'distsys'
distsys.worker_max = 1
distsys.worker_speedup = 3		# a job is due every 3.3 s
});
$crowd->start;
my @databases = map { "crowd$_" } 1 .. 6;
$crowd->safe_psql('postgres', "CREATE DATABASE $_") for @databases;
$crowd->safe_psql($_, 'CREATE EXTENSION distsys') for @databases;
$crowd->append_conf('postgresql.conf', "post_auth_delay = 1\n");	# a visit takes longer than a second
$crowd->restart;
for my $database (@databases)
{
	ok($crowd->poll_query_until($database, 'SELECT bool_and(last_success_at IS NOT NULL) FROM distsys.worker_jobs'), "$database is visited");
}
$crowd->stop;

done_testing();
