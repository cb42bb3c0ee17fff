# The headers of rate limits are structured fields (RFC 9651), whatever the names of the policies: parsed by the strict parser below, written
# from the RFC's section 4.2, and, where script/setup has it from the npm registry, by the package structured-headers; both must read the same.
use strict;
use warnings;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# ---- a list of items: [[value, {parameter => value}], ...]; dies when the RFC says so ----

my $key_re = qr/[a-z*][a-z0-9_.*-]*/;

sub bare_item
{
	my $in = shift;    # a reference to what is left
	return $1 + 0 if $$in =~ s/^(-?[0-9]{1,15})(?![0-9.])//;
	return "$1" if $$in =~ s/^(-?[0-9]{1,12}\.[0-9]{1,3})(?![0-9])//;
	return $1 ? JSON::PP::true : JSON::PP::false if $$in =~ s/^\?([01])//;
	return $1 if $$in =~ s/^([A-Za-z*][!#\$%&'*+\-.^_`|~0-9A-Za-z:\/]*)//;
	if ($$in =~ s/^"((?:[ !#-\[\]-~]|\\["\\])*)"//)
	{
		my $string = $1;
		$string =~ s/\\(.)/$1/g;
		return $string;
	}
	die "no bare item at <$$in>\n";
}

sub parameters
{
	my $in = shift;
	my %found;
	while ($$in =~ s/^; *//)
	{
		$$in =~ s/^($key_re)// or die "no key at <$$in>\n";
		my $key = $1;
		$found{$key} = $$in =~ s/^=// ? bare_item($in) : JSON::PP::true;
	}
	return \%found;
}

sub parse_list
{
	my $in = shift;
	my @members;
	$in =~ s/^ +//;
	$in =~ s/ +$//;
	while ($in ne '')
	{
		my $value = bare_item(\$in);
		push @members, [$value, parameters(\$in)];
		$in =~ s/^[ \t]+//;
		last if $in eq '';
		$in =~ s/^,[ \t]*// or die "no comma at <$in>\n";
		die "a comma at the end\n" if $in eq '';
	}
	return \@members;
}

# ---- the other parser ----

my $module = -d 'build/npm/node_modules/structured-headers' && `node --version 2>&1` =~ /^v/;

# Each field's parse, or undef where it refuses.
sub parse_by_npm
{
	my @fields = @_;
	my $in     = "$PostgreSQL::Test::Utils::tmp_check/fields.json";
	append_to_file($in, encode_json(\@fields));
	my $out = `NODE_PATH=build/npm/node_modules node -e '
		const { parseList } = require("structured-headers");
		const parse = f => { try { return parseList(f).map(([v, p]) => [v, Object.fromEntries(p)]); } catch (e) { return null; } };
		console.log(JSON.stringify(JSON.parse(require("fs").readFileSync(process.argv[1])).map(parse)));' $in`;
	unlink $in;
	return @{ decode_json($out) };
}

sub by_both
{
	my ($fields, $name) = @_;
	my @mine = map { scalar eval { parse_list($_) } } @$fields;
	return @mine unless $module;
	my @theirs = parse_by_npm(@$fields);
	my $json   = JSON::PP->new->canonical;
	is($json->encode(\@theirs), $json->encode(\@mine), "$name: both parsers read the same");
	return @mine;
}

# ---- the parsers can say no ----

my @wrong = ('"a', 'a"', '"a" ;q=1', '"a";Q=1', '"a";q=', '"a";q=1,', '"a";q=1 "b"', '"a";q=1234567890123456', "\"\xe9\"", '"a\\b"', '"a";q=1;;w=2', '"a",,"b"');
is(scalar(grep { defined } by_both(\@wrong, 'what is malformed')), 0, 'what is malformed is refused');
is_deeply([ by_both([ '"a \\"b\\" \\\\c";q=999999999999999; w=1;x , "b";y="\\\\"' ], 'what is well formed') ],
	[ [ [ 'a "b" \\c', { q => 999999999999999, w => 1, x => JSON::PP::true } ], [ 'b', { y => '\\' } ] ] ],
	'what is well formed is read');
note($module ? 'with the package structured-headers' : 'without the package structured-headers: script/setup --test gets it where there is npm');

# ---- the server's ----

my $node = PostgreSQL::Test::Cluster->new('headers');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'distsys'\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION distsys');

sub sql { return $node->safe_psql('postgres', $_[0]) }
sub quote { my $s = shift; $s =~ s/'/''/g; return "'$s'" }

# name, quota, the rest of the call, what w must be, what qu must be
my @limits = map { { name => $_->[0], quota => $_->[1], call => $_->[2], w => $_->[3], qu => $_->[4] } } (
	[ 'plain',                100,                   "period => '1 min'",                                   60 ],
	[ '"',                    1,                     "period => '1 s', storage => 'shared'",                1 ],
	[ '\\',                   2,                     "period => '0.1 s'",                                   1 ],
	[ '\\"\\\\""',            3,                     "period => '1500 ms'",                                 2 ],
	[ 'a "b" \\c, d;e=1',     7,                     "period => '1 h', quota_unit => 'q\"\\;x=1, y'",       3600, 'q"\\;x=1, y' ],
	[ ' ',                    8,                     "period => '1 h', algorithm => 'gcra'",                          3600 ],
	[ '  padded  ',           9,                     "period => '1 h', algorithm => 'leaky_bucket'",                  3600 ],
	[ '42',                   10,                    "period => '1 h', algorithm => 'sliding_window_log'",            3600 ],
	[ '?1',                   11,                    "period => '1 h', algorithm => 'sliding_window'",                3600 ],
	[ ':YWJj:',               12,                    "period => '1 h', algorithm => 'fixed_window'",                  3600 ],
	[ '(a b)',                13,                    "period => '7 days', algorithm => 'calendar'",                   604800 ],
	[ '@1659578233',          14,                    "period => '1 h', quota_unit => 'content-bytes'",      3600, 'content-bytes' ],
	[ q(!#$%&'*+-.^_`|~{}[]), 15,                    "period => '366 days'",                                31622400 ],
	[ 'x' x 63,               9223372036854775807,   "period => '0.000001 s', quota_unit => '" . 'u' x 63 . "'", 1, 'u' x 63 ],
	(map { [ "many $_", $_, "period => '1 h', storage => '" . ($_ % 2 ? 'durable' : 'shared') . "'", 3600 ] } 1 .. 60));
sql(join '', map { "SELECT distsys.rate_limit_create(" . quote($_->{name}) . ", quota => $_->{quota}, $_->{call});\n" } @limits);
my $names = 'ARRAY[' . join(', ', map { quote($_->{name}) } @limits) . ']';
my $keys  = "array_fill('k'::text, ARRAY[" . @limits . '])';
my $costs = 'array_fill(1::bigint, ARRAY[' . @limits . '])';

sub check_ietf
{
	my ($headers, $what) = @_;
	my ($policies, $rates) = by_both([ $headers->{'RateLimit-Policy'}, $headers->{'RateLimit'} ], $what);
	is(scalar @{ $policies || [] }, scalar @limits, "$what: RateLimit-Policy is a list of all");
	is(scalar @{ $rates || [] }, scalar @limits, "$what: RateLimit is a list of all");
	my @bad;
	for my $i (0 .. $#limits)
	{
		my ($limit, $policy, $rate) = ($limits[$i], $policies->[$i], $rates->[$i]);
		my %expected = (q => $limit->{quota} > 999999999999999 ? 999999999999999 : $limit->{quota}, w => $limit->{w});
		$expected{qu} = $limit->{qu} if defined $limit->{qu};
		push @bad, $limit->{name}
		  unless $policy->[0] eq $limit->{name} && $rate->[0] eq $limit->{name}
		  && JSON::PP->new->canonical->encode($policy->[1]) eq JSON::PP->new->canonical->encode(\%expected)
		  && join(' ', sort keys %{ $rate->[1] }) eq 'r t' && $rate->[1]{r} <= $expected{q} && $rate->[1]{t} >= 0;
	}
	is("@bad", '', "$what: names, quotas, windows and units come back as they were made");
	return $rates;
}

my $first = decode_json(sql("SELECT distsys.rate_limit_headers($names, $keys)"));
check_ietf($first, 'a look');
ok(!exists $first->{'Retry-After'}, 'no Retry-After');
my $taken = decode_json(sql("SELECT headers FROM distsys.rate_limit_http($names, $keys, $costs)"));
my $left  = check_ietf($taken, 'a take');
is($left->[1][1]{r}, 0, 'taken');
my ($status, $refused, $violated) = split /\x1f/, $node->safe_psql('postgres',
	"SELECT status, headers, to_json(violated) FROM distsys.rate_limit_http($names, $keys, $costs)", extra_params => [ '-F', "\x1f" ]);
is($status, 429, 'a refusal');
$refused = decode_json($refused);
$left = check_ietf($refused, 'a refusal');
like($refused->{'Retry-After'}, qr/^[1-9][0-9]*$/, 'Retry-After is seconds');
my %t = map { $_->[0] => $_->[1]{t} } @$left;
is(scalar(grep { $refused->{'Retry-After'} < $t{$_} } @{ decode_json($violated) }), 0, 'and never earlier than t of a limit that refuses');

for my $style (qw(x draft06))
{
	my $prefix = $style eq 'x' ? 'X-RateLimit' : 'RateLimit';
	my @single = map { decode_json($_) } split /\n/,
	  sql("SELECT h.headers FROM unnest($names) n, LATERAL distsys.rate_limit_http(ARRAY[n], '{k}', '{0}', '$style') h");
	my @bad = grep {
		my $headers = $_;
		my @parsed = map { scalar eval { parse_list($headers->{"$prefix-$_"}) } } qw(Limit Remaining Reset);
		3 != grep { $_ && @$_ == 1 && $_->[0][0] =~ /^[0-9]+$/ && !%{ $_->[0][1] } } @parsed
	} @single;
	is(scalar @single, scalar @limits, "style $style: of each limit");
	is(encode_json(\@bad), '[]', "style $style: integers");
	my $headers = decode_json(sql("SELECT distsys.rate_limit_headers($names, $keys, '$style')"));
	is(join(' ', sort keys %$headers), "$prefix-Limit $prefix-Remaining $prefix-Reset", "style $style: three integers");
}

$node->stop;
done_testing();
