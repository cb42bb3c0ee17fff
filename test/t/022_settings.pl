# docs/settings.md and the server agree: every setting, its default and who may change it.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('settings');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'distsys'\n");
$node->start;

my %context = (user => 'session', superuser => 'superuser', sighup => 'reload', postmaster => 'start');
my $page    = slurp_file('docs/settings.md');
my $rows    = $node->safe_psql('postgres',
	"SELECT substr(name, 9), current_setting(name), context FROM pg_settings WHERE name LIKE 'distsys.%' ORDER BY 1");
my %there;
for my $row (split /\n/, $rows)
{
	my ($name, $default, $context) = split /\|/, $row;
	$there{$name} = 1;
	if ($page =~ /^\| `distsys\.$name` \|/m)
	{
		is($context, 'superuser', "$name is a developer setting: superusers only");
		next;
	}
	like($page, qr/^\| \[$name\]\(#distsys$name\) \| `\Q$default\E` \| $context{$context} \|$/m, "$name: default $default, context $context{$context}");
	like($page, qr/^## distsys\.$name$/m, "$name has a section");
}
my @unknown = grep { !$there{$_} } $page =~ /^## distsys\.(\w+)$/mg;
is_deeply(\@unknown, [], 'no section for what is not there');

# a word with our prefix that is no setting is refused
my ($ret, $out, $err) = $node->psql('postgres', 'SET distsys.no_such_thing = 1');
isnt($ret, 0, 'an unknown setting is an error');
$node->stop;

done_testing();
