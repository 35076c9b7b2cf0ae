# Row-level security on upload_session and upload_reclaim holds inside every
# function: what a policy hides is not found, not listed, not swept, not
# claimed; what a policy forbids to write is refused with 42501.  Saved plans
# follow the role, the tenant and the policies of the moment.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use UploadTest;

my $node = upload_node('main');

# Run commands as a client, for a tenant.
sub as_tenant
{
	my ($tenant, $sql) = @_;
	return $node->safe_psql('postgres',
		"SET ROLE client; SET app.tenant = '$tenant'; $sql");
}

sub sqlstates_as_tenant
{
	my ($tenant, @commands) = @_;
	return sqlstates_of($node, 'postgres',
		"SET ROLE client; SET app.tenant = '$tenant'", @commands);
}

# All that belongs to a tenant, whatever the policies say.
sub belongings
{
	my ($tenant) = @_;
	return $node->safe_psql(
		'postgres', qq{
		SELECT to_jsonb(t) FROM upload_session t WHERE owner = '$tenant' ORDER BY id;
		SELECT to_jsonb(t) FROM upload_reclaim t WHERE owner = '$tenant' ORDER BY id;
	});
}

$node->safe_psql(
	'postgres', q{
	CREATE ROLE client;
	SELECT grant_upload_access('client');
	ALTER TABLE upload_session ENABLE ROW LEVEL SECURITY;
	ALTER TABLE upload_reclaim ENABLE ROW LEVEL SECURITY;
	CREATE POLICY tenant ON upload_session USING (owner = current_setting('app.tenant'));
	CREATE POLICY tenant ON upload_reclaim USING (owner = current_setting('app.tenant'));
});
foreach my $tenant ('a', 'b')
{
	as_tenant(
		$tenant, qq{
		SELECT start_upload('live', 100, owner => '$tenant', provider_data => '{"part": 1}', upload_id => '$tenant live');
		SELECT advance_upload('$tenant live', 0, 50);
		SELECT start_upload('sizeless', owner => '$tenant', upload_id => '$tenant sizeless');
		SELECT start_upload('ready', 0, owner => '$tenant', upload_id => '$tenant ready');
		SELECT start_upload('ended', owner => '$tenant', provider_data => '{"part": 1}', upload_id => '$tenant ended');
		SELECT abort_upload('$tenant ended');
		SELECT start_upload('stale', owner => '$tenant', provider_data => '{"part": 1}', upload_id => '$tenant stale');
	});
}
$node->safe_psql('postgres',
	q{UPDATE upload_session SET expires_at = now() - interval '1 day' WHERE upload_id ~ 'ended|stale'});

subtest 'what is hidden is not found' => sub {
	my $before = belongings('b');
	my ($row) = $before =~ /"id": (\d+)[^\n]+"reason"/;

	my @commands = map { "SELECT $_" } (
		q{advance_upload('b live', 50, 10)},
		q{advance_upload('b live', 0, 10)},
		q{advance_upload('b live', 50, 10, owner => 'b')},
		q{declare_upload_size('b sizeless', 10)},
		q{merge_upload_data('b live', '{"a": 1}')},
		q{complete_upload('b ready')},
		q{abort_upload('b live')},
		q{abort_upload('b ended')});
	is_deeply(
		[ sqlstates_as_tenant('a', @commands) ],
		[ ('VB001') x @commands ],
		'VB001');
	is( as_tenant(
			'a', qq{
			SELECT outcome, uploaded_bytes FROM try_advance_upload('b live', 50, 10);
			SELECT outcome, uploaded_bytes FROM try_advance_upload('b live', 50, 10, nowait => true);
			SELECT outcome, uploaded_bytes FROM advance_uploads('{b live,a live}', '{50,50}', '{10,10}');
			SELECT count(*) FROM get_upload('b live');
			SELECT upload_id FROM get_uploads('{b live,a live,b ended}');
			SELECT upload_id FROM list_uploads();
			SELECT count(*) FROM list_uploads(owner => 'b');
			SELECT delete_upload('b live');
			SELECT finish_reclaim($row);
			SELECT fail_reclaim($row, 'no');
			SELECT * FROM sweep_uploads();
			SELECT upload_id FROM claim_reclaims();
		}),
		join("\n",
			'not_found|', 'not_found|', 'not_found|', 'advanced|60',
			'0', 'a live',
			'a stale', 'a ended', 'a ready', 'a sizeless', 'a live',
			'0', 'f', 'f', 'f', '1|1|0', 'a ended', 'a stale'),
		'not found, not listed, not swept, not claimed');
	is(belongings('b'), $before, 'nothing of the other tenant has changed');
};

subtest 'nobody writes for another tenant' => sub {
	is_deeply(
		[
			sqlstates_as_tenant(
				'a',
				q{SELECT start_upload('file', owner => 'b')},
				q{SELECT start_upload('file')},
				q{SELECT start_upload('file', owner => 'a', upload_id => 'b live')})
		],
		[ '42501', '42501', '23505' ],
		'start_upload');
	is(belongings('b') =~ /"path": "file"/, '', 'nothing came in');
};

subtest 'one session, several tenants, roles and policies' => sub {
	my $chunk = q{SELECT outcome FROM try_advance_upload('b live', 0, 10); SELECT count(*) FROM list_uploads()};

	is( $node->safe_psql(
			'postgres', qq{
			$chunk;
			SET ROLE client; SET app.tenant = 'a'; $chunk;
			SET app.tenant = 'b'; $chunk;
			SET app.tenant = 'c'; $chunk;
			RESET ROLE; $chunk;
			ALTER TABLE upload_session DISABLE ROW LEVEL SECURITY;
			SET ROLE client; $chunk;
			RESET ROLE;
			ALTER TABLE upload_session ENABLE ROW LEVEL SECURITY;
			SET ROLE client; $chunk;
		}),
		join("\n",
			'replayed', 9, 'not_found', 4, 'replayed', 5, 'not_found', 0,
			'replayed', 9, 'replayed', 9, 'not_found', 0),
		'each call obeys what holds just then');
	is_deeply(
		[
			sqlstates_as_tenant(
				'a',
				'SET row_security = off',
				q{SELECT try_advance_upload('a live', 0, 10)},
				q{SELECT get_upload('a live')},
				'SELECT list_uploads()',
				'SELECT sweep_uploads()')
		],
		[ '00000', ('42501') x 4 ],
		'row_security = off is an error, not a way out');
};

subtest 'a policy for each command' => sub {
	$node->safe_psql(
		'postgres', q{
		DROP POLICY tenant ON upload_session;
		CREATE POLICY readable ON upload_session FOR SELECT USING (true);
		CREATE POLICY started ON upload_session FOR INSERT WITH CHECK (true);
		CREATE POLICY changed ON upload_session FOR UPDATE
			USING (owner = current_setting('app.tenant')) WITH CHECK (uploaded_bytes <= 80);
		CREATE POLICY deleted ON upload_session FOR DELETE USING (path = 'temporary');
	});
	is( as_tenant(
			'a', q{
			SELECT uploaded_bytes FROM get_upload('b live');
			SELECT outcome FROM try_advance_upload('b live', 50, 10);
			SELECT outcome FROM try_advance_upload('a live', 60, 10);
		}),
		"50\nnot_found\nadvanced",
		'readable by all, writable by its tenant');
	is_deeply(
		[
			sqlstates_as_tenant(
				'a',
				q{SELECT advance_upload('a live', 70, 20)},
				q{SELECT try_advance_upload('a live', 70, 20)},
				q{SELECT advance_uploads('{a live}', '{70}', '{20}')},
				q{SELECT advance_upload('a live', 70, 10)})
		],
		[ '42501', '42501', '42501', '00000' ],
		'a chunk that the policy forbids');
	is(as_tenant('a', q{SELECT uploaded_bytes FROM get_upload('a live')}),
		80, 'uploaded_bytes');
};

done_testing();
