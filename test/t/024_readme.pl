# Runs the SQL of the README from top to bottom, on a server without shared_preload_libraries.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $readme = slurp_file('README.md');
my @blocks = $readme =~ /^```sql\n(.*?)^```/msg;
cmp_ok(scalar @blocks, '>', 10, 'the README has SQL');

my $node = PostgreSQL::Test::Cluster->new('readme');
$node->init;
$node->start;

my ($out, $err);
my $code = $node->psql('postgres', join("\n", @blocks), stdout => \$out, stderr => \$err, on_error_stop => 1);
is($code, 0, 'all of it runs') or diag($err);
like($out, qr/^replay\|201\|\{"paid": 500\}$/m, 'a request sent again is answered with the stored answer');
like($out, qr/^\d+\|payment\.booked\|alice\|\{"id": 1, "amount": 500\}$/m, 'its event is in the outbox');
is($node->safe_psql('postgres', 'SELECT id, amount FROM booking'), '1|500', 'and booked by the consumer');
is($node->safe_psql('postgres', 'SELECT amount FROM ledger'), '500', 'guarded by lease and fence');

# every page that the README names is there
my @missing = grep { !-e $_ } $readme =~ /\]\(((?:docs\/)?[\w.-]+)(?:#[\w-]+)?\)/g;
is("@missing", '', 'links lead somewhere');

$node->stop;
done_testing();
