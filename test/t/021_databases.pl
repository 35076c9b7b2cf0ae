# The sweeper and the databases of a cluster: which of them it sweeps, how it
# notices what comes and goes, and that nobody who drops, renames or copies a
# database, or the extension in it, is ever in its way or it in theirs.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SweeperTest;
use Test::More;
use UploadTest;

# Room for the launcher and one worker only, however many databases there are.
my $node = sweeper_node('main',
	conf => "max_logical_replication_workers = 0\nmax_worker_processes = 2");

sub create_database
{
	my ($dbname, $options) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $dbname " . ($options // ''));
	$node->safe_psql($dbname, 'CREATE EXTENSION vali_blob');
	$node->reload;    # so that it is noticed at once
	return;
}

sub await_swept
{
	my ($dbname) = @_;

	await($node, $dbname, q{count(*) = 0 FROM upload_session WHERE status IN ('pending', 'in_progress')});
	return;
}

# --- which databases are swept

create_database('plain');
create_database('template', 'IS_TEMPLATE true');
create_database('closed');
create_database('broken');
add_stale($node, $_, 'u', 1) foreach 'plain', 'template';
$node->safe_psql(
	'postgres', q{
	CREATE DATABASE without;
	CREATE DATABASE lookalike;
});
$node->safe_psql(
	'lookalike', q{
	CREATE SCHEMA vali_blob;
	CREATE TABLE vali_blob.upload_session (upload_id text);
	CREATE TABLE upload_session (upload_id text, status text, expires_at timestamptz);
	INSERT INTO upload_session VALUES ('u', 'pending', '-infinity');
});
await_swept($_) foreach 'plain', 'template';
pass('an ordinary database and a template are swept');

foreach (
	[ 'closed', 'datallowconn = false', 'datallowconn = true' ],
	[ 'broken', 'datconnlimit = -2', 'datconnlimit = -1' ])
{
	my ($dbname, $shut, $open) = @$_;
	my $pause = pause_sweeps($node, $dbname);
	my $activity = "SELECT xact_commit, xact_rollback FROM pg_stat_database WHERE datname = '$dbname'";

	add_stale($node, $dbname, 'u', 1);
	$node->safe_psql('postgres', "UPDATE pg_database SET $shut WHERE datname = '$dbname'");
	$pause->quit;
	sweep_now($node, 'plain', 2);
	my $before = $node->safe_psql('postgres', $activity);
	sweep_now($node, 'plain', 2);
	is($node->safe_psql('postgres', $activity), $before, "with $shut a database is left alone");
	$node->safe_psql('postgres', "UPDATE pg_database SET $open WHERE datname = '$dbname'");
	await_swept($dbname);
	pass("with $open it is swept");
}

is($node->safe_psql('lookalike', 'SELECT * FROM upload_session'), 'u|pending|-infinity',
	'a look-alike without the extension is left alone');
is_deeply(
	[ map { $node->safe_psql($_, 'SELECT total_expired FROM sweeper_status()') } 'template', 'broken', 'postgres' ],
	[ 1, 1, 0 ],
	'each database has figures of its own');

# --- what comes

$node->safe_psql(
	'without', q{
	CREATE SCHEMA "Odd ""Schema""";
	CREATE EXTENSION vali_blob SCHEMA "Odd ""Schema""";
	ALTER DATABASE without SET search_path = "Odd ""Schema""";
});
add_stale($node, 'without', 'u', 1);
await_swept('without');
is(statuses($node, 'without'), 'u1: expired', 'an extension that comes later is noticed, in any schema');

$node->safe_psql('lookalike', 'DROP SCHEMA vali_blob CASCADE; CREATE SCHEMA vali_blob; CREATE EXTENSION vali_blob SCHEMA vali_blob');
$node->reload;
$node->safe_psql('lookalike', q{SELECT vali_blob.start_upload('file', upload_id => 'real', ttl => '1 s')});
await($node, 'lookalike', q{status = 'expired' FROM vali_blob.upload_session});
pass('a look-alike does not hide the extension');

$node->safe_psql('postgres', 'CREATE DATABASE child TEMPLATE template');
add_stale($node, 'child', 'v', 1);
await_swept('child');
is(statuses($node, 'child'), 'u1: expired, v1: expired', 'a database inherits from its template, and is swept');

# --- what happens during a sweep

# Put a database into a sweep that takes long, in small batches.
sub begin_long_sweep
{
	my ($dbname) = @_;

	set_database($node, $dbname, 'vali_blob.sweep_batch_size' => 1);
	add_stale($node, $dbname, 'long', 2000);
	await($node, $dbname, 'last_expired > 0 FROM sweeper_status()');
	return;
}

# Let the sweep end soon.  Fails if it had ended before.
sub end_long_sweep
{
	my ($dbname, $test_name) = @_;

	cmp_ok(sessions_left($dbname), '>', 0, "$test_name, during a sweep");
	$node->safe_psql('postgres', "ALTER DATABASE $dbname RESET vali_blob.sweep_batch_size");
	my $pause = pause_sweeps($node, $dbname);
	await_no_worker($node);
	$pause->quit;
	$node->reload;
	await_swept($dbname);
	$node->safe_psql($dbname, 'TRUNCATE upload_session CASCADE');
	return;
}

sub sessions_left
{
	my ($dbname) = @_;
	return $node->safe_psql($dbname, q{SELECT count(*) FROM upload_session WHERE status = 'pending'});
}

is_deeply([ complaints_since($node, 0) ], [], 'the log is quiet about all this');

# FORCE ends even a worker that waits for something that only FORCE would end.
create_database('victim');
build_gate($node, 'victim');
my $gate = close_gate($node, 'victim');
add_stale($node, 'victim', 'u', 1);
await_worker_at_gate($node, 'victim');
is(sqlstate_of($node, q{SET statement_timeout = '30s'; DROP DATABASE victim WITH (FORCE)}),
	'00000', 'DROP DATABASE ... WITH (FORCE) while a worker waits');
$gate->{run}->finish;

$node->safe_psql('postgres', 'CREATE ROLE app CREATEDB');
my $log_end;
foreach (
	['DROP DATABASE forced WITH (FORCE)'],
	['SET ROLE app; DROP DATABASE forced WITH (FORCE)'],
	['DROP DATABASE dropped'],
	[ 'ALTER DATABASE movable RENAME TO renamed', 'renamed' ],
	[ 'CREATE DATABASE copy TEMPLATE original', 'original', 'copy' ])
{
	my ($command, @remaining) = @$_;
	my ($dbname) = $command =~ /(forced|dropped|movable|original)/;

	create_database($dbname, 'OWNER app');
	# FORCE may end a worker, from version 19 on each of these may, and then the server logs that
	$log_end //= log_end($node) if $dbname ne 'forced' && $node->pg_version < '19devel';
	begin_long_sweep($dbname);
	cmp_ok(sessions_left($dbname), '>', 0, 'a sweep is under way');
	is(sqlstate_of($node, $command), '00000', $command);
	end_long_sweep($remaining[0], $command) if @remaining;
	await_swept($_) foreach @remaining;
}
$log_end //= log_end($node);
cmp_ok($node->safe_psql('copy', 'SELECT total_expired FROM sweeper_status()'), '>', 0, 'the copy has taken the sweep over');

# A database that is dropped while another one is swept.
create_database('doomed');
sweep_now($node, 'doomed');
build_gate($node, 'postgres');
$gate = close_gate($node, 'postgres');
add_stale($node, 'postgres', 'u', 1);
await_worker_at_gate($node, 'postgres');
await($node, 'doomed', q{clock_timestamp() > last_sweep + last_duration + interval '2 s' FROM sweeper_status()});
$node->safe_psql('postgres', 'DROP DATABASE doomed');
$gate->quit;
sweep_now($node, 'plain', 2);

# --- the extension in the database

create_database('changing');
foreach my $command (
	'ALTER TABLE upload_session ADD COLUMN remark text',
	'VACUUM FULL upload_session',
	'CREATE INDEX CONCURRENTLY ON upload_session (content_type)',
	'BEGIN; DROP EXTENSION vali_blob; ROLLBACK')
{
	begin_long_sweep('changing');
	is(sqlstate_of($node, $command, 'changing'), '00000', $command);
	end_long_sweep('changing', $command);
}

# A transaction that is open for long keeps the sweep away from this database,
# not from others.
foreach my $command ('DROP EXTENSION vali_blob CASCADE', 'CREATE EXTENSION vali_blob')
{
	my $session = $node->background_psql('changing');

	begin_long_sweep('changing') if $command =~ /DROP/;
	$session->query_safe("BEGIN; $command");
	sweep_now($node, 'plain', 2);
	$session->query_safe('ROLLBACK');
	end_long_sweep('changing', "$command, rolled back") if $command =~ /DROP/;
	$session->query_safe("BEGIN; $command; COMMIT");
	$session->quit;
	sweep_now($node, 'plain', 2);
}
add_stale($node, 'changing', 'u', 1);
await_swept('changing');
pass('the extension has come again, and is noticed');

begin_long_sweep('changing');
is(sqlstate_of($node, 'DROP EXTENSION vali_blob', 'changing'), '00000', 'DROP EXTENSION during a sweep');
$node->safe_psql('changing', 'CREATE SCHEMA other; CREATE EXTENSION vali_blob SCHEMA other');
$node->safe_psql('postgres', 'ALTER DATABASE changing SET search_path = other');
add_stale($node, 'changing', 'u', 1);
await_swept('changing');
pass('CREATE EXTENSION in another schema after that');

is_deeply([ complaints_since($node, $log_end) ], [], 'the log is quiet about all this, too');

$node->stop;
done_testing();
