# On a standby nothing sweeps, until it is promoted; what the primary sweeps
# arrives there.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SweeperTest;
use Test::More;
use UploadTest;

my $primary = sweeper_node('primary',
	allows_streaming => 1,
	conf => "wal_retrieve_retry_interval = '100ms'");

$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;

add_stale($primary, 'postgres', 'a', 2);
await($primary, 'postgres', q{count(*) = 2 FROM upload_session WHERE status = 'expired'});
$primary->wait_for_catchup($standby);
is(statuses($standby, 'postgres'), 'a1: expired, a2: expired', 'what the primary sweeps arrives at the standby');

set_conf($primary, 'vali_blob.sweep' => 'off');
await($primary, 'postgres', q{current_setting('vali_blob.sweep') = 'off'});
await_no_worker($primary);
add_stale($primary, 'postgres', 'b', 2);
$primary->wait_for_catchup($standby);
is( $standby->safe_psql(
		'postgres', q{
		SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'vali%';
		SELECT running, last_sweep, total_expired, total_purged, last_error FROM sweeper_status();
		SELECT status, sessions FROM upload_stats WHERE sessions > 0;
	}),
	"0\nf||0|0|\npending|2\nexpired|2",
	'nothing runs on the standby');
is(sqlstate_of($standby, 'SELECT start_sweeper()'), '25006', 'and nothing can be started there');

my $log_end = log_end($standby);
$primary->stop;
$standby->promote;
await($standby, 'postgres', q{count(*) = 0 FROM upload_session WHERE status = 'pending'});
is( $standby->safe_psql(
		'postgres', q{
		SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'vali_blob launcher';
		SELECT running, total_expired FROM sweeper_status();
		SELECT start_sweeper();
	}),
	"1\nt|2\nf",
	'after a promotion it sweeps');
is_deeply([ grep { m{(?<!/)vali_blob} } complaints_since($standby, $log_end) ], [], 'the log is quiet about this');

$standby->stop;
done_testing();
