# Semaphores on a standby and after its promotion: the views read, everything else is refused; the promoted server
# grants nothing before what its predecessor may have granted last has ended, and keeps what it knows.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->start;
$primary->safe_psql('postgres', q{
	CREATE EXTENSION distsys;
	SELECT distsys.semaphore_create('work', 2);
	SELECT distsys.semaphore_acquire('work', 'known', '2 min');
});
my $known = $primary->safe_psql('postgres', "SELECT token FROM distsys.semaphore_permits WHERE name = 'work'");
$primary->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'b', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby);

sub on_standby { return $standby->safe_psql('postgres', $_[0]); }
is(on_standby('SELECT * FROM distsys.semaphores'), 'work|2|1|0', 'semaphores works on a standby');
is(on_standby('SELECT owner, live, token FROM distsys.semaphore_permits'), "known|t|$known", 'semaphore_permits works on a standby');
for my $call ("semaphore_acquire('work', 'me', '1 s')", "semaphore_renew('work', $known)", "semaphore_release('work', $known)",
	"semaphore_assert('work', $known)", "semaphore_create('new', 1)", "semaphore_resize('work', 3)", "semaphore_drop('work')")
{
	my ($ret, $out, $err) = $standby->psql('postgres', "SELECT distsys.$call", extra_params => [ '-v', 'VERBOSITY=sqlstate' ]);
	like($err, qr/25006/, "$call on a standby is 25006");
}

# The standby no longer receives: the primary grants the second permit and renews the first, and is lost.
$standby->append_conf('postgresql.conf', "primary_conninfo = ''\n");
$standby->restart;
my $lost = $primary->safe_psql('postgres', "SELECT token FROM distsys.semaphore_acquire('work', 'lost', '1 min')");
$primary->safe_psql('postgres', "SELECT distsys.semaphore_renew('work', $known)");
$primary->stop('immediate');
$standby->promote;

is(on_standby("SELECT acquired, reason, retry_after BETWEEN '1 min' AND '2 min 1 s' FROM distsys.semaphore_acquire('work', 'new', '1 min')"),
	'f|failover_delay|t', 'no new grant after the promotion');
is(on_standby("SELECT acquired, reason FROM distsys.semaphore_acquire('work', 'new', '1 min', wait => '100 ms')"), 'f|timeout', 'nor for one that waits');
is(on_standby("SELECT ttl_remaining > '1 min 50 s' FROM distsys.semaphore_permits WHERE token = $known"), 't', 'a known permit lasts at least its ttl from then on');
is(on_standby("SELECT distsys.semaphore_assert('work', $known), (SELECT acquired FROM distsys.semaphore_renew('work', $known))"), 't|t', 'its holder goes on');
is(on_standby("SET distsys.clock_offset = '130 s'; SELECT acquired, token > $lost FROM distsys.semaphore_acquire('work', 'new', '1 min', permits => 2)"),
	't|t', 'after the delay permits are granted again, with higher tokens');
is(on_standby("SET distsys.failover_delay = 0; SELECT in_use, distsys.semaphore_resize('work', 3), (distsys.semaphore_acquire('work', 'new', '1 min')).acquired FROM distsys.semaphores"),
	'2|t|t', 'failover_delay = 0 grants at once');
$standby->stop;
done_testing();
