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
pass('or when reclaim_retention says so');

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
	TRUNCATE upload_session, upload_reclaim;
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
	CREATE TABLE seen (upload_id text, txid bigint);
	CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO public.seen VALUES (OLD.upload_id, txid_current());
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
		SELECT string_agg(upload_id, ' ' ORDER BY substr(upload_id, 2)::int) FROM seen GROUP BY txid ORDER BY txid;
	}),
	join("\n", ('c1 c2 c3 c4 c5 c6 c7 c8 c9 c10', 'c11 c12 c13 c14 c15 c16 c17 c18 c19 c20', 'c21 c22 c23 c24 c25') x 2),
	'a transaction for every 10 rows, longest overdue first; purged in a later sweep');
$node->safe_psql('postgres', 'ALTER DATABASE postgres RESET ALL; DROP TRIGGER see ON upload_session');

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
$node->safe_psql('postgres', 'ALTER DATABASE postgres RESET ALL; TRUNCATE upload_session, upload_reclaim');

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
	standard_conforming_strings => 'off',
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

is_deeply([ complaints_since($node, 0) ], [], 'the log is quiet about all this');

$node->stop;
done_testing();
