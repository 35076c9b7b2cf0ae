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

my $sweeper = "vali_blob.sweep = on\nvali_blob.sweep_interval = 1s\n";
my ($router, @shards) = start_shards($sweeper);
my @old = (@shards, @shards);

create_router($router, @old);
push @shards, start_shard('shard4', 4, $sweeper);

# Start the script.  "options" are for its connections to the old server, "to_options" to the
# new one, "from" is an old server which is not that of the partitions, "folder" has a psql for it.
sub start_move
{
	my ($partitions, $to, %params) = @_;
	my $from = partition_connstr($params{from} // $old[ (split /,/, $partitions)[0] ]);
	my @source = $params{options} ? ('--source', $from) : ();    # which needs none of them
	my $script = { output => '' };
	local $ENV{PATH} = join ':', $params{folder} // (), $ENV{PATH};

	$script->{run} = IPC::Run::start([ 'bash', "$checkout/contrib/vali_blob_move.sh", '--router', $router->connstr('router'), '--server', 'the "servers"',
			'--partitions', $partitions, '--from', $from . ($params{options} // ''), '--to', partition_connstr($to) . ($params{to_options} // ''), @source, @{ $params{arguments} // [] } ],
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

# Refused as long as a server is so.
sub refused_while
{
	my ($name, $pattern, $node, $begin, $end) = @_;

	$node->safe_psql('uploads', $begin);
	refused($name, $pattern, '3', $shards[3]);
	$node->safe_psql('uploads', $end);
	return;
}

refused('no node', qr/new server does not have a vali_blob\.node of its own/, '3', do { $shards[3]->safe_psql('postgres', 'ALTER DATABASE uploads RESET vali_blob.node'); $shards[3] });
$shards[3]->safe_psql('postgres', 'ALTER DATABASE uploads SET vali_blob.node = 4');
$shards[3]->safe_psql('uploads', "SELECT $vb.start_upload('file')");
refused('sessions that are there', qr/has sessions already/, '3', $shards[3]);
$shards[3]->safe_psql('uploads', "TRUNCATE $vb.upload_session CASCADE");
refused_while('no node of the old server', qr/old server has no vali_blob\.node/, $shards[0], 'ALTER DATABASE uploads RESET vali_blob.node', 'ALTER DATABASE uploads SET vali_blob.node = 1');
refused_while('a column of one', qr/columns of the tables differ: .*upload_session\.mine text/, $shards[0], "ALTER TABLE $vb.upload_session ADD COLUMN mine text", "ALTER TABLE $vb.upload_session DROP COLUMN mine");
refused_while('another version', qr/versions of vali_blob differ: on the old server 1\.1, on the new one 1\.1x/, $shards[3], q{UPDATE pg_extension SET extversion = '1.1x' WHERE extname = 'vali_blob'}, q{UPDATE pg_extension SET extversion = '1.1' WHERE extname = 'vali_blob'});
refused_while('foreign keys', qr/reference the sessions \(mine_upload_id_fkey of mine\)/, $shards[0], "CREATE TABLE mine (upload_id varchar(128) COLLATE \"C\" REFERENCES $vb.upload_session ON DELETE CASCADE)", 'DROP TABLE mine');
refused_while('partitioned tables', qr/is partitioned/, $shards[0], "ALTER TABLE $vb.upload_live RENAME TO plain; CREATE TABLE $vb.upload_live (LIKE $vb.plain) PARTITION BY HASH (upload_id)",
	"DROP TABLE $vb.upload_live; ALTER TABLE $vb.plain RENAME TO upload_live");

refused('another old server', qr/partition 3 is not in the database of --from, as role "app" sees it/, '3', $shards[3], from => $shards[1]);
refused('a user for everybody', qr/--to names a user/, '3', $shards[3], to_options => ' user = app');
refused('a URI, to which no user can be added', qr/cannot add a user to the URI/, '3', $shards[3], arguments => [ '--target', 'postgresql://localhost/uploads' ]);
refused('a partition elsewhere', qr/does not lead role "app" to the database of --to/, '3', $shards[3], arguments => [ '--target', partition_connstr($shards[1]) . ' connect_timeout=9' ]);
refused('a partition to which clients cannot connect', qr/does not lead role "app" to the database of --to/, '3', $shards[3], arguments => [ '--target', partition_connstr($shards[3]) . ' dbname=nowhere' ]);
$shards[3]->safe_psql('postgres', q{CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0});
refused('another encoding', qr/encodings differ: on the old server UTF8, on the new one LATIN1/, '3', $shards[3], to_options => ' dbname=latin');
$shards[3]->safe_psql('postgres', 'DROP DATABASE latin');
refused_while('another retention of the queue', qr/settings differ: on the old server , on the new one vali_blob\.reclaim_retention = -1/, $shards[3], 'ALTER DATABASE uploads SET vali_blob.reclaim_retention = -1', 'ALTER DATABASE uploads RESET vali_blob.reclaim_retention');
refused_while('a policy', qr/policies differ: on the old server mine on upload_session PERMISSIVE ALL \{public\} \(owner IS NULL\),/, $shards[0], "CREATE POLICY mine ON $vb.upload_session USING (owner IS NULL)", "DROP POLICY mine ON $vb.upload_session");
refused_while('row-level security', qr/policies differ: on the old server upload_part,/, $shards[0], "ALTER TABLE $vb.upload_part ENABLE ROW LEVEL SECURITY", "ALTER TABLE $vb.upload_part DISABLE ROW LEVEL SECURITY");
refused_while('a sweeper that is off', qr/vali_blob\.sweep is off on the new server/, $shards[3], 'ALTER DATABASE uploads SET vali_blob.sweep = off', 'ALTER DATABASE uploads RESET vali_blob.sweep');
refused_while('other privileges', qr/functions that role "app" may call differ: .* finish_reclaim get_upload get_uploads .* on the new one .* finish_reclaim get_uploads/, $shards[3], "REVOKE EXECUTE ON FUNCTION $vb.get_upload FROM app", "GRANT EXECUTE ON FUNCTION $vb.get_upload TO app");
refused_while('the node of a third server', qr/server of partition 1 has vali_blob\.node = 2, too/, $shards[3], 'ALTER DATABASE uploads SET vali_blob.node = 2', 'ALTER DATABASE uploads SET vali_blob.node = 4');

# --- under load

my $hold = "$PostgreSQL::Test::Utils::tmp_check/047_hold";
my %partition;

# However the test ends, those that list end with it.
END { unlink $hold if defined $hold }

append_to_file($hold, '');
$_->safe_psql('uploads', "SELECT $vb.set_upload_quota('ann', 1000)") foreach @shards[ 0 .. 2 ];

# A server that had sessions before it had a node, the first id of the new server's among theirs
my $plain = as_app($router, q{SELECT 'plain-' || n FROM generate_series(1, 200) AS n WHERE partition_of('plain-' || n) = 3 LIMIT 1});
$shards[0]->safe_psql('uploads', join ';', 'SET vali_blob.node = 0',
	(map { "SELECT setval(pg_get_serial_sequence('$vb.$_', 'id'), 1027)" } 'upload_session', 'upload_reclaim'),
	qq{SELECT $vb.start_upload('plain', 100, upload_id => '$plain', provider_data => '{"a": 1}'); SELECT $vb.abort_upload('$plain')});
is(everywhere('upload_session', 'id') . everywhere('upload_reclaim', 'id'), '10281028', 'a session has a plain id');
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

# Lines that are there more than once
sub repeated
{
	my %n;
	$n{$_}++ foreach split /\n/, $_[0];
	return grep { $n{$_} > 1 } keys %n;
}
my %kept = map { ($_->[0] => everywhere(@$_)) } [ 'upload_part', 'upload_id, chunk_offset, etag, confirmed_at' ], [ 'upload_reclaim', 'id, upload_id, claimed_until, parts' ],
  [ 'upload_live', 'upload_id, owner, bytes' ];
my $parts = q{upload_session WHERE upload_id LIKE 'parts%'};
my $sessions = everywhere($parts, 'id, upload_id, status, uploaded_bytes, expires_at');

# List all sessions, again and again.
sub start_lister
{
	my $lister = { output => '', errors => '' };

	$lister->{run} = IPC::Run::start([ 'bash', '-c', 'while [ -e "$0" ]; do printf "$2%.0s" {1..100} | psql -X -q -A -t -d "$1"; done', $hold, $router->connstr('router') . ' user=app',
			'SELECT count(*), count(DISTINCT upload_id) FROM list_uploads(max_rows => 10000);\n' ],
		'<', \undef, '>', \$lister->{output}, '2>', \$lister->{errors}, IPC::Run::timeout(20 * $PostgreSQL::Test::Utils::timeout_default));
	return $lister;
}

start_uploaders($router, 16, $hold);
my @listers = map { start_lister() } 1 .. 2;
wait_for_uploaders('16 uploaders upload to all partitions', sub { my %n; $n{ $partition{ $_->[1] } }++ foreach grep { $_->[0] eq 'advanced' } told({}); 6 == grep { $_ > 20 } values %n });
my $place = place();
my $lingering = $router->background_psql('router', on_error_stop => 0);
$lingering->query_until(qr/it begins/, "\\echo it begins\nSELECT pg_sleep(10000);\n");
my ($ok, $output) = move('3', $shards[3], arguments => [ '--grace', 1 ]);
ok($ok, 'a partition is moved while they do, and a transaction at the router goes on') or diag $output;
is($router->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'}), '0', '... until it is ended');
$lingering->{run}->finish;    # whose connection is gone
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

foreach my $lister (@listers)
{
	my @counts = $lister->{run}->finish ? map { [ split /\|/ ] } split /\n/, $lister->{output} : ();

	cmp_ok(scalar(@counts), '>', 20, 'listings were made meanwhile');
	is_deeply([ grep { $_->[0] != $_->[1] } @counts ], [], '... of which none has a session twice');
	is_deeply([ map { $_->[0] } @counts ], [ sort { $a <=> $b } map { $_->[0] } @counts ], '... and none lacks one that was there before');
}

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
is(as_app($router, q{SELECT count(*), count(DISTINCT upload_id) FROM list_uploads(max_rows => 10000)}), '217|217', 'a listing has each once');
is(as_app($router, q{SELECT count(*), count(DISTINCT id) FROM list_uploads(max_rows => 10000)}), '217|217', '... with an id of its own');
my ($new, $new_node) = split /\|/, as_app($router, q{SELECT upload_id, id % 1024 FROM (SELECT 'new-' || n FROM generate_series(1, 200) AS n WHERE partition_of('new-' || n) = 3 LIMIT 1) AS x (u),
	start_upload('file', upload_id => u, provider_data => '{"a": 1}')});
is($new_node, 4, 'new ones get an id of the new server');
is(as_app($router, 'SELECT upload_id FROM list_uploads(max_rows => 1)'), $new, '... and are the first of a listing');
as_app($router, "SELECT abort_upload('$new')");
is_deeply([ repeated(everywhere('upload_session', 'id')), repeated(everywhere('upload_reclaim', 'id')) ], [], '... and no id is given twice');
my $reclaim = $shards[3]->safe_psql('uploads', "SELECT id FROM $vb.upload_reclaim LIMIT 1");
is(as_app($router, "SELECT finish_reclaim($reclaim)"), 't', 'a row of the reclaim queue is finished where it is now');
is(join(' ', map { $_->safe_psql('uploads', 'SELECT (SELECT count(*) FROM pg_publication), (SELECT count(*) FROM pg_subscription), (SELECT count(*) FROM pg_replication_slots)') } @shards),
	'0|0|0 0|0|0 0|0|0 0|0|0', 'nothing is left of the move');
is($shards[3]->safe_psql('postgres', q{SELECT setconfig FROM pg_db_role_setting JOIN pg_database AS d ON d.oid = setdatabase WHERE datname = 'uploads'}), '{vali_blob.node=4}', '... in the settings neither');

# Run the commands that the script has left to do.
sub run_printed
{
	my ($output, $from, $to) = @_;
	my $node;
	my %commands;

	foreach (split /\n/, $output)
	{
		$node = 'from' if /on the old (?:server|one)$/;
		$node = 'to' if /on the new (?:server|one)$/;
		push @{ $commands{$node} }, $1 if /^    (.*;)$/;
	}
	# Each by itself, as DROP SUBSCRIPTION wants it
	$to->psql('uploads', $_) foreach @{ $commands{to} };
	$from->safe_psql('uploads', join '', @{ $commands{from} });
	return;
}

# --- several partitions, and a script that fails after it has told the router

push @shards, start_shard('shard5', 5, $sweeper);
@server[ 1, 4 ] = (4, 4);
my $busy = $router->background_psql('router', on_error_stop => 0);
$busy->query_until(qr/it begins/, "\\echo it begins\nSELECT pg_sleep(10000);\n");

# A chunk that is confirmed just before the lock, and that the new server is slow to take
my ($late) = grep { $server[ $partition{$_} ] == 4 } map { "parts-$_" } 61 .. 120;
my $writer = $shards[1]->background_psql('uploads');
my $slow = $shards[4]->background_psql('uploads');
$writer->query_safe("BEGIN; LOCK TABLE $vb.upload_session IN ACCESS SHARE MODE");
my $script = start_move('1,4', $shards[4], options => " options='-c idle_in_transaction_session_timeout=1ms'", arguments => [ '--grace', 10000, '--locked-for', 600 ]);
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
like($script->{output}, qr/: moved, as the router knows; to end it, run on the old server\n    BEGIN.*RESET vali_blob\.sweep;$/ms, '... and says what is left to do') or diag $script->{output};
unlike($script->{output}, qr/not moved/, '... and no more');
cmp_ok($shards[1]->safe_psql('uploads', "SELECT count(*) FROM $vb.upload_session"), '>', 0, '... as the old server has the sessions still');
run_printed($script->{output}, $shards[1], $shards[4]);
each_is_in_its_place('after that each upload is where the router looks for it');
is(as_app($router, q{SELECT count(*), count(DISTINCT upload_id) FROM list_uploads(max_rows => 10000)}), '218|218', '... and listed once');
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
$shards[2]->safe_psql('uploads', 'DROP PUBLICATION by_hash');

# --- where it does not get that far

# Partition 5 is to move to where 1 and 4 were.
push @shards, start_shard('shard6', 6, $sweeper);
my ($from, $to) = @shards[ 2, 1 ];
my @of_5 = split /\n/, as_app($router, q{SELECT 'of-5-' || n FROM generate_series(1, 200) AS n WHERE partition_of('of-5-' || n) = 5 LIMIT 12});
my $before = everywhere('upload_session', 'id, upload_id, status');

# What the script leaves where it has failed, once its commands have been run
sub not_moved
{
	my ($name, $script, $pattern) = @_;

	ok(!$script->{run}->finish, "not moved: $name");
	like($script->{output}, $pattern, '... which it says');
	like($script->{output}, qr/: not moved; to begin again, run on the new server\n    DROP.*RESET vali_blob\.sweep;\nand on the old one\n    DROP/s, '... and what to do') or diag $script->{output};
	$from->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'vali_blob_move'});
	run_printed($script->{output}, $from, $to);
	return;
}

$to->safe_psql('uploads', "ALTER TABLE $vb.upload_session ADD CONSTRAINT mine CHECK (upload_id IS NULL)");
not_moved('the new server cannot take a row', start_move('5', $to), qr/new server cannot take the rows over/);
$to->safe_psql('uploads', "ALTER TABLE $vb.upload_session DROP CONSTRAINT mine");

$slow = $to->background_psql('uploads');
$slow->query_safe("BEGIN; LOCK TABLE $vb.upload_session IN SHARE MODE");
$script = start_move('5', $to);
wait_until('the copy begins', sub { $script->{run}->pump_nb; $script->{output} =~ /copying/ });
$to->safe_psql('postgres', 'ALTER DATABASE uploads ALLOW_CONNECTIONS false');
wait_until('the script fails', sub { $script->{run}->pump_nb if $script->{run}->pumpable; !$script->{run}->pumpable });
$to->safe_psql('postgres', 'ALTER DATABASE uploads ALLOW_CONNECTIONS true');
$slow->quit;
not_moved('the new server cannot be asked', $script, qr/could not (?:wait for the copy|look at the new server)/);

# Wait until the script waits for its lock, or has it.
sub wait_for_lock
{
	my ($granted) = @_;

	return $from->poll_query_until('uploads', "SELECT count(*) > 0 FROM pg_locks WHERE relation = '$vb.upload_session'::regclass AND mode = 'AccessExclusiveLock' AND granted = $granted");
}

# Start a transaction that keeps it from getting the lock.
sub lock_out
{
	my $session = $from->background_psql('uploads');

	$session->query_safe("BEGIN; LOCK TABLE $vb.upload_session IN ACCESS SHARE MODE");
	return $session;
}

$writer = lock_out();
foreach my $signal ('TERM', 'INT', 'HUP')
{
	$script = start_move('5', $to);
	wait_for_lock('false');
	$script->{run}->signal($signal);
	not_moved("SIG$signal", $script, qr/^copying$/m);
}
not_moved('the lock cannot be had', start_move('5', $to, arguments => [ '--lock-within', 1 ]), qr/could not be locked for 1 s/);

# The new server does not take in time what was written just before the lock.
$script = start_move('5', $to, arguments => [ '--locked-for', 1 ]);
wait_for_lock('false');
$slow = $to->background_psql('uploads');
$slow->query_safe("BEGIN; LOCK TABLE $vb.upload_session IN SHARE MODE");
$writer->query_safe("INSERT INTO $vb.upload_session (upload_id, path) VALUES ('$of_5[0]', 'file'); DELETE FROM $vb.upload_session WHERE upload_id = '$of_5[0]'; COMMIT");
wait_until('the script fails', sub { $script->{run}->pump_nb if $script->{run}->pumpable; !$script->{run}->pumpable });
$slow->quit;
not_moved('the lock lasts too long', $script, qr/waited for the lag for 1 s/);

# A call that has a table which the script locks last, and then wants the one that it locks first
$script = start_move('5', $to, arguments => [ '--lock-within', 1 ]);
is($writer->query_safe(qq{
		DO \$\$ BEGIN
			LOCK TABLE $vb.upload_live IN ACCESS SHARE MODE;
			WHILE NOT EXISTS (SELECT FROM pg_locks WHERE relation = '$vb.upload_live'::regclass AND NOT granted) LOOP PERFORM pg_sleep(0.01); END LOOP;
			PERFORM FROM $vb.upload_session;
			PERFORM pg_sleep(5);
		END \$\$;
		SELECT 'answered'}), 'answered', 'in a deadlock with a call, the script gives way');
not_moved('the lock cannot be had', $script, qr/could not be locked for 1 s/);
$writer->quit;
is(everywhere('upload_session', 'id, upload_id, status'), $before, 'no session has moved');
is(join(' ', map { $_->safe_psql('uploads', 'SELECT (SELECT count(*) FROM pg_publication), (SELECT count(*) FROM pg_subscription), (SELECT count(*) FROM pg_replication_slots)') } $from, $to), '0|0|0 0|0|0', 'nothing is left of it');

# --- what changes meanwhile, and who waits

# The old server sweeps when we say so, and the new one another database.
$from->safe_psql('postgres', 'ALTER DATABASE uploads SET vali_blob.sweep = off');
$to->safe_psql('postgres', 'CREATE DATABASE witness');
$to->safe_psql('witness', 'CREATE EXTENSION vali_blob');
$from->safe_psql('uploads', qq{
	CREATE TABLE deleted (upload_id text);
	CREATE FUNCTION note_deleted() RETURNS trigger LANGUAGE plpgsql AS \$\$BEGIN INSERT INTO public.deleted VALUES (OLD.upload_id); RETURN OLD; END\$\$;
	CREATE TRIGGER note AFTER DELETE ON $vb.upload_session FOR EACH ROW EXECUTE FUNCTION note_deleted();
	CREATE TRIGGER note AFTER DELETE ON $vb.upload_part FOR EACH ROW EXECUTE FUNCTION note_deleted()});
$router->safe_psql('router', "CREATE USER MAPPING FOR CURRENT_USER SERVER $server");
as_app($router, qq{SELECT start_upload('file', 10, upload_id => '$_', ttl => '1 second', provider_data => '{"a": 1}')}) foreach @of_5[ 0 .. 2 ];
as_app($router, qq{SELECT start_upload('file', 100, upload_id => '$of_5[3]', any_order => true)});
as_app($router, qq{SELECT advance_upload('$of_5[3]', 0, 10, etag => 'e')});
$writer = lock_out();

$script = start_move('5', $to, arguments => [ '--locked-for', 600 ]);
wait_for_lock('false');
$router->safe_psql('router', "SELECT $api.set_upload_quota('bob', 7)");
is(as_app($router, qq{SELECT outcome FROM try_advance_upload('$of_5[3]', 10, 10)}), 'advanced', 'calls are answered while it waits for its lock');
foreach (1, 2)    # the second one began after the first sweep
{
	$to->safe_psql('witness', "SELECT start_upload('file', upload_id => 'seen-$_', ttl => '1 second')");
	$to->poll_query_until('witness', "SELECT status = 'expired' FROM upload_session WHERE upload_id = 'seen-$_'");
}
is($to->safe_psql('uploads', "SELECT count(*) FROM $vb.upload_session WHERE status = 'expired'"), '0', 'the new server expires nothing meanwhile');
$from->safe_psql('postgres', 'ALTER DATABASE uploads RESET vali_blob.sweep');
$from->poll_query_until('uploads', "SELECT count(*) = 3 FROM $vb.upload_session WHERE status = 'expired'");

# A call that waits for the lock as its connection to the router ends
$to->poll_query_until('uploads', "SELECT count(*) = 3 FROM $vb.upload_session WHERE status = 'expired'");
$slow = $to->background_psql('uploads');
$slow->query_safe("BEGIN; LOCK TABLE $vb.upload_session IN SHARE MODE");
$writer->query_safe("SELECT $vb.advance_upload('$of_5[3]', 20, 10); COMMIT");
wait_for_lock('true');
my $caller = $router->background_psql('router', on_error_stop => 0, extra_params => [ '-U', 'app' ]);
$caller->query_until(qr/it begins/, "\\echo it begins\nSELECT start_upload('file', upload_id => '$of_5[4]');\n");
$from->poll_query_until('uploads', q{SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'app' AND cardinality(pg_blocking_pids(pid)) > 0});
$router->safe_psql('postgres', q{SELECT pg_terminate_backend(pid, 100000) FROM pg_stat_activity WHERE usename = 'app'});
$slow->query_safe('COMMIT');
ok($script->{run}->finish, 'moved') or diag $script->{output};
as_app($router, qq{SELECT start_upload('file', upload_id => '$of_5[4]')});
is($from->safe_psql('uploads', "SELECT count(*) FROM $vb.upload_session WHERE upload_id = '$of_5[4]'"), '0', 'what waited, and nobody waits for, is not done on the old server');
is(as_app($router, 'SELECT count(*) - count(DISTINCT upload_id) FROM list_uploads(max_rows => 10000)'), '0', '... so that no session is on two');
is($to->safe_psql('uploads', "SELECT max_live_uploads FROM $vb.upload_quota WHERE owner = 'bob'"), '7', 'a limit that was set meanwhile holds');
is(as_app($router, qq{SELECT uploaded_bytes FROM get_upload('$of_5[3]')}), '30', 'a chunk that was confirmed meanwhile is there');
is($from->safe_psql('uploads', 'SELECT count(*) FROM deleted'), '0', 'no trigger saw the rows that moved');
is($from->safe_psql('uploads', "SELECT count(*) FROM $vb.upload_part WHERE upload_id = '$of_5[3]'"), '0', '... the parts, too');
$to->poll_query_until('uploads', "SELECT count(*) = 3 FROM $vb.upload_session WHERE status = 'expired'");
my %reclaims = map { ($_ => 0) } @of_5[ 0 .. 2 ];
$reclaims{$_}++ foreach grep { exists $reclaims{$_} } split /\n/, everywhere('upload_reclaim', 'upload_id');
is_deeply(\%reclaims, { map { ($_ => 1) } @of_5[ 0 .. 2 ] }, 'what expired meanwhile has one row in the reclaim queue');
$caller->{run}->finish;
$_->quit foreach $writer, $slow;

# --- the connection breaks as the router is told

my $folder = PostgreSQL::Test::Utils::tempdir_short();
my ($psql) = grep { -x } map { "$_/psql" } split /:/, $ENV{PATH};
append_to_file("$folder/psql", <<"SCRIPT");
#!/usr/bin/env bash
[[ " \$* " == *" server="* ]] || exec $psql "\$@"
commands=\$(cat)
$psql "\$@" <<<"\$commands" || exit
[[ \$commands != *"lock_timeout = '10s'"* ]]
SCRIPT
chmod 0755, "$folder/psql";
$script = start_move('2', $shards[5], folder => $folder);
ok(!$script->{run}->finish, 'the script fails if it does not hear that the router knows');
like($script->{output}, qr/: moved, as the router knows/, '... which it asks') or diag $script->{output};
unlike($script->{output}, qr/not moved/, '... and is sure of');
run_printed($script->{output}, $shards[2], $shards[5]);
@server[ 2, 5 ] = (5, 1);
each_is_in_its_place('after that each upload is where the router looks for it');
is(as_app($router, 'SELECT count(*) - count(DISTINCT upload_id) FROM list_uploads(max_rows => 10000)'), '0', '... and only there');
is($_->safe_psql('postgres', q{SELECT count(*) FROM pg_db_role_setting, unnest(setconfig) AS c WHERE c LIKE 'vali\_blob.sweep=%'}), '0', '... and the worker sweeps') foreach $to, $shards[5];

$_->stop foreach $router, @shards;
done_testing();
