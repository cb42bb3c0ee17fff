# docs/rate-limit.md: its SQL runs from top to bottom, it names every function, column and word, and its links lead somewhere.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $page   = slurp_file('docs/rate-limit.md');
my @blocks = $page =~ /^```sql\n(.*?)^```/msg;
cmp_ok(scalar @blocks, '>', 20, 'the page has SQL');

my $node = PostgreSQL::Test::Cluster->new('page');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'distsys'\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION distsys');

my ($out, $err);
is($node->psql('postgres', join("\n", @blocks), stdout => \$out, stderr => \$err, on_error_stop => 1), 0, 'all of it runs') or diag($err);
like($out, qr/^api burst\|t\|t\|ok\|200\|499\|$/m, 'the override counts');
like($out, qr/^api month\|t\|t\|ok\|100000\|99999\|$/m, 'the tier counts');
like($out, qr/^exports\|t\|t\|ok\|5\|4\|$/m, 'and the policy');
like($out, qr/^200\|\{"RateLimit": "\\"api burst\\";r=\d+;t=\d+, \\"api month\\";r=\d+;t=\d+, \\"exports\\";r=2;t=\d+"\}$/m, 'the headers of a tier');

sub missing { return join ' ', grep { index($page, $_) < 0 } split /\n/, $node->safe_psql('postgres', $_[0]) }
is(missing("SELECT proname FROM pg_proc WHERE pronamespace = 'distsys'::regnamespace AND proname LIKE 'rate\\_limit\\_%'"), '', 'every function');
is(missing("SELECT relname FROM pg_class WHERE relnamespace = 'distsys'::regnamespace AND relkind = 'v' AND relname LIKE 'rate\\_limit%'"), '', 'every view');
is(missing("SELECT DISTINCT unnest(proargnames[1:pronargs]) FROM pg_proc WHERE oid = 'distsys.rate_limit_create'::regproc"), '', 'every option');
is(missing("SELECT attname FROM pg_attribute WHERE attrelid = 'distsys.rate_limit_result'::regclass AND attnum > 0"), '', 'every column');
is(missing("SELECT DISTINCT m[1] FROM pg_constraint, regexp_matches(pg_get_constraintdef(oid), '''([a-z_]+)''::text', 'g') m WHERE conrelid = 'distsys.rate_limit_policy'::regclass AND conname ~ '_(algorithm|storage|on_abort|on_restart|on_error|in_transaction|mode|calendar_unit|anchor|on_change)_check\$'"),
	'', 'every word');
is(missing("SELECT name FROM pg_settings WHERE name LIKE 'distsys.rate\\_limit%'"), '', 'every setting');

my %anchors = map { my $a = lc $_; $a =~ s/[^\w -]//g; $a =~ tr/ /-/; ("#$a" => 1) } $page =~ /^#+ (.*)$/mg;
is(join(' ', grep { !$anchors{$_} } $page =~ /\]\((#[\w-]+)\)/g), '', 'links within the page');
is(join(' ', grep { !-e "docs/$_" } $page =~ /\]\(([\w.-]+\.md)(?:#[\w-]+)?\)/g), '', 'links to other pages');

$node->stop;
done_testing();
