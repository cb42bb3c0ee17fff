# The six alerts of docs/operations.md, taken from the page: silent while all is well, and each one fires. Run by a member of
# pg_monitor without any other right.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $page = slurp_file('docs/operations.md');
my ($section) = $page =~ /^## Six alerts\n(.*?)^## /ms;
my @alerts = $section =~ /```sql\n(.*?)```/gs;
is(scalar @alerts, 6, 'the page has six alerts');

my $node = PostgreSQL::Test::Cluster->new('alerts');
$node->init;
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'distsys'
distsys.worker_speedup = 100
});
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION distsys;
	CREATE ROLE exporter LOGIN IN ROLE pg_monitor;
	SELECT distsys.outbox_topic_create('t');
	SELECT distsys.outbox_group_create('t', 'g', max_attempts => 1);
	SELECT distsys.outbox_publish('t', 'e', '{}');
});
sub alert { return $node->safe_psql('postgres', $alerts[ $_[0] - 1 ], extra_params => [ '-U', 'exporter' ]) }
sub sql   { return $node->safe_psql('postgres', $_[0]) }
sub system_setting
{
	sql("ALTER SYSTEM SET $_[0]");
	sql('SELECT pg_reload_conf()');
	return;
}
my $hold = "SELECT acquired FROM unnest(ARRAY['scheduler', 'nightly']) n, distsys.lease_acquire(n, 'me', '15 min')";

$node->poll_query_until('postgres', 'SELECT bool_and(last_success_at IS NOT NULL) FROM distsys.worker_jobs');
like(alert(4), qr/^(scheduler\nnightly|nightly\nscheduler)$/, 'alert 4: nobody holds the leases');
sql($hold);
for my $i (1 .. 6) { is(alert($i), '', "alert $i is silent while all is well") }

system_setting("distsys.worker_fail_job = 'lease_sweep'");
ok($node->poll_query_until('postgres', 'SELECT max(consecutive_failures) >= 3 FROM distsys.worker_jobs'), 'a job fails');
like(alert(1), qr/^postgres\|lease_sweep\|/, 'alert 1: the failing job');
system_setting("distsys.worker_fail_job = ''");

sql("UPDATE distsys.outbox_event_log SET occurred_at = occurred_at - interval '2 min'");
like(alert(2), qr/^t\|g\|1\|/, 'alert 2: the consumer does not keep up');
sql("SELECT distsys.outbox_nack('t', 'g', ARRAY(SELECT receipt FROM distsys.outbox_fetch('t', 'g', 'm')))");
is(alert(3), 't|g|1', 'alert 3: an event was given up');
is(alert(2), '', 'alert 2 is silent again');

sql('SELECT distsys.fence_pass(\'r\', 10), distsys.fence_pass(\'r\', 9)');
like(alert(5), qr/^fence\|stale\|1\|/, 'alert 5: a stale token was refused');

my $session = $node->background_psql('postgres');
$session->query_safe("SELECT distsys.session_lock('left behind')");
like(alert(6), qr/^session\|/, 'alert 6: a session lock of an idle session');
$session->quit;
ok($node->poll_query_until('postgres', $alerts[5], ''), 'alert 6 is silent when the session has ended');
$node->stop;

done_testing();
