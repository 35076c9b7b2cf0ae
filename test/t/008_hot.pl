# Chunk writes stay HOT: they touch no index, since the deadline moves lazily.
# Lazily, yet never too early: the deadline is always at least ttl after the
# last chunk, and at most ttl * 17/16.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use UploadTest;

my ($sessions, $rounds) = (2000, 20);
my $node = upload_node('main', conf => 'autovacuum = off');

# Wait for the statistics of the table to have counted so many updates.
sub wait_for_updates
{
	my ($count) = @_;
	$node->poll_query_until('postgres',
		"SELECT n_tup_upd >= $count FROM pg_stat_user_tables WHERE relname = 'upload_session'")
	  or die 'no statistics';
	return;
}

$node->safe_psql(
	'postgres', qq{
	SELECT count(start_upload('dir/file' || i, owner => 'owner' || i % 10, upload_id => 'upload ' || i))
	FROM generate_series(1, $sessions) i;
	SELECT count(advance_upload(upload_id, 0, 1000)) FROM upload_session;
});
wait_for_updates($sessions);
$node->safe_psql('postgres', q{SELECT pg_stat_reset()});

my $deadlines = 'SELECT md5(string_agg(expires_at::text, $$,$$ ORDER BY id)) FROM upload_session';
my $before = $node->safe_psql('postgres', $deadlines);

send_chunks($node, 'upload ', $sessions, $rounds, 1000, 'SET synchronous_commit = off');
wait_for_updates($sessions * $rounds);

my ($updates, $hot, $index_scans) = split /\|/, $node->safe_psql('postgres',
	q{SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'upload_session'});
is($updates, $sessions * $rounds, 'one update for each chunk');
cmp_ok($hot / $updates, '>', 0.99, 'nearly all of them HOT');
is($node->safe_psql('postgres', $deadlines), $before, 'no deadline has moved');

# The whole life of an upload is one INSERT and HOT updates, whatever ends it.
my $lives = 300;
$node->safe_psql('postgres', 'SELECT pg_stat_reset()');
$node->safe_psql(
	'postgres', qq{
	SET synchronous_commit = off;
	DO \$\$
	BEGIN
		FOR i IN 1 .. $lives LOOP
			PERFORM start_upload('dir/life' || i, 300, owner => 'owner', provider_data => '{"multipart": "m"}', upload_id => 'life ' || i);
			COMMIT;
			FOR chunk IN 0 .. 2 LOOP
				PERFORM advance_upload('life ' || i, chunk * 100, 100, provider_data => jsonb_build_object(chunk, 'etag'),
					final => i % 3 = 1 AND chunk = 2);
				COMMIT;
			END LOOP;
			IF i % 3 = 2 THEN
				PERFORM abort_upload('life ' || i, 'reason');
			ELSE
				PERFORM complete_upload('life ' || i, '{"etag": "e"}');
			END IF;
			COMMIT;
		END LOOP;
	END \$\$;
});
wait_for_updates($lives * 4);
is( $node->safe_psql(
		'postgres',
		q{SELECT n_tup_ins, n_tup_upd, n_tup_upd - n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'upload_session'}),
	join('|', $lives, $lives * 4, 0),
	'whole lives are HOT');

# Now the clock is put forward: for each session the last write, and its
# deadline with it, is set back by a part of its ttl of 16 hours.
sub chunk_after_idle
{
	my ($minutes) = @_;

	$node->safe_psql(
		'postgres', qq{
		SELECT delete_upload('clock');
		SELECT start_upload('file', ttl => '16 hours', upload_id => 'clock');
		UPDATE upload_session SET updated_at = updated_at - interval '$minutes minutes',
			expires_at = expires_at - interval '$minutes minutes' WHERE upload_id = 'clock';
	});
	return $node->safe_psql(
		'postgres', q{
		CREATE TEMP TABLE was AS SELECT expires_at FROM get_upload('clock');
		SELECT outcome FROM try_advance_upload('clock', 0, 1);
		SELECT u.expires_at <> was.expires_at,
			u.expires_at >= u.updated_at + interval '16 hours',
			u.expires_at <= u.updated_at + interval '17 hours'
		FROM upload_session u, was WHERE upload_id = 'clock';
	});
}

is(chunk_after_idle(0), "advanced\nf|t|t", 'at once: unmoved');
is(chunk_after_idle(59), "advanced\nf|t|t", 'idle for just less than ttl/16: unmoved');
is(chunk_after_idle(61), "advanced\nt|t|t", 'idle for more than ttl/16: moved');
is(chunk_after_idle(16 * 60 - 1), "advanced\nt|t|t", 'idle for nearly ttl: still alive, moved');
is(chunk_after_idle(17 * 60 - 1), "advanced\nt|t|t", 'not yet at the deadline: alive');
is(chunk_after_idle(17 * 60 + 1), "expired\nf|t|t", 'past it: expired');

# Every kind of write keeps the same bounds.
foreach my $write (
	q{declare_upload_size('clock', 10)},
	q{merge_upload_data('clock', '{"a": 1}')},
	q{try_advance_upload('clock', 0, 0)},
	q{advance_uploads('{clock}', '{0}', '{5}')})
{
	is( $node->safe_psql(
			'postgres', qq{
			SELECT delete_upload('clock');
			SELECT upload_id FROM start_upload('file', ttl => '16 hours', upload_id => 'clock');
			UPDATE upload_session SET expires_at = now() + interval '1 hour' WHERE upload_id = 'clock';
			SELECT count(*) FROM $write;
			SELECT expires_at >= updated_at + interval '16 hours',
				expires_at <= updated_at + interval '17 hours'
			FROM upload_session WHERE upload_id = 'clock';
		}),
		"t\nclock\n1\nt|t",
		"deadline after $write");
}

# What changes nothing does not slide it, either.
is( $node->safe_psql(
		'postgres', q{
		SELECT uploaded_bytes FROM advance_upload('clock', 5, 5);
		UPDATE upload_session SET expires_at = now() + interval '1 hour' WHERE upload_id = 'clock';
		SELECT outcome FROM try_advance_upload('clock', 0, 5);
		SELECT outcome FROM try_advance_upload('clock', 7, 5);
		SELECT expires_at < now() + interval '2 hours' FROM upload_session WHERE upload_id = 'clock';
	}),
	"10\nreplayed\nconflict\nt",
	'a replay and a refusal leave the deadline alone');

# Chunks of one session in one call make one new version of its row.
is( $node->safe_psql(
		'postgres', q{
		SELECT upload_id FROM start_upload('file', 100, upload_id => 'many');
		BEGIN;
		SELECT string_agg(outcome || ' ' || uploaded_bytes, ', ')
		FROM advance_uploads('{many,many,nobody,many,many}', '{0,10,0,5,30}', '{10,20,1,50,70}');
		SELECT n_tup_upd FROM pg_stat_xact_user_tables WHERE relname = 'upload_session';
		COMMIT;
	}),
	"many\nadvanced 10, advanced 30, conflict 30, advanced 100\n1",
	'many chunks, one update');

# Sessions without a ttl have no deadline at all.
is( $node->safe_psql(
		'postgres', q{
		SELECT ttl IS NULL, expires_at IS NULL FROM start_upload('file', ttl => '0', upload_id => 'eternal');
		SELECT outcome, expires_at IS NULL FROM try_advance_upload('eternal', 0, 5);
		SET vali_blob.session_ttl = -1;
		SELECT ttl IS NULL, expires_at IS NULL FROM start_upload('file');
	}),
	"t|t\nadvanced|t\nt|t",
	'no ttl, no deadline');

done_testing();
