# Advisory locks, preloaded: no list-append under xact_lock loses an entry in REPEATABLE READ, also when the map of last
# writers overflows, after a restart with prepared transactions, and with colliding hashes; xact_lock_all in any order does not
# deadlock; the view locks knows names. Each property is shown to fail without what it rests on.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('advisory');
$node->init;
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'distsys'
fsync = off
max_connections = 40
max_prepared_transactions = 10
deadlock_timeout = 50ms
});
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION distsys;
	CREATE TABLE list (run text, name int, number int);
	CREATE TABLE written (i int);

	-- how many of the names the transaction gets: 40001 for the others
	CREATE FUNCTION lockable(names text[]) RETURNS int LANGUAGE plpgsql AS $$
	DECLARE
		n int := 0;
		name text;
	BEGIN
		FOREACH name IN ARRAY names LOOP
			BEGIN
				PERFORM distsys.xact_lock(name);
				n := n + 1;
			EXCEPTION WHEN serialization_failure THEN
			END;
		END LOOP;
		RETURN n;
	END $$;
});
sub sql { return $node->safe_psql('postgres', $_[0]) }

sub bench
{
	my ($name, $script, @options) = @_;
	my $file = $node->basedir . "/$name.sql";
	my ($out, $err);

	append_to_file($file, $script);
	IPC::Run::run([ 'pgbench', '-n', '-c', 8, '-j', 2, '-T', 4, '-f', $file, @options, $node->connstr('postgres') ], '>', \$out, '2>', \$err);
	my ($done) = $out =~ /transactions actually processed: (\d+)/;
	note("$name: " . ($done // 'failed') . " transactions");
	cmp_ok($done // 0, '>', 20, "$name: it did something") or diag($err);
	return $out . $err;
}

# --- list-append: the snapshot is taken before the lock, the next number is read under it
sub append
{
	my ($run, $settings) = @_;
	local $ENV{PGOPTIONS} = $settings;
	bench($run, qq{
\\set n random(1, 4)
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM list WHERE false;
SELECT distsys.xact_lock('list ' || :n);
INSERT INTO list SELECT '$run', :n, coalesce(max(number), 0) + 1 FROM list WHERE run = '$run' AND name = :n;
END;
}, '--max-tries', 100);
	return sql("SELECT count(*) FROM (SELECT FROM list WHERE run = '$run' GROUP BY name, number HAVING count(*) > 1) d");
}
is(append('error', ''), '0', 'no number twice in REPEATABLE READ');
is(append('collisions', '-c distsys.hash_bits=2'), '0', 'nor with colliding hashes');
cmp_ok(append('off', '-c distsys.stale_snapshot=off'), '>', 0, 'without the check the same run finds numbers twice');

# --- more last writers than the map has room for: too careful is allowed, too late is not
my $reader = $node->background_psql('postgres');
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM written');
sql(q{
	DO $$
	BEGIN
		FOR batch IN 1 .. 50 LOOP
			PERFORM distsys.xact_lock('name ' || batch || '/' || i) FROM generate_series(1, 1000) i;
			INSERT INTO written VALUES (batch);
			COMMIT;
		END LOOP;
	END $$});
my $missed = $reader->query_safe(q{SELECT lockable(ARRAY(SELECT 'name ' || batch || '/' || i FROM generate_series(1, 50) batch, generate_series(1, 1000, 7) i))});
is($missed, '0', 'of 50,000 names written since the snapshot none is missed, also of those that the map has dropped');
my $careful = $reader->query_safe(q{SELECT 200 - lockable(ARRAY(SELECT 'untouched ' || i FROM generate_series(1, 200) i))});
note("$careful of 200 names that nobody touched are refused too");
$reader->query_safe('COMMIT');
is($reader->query_safe(q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT lockable(ARRAY(SELECT 'name ' || batch || '/3' FROM generate_series(1, 50) batch)); COMMIT}),
	'50', 'a new snapshot sees them all');

# --- prepared transactions: their end tells nobody, a restart empties the map
for my $restart (0, 1)
{
	my $label = $restart ? 'prepared before a restart' : 'prepared';
	sql(q{BEGIN; SELECT distsys.xact_lock('two phases'); INSERT INTO written VALUES (2); PREPARE TRANSACTION 'p'});
	if ($restart)
	{
		$reader->quit;
		$node->restart;
		$reader = $node->background_psql('postgres');
	}
	$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM written');
	is($reader->query_safe(q{SELECT distsys.xact_lock('two phases', '0'), distsys.xact_lock('other')}), 'f|t', "$label: still in doubt, and others do not mind");
	sql(q{COMMIT PREPARED 'p'});
	is($reader->query_safe(q{SELECT lockable('{two phases}')}), '0', "$label: committed since the snapshot");
	$reader->query_safe('ROLLBACK');
	is($reader->query_safe(q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT distsys.xact_lock('two phases'); COMMIT}), 't', "$label: a new snapshot sees it");
}

# --- several names in random order
my $several = q{
\set a random(1, 6)
\set b random(1, 6)
\set c random(1, 6)
};
unlike(bench('all', $several . "SELECT distsys.xact_lock_all(ARRAY['n' || :a, 'n' || :b, 'n' || :c]);\n"), qr/deadlock/, 'xact_lock_all in random order: no deadlock');
like(bench('single', $several . "BEGIN;\nSELECT distsys.xact_lock('n' || :a);\nSELECT distsys.xact_lock('n' || :b);\nSELECT distsys.xact_lock('n' || :c);\nEND;\n", '--max-tries', 100, '-r'),
	qr/number of transactions retried: [1-9]/, 'one by one the same load deadlocks');
is(sql("SELECT count(*) FROM distsys.locks"), '0', 'nothing is held afterwards');

# --- names in the view
my $holder = $node->background_psql('postgres');
$holder->query_safe(q{SELECT count(distsys.session_lock('session ' || i)) FROM generate_series(1, 3) i});
$holder->query_safe(q{BEGIN; SELECT distsys.xact_lock('xact ' || i) FROM generate_series(1, 9) i});
my $names = q{SELECT string_agg(coalesce(name, '?'), ', ' ORDER BY name) FROM distsys.locks WHERE pid = %s AND kind = '%s'};
my $pid = $holder->query_safe('SELECT pg_backend_pid()');
is(sql(sprintf $names, $pid, 'session'), 'session 1, session 2, session 3', 'session locks are named, whatever came after them');
is(sql(sprintf $names, $pid, 'xact'), 'xact 5, xact 6, xact 7, xact 8, xact 9, ?, ?, ?, ?', 'so are the last locks of a transaction');
$reader->query_until(qr/waits/, "\\echo waits\nSELECT distsys.xact_lock_shared('xact 1');\n");
$node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM distsys.locks WHERE NOT granted');
is(sql(q{SELECT string_agg(mode || ' ' || name, ', ' ORDER BY mode) FROM distsys.locks WHERE name = 'xact 1'}), 'ExclusiveLock xact 1, ShareLock xact 1',
	'who waits names the lock of who holds it');
$holder->query_safe('COMMIT');
$reader->query_safe('SELECT 1');
sql(q{BEGIN; SET LOCAL distsys.advisory_keyspace = shared; SELECT distsys.xact_lock('common'); SELECT pg_advisory_xact_lock(4711); PREPARE TRANSACTION 'p'});
is(sql(q{SELECT kind, name, pid IS NULL, mode FROM distsys.locks WHERE kind <> 'session'}), 'xact|common|t|ExclusiveLock',
	'in the shared keyspace what somebody has locked by name is shown, and no other number of pg_advisory_lock');
sql(q{ROLLBACK PREPARED 'p'});

$holder->quit;
$reader->quit;
$node->stop;
done_testing();
