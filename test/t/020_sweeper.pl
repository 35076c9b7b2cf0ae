# The everyday work of the background sweeper in one database: what it expires,
# purges and leaves alone, by which settings, in batches, what it tells about
# itself, and that it disturbs nobody and says nothing when there is nothing to
# say.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SweeperTest;
use Test::More;
use UploadTest;

my $node = sweeper_node('main', conf => "autovacuum_naptime = '1s'");

# --- processes

is( $node->safe_psql(
		'postgres', q{
		SELECT count(*), min(datname) FROM pg_stat_activity WHERE backend_type = 'vali_blob launcher';
		SELECT running, total_expired, total_purged, last_error IS NULL, last_error_at IS NULL FROM sweeper_status();
	}),
	"1|\nt|0|0|t|t",
	'the launcher runs and is connected to no database');

# --- expiry

$node->safe_psql(
	'postgres', q{
	SELECT start_upload('file', upload_id => 'fresh', provider_data => '{"part": 1}');
	SELECT start_upload('file', upload_id => 'endless', ttl => '0');
	SELECT start_upload('file', upload_id => 'begun', ttl => '1 s', owner => 'ann', bucket => 'b',
		provider_data => '{"part": 2}');
	SELECT advance_upload('begun', 0, 10);
	SELECT start_upload('file', upload_id => 'empty', ttl => '1 s');
});
await($node, 'postgres', q{count(*) = 2 FROM upload_session WHERE status = 'expired'});
is(statuses($node, 'postgres'),
	'fresh: pending, endless: pending, begun: expired, empty: expired',
	'stale sessions expire');
is( $node->safe_psql(
		'postgres', q{SELECT upload_id, owner, bucket, path, provider_data, reason FROM upload_reclaim}),
	'begun|ann|b|file|{"part": 2}|expired',
	'what they left in storage is queued');
is( $node->safe_psql(
		'postgres', q{
		SELECT min(expires_at - updated_at) >= '1 day' FROM upload_session WHERE status = 'expired';
		SELECT last_sweep BETWEEN pg_postmaster_start_time() AND now(), last_duration BETWEEN '0' AND now() - last_sweep,
			total_expired, total_purged, last_error IS NULL
		FROM sweeper_status();
	}),
	"t\nt|t|2|0|t",
	'the figures');

await_sweep($node, 'postgres');
is($node->safe_psql('postgres', 'SELECT last_expired, last_purged, total_expired FROM sweeper_status()'),
	'0|0|2', 'an idle sweep');

is( $node->safe_psql(
		'postgres', q{
		SELECT status, sessions, bytes, bytes_in_flight, oldest_deadline =
			(SELECT expires_at FROM upload_session WHERE upload_id = 'fresh'), reclaim_backlog
		FROM upload_stats;
	}),
	"pending|2|0|0|t|0\nin_progress|0|0|0||0\ncomplete|0|0|0||0\naborted|0|0|0||0\nexpired|2|10|0||1",
	'upload_stats');

# --- retention

sub ended
{
	my (@ids) = @_;
	return join "\n", map { ("SELECT start_upload('file', 0, upload_id => '$_');", "SELECT complete_upload('$_');") } @ids;
}

# Any user may set a retention; it holds for what that user ends.  Expired
# sessions take the worker's, so the database's.
set_database($node, 'postgres', 'vali_blob.retention' => '1s');
$node->safe_psql(
	'postgres', join "\n",
	"SET vali_blob.retention = '0';", ended('now'),
	"SET vali_blob.retention = '-1';", ended('never'),
	"SET vali_blob.retention = '1h';", ended('later'),
	'RESET vali_blob.retention;', ended('soon'),
	q{SELECT start_upload('file', 1, upload_id => 'lapsed', ttl => '1 s');});
await($node, 'postgres', q{total_expired = 3 AND total_purged = 3 FROM sweeper_status()});
is(statuses($node, 'postgres'),
	'fresh: pending, endless: pending, begun: expired, empty: expired, never: complete, later: complete',
	'ended sessions go when their retention has passed');

$node->safe_psql(
	'postgres', q{
	UPDATE upload_reclaim SET enqueued_at = now() - interval '29 days';
	SELECT start_upload('file', upload_id => 'gone', provider_data => '{"part": 3}');
	SELECT abort_upload('gone');
	UPDATE upload_reclaim SET enqueued_at = now() - interval '31 days' WHERE upload_id = 'gone';
});
await($node, 'postgres', q{count(*) = 1 FROM upload_reclaim});
is($node->safe_psql('postgres', 'SELECT upload_id FROM upload_reclaim'),
	'begun', 'a reclaim row goes after 30 days');
set_database($node, 'postgres', 'vali_blob.reclaim_retention' => '28d');
await($node, 'postgres', q{count(*) = 0 FROM upload_reclaim});
await($node, 'postgres', q{total_reclaims_dropped = 2 FROM sweeper_status()});
pass('or when reclaim_retention says so, and is counted');

set_database($node, 'postgres', 'vali_blob.reclaim_retention' => '-1');
sweep_now($node, 'postgres', 2);
$node->safe_psql('postgres', q{
	SELECT start_upload('file', upload_id => 'kept', provider_data => '{"part": 3}');
	SELECT abort_upload('kept');
	UPDATE upload_reclaim SET enqueued_at = '-infinity';
});
sweep_now($node, 'postgres', 2);
is($node->safe_psql('postgres', 'SELECT upload_id FROM upload_reclaim'),
	'kept', 'or never');
$node->safe_psql('postgres', q{
	ALTER DATABASE postgres RESET ALL;
	TRUNCATE upload_session, upload_reclaim CASCADE;
});


# --- settings

# A second database tells when the launcher must have been everywhere.
$node->safe_psql('postgres', 'CREATE DATABASE clock');
$node->safe_psql('clock', 'CREATE EXTENSION vali_blob');

set_database($node, 'postgres', 'vali_blob.sweep' => 'off');
sweep_now($node, 'clock', 2);
add_stale($node, 'postgres', 'a', 1);
sweep_now($node, 'clock', 2);
is(statuses($node, 'postgres'), 'a1: pending', 'vali_blob.sweep of a database');
set_conf($node, 'vali_blob.sweep' => 'off');
$node->safe_psql('postgres', 'ALTER DATABASE postgres SET vali_blob.sweep = on');
await($node, 'postgres', q{status = 'expired' FROM upload_session});
add_stale($node, 'clock', 'a', 1);
sweep_now($node, 'postgres', 2);
is(statuses($node, 'clock'), 'a1: pending', 'vali_blob.sweep of the server');
set_conf($node, 'vali_blob.sweep' => 'on');
await($node, 'clock', q{status = 'expired' FROM upload_session});

set_database($node, 'clock', 'vali_blob.sweep_interval' => '1s');
sweep_now($node, 'clock', 2);
set_conf($node, 'vali_blob.sweep_interval' => '1h');
sweep_now($node, 'clock', 2);
my $last_sweep = $node->safe_psql('postgres', 'SELECT last_sweep FROM sweeper_status()');
add_stale($node, 'postgres', 'b', 1);
await_sweep($node, 'clock') foreach 1 .. 2;
is($node->safe_psql('postgres', 'SELECT last_sweep FROM sweeper_status()'),
	$last_sweep, 'vali_blob.sweep_interval of a database, and of the server');

# --- between two sweeps

set_database($node, 'clock', 'vali_blob.sweep_interval' => '1h');
$node->reload;
await($node, 'postgres', q{count(*) = 0 FROM upload_session WHERE status = 'pending'});
pass('a reload begins a new round');
await_no_worker($node);
is( $node->safe_psql(
		'postgres', q{
		SELECT backend_type, state, wait_event_type, xact_start, backend_xid, backend_xmin
		FROM pg_stat_activity WHERE backend_type LIKE 'vali%';
		SELECT count(*) FROM pg_locks WHERE pid IN
			(SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'vali%');
	}),
	"vali_blob launcher|idle|Extension|||\n0",
	'between two sweeps there is only the launcher, without a transaction or a lock');
$node->safe_psql('postgres', 'ALTER DATABASE clock RESET ALL; ALTER DATABASE postgres RESET ALL');
set_conf($node, 'vali_blob.sweep_interval' => '1s');

# --- batches

$node->safe_psql(
	'postgres', q{
	CREATE TABLE seen (n serial, op text, upload_id text, txid bigint);
	CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO public.seen (op, upload_id, txid) VALUES (TG_OP, OLD.upload_id, txid_current());
		RETURN OLD;
	END $$;
	CREATE TRIGGER see AFTER UPDATE OR DELETE ON upload_session FOR EACH ROW EXECUTE FUNCTION see();
});
set_database($node, 'postgres',
	'vali_blob.sweep_batch_size' => '10', 'vali_blob.retention' => '0');
sweep_now($node, 'postgres', 2);
add_stale($node, 'postgres', 'c', 25);
await($node, 'postgres', q{count(*) = 50 FROM seen});
is( $node->safe_psql(
		'postgres', q{
		SELECT string_agg(upload_id, ' ' ORDER BY n) FROM seen WHERE op = 'UPDATE' GROUP BY txid ORDER BY txid;
		SELECT max(count) FROM (SELECT count(*) FROM seen GROUP BY txid) AS batch;
		SELECT string_agg(upload_id, ' ' ORDER BY n) FROM seen WHERE op = 'DELETE';
	}),
	join("\n",
		join(' ', map { "c$_" } 1 .. 10), join(' ', map { "c$_" } 11 .. 20), join(' ', map { "c$_" } 21 .. 25),
		10, join(' ', map { "c$_" } 1 .. 25)),
	'a transaction for every 10 rows, longest overdue first');
$node->safe_psql('postgres', 'ALTER DATABASE postgres RESET ALL; DROP TRIGGER see ON upload_session');

# --- expiry and a backlog of purges

# While the worker is purging, a session runs out of time: it is expired by the
# next batch, and not after all the purges.
sub purgeable
{
	my ($dbname, $count) = @_;

	$node->safe_psql(
		$dbname, qq{
		INSERT INTO upload_session (upload_id, path, status, expires_at)
		SELECT 'p' || i, 'file', 'aborted', now() - interval '1 day' + i * interval '1 ms'
		FROM generate_series(1, $count) i
	});
	return;
}

# Let the worker stop at the deletion of one session.
sub build_purge_gate
{
	my ($dbname, $upload_id) = @_;

	$node->safe_psql(
		$dbname, qq{
		CREATE TABLE IF NOT EXISTS seen (n serial, op text, upload_id text, txid bigint);
		ALTER TABLE seen ADD at timestamptz DEFAULT clock_timestamp();
		TRUNCATE seen;
		CREATE FUNCTION purge_gate() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS \$\$
		BEGIN
			INSERT INTO public.seen (op, upload_id, txid) VALUES (TG_OP, OLD.upload_id, txid_current());
			IF TG_OP = 'DELETE' AND OLD.upload_id = '$upload_id' THEN
				PERFORM pg_advisory_xact_lock_shared(1);
			END IF;
			RETURN NULL;
		END \$\$;
		CREATE TRIGGER purge_gate AFTER UPDATE OR DELETE ON upload_session FOR EACH ROW
			EXECUTE FUNCTION purge_gate();
	});
	return;
}

set_database($node, 'postgres', 'vali_blob.sweep_batch_size' => '2');
sweep_now($node, 'postgres', 2);
build_purge_gate('postgres', 'p3');
my $gate = close_gate($node, 'postgres');
purgeable('postgres', 10);
await_worker_at_gate($node, 'postgres');
add_stale($node, 'postgres', 'late', 1);
$gate->quit;
await($node, 'postgres', q{count(*) = 11 FROM seen});
# at the gate the batch's time may have run out
like( $node->safe_psql('postgres', q{SELECT string_agg(upload_id, ' ' ORDER BY n) FROM seen}),
	qr/^p1 p2 p3( p4)? late1( p4)? p5 p6 p7 p8 p9 p10$/,
	'expiry does not wait for a backlog of purges');
$node->safe_psql('postgres', 'ALTER DATABASE postgres RESET ALL; DROP TRIGGER purge_gate ON upload_session; TRUNCATE upload_session CASCADE');

# Nor for one of another database: the worker leaves it when this one is due.
set_database($node, 'clock', 'vali_blob.sweep_batch_size' => '2');
sweep_now($node, 'clock', 2);
build_purge_gate('clock', 'p3');
$gate = close_gate($node, 'clock');
purgeable('clock', 500);
await_worker_at_gate($node, 'clock');
add_stale($node, 'postgres', 'other', 1);
await($node, 'postgres', q{last_sweep + interval '2 s' < now() FROM sweeper_status()});
$gate->quit;
await($node, 'postgres', q{status = 'expired' FROM upload_session});
await($node, 'clock', q{count(*) = 500 FROM seen});
my $expired_at = $node->safe_psql('postgres', 'SELECT updated_at FROM upload_session');
like( $node->safe_psql('clock', "SELECT string_agg(upload_id, ' ' ORDER BY n) FROM seen WHERE at < '$expired_at'"),
	qr/^p1 p2 p3( p4)?$/, 'nor for one in another database');
$node->safe_psql('clock', 'ALTER DATABASE clock RESET ALL; DROP TRIGGER purge_gate ON upload_session');
$node->safe_psql('postgres', 'TRUNCATE upload_session, upload_reclaim CASCADE');

# --- statistics

$node->safe_psql(
	'postgres', q{
	ALTER TABLE upload_session SET (autovacuum_vacuum_threshold = 50, autovacuum_vacuum_scale_factor = 0,
		autovacuum_vacuum_insert_threshold = -1);
	ALTER DATABASE postgres SET vali_blob.retention = '0';
	SELECT pg_stat_reset_single_table_counters('upload_session'::regclass);
});
sweep_now($node, 'postgres', 2);
add_stale($node, 'postgres', 'd', 100);
await($node, 'postgres', q{n_tup_upd = 100 AND n_tup_del = 100 AND autovacuum_count > 0
	FROM pg_stat_user_tables WHERE relname = 'upload_session'});
pass('the sweep counts in the statistics, and autovacuum sees it');
$node->safe_psql('postgres', 'ALTER DATABASE postgres RESET ALL; TRUNCATE upload_session, upload_reclaim CASCADE');

# --- locks

my $pause = pause_sweeps($node, 'postgres');
add_stale($node, 'postgres', 'e', 3);
my $holder = $node->background_psql('postgres');
$holder->query_safe(q{BEGIN; SELECT 1 FROM upload_session WHERE upload_id = 'e2' FOR UPDATE});
is(statuses($node, 'postgres'), 'e1: pending, e2: pending, e3: pending', 'a locked table is not swept');
$pause->quit;
sweep_now($node, 'postgres', 2);
is(statuses($node, 'postgres'), 'e1: expired, e2: pending, e3: expired', 'a locked session is skipped');
$holder->quit;
await($node, 'postgres', q{status = 'expired' FROM upload_session WHERE upload_id = 'e2'});
pass('and taken later');

# --- settings of the database that are not meant for the sweep

$node->safe_psql(
	'postgres', q{
	CREATE ROLE nobody;
	CREATE ROLE vanished;
	CREATE DATABASE odd;
});
$node->safe_psql(
	'odd', q{
	CREATE EXTENSION vali_blob;
	CREATE TABLE seen (upload_id text, isolation text);
	CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO public.seen VALUES (OLD.upload_id, current_setting('transaction_isolation'));
		RETURN NULL;
	END $$;
	CREATE TRIGGER see AFTER UPDATE ON upload_session FOR EACH ROW EXECUTE FUNCTION see();
});
my %odd = (
	default_transaction_read_only => 'on',
	default_transaction_isolation => 'serializable',
	default_transaction_deferrable => 'on',
	session_replication_role => 'replica',
	search_path => 'nowhere',
	role => 'nobody',
	row_security => 'off',
	statement_timeout => '1ms',
	lock_timeout => '1ms',
	idle_in_transaction_session_timeout => '1ms',
	enable_indexscan => 'off',
	$node->pg_version < '19devel' ? (standard_conforming_strings => 'off') : (),
	quote_all_identifiers => 'on',
	datestyle => 'German',
	intervalstyle => 'sql_standard',
	timezone => 'Asia/Kathmandu');
set_database($node, 'odd', %odd);
{
	# the test itself is a client like any other
	local $ENV{PGOPTIONS} = join ' ', map { "-c $_" }
	  'default_transaction_read_only=off', 'search_path=public', 'role=none', 'statement_timeout=0';
	add_stale($node, 'odd', 'f', 2);
	await($node, 'odd', q{count(*) = 2 FROM upload_session WHERE status = 'expired'});
	is($node->safe_psql('odd', 'SELECT * FROM seen'), "f1|read committed\nf2|read committed",
		'settings that are meant for clients do not hold the sweep up');
}

# What is dropped from the reclaim queue is the one thing to be told.  Autovacuum,
# too, has the role that is set for a database.
my @complaints = grep { !/skipping "\w+" --- only superuser/ } complaints_since($node, 0);
is_deeply([ grep { !/dropped|reclaim_retention/ } @complaints ], [], 'the log is quiet about all this');
is(scalar(grep { /LOG:  vali_blob dropped 1 expired row of the reclaim queue in database "postgres"$/ } @complaints),
	2, 'but tells what is dropped from the reclaim queue');

$node->stop;
done_testing();
