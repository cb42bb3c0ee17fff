# Crash restarts with synchronous_commit = off set by the client.
#
# Tokens and positions rise over every crash, also tokens that were only seen in a transaction that was rolled
# back; committed leases and claims are there again; whatever a reader has seen is there again; a
# cursor that the consumer keeps outside the server never skips an event.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $rounds = 50;
my $node   = PostgreSQL::Test::Cluster->new('crash');
$node->init;
# the server's own periodic flush must not help
$node->append_conf('postgresql.conf', "wal_writer_delay = 10s\nwal_writer_flush_after = 0\nfsync = on\n"
	  . "restart_after_crash = off\nautovacuum = off\n");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION distsys;
	SELECT distsys.outbox_topic_create('t');
	CREATE TABLE effects (id uuid);
});

my $async = 'SET synchronous_commit = off; ';
sub q1 { return $node->safe_psql('postgres', $async . $_[0]) }

my ($highest_token, $cursor, %seen, %durable_lease, %durable_claim) = (0, 0);
my ($rising, $survived, $unskipped, $leases, $claims) = (1, 1, 1, 1, 1);

for my $round (1 .. $rounds)
{
	# a token that is seen and then rolled back
	my $rolled_back = q1("BEGIN; SELECT token FROM distsys.lease_acquire('rb$round', 'me', '15 min'); ROLLBACK;");
	$rising &&= $rolled_back > $highest_token;
	$highest_token = $rolled_back;

	# an open transaction draws before, a committed one after it
	my $lease = q1("SELECT token FROM distsys.lease_acquire('l$round', 'me', '15 min')");
	$rising &&= $lease > $highest_token;
	$highest_token = $lease;
	$durable_lease{"l$round"} = $lease;

	my $claim = q1("SELECT token FROM distsys.idempotency_begin('s', 'k$round', sha256('x'), ttl => '1 h')");
	$rising &&= $claim > $highest_token;
	$highest_token = $claim;
	$durable_claim{"k$round"} = $claim;

	# events: some are read before the crash, some are not
	q1("SELECT distsys.outbox_publish('t', 'e', '{}'); " x 3);
	for my $row (split /\n/, q1("SELECT position, id FROM distsys.outbox_read('t', $cursor)"))
	{
		my ($position, $id) = split /\|/, $row;
		$unskipped &&= $position > $cursor;
		$cursor = $position;
		$seen{$id} = $position;
	}
	q1("SELECT distsys.outbox_publish('t', 'e', '{}'); " x 2);

	$node->stop('immediate');
	$node->start;

	my %now = map { reverse split /\|/ } split /\n/, q1("SELECT position, id FROM distsys.outbox_read('t', 0, 10000)");
	for my $id (keys %seen) { $survived &&= defined $now{$id} && $now{$id} == $seen{$id} }
	# nothing that the cursor has not delivered may stand at or below it
	for my $id (keys %now) { $unskipped &&= $seen{$id} || $now{$id} > $cursor }

	my $held = join ',', map { "('$_', $durable_lease{$_})" } keys %durable_lease;
	$leases &&= q1("SELECT bool_and(l.live AND l.token = h.token) FROM (VALUES $held) h (name, token) LEFT JOIN distsys.leases l USING (name)") eq 't';
	my $claimed = join ',', map { "('$_')" } keys %durable_claim;
	$claims &&= q1("SELECT bool_and(b.status = 'in_progress') FROM (VALUES $claimed) c (key),"
		  . " LATERAL distsys.idempotency_begin('s', c.key, sha256('x')) b") eq 't';
}

ok($rising,    "tokens rise over $rounds crashes, rolled-back ones too");
ok($leases,    'every lease committed with synchronous_commit = off is there again');
ok($claims,    'every claim committed with synchronous_commit = off is there again');
ok($survived,  'whatever a reader has seen is there again, at its position');
ok($unskipped, 'a cursor kept outside the server never skips an event');
cmp_ok(scalar(keys %seen), '>=', 3 * $rounds, 'the reader has seen the events');

# a session lock's token: the lock survives a rollback, so its token must survive a crash too
my $psql  = $node->background_psql('postgres');
my $first = $psql->query_safe("BEGIN; SELECT distsys.session_lock('x'); ROLLBACK;");
$node->stop('immediate');
eval { $psql->quit };
$node->start;
my ($t1) = $first =~ /(\d+)/;
my $t2 = $node->safe_psql('postgres', "SELECT distsys.session_lock('x')");
cmp_ok($t2, '>', $t1, 'the token of a session lock taken in a rolled-back transaction is not given again');

$node->stop;
done_testing();
