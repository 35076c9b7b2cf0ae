# Leases on whole servers: processes that upload files together are stopped for longer
# than their lease lasts, and are killed, as are their backends and the server.  No byte
# that was written without the lease is in a file.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use LeaseTest;
use List::Util qw(shuffle);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use UploadTest;

plan skip_all => 'python3-psycopg2 is not there' if !find_psycopg2();

my $seed = $ENV{RANDOM_SEED} ||= time;    # the writers, too

note "RANDOM_SEED=$seed";
srand $seed;

my $node = upload_node('main', conf => "restart_after_crash = on\nvali_blob.sweep = off");

# --- what a lease costs

foreach my $way ('auto', 'sql')
{
	$node->safe_psql('postgres', qq{
		ALTER DATABASE postgres SET vali_blob.row_access = $way;
		TRUNCATE upload_session CASCADE;
		SELECT start_upload('file', 1000, upload_id => 'u');
		SELECT pg_stat_reset()});
	is($node->safe_psql('postgres', q{SELECT held, epoch, uploaded_bytes FROM acquire_upload_lease('u', 'a')}),
		't|1|0', "a lease, row_access = $way");
	is($node->safe_psql('postgres', q{
			SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid();
			SELECT count(*) FROM pg_locks WHERE pid IS DISTINCT FROM pg_backend_pid();
			SELECT lease_expires_at > now() FROM upload_session}),
		"0\n0\nt", '... is held without a connection and without a lock');
	is($node->safe_psql('postgres', q{
			SELECT held, epoch, holder, uploaded_bytes FROM acquire_upload_lease('u', 'b');
			SELECT outcome FROM try_advance_upload('u', 0, 10);
			SELECT outcome FROM try_advance_upload('u', 0, 10, lease_epoch => 1);
			SELECT held, requested, uploaded_bytes FROM renew_upload_lease('u', 1);
			SELECT held, requested FROM release_upload_lease('u', 1);
			SELECT held, epoch, uploaded_bytes FROM acquire_upload_lease('u', 'b');
			SELECT outcome FROM unnest('{0,1,2,3}'::int[]) AS n, try_advance_upload('u', 0, 10, lease_epoch => n)}),
		join("\n", 'f|1|a|0', 'fenced', 'advanced', 't|t|10', 'f|f', 't|2|10', 'fenced', 'fenced', 'replayed', 'fenced'),
		'... from any one, and only its epoch is good');
	$node->safe_psql('postgres', q{
		DO $$
		DECLARE
			lease upload_lease;
		BEGIN
			FOR n IN 1 .. 100 LOOP
				lease := acquire_upload_lease('u', 'c' || n, take_over => true);
				COMMIT;
				PERFORM acquire_upload_lease('u', 'd');
				COMMIT;
				PERFORM renew_upload_lease('u', lease.epoch, '1 hour');
				COMMIT;
				PERFORM release_upload_lease('u', lease.epoch);
				COMMIT;
			END LOOP;
		END $$});
	is($node->safe_psql('postgres', q{
			SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'upload_session';
			SELECT lease_epoch, lease_holder IS NULL, lease_expires_at IS NULL, lease_requested, uploaded_bytes FROM upload_session}),
		"406|406\n102|t|t|f|10", "all that is done with leases are HOT updates, row_access = $way");
}

# --- several writers

# Each time, one of the uploads has begun in 1.0.
$node->safe_psql('postgres', 'CREATE DATABASE uploads');
$node->safe_psql('uploads', qq{
	CREATE EXTENSION vali_blob VERSION '1.0';
	SELECT start_upload('file', $upload_size, upload_id => 'old' || n) FROM generate_series(1, 3) AS n;
	ALTER EXTENSION vali_blob UPDATE;
	CREATE ROLE client LOGIN;
	SELECT grant_upload_access('client')});
is($node->safe_psql('uploads', q{SELECT count(*) FROM upload_session WHERE rules_version IS NULL}), '3', 'uploads of 1.0');

my $run = 0;
foreach (
	[ 'row_access = auto', 'auto' ],
	[ 'row_access = sql', 'sql' ],
	[ 'an ordinary role with policies', 'auto', q{
		ALTER TABLE upload_session ENABLE ROW LEVEL SECURITY;
		CREATE POLICY own ON upload_session TO client USING (upload_id IN ('old3', 'first3', 'second3'));
		ALTER TABLE upload_part ENABLE ROW LEVEL SECURITY;
		CREATE POLICY own ON upload_part TO client USING (upload_id IN ('old3', 'first3', 'second3'))} ])
{
	my ($name, $way, $policies) = @$_;
	my @ids = map { $_ . ($run + 1) } 'old', 'first', 'second';
	my @crashes = shuffle 'kill_backend', 'kill_server', 'kill';

	$run++;
	$node->safe_psql('uploads', "ALTER DATABASE uploads SET vali_blob.row_access = $way");
	$node->safe_psql('uploads', $policies) if $policies;
	my $count = run_writers($name, node => $node, dbname => 'uploads',
		connstr => $node->connstr('uploads') . ($policies ? ' user=client' : ''),
		uploads => { map { ($_ => [ shuffle 'stop', 'stop', 'stop', 'kill', shift @crashes ]) } @ids });
	check_uploads($name, $node, 'uploads', @ids);
	is($count->{$_->[0]}, $_->[1], "$name: $_->[2]")
	  foreach [ 'kill', 4, 'writers were killed' ], [ 'kill_backend', 1, 'and a backend' ], [ 'kill_server', 1, 'and the server' ];
	is($count->{woken}, 9, "$name: others were stopped for longer than their lease lasts");
}
is($node->safe_psql('uploads', q{SELECT count(*) FROM upload_session WHERE rules_version = 1}), '9', 'an older library leaves all of them alone');

$node->stop;
done_testing();
