# Through PgBouncer in transaction mode: every call works as one statement without session state; a session
# lock that ends up on another server connection is an error with a hint, and stays visible.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($pgbouncer) = grep { -x } map { "$_/pgbouncer" } split(/:/, $ENV{PATH}), '/usr/sbin';
BAIL_OUT('pgbouncer is not installed; script/setup --test installs it') unless $pgbouncer;

my $node = PostgreSQL::Test::Cluster->new('pooled');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'distsys'\n");	# for the names of locks
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION distsys;
	SELECT distsys.outbox_topic_create('t');
	SELECT distsys.outbox_group_create('t', 'g');
	SELECT distsys.rate_limit_create('p', quota => 5, period => '1 h');
});

my $dir  = $node->basedir;
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $user = $node->safe_psql('postgres', 'SELECT current_user');
append_to_file("$dir/users.txt", qq{"$user" ""\n});
append_to_file("$dir/pgbouncer.ini", sprintf <<'INI', $node->host, $node->port, $port, $node->host, $dir, $dir, $dir);
[databases]
postgres = host=%s port=%d
[pgbouncer]
listen_addr =
listen_port = %d
unix_socket_dir = %s
auth_type = any
auth_file = %s/users.txt
pool_mode = transaction
default_pool_size = 2
min_pool_size = 2
pidfile = %s/pgbouncer.pid
logfile = %s/pgbouncer.log
server_round_robin = 1
ignore_startup_parameters = extra_float_digits,options
INI
# "any" logs in as a fixed user
my $ini = slurp_file("$dir/pgbouncer.ini");
$ini =~ s/^(postgres = .*)$/$1 user=$user/m;
open(my $fh, '>', "$dir/pgbouncer.ini") or die $!;
print $fh $ini;
close $fh;
system($pgbouncer, '-q', '-d', "$dir/pgbouncer.ini") == 0 or BAIL_OUT('pgbouncer does not start');
END { if (defined $dir && -f "$dir/pgbouncer.pid") { my $pid = slurp_file("$dir/pgbouncer.pid"); local $?; kill 'TERM', $pid } }

my $pooled = "host=" . $node->host . " port=$port dbname=postgres";
sub pooled
{
	my ($sql) = @_;
	my ($out, $err);
	IPC::Run::run([ 'psql', '-X', '-A', '-t', '-q', '-v', 'VERBOSITY=verbose', '-d', $pooled ], '<', \$sql, '>', \$out, '2>', \$err);
	chomp($out, $err);
	return ($out, $err);
}
for (1 .. 100) { last if (pooled('SELECT 1'))[0] eq '1'; select(undef, undef, undef, 0.1) }

# each psql is a client of its own and gets another server connection, so nothing may depend on the session
my ($token) = pooled("SELECT token FROM distsys.lease_acquire('l', 'me', '1 min')");
is((pooled("SELECT acquired FROM distsys.lease_renew('l', $token)"))[0], 't', 'renew on another connection');
is((pooled("BEGIN; SELECT distsys.lease_assert('l', $token); SELECT distsys.fence_assert('r', $token); COMMIT;"))[0], "t\nt", 'assert on another connection');
is((pooled("SELECT distsys.lease_release('l', $token)"))[0], 't', 'release on another connection');
my ($claim) = pooled("SELECT token FROM distsys.idempotency_begin('s', 'k', sha256('x'))");
is((pooled("SELECT distsys.idempotency_complete('s', 'k', $claim, 200, 'ok')"))[0], 't', 'complete on another connection');
is((pooled("SELECT response_body FROM distsys.idempotency_begin('s', 'k', sha256('x'))"))[0], 'ok', 'replay on another connection');
is((pooled("SELECT allowed FROM distsys.rate_limit_take('p', 'k')"))[0], 't', 'take') for 1 .. 5;
is((pooled("SELECT allowed FROM distsys.rate_limit_take('p', 'k')"))[0], 'f', 'the sixth take is refused, whatever the connection');
pooled("SELECT distsys.outbox_publish('t', 'e', '{}')");
my ($receipt) = pooled("SELECT receipt FROM distsys.outbox_fetch('t', 'g', 'm')");
is((pooled("SELECT distsys.outbox_ack('t', 'g', ARRAY[$receipt]::bigint[])"))[0], '1', 'ack on another connection');

# --- session locks: the named exception
my ($t1) = pooled("SELECT distsys.session_lock('x')");
like($t1, qr/^\d+$/, 'a session lock through the pooler is granted on some server connection');
my $refused = 0;
my $message = '';
for (1 .. 6)
{
	my ($out, $err) = pooled("SELECT distsys.session_unlock('nothing', 1)");
	$message = $err if $err =~ /55000/;
}
like($message, qr/55000.*HINT.*pool/s, 'unlock of what this backend does not hold: 55000 with a hint at pooling');
for (1 .. 6)
{
	my ($out, $err) = pooled("SELECT distsys.session_lock('x', '0')");
	$refused++ if $err =~ /55000/;
}
cmp_ok($refused, '>=', 1, 'the second client of the holding connection does not inherit the lock: 55000');
my $leaked = "FROM distsys.locks WHERE kind = 'session' AND granted";
is($node->safe_psql('postgres', "SELECT name, pid IS NOT NULL, usename = current_user, application_name <> '' $leaked"), 'x|t|t|t',
	'the leaked lock is visible with its name, its pid and the client that used the connection last');
is($node->safe_psql('postgres', "SELECT pg_terminate_backend(pid, 10000) $leaked"), 't', 'ending that server connection');
is($node->safe_psql('postgres', "SELECT count(*) $leaked"), '0', 'frees it');
my ($t2) = pooled("SELECT distsys.session_lock('x', '0')");
cmp_ok($t2, '>', $t1, 'and the next one gets it, with a higher token');

$node->stop;
done_testing();
