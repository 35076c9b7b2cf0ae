# What goes wrong in a sweep stays small: one session, one batch or one database.
# sweeper_status() shows it, the log says it once, and the rest is swept.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SweeperTest;
use Test::More;
use UploadTest;

my $node = sweeper_node('main');

# What the log says of failed sweeps since then.
sub reports_since
{
	my ($log_end) = @_;
	return map { s/.*LOG:  vali_blob could not sweep //r } grep { !/STATEMENT/ } complaints_since($node, $log_end);
}

sub last_error
{
	my ($dbname) = @_;
	return $node->safe_psql($dbname, 'SELECT last_error FROM sweeper_status()');
}

# Make the sweep of one session do something.
sub set_trigger
{
	my ($upload_id, $action) = @_;

	$node->safe_psql(
		'postgres', qq{
		CREATE OR REPLACE FUNCTION react() RETURNS trigger LANGUAGE plpgsql AS \$\$
		BEGIN
			IF OLD.upload_id = '$upload_id' THEN
				$action;
			END IF;
			RETURN coalesce(NEW, OLD);
		END \$\$;
		CREATE OR REPLACE TRIGGER react BEFORE UPDATE OR DELETE ON upload_session
			FOR EACH ROW EXECUTE FUNCTION react();
	});
	return;
}

# Sweep five sessions of which the third fails.
sub one_fails
{
	my ($prefix, $action, $reason) = @_;
	my $log_end = log_end($node);

	set_trigger("${prefix}3", $action);
	add_stale($node, 'postgres', $prefix, 5);
	await($node, 'postgres', qq{count(*) = 4 FROM upload_session WHERE upload_id LIKE '$prefix%' AND status = 'expired'});
	await($node, 'postgres', qq{last_error LIKE '%"${prefix}3"%' FROM sweeper_status()});
	like(last_error('postgres'), $reason, "$action fails one session");
	sweep_now($node, 'postgres', 2);
	my @reports = reports_since($log_end);
	is(scalar(@reports), 1, 'the log says so once');
	is(index($reports[0], 'database "postgres": ' . last_error('postgres')), 0, 'and as sweeper_status() does');
	return;
}

# --- one session

one_fails('a', q{RAISE 'no'}, qr/^upload "a3": no$/);
is( $node->safe_psql(
		'postgres', q{
		SELECT last_expired, total_expired, last_error_at >= last_sweep FROM sweeper_status();
		SELECT string_agg(upload_id, ' ' ORDER BY upload_id) FROM upload_reclaim;
	}),
	"0|4|t\na1 a2 a4 a5",
	'what has failed does not count and is not queued');
my $log_end = log_end($node);
set_trigger('a3', q{RAISE 'still no'});
await($node, 'postgres', q{last_error = 'upload "a3": still no' FROM sweeper_status()});
is_deeply([ reports_since($log_end) ], [ 'database "postgres": upload "a3": still no' ], 'the log says what is new');
set_trigger('', 'NULL');
await($node, 'postgres', q{status = 'expired' FROM upload_session WHERE upload_id = 'a3'});
pass('the session expires when the reason is gone');

one_fails('b', 'RETURN NULL', qr/^upload "b3": could not write upload "b3"$/);
one_fails('c', q{RAISE '%', repeat('ü', 200)}, qr/^upload "c3": (ü){50,}$/);
is(sqlstate_of($node, q{SET client_encoding = latin1; SELECT sweep_uploads()}), '00000', 'an error is cut between two characters');
one_fails('g', q{RAISE 'canceled?' USING ERRCODE = '57014'}, qr/^upload "g3": canceled\?$/);
my $holder = $node->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(2)');
one_fails('d', 'PERFORM pg_advisory_xact_lock(2)', qr/^upload "d3": canceling statement due to lock timeout$/);
$holder->quit;
await($node, 'postgres', q{status = 'expired' FROM upload_session WHERE upload_id = 'd3'});
pass('it expires when the lock is free');

# So it is where the worker does not sweep, also for a trigger that is deferred, if
# the caller wants it.
set_trigger('', 'NULL');
set_database($node, 'postgres', 'vali_blob.sweep' => 'off');
$node->safe_psql(
	'postgres', q{
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END';
	CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON upload_session DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW WHEN (NEW.upload_id = 'h2') EXECUTE FUNCTION refuse();
	INSERT INTO upload_session (upload_id, path, expires_at) SELECT 'h' || i, 'file', now() - interval '1 s' FROM generate_series(1, 3) i;
});
is(sqlstate_of($node, 'SELECT expired FROM sweep_uploads()'), 'P0001', 'what is deferred fails the transaction');
is($node->safe_psql('postgres', q{BEGIN; SET CONSTRAINTS ALL IMMEDIATE; SELECT expired FROM sweep_uploads(); COMMIT}), "2",
	'or one session, if it is made immediate');
$node->safe_psql('postgres', 'DROP FUNCTION refuse CASCADE');
set_database($node, 'postgres', 'vali_blob.sweep' => 'on');

$node->safe_psql(
	'postgres', q{
	TRUNCATE upload_session CASCADE;
	CREATE TABLE file (session varchar REFERENCES upload_session);
	INSERT INTO upload_session (upload_id, path, status, expires_at)
		SELECT 'e' || i, 'file', 'aborted', now() + i * interval '1 us' - interval '1 hour' FROM generate_series(1, 3) i;
	INSERT INTO file VALUES ('e2');
});
await($node, 'postgres', q{count(*) = 1 FROM upload_session});
await($node, 'postgres', q{last_error LIKE 'upload "e2": % violates foreign key %' FROM sweeper_status()});
pass('a session that is referred to is not purged');
$node->safe_psql('postgres', 'DROP TABLE file');
await($node, 'postgres', q{count(*) = 0 FROM upload_session});
pass('until that is over');

# --- one worker

build_gate($node, 'postgres');
my $gate = close_gate($node, 'postgres');
add_stale($node, 'postgres', 'f', 1);
await_worker_at_gate($node, 'postgres');
$node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'vali_blob worker'});
await($node, 'postgres', q{last_error LIKE 'canceling statement due to user request' FROM sweeper_status()});
$gate->quit;
await($node, 'postgres', q{status = 'expired' FROM upload_session});
pass('a canceled sweep is done again');

# --- one database

$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION vali_blob');
$node->reload;
sweep_now($node, 'other');

$log_end = log_end($node);
$node->safe_psql('other', 'ALTER TABLE upload_reclaim RENAME TO renamed');
add_stale($node, 'other', 'u', 1);
my $attempt = $node->safe_psql('other', 'SELECT now()');
foreach (1 .. 3)
{
	$node->reload;
	await($node, 'other', "last_error_at > '$attempt' FROM sweeper_status()");
	$attempt = $node->safe_psql('other', 'SELECT now()');
}
is_deeply(
	[ reports_since($log_end) ],
	['database "other": table "upload_reclaim" of extension "vali_blob" does not exist in schema "public"'],
	'a database that fails is reported once');
sweep_now($node, 'postgres');
$node->safe_psql('other', 'ALTER TABLE renamed RENAME TO upload_reclaim');
$node->reload;
await($node, 'other', q{status = 'expired' FROM upload_session});
pass('it is swept when the reason is gone');

# A database that cannot even be connected to.  The server logs each attempt, so
# these become rare; the others are swept as often as ever.
my $oid = $node->safe_psql('postgres', q{SELECT oid FROM pg_database WHERE datname = 'other'});
my $file = $node->data_dir . "/base/$oid/PG_VERSION";
add_stale($node, 'other', 'v', 1);
rename $file, "$file.away" or die "$file: $!";
$log_end = log_end($node);
await_sweep($node, 'postgres') foreach 1 .. 6;
my $attempts = grep { /FATAL/ } complaints_since($node, $log_end);
cmp_ok($attempts, '<=', 4, 'a database that cannot be connected to is visited less and less often');
cmp_ok($attempts, '>=', 1, 'but it is visited');
rename "$file.away", $file or die "$file: $!";
$node->reload;
await($node, 'other', q{count(*) = 0 FROM upload_session WHERE status = 'pending'});
pass('it is swept when the reason is gone');

$node->stop;
done_testing();
