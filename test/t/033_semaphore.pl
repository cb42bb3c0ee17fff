# Permits of semaphores: never more than there are, whatever happens to those who hold them.
#
# Clients note from when to when they certainly held permits: from after the grant to before the release, or to
# the expiry. Backends are killed in the middle, holders outlive their TTL, the semaphore is resized below what
# is in use. The checker counts, for every moment at which a hold began, the permits of that moment. Without the
# semaphore the same run has too many, so the checker can see it.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

my $clients = 16;

my $node = PostgreSQL::Test::Cluster->new('semaphore');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\nmax_connections = 60\nmax_prepared_transactions = 5\nshared_preload_libraries = 'distsys'\n");
$node->start;
sub sql { return $node->safe_psql('postgres', $_[0]); }

sql(<<'SQL');
CREATE EXTENSION distsys;
SELECT distsys.semaphore_create('work', 5);
CREATE TABLE hold (run text, token bigint PRIMARY KEY, permits int, began timestamptz, ended timestamptz);
CREATE TABLE twice (run text);

CREATE PROCEDURE work(run text, guarded boolean) LANGUAGE plpgsql AS $$
DECLARE
    g distsys.semaphore_grant;
    proof bigint := 1e15 * random();
    n int := CASE WHEN random() < 0.2 THEN 2 ELSE 1 END;
    expiry timestamptz := 'infinity';
BEGIN
    IF guarded THEN
        SELECT * INTO g FROM distsys.semaphore_acquire('work', 'client', '300 ms', n, CASE WHEN random() < 0.5 THEN interval '0' ELSE interval '50 ms' END);
        COMMIT;
        IF NOT g.acquired THEN
            RETURN;
        END IF;
        proof := g.token;
        expiry := g.expires_at;
    END IF;
    -- it is certain that the permit is held from here to there
    INSERT INTO hold VALUES (run, proof, n, clock_timestamp(), expiry);
    COMMIT;
    PERFORM pg_sleep(CASE WHEN random() < 0.02 THEN 0.5 ELSE 0.005 * random() END);
    UPDATE hold SET ended = least(ended, clock_timestamp()) WHERE token = proof;
    COMMIT;
    IF guarded AND distsys.semaphore_release('work', proof) THEN
        COMMIT;
        IF distsys.semaphore_release('work', proof) THEN
            INSERT INTO twice VALUES (run);
        END IF;
    END IF;
END $$;
SQL

# The most permits that were held at one moment of a run.
sub most
{
	my ($run, $after) = @_;
	$after ||= '-infinity';
	return sql("SELECT max((SELECT sum(o.permits) FROM hold o WHERE o.run = h.run AND o.began <= h.began AND o.ended > h.began)) FROM hold h WHERE h.run = '$run' AND h.began > '$after'");
}

sub start_clients
{
	my ($run, $guarded, $seconds, $options) = @_;
	my $script = $node->basedir . "/$run.sql";
	my ($out, $err) = ('', '');

	append_to_file($script, "CALL work('$run', $guarded);\n");
	local $ENV{PGOPTIONS} = '-c distsys.notice_in_transaction=off ' . ($options || '');
	# a client that is killed does not end the others
	return IPC::Run::start([ 'pgbench', '-n', '-h', $node->host, '-p', $node->port, '-c', $clients, '-j', 2, '-T', $seconds, '-f', $script, 'postgres' ], '>', \$out, '2>', \$err);
}

# ---- capacity -------------------------------------------------------------------

for (['plain', ''], ['collisions', '-c distsys.hash_bits=4'])
{
	my ($run, $options) = @$_;
	my $load = start_clients($run, 'true', 3, $options);

	# kill one of them now and then, in whatever it is doing
	for (1 .. 4)
	{
		sleep(0.6);
		sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL work(%' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1");
	}
	$load->finish;
	cmp_ok(sql("SELECT count(*) FROM hold WHERE run = '$run'"), '>', 50, "$run: there was work");
	my $most = most($run);
	cmp_ok($most, '<=', 5, "$run: never more than 5 permits at a time");
	cmp_ok($most, '>=', 4, "$run: and as many as that");
	note("$run: " . sql("SELECT count(*) FROM hold WHERE run = '$run'") . " holds, at most $most permits at a time");
}
is(sql('SELECT count(*) FROM twice'), 0, 'no release freed twice');

# below what is in use: nobody is blocked or thrown out, and from the moment at which the old ones have ended there are only 2
my $load = start_clients('resize', 'true', 3);
sleep(1);
is(sql("SET lock_timeout = '1 ms'; SELECT distsys.semaphore_resize('work', 2)"), 't', 'resizing does not wait for holders');
my $resized = sql('SELECT clock_timestamp()');
$load->finish;
cmp_ok(sql("SELECT count(*) FROM hold WHERE run = 'resize' AND began > timestamptz '$resized' + interval '400 ms'"), '>', 5, 'there was work after the resize');
cmp_ok(most('resize', sql("SELECT timestamptz '$resized' + interval '400 ms'")), '<=', 2, 'never more than 2 permits once those of before have ended');
sql("SELECT distsys.semaphore_resize('work', 5)");

$load = start_clients('bare', 'false', 1);
$load->finish;
cmp_ok(most('bare'), '>', 5, 'without the semaphore the checker finds too many');

# every permit comes back
ok($node->poll_query_until('postgres', "SELECT in_use = 0 FROM distsys.semaphores WHERE name = 'work'"), 'permits of killed sessions expire');
is(sql("SELECT array_length(slots, 1) FROM distsys.semaphore_acquire('work', 'me', '1 s', permits => 5)"), 5, 'and all can be had again');

# ---- waiting --------------------------------------------------------------------

sql("SELECT distsys.semaphore_create('queue', 1, queue_limit => 3)");
my $token = sql("SELECT token FROM distsys.semaphore_acquire('queue', 'holder', '10 min')");
sql('CREATE TABLE served (n serial, who int, at timestamptz DEFAULT clock_timestamp())');

# a session that waits, is served and gives back at once
sub waiter
{
	my ($who) = @_;
	my ($out, $err) = ('', '');
	my $handle = IPC::Run::start([ 'psql', '-XAtq', '-h', $node->host, '-p', $node->port, '-d', 'postgres', '-c', <<"SQL" ], '<', \undef, '>', \$out, '2>', \$err);
DO \$\$
DECLARE
    g distsys.semaphore_grant;
BEGIN
    g := distsys.semaphore_acquire('queue', 'waiter $who', '1 min', wait => '10 s');
    COMMIT;
    INSERT INTO served (who) SELECT $who WHERE g.acquired;
    COMMIT;
    PERFORM distsys.semaphore_release('queue', g.token);
END \$\$
SQL
	return { handle => $handle, out => \$out, err => \$err };
}
sub waiting { return "SELECT waiting = $_[0] FROM distsys.semaphores WHERE name = 'queue'"; }

my @waiters;
for my $who (1 .. 3)
{
	push @waiters, waiter($who);
	$node->poll_query_until('postgres', waiting($who)) or die "waiter $who does not wait";
}
is(sql("SELECT acquired, reason, retry_after > '9 min', clock_timestamp() - statement_timestamp() < '1 s' FROM distsys.semaphore_acquire('queue', 'one too many', '1 min', wait => '10 s')"),
	'f|queue_full|t|t', 'one more than queue_limit is refused at once');
is(sql("SELECT reason FROM distsys.semaphore_acquire('queue', 'in passing', '1 min')"), 'no_permit', 'who does not wait is not counted');

# the holder goes on beside them without waiting for a lock
is(sql("SET lock_timeout = '1 ms'; SELECT bool_and(acquired AND distsys.semaphore_assert('queue', $token)) FROM generate_series(1, 50), distsys.semaphore_renew('queue', $token)"), 't', 'heartbeats and asserts of the holder beside waiters');
is(sql(waiting(3)), 't', 'all that time they waited');

# the second one gives up: room for another; then they are served in their order, soon
sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%waiter 2%' AND pid <> pg_backend_pid()");
ok($node->poll_query_until('postgres', waiting(2)), 'a cancelled one leaves the queue');
push @waiters, waiter(4);
$node->poll_query_until('postgres', waiting(3)) or die 'waiter 4 does not wait';
is(sql("SELECT distsys.semaphore_release('queue', $token)"), 't', 'released');
$_->{handle}->finish for @waiters;
is(sql('SELECT string_agg(who::text, \',\' ORDER BY n) FROM served'), '1,3,4', 'first come, first served');
cmp_ok(sql("SELECT extract(epoch FROM max(at) - min(at)) FROM served"), '<', 0.5, 'each is called by the release before it');

# a waiter that is killed passes on; nobody overtakes in passing what is reserved for one that waits for several
sql("SELECT distsys.semaphore_resize('queue', 2)");
$token = sql("SELECT token FROM distsys.semaphore_acquire('queue', 'holder', '10 min')");
my $second = sql("SELECT token FROM distsys.semaphore_acquire('queue', 'holder', '10 min')");
my $several = $node->background_psql('postgres');
$several->query_until(qr/go/, "\\echo go\nSELECT slots FROM distsys.semaphore_acquire('queue', 'several', '1 min', permits => 2, wait => '10 s');\n");
$node->poll_query_until('postgres', waiting(1)) or die 'it does not wait';
sql("SELECT distsys.semaphore_release('queue', $token)");
is(sql("SELECT acquired, reason, retry_after IS NULL FROM distsys.semaphore_acquire('queue', 'in passing', '1 min')"), 'f|no_permit|t', 'a free permit is not taken from one that waits for two');
sql("SELECT distsys.semaphore_release('queue', $second)");
ok($node->poll_query_until('postgres', "SELECT count(*) = 2 FROM distsys.semaphore_permits WHERE name = 'queue' AND owner = 'several' AND live"), 'it gets both');
$several->quit;
sql("SELECT distsys.semaphore_release('queue', token) FROM distsys.semaphore_permits WHERE name = 'queue' LIMIT 1");

# who waits is woken by an expiry as well
sql("SELECT distsys.semaphore_acquire('queue', 'dies', '400 ms', permits => 2)");
is(sql("SELECT acquired, clock_timestamp() - statement_timestamp() < '2 s' FROM distsys.semaphore_acquire('queue', 'next', '100 ms', wait => '10 s')"), 't|t', 'an expired permit is granted to one that waits, when it expires');

# ---- without waiting ---------------------------------------------------------------

sql("SELECT distsys.semaphore_create('open', 3)");
my $open = $node->background_psql('postgres');
$open->query_safe("SET distsys.notice_in_transaction = off; BEGIN; SELECT acquired FROM distsys.semaphore_acquire('open', 'open', '10 min', permits => 3)");
my $try = $node->background_psql('postgres');
$try->query_safe("SET lock_timeout = '1 ms'");
my @took;
for (1 .. 20)
{
	my $began = time;

	$try->query_safe("SELECT acquired FROM distsys.semaphore_acquire('open', 'try', '1 min')") eq 'f' or die 'acquired';
	push @took, time - $began;
}
cmp_ok((sort { $a <=> $b } @took)[10], '<', 0.05, 'a refusal beside an open transaction takes less than 50 ms');
$open->query_safe('ROLLBACK');
is($try->query_safe("SELECT acquired FROM distsys.semaphore_acquire('open', 'try', '10 min')"), 't', 'after its rollback the permits are free');
$open->quit;
$try->quit;

# ---- crash, restart, restore ----------------------------------------------------------

sql("SELECT distsys.semaphore_create('kept', 2)");
$token = sql("SET synchronous_commit = off; SELECT token FROM distsys.semaphore_acquire('kept', 'me', '10 min')");
$node->stop('immediate');
$node->start;
is(sql("SELECT distsys.semaphore_assert('kept', $token)"), 't', 'a grant survives a crash, whatever synchronous_commit said');
cmp_ok(sql("SELECT token FROM distsys.semaphore_acquire('kept', 'me', '10 min')"), '>', $token, 'later tokens are higher');

# a release in a prepared transaction frees when that commits
sql("BEGIN; SELECT distsys.semaphore_release('kept', $token); PREPARE TRANSACTION 'release'");
is(sql("SELECT reason FROM distsys.semaphore_acquire('kept', 'me', '10 min')"), 'no_permit', 'a prepared release frees nothing yet');
sql("COMMIT PREPARED 'release'");
is(sql("SELECT reason FROM distsys.semaphore_acquire('kept', 'me', '10 min')"), 'ok', 'its commit does');

my $dump = $node->basedir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, 'postgres' ], 'dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', $dump, 'restored' ], 'restore');
is($node->safe_psql('restored', "SELECT permits, in_use FROM distsys.semaphores WHERE name = 'kept'"), '2|0', 'a restored semaphore has its size, and its permits have expired');
like(($node->psql('restored', "SELECT distsys.semaphore_renew('kept', $token + 1)"))[2], qr/is not held with this token/, 'and cannot be renewed');
is($node->safe_psql('restored', "SELECT array_length(slots, 1) FROM distsys.semaphore_acquire('kept', 'me', '1 min', permits => 2)"), 2, 'all are there to be granted');

# ---- what is left ------------------------------------------------------------------------

$node->safe_psql('restored', 'SELECT distsys.semaphore_acquire(\'kept\', \'me\', \'1 min\')');
is($node->safe_psql('restored', "SELECT string_agg(metric, ', ' ORDER BY metric) FROM distsys.stats WHERE domain = 'semaphore' AND value > 0"), 'acquired, contended, lost, refused', 'what is decided is counted');
is(sql('SELECT count(*) FROM distsys.locks WHERE pid <> pg_backend_pid()'), 0, 'no key lock is left');
$node->stop;
done_testing();
