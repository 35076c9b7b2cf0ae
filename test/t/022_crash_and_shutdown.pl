# The sweeper comes back: after its launcher or a worker was terminated or
# killed, after a crash of the server, after it found no worker slot.  And it
# never keeps the server from shutting down.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SweeperTest;
use Test::More;
use Time::HiRes qw(usleep);
use UploadTest;

my $node = sweeper_node(
	'main',
	allows_streaming => 1,
	conf => qq{
restart_after_crash = on
max_prepared_transactions = 1
max_logical_replication_workers = 0
max_worker_processes = 2
});
my $stale = 0;

sub pid_of
{
	my ($kind) = @_;
	return $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'vali_blob $kind'");
}

# Sessions still expire.
sub sweeps
{
	my ($test_name) = @_;

	$stale++;
	add_stale($node, 'postgres', "u$stale-", 1);
	ok($node->poll_query_until('postgres', "SELECT status = 'expired' FROM upload_session WHERE upload_id = 'u$stale-1'"),
		$test_name);
	return;
}

# A sweep that waits for something which neither a shutdown nor a terminated
# backend gives free.
sub begin_blocked_sweep
{
	$node->safe_psql('postgres', "BEGIN; SELECT pg_advisory_xact_lock(1); PREPARE TRANSACTION 'gate'");
	$stale++;
	add_stale($node, 'postgres', "u$stale-", 1);
	await_worker_at_gate($node, 'postgres');
	return;
}

sub open_gate
{
	$node->safe_psql('postgres', q{ROLLBACK PREPARED 'gate'});
	return;
}

build_gate($node, 'postgres');
sweeps('a sweep');

# --- terminated

begin_blocked_sweep();
my $worker = pid_of('worker');
is($node->safe_psql('postgres', "SELECT pg_terminate_backend($worker, 60000)"), 't', 'a waiting worker is terminated');
open_gate();
sweeps('and sent again');
is($node->safe_psql('postgres', q{SELECT count(*) FROM upload_session WHERE status <> 'expired'}), 0, 'nothing is left over');

begin_blocked_sweep();
my $launcher = pid_of('launcher');
is($node->safe_psql('postgres', "SELECT pg_terminate_backend($launcher, 60000)"), 't', 'the launcher is terminated');
await_no_worker($node);
pass('its worker goes with it');
open_gate();
sweeps('both come back');

# --- killed, and with it all processes of the server

sub await_restart
{
	my ($old_launcher) = @_;

	await($node, 'postgres', "pid <> $old_launcher FROM pg_stat_activity WHERE backend_type = 'vali_blob launcher'");
	return;
}

begin_blocked_sweep();
$launcher = pid_of('launcher');
kill 'KILL', pid_of('worker');
await_restart($launcher);
is($node->safe_psql('postgres', 'SELECT running, total_expired, last_error IS NULL FROM sweeper_status()'),
	't|0|t', 'a crash of the worker: the launcher runs, the figures begin anew');
open_gate();
sweeps('and sweeps');

$launcher = pid_of('launcher');
kill 'KILL', $launcher;
await_restart($launcher);
sweeps('after a crash of the launcher');

begin_blocked_sweep();
$node->kill9;
foreach (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	last if $node->start(fail_ok => 1);
	$node->{_pid} = undef;
	usleep(100_000);
}
open_gate();
sweeps('after a crash of the server');

# --- shut down

foreach my $mode ('fast', 'smart', 'immediate')
{
	begin_blocked_sweep();
	ok($node->stop($mode, fail_ok => 1), "$mode shutdown during a sweep");
	$node->start;
	open_gate();
	sweeps('the sweep goes on after it');
}

set_conf($node, synchronous_standby_names => 'nobody');
await($node, 'postgres', q{current_setting('synchronous_standby_names') = 'nobody'});
{
	local $ENV{PGOPTIONS} = '-c synchronous_commit=local';
	sweeps('the sweep does not wait for a synchronous standby');
	begin_blocked_sweep();
	ok($node->stop('fast', fail_ok => 1), 'nor does a fast shutdown');
	$node->start;
	open_gate();
	$node->safe_psql('postgres', 'ALTER SYSTEM RESET synchronous_standby_names');
	$node->reload;
}

# --- no worker slot left

# A parallel worker takes the slot, as soon as it gets it, and keeps it.
$node->safe_psql(
	'postgres', q{
	CREATE FUNCTION hog() RETURNS void LANGUAGE plpgsql PARALLEL SAFE AS $$
	BEGIN
		IF (SELECT leader_pid IS NOT NULL FROM pg_stat_activity WHERE pid = pg_backend_pid()) THEN
			PERFORM pg_sleep(1000);
		END IF;
	END $$;
});
my $hog = $node->background_psql('postgres', on_error_stop => 0);
my $log_end = log_end($node);
$hog->query_until(
	qr/begin/, q{
	SELECT set_config(name, 'on', false) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
	\echo begin
	SELECT hog() \watch 0.01
});
$node->wait_for_log(qr/LOG:  no free background worker slot for the vali_blob worker.*\n.*HINT: .*max_worker_processes/, $log_end);
pass('the log says that there is no worker slot');
add_stale($node, 'postgres', 'by hand', 3);
foreach (1 .. 3)
{
	$node->reload;
	is($node->safe_psql('postgres', 'SELECT expired FROM sweep_uploads(1)'), 1, 'sweep_uploads() works');
}
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ '^SELECT hog'});
sweeps('the sweep goes on as soon as there is a slot');
is(scalar(grep { /slot/ } complaints_since($node, $log_end)), 1, 'the log said it only once');
$hog->{run}->finish;

$node->stop;
done_testing();
