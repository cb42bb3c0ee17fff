# Without shared memory: an exclusive request that waits keeps shared ones out, in a function and in a CALL form, and no
# longer than it waits.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('intent');
$node->init;
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION distsys');
sub ask { return $node->safe_psql('postgres', $_[0]) }
my $intent = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 29";

# a session that runs one statement in the background, from the moment in which its intent is known
sub start
{
	my ($sql) = @_;
	my ($in, $out, $err) = ('', '', '');
	my $h = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', $sql ], '<', \$in, '>', \$out, '2>', \$err, IPC::Run::timeout(60));
	$node->poll_query_until('postgres', $intent, '1') or die "no intent: $sql";
	return { h => $h, out => \$out, err => \$err };
}
sub result { my ($s) = @_; $s->{h}->finish; chomp(${ $s->{out} }); return ${ $s->{out} } }
sub shared { return ask("SELECT acquired, reason FROM distsys.lease_acquire('doc', '$_[0]', '1 min', mode => 'shared')") }

for my $wait ("SELECT token FROM distsys.lease_acquire('doc', 'writer', '1 min', '10 s')", "CALL distsys.lease_lock('doc', 'writer', '1 min', '30 s')")
{
	my $token = ask("SELECT token FROM distsys.lease_acquire('doc', 'reader', '1 min', mode => 'shared')");
	my $writer = start($wait);
	is(shared('late'), 'f|held', "refused beside $wait");
	ask("SELECT distsys.lease_release('doc', $token)");
	like(result($writer), qr/^\d+/, 'the writer gets it');
	is(ask($intent), '0', 'the intent is gone');
	ask("SELECT distsys.lease_release('doc', token) FROM distsys.lease_get('doc')");
}

# cancelled, terminated, out of time
my $token = ask("SELECT token FROM distsys.lease_acquire('doc', 'reader', '1 min', mode => 'shared')");
my $writer = start("CALL distsys.lease_lock('doc', 'writer', '1 min')");
ask("SELECT pg_cancel_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 29");
$writer->{h}->finish;
is(shared('late'), 't|ok', 'cancelled');
$writer = start("CALL distsys.lease_lock('doc', 'writer', '1 min')");
ask("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 29");
$writer->{h}->finish;
$node->poll_query_until('postgres', $intent, '0');
is(shared('later'), 't|ok', 'terminated');
is(ask("CALL distsys.lease_lock('doc', 'writer', '1 min', '50 ms')"), '||', 'out of time');
is(shared('latest'), 't|ok', 'out of time');

# an election of the same name is something else
ask("SELECT distsys.leader_campaign('doc', 'one', '1 min')");
$writer = start("SELECT elected FROM distsys.leader_campaign('doc', 'two', '1 min', '10 s')");
is(shared('last'), 't|ok', 'beside a campaign');
ask("SELECT distsys.leader_resign('doc', term) FROM distsys.leader_current('doc')");
is(result($writer), 't', 'elected');

done_testing();
