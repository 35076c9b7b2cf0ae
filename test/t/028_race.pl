# A chunk and the sweep meet at one session: the chunk is confirmed and the
# session lives, or the session expires and the chunk is told so; never both.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SweeperTest;
use Test::More;
use UploadTest;

my $sessions = 3000;
my $clients = 3;
my $node = sweeper_node('main');

sub chunk
{
	my ($upload_id, $offset, $nowait) = @_;
	return "SELECT outcome, uploaded_bytes FROM try_advance_upload('$upload_id', $offset, 10, nowait => "
	  . ($nowait ? 'true' : 'false') . ')';
}

build_gate($node, 'postgres', 'gate');

# --- the chunk comes first

# It is confirmed before the deadline, and committed when a sweep that began
# after the deadline has already seen that the session is due.
foreach my $status ('pending', 'in_progress')
{
	my $pause = pause_sweeps($node, 'postgres');
	my $gate = close_gate($node, 'postgres');
	my $client = $node->background_psql('postgres');

	$node->safe_psql(
		'postgres', qq{
		INSERT INTO upload_session (upload_id, path, status, ttl, expires_at) VALUES
			('gate', 'file', '$status', '1 hour', now() - interval '1 day'),
			('late', 'file', '$status', '1 hour', now() + interval '2 s');
	});
	is($client->query_safe('BEGIN; ' . chunk('late', 0)), 'advanced|10', "$status: a chunk just before the deadline");
	await($node, 'postgres', q{expires_at < now() FROM upload_session WHERE upload_id = 'late'});
	$pause->quit;
	await_worker_at_gate($node, 'postgres');
	$client->query_safe('COMMIT');
	$gate->quit;
	sweep_now($node, 'postgres', 2);
	is(statuses($node, 'postgres'), 'gate: expired, late: in_progress', 'the session lives');
	is($client->query_safe(chunk('late', 10)), 'advanced|20', 'and goes on');
	$client->quit;
	$node->safe_psql('postgres', 'TRUNCATE upload_session CASCADE');
}

# --- the sweep comes first

my $pause = pause_sweeps($node, 'postgres');
my $gate = close_gate($node, 'postgres');
$node->safe_psql(
	'postgres', q{
	INSERT INTO upload_session (upload_id, path, ttl, provider_data, expires_at)
	SELECT id, 'file', '1 hour', '{"part": 1}', now() - interval '1 day' + i * interval '1 s'
	FROM unnest('{early,gate,next}'::text[]) WITH ORDINALITY u (id, i);
	SELECT start_upload('file', upload_id => 'other');
});
$pause->quit;
await_worker_at_gate($node, 'postgres');
is_deeply(
	[ map { $node->safe_psql('postgres', chunk($_, 0, 1)) } 'early', 'gate', 'next', 'other' ],
	[ 'locked|', 'locked|', 'expired|0', 'advanced|10' ],
	'a batch holds only what it has come to');
my $client = $node->background_psql('postgres');
$client->query_until(qr/sent\n/, "\\echo sent\n" . chunk('early', 0) . ";\n");
await($node, 'postgres', q{count(*) = 1 FROM pg_stat_activity WHERE query LIKE '%early%' AND wait_event_type = 'Lock'});
$gate->quit;
is($client->query_until(qr/\n/, ''), "expired|0\n", 'a chunk that waits for the sweep is told so');
$client->quit;
await($node, 'postgres', q{count(*) = 3 FROM upload_reclaim WHERE upload_id IN ('early', 'gate', 'next')});
is(statuses($node, 'postgres'), 'early: expired, gate: expired, next: expired, other: in_progress', 'and was not confirmed');

# --- either, many times

$node->safe_psql(
	'postgres', qq{
	DROP TRIGGER gate ON upload_session;
	TRUNCATE upload_session, upload_reclaim CASCADE;
	CREATE TABLE answer (upload_id text PRIMARY KEY, outcome text, uploaded_bytes bigint);

	-- Chunks for a client's share of the sessions, each about when its deadline passes, a few in a transaction.
	CREATE PROCEDURE client(number int) LANGUAGE plpgsql AS \$\$
	DECLARE
		s upload_session;
	BEGIN
		FOR s IN SELECT * FROM upload_session WHERE id % $clients = number ORDER BY id LOOP
			-- one that has expired before we begin is to be purged much later
			IF s.status = 'pending' THEN
				PERFORM pg_sleep(extract(epoch FROM s.expires_at - clock_timestamp()) + random() * 0.03 - 0.025);
			END IF;
			INSERT INTO answer SELECT s.upload_id, outcome, uploaded_bytes FROM try_advance_upload(s.upload_id, 0, 10);
			IF random() < 0.2 THEN
				COMMIT;
			END IF;
		END LOOP;
	END \$\$;
});
my $rounds = $node->background_psql('postgres');
my @clients = map { $node->background_psql('postgres') } 1 .. $clients;
$node->safe_psql(
	'postgres', qq{
	INSERT INTO upload_session (upload_id, path, ttl, provider_data, expires_at)
	SELECT 'u' || i, 'file', '1 hour', '{"part": 1}', now() + interval '1 s' + i * interval '1 ms'
	FROM generate_series(1, $sessions) i;
});
$rounds->query_until(qr/begin\n/, "\\echo begin\nSELECT pg_reload_conf() \\watch 0.02\n");
$clients[ $_ - 1 ]->query_until(qr/begin\n/, "\\echo begin\nCALL client($_ % $clients);\n") foreach 1 .. $clients;
$_->query_safe('SELECT 1') foreach @clients;
$_->quit foreach @clients;
$rounds->{run}->kill_kill;

await($node, 'postgres', q{count(*) = 0 FROM upload_session WHERE status = 'pending'});
my ($confirmed, $expired) = split /\|/, $node->safe_psql(
	'postgres', q{
	SELECT count(*) FILTER (WHERE (outcome, a.uploaded_bytes, s.uploaded_bytes, status, q.n) = ('advanced', 10, 10, 'in_progress', 0)),
		count(*) FILTER (WHERE (outcome, a.uploaded_bytes, s.uploaded_bytes, status, q.n) = ('expired', 0, 0, 'expired', 1))
	FROM answer a JOIN upload_session s USING (upload_id),
		LATERAL (SELECT count(*) AS n FROM upload_reclaim r WHERE r.upload_id = a.upload_id) q
});
is($confirmed + $expired, $sessions, "all of $sessions sessions: either confirmed or expired");
cmp_ok($confirmed, '>', 0, 'chunks have won') and note "$confirmed confirmed, $expired expired";
cmp_ok($expired, '>', 0, 'the sweep has won');

$node->stop;
done_testing();
