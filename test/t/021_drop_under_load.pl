# DROP EXTENSION and CREATE EXTENSION beside clients in the middle of calls and a busy worker: clients get an error
# that says what is missing, never an internal one, and everything works again afterwards.
use strict;
use warnings;
use IPC::Run qw(start);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('load');
$node->init;
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'distsys'
distsys.worker_speedup = 100
distsys.clock_offset = '0'
log_line_prefix = '%e '
});
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION distsys');

my $script = $node->basedir . '/calls.sql';
my $calls  = '';
for my $i (1 .. 1500)
{
	my $name = 'n' . $i % 20;
	$calls .= "SELECT acquired FROM distsys.lease_acquire('$name', 'me', '100 ms');\n";
	$calls .= "SELECT distsys.fence_pass('$name', $i);\n";
	$calls .= "SELECT status FROM distsys.idempotency_begin('s', '$name', sha256('x'));\n";
	$calls .= "SELECT * FROM distsys.worker_jobs;\n" if $i % 50 == 0;
}
append_to_file($script, $calls);

my @clients = map {
	my ($in, $out, $err) = ('', '', '');
	start([ 'psql', '-X', '-q', '-d', $node->connstr('postgres'), '-f', $script ], \$in, \$out, \$err)
} 1 .. 4;
my $rounds = 0;
for (1 .. 8)
{
	my ($ret, $out, $err) = $node->psql('postgres', 'DROP EXTENSION distsys; CREATE EXTENSION distsys', timeout => 30);
	$rounds++ if $ret == 0;
	diag($err) if $ret != 0 && $err !~ /deadlock detected/;
	select(undef, undef, undef, 0.1);
}
$_->finish for @clients;
cmp_ok($rounds, '>=', 1, 'the extension was dropped and created again under load');

my %seen;
$seen{$1}++ for slurp_file($node->logfile) =~ /^(\w{5}) (?:ERROR|FATAL|PANIC):/mg;
# no such schema, relation, function, type; extension not (completely) there; deadlock of DROP with a call; names of what was dropped meanwhile
my @allowed = qw(3F000 42P01 42883 42704 55000 40P01);
delete @seen{@allowed};
is_deeply(\%seen, {}, 'no internal error, no crash');

$node->safe_psql('postgres', 'CREATE EXTENSION distsys') unless $node->safe_psql('postgres', "SELECT count(*) FROM pg_extension WHERE extname = 'distsys'");
is($node->safe_psql('postgres', "SELECT acquired FROM distsys.lease_acquire('after', 'me', '10 s')"), 't', 'calls work afterwards');
my $t0 = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
ok($node->poll_query_until('postgres', "SELECT bool_and(last_success_at > '$t0') FROM distsys.worker_jobs"), 'and so does the worker');
$node->stop;

done_testing();
