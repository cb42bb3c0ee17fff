# The sequencer under load: 8 writers with random delays between the first write, the publishing and the commit, with
# savepoints and rollbacks; one transaction open throughout that has published, a write transaction in another database,
# a prepared transaction. A reader with a cursor gets exactly what was committed, in an order that no key and no
# transaction contradicts, each event after its rows. So does a group that acknowledges with its effect.
#
# The same reader over a plain table with an identity column finds losses: the check can fail.
use strict;
use warnings;
use IPC::Run qw(start);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seconds = 8;

my $node = PostgreSQL::Test::Cluster->new('sequencer');
$node->init;
$node->append_conf('postgresql.conf', "max_prepared_transactions = 5\nmax_wal_senders = 1\nwal_level = replica\ntrack_commit_timestamp = on\nsynchronous_commit = off\nautovacuum = off\n");
$node->start;
sub sql { return $node->safe_psql('postgres', $_[0]) }

sql(q{
	CREATE EXTENSION distsys;
	SELECT distsys.outbox_topic_create('s'), distsys.outbox_group_create('s', 'g');
	CREATE TABLE other (n int);
	-- the row lock on a key makes its transactions one after the other
	CREATE TABLE keys (key int PRIMARY KEY, v int NOT NULL);
	INSERT INTO keys SELECT n, 0 FROM generate_series(1, 24) n;
	-- the business rows, and the naive outbox
	CREATE TABLE expected (key int, v int, i int, txn bigint, PRIMARY KEY (key, v, i));
	CREATE TABLE plain (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key int, v int, i int);

	CREATE FUNCTION publish(key int, events int) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE
		version int;
	BEGIN
		UPDATE keys k SET v = k.v + 1 WHERE k.key = publish.key RETURNING k.v INTO version;
		FOR i IN 1 .. events LOOP
			INSERT INTO expected VALUES (publish.key, version, i, txid_current());
			INSERT INTO plain (key, v, i) VALUES (publish.key, version, i);
			PERFORM distsys.outbox_publish('s', 'e', jsonb_build_array(publish.key, version, i), publish.key::text);
		END LOOP;
	END $$;

	CREATE TABLE delivered (n bigint GENERATED ALWAYS AS IDENTITY, position bigint, id uuid, key int, v int, i int, has_row boolean, lag interval);
	CREATE TABLE delivered_plain (n bigint GENERATED ALWAYS AS IDENTITY, id bigint);
	CREATE TABLE acknowledged (n bigint GENERATED ALWAYS AS IDENTITY, position bigint, id uuid);

	-- readers with a cursor; the business row and the event are looked at in one statement
	CREATE PROCEDURE read_events(until timestamptz) LANGUAGE plpgsql AS $$
	DECLARE
		cursor_position bigint := 0;
		cursor_plain bigint := 0;
	BEGIN
		WHILE clock_timestamp() < until LOOP
			INSERT INTO delivered (position, id, key, v, i, has_row, lag)
			SELECT e.position, e.id, x.key, x.v, x.i, x.key IS NOT NULL, clock_timestamp() - pg_xact_commit_timestamp(l.xmin)
			FROM distsys.outbox_read('s', cursor_position, 500) e
			LEFT JOIN expected x ON x.key = (e.payload ->> 0)::int AND x.v = (e.payload ->> 1)::int AND x.i = (e.payload ->> 2)::int
			LEFT JOIN distsys.outbox_event_log l ON l.aggregatetype = 's' AND l.position = e.position
			ORDER BY e.position;
			SELECT coalesce(max(position), cursor_position) INTO cursor_position FROM delivered WHERE position > cursor_position;
			INSERT INTO delivered_plain (id) SELECT id FROM plain WHERE id > cursor_plain ORDER BY id LIMIT 500;
			SELECT coalesce(max(id), cursor_plain) INTO cursor_plain FROM delivered_plain WHERE id > cursor_plain;
			COMMIT;
			PERFORM pg_sleep(0.002);
		END LOOP;
	END $$;
	-- a member of a group; every tenth effect is rolled back
	CREATE PROCEDURE consume(until timestamptz) LANGUAGE plpgsql AS $$
	DECLARE
		fetched bigint[];
		round int := 0;
	BEGIN
		WHILE clock_timestamp() < until LOOP
			WITH d AS (SELECT * FROM distsys.outbox_fetch('s', 'g', 'm', 200)),
			     effect AS (INSERT INTO acknowledged (position, id) SELECT position, id FROM d ORDER BY position)
			SELECT array_agg(receipt) INTO fetched FROM d;
			IF fetched IS NOT NULL THEN
				PERFORM distsys.outbox_ack('s', 'g', fetched);
			END IF;
			round := round + 1;
			IF round % 10 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
			PERFORM pg_sleep(0.002);
		END LOOP;
	END $$;
});

my $script = $node->basedir . '/writer.sql';
append_to_file($script, q{
\set key random(1, 24)
\set events random(1, 3)
\set fate random(1, 100)
\set before random(0, 10)
\set after random(0, 10)
BEGIN;
INSERT INTO other VALUES (1);
\sleep :before ms
SELECT publish(:key, :events);
\if :fate > 60
SAVEPOINT s;
SELECT publish(:key, 2);
ROLLBACK TO s;
SELECT publish(:key, 1);
\endif
\sleep :after ms
\if :fate <= 5
ROLLBACK;
\else
COMMIT;
\endif
});

# runs statements one after the other, from now on
sub session
{
	my ($database, @statements) = @_;
	my ($in, $out, $err) = ('', '', '');
	return start([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($database), map { ('-c', $_) } @statements ], \$in, \$out, \$err);
}

my $whole = $seconds + 2;
my @disturbers = (
	# has published first and commits last
	session('postgres', 'BEGIN', 'INSERT INTO other VALUES (2)', "SELECT distsys.outbox_publish('s', 'open', '[0, 0, 0]')", "SELECT pg_sleep($whole)", 'COMMIT'),
	session('template1', 'BEGIN', 'CREATE TABLE t (n int)', "SELECT pg_sleep($whole)", 'ROLLBACK'));
sql("BEGIN; INSERT INTO other VALUES (3); PREPARE TRANSACTION 'throughout'");
my $until = sql("SELECT clock_timestamp() + '" . ($seconds + 4) . " s'");
my @readers = (session('postgres', "CALL read_events('$until')"), session('postgres', "CALL consume('$until')"));

$node->command_ok([ 'pgbench', '-n', '-f', $script, '-c', 8, '-j', 2, '-T', $seconds, 'postgres' ], '8 writers');
ok($_->finish, 'the transaction that was open throughout has ended well') for @disturbers;
ok($_->finish, 'a reader has ended well') for @readers;
sql("ROLLBACK PREPARED 'throughout'");

my $committed = sql('SELECT count(*) FROM expected');
diag("$committed events in " . sql('SELECT count(DISTINCT txn) FROM expected') . ' transactions; lag p50, p99, max in ms: '
	  . sql("SELECT string_agg(round(ms)::text, ' ' ORDER BY ms) FROM (SELECT unnest(percentile_disc(ARRAY[0.5, 0.99, 1]) WITHIN GROUP (ORDER BY extract(epoch FROM lag) * 1000)) AS ms FROM delivered WHERE has_row) p"));
cmp_ok($committed, '>', 500, 'there was load');

# set(delivered) = set(committed), each once
is(sql('SELECT count(*) FROM expected LEFT JOIN delivered USING (key, v, i) WHERE delivered.n IS NULL'), 0, 'nothing that was committed is missing');
is(sql('SELECT count(*) FROM delivered WHERE has_row'), $committed, 'nothing comes twice');
is(sql('SELECT count(*), min(position) = (SELECT max(position) FROM delivered) FROM delivered WHERE NOT has_row'), '1|t',
	'no event before its rows; the transaction that was open throughout comes last');
# order
is(sql('SELECT count(*) FROM (SELECT position, lag(position) OVER (ORDER BY n) AS previous FROM delivered) d WHERE position <= previous'), 0, 'positions rise strictly');
is(sql('SELECT count(*) FROM (SELECT (v, i) <= lag((v, i)) OVER (PARTITION BY key ORDER BY position) AS inverted FROM delivered WHERE has_row) d WHERE inverted'), 0,
	'no key goes backwards');
is(sql('SELECT count(*) FROM (SELECT max(position) - min(position) + 1 - count(*) AS torn FROM delivered JOIN expected USING (key, v, i) GROUP BY txn) t WHERE torn <> 0'), 0,
	'each transaction is contiguous');
is(sql('SELECT bool_and(position < 2::numeric ^ 53) FROM delivered'), 't', 'positions are exact in JSON');
cmp_ok(sql("SELECT percentile_disc(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM lag) * 1000) FROM delivered WHERE has_row"), '<', 500,
	'the open transactions hold no reader up');

# the group: the same order, each effect once although every tenth was rolled back
is(sql('SELECT count(*) FROM delivered FULL JOIN acknowledged USING (position, id) WHERE delivered.n IS NULL OR acknowledged.n IS NULL'), 0, 'the group has got the same');
is(sql('SELECT count(*) - count(DISTINCT position), bool_and(rising) FROM (SELECT position, coalesce(position > lag(position) OVER (ORDER BY n), true) AS rising FROM acknowledged) a'), '0|t',
	'each once, in the same order');
is(sql("SELECT lag_events, in_flight, dead FROM distsys.outbox_groups WHERE topic = 's'"), '0|0|0', 'and nothing is left');

# the mutant
my $lost = sql('SELECT count(*) FROM plain p WHERE NOT EXISTS (SELECT FROM delivered_plain d WHERE d.id = p.id)');
diag("a cursor over an identity column has lost $lost of " . sql('SELECT count(*) FROM plain'));
cmp_ok($lost, '>', 0, 'the same reader over an identity column loses events');

# A commit that is held up: readers stop before it and go on as soon as it is there, nobody reads past it
$node->append_conf('postgresql.conf', "synchronous_standby_names = 'nobody'\n");
$node->restart;
my $waiter = session('postgres', 'SET synchronous_commit = on', "SELECT distsys.outbox_publish('s', 'held up', '[0, 0, 1]')");
# (restarted, since the checkpointer is what makes the setting take effect after a reload)
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"), 'a commit waits for a standby');
my $cursor = sql('SELECT max(position) FROM delivered');
sql("SET synchronous_commit = local; SELECT distsys.outbox_publish('s', 'behind', '[0, 0, 2]')");
is(sql("SET distsys.outbox_read_wait = '50 ms'; SELECT count(*) FROM distsys.outbox_read('s', $cursor)"), 0, 'readers do not pass it');
is(sql("SET synchronous_commit = local; SET distsys.outbox_read_wait = '50 ms'; SELECT count(*) FROM distsys.outbox_fetch('s', 'g', 'm')"), 0, 'groups neither');
$node->append_conf('postgresql.conf', "synchronous_standby_names = ''\n");
$node->reload;
ok($waiter->finish, 'it ends');
is(sql("SELECT string_agg(type, ', ' ORDER BY position) FROM distsys.outbox_read('s', $cursor)"), 'held up, behind', 'then both are there, in order');

$node->stop;
done_testing();
