# Exactly one effect per key and one answer: many clients on few keys, with rollbacks, late holders, killed backends and a
# crash, without synchronous commits. The same check finds a handler that looks before it inserts. Prepared claims.
use strict;
use warnings;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('idempotency');
$node->init;
$node->append_conf('postgresql.conf',
	"max_connections = 40\nmax_prepared_transactions = 2\nsynchronous_commit = off\nwal_writer_delay = '10s'\nlog_statement = none\n");
$node->start;
sub sql { return $node->safe_psql('postgres', $_[0]) }

sql(q{
	CREATE EXTENSION distsys;
	CREATE TABLE effects (key text, body text);
	CREATE TABLE replies (key text, code int, body text);
	-- one transaction: begin, work, complete
	CREATE FUNCTION once(k int) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE
		r distsys.idempotency_result;
		answer text := k || E' \t\\ ' || random();
	BEGIN
		SELECT * INTO r FROM distsys.idempotency_begin('load', 'k' || k, sha256(k::text::bytea));
		IF r.status IN ('started', 'resumed') THEN
			INSERT INTO effects VALUES ('k' || k, answer);
			PERFORM distsys.idempotency_complete('load', 'k' || k, r.token, 201, answer);
		ELSIF r.status = 'replay' THEN
			INSERT INTO replies VALUES ('k' || k, r.response_code, r.response_body);
		END IF;
	END $$;
	-- the second transaction of a leased claim; one that came late leaves nothing
	CREATE FUNCTION finish(k int, token bigint) RETURNS boolean LANGUAGE plpgsql AS $$
	DECLARE
		answer text := k || ' leased ' || random();
	BEGIN
		INSERT INTO effects VALUES ('k' || k, answer);
		RETURN distsys.idempotency_complete('load', 'k' || k, token, 201, answer);
	EXCEPTION WHEN SQLSTATE 'SD103' THEN
		RETURN false;
	END $$;
	CREATE VIEW wrong AS
		SELECT key FROM effects GROUP BY key HAVING count(*) > 1
		UNION ALL SELECT key FROM replies r WHERE NOT EXISTS (SELECT FROM effects e WHERE e.key = r.key AND e.body = r.body AND r.code = 201);
});

# Runs pgbench in the background; returns a handle to finish.
sub load
{
	my ($clients, $seconds, %scripts) = @_;
	my @files;
	for my $name (sort keys %scripts)
	{
		my $file = $node->basedir . "/$name.sql";
		append_to_file($file, $scripts{$name}) unless -e $file;
		push @files, '-f', $file;
	}
	my ($out, $err) = ('', '');
	my $run = IPC::Run::start([ 'pgbench', '-n', '-c', $clients, '-j', 2, '-T', $seconds, @files, $node->connstr('postgres') ],
		'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(60));
	return { run => $run, err => \$err };
}
sub finish { my ($l) = @_; eval { $l->{run}->finish }; return ${ $l->{err} } }

my %scripts = (
	once => q{
\set k random(1, 150)
\set way random(1, 4)
BEGIN;
SELECT once(:k);
\if :way = 1
ROLLBACK;
\else
COMMIT;
\endif
},
	leased => q{
\set k random(151, 300)
\set ms random(1, 300)
SELECT (status IN ('started', 'resumed'))::int AS run, coalesce(token, 0) AS token FROM distsys.idempotency_begin('load', 'k' || :k, sha256((:k)::text::bytea), ttl => '200 ms') \gset
\if :run
\sleep :ms ms
SELECT finish(:k, :token);
\else
INSERT INTO replies SELECT 'k' || :k, response_code, response_body FROM distsys.idempotency_get('load', 'k' || :k) WHERE status = 'replay';
\endif
});

# --- backends that are killed
my $l = load(16, 3, %scripts);
my $killed = 0;
for (1 .. 8)
{
	select(undef, undef, undef, 0.15);
	$killed += sql("SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1) p");
}
finish($l);
cmp_ok($killed, '>', 0, 'backends were killed');

# --- a crash
$l = load(16, 20, %scripts);
sleep 1;
$node->stop('immediate');
finish($l);
$node->start;
$l = load(16, 2, %scripts);
unlike(finish($l), qr/aborted|ERROR/, 'no call fails');

# --- what nobody finished is finished, everything else is replayed once more
sql("SET distsys.clock_offset = '1 h'; SELECT once(k) FROM generate_series(1, 300) k");
sql("SELECT once(k) FROM generate_series(1, 300) k");
is(sql("SELECT count(*), count(DISTINCT key) FROM effects"), '300|300', 'exactly one effect per key');
cmp_ok(sql("SELECT count(*) FROM replies"), '>', 1000, 'many replays');
is(sql("SELECT count(*) FROM wrong"), '0', 'every replay is byte-identical to the first answer');
cmp_ok(sql("SELECT max(attempt) FROM distsys.idempotency_record"), '>', 1, 'some claims were taken over');
is(sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"), '0', 'no deadlock');

# --- a committed claim and a replay that was given out are on disk whatever synchronous_commit says
is(sql("SELECT status FROM distsys.idempotency_begin('crash', 'k', sha256('a'))"), 'started', 'a claim');
$node->stop('immediate');
$node->start;
is(sql("SELECT status FROM distsys.idempotency_begin('crash', 'k', sha256('a'))"), 'in_progress', 'it survives a crash at once');

# --- distsys.durability off: what a caller was given who waited for the commit of the answer
my $holder = $node->background_psql('postgres');
$holder->query_safe("SET distsys.durability = off; BEGIN; SELECT token AS t FROM distsys.idempotency_begin('crash', 'waited', sha256('a')) \\gset");
$holder->query_safe("SELECT distsys.idempotency_complete('crash', 'waited', :t, 201, 'paid')");
my $waited = '';
my $waiter = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c',
	"SELECT status FROM distsys.idempotency_begin('crash', 'waited', sha256('a'), wait => '10 s')" ], '>', \$waited);
$node->poll_query_until('postgres', "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)");
$holder->query_safe("COMMIT");
$waiter->finish;
$node->stop('immediate');
$node->start;
is($waited, "replay\n", 'whoever waits for the holder gets the answer');
is(sql("SELECT status FROM distsys.idempotency_get('crash', 'waited')"), 'replay', 'and it survives a crash');

# --- a prepared claim stays in progress, over a crash too, until its COMMIT PREPARED or ROLLBACK PREPARED
sql("BEGIN; SELECT once(400); PREPARE TRANSACTION 'a'");
sql("BEGIN; SELECT once(401); PREPARE TRANSACTION 'b'");
my $begin = "SELECT string_agg(status, ' ' ORDER BY k) FROM unnest('{400,401}'::int[]) k, distsys.idempotency_begin('load', 'k' || k, sha256(k::text::bytea))";
is(sql($begin), 'in_progress in_progress', 'prepared');
$node->stop('immediate');
$node->start;
is(sql($begin), 'in_progress in_progress', 'prepared, after a crash');
sql("COMMIT PREPARED 'a'");
sql("ROLLBACK PREPARED 'b'");
is(sql($begin), 'replay started', 'committed and rolled back');

# --- the check is worth something: look, then insert, as people write it
sql(q{
	TRUNCATE effects, replies;
	CREATE FUNCTION naive(k int) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		IF NOT EXISTS (SELECT FROM effects WHERE key = 'k' || k) THEN
			INSERT INTO effects VALUES ('k' || k, random()::text);
		END IF;
	END $$;
});
$l = load(16, 2, naive => "\\set k random(1, 50)\nBEGIN;\nSELECT naive(:k);\n\\sleep 50 ms\nCOMMIT;\n");
finish($l);
cmp_ok(sql("SELECT count(*) FROM wrong"), '>', 0, 'the check finds a handler that looks before it inserts');

$node->stop;
done_testing();
