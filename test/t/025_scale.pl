# A sweep of very many stale sessions: the worker does not grow, and chunks go
# on meanwhile.  VALI_BLOB_STALE sets how many (default: 100,000); there are as
# many others.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SweeperTest;
use Test::More;
use UploadTest;

my $stale = $ENV{VALI_BLOB_STALE} || 100_000;
my $batch = 1000;
my $timeout = 10 * $PostgreSQL::Test::Utils::timeout_default;
my $node = sweeper_node('main', conf => "max_wal_size = '4GB'\nshared_buffers = '256MB'");

my $pause = pause_sweeps($node, 'postgres');
$node->safe_psql(
	'postgres', qq{
	INSERT INTO upload_session (upload_id, path, ttl, provider_data, expires_at)
	SELECT 'u' || i, 'dir/file' || i, '1 hour', '{"part": 1}',
		now() + CASE WHEN i % 2 = 0 THEN interval '1 hour' ELSE interval '-1 hour' + i * interval '1 us' END
	FROM generate_series(1, 2 * $stale) i;
	VACUUM ANALYZE upload_session;

	-- A client: chunk after chunk, for any session, until the sweep is over.  How far that comes during a chunk
	-- tells how long the chunk has waited for it.
	CREATE FUNCTION swept() RETURNS bigint LANGUAGE sql AS 'SELECT total_expired FROM sweeper_status()';
	CREATE PROCEDURE client() LANGUAGE plpgsql AS \$\$
	DECLARE
		answer chunk_result;
		before bigint;
		advanced bigint := 0;
		expired bigint := 0;
		waited bigint := 0;
	BEGIN
		WHILE swept() < $stale LOOP
			before := swept();
			answer := try_advance_upload('u' || 1 + floor(random() * 2 * $stale), 0, 10);
			COMMIT;
			CONTINUE WHEN before = 0;
			advanced := advanced + (answer.outcome = 'advanced')::int;
			expired := expired + (answer.outcome = 'expired')::int;
			waited := greatest(waited, swept() - before);
		END LOOP;
		CREATE TABLE result AS SELECT advanced, expired, waited;
	END \$\$;
});

my $client = $node->background_psql('postgres', timeout => $timeout);
$client->query_until(qr/begin\n/, "\\echo begin\nCALL client();\n");
$pause->quit;

# Meanwhile, watch the worker: its memory, and its transactions.
my $of_worker = q{FROM pg_stat_activity WHERE backend_type = 'vali_blob worker'};
my $watch = $node->background_psql('postgres', timeout => $timeout);
my %transactions;
my $log_end = log_end($node);
while ($watch->query_safe('SELECT swept()') < $stale)
{
	$watch->query_safe("SELECT pg_log_backend_memory_contexts(pid), pg_sleep(0.2) $of_worker");
	$transactions{$_} = 1 foreach split /\n/, $watch->query_safe("SELECT xact_start $of_worker");
}
$watch->quit;
$client->query_safe('SELECT 1');
$client->quit;

my ($least, $most) = (sort { $a <=> $b } slurp_file($node->logfile, $log_end) =~ /LOG:  Grand total: .* (\d+) used/g)[ 0, -1 ];
cmp_ok($most - $least, '<', 1024 * 1024, 'the worker does not grow') and note "$least to $most bytes";
cmp_ok(scalar(keys %transactions), '>', 5, 'it commits now and then');

my ($advanced, $expired, $waited) = split /\|/, $node->safe_psql('postgres', 'TABLE result');
cmp_ok($waited, '<=', 5 * $batch, 'a chunk waits for a batch, not for the sweep') and note "for $waited rows";
cmp_ok($advanced, '>', $stale / $batch, 'chunks go on, more than one a batch') and note "$advanced advanced, $expired expired";
is( $node->safe_psql(
		'postgres', q{
		SELECT count(*) FILTER (WHERE status = 'expired' AND uploaded_bytes = 0),
			count(*) FILTER (WHERE status IN ('pending', 'in_progress')) FROM upload_session;
		SELECT count(*) FROM upload_reclaim;
	}),
	"$stale|$stale\n$stale",
	'all that is stale has expired, and nothing else');

$node->stop;
done_testing();
