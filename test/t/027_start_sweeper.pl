# Without shared_preload_libraries: CREATE EXTENSION says what is missing,
# everything else works, and start_sweeper() starts one launcher, however often
# and from however many sessions it is called.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SweeperTest;
use Test::More;
use UploadTest;

my $node = upload_node('main', conf => q{
restart_after_crash = on
max_logical_replication_workers = 0
max_worker_processes = 3
vali_blob.sweep_interval = '1s'
});

# What CREATE EXTENSION says in a new database.
sub announcement
{
	my ($dbname) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $dbname");
	my ($rc, $stdout, $stderr) = $node->psql($dbname, 'CREATE EXTENSION vali_blob');
	return $stderr;
}

sub launcher_pid
{
	return $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'vali_blob launcher'});
}

sub launchers
{
	return $node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'vali_blob launcher'});
}

# Stale sessions expire.
sub sweeps
{
	my ($test_name) = @_;

	add_stale($node, 'postgres', $test_name, 1);
	ok($node->poll_query_until('postgres', "SELECT status = 'expired' FROM upload_session WHERE upload_id = '${test_name}1'"),
		$test_name);
	return;
}

# --- without the sweeper

my @lines = split /\n/, announcement('first');
is(scalar(grep { /WARNING/ } @lines), 1, 'CREATE EXTENSION warns once');
like($lines[-1], qr/HINT: .*shared_preload_libraries.*start_sweeper\(\)/, 'and says what to do');
add_stale($node, 'postgres', 'a', 1);
is( $node->safe_psql(
		'postgres', q{
		SELECT running, last_sweep, total_expired, last_error FROM sweeper_status();
		SELECT uploaded_bytes FROM start_upload('file', upload_id => 'b');
		SELECT outcome FROM advance_upload('b', 0, 10);
		SELECT expired, purged FROM sweep_uploads();
	}),
	"f||0|\n0\nadvanced\n1|0",
	'everything else works');
is(launchers(), 0, 'nothing has been started');

# --- with start_sweeper()

$node->safe_psql('postgres', 'CREATE ROLE nobody');
is(sqlstate_of($node, 'SET ROLE nobody; SELECT start_sweeper()'), '42501', 'not everybody may start it');

# Call it from many sessions at once: all wait for a lock, and call it then.
# Returns the answers, sorted.
sub start_from_many
{
	my ($count) = @_;
	my $call = "SELECT start_sweeper() FROM (SELECT pg_advisory_lock_shared(1) OFFSET 0) l;\n\\echo SQLSTATE :SQLSTATE\n";
	my $lock = $node->background_psql('postgres');

	$lock->query_safe('SELECT pg_advisory_lock(1)');
	my @sessions = map { $node->background_psql('postgres', on_error_stop => 0) } 1 .. $count;
	$_->query_until(qr/waiting\n/, "\\echo waiting\n$call") foreach @sessions;
	await($node, 'postgres', qq{count(*) = $count FROM pg_locks WHERE locktype = 'advisory' AND NOT granted});
	$lock->quit;
	my @answers = map { $_->query_until(qr/SQLSTATE \d{5}\n/, '') =~ s/\n/ /gr } @sessions;
	$_->quit foreach @sessions;
	return sort @answers;
}

is_deeply([ start_from_many(6) ], [ ('f SQLSTATE 00000 ') x 5, 't SQLSTATE 00000 ' ],
	'one of many concurrent calls starts the launcher');
is(launchers(), 1, 'there is one');
sweeps('and it sweeps');
is($node->safe_psql('postgres', 'SELECT start_sweeper(), running FROM sweeper_status()'), 'f|t', 'there it is already');
is(announcement('second'), '', 'CREATE EXTENSION has nothing to say any more');
is(sqlstate_of($node, 'SELECT start_sweeper()', 'second'), '00000', 'it may be called in any database');
is(launchers(), 1, 'there still is one');

# --- it stays until the server is restarted

my $launcher = launcher_pid();
my $log_end = log_end($node);
is($node->safe_psql('postgres', "SELECT pg_terminate_backend($launcher, 60000)"), 't', 'the launcher is terminated');
is_deeply([ start_from_many(6) ], [ ('f SQLSTATE 00000 ') x 5, 't SQLSTATE 00000 ' ],
	'start_sweeper() need not wait until it comes back');
$node->wait_for_log(qr/vali_blob launcher is already running/, $log_end);
is(launchers(), 1, 'there still is one');

$launcher = launcher_pid();
$log_end = log_end($node);
kill 'KILL', $launcher;
$node->wait_for_log(qr/database system is ready to accept connections/, $log_end);
await($node, 'postgres', "pid <> $launcher FROM pg_stat_activity WHERE backend_type = 'vali_blob launcher'");
sweeps('it comes back after a crash of the server');

$node->adjust_conf('postgresql.conf', 'max_worker_processes', 0);
$node->restart;
is($node->safe_psql('postgres', 'SELECT running FROM sweeper_status()'), 'f', 'a restart ends it');
my ($rc, $stdout, $stderr) = $node->psql('postgres', '\set VERBOSITY verbose' . "\nSELECT start_sweeper()");
like($stderr, qr/ERROR:  53000: no free background worker slot.*\nHINT:  .*max_worker_processes/,
	'without a slot it cannot be started');

$node->stop;
done_testing();
