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

my @calls = (
	upload_life(),
	reclaim_life(),
	[ q{SELECT count(*) FROM upload_stats}, '5' ],
	[ q{SELECT running FROM sweeper_status()}, 'f' ],
	[ q{SELECT grant_upload_access('client'), revoke_upload_access('client')}, '|' ],
	[ q{DELETE FROM upload_session WHERE upload_id IN ('v', 'w')} ]);
my $expected = answers(@calls);
my $life = join ';', statements(@calls);

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
