# Many clients at once on few uploads: every byte is confirmed once, batches in
# random orders never deadlock, and what a dead upload left is handed out once.
# Nobody meets an error.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use UploadTest;

my $node = upload_node('main', conf => "deadlock_timeout = '10ms'");

$node->safe_psql(
	'postgres', q{
	SELECT count(start_upload('file', upload_id => 'race' || i)) FROM generate_series(1, 3) i;
	SELECT count(start_upload('file', upload_id => 'batch' || i)) FROM generate_series(1, 8) i;
	CREATE TABLE confirmed (upload_id text, chunk_offset bigint, chunk_length bigint);
	CREATE TABLE handed_out (upload_id text PRIMARY KEY);
});

# Each client reads how far an upload has come, as servers do, and sends what
# comes next; it notes what was confirmed to it in the same transaction.
my $race = q{
	\set n random(1, 3)
	\set length random(1, 1000)
	SELECT uploaded_bytes AS at FROM get_upload('race' || :n) \gset
	INSERT INTO confirmed
		SELECT 'race' || :n, :at::bigint, :length::bigint FROM try_advance_upload('race' || :n, :at, :length)
		WHERE outcome = 'advanced';
};
my $batch = q{
	INSERT INTO confirmed
		SELECT chunk.id, chunk.at, 10
		FROM (SELECT array_agg(upload_id) AS ids, array_agg(uploaded_bytes) AS ats,
					array_agg(10::bigint) AS lengths
				FROM (SELECT upload_id, uploaded_bytes FROM upload_session
					WHERE upload_id ~ 'batch' ORDER BY random()) AS shuffled) AS arguments,
			LATERAL ROWS FROM (unnest(ids), unnest(ats), advance_uploads(ids, ats, lengths))
				AS chunk (id, at, outcome)
		WHERE outcome = 'advanced';
};
my $life = q{
	SELECT upload_id FROM start_upload('file', provider_data => '{"part": 1}') \gset
	SELECT advance_upload(:upload_id, 0, 10);
	SELECT abort_upload(:upload_id);
	UPDATE upload_session SET expires_at = now() WHERE upload_id = :upload_id;
	SELECT sweep_uploads(5);
	INSERT INTO handed_out SELECT upload_id FROM claim_reclaims(3);
};

$node->pgbench(
	'--no-vacuum --protocol=prepared --client=8 --jobs=2 --transactions=250',
	0,
	[qr{processed: 2000/2000}],
	[qr{^(?!.*(?:ERROR|aborted))}s],
	'no client meets an error',
	{ 'race@3' => $race, 'batch@2' => $batch, 'life@2' => $life });

is( $node->safe_psql(
		'postgres', q{
		SELECT upload_id, uploaded_bytes, (SELECT sum(chunk_length) FROM confirmed c WHERE c.upload_id = s.upload_id)
		FROM upload_session s
		WHERE upload_id ~ 'race|batch' AND uploaded_bytes IS DISTINCT FROM
			(SELECT sum(chunk_length) FROM confirmed c WHERE c.upload_id = s.upload_id)
	}),
	'', 'each upload is as long as its confirmed chunks');
is( $node->safe_psql(
		'postgres', q{
		SELECT * FROM (
			SELECT *, sum(chunk_length) OVER (PARTITION BY upload_id ORDER BY chunk_offset) AS chunk_end FROM confirmed) c
		WHERE chunk_offset + chunk_length <> chunk_end
	}),
	'', 'no chunk overlaps another');
cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM confirmed WHERE upload_id ~ 'batch'}),
	'>', 100, 'there were batches');
$node->safe_psql('postgres', 'INSERT INTO handed_out SELECT upload_id FROM claim_reclaims(1000000)');
my $dead = $node->safe_psql('postgres', 'SELECT count(*) FROM upload_reclaim');
cmp_ok($dead, '>', 100, 'there were dead uploads');
is($node->safe_psql('postgres', 'SELECT count(*) FROM handed_out JOIN upload_reclaim USING (upload_id)'),
	$dead, 'each is handed out once');
$node->safe_psql('postgres', 'SELECT sweep_uploads(1000000)');
is($node->safe_psql('postgres', q{SELECT count(*) FROM upload_session WHERE status = 'aborted'}),
	0, 'and is forgotten');

done_testing();
