# Waiting for leases when preloaded: first come first served, woken by the release's commit, nothing held or left
# behind by a waiter; CALL lease_lock() waits without a snapshot.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('wait');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'distsys'\nmax_prepared_transactions = 5\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION distsys; CREATE TABLE got (n serial, who text)');
sub ask { return $node->safe_psql('postgres', $_[0]) }
sub waiters { return ask("SELECT string_agg(owner, ',' ORDER BY position) FROM distsys.lease_waiters WHERE name = '$_[0]'") }
sub until_waiting
{
	my ($name, $who) = @_;
	$node->poll_query_until('postgres', "SELECT string_agg(owner, ',' ORDER BY position) IS NOT DISTINCT FROM '$who' FROM distsys.lease_waiters WHERE name = '$name'")
	  or die "never: $name $who, but " . waiters($name);
}
# a session that runs one statement in the background
sub start
{
	my ($sql) = @_;
	my $in = '';
	my $out = '';
	my $err = '';
	my $h = IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=verbose', '-d', $node->connstr('postgres'), '-c', $sql ],
		'<', \$in, '>', \$out, '2>', \$err, IPC::Run::timeout(60));
	return { h => $h, out => \$out, err => \$err };
}
sub result { my ($s) = @_; $s->{h}->finish; chomp(${ $s->{out} }); return ${ $s->{out} } }
sub token { return ask("SELECT token FROM distsys.lease_acquire('$_[0]', '$_[1]', '5 min', mode => '" . ($_[2] // 'exclusive') . "')") }
my $take = "WITH l AS MATERIALIZED (SELECT * FROM distsys.lease_acquire('%s', '%s', '5 min', '10 s', mode => '%s')) INSERT INTO got (who) SELECT owner FROM l WHERE acquired RETURNING who";

# --- first come, first served
my $t = token('fifo', 'holder');
my @waiting;
my @names;
for my $i (1 .. 5)
{
	push @waiting, start(sprintf($take, 'fifo', "w$i", 'exclusive'));
	push @names, "w$i";
	until_waiting('fifo', join(',', @names));
}
is(ask("SELECT acquired, reason FROM distsys.lease_acquire('fifo', 'pushing', '5 min')"), 'f|held', 'held');
ask("SELECT distsys.lease_release('fifo', $t)");
for my $i (1 .. 5)
{
	is(result($waiting[ $i - 1 ]), "w$i", "waiter $i gets it");
	ask("SELECT distsys.lease_release('fifo', token) FROM distsys.lease_get('fifo')");
}
is(ask("SELECT string_agg(who, ',' ORDER BY n) FROM got"), 'w1,w2,w3,w4,w5', 'in the order of their arrival');
is(waiters('fifo'), '', 'the queue is empty');

# --- who comes while others wait does not pass them, also when it is free just now
$t = token('late', 'holder');
my $first = start(sprintf($take, 'late', 'first', 'exclusive'));
until_waiting('late', 'first');
is(ask("BEGIN; SELECT distsys.lease_release('late', $t); SELECT reason FROM distsys.lease_acquire('late', 'pushing', '5 min'); COMMIT"), "t\nheld", 'not even by the one that releases');
is(result($first), 'first', 'the first gets it');

# --- a waiter that is cancelled, terminated or out of time leaves the queue; the next is first
$t = token('leave', 'holder');
my @leaving = map { my $w = start(sprintf($take, 'leave', "l$_", 'exclusive')); until_waiting('leave', join(',', map { "l$_" } 1 .. $_)); $w } 1 .. 3;
my $timing_out = start("SET statement_timeout = '300ms'; " . sprintf($take, 'leave', 'l4', 'exclusive'));
ask("SELECT pg_cancel_backend(pid) FROM distsys.lease_waiters WHERE owner = 'l1'");
ask("SELECT pg_terminate_backend(pid) FROM distsys.lease_waiters WHERE owner = 'l2'");
$_->{h}->finish for (@leaving[ 0, 1 ], $timing_out);
like(${ $leaving[0]{err} }, qr/57014/, 'cancelled');
like(${ $timing_out->{err} }, qr/57014/, 'statement_timeout');
until_waiting('leave', 'l3');
ask("SELECT distsys.lease_release('leave', $t)");
is(result($leaving[2]), 'l3', 'the one that stayed gets it');
is(ask("SELECT acquired, reason FROM distsys.lease_acquire('leave', 'me', '1 s', '50 ms')"), 'f|timeout', 'wait elapsed');
is(ask('SELECT count(*) FROM distsys.lease_waiters'), '0', 'nobody is left in a queue');

# --- a grant that is rolled back is passed on, an expired one is found
my $grant = $node->background_psql('postgres');
$grant->query_safe("BEGIN; SET LOCAL distsys.notice_in_transaction = off; SELECT acquired FROM distsys.lease_acquire('undone', 'me', '5 min')");
my $after = start(sprintf($take, 'undone', 'after', 'exclusive'));
until_waiting('undone', 'after');
$grant->query_safe('ROLLBACK');
is(result($after), 'after', 'the waiter is called by a rollback');
ask("SELECT acquired FROM distsys.lease_acquire('short', 'me', '300 ms')");
is(result(start(sprintf($take, 'short', 'heir', 'exclusive'))), 'heir', 'the waiter is there when it expires');
is(ask("SELECT event FROM distsys.lease_history WHERE name = 'short'"), 'expired', 'which the history tells');

# --- shared and exclusive: readers that come later do not pass a waiting writer, and go together after it
my $r1 = token('rw', 'r1', 'shared');
my $writer = start(sprintf($take, 'rw', 'writer', 'exclusive'));
until_waiting('rw', 'writer');
is(ask("SELECT acquired, reason FROM distsys.lease_acquire('rw', 'r2', '1 s', mode => 'shared')"), 'f|held', 'a reader lets the waiting writer pass');
my @readers = map { start(sprintf($take, 'rw', "reader$_", 'shared')) } 1 .. 3;
$node->poll_query_until('postgres', "SELECT count(*) = 4 FROM distsys.lease_waiters WHERE name = 'rw'");
ask("SELECT distsys.lease_release('rw', $r1)");
is(result($writer), 'writer', 'the writer gets it');
ask("SELECT distsys.lease_release('rw', token) FROM distsys.lease_get('rw')");
is(join(',', sort map { result($_) } @readers), 'reader1,reader2,reader3', 'the readers go together');

# --- a writer that waits for the transactions of dead readers is not passed by new ones, however long that takes
my $late = "SET distsys.clock_offset = '1 h'; ";
my $r2 = token('pinned', 'reader', 'shared');
my $pin = $node->background_psql('postgres');
$pin->query_safe("BEGIN; SELECT distsys.lease_assert('pinned', $r2)");
is(ask("SELECT reason, owner FROM distsys.lease_acquire('pinned', 'me', '1 s')"), 'held|reader', 'a live shared grant is held, pinned or not');
is(ask("$late SELECT reason FROM distsys.lease_acquire('pinned', 'me', '1 s')"), 'pinned', 'a dead one is pinned');
$writer = start($late . sprintf($take, 'pinned', 'writer', 'exclusive'));
$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'virtualxid' AND NOT granted");
for my $when ('at once', 'later')
{
	is(ask("$late SELECT reason FROM distsys.lease_acquire('pinned', 'me', '1 s', mode => 'shared')"), 'held', "a reader does not pass the writer $when");
	ask('SELECT pg_sleep(0.15)');
}
$pin->query_safe('COMMIT');
is(result($writer), 'writer', 'the writer gets it');

# --- elections: the highest priority first, the successor before all
my $term = ask("SELECT term FROM distsys.leader_campaign('e', 'old', '5 min')");
my $campaign = "SELECT candidate FROM distsys.leader_campaign('e', '%s', '5 min', '10 s', priority => %d) WHERE elected";
my %c;
for (['low', 1], ['high', 5], ['named', 0])
{
	$c{ $_->[0] } = start(sprintf($campaign, $_->[0], $_->[1]));
	$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM distsys._waiters(30) WHERE owner = '$_->[0]'");
}
is(ask("SELECT string_agg(owner, ',' ORDER BY position) FROM distsys._waiters(30)"), 'high,low,named', 'the queue is by priority');
ask("SELECT distsys.leader_resign('e', $term, 'named')");
is(result($c{named}), 'named', 'the successor is elected');
ask("SELECT distsys.leader_resign('e', term) FROM distsys.leader_current('e')");
is(result($c{high}), 'high', 'then the highest priority');
ask("SELECT distsys.leader_resign('e', term) FROM distsys.leader_current('e')");
is(result($c{low}), 'low', 'then the other');

# --- several at once: waits for one after the other
my $a = token('m1', 'holder');
my $b = token('m2', 'other');
my $all = start("SELECT string_agg(name, ',') FROM distsys.lease_acquire_all('{m1,m2,m3}', 'all', '5 min', '10 s') WHERE acquired");
$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM distsys.lease_waiters WHERE owner = 'all'");
is(ask("SELECT acquired FROM distsys.lease_acquire('m3', 'me', '1 s')"), 't', 'a waiter for several holds none of them');
ask("SELECT distsys.lease_release('m3', token) FROM distsys.lease_get('m3')");
ask("SELECT distsys.lease_release('m1', $a)");
$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM distsys.lease_waiters WHERE owner = 'all' AND name = 'm2'");
ask("SELECT distsys.lease_release('m2', $b)");
is(result($all), 'm1,m2,m3', 'all of them');

# --- CALL lease_lock(): no snapshot and no lock while it waits, so CREATE INDEX CONCURRENTLY in the holder ends
ask('CREATE TABLE indexed AS SELECT generate_series(1, 1000) AS i');
$t = token('migration', 'holder');
my $call = start("CALL distsys.lease_lock('migration', 'next', '5 min')");
until_waiting('migration', 'next');
my $pid = ask("SELECT pid FROM distsys.lease_waiters WHERE name = 'migration'");
$node->poll_query_until('postgres', "SELECT wait_event_type = 'Extension' OR wait_event LIKE 'Distsys%' FROM pg_stat_activity WHERE pid = $pid");
is(ask("SELECT backend_xmin IS NULL AND backend_xid IS NULL FROM pg_stat_activity WHERE pid = $pid"), 't', 'the waiter has no snapshot');
is(ask("SELECT count(*) FROM pg_locks WHERE pid = $pid AND locktype <> 'virtualxid'"), '0', 'and no lock');
is($node->psql('postgres', "SET statement_timeout = '30s'; CREATE INDEX CONCURRENTLY ON indexed (i)"), 0, 'CREATE INDEX CONCURRENTLY in the holder ends');
ask("SELECT distsys.lease_release('migration', $t)");
like(result($call), qr/^\d+\|/, 'then the waiter has it');
is(ask("SELECT distsys.lease_assert('migration', " . (split /\|/, ${ $call->{out} })[0] . ")"), 't', 'durably');
$t = token('cancelled', 'holder');
$call = start("CALL distsys.lease_lock('cancelled', 'next', '5 min')");
until_waiting('cancelled', 'next');
ask("SELECT pg_cancel_backend(pid) FROM distsys.lease_waiters WHERE name = 'cancelled'");
$call->{h}->finish;
like(${ $call->{err} }, qr/57014/, 'a waiting CALL can be cancelled');
is(ask('SELECT count(*) FROM distsys.lease_waiters'), '0', 'and leaves the queue');

# --- deadlines and counters
is(ask("SELECT bool_and(value > 0) FROM distsys.stats WHERE domain = 'lease' AND metric IN ('acquired', 'contended', 'refused', 'timed_out', 'released')"), 't', 'counted');
is(ask("SELECT count(*) > 0 FROM distsys.stats WHERE domain = 'lease' AND metric LIKE 'wait_%'"), 't', 'with a histogram of waits');
is(ask("SELECT count(*) FROM distsys.locks"), '0', 'nothing is locked at the end');

$grant->quit;
$pin->quit;
$node->stop;
done_testing();
