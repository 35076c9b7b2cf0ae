# Who may do what: without a grant every function and every table is refused,
# after grant_upload_access every function of a client works, after
# revoke_upload_access everything is refused again and no trace is left.  PUBLIC
# is never given anything.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use UploadTest;

my $node = upload_node('main');

# A real call of each function that a client has, in an order that gives every
# call something to do.
my @client_calls = (
	[ start_upload => q{start_upload('file', 100, provider_data => '{"part": 1}', upload_id => 'u')} ],
	[ advance_upload => q{advance_upload('u', 0, 10)} ],
	[ try_advance_upload => q{try_advance_upload('u', 10, 10)} ],
	[ advance_uploads => q{advance_uploads('{u}', '{20}', '{80}')} ],
	[ declare_upload_size => q{declare_upload_size('u', 100)} ],
	[ merge_upload_data => q{merge_upload_data('u', '{"a": 1}')} ],
	[ get_upload => q{get_upload('u')} ],
	[ get_uploads => q{get_uploads('{u}')} ],
	[ list_uploads => q{list_uploads()} ],
	[ list_parts => q{list_parts('u')} ],
	[ missing_ranges => q{missing_ranges('u')} ],
	[ acquire_upload_lease => q{acquire_upload_lease('u', 'server')} ],
	[ renew_upload_lease => q{renew_upload_lease('u', 1)} ],
	[ release_upload_lease => q{release_upload_lease('u', 1)} ],
	[ upload_usage => q{upload_usage('ann')} ],
	[ complete_upload => q{complete_upload('u')} ],
	[ delete_upload => q{delete_upload('u')} ],
	[ start_upload => q{start_upload('file', 0, upload_id => 'p', partial => true)} ],
	[ concatenate_uploads => q{concatenate_uploads('file', '{p}', 'w')} ],
	[ delete_upload => q{delete_upload('p')} ],
	[ delete_upload => q{delete_upload('w')} ],
	[ start_upload => q{start_upload('file', provider_data => '{"part": 1}', upload_id => 'v')} ],
	[ abort_upload => q{abort_upload('v')} ],
	[ sweep_uploads => q{sweep_uploads()} ],
	[ claim_reclaims => q{claim_reclaims()} ],
	[ fail_reclaim => q{fail_reclaim((SELECT max(id) FROM upload_reclaim), 'no')} ],
	[ finish_reclaim => q{finish_reclaim((SELECT max(id) FROM upload_reclaim))} ],
	[ delete_upload => q{delete_upload('v')} ]);

# What only the owner of the extension does.
my %owner_calls = (
	grant_upload_access => q{grant_upload_access('bystander')},
	revoke_upload_access => q{revoke_upload_access('bystander')},
	set_upload_quota => q{set_upload_quota('ann', 1)},
	start_sweeper => q{start_sweeper()});
my @owner_functions = sort keys %owner_calls;

# What only those do who monitor the server.
my @monitoring = ('sweeper_status()', 'upload_stats', 'read_upload_stats()');

# Quote a role for a command.
sub ident { return '"' . ($_[0] =~ s/"/""/gr) . '"'; }

# Quote a role for a function's argument.
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'"; }

# Every function and every table of the extension says no.
sub refused_everywhere
{
	my ($role, $dbname) = @_;
	my %functions = extension_functions($node, $dbname);
	my %commands = (
		(map { $_ => $functions{$_}{null_call} } keys %functions),
		(map { $_ => "SELECT 1 FROM $_" } extension_relations($dbname)));
	my @names = sort keys %commands;

	same_sqlstates(
		"$role is refused everywhere",
		'42501',
		\@names,
		sqlstates_of($node, $dbname, 'SET ROLE ' . ident($role), @commands{@names}));
	return;
}

# Each name has this SQLSTATE.
sub same_sqlstates
{
	my ($test_name, $expected, $names, @sqlstates) = @_;

	is_deeply(
		[ map { "$names->[$_]: $sqlstates[$_]" } 0 .. $#sqlstates ],
		[ map { "$_: $expected" } @$names ],
		$test_name);
	return;
}

sub extension_relations
{
	my ($dbname) = @_;
	return split /\n/, $node->safe_psql(
		$dbname, q{
		SELECT d.objid::regclass
		FROM pg_depend d JOIN pg_class c ON c.oid = d.objid
		WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'e' AND c.relkind IN ('r', 'v')
			AND d.refclassid = 'pg_extension'::regclass
			AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'vali_blob')
		ORDER BY 1
	});
}

# What PUBLIC may do with the extension's functions, tables and sequences.
sub public_privileges
{
	my ($dbname) = @_;
	return $node->safe_psql(
		$dbname, q{
		WITH member AS (
			SELECT classid, objid FROM pg_depend
			WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass
				AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'vali_blob')
		), privileges AS (
			SELECT oid::regprocedure::text AS object,
				coalesce(proacl, acldefault('f', proowner)) AS acl
			FROM pg_proc JOIN member ON objid = oid AND classid = 'pg_proc'::regclass
			UNION ALL
			SELECT oid::regclass::text,
				coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner))
			FROM pg_class JOIN member ON objid = oid AND classid = 'pg_class'::regclass
		)
		SELECT object, privilege_type FROM privileges, aclexplode(acl) WHERE grantee = 0
	});
}

# A role goes through its life, in one database.
sub role_life
{
	my ($role, $dbname, $schema) = @_;
	my $path = 'SET search_path = ' . ident($schema);

	subtest "role $role, schema $schema" => sub {
		$node->safe_psql('postgres', 'CREATE ROLE ' . ident($role));
		refused_everywhere($role, $dbname);

		$node->safe_psql($dbname,
			"$path; SELECT grant_upload_access(" . literal($role) . ')');
		my $session = "$path; SET ROLE " . ident($role);
		same_sqlstates(
			"$role has access",
			'00000',
			[ map { $_->[0] } @client_calls ],
			sqlstates_of(
				$node, $dbname, $session, map { "SELECT * FROM $_->[1]" } @client_calls));
		same_sqlstates(
			"$role has no more than that",
			'42501',
			\@owner_functions,
			sqlstates_of(
				$node, $dbname, $session,
				map { "SELECT $owner_calls{$_}" } @owner_functions));
		same_sqlstates(
			"$role does not monitor",
			'42501',
			\@monitoring,
			sqlstates_of($node, $dbname, $session, map { "SELECT * FROM $_" } @monitoring));
		is($node->safe_psql($dbname, "$path; SELECT count(*) FROM upload_session"),
			0, 'the calls did their work');

		$node->safe_psql($dbname,
			"$path; SELECT revoke_upload_access(" . literal($role) . ')');
		refused_everywhere($role, $dbname);
		is(sqlstate_of($node, 'DROP ROLE ' . ident($role)), '00000', 'nothing is left');
	};
	return;
}

$node->safe_psql('postgres', 'CREATE ROLE bystander; CREATE DATABASE odd');
$node->safe_psql('odd',
	'CREATE SCHEMA "Odd Schema"; CREATE EXTENSION vali_blob SCHEMA "Odd Schema"');

is_deeply(
	[ sort('sweeper_status', 'read_upload_stats', @owner_functions, keys %{ { map { $_->[0] => 1 } @client_calls } }) ],
	[ sort keys %{ { extension_functions($node) } } ],
	'every function is called here');

foreach my $role ('client', 'Mixed Case; role', q{we"ird 'role' \\ ü})
{
	role_life($role, 'postgres', 'public');
}
role_life('client', 'odd', 'Odd Schema');
role_life('Public', 'odd', 'Odd Schema');
refused_everywhere('bystander', 'postgres');
refused_everywhere('bystander', 'odd');

# bad grants
foreach my $function (qw(grant_upload_access revoke_upload_access))
{
	is(sqlstate_of($node, "SELECT $function('nobody')"), '42704', "$function: unknown role");
	is(sqlstate_of($node, "SELECT $function(NULL)"), '22004', "$function: null");
}
isnt(sqlstate_of($node, q{SELECT grant_upload_access('public')}),
	'00000', 'no grant to public');
foreach my $dbname ('postgres', 'odd')
{
	is(public_privileges($dbname), '', "PUBLIC has nothing in $dbname");
}

# An access that was granted stays one role's own.
$node->safe_psql('postgres', q{SELECT grant_upload_access('bystander')});
is(public_privileges('postgres'), '', 'a grant gives PUBLIC nothing');
is( sqlstate_of($node, q{SET ROLE bystander; GRANT SELECT ON upload_session TO PUBLIC}),
	'00000', 'a client has no grant option');
is(public_privileges('postgres'), '', 'a client can pass nothing on');

# The functions run with the caller's rights: who may call them all, but has no
# right to the tables, is refused still, in a session whose plans are made too.
$node->safe_psql(
	'postgres', q{
	CREATE ROLE halfway;
	GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO halfway;
});
same_sqlstates(
	'functions without tables are of no use',
	'42501',
	[ map { $_->[0] } @client_calls ],
	sqlstates_of(
		$node, 'postgres',
		join('; ', map { "SELECT * FROM $_->[1]" } @client_calls) . '; SET ROLE halfway',
		map { "SELECT * FROM $_->[1]" } @client_calls));
is( sqlstate_of($node, q{SET ROLE halfway; SELECT grant_upload_access('halfway')}),
	'42501', 'nobody grants access to himself');

# Monitoring is for pg_monitor, in any schema, and reads nothing but figures;
# policies on the tables do not falsify them.
$node->safe_psql('postgres', 'CREATE ROLE watcher; GRANT pg_monitor TO watcher');
$node->safe_psql('odd', q{
	SELECT "Odd Schema".start_upload('file', upload_id => 'u');
	ALTER TABLE "Odd Schema".upload_session ENABLE ROW LEVEL SECURITY;
});
my $watch = 'SET search_path = "Odd Schema"; SET ROLE watcher';
same_sqlstates(
	'pg_monitor monitors',
	'00000',
	\@monitoring,
	sqlstates_of($node, 'odd', $watch, map { "SELECT * FROM $_" } @monitoring));
is( $node->safe_psql('odd', "$watch; SELECT sum(sessions) FROM upload_stats"),
	1, 'and sees all sessions in the figures');
same_sqlstates(
	'pg_monitor is no client',
	'42501',
	[ 'upload_session', map { $_->[0] } @client_calls ],
	sqlstates_of($node, 'odd', $watch, map { "SELECT * FROM $_" } 'upload_session', map { $_->[1] } @client_calls));

# Twice is as good as once.
is( sqlstate_of(
		$node, q{
		SELECT grant_upload_access('bystander');
		SELECT revoke_upload_access('bystander');
		SELECT revoke_upload_access('bystander');
	}),
	'00000', 'grant and revoke can be repeated');
refused_everywhere('bystander', 'postgres');

done_testing();
