# A backend keeps the library that it has loaded.  One that has that of 1.0 goes on
# working after the extension was updated, and leaves alone what it would judge
# wrongly.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use File::Basename;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use UploadTest;

# The sources of 1.0, from whoever has prepared this run, or from git.
my $release = ($ENV{VALI_BLOB_WORKPLACE} // '') . '/release-1.0';
if (!-f "$release/Makefile")
{
	$release = "$PostgreSQL::Test::Utils::tmp_check/release-1.0";
	plan skip_all => 'the sources of release 1.0 are not there'
	  if !run_log([ "$FindBin::Bin/../lib/release.sh", $release ]);
}

# An installation of its own, whose library can be exchanged.
my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
my %dir = map { my ($out) = run_command([ $pg_config, "--$_" ]); $_ => $out } qw(bindir pkglibdir sharedir);
my $root = "$PostgreSQL::Test::Utils::tmp_check/old_root";
foreach my $dir (values %dir)
{
	system_or_bail('mkdir', '-p', $root . dirname($dir));
	system_or_bail('cp', '-aL', $dir, "$root$dir") if !-e "$root$dir";
}
my $library = "$root$dir{pkglibdir}/vali_blob.so";
system_or_bail('cp', $library, "$library.new");
system_or_bail('make', '-s', '-C', $release, "PG_CONFIG=$pg_config");
system_or_bail('cp', "$release/vali_blob.so", "$library.old");

# Install a library as a package does: under its name, beside the one in use.
sub install
{
	my ($which) = @_;
	system_or_bail('cp', "$library.$which", "$library.tmp");
	rename "$library.tmp", $library or die "$library: $!";
	return;
}

my $node = PostgreSQL::Test::Cluster->new('main', install_path => $root . dirname($dir{bindir}));
install('old');
$node->init(extra => [ '--encoding=UTF8', '--no-locale' ]);
$node->start;
$node->safe_psql('postgres', q{CREATE EXTENSION vali_blob VERSION '1.0'; CREATE ROLE client});

my @life = (
	q{SELECT uploaded_bytes, total_size, status FROM start_upload('dir/file', owner => 'ann', upload_id => 'u')},
	q{SELECT outcome, uploaded_bytes, ready, status FROM advance_upload('u', 0, 10, provider_data => '{"etag": 1}')},
	q{SELECT outcome, uploaded_bytes, total_size FROM try_advance_upload('u', 5, 50)},
	q{SELECT outcome, uploaded_bytes, ready FROM advance_uploads('{u,nobody,u}', '{10,0,20}', '{10,1,80}')},
	q{SELECT metadata FROM merge_upload_data('u', '{"b": 2}')},
	q{SELECT total_size FROM declare_upload_size('u', 100)},
	q{SELECT upload_id, status FROM get_upload('u', 'ann')},
	q{SELECT upload_id, status FROM get_uploads('{u,nobody,u}')},
	q{SELECT upload_id, status FROM list_uploads('ann', 'dir/', 'in_progress', '0 s')},
	q{SELECT status, result FROM complete_upload('u', '{"etag": "e"}')},
	q{SELECT delete_upload('u')},
	q{SELECT status FROM start_upload('dir/file', provider_data => '{"part": 1}', upload_id => 'v')},
	q{SELECT status, abort_reason FROM abort_upload('v', 'reason')},
	q{INSERT INTO upload_session (upload_id, path, expires_at, provider_data) VALUES ('w', 'file', '-infinity', '{"part": 2}')},
	q{SELECT expired, purged, reclaims_dropped FROM sweep_uploads()},
	q{SELECT upload_id, reason, attempts FROM claim_reclaims() ORDER BY upload_id},
	q{SELECT fail_reclaim(id, 'no') FROM upload_reclaim},
	q{SELECT finish_reclaim(id) FROM upload_reclaim},
	q{SELECT count(*) FROM upload_stats},
	q{SELECT running FROM sweeper_status()},
	q{SELECT grant_upload_access('client'), revoke_upload_access('client')},
	q{DELETE FROM upload_session WHERE upload_id IN ('v', 'w')});
my $expected = join "\n",
  '0||pending', 'advanced|10|f|in_progress', 'conflict|10|',
  'advanced|20|f', 'not_found||f', 'advanced|100|f',
  '{"b": 2}', '100', 'u|in_progress', 'u|in_progress', 'u|in_progress', 'u|in_progress',
  'complete|{"etag": "e"}', 't', 'pending', 'aborted|reason', '1|0|0',
  'v|aborted|0', 'w|expired|0', 't', 't', 't', 't', '5', 'f', '|';
my $life = join ';', @life;

# Sessions with the old library, one for each access path.
my %old = map { $_ => $node->background_psql('postgres', on_error_stop => 0) } 'auto', 'sql';
foreach my $way (sort keys %old)
{
	$old{$way}->query_safe("SET vali_blob.row_access = $way");
	is(answer($old{$way}, $life), $expected, "1.0, row_access = $way");
}

install('new');
is($node->safe_psql('postgres', $life), $expected, 'a new session works, before the update');
is(answer($old{auto}, $life), $expected, 'and so does an old one');

$node->safe_psql('postgres', q{ALTER EXTENSION vali_blob UPDATE TO '1.1'});
is($node->safe_psql('postgres', $life), $expected, 'a new session works, after the update');
is(answer($old{$_}, $life), $expected, "and so does an old one, row_access = $_") foreach sort keys %old;

# What an old session must not judge.  In any order, [10, 20) is confirmed, not
# [0, 10), though 10 bytes are.
$node->safe_psql('postgres', q{
	SELECT start_upload('file', 30, upload_id => 'any', any_order => true);
	SELECT advance_upload('any', 10, 10);
	SELECT start_upload('file', 30, upload_id => 'part');
	SELECT advance_upload('part', 0, 10, part_number => 1);
	SELECT start_upload('file', 10, upload_id => 'auto', auto_complete => true);
	SELECT start_upload('file', 10, upload_id => 'age', max_age => '1 day');
	SELECT start_upload('file', upload_id => 'limit', size_limit => 5);
	CREATE FUNCTION raised(statement text) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
		EXECUTE statement;
		RETURN 'nothing';
	EXCEPTION WHEN OTHERS THEN
		RETURN SQLSTATE;
	END $$;
});
my $state = q{SELECT array_agg(s ORDER BY id) FROM upload_session AS s};
my $before = $node->safe_psql('postgres', $state);
my @ids = qw(any part auto age limit);
foreach my $way (sort keys %old)
{
	is( answer($old{$way}, q{SELECT outcome FROM unnest('{any,part,auto,age,limit}'::text[]) AS id, try_advance_upload(id, 0, 10)}),
		join("\n", ('ended') x 5), "an old session confirms no chunk of them, row_access = $way");
	is( answer($old{$way}, q{SELECT DISTINCT outcome FROM advance_uploads('{any,part,auto,age,limit}', '{0,10,0,0,0}', '{10,10,10,10,10}')}),
		'ended', "... nor several, row_access = $way");
	foreach my $id (@ids)
	{
		foreach my $call ("advance_upload('$id', 0, 10)", "complete_upload('$id')", "abort_upload('$id')", "merge_upload_data('$id')", "delete_upload('$id')")
		{
			is(answer($old{$way}, "SELECT raised(\$\$SELECT $call\$\$)"), 'VB003', "$call is refused, row_access = $way");
		}
	}
	is(answer($old{$way}, q{SELECT string_agg(upload_id, ' ' ORDER BY id) FROM list_uploads()}), "@ids", "it lists them, row_access = $way");
	is(answer($old{$way}, q{SELECT raised('SELECT start_upload(''file'', any_order => true)')}), '0A000', "what is new it refuses, row_access = $way");
}
is($node->safe_psql('postgres', $state), $before, 'nothing has changed');
$node->safe_psql('postgres', q{UPDATE upload_session SET expires_at = '-infinity'});
is(answer($old{$_}, 'SELECT * FROM sweep_uploads()'), '0|0|0', "an old session does not sweep them, row_access = $_") foreach sort keys %old;
is($node->safe_psql('postgres', q{SELECT * FROM sweep_uploads(); SELECT upload_id, jsonb_array_length(parts) FROM upload_reclaim ORDER BY id}),
	"5|0|0\nany|1\npart|1", 'a new one does, with their parts');

$_->quit foreach values %old;
$node->stop;
done_testing();
