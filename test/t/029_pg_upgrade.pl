# pg_upgrade is not disturbed by a preloaded sweeper, and keeps everything.
#
# OLD_INSTALL=/usr/lib/postgresql/N upgrades from an older major version, which has the
# extension installed.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SweeperTest;
use Test::More;
use UploadTest;

my $old = sweeper_node('old', install_path => $ENV{OLD_INSTALL});
my $new = PostgreSQL::Test::Cluster->new('new');

$new->init(
	extra => [
		'--encoding=UTF8', '--no-locale',
		# from version 18 on they are on by default, and both must have the same
		$ENV{OLD_INSTALL} && $new->pg_version >= 18 ? '--no-data-checksums' : ()
	]);
$new->append_conf('postgresql.conf', "shared_preload_libraries = 'vali_blob'\nvali_blob.sweep_interval = '1s'");

# All that there is, and the next ids.
sub contents
{
	my ($node) = @_;
	return $node->safe_psql(
		'postgres', q{
		SELECT to_jsonb(s) FROM upload_session s ORDER BY id;
		SELECT to_jsonb(r) FROM upload_reclaim r ORDER BY id;
		SELECT last_value FROM upload_session_id_seq;
		SELECT last_value FROM upload_reclaim_id_seq;
		SHOW vali_blob.retention;
	});
}

set_database($old, 'postgres', 'vali_blob.retention' => '7d');
$old->safe_psql(
	'postgres', q{
	SELECT start_upload('file', 100, provider_data => '{"part": 1}', upload_id => 'live');
	SELECT advance_upload('live', 0, 50);
	SELECT start_upload('file', provider_data => '{"part": 1}', upload_id => 'ended');
	SELECT abort_upload('ended');
});
my $before = contents($old);

# A database that still has the objects of 1.0
$old->safe_psql('postgres', 'CREATE DATABASE earlier');
$old->safe_psql('earlier', q{
	CREATE EXTENSION vali_blob VERSION '1.0';
	SELECT start_upload('file', 100, provider_data => '{"part": 1}', upload_id => 'live');
	SELECT advance_upload('live', 0, 50);
	CREATE ROLE client;
	SELECT grant_upload_access('client')});

$old->stop;
my ($bindir) = run_command([ 'pg_config', '--bindir' ]);
chdir $PostgreSQL::Test::Utils::tmp_check or die "tmp_check: $!";
command_ok(
	[
		'pg_upgrade', '--retain', '--old-datadir' => $old->data_dir, '--new-datadir' => $new->data_dir,
		'--old-bindir' => $ENV{OLD_INSTALL} ? "$ENV{OLD_INSTALL}/bin" : $bindir, '--new-bindir' => $bindir,
		'--socketdir' => $new->host, '--old-port' => $old->port, '--new-port' => $new->port
	],
	'pg_upgrade');
my @logs = glob $new->data_dir . '/pg_upgrade_output.d/*/log/pg_upgrade_server.log';
cmp_ok(scalar(@logs), '>', 0, 'its servers have a log');
is_deeply([ grep { /vali_blob (launcher|worker)/ } map { split /\n/, slurp_file($_) } @logs ], [], 'nothing sweeps meanwhile');

$new->start;
is(contents($new), $before, 'everything is as before');
add_stale($new, 'postgres', 'stale', 1);
await($new, 'postgres', q{status = 'expired' FROM upload_session WHERE upload_id = 'stale1'});
is($new->safe_psql('postgres', q{SELECT outcome, uploaded_bytes FROM try_advance_upload('live', 50, 50)}),
	'advanced|100', 'uploads go on, and stale ones expire');

is($new->safe_psql('earlier', q{
		SET ROLE client;
		SELECT outcome, uploaded_bytes FROM try_advance_upload('live', 50, 10);
		RESET ROLE;
		ALTER EXTENSION vali_blob UPDATE;
		SET ROLE client;
		SELECT outcome, uploaded_bytes FROM try_advance_upload('live', 60, 40, etag => 'e');
		SELECT chunk_offset, etag FROM list_parts('live')}),
	"advanced|60\nadvanced|100\n60|e", 'a database of 1.0 goes on, and is updated afterwards');

$new->stop;
done_testing();
