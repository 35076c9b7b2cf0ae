# The primary is lost, many times over, while 16 uploaders are at work.
#
# With a synchronous standby, 50 times: the primary is killed with SIGKILL, the standby is
# promoted, and the one that was killed becomes its standby.  No confirmed byte is lost, no
# chunk counts twice, and the promoted server goes on sweeping by itself.  With an
# asynchronous standby, what is lost is measured, and clients get over it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use FailoverTest;
use LeaseTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use UploadTest;

plan skip_all => 'python3-psycopg2 is not there' if !find_psycopg2();

my $failovers = 50;
my $seed = $ENV{RANDOM_SEED} ||= time;    # the uploaders, too

note "RANDOM_SEED=$seed";
srand $seed;

my ($primary, $standby) = server_pair(
	conf => "shared_preload_libraries = 'vali_blob'\nvali_blob.sweep_interval = '1s'");
my $connstr = pair_connstr($primary, $standby);

# What the server has of each upload: bytes, how it has ended if it has, epoch.
sub stored_uploads
{
	my ($node) = @_;

	return map { my ($id, @row) = split /\|/; ($id => \@row) } split /\n/, $node->safe_psql('postgres', q{
		SELECT upload_id, uploaded_bytes, CASE WHEN status IN ('complete', 'aborted', 'expired') THEN status::text ELSE '' END, lease_epoch
		FROM upload_session});
}

# --- a synchronous standby

# An uploader may choose how far the standby must be; every other one has leases.
my @levels = ('on', 'remote_write', 'remote_apply');
start_uploaders(map { [ "u$_", "$connstr options='-c synchronous_commit=$levels[$_ % 3]'", 2000, $_ % 2 ? 'lease' : () ] } 1 .. 16);
await_answers(50);
foreach my $failover (1 .. $failovers)
{
	my $with_backends = rand() < 0.5;
	my $alone = rand() < 0.5;
	my $way = $failover % 5 ? 'pg_rewind' : 'pg_basebackup';

	await_answers(10 + int rand 40);
	$primary->safe_psql('postgres', qq{
		INSERT INTO upload_session (upload_id, path, ttl, expires_at) VALUES ('stale $failover', 'file', '1 hour', now())});
	if ($failover % 3 == 0)
	{
		# chunks that the standby has, but whose answers the primary cannot give any more
		$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
		await_sql($primary, q{count(*) > 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'});
	}
	fail_over($primary, $standby, $with_backends);
	my %confirmed = confirmed_uploads();
	my %stored = stored_uploads($standby);
	my @lost = grep {
		my ($bytes, $ended, $epoch) = @{ $confirmed{$_} };
		my $there = $stored{$_} // [ -1, '', 0 ];
		$there->[0] < $bytes || $ended && $there->[1] ne $ended || $there->[2] < $epoch
	} sort keys %confirmed;
	is("@lost", '', "failover $failover: all that was confirmed is there") or diag "RANDOM_SEED=$seed";

	# no call but those of the uploaders; and no standby, so these hang
	await_sql($standby, qq{status = 'expired' AND (SELECT last_sweep IS NOT NULL FROM sweeper_status())
		FROM upload_session WHERE upload_id = 'stale $failover'});

	# whoever fears for the uploads more than for the bytes lets them go on without a standby
	if ($alone)
	{
		$standby->safe_psql('postgres', q{ALTER SYSTEM SET synchronous_standby_names = ''});
		$standby->reload;
	}
	rejoin($primary, $standby, $way);
	become_synchronous($standby);
	($primary, $standby) = ($standby, $primary);
}
is(finish_uploaders(), 16, 'all uploaders have gone on to the end');

my $count = hear_uploads();
is_deeply($count->{shown} // [], [], 'no answer has been wrong') or diag "RANDOM_SEED=$seed";
note join ', ', map { "$_: $count->{$_}" } grep { !ref $count->{$_} } sort keys %$count;
cmp_ok($count->{unanswered}, '>', 0, 'calls had no answer');
cmp_ok(($count->{replayed} // 0) + ($count->{found} // 0), '>', 0, '... some of which had been committed');
is($count->{whole}, $count->{complete}, "$count->{complete} files are what was sent");
await_sql($primary, q{count(*) = 0 FROM upload_session WHERE status IN ('pending', 'in_progress')});
is($primary->safe_psql('postgres', q{
		SELECT count(*) FROM (
			SELECT upload_id, chunk_offset, lag(chunk_offset + chunk_length, 1, 0::bigint) OVER (PARTITION BY upload_id ORDER BY chunk_offset) AS begin
			FROM upload_part) AS part
		WHERE chunk_offset <> begin;
		SELECT count(*) FROM upload_session AS s
		WHERE uploaded_bytes <> (SELECT coalesce(sum(chunk_length), 0) FROM upload_part AS p WHERE p.upload_id = s.upload_id);
		SELECT count(*) FROM upload_session AS s
		WHERE (SELECT count(*) FROM upload_reclaim AS r WHERE r.upload_id = s.upload_id)
			<> (status <> 'complete' AND uploaded_bytes > 0)::int}),
	"0\n0\n0", 'parts have no gap and no overlap, and what has ended without a file is in the queue once');

# --- what waits for a synchronous standby, and what does not

# The standby applies nothing: only remote_apply waits for that.
$primary->safe_psql('postgres', q{SELECT start_upload('file', 100, upload_id => 'apply')});
$primary->wait_for_catchup($standby);
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
is($primary->safe_psql('postgres', q{SELECT outcome FROM try_advance_upload('apply', 0, 10)}), 'advanced', 'synchronous_commit = on: a chunk is confirmed');
is($standby->safe_psql('postgres', q{SELECT uploaded_bytes FROM get_upload('apply')}), '0', '... before readers on the standby see it');
my $session = $primary->background_psql('postgres');
$session->query_safe('SET synchronous_commit = remote_apply');
$session->query_until(qr/sent\n/, "\\echo sent\nSELECT outcome FROM try_advance_upload('apply', 10, 10);\n");
await_sql($primary, q{count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'});
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
like($session->query_until(qr/advanced\n/, ''), qr/advanced/, 'remote_apply: it is confirmed when it is applied');
is($standby->safe_psql('postgres', q{SELECT uploaded_bytes FROM get_upload('apply')}), '20', '... so that they do see it');

# The standby receives nothing.  A wait that is cancelled ends with the answer and a warning.
$primary->safe_psql('postgres', q{SELECT start_upload('file', 100, upload_id => 'wait')});
cut_off($primary, $standby);
foreach (
	[ q{SELECT outcome FROM try_advance_upload('wait', 0, 10)}, 'advanced', 'a chunk' ],
	[ q{SELECT outcome FROM try_advance_upload('wait', 0, 10)}, 'replayed', 'a chunk that changes nothing' ],
	[ q{SELECT outcome FROM try_advance_upload('wait', 50, 10)}, 'conflict', 'a chunk elsewhere' ],
	[ q{SELECT outcome FROM try_advance_upload('wait', 10, 0)}, 'advanced', 'an empty chunk' ],
	[ q{SELECT held FROM acquire_upload_lease('wait', 'server 1')}, 't', 'a lease' ],
	[ q{SELECT held FROM acquire_upload_lease('wait', 'server 2')}, 'f', 'a lease that is not given' ],
	[ q{SELECT status FROM abort_upload('wait')}, 'aborted', 'an end' ],
	[ q{SELECT status FROM abort_upload('wait')}, 'aborted', 'an end again' ],
	[ q{SELECT count(*) FROM claim_reclaims(1)}, '1', 'a claim' ])
{
	my ($call, $answer, $name) = @$_;
	my $waiting = $primary->background_psql('postgres', on_error_stop => 0);

	$waiting->query_until(qr/sent\n/, "\\echo sent\n$call \\g (format=unaligned tuples_only=on)\n");
	await_sql($primary, q{count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'});
	pass("$name waits for the standby");
	$primary->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'});
	like($waiting->query_until(qr/\n/, ''), qr/^$answer$/m, '... and is answered when the wait is cancelled');
	like($waiting->{stderr}, qr/WARNING:  canceling wait for synchronous replication/, '... with a warning');
	$waiting->quit;
}

$session->query_safe(q{SET statement_timeout = '2 s'});
$session->query_until(qr/sent\n/, "\\echo sent\nSELECT outcome FROM try_advance_upload('apply', 20, 10);\n");
await_sql($primary, q{wait_event = 'SyncRep' AND clock_timestamp() > query_start + interval '3 s' FROM pg_stat_activity WHERE query LIKE '%''apply'', 20%' AND pid <> pg_backend_pid()});
pass('statement_timeout does not end the wait');
$primary->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'});
$session->quit;
is($primary->safe_psql('postgres', q{SELECT uploaded_bytes FROM get_upload('wait')}), '10', 'a reader shows what only the primary has');
fail_over($primary, $standby, 1);
is($standby->safe_psql('postgres', q{SELECT status, uploaded_bytes FROM get_upload('wait')}), 'pending|0', '... and is lost with it');
rejoin($primary, $standby, 'pg_rewind');
become_synchronous($standby);
($primary, $standby) = ($standby, $primary);

# --- an asynchronous standby

# What it does not receive is certain to be lost.  Some clients have the bytes no more.
foreach my $node ($primary, $standby)
{
	$node->append_conf('postgresql.auto.conf', q{synchronous_standby_names = ''});
	$node->reload;
}
start_uploaders(map { [ "v$_", $connstr, 8000, $_ <= 6 ? 'forget' : () ] } 1 .. 16);
await_answers(50);
$primary->safe_psql('postgres', q{
	SELECT start_upload('file', 20, upload_id => id) FROM unnest('{done,freed,leased}'::text[]) AS id;
	SELECT advance_upload(id, 0, 10, etag => id) FROM unnest('{done,freed,leased}'::text[]) AS id;
	SELECT start_upload('file', upload_id => 'old ' || n, provider_data => '{"part": 1}') FROM generate_series(1, 80) AS n});
$primary->wait_for_catchup($standby);
cut_off($primary, $standby);
await_answers(40);
# no uploader may repair anything before it is measured
signal_uploaders('STOP');
is($primary->safe_psql('postgres', q{
		SELECT outcome, status FROM advance_upload('done', 10, 10, final => true);
		SELECT status FROM abort_upload('freed');
		SELECT epoch FROM acquire_upload_lease('leased', 'server 1')}),
	"advanced|complete\naborted\n1", 'confirmed by a primary that is about to be lost');
# more ids than a sequence has in reserve on the standby
my $claimed = $primary->safe_psql('postgres', q{
	SELECT count(abort_upload('old ' || n)) FROM generate_series(1, 60) AS n;
	SELECT max(id) FROM claim_reclaims(10000) WHERE upload_id LIKE 'old %'}) =~ s/^60\n//r;

hear_uploads();
fail_over($primary, $standby, 1);
my $lost = expect_loss(stored_uploads($standby));
note join ', ', 'lost with an asynchronous standby', map { "$_: $lost->{$_}" } sort keys %$lost;
cmp_ok($lost->{$_}, '>', 0, "$_ were lost") foreach 'chunks', 'bytes';
signal_uploaders('CONT');
await_answers(100);

# What the application must know: an end that was confirmed is undone, ...
is($standby->safe_psql('postgres', q{
		SELECT upload_id, status, uploaded_bytes FROM get_uploads('{done,freed}');
		SELECT outcome FROM try_advance_upload('freed', 10, 10)}),
	"done|in_progress|10\nfreed|in_progress|10\nadvanced", 'uploads that had ended are live again');
$standby->safe_psql('postgres', q{UPDATE upload_session SET expires_at = now() WHERE upload_id = 'done'});
await_sql($standby, q{status = 'expired' FROM upload_session WHERE upload_id = 'done'});
is($standby->safe_psql('postgres', q{SELECT reason, jsonb_array_length(parts) FROM upload_reclaim WHERE upload_id = 'done'}),
	'expired|1', '... so that in time the parts of a file that is complete are to be freed');
# ... an epoch comes again, ...
is($standby->safe_psql('postgres', q{
		SELECT epoch FROM acquire_upload_lease('leased', 'server 2');
		SELECT outcome FROM try_advance_upload('leased', 10, 10, lease_epoch => 1)}),
	"1\nadvanced", 'the epoch of a lease that was lost is given to another one');
# ... and so does the id of a claim
is($standby->safe_psql('postgres', qq{
		SELECT count(abort_upload('old ' || n)) FROM generate_series(61, 80) AS n;
		SELECT count(*) > 0 FROM upload_reclaim WHERE upload_id LIKE 'old %' AND id <= $claimed}),
	"20\nt", 'the id of a claim that was lost is that of another row');

is(finish_uploaders(), 16, 'all uploaders have gone on to the end');
$count = hear_uploads();
is_deeply($count->{shown} // [], [], 'a client is told where to go on, once, and goes on from there') or diag "RANDOM_SEED=$seed";
note join ', ', map { "$_: $count->{$_}" } grep { !ref $count->{$_} } sort keys %$count;
cmp_ok($count->{back}, '>', 0, "$count->{back} uploads have gone back");
cmp_ok($count->{gone} // 0, '>', 0, '... and those whose client had the bytes no more are aborted');
is($count->{broken} // 0, 0, 'all files are what was sent');
my %confirmed = confirmed_uploads();
my %stored = stored_uploads($standby);
is(join(' ', grep { $confirmed{$_}[1] && $confirmed{$_}[1] ne ($stored{$_} // [ 0, '' ])->[1] } sort keys %confirmed), '',
	'what has ended since then has ended so');

$standby->stop;
done_testing();
