# A dump and a restore keep sessions, reclaim rows, the next ids, the settings
# of the database and the privileges of client roles, in plain and in custom
# format, in schema public and in one that needs quoting; and uploads go on
# where they were.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use UploadTest;

my $source = upload_node('source');
my $target = PostgreSQL::Test::Cluster->new('target');

$target->init;
$target->start;
foreach my $node ($source, $target)
{
	$node->safe_psql('postgres', 'CREATE ROLE client');
}

# Make a database with uploads in every state.
sub fill
{
	my ($dbname, $schema) = @_;

	$source->safe_psql(
		'postgres', qq{
		CREATE DATABASE "$dbname";
		ALTER DATABASE "$dbname" SET vali_blob.session_ttl = '7d';
		ALTER DATABASE "$dbname" SET vali_blob.retention = '-1';
	});
	$source->safe_psql(
		$dbname, qq{
		CREATE SCHEMA IF NOT EXISTS "$schema";
		CREATE EXTENSION vali_blob SCHEMA "$schema";
		SET search_path = "$schema";
		SELECT start_upload('pending', upload_id => 'pending', ttl => '0');
		SELECT start_upload('half', 100, 'text/plain', '{"a": [1, null]}', '{"part": "x"}',
			'owner', 'bucket', upload_id => 'half');
		SELECT advance_upload('half', 0, 50);
		SELECT start_upload('odd', 0, upload_id => E'it''s "odd" \\\\ \\u00fc\\u20ac');
		SELECT start_upload('done', 0, upload_id => 'done');
		SELECT complete_upload('done', '{"etag": "e"}');
		SELECT start_upload('aborted', 1, provider_data => '{"part": "y"}', upload_id => 'aborted');
		SELECT abort_upload('aborted', 'no more');
		SELECT start_upload('stale', 1, provider_data => '{"part": "z"}', upload_id => 'stale');
		UPDATE upload_session SET expires_at = now() - interval '1 day' WHERE upload_id = 'stale';
		SELECT sweep_uploads();
		SELECT claim_reclaims(1);
		SELECT fail_reclaim(1, 'storage is down');
		SELECT start_upload('forgotten', 1, upload_id => 'forgotten');
		SELECT delete_upload('forgotten');
		SELECT grant_upload_access('client');
	});
	return;
}

# All rows of a table, as text.
sub rows
{
	my ($node, $dbname, $schema, $table) = @_;

	return $node->safe_psql($dbname,
		qq{SELECT to_jsonb(t) FROM "$schema".$table t ORDER BY id});
}

# Move a database to the other cluster.
sub move
{
	my ($dbname, $format) = @_;
	my $file = "$PostgreSQL::Test::Utils::tmp_check/$dbname.$format";

	$source->command_ok(
		[
			'pg_dump', '--create', "--format=$format", '--file', $file,
			$source->connstr($dbname)
		],
		'dump');
	my @restore =
	  $format eq 'plain'
	  ? ('psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f')
	  : ('pg_restore', '--create', '--exit-on-error');
	$target->command_ok([ @restore, $file, '-d', $target->connstr('postgres') ],
		'restore');
	return;
}

foreach my $schema ('public', 'Odd Schema')
{
	foreach my $format ('plain', 'custom')
	{
		subtest "$format dump, schema $schema" => sub {
			my $dbname = lc "$schema $format";
			my $path = qq{SET search_path = "$schema"};

			fill($dbname, $schema);
			move($dbname, $format);

			my $sessions = rows($source, $dbname, $schema, 'upload_session');
			is(scalar(split /\n/, $sessions), 6, 'there was something to dump');
			is(rows($target, $dbname, $schema, 'upload_session'),
				$sessions, 'sessions');
			my $queue = rows($source, $dbname, $schema, 'upload_reclaim');
			is(scalar(split /\n/, $queue), 2, 'there was something to reclaim');
			is(rows($target, $dbname, $schema, 'upload_reclaim'),
				$queue, 'reclaim rows');

			my $next = qq{
				$path;
				SELECT id, ttl = '7 days' FROM start_upload('new', 1, provider_data => '{"a": 1}', upload_id => 'new');
				SELECT expires_at FROM abort_upload('new');
				SELECT id FROM upload_reclaim WHERE upload_id = 'new';
			};
			is($target->safe_psql($dbname, $next),
				"8|t\n\n3", 'next ids, ttl and retention');

			is( $target->safe_psql(
					$dbname, qq{
					$path;
					SET ROLE client;
					SELECT outcome, uploaded_bytes FROM try_advance_upload('half', 50, 50);
				}),
				'advanced|100',
				'a client goes on');
		};
	}
}

done_testing();
