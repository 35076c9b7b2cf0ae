# A partition of a router moves to a new server (contrib/vali_blob_move.sh) while uploads go
# on: each call is answered or cut off, and no session is lost, or on two servers.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use LeaseTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use ShardTest;
use Test::More;
use UploadTest;

plan skip_all => 'plproxy is not there' if !has_extension('plproxy');
plan skip_all => 'python3-psycopg2 is not there' if !find_psycopg2();

my $seed = $ENV{RANDOM_SEED} ||= time;    # the uploaders, too

note "RANDOM_SEED=$seed";

my ($router, @shards) = start_shards();
my @old = (@shards, @shards);

create_router($router, @old);
push @shards, start_shard('shard4', 4);

sub start_move
{
	my ($partitions, $to, $options) = @_;
	my $from = partition_connstr($old[ (split /,/, $partitions)[0] ]);
	my @source = $options ? ('--source', $from) : ();    # which needs none of them
	my $script = { output => '' };

	$script->{run} = IPC::Run::start([ 'bash', "$checkout/contrib/vali_blob_move.sh", '--router', $router->connstr('router'), '--server', 'the "servers"',
			'--partitions', $partitions, '--from', $from . ($options // ''), '--to', partition_connstr($to), @source ],
		'<', \undef, '>&', \$script->{output}, IPC::Run::timeout(5 * $PostgreSQL::Test::Utils::timeout_default));
	return $script;
}

# Run the script.  Returns whether it succeeds, and what it says.
sub move
{
	my $script = start_move(@_);

	return ($script->{run}->finish, $script->{output});
}

# --- what is refused

sub refused
{
	my ($name, $pattern, @arguments) = @_;
	my ($ok, $output) = move(@arguments);

	ok(!$ok, "refused: $name");
	like($output, $pattern, "... which it says");
	return;
}

refused('partitions of two servers', qr/not partitions of one and the same database/, '0,1', $shards[3]);
refused('a database that has partitions', qr/has partitions in .* already/, '3', $shards[1]);
refused('no node', qr/does not have a vali_blob\.node of its own/, '3', do { $shards[3]->safe_psql('postgres', 'ALTER DATABASE uploads RESET vali_blob.node'); $shards[3] });
$shards[3]->safe_psql('postgres', 'ALTER DATABASE uploads SET vali_blob.node = 4');
$shards[3]->safe_psql('uploads', "SELECT $vb.start_upload('file')");
refused('sessions that are there', qr/has sessions already/, '3', $shards[3]);
$shards[3]->safe_psql('uploads', "TRUNCATE $vb.upload_session CASCADE");

# --- under load

my $hold = "$PostgreSQL::Test::Utils::tmp_check/047_hold";
my %partition;

append_to_file($hold, '');
$_->safe_psql('uploads', "SELECT $vb.set_upload_quota('ann', 1000)") foreach @shards[ 0 .. 2 ];
as_app($router, q{SELECT count(start_upload('parts', 100, any_order => true, owner => 'ann', upload_id => 'parts-' || n, provider_data => '{"a": 1}')) FROM generate_series(1, 120) AS n});
as_app($router, q{SELECT count(advance_upload('parts-' || n, 50, 10, etag => 'e')) FROM generate_series(1, 120) AS n});
as_app($router, q{SELECT count(abort_upload('parts-' || n)) FROM generate_series(1, 60) AS n});
as_app($router, q{SELECT count(*) FROM claim_reclaims(20)});
$partition{ (split /\|/)[0] } = (split /\|/)[1]
  foreach split /\n/, as_app($router, q{SELECT id, partition_of(id) FROM generate_series(1, 16) AS u, generate_series(0, 5) AS n, LATERAL (SELECT format('u%s-%s', u, n)) AS x (id)
	UNION ALL SELECT id, partition_of(id) FROM generate_series(1, 120) AS n, LATERAL (SELECT 'parts-' || n) AS x (id)});

# What is on all servers of some columns, sorted.
sub everywhere
{
	my ($table, $columns) = @_;

	return join "\n", sort map { split /\n/, $_->safe_psql('uploads', "SELECT $columns FROM $vb.$table") } @shards;
}
my %kept = map { ($_->[0] => everywhere(@$_)) } [ 'upload_part', 'upload_id, chunk_offset, etag, confirmed_at' ], [ 'upload_reclaim', 'id, upload_id, claimed_until, parts' ],
  [ 'upload_live', 'upload_id, owner, bytes' ];
my $parts = q{upload_session WHERE upload_id LIKE 'parts%'};
my $sessions = everywhere($parts, 'id, upload_id, status, uploaded_bytes, expires_at');

start_uploaders($router, 16, $hold);
wait_for_uploaders('16 uploaders upload to all partitions', sub { my %n; $n{ $partition{ $_->[1] } }++ foreach grep { $_->[0] eq 'advanced' } told({}); 6 == grep { $_ > 20 } values %n });
my $place = place();
my ($ok, $output) = move('3', $shards[3]);
ok($ok, 'a partition is moved while they do') or diag $output;
like($output, qr/^\d+ sessions moved; the old server was locked for about \d+ s$/m, '... and is told');
note $output;
my $moved = place();
wait_for_uploaders('the uploads of all partitions go on', sub { my %n; $n{ $partition{ $_->[1] } }{ $_->[1] }++ foreach grep { $_->[0] =~ /^(?:advanced|replayed)$/ } told($moved); 6 == grep { 5 < keys %$_ } values %n });
wait_for_uploaders('... and those of each uploader', sub { my %n; $n{ (split /-/, $_->[1])[0] } = 1 foreach grep { $_->[0] =~ /^(?:advanced|replayed)$/ } told($moved); 16 == keys %n });
my $later = place();    # what was cut off has been read by now
unlink $hold;
wait_for_uploaders('all uploads end', \&uploaders_have_ended);
is(finish_uploaders(), '', '... well');
is_deeply([ grep { $_->[0] eq 'failed' } told($later) ], [], '... without an error any more');

my %outcomes;
$outcomes{ $_->[0] eq 'failed' ? $_->[2] : $_->[0] }++ foreach told({});
note join ', ', map { "$_: $outcomes{$_}" } sort keys %outcomes;
is_deeply([ grep { !/^(?:started|advanced|replayed|complete|XX000|57P01|08006)$/ } keys %outcomes ], [], 'each call was answered, or cut off');
is_deeply([ grep { $_->[0] eq 'failed' && $partition{ $_->[1] } % 3 != 0 } told({}) ], [], '... those of the other servers were not');
is(scalar(grep { $_->[0] eq 'complete' } told({})), 96, '96 uploads are complete');

# --- afterwards

my @server = (0 .. 2, 3, 1, 2);    # of each partition

sub each_is_in_its_place
{
	my ($name) = @_;
	my %found;

	foreach my $n (0 .. $#shards)
	{
		push @{ $found{ (split /\|/)[0] } }, $_ =~ s/^[^|]*/$n/r foreach split /\n/, $shards[$n]->safe_psql('uploads', "SELECT upload_id, status, uploaded_bytes FROM $vb.upload_session WHERE upload_id LIKE 'u%'");
	}
	is_deeply(\%found, { map { ($_ => [ $server[ $partition{$_} ] . '|complete|200' ]) } grep { /^u/ } keys %partition }, $name);
	return;
}
each_is_in_its_place('each upload is on the server of its partition, and only there');
is(everywhere($parts, 'id, upload_id, status, uploaded_bytes, expires_at'), $sessions, 'the others are as before');
is(everywhere('upload_part', 'upload_id, chunk_offset, etag, confirmed_at'), $kept{upload_part}, '... with their parts');
is(everywhere('upload_reclaim', 'id, upload_id, claimed_until, parts'), $kept{upload_reclaim}, '... and the reclaim queue');
is(everywhere('upload_live', 'upload_id, owner, bytes'), $kept{upload_live}, '... and what counts for limits');
is($shards[3]->safe_psql('uploads', "SELECT max_live_uploads FROM $vb.upload_quota WHERE owner = 'ann'"), '1000', '... which hold on the new server');
cmp_ok($shards[3]->safe_psql('uploads', "SELECT count(*) FROM $vb.$_"), '>', 0, "... of which the new server has its share: $_")
  foreach 'upload_session', 'upload_part', 'upload_reclaim', 'upload_live';
is(as_app($router, q{SELECT count(*), count(DISTINCT upload_id) FROM list_uploads(max_rows => 10000)}), '216|216', 'a listing has each once');
is(as_app($router, q{SELECT count(*), count(DISTINCT id) FROM list_uploads(max_rows => 10000)}), '216|216', '... with an id of its own');
my $new = as_app($router, q{SELECT id % 1024 FROM (SELECT 'new-' || n FROM generate_series(1, 200) AS n WHERE partition_of('new-' || n) = 3 LIMIT 1) AS x (u), start_upload('file', upload_id => u)});
is($new, 4, 'new ones get an id of the new server');
my $reclaim = $shards[3]->safe_psql('uploads', "SELECT id FROM $vb.upload_reclaim LIMIT 1");
is(as_app($router, "SELECT finish_reclaim($reclaim)"), 't', 'a row of the reclaim queue is finished where it is now');
is(join(' ', map { $_->safe_psql('uploads', 'SELECT (SELECT count(*) FROM pg_publication), (SELECT count(*) FROM pg_subscription), (SELECT count(*) FROM pg_replication_slots)') } @shards),
	'0|0|0 0|0|0 0|0|0 0|0|0', 'nothing is left of the move');
is($shards[3]->safe_psql('postgres', q{SELECT setconfig FROM pg_db_role_setting JOIN pg_database AS d ON d.oid = setdatabase WHERE datname = 'uploads'}), '{vali_blob.node=4}', '... in the settings neither');

# --- several partitions, and a script that fails after it has told the router

push @shards, start_shard('shard5', 5);
@server[ 1, 4 ] = (4, 4);
my $busy = $router->background_psql('router', on_error_stop => 0);
$busy->query_until(qr/it begins/, "\\echo it begins\nSELECT pg_sleep(10000);\n");

# A chunk that is confirmed just before the lock, and that the new server is slow to take
my ($late) = grep { $server[ $partition{$_} ] == 4 } map { "parts-$_" } 61 .. 120;
my $writer = $shards[1]->background_psql('uploads');
my $slow = $shards[4]->background_psql('uploads');
$writer->query_safe("BEGIN; LOCK TABLE $vb.upload_session IN ACCESS SHARE MODE");
my $script = start_move('1,4', $shards[4], " options='-c idle_in_transaction_session_timeout=1ms'");
$shards[1]->poll_query_until('uploads', 'SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)');
$slow->query_safe("BEGIN; LOCK TABLE $vb.upload_session IN SHARE MODE");
$writer->query_safe("SELECT $vb.advance_upload('$late', 0, 10); COMMIT");
wait_until('the script waits for the new server, or has ended', sub {
	$script->{run}->pump_nb if $script->{run}->pumpable;
	return !$script->{run}->pumpable || 't' eq $shards[1]->safe_psql('postgres', q{SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%confirmed\_flush\_lsn%' AND pid <> pg_backend_pid())});
});
$slow->query_safe('COMMIT');
my $target = partition_connstr($shards[4]) =~ s/'/''/gr;
$router->poll_query_until('router', "SELECT count(*) = 2 FROM pg_foreign_server, pg_options_to_table(srvoptions) WHERE option_value = '$target'");
$shards[1]->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'vali_blob_move' AND state = 'idle in transaction'});
$router->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'});
ok(!$script->{run}->finish, 'the script fails if its lock is gone after it has told the router');
like($script->{output}, qr/moved, as the router knows; to end it, run on the old server\n    DELETE/, '... and says what is left to do') or diag $script->{output};
cmp_ok($shards[1]->safe_psql('uploads', "SELECT count(*) FROM $vb.upload_session"), '>', 0, '... as the old server has the sessions still');
$shards[1]->safe_psql('uploads', join '', $script->{output} =~ /^    (.*;)$/mg);
each_is_in_its_place('after that each upload is where the router looks for it');
is(as_app($router, q{SELECT count(*), count(DISTINCT upload_id) FROM list_uploads(max_rows => 10000)}), '217|217', '... and listed once');
is(as_app($router, "SELECT uploaded_bytes FROM get_upload('$late')"), '20', '... with the last chunk');
is($shards[1]->safe_psql('uploads', "SELECT (SELECT count(*) FROM $vb.upload_session), (SELECT count(*) FROM pg_publication)"), '0|0', '... and nothing is left on the old server');
$_->quit foreach $busy, $writer, $slow;

# --- by hand, where the application hashes

my $bucket = "get_byte(decode(md5(upload_id::text), 'hex'), 0) % 64";
my $tables = join ', ', map { "$vb.$_ WHERE ($bucket < 32)" } 'upload_session', 'upload_part', 'upload_reclaim', 'upload_live';
my $of_bucket = "SELECT upload_id, status, uploaded_bytes FROM $vb.upload_session WHERE $bucket < 32 ORDER BY upload_id";

like(slurp_file("$checkout/examples/shards/shards.py"), qr/\Q$bucket\E/, 'the client that hashes by itself has its hash in SQL');
$shards[4]->safe_psql('postgres', 'CREATE DATABASE hashed');
$shards[4]->safe_psql('hashed', "CREATE SCHEMA $vb; CREATE EXTENSION vali_blob SCHEMA $vb");
$shards[2]->safe_psql('uploads', "CREATE PUBLICATION by_hash FOR TABLE $tables");
$shards[4]->safe_psql('hashed', "CREATE SUBSCRIPTION by_hash CONNECTION '" . (partition_connstr($shards[2]) =~ s/'/''/gr) . "' PUBLICATION by_hash");
$shards[4]->poll_query_until('hashed', q{SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel});
$shards[2]->safe_psql('uploads', "SELECT count($vb.start_upload('late', upload_id => 'late' || n)), count($vb.advance_upload('late' || n, 0, n)) FROM generate_series(1, 10) AS n;
	SELECT count($vb.delete_upload('late' || n)) FROM generate_series(1, 3) AS n");
my $lsn = $shards[2]->lsn('insert');
$shards[2]->poll_query_until('uploads', "SELECT confirmed_flush_lsn >= '$lsn' FROM pg_replication_slots WHERE slot_name = 'by_hash'");
my $rows = $shards[2]->safe_psql('uploads', $of_bucket);
like($rows, qr/^late/m, 'a publication by its hash has sessions');
is($shards[4]->safe_psql('hashed', $of_bucket), $rows, '... which another server follows');
is($shards[4]->safe_psql('hashed', "SELECT count(*) FROM $vb.upload_session WHERE NOT $bucket < 32"), '0', '... and no others');
$shards[4]->safe_psql('hashed', 'DROP SUBSCRIPTION by_hash');

$_->stop foreach $router, @shards;
done_testing();
