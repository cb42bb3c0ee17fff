# Dump and restore, into another database of the same cluster and into another cluster: tokens and positions rise,
# leases come back expired, no event and no claim is lost, configuration is not doubled.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('source');
$node->init;
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE app');
$node->safe_psql('app', q{
	CREATE EXTENSION distsys;
	SELECT distsys.outbox_topic_create('t');
	SELECT distsys.outbox_group_create('t', 'g');
	SELECT distsys.idempotency_policy_create('default', retention => '48 hours');
	SELECT distsys.rate_limit_create('p', quota => 5, period => '1 h');
	SELECT allowed FROM distsys.rate_limit_take('p', 'k', 2);
	SELECT distsys.outbox_publish('t', 'e', jsonb_build_object('n', g)) FROM generate_series(1, 5) g;
	SELECT distsys.outbox_ack('t', 'g', ARRAY(SELECT receipt FROM distsys.outbox_fetch('t', 'g', 'm', 2)));
	SELECT distsys.idempotency_complete('s', 'k', token, 201, 'body') FROM distsys.idempotency_begin('s', 'k', sha256('x'));
	CREATE TABLE guarded AS SELECT g AS i FROM generate_series(1, 3) g;
	SELECT distsys.fence_attach('guarded', 'guard');
	CREATE ROLE regress_app;
	SELECT distsys.access_grant('regress_app', 'app');
});
my $lease = $node->safe_psql('app', "SELECT token FROM distsys.lease_acquire('l', 'me', '15 min')");
my $head  = $node->safe_psql('app', "SELECT max(position) FROM distsys.outbox_read('t')");

sub check_copy
{
	my ($copy, $db, $label) = @_;
	my $sql = sub { return $copy->safe_psql($db, $_[0]) };

	is($sql->("SELECT acquired FROM distsys.lease_acquire('l', 'other', '1 min')"), 't', "$label: the lease came back expired");
	cmp_ok($sql->("SELECT token FROM distsys.lease_acquire('l2', 'me', '1 min')"), '>', $lease, "$label: tokens rise");
	my ($ret, $out, $err) = $copy->psql($db, "SELECT distsys.lease_renew('l', $lease)", extra_params => [ '-v', 'VERBOSITY=sqlstate' ]);
	like($err, qr/SD002/, "$label: the old holder is told");
	is($sql->("SELECT string_agg(payload->>'n', ',' ORDER BY position) FROM distsys.outbox_read('t')"), '1,2,3,4,5', "$label: no event lost");
	is($sql->("SELECT string_agg(payload->>'n', ',' ORDER BY position) FROM distsys.outbox_fetch('t', 'g', 'm')"), '3,4,5', "$label: the group goes on where it was");
	$sql->("SELECT distsys.outbox_publish('t', 'e', '{\"n\": 6}')");
	is($sql->("SELECT payload->>'n' FROM distsys.outbox_read('t', $head)"), '6', "$label: positions rise");
	is($sql->("SELECT status || ' ' || response_body FROM distsys.idempotency_begin('s', 'k', sha256('x'))"), 'replay body', "$label: a stored answer is replayed");
	is($sql->("SELECT count(*) FROM distsys.idempotency_policy"), '1', "$label: policies are not doubled");
	is($sql->("SELECT remaining FROM distsys.rate_limit_peek('p', 'k')"), '3', "$label: the bucket is where it was");
	is($sql->("SELECT string_agg(i::text, ',' ORDER BY i) FROM guarded"), '1,2,3', "$label: rows behind a fence came back");
	($ret, $out, $err) = $copy->psql($db, 'INSERT INTO guarded VALUES (4)', extra_params => [ '-v', 'VERBOSITY=sqlstate' ]);
	like($err, qr/SD002/, "$label: and so did the fence");
	is($sql->("SELECT token FROM distsys.lease_acquire('guard', 'me', '1 min') \\gset\nINSERT INTO guarded SELECT 4 WHERE (SELECT distsys.lease_assert('guard', :token)) RETURNING i"),
		'4', "$label: which the lease opens");
	is($sql->("SELECT has_function_privilege('regress_app', 'distsys.rate_limit_take(text, text, bigint)', 'EXECUTE')"), 't', "$label: the application's role may call");
	return;
}

my $dump = $node->basedir . '/app.sql';
$node->command_ok([ 'pg_dump', '-d', $node->connstr('app'), '-f', $dump ], 'pg_dump');

$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('copy'), '-f', $dump ], 'restore into the same cluster');
check_copy($node, 'copy', 'same cluster');

# a worker that looks around in the middle of a restore makes no row that the dump is about to bring
my $busy = $node->basedir . '/busy.sql';
append_to_file($busy, slurp_file($dump) =~ s/^(?=COPY distsys)/SELECT count(error) FROM distsys.maintain();\nSELECT FROM distsys.leases;\nSELECT distsys.token_epoch();\n/mr);
$node->safe_psql('postgres', 'CREATE DATABASE busy');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('busy'), '-f', $busy ], 'restore with housekeeping in the middle');
check_copy($node, 'busy', 'housekeeping in the middle');

my $other = PostgreSQL::Test::Cluster->new('other');
$other->init;
$other->start;
$other->safe_psql('postgres', 'CREATE ROLE regress_app; CREATE DATABASE app');
$other->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $other->connstr('app'), '-f', $dump ], 'restore into another cluster');
check_copy($other, 'app', 'other cluster');

# a physical copy of the database inside the cluster is a copy too
$node->safe_psql('postgres', 'CREATE DATABASE twin TEMPLATE app');
check_copy($node, 'twin', 'CREATE DATABASE ... TEMPLATE');

$node->stop;
$other->stop;
done_testing();
