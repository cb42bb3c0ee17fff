# A full lock table is bounded by us before it is everybody's problem; the application's lastval() is untouched;
# REINDEX CONCURRENTLY, VACUUM FULL and ignore_system_indexes in between; an index that somebody added.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('limits');
$node->init;
$node->append_conf('postgresql.conf', "max_locks_per_transaction = 64\nmax_connections = 20\n");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION distsys;
	SELECT distsys.outbox_topic_create('t');
	SELECT distsys.rate_limit_create('p', quota => 5, period => '1 h');
});
sub fails { my ($sql) = @_; my ($r, $o, $e) = $node->psql('postgres', $sql, extra_params => [ '-v', 'VERBOSITY=sqlstate' ]); return $e }
sub ok_sql { return $node->safe_psql('postgres', $_[0]) }

# --- key locks
like(fails("SELECT count(*) FROM generate_series(1, 2000) g, LATERAL distsys.rate_limit_take('p', 'k' || g) t"), qr/54000/,
	'a transaction that writes more than distsys.max_keys_per_transaction keys is 54000');
is(ok_sql("SELECT count(*) FROM distsys.locks"), '0', 'nothing is held afterwards');

# the server's own limit: an error, nothing left behind, others go on
like(fails("SET distsys.max_keys_per_transaction = 1000000; SELECT count(*) FROM generate_series(1, 100000) g, LATERAL distsys.rate_limit_take('p', 'k' || g) t"),
	qr/53200/, 'a full lock table is 53200');
is(ok_sql("SELECT count(*) FROM distsys.locks"), '0', 'nothing is held after a full lock table');
is(ok_sql("SELECT allowed FROM distsys.rate_limit_take('p', 'k1')"), 't', 'and calls work again');

# --- lastval
is(ok_sql(q{
	CREATE TABLE app (id serial, v text);
	INSERT INTO app (v) VALUES ('x');
	SELECT FROM distsys.outbox_publish('t', 'e', '{}');
	SELECT FROM distsys.lease_acquire('l', 'me', '1 min');
	SELECT lastval()}), '1', 'lastval() is the application\'s');

# --- maintenance in between, seen by a session that has everything cached
my $psql = $node->background_psql('postgres');
my $take = "SELECT remaining FROM distsys.rate_limit_peek('p', 'm'); SELECT allowed FROM distsys.rate_limit_take('p', 'm');";
is($psql->query_safe($take), "5\nt", 'before');
ok_sql('REINDEX TABLE CONCURRENTLY distsys.rate_limit_bucket');
is($psql->query_safe($take), "4\nt", 'after REINDEX CONCURRENTLY');
ok_sql('VACUUM FULL distsys.rate_limit_bucket');
is($psql->query_safe($take), "3\nt", 'after VACUUM FULL');
ok_sql('CLUSTER distsys.rate_limit_bucket USING rate_limit_bucket_pkey');
is($psql->query_safe($take), "2\nt", 'after CLUSTER');
ok_sql('TRUNCATE distsys.rate_limit_bucket');
is($psql->query_safe($take), "5\nt", 'after TRUNCATE: a new bucket');
{
	local $ENV{PGOPTIONS} = '-c ignore_system_indexes=on';
	is(ok_sql($take), "4\nt", 'with ignore_system_indexes');
}

# --- indexes that somebody added
ok_sql('CREATE INDEX extra ON distsys.rate_limit_bucket (updated_at)');
is($psql->query_safe($take), "3\nt", 'a plain index is kept up to date');
is(ok_sql("SET enable_seqscan = off; SELECT count(*) FROM distsys.rate_limit_bucket WHERE updated_at > now() - interval '1 h'"), '1', 'and finds the row');
for my $index ("(lower(key))", "(credit) WHERE credit > 0")
{
	ok_sql("CREATE INDEX bad ON distsys.rate_limit_bucket $index");
	like(fails("SELECT distsys.rate_limit_take('p', 'm')"), qr/55000/, "an index $index is 55000, not a crash");
	ok_sql('DROP INDEX distsys.bad');
}
is($psql->query_safe("SELECT allowed FROM distsys.rate_limit_take('p', 'm')"), 't', 'and calls work again when it is dropped');
$psql->quit;

# --- a row changed by hand meanwhile
ok_sql("UPDATE distsys.rate_limit_bucket SET credit = credit WHERE key = 'm'");
is(ok_sql("SELECT allowed FROM distsys.rate_limit_take('p', 'm')"), 't', 'a row updated by hand is found');

# --- invalidations that arrive in the middle of a call
append_to_file($node->basedir . '/calls.sql', <<'SQL');
\set k random(1, 20)
SELECT acquired FROM distsys.lease_acquire('i' || :client_id, 'me', '1 s');
SELECT allowed FROM distsys.rate_limit_take('p', 'i' || :k);
SELECT status FROM distsys.idempotency_begin('i', :client_id || '.' || random(), sha256('x'));
SELECT distsys.outbox_publish('t', 'e', '{}') IS NOT NULL;
SQL
append_to_file($node->basedir . '/ddl.sql', join '', map { "ALTER TABLE distsys.$_ SET (autovacuum_vacuum_cost_delay = 0);\nANALYZE distsys.$_;\n" }
	  qw(lease_grant rate_limit_bucket idempotency_record token_state outbox_event_log));
$node->command_ok([ 'pgbench', '-n', '-c', 6, '-j', 2, '-T', 4, '-f', $node->basedir . '/calls.sql@9', '-f', $node->basedir . '/ddl.sql@1', 'postgres' ],
	'every call beside statements that invalidate the tables it uses');

$node->stop;
done_testing();
