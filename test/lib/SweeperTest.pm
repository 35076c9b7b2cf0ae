# What the tests of the background sweeper share.
package SweeperTest;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use UploadTest;

our @EXPORT = qw(sweeper_node set_conf set_database add_stale statuses await await_sweep sweep_now
  await_no_worker pause_sweeps build_gate close_gate await_worker_at_gate log_end complaints_since);

# Start a new cluster that sweeps its databases every second.  A worker that waits at the
# gate does so because the test wants it: from version 19 on, the log would tell of that.
sub sweeper_node
{
	my ($name, %params) = @_;

	$params{conf} = join "\n", "shared_preload_libraries = 'vali_blob'",
	  "vali_blob.sweep_interval = '1s'", 'log_lock_waits = off', $params{conf} // ();
	my $node = upload_node($name, %params);
	$node->reload;    # so that the new extension is noticed at once
	return $node;
}

# Change settings of the running server.
sub set_conf
{
	my ($node, %settings) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET $_ = '$settings{$_}'") foreach sort keys %settings;
	$node->reload;
	return;
}

# Change settings of a database.
sub set_database
{
	my ($node, $dbname, %settings) = @_;

	$node->safe_psql('postgres', "ALTER DATABASE $dbname SET $_ = '$settings{$_}'")
	  foreach sort keys %settings;
	return;
}

# Add overdue sessions $prefix1, $prefix2, ..., the first one overdue longest.
sub add_stale
{
	my ($node, $dbname, $prefix, $count) = @_;

	$node->safe_psql(
		$dbname, qq{
		INSERT INTO upload_session (upload_id, path, ttl, provider_data, expires_at)
		SELECT '$prefix' || i, 'file', '1 hour', '{"part": 1}', now() - interval '1 day' + i * interval '1 ms'
		FROM generate_series(1, $count) i
	});
	return;
}

# Every session's stored status, as "id: status, ...".
sub statuses
{
	my ($node, $dbname) = @_;

	return $node->safe_psql($dbname,
		q{SELECT string_agg(upload_id || ': ' || status, ', ' ORDER BY id) FROM upload_session});
}

# Wait for a condition that the rest of the test depends on.
sub await
{
	my ($node, $dbname, $condition) = @_;

	$node->poll_query_until($dbname, "SELECT $condition")
	  or die "$dbname: waited in vain for $condition";
	return;
}

# Wait until a sweep has begun after now, and has done its first batch.
sub await_sweep
{
	my ($node, $dbname) = @_;
	my $now = $node->safe_psql($dbname, 'SELECT clock_timestamp()');

	await($node, $dbname, "last_sweep > '$now' FROM sweeper_status()");
	return;
}

# Have all databases visited at once, and wait as await_sweep does.  Only the
# second of two sweeps is sure to know what was set before.
sub sweep_now
{
	my ($node, $dbname, $count) = @_;

	foreach (1 .. $count // 1)
	{
		my ($now) = split /\|/, $node->safe_psql($dbname, 'SELECT clock_timestamp(), pg_reload_conf()');
		await($node, $dbname, "last_sweep > '$now' FROM sweeper_status()");
	}
	return;
}

sub await_no_worker
{
	my ($node) = @_;

	await($node, 'postgres', q{count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'vali_blob worker'});
	return;
}

# Keep a database from being swept until the session that is returned quits.
sub pause_sweeps
{
	my ($node, $dbname) = @_;
	my $session = $node->background_psql($dbname);

	$session->query_safe('BEGIN; LOCK TABLE upload_reclaim IN SHARE MODE');
	return $session;
}

# Build a gate that a sweep passes with each session that it expires, or with one.
sub build_gate
{
	my ($node, $dbname, $upload_id) = @_;

	$node->safe_psql(
		$dbname, qq{
		CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS \$\$
		BEGIN
			IF NEW.status = 'expired' AND NEW.upload_id = @{[ $upload_id ? "'$upload_id'" : 'NEW.upload_id' ]} THEN
				PERFORM pg_advisory_xact_lock_shared(1);
			END IF;
			RETURN NEW;
		END \$\$;
		CREATE TRIGGER gate BEFORE UPDATE ON upload_session FOR EACH ROW
			EXECUTE FUNCTION gate();
	});
	return;
}

# Close the gate.  Quitting the session that is returned opens it.
sub close_gate
{
	my ($node, $dbname) = @_;
	my $session = $node->background_psql($dbname);

	$session->query_safe('SELECT pg_advisory_lock(1)');
	return $session;
}

sub await_worker_at_gate
{
	my ($node, $dbname) = @_;

	await($node, 'postgres', qq{count(*) = 1 FROM pg_stat_activity
		WHERE backend_type = 'vali_blob worker' AND datname = '$dbname' AND wait_event = 'advisory'});
	return;
}

# Where the server's log ends now.
sub log_end
{
	my ($node) = @_;
	return -s $node->logfile;
}

# Everything in the log since then that speaks of us or of something wrong.
sub complaints_since
{
	my ($node, $log_end) = @_;

	return grep { m{(?<!/)vali_blob|WARNING|ERROR|FATAL|PANIC} && !/LOG:  parameter "/ }
	  split /\n/, slurp_file($node->logfile, $log_end);
}

1;
