# A hot standby: what reads works, what writes is 25006; promotion of a standby that never received the last
# tokens and positions: both rise all the same.
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
	SELECT distsys.outbox_topic_create('t');
	SELECT distsys.rate_limit_create('p', quota => 5, period => '1 h');
	SELECT allowed FROM distsys.rate_limit_take('p', 'k', 2);
	SELECT distsys.outbox_publish('t', 'e', '{"n": 1}');
	SELECT distsys.outbox_group_create('t', 'g');
	SELECT count(*) FROM distsys.outbox_fetch('t', 'g', 'm');
	SELECT token FROM distsys.lease_acquire('kept', 'me', '15 min');
	SELECT distsys.fence_pass('r', 1);
	SELECT status FROM distsys.idempotency_begin('s', 'k', sha256('x'));
});
my $kept = $primary->safe_psql('postgres', "SELECT token FROM distsys.leases WHERE name = 'kept'");

$primary->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'b', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby);

# --- reading on the standby
sub on_standby { return $standby->safe_psql('postgres', $_[0]) }
is(on_standby("SELECT owner FROM distsys.lease_get('kept')"), 'me', 'lease_get works on a standby');
is(on_standby("SELECT remaining FROM distsys.rate_limit_peek('p', 'k')"), '3', 'rate_limit_peek works on a standby');
is(on_standby("SELECT status FROM distsys.idempotency_get('s', 'k')"), 'in_progress', 'idempotency_get works on a standby');
is(on_standby("SELECT distsys.fence_current('r')"), '1', 'fence_current works on a standby');
is(on_standby("SELECT payload->>'n' FROM distsys.outbox_read('t')"), '1', 'outbox_read gives the settled prefix on a standby');
is(on_standby("SELECT count(*) FROM distsys.leases"), '1', 'views work on a standby');
is(on_standby("SELECT count(*) FROM distsys.locks"), '0', 'the view locks works on a standby');

# --- writing on the standby
my %writes = (
	lease_acquire     => "SELECT distsys.lease_acquire('a', 'me', '10 s')",
	lease_renew       => "SELECT distsys.lease_renew('kept', $kept)",
	lease_release     => "SELECT distsys.lease_release('kept', $kept)",
	lease_assert      => "SELECT distsys.lease_assert('kept', $kept)",
	lease_acquire_all => "SELECT distsys.lease_acquire_all('{a,b}', 'me', '10 s')",
	lease_lock        => "CALL distsys.lease_lock('a', 'me', '10 s')",
	lease_set_data    => "SELECT distsys.lease_set_data('kept', $kept, '1')",
	lease_transfer    => "SELECT distsys.lease_transfer('kept', $kept, 'you')",
	lease_break       => "SELECT distsys.lease_break('kept')",
	lease_session_open => "SELECT distsys.lease_session_open('me', '10 s')",
	leader_campaign   => "SELECT distsys.leader_campaign('e', 'c', '10 s')",
	leader_assert     => "SELECT distsys.leader_assert('e', 1)",
	leader_resign     => "SELECT distsys.leader_resign('e', 1)",
	xact_lock         => "SELECT distsys.xact_lock('a')",
	xact_lock_shared  => "SELECT distsys.xact_lock_shared('a')",
	xact_lock_all     => "SELECT distsys.xact_lock_all(ARRAY['a'])",
	fence_attach      => "SELECT distsys.fence_attach('pg_class', 'a')",
	fence_detach      => "SELECT distsys.fence_detach('pg_class')",
	session_lock_wait => "CALL distsys.session_lock_wait('a')",
	fence_assert      => "SELECT distsys.fence_assert('r', 1)",
	session_lock      => "SELECT distsys.session_lock('a')",
	fence_pass        => "SELECT distsys.fence_pass('r', 99)",
	token_epoch_bump  => "SELECT distsys.token_epoch_bump()",
	idempotency_begin => "SELECT distsys.idempotency_begin('s', 'k2', sha256('x'))",
	rate_limit_take   => "SELECT distsys.rate_limit_take('p', 'k')",
	rate_limit_create => "SELECT distsys.rate_limit_create('q', quota => 5, period => '1 h')",
	outbox_publish    => "SELECT distsys.outbox_publish('t', 'e', '{}')",
	outbox_fetch      => "SELECT distsys.outbox_fetch('t', 'g', 'm')",
);
for my $name (sort keys %writes)
{
	my ($ret, $out, $err) = $standby->psql('postgres', $writes{$name}, extra_params => [ '-v', 'VERBOSITY=sqlstate' ]);
	like($err, qr/25006/, "$name on a standby is 25006");
}

# --- the standby stops receiving; the primary goes on giving out tokens and positions
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
# twenty minutes pass: the lease has expired by what the standby knows; a renewal may be among what it never received
$standby->append_conf('postgresql.conf', "primary_conninfo = ''\ndistsys.clock_offset = '20 min'\n");
$standby->restart;
is(on_standby("SELECT live FROM distsys.leases WHERE name = 'kept'"), 'f', 'a lease expires on a standby');
my $open = $standby->background_psql('postgres');
$open->query_safe("SELECT distsys.token_epoch()");
my $lost_token = $primary->safe_psql('postgres', "SELECT token FROM distsys.lease_acquire('lost', 'me', '15 min')");
$primary->safe_psql('postgres', "SELECT distsys.outbox_publish('t', 'e', '{\"n\": 2}')");
# more receipts than the counter's reserve, which the standby knows of
my $lost_receipts = $primary->safe_psql('postgres', q{
	SELECT cardinality(distsys.outbox_publish_all('t', (SELECT jsonb_agg('{"type": "e", "payload": 2}'::jsonb) FROM generate_series(1, 1100)))) \gset
	SELECT array_agg(receipt) FROM distsys.outbox_fetch('t', 'g', 'm', 2000);
});
my $lost_position = $primary->safe_psql('postgres', "SELECT max(position) FROM distsys.outbox_read('t')");
$primary->stop('immediate');
$standby->promote;
$standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');

# --- no new grant before those of the lost tail have ended; known ones go on
is($open->query_safe("SELECT reason FROM distsys.lease_acquire('lost', 'other', '10 s')"), 'failover_delay',
	'a session that was open during the promotion grants nothing');
is(on_standby("SELECT acquired, reason, owner, retry_after BETWEEN '14 min' AND '15 min' FROM distsys.lease_acquire('lost', 'other', '10 s')"), 'f|failover_delay||t',
	'new grants wait for the longest ttl that the new primary knows of');
is(on_standby("SELECT elected, reason FROM distsys.leader_campaign('e', 'c', '10 s')"), 'f|failover_delay', 'and so do elections');
is(on_standby("SELECT live, ttl_remaining > '14 min' FROM distsys.leases WHERE name = 'kept'"), 't|t', 'a known grant lasts its ttl from the promotion on');
is(on_standby("SELECT distsys.lease_assert('kept', $kept)"), 't', 'its holder can assert it');
is(on_standby("SELECT reason FROM distsys.lease_acquire('kept', 'other', '10 s')"), 'held', 'nobody else gets it');
is(on_standby("SET distsys.failover_delay = '1 min'; SELECT retry_after <= '1 min' FROM distsys.lease_acquire('lost', 'other', '10 s')"), 't', 'the delay is a setting');
is(on_standby("SET distsys.clock_offset = '36 min'; SELECT acquired FROM distsys.lease_acquire('later', 'other', '10 s')"), 't', 'it ends');
$open->quit;
my $new_token = on_standby("SET distsys.failover_delay = 0; SELECT token FROM distsys.lease_acquire('lost', 'other', '15 min')");
cmp_ok($new_token, '>', $lost_token, 'tokens rise over the promotion of a lagging standby');
on_standby("SELECT distsys.outbox_publish('t', 'e', '{\"n\": 3}')");
is(on_standby("SELECT payload->>'n' FROM distsys.outbox_read('t', $lost_position)"), '3',
	'a cursor from the old primary gets the first event of the new one');
is(on_standby("SELECT string_agg(payload->>'n', ' ') FROM distsys.outbox_fetch('t', 'g', 'n')"), '1 3', 'what was in flight is delivered again');
on_standby(qq{
	DO \$\$
	DECLARE
		lost bigint;
	BEGIN
		FOREACH lost IN ARRAY '$lost_receipts'::bigint[] LOOP
			BEGIN
				PERFORM distsys.outbox_ack('t', 'g', ARRAY[lost]);
				RAISE 'receipt % is accepted', lost;
			EXCEPTION WHEN SQLSTATE 'SD301' THEN
			END;
		END LOOP;
	END \$\$;
});
is(on_standby("SELECT in_flight FROM distsys.outbox_groups"), '2', 'receipts of the old primary acknowledge nothing on the new one');
is(on_standby("SELECT acquired FROM distsys.lease_renew('kept', $kept)"), 't', 'a lease that the standby knew goes on');
cmp_ok(on_standby('SELECT distsys.token_epoch()'), '==', 2, 'the epoch rose with the timeline');

$standby->stop;
done_testing();
