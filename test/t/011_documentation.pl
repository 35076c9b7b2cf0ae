# Every example of the documentation gives the result that it shows.
#
# In the Markdown files, a block of sql is run, and the block that follows it
# directly, if there is one, is what psql must print (but for row counts).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use UploadTest;

my $root = "$FindBin::Bin/../..";
my $node = upload_node('main');

# What psql prints, without row counts, trailing blanks and empty lines at the ends.
sub run_example
{
	my ($dbname, $sql) = @_;
	my ($stdout, $stderr) = ('', '');

	IPC::Run::run [
		$node->installed_command('psql'), '--no-psqlrc', '--quiet',
		'--set' => 'ON_ERROR_STOP=1',
		'--dbname' => $node->connstr($dbname)
	  ],
	  '<' => \$sql, '>' => \$stdout, '2>' => \$stderr;
	$stderr =~ s/^(WARNING|DETAIL|HINT): .*\n//mg;
	return normal($stdout . $stderr);
}

sub normal
{
	my ($text) = @_;

	$text =~ s/^\(\d+ rows?\)\n//mg;
	$text =~ s/[ \t]+$//mg;
	$text =~ s/\n{2,}/\n\n/g;
	$text =~ s/^\n+|\s+$//g;
	return $text;
}

foreach my $file ('README.md', 'doc/vali_blob.md', 'doc/administration.md')
{
	my $dbname = $file =~ s/\W/_/gr;
	my $text = slurp_file("$root/$file");

	$node->safe_psql('postgres', "CREATE DATABASE \"$dbname\"");
	while ($text =~ /^```sql\n(.*?)^```\n(?:^```\n(.*?)^```\n)?/msg)
	{
		my ($sql, $expected) = ($1, $2);
		my $printed = run_example($dbname, $sql);
		my ($title) = $sql =~ /(.*)/;

		next if !defined $expected && $printed !~ /ERROR/;
		is($printed, normal($expected // ''), "$file: $title");
	}
	$node->safe_psql('postgres', "DROP DATABASE \"$dbname\"");
	$node->safe_psql('postgres', "DROP ROLE IF EXISTS upload_server");
}

# The reference lists the columns in the order in which they stand.
my $reference = slurp_file("$root/doc/vali_blob.md");
foreach my $relation ('upload_session', 'upload_part', 'upload_reclaim', 'upload_quota', 'upload_live', 'chunk_result', 'upload_lease', 'upload_stats')
{
	my ($section) = $reference =~ /^### $relation\n(.*?)^##/ms;
	my @listed = map { /^\| `(\w+)` \|/ ? $1 : () } split /\n/, $section;

	is( join(' ', @listed),
		$node->safe_psql('postgres', qq{SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute
			WHERE attrelid = '$relation'::regclass AND attnum > 0}),
		"$relation in the reference");
}

# What a star makes of a function that is not in FROM.
$node->safe_psql('postgres', q{SELECT (start_upload('x')).*});
my $started = $node->safe_psql('postgres', q{SELECT count(*) FROM upload_session WHERE path = 'x'});
foreach my $file ('README.md', 'doc/vali_blob.md')
{
	my ($number) = slurp_file("$root/$file") =~ /\(start_upload\('x'\)\)\.\*` starts (\d+)/;

	is($number, $started, "how many sessions (start_upload('x')).* starts: $file");
}
$node->safe_psql('postgres', q{DELETE FROM upload_session});

# After a restore live sessions get time anew, but not beyond their end.
my ($renew) = slurp_file("$root/doc/administration.md") =~ /^```sql\n(UPDATE upload_session SET expires_at = .*?)^```/ms;
$node->safe_psql('postgres', q{
	SELECT FROM start_upload('file', upload_id => 'bounded', ttl => '1 day', max_age => '2 hours');
	SELECT FROM start_upload('file', upload_id => 'free', ttl => '1 day');
	UPDATE upload_session SET expires_at = '2000-01-01'});
is( $node->safe_psql('postgres', $renew . q{
		SELECT upload_id, expires_at = end_by, expires_at > now() + '1 day' FROM upload_session ORDER BY upload_id}),
	"bounded|t|f\nfree||t", 'a restored session has time again, but not beyond its end');

done_testing();
