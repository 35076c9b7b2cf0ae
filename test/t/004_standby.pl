# A hot standby answers the readers and refuses every writer with 25006, and so
# does a read-only transaction; after a promotion the writers work and the
# uploads go on from the confirmed byte.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use UploadTest;

my $primary = upload_node('primary',
	allows_streaming => 1,
	conf => "wal_retrieve_retry_interval = '100ms'");

$primary->safe_psql(
	'postgres', q{
	SELECT start_upload('file', 100, provider_data => '{"part": 1}', upload_id => 'u');
	SELECT advance_upload('u', 0, 50);
	SELECT start_upload('file', 0, upload_id => 'ready');
	SELECT set_upload_quota('ann', 5), start_upload('file', 10, owner => 'ann', upload_id => 'limited');
	UPDATE upload_session SET id = 0 WHERE upload_id = 'limited';
	SELECT start_upload('file', upload_id => 'ended');
	SELECT abort_upload('ended');
	SELECT start_upload('file', 1, provider_data => '{"part": 1}', upload_id => 'stale');
	UPDATE upload_session SET expires_at = now() - interval '1 day' WHERE upload_id = 'stale';
	CREATE ROLE client;
});

$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
$primary->safe_psql('postgres', q{SELECT advance_upload('u', 50, 10)});
$primary->wait_for_catchup($standby);

# Calls of every writer; those of a chunk with each kind of outcome.
my %writers = (
	start_upload => [q{start_upload('file')}],
	advance_upload => [ map { "advance_upload($_)" } ("'u', 60, 10", "'u', 0, 10", "'u', 90, 1", "'nobody', 0, 1") ],
	try_advance_upload => [ map { "try_advance_upload($_)" }
		  ("'u', 60, 10", "'u', 0, 10", "'u', 90, 1", "'ended', 0, 1", "'stale', 0, 1", "'nobody', 0, 1") ],
	advance_uploads => [q{advance_uploads('{u}', '{60}', '{10}')}],
	declare_upload_size => [q{declare_upload_size('u', 100)}],
	merge_upload_data => [q{merge_upload_data('u')}],
	complete_upload => [q{complete_upload('ready')}],
	abort_upload => [ q{abort_upload('u')}, q{abort_upload('ended')} ],
	delete_upload => [ q{delete_upload('u')}, q{delete_upload('nobody')} ],
	concatenate_uploads => [q{concatenate_uploads('file', '{u}')}],
	acquire_upload_lease => [ map { "acquire_upload_lease($_)" } ("'u', 'server'", "'ended', 'server'", "'nobody', 'server'") ],
	renew_upload_lease => [q{renew_upload_lease('u', 1)}],
	release_upload_lease => [q{release_upload_lease('u', 1)}],
	set_upload_quota => [q{set_upload_quota('ann', 1)}],
	sweep_uploads => [q{sweep_uploads()}],
	claim_reclaims => [q{claim_reclaims()}],
	finish_reclaim => [q{finish_reclaim(1)}],
	fail_reclaim => [q{fail_reclaim(1, 'no')}],
	start_sweeper => [q{start_sweeper()}],
	grant_upload_access => [q{grant_upload_access('client')}],
	revoke_upload_access => [q{revoke_upload_access('client')}]);
my @writes = map { @{ $writers{$_} } } sort keys %writers;

my $reads = q{
	SELECT upload_id, uploaded_bytes, status FROM get_upload('u');
	SELECT upload_id, uploaded_bytes, status FROM get_uploads('{stale,nobody,u}');
	SELECT upload_id, uploaded_bytes, status FROM list_uploads(max_rows => 2);
	SELECT * FROM upload_usage('ann');
};
my $answers = join "\n",
  'u|60|in_progress',
  'stale|0|expired', 'u|60|in_progress',
  'stale|0|expired', 'ended|0|aborted',
  '1|10|0|5|';

my %functions = extension_functions($primary);
is_deeply(
	[ sort keys %writers ],
	[ sort grep { $functions{$_}{volatility} eq 'v' } keys %functions ],
	'every writer is called here');

sub refuses_writers
{
	my ($node, $setup, $name) = @_;
	my @sqlstates =
	  sqlstates_of($node, 'postgres', $setup, map { "SELECT $_" } @writes);

	is_deeply(
		[ map { "$writes[$_]: $sqlstates[$_]" } 0 .. $#writes ],
		[ map { "$_: 25006" } @writes ],
		$name);
	return;
}

is($standby->safe_psql('postgres', $reads), $answers, 'readers on the standby');
refuses_writers($standby, 'SELECT 1', 'writers on the standby');
is($primary->safe_psql('postgres', "BEGIN READ ONLY; $reads"),
	$answers, 'readers in a read-only transaction');
refuses_writers($primary, 'SET default_transaction_read_only = on',
	'writers in a read-only transaction');

# A session that was there before the promotion goes on as well.
my $session = $standby->background_psql('postgres');
$session->query_safe(q{SELECT uploaded_bytes FROM get_upload('u')});
$primary->stop;
$standby->promote;
$standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()')
  or die 'the standby was not promoted';

is( answer(
		$session,
		q{SELECT outcome, uploaded_bytes FROM try_advance_upload('u', 60, 10)}),
	'advanced|70', 'an old session after the promotion');
$session->quit;

my @allowed = (
	@writers{qw(start_upload declare_upload_size merge_upload_data complete_upload
		  sweep_uploads claim_reclaims fail_reclaim finish_reclaim grant_upload_access revoke_upload_access)},
	[ q{advance_upload('u', 70, 10)}, q{try_advance_upload('u', 80, 10)},
		q{advance_uploads('{u}', '{90}', '{10}')}, q{abort_upload('u')}, q{delete_upload('u')} ]);
my @calls = map { @$_ } @allowed;
my @sqlstates = sqlstates_of($standby, 'postgres', 'SELECT 1', map { "SELECT $_" } @calls);
is_deeply(
	[ map { "$calls[$_]: $sqlstates[$_]" } 0 .. $#calls ],
	[ map { "$_: 00000" } @calls ],
	'writers after the promotion');
is( $standby->safe_psql(
		'postgres', q{
		SELECT count(*), count(DISTINCT id) FROM upload_session;
		SELECT upload_id, reason FROM upload_reclaim ORDER BY id;
	}),
	"5|5\nu|aborted",
	'what they left');

done_testing();
