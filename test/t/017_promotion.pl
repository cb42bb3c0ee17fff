# The delay of new grants counts from the promotion, not from the first call after it: the history file tells when that was.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->start;
$primary->safe_psql('postgres', q{CREATE EXTENSION distsys; SELECT distsys.lease_acquire('known', 'me', '20 s')});
$primary->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'b', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby);
$primary->stop('immediate');
$standby->promote;

# Each call in a session of its own, and rolled back: nobody records that there was a promotion.
sub reason
{
	return $standby->safe_psql('postgres', qq{
		SET distsys.notice_in_transaction = off;
		BEGIN;
		SELECT reason FROM distsys.lease_acquire('new', 'me', '1 s');
		ROLLBACK;
	});
}

is(reason(), 'failover_delay', 'delayed after the promotion');
my ($history) = glob($standby->data_dir . '/pg_wal/00000002.history');
ok(utime(time - 15, time - 15, $history), 'the promotion was 15 s ago');
is(reason(), 'failover_delay', 'delayed for the longest known ttl');
utime(time - 30, time - 30, $history);
is(reason(), 'ok', 'and then no more');
utime(time + 30, time + 30, $history);
is(reason(), 'failover_delay', 'a time to come is not believed');

done_testing();
