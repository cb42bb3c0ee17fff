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

# rules by which nothing is in use do not count: every minute of a calendar is a rule of its own, and every second one a new key
$node->safe_psql('postgres', "SELECT distsys.rate_limit_create('minutes', quota => 5, period => '1 min', algorithm => 'calendar', storage => 'shared')");
is($node->safe_psql('postgres', q{
	CREATE TABLE seen (reason text);
	DO $$
	BEGIN
		FOR i IN 1..6000 LOOP
			PERFORM set_config('distsys.clock_offset', (i * 60000)::text, false);
			INSERT INTO seen SELECT reason FROM distsys.rate_limit_take('minutes', CASE WHEN i % 2 = 0 THEN 'regular' ELSE 'u' || i END, 4);
		END LOOP;
	END $$;
	SELECT reason, count(*) FROM seen GROUP BY 1}), 'ok|6000', 'windows that are over leave room for those that come');
# and those that are in use are refused room in the end, by on_error
is($node->safe_psql('postgres', q{
	SET distsys.clock_offset = '200 h';	-- the clock does not go back
	SELECT distsys.rate_limit_create('rules', quota => 1, period => '300 days', storage => 'shared', on_error => 'closed');
	INSERT INTO distsys.rate_limit_tier_policy (tier, policy) VALUES ('default', 'rules');
	INSERT INTO distsys.rate_limit_override (subject, policy, quota) SELECT 's' || i, 'rules', 10 + i FROM generate_series(1, 4200) i;
	SELECT string_agg(DISTINCT r.allowed || ' ' || r.reason, ', '), count(*) FILTER (WHERE r.reason = 'ok') BETWEEN 3500 AND 4096
	FROM generate_series(1, 4200) i, LATERAL distsys.rate_limit_take_for('s' || i, 1, '{rules}') r}),
	"t\nfalse unavailable, true ok|t", 'room for so many rules');

$node->stop;
done_testing();
