# What leases leave behind: a heartbeat nothing, many names nothing once the worker has swept them.
# DISTSYS_TEST_NAMES=1000000 for as many names, DISTSYS_TEST_RENEWALS for as many renewals.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $names = $ENV{DISTSYS_TEST_NAMES} // 100_000;
my $renewals = $ENV{DISTSYS_TEST_RENEWALS} // 100_000;

my $node = PostgreSQL::Test::Cluster->new('rows');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\nautovacuum = off\nwal_level = minimal\nmax_wal_senders = 0\nmax_wal_size = 4GB\nmax_locks_per_transaction = 1000\nshared_preload_libraries = 'distsys'\ndistsys.worker_speedup = 100\ndistsys.max_keys_per_transaction = 20000\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION distsys');
sub ask { return $node->safe_psql('postgres', $_[0]) }

# --- renewals of a few leases: in place, without an index entry. By one session: of several, one that the machine keeps from
# running has a snapshot meanwhile, for which the versions of the others are kept.
ask("SELECT count(*) FROM generate_series(1, 10) i, distsys.lease_acquire('beat' || i, 'me', '10 min')");
my $index = ask("SELECT pg_relation_size('distsys.lease_grant_pkey')");
my $script = $node->basedir . '/renew.sql';
append_to_file($script, <<"SQL");
DO \$\$
DECLARE
    tokens bigint[] := (SELECT array_agg(g.token ORDER BY i) FROM generate_series(1, 10) i, distsys.lease_get('beat' || i) g);
BEGIN
    FOR i IN 1 .. $renewals LOOP
        PERFORM distsys.lease_renew('beat' || i % 10 + 1, tokens[i % 10 + 1]);
        COMMIT;
    END LOOP;
END \$\$;
SQL
$node->command_ok([ 'pgbench', '-n', '-c', 1, '-t', 1, '-f', $script, 'postgres' ], "$renewals renewals");
$node->poll_query_until('postgres', "SELECT n_tup_upd >= $renewals FROM pg_stat_user_tables WHERE relname = 'lease_grant'");
is(ask("SELECT n_tup_hot_upd::float / n_tup_upd > 0.99 FROM pg_stat_user_tables WHERE relname = 'lease_grant'"), 't', 'over 99 % of them in place (HOT)');
is(ask("SELECT pg_relation_size('distsys.lease_grant_pkey')"), $index, 'the index has not grown');
cmp_ok(ask("SELECT pg_relation_size('distsys.lease_grant') / 8192"), '<=', 100, 'nor has the table, but for a few versions that a snapshot kept');
ask("SELECT distsys.lease_break('beat' || i) FROM generate_series(1, 10) i");

# --- many names: dead after their ttl, gone after the sweep
my $batches = $names / 10_000;
ask(qq{
	DO \$\$ BEGIN
		FOR i IN 1 .. $batches LOOP
			PERFORM count(*) FROM distsys.lease_acquire_all((SELECT array_agg('name ' || i || '.' || j) FROM generate_series(1, 10000) j), 'me', '100 ms');
			COMMIT;
		END LOOP;
	END \$\$});
# the last pages have names that live longer: they are swept while a snapshot still sees them
ask("SELECT count(*) FROM distsys.lease_acquire_all((SELECT array_agg('late ' || j) FROM generate_series(1, 200) j), 'me', '15 min')");
cmp_ok(ask("SELECT pg_relation_size('distsys.lease_grant') / 8192"), '>', $names / 100, 'the rows are there');
my $last = ask("SELECT token FROM distsys.lease_get('late 200')");
sub pass_time
{
	$node->append_conf('postgresql.conf', "distsys.clock_offset = '$_[0]'\n");
	$node->reload;
}
pass_time('12 min');
ok($node->poll_query_until('postgres', 'SELECT count(*) = 200 FROM distsys.leases'), 'the worker removes them');
my $reader = $node->background_psql('postgres');
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM distsys.lease_grant');
pass_time('120 min');
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM distsys.leases'), 'and the late ones');
ask('VACUUM distsys.lease_grant');
$reader->quit;
# a job of the worker may have a snapshot that still sees the last of them, or the table open
my $pages;
for my $try (1 .. 50)
{
	ask('VACUUM distsys.lease_grant');
	$pages = ask("SELECT pg_relation_size('distsys.lease_grant') / 8192");
	last if $pages <= 8;
	sleep(0.2);
}
cmp_ok($pages, '<=', 8, 'the table has its size of before');
cmp_ok(ask("SELECT token FROM distsys.lease_acquire('name 1', 'me', '10 s')"), '>', $last, 'the order of tokens does not depend on the rows');

$node->stop;
done_testing();
