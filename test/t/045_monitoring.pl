# Watching it: upload_stats is exact for live sessions, also where counting them all is
# too much to do each time, and marks what is of before; each alert fires if
# something is wrong, and only then; and the exporter shows what SQL does.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use IO::Socket::INET;
use IPC::Open2;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SweeperTest;
use Test::More;
use Time::HiRes qw(usleep);
use UploadTest;

my $root = "$FindBin::Bin/../..";
my $seed = $ENV{RANDOM_SEED} // time;
note "RANDOM_SEED=$seed";
srand $seed;

# --- upload_stats of a large table

my $node = upload_node('main', allows_streaming => 1, conf => q{
vali_blob.sweep = off
max_prepared_transactions = 10
autovacuum = off
});

# Sessions that have ended, so many that they are not counted each time.
sub fill
{
	my ($dbname) = @_;

	$node->safe_psql($dbname, q{
		INSERT INTO upload_session (path, total_size, uploaded_bytes, status, expires_at)
		SELECT 'file', 10, 10, 'complete', now() + interval '1 day' FROM generate_series(1, 60000);
		ANALYZE upload_session});
	return;
}

# How many rows of live sessions are wrong, whether one of them is an estimate, and
# whether those of ended ones are.
my $compare = q{
	WITH told AS MATERIALIZED (SELECT * FROM upload_stats),
	truth AS (SELECT status, count(*) AS sessions, sum(uploaded_bytes) AS bytes, min(expires_at) AS deadline
		FROM upload_session WHERE status IN ('pending', 'in_progress') GROUP BY status)
	SELECT count(*) FILTER (WHERE told.status IN ('pending', 'in_progress')
			AND (told.sessions, told.bytes, told.bytes_in_flight, told.oldest_deadline)
				IS DISTINCT FROM (coalesce(truth.sessions, 0), coalesce(truth.bytes, 0), coalesce(truth.bytes, 0), truth.deadline)),
		bool_or(estimated) FILTER (WHERE told.status IN ('pending', 'in_progress')),
		bool_or(estimated) FILTER (WHERE told.status = 'complete')
	FROM told LEFT JOIN truth USING (status)};

# Ask in a session until it answers so.
sub await_answer
{
	my ($session, $query, $expected) = @_;
	my $answer;

	foreach (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		$answer = answer($session, $query);
		return 1 if $answer eq $expected;
		usleep(100_000);
	}
	diag "still $answer";
	return 0;
}

fill('postgres');
my $watcher = $node->background_psql('postgres');
is(answer($watcher, $compare), '0|f|f', 'the first time all sessions are counted');
ok(await_answer($watcher, $compare, '0|f|t'), 'then the live ones only, and the others are marked');

# Several writers live random lives at once, with transactions that overlap.
my @writers = map { { session => $node->background_psql('postgres', on_error_stop => 0), number => $_, open => 0, ids => [], prepared => [] } } 0 .. 3;
my $started = 0;

sub step
{
	my ($writer) = @_;
	my $id = $writer->{ids}[ rand @{ $writer->{ids} } ] // 'none';
	my $kind = int rand 12;

	if ($kind <= 2)
	{
		$id = "w$writer->{number}_" . ++$started;
		push @{ $writer->{ids} }, $id;
		return "SELECT FROM start_upload('file', 10, upload_id => '$id'" . (rand() < 0.3 ? q{, provider_data => '{"a": 1}')} : ')');
	}
	return "SELECT FROM try_advance_upload('$id', " . int(rand 3) . ', ' . int(rand 10) . ')' if $kind <= 4;
	return "SELECT FROM try_advance_upload('$id', 0, 10, final => true)" if $kind == 5;
	return "SELECT FROM get_upload('$id') AS u, abort_upload(u.upload_id) WHERE u.status IN ('pending', 'in_progress')" if $kind == 6;
	return "SELECT FROM delete_upload('$id')" if $kind == 7;
	return "UPDATE upload_session SET expires_at = '-infinity' WHERE upload_id = '$id'; SELECT FROM sweep_uploads()" if $kind == 8 && !$writer->{open};
	return '' if $kind == 9 || $kind == 8;
	$writer->{open} = !$writer->{open};
	return 'BEGIN' if $writer->{open};
	return ('COMMIT', 'COMMIT', 'ROLLBACK', 'PREPARE')[ rand 4 ];
}

my %answers;
foreach my $step (1 .. 400)
{
	my $writer = $writers[ rand @writers ];
	my $sql = step($writer);

	if ($sql eq 'PREPARE')
	{
		# it is ended some steps later, and what it has locked is left alone
		$sql = "PREPARE TRANSACTION 'p$step'";
		push @{ $writer->{prepared} }, "p$step";
		$writer->{ids} = [];
	}
	$writer->{session}->query($sql) if $sql;
	if (@{ $writer->{prepared} } && !$writer->{open} && rand() < 0.2)
	{
		my $name = shift @{ $writer->{prepared} };
		$writer->{session}->query((rand() < 0.7 ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$name'");
	}
	my $answer = answer($watcher, $compare);
	$answers{$answer}++;
	note "step $step, $sql: $answer" if $answer !~ /^0\|f/;
}
is(join(' ', grep { !/^0\|f/ } keys %answers), '', 'live sessions are exact after every step');
cmp_ok($answers{'0|f|t'} // 0, '>', 200, 'most of the time without counting all');
foreach my $writer (@writers)
{
	$writer->{session}->query('ROLLBACK');
	$writer->{session}->quit;
}
$node->safe_psql('postgres', "ROLLBACK PREPARED '$_'") foreach split /\n/, $node->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts');
ok(await_answer($watcher, $compare, '0|f|t'), '... and after all of them');

# A transaction that has drawn an id before others, and commits after them.
my $late = $node->background_psql('postgres');
foreach my $how ('COMMIT', "PREPARE TRANSACTION 'late'")
{
	ok(await_answer($watcher, $compare, '0|f|t'), 'a count from the list');
	$late->query_safe(q{BEGIN; SELECT FROM start_upload('file')});
	$node->safe_psql('postgres', q{SELECT FROM start_upload('file')});
	like(answer($watcher, $compare), qr/^0\|f/, "others are counted: $how") foreach 1 .. 3;
	$late->query_safe($how);
	like(answer($watcher, $compare), qr/^0\|f/, "so are those of a prepared transaction, or a committed one: $how");
	$late->query_safe(q{COMMIT PREPARED 'late'}) if $how =~ /^PREPARE/;
	like(answer($watcher, $compare), qr/^0\|f/, "and one that commits late: $how");
}

# A VACUUM locks the table for long, and inserts nothing.
my $vacuum = $node->background_psql('postgres', on_error_stop => 0);
my $new_watcher = $node->background_psql('postgres');
$vacuum->query_until(qr/it begins/, "\\echo it begins\nSET vacuum_cost_delay = 100; SET vacuum_cost_limit = 1; VACUUM upload_session;\n");
$node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM pg_stat_progress_vacuum');
is(answer($new_watcher, $compare), '0|f|f', 'all are counted while a VACUUM runs');
$node->safe_psql('postgres', q{SELECT FROM start_upload('file')});
ok(await_answer($new_watcher, $compare, '0|f|t'), '... and then the live ones');
$node->safe_psql('postgres', 'SELECT pg_cancel_backend(pid) FROM pg_stat_progress_vacuum');
$_->quit foreach $vacuum, $new_watcher;

# What the watcher itself has written, and takes back.
$node->safe_psql('postgres', q{SELECT FROM start_upload('file', 10, upload_id => 'back')});
ok(await_answer($watcher, $compare, '0|f|t'), 'a count from the list');
$watcher->query_safe(q{BEGIN; SELECT FROM abort_upload('back'); SELECT FROM start_upload('file')});
like(answer($watcher, $compare), qr/^0\|f/, 'a transaction sees what it has done itself');
$watcher->query_safe('ROLLBACK');
like(answer($watcher, $compare), qr/^0\|f/, 'and not what was rolled back');

# An old snapshot.
$watcher->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM upload_session');
$node->safe_psql('postgres', q{SELECT FROM abort_upload('back'); SELECT FROM start_upload('file')});
is(answer($watcher, $compare), '0|f|f', 'with an old snapshot all that it sees is counted');
$watcher->query_safe('COMMIT');
like(answer($watcher, $compare), qr/^0\|f/, 'and with a new one');

# Rows that were moved in by hand, with an id that others have passed.
$node->safe_psql('postgres', q{INSERT INTO upload_session (id, path, expires_at) VALUES (5, 'file', now() + interval '1 hour')});
ok(await_answer($watcher, $compare, '0|f|t'), 'what was moved in is counted when all are');
$node->safe_psql('postgres', q{INSERT INTO upload_session (id, path, expires_at) VALUES (9000000000000000000, 'file', now() + interval '1 hour');
	SELECT FROM start_upload('file')});
like(answer($watcher, $compare), qr/^0\|f/, 'one with a very high id is no hindrance to those that start after it');
$node->safe_psql('postgres', q{SELECT FROM start_upload('file')});
like(answer($watcher, $compare), qr/^0\|f/, '... nor later');

# With 1.0's columns nothing can be marked, so all is counted each time.
$node->safe_psql('postgres', q{
	CREATE FUNCTION stats_1_0(OUT status upload_status, OUT sessions bigint, OUT bytes bigint, OUT bytes_in_flight bigint,
		OUT oldest_deadline timestamptz, OUT reclaim_backlog bigint)
		RETURNS SETOF record LANGUAGE C STABLE AS 'vali_blob', 'vali_blob_read_upload_stats';
	CREATE FUNCTION is_exact_1_0() RETURNS boolean LANGUAGE sql AS
		$$SELECT sessions = (SELECT count(*) FROM upload_session WHERE status = 'complete') FROM stats_1_0() WHERE status = 'complete'$$});
foreach (1 .. 3)
{
	$node->safe_psql('postgres', q{SELECT FROM start_upload('file', 0, auto_complete => true)});
	is(answer($watcher, 'SELECT is_exact_1_0()'), 't', 'the columns of 1.0 are exact');
}

# The sequence begins anew, with another table of the same name.
$node->safe_psql('postgres', 'TRUNCATE upload_session RESTART IDENTITY CASCADE');
fill('postgres');
$node->safe_psql('postgres', q{SELECT FROM start_upload('file')});
is(answer($watcher, $compare), '0|f|f', 'a table that was emptied is counted anew');

# What is dumped and restored.
my $dump = "$PostgreSQL::Test::Utils::tmp_check/large.sql";
command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr('postgres') ], 'a large table is dumped');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), '-f', $dump ], 'and restored');
my $restored = $node->background_psql('restored');
like(answer($restored, $compare), qr/^0\|f/, 'the restored one is counted');
$node->safe_psql('restored', q{SELECT FROM start_upload('file')});
ok(await_answer($restored, $compare, '0|f|t'), 'and goes on');
$restored->quit;

# --- standby, restart

$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
$node->safe_psql('postgres', q{SELECT FROM start_upload('file', upload_id => 'replicated')});
$node->wait_for_catchup($standby);
my $reader = $standby->background_psql('postgres');
is(answer($reader, $compare), '0|f|f', 'on a standby all are counted');
ok(await_answer($reader, $compare, '0|t|t'), 'and then all figures are marked');
$node->safe_psql('postgres', q{SELECT FROM abort_upload('replicated')});
$node->wait_for_catchup($standby);
ok(await_answer($reader, $compare, '0|t|t'), 'until they are counted again');
$reader->quit;
$standby->stop;

$_->quit foreach $watcher, $late;
$node->restart;
$watcher = $node->background_psql('postgres');
is(answer($watcher, $compare), '0|f|f', 'after a restart all are counted');
ok(await_answer($watcher, $compare, '0|f|t'), 'and then the live ones only');

# A sequence that gives ids to backends in advance says nothing about their order.
$node->safe_psql('postgres', 'ALTER SEQUENCE upload_session_id_seq CACHE 10');
ok(await_answer($watcher, $compare, '0|t|t'), 'with a cache of ids all figures are marked');
$watcher->quit;
$node->stop;

# --- the alerts

$node = sweeper_node('alerts', conf => q{
autovacuum = off
max_prepared_transactions = 10
wal_level = logical
});
$node->safe_psql('postgres', 'CREATE ROLE watcher LOGIN IN ROLE pg_monitor');
await($node, 'postgres', 'last_sweep IS NOT NULL FROM sweeper_status()');

my %alert;
foreach my $file ('vali_blob_alerts.sql', 'vali_blob_owner_alerts.sql')
{
	my $text = slurp_file("$root/monitoring/$file") =~ s/^--.*\n//mgr;

	foreach my $statement (split /;\n/, $text)
	{
		my ($name) = $statement =~ /SELECT '(\w+)' AS alert/ or next;
		$alert{$name} = { sql => $statement, role => $file =~ /owner/ ? 'none' : 'watcher', file => $file };
	}
}
my %tried;
my %session;

# Ask in a session that a role keeps for it.
sub ask
{
	my ($role, $sql) = @_;

	if (!$session{$role})
	{
		$session{$role} = $node->background_psql('postgres');
		$session{$role}->query_safe("SET ROLE $role");
	}
	return answer($session{$role}, $sql);
}

# An alert with other thresholds, where the file's would take too long to reach.
sub changed
{
	my ($name, %threshold) = @_;
	my $sql = $alert{$name}{sql};

	foreach my $value (keys %threshold)
	{
		$sql =~ s/\Q$value\E/$threshold{$value}/ or die "$name has no $value";
	}
	return $sql;
}

# What an alert says, with such thresholds.
sub alert
{
	my ($name, %threshold) = @_;

	$tried{$name} = 1;
	return ask($alert{$name}{role}, changed($name, %threshold));
}

# All alerts that fire, by the files as they are.
sub all_alerts
{
	return join ' ', sort grep { alert($_) ne '' } keys %alert;
}

# What psql prints of a file, called as the manual says, without empty lines around it.
my ($documented) = slurp_file("$root/doc/administration.md") =~ /^    psql (.*) --file vali_blob_alerts.sql DATABASE$/m;

sub printed
{
	my ($file) = @_;
	my ($stdout, $stderr) = ('', '');

	IPC::Run::run [ $node->installed_command('psql'), split(/ /, $documented), '--file', "$root/monitoring/$file",
		$node->connstr('postgres') . ($file =~ /owner/ ? '' : ' user=watcher') ], '>' => \$stdout, '2>' => \$stderr;
	return ($stdout . $stderr) =~ s/^\s+|\s+$//gr;
}

is(printed('vali_blob_alerts.sql'), '', 'psql prints nothing, and no error, if all is well');
is(printed('vali_blob_owner_alerts.sql'), '', '... nor for the owner');
is(all_alerts(), '', 'there is no alert if all is well');
%tried = ();

$node->safe_psql('postgres', 'ALTER DATABASE postgres SET vali_blob.sweep = off');
await($node, 'postgres', q{count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'vali_blob worker'});

foreach (
	[ 'overdue', q{INSERT INTO upload_session (path, expires_at) VALUES ('file', now() - interval '1 hour')}, qr/pending sessions/, 'DELETE FROM upload_session' ],
	[ 'reclaim_old', q{INSERT INTO upload_reclaim (reason, upload_id, path, provider_data, enqueued_at) VALUES ('aborted', 'u', 'file', '{}', now() - interval '25 hours')},
		qr/1 aborted uploads/, 'DELETE FROM upload_reclaim' ],
	[ 'reclaim_failing', q{INSERT INTO upload_reclaim (reason, upload_id, path, provider_data, attempts) VALUES ('expired', 'u', 'file', '{}', 10)},
		qr/10 attempts/, 'DELETE FROM upload_reclaim' ],
	[ 'quota_nearly_used', q{SELECT set_upload_quota('ann', 10); SELECT start_upload('file', owner => 'ann') FROM generate_series(1, 9)},
		qr/ann: 9 of 10 uploads/, q{SELECT set_upload_quota('ann', 11)} ],
	[ 'quota_nearly_used', q{SELECT set_upload_quota('bob', max_live_bytes => 100); SELECT start_upload('file', 95, owner => 'bob')},
		qr/bob: 1 of any number of uploads, 95 of 100 bytes/, q{SELECT set_upload_quota('bob', max_live_bytes => 200)} ],
	[ 'ids_nearly_used', q{SELECT setval('upload_session_id_seq', 9000000000000000000)}, qr/upload_session_id_seq/, q{SELECT setval('upload_session_id_seq', 100)} ])
{
	my ($name, $break, $expected, $mend) = @$_;

	is(alert($name), '', "$name is silent");
	$node->safe_psql('postgres', $break);
	like(alert($name), $expected, "$name fires");
	like(printed($alert{$name}{file}), qr/^$name *\|.*$expected.*$/, '... and psql prints it, and nothing else');
	$node->safe_psql('postgres', $mend);
	is(alert($name), '', "$name is silent again");
}
$node->safe_psql('postgres', 'ALTER DATABASE postgres RESET vali_blob.sweep');

# The statistics come some time after what they count.
sub await_alert
{
	my ($name, $expected, %threshold) = @_;
	my $what = $name . ('' =~ $expected ? ' is silent' : ' fires');

	foreach (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return pass($what) if alert($name, %threshold) =~ $expected;
		usleep(100_000);
	}
	return fail($what);
}

is(alert('bloat', 100000 => 1000), '', 'bloat is silent');
$node->safe_psql('postgres', q{
	INSERT INTO upload_session (upload_id, path, total_size) SELECT 'many' || n, 'file', 10 FROM generate_series(1, 5000) AS n;
	DELETE FROM upload_session WHERE upload_id LIKE 'many%' AND id % 2 = 0});
await_alert('bloat', qr/upload_session has \d+ dead rows/, 100000 => 1000);
$node->safe_psql('postgres', 'VACUUM upload_session');
$node->poll_query_until('postgres', q{SELECT n_dead_tup < 100 FROM pg_stat_all_tables WHERE relid = 'upload_session'::regclass}) or die;
is(alert('bloat', 100000 => 1000), '', 'bloat is silent again');

$node->safe_psql('postgres', q{SELECT FROM upload_session, try_advance_upload(upload_id, 0, 1) WHERE path = 'file'});
$node->poll_query_until('postgres', q{SELECT n_tup_upd > 1000 FROM pg_stat_all_tables WHERE relid = 'upload_session'::regclass}) or die;
is(alert('not_hot', 10000 => 1000), '', 'not_hot is silent');
$node->safe_psql('postgres', q{CREATE INDEX bad ON upload_session (uploaded_bytes);
	SELECT FROM upload_session, try_advance_upload(upload_id, 1, 1) WHERE path = 'file'});
await_alert('not_hot', qr/updates of upload_session were HOT/, 10000 => 1000);
$node->safe_psql('postgres', q{DROP INDEX bad; SELECT pg_stat_reset_single_table_counters('upload_session'::regclass)});
is(alert('not_hot', 10000 => 1000), '', 'not_hot is silent again');

# 300 transactions
my $burn = q{
	CREATE TEMPORARY TABLE burnt ();
	DO $$BEGIN FOR i IN 1 .. 300 LOOP BEGIN INSERT INTO burnt DEFAULT VALUES; EXCEPTION WHEN division_by_zero THEN END; END LOOP; END$$};
$node->safe_psql('postgres', 'VACUUM FREEZE upload_session, upload_part, upload_reclaim');
is(alert('wraparound', 1000000000 => 250), '', 'wraparound is silent');
await_alert('vacuum_held_back', qr/^$/, '1 hour' => '0 s');    # once all others have ended
my $holder = $node->background_psql('postgres');
$holder->query_safe(q{BEGIN; SELECT FROM start_upload('file')});
$node->safe_psql('postgres', $burn);
is($node->safe_psql('postgres', 'VACUUM FREEZE upload_session, upload_part, upload_reclaim'), '', 'vacuum cannot freeze');
like(alert('vacuum_held_back', '1 hour' => '0 s'), qr/process \d+ of \w+, in a transaction since/, 'vacuum_held_back fires: a transaction');
is(alert('vacuum_held_back'), '', 'but not at once');
like(alert('wraparound', 1000000000 => 250), qr/upload_session is \d+ transactions old/, 'wraparound fires');
$holder->query_safe(q{PREPARE TRANSACTION 'forgotten'});
like(alert('vacuum_held_back', '1 hour' => '0 s'), qr/prepared transaction forgotten of \w+/, 'vacuum_held_back fires: a prepared transaction');
$node->safe_psql('postgres', q{COMMIT PREPARED 'forgotten'});
$node->safe_psql('postgres', 'VACUUM FREEZE upload_session, upload_part, upload_reclaim');
is(alert('wraparound', 1000000000 => 250), '', 'wraparound is silent again');
$node->safe_psql('postgres', q{SELECT FROM pg_create_logical_replication_slot('forgotten', 'pgoutput')});
$node->safe_psql('postgres', $burn);
like(alert('vacuum_held_back', 10000000 => 250), qr/replication slot forgotten/, 'vacuum_held_back fires: a slot');
$node->safe_psql('postgres', q{SELECT pg_drop_replication_slot('forgotten')});
is(alert('vacuum_held_back', '1 hour' => '0 s', 10000000 => 250), '', 'vacuum_held_back is silent again');
$holder->quit;

# On hash partitions they look at each of these.
my ($swap) = slurp_file("$root/doc/vali_blob.md") =~ /^(    BEGIN;\n    LOCK TABLE upload_session;.*?    COMMIT;\n)/ms;
my %hashed = (
	bloat => changed('bloat', 100000 => 1000),
	not_hot => changed('not_hot', 10000 => 1000),
	wraparound => changed('wraparound', 1000000000 => 250));
$node->safe_psql('postgres', 'CREATE DATABASE hashed');
$node->safe_psql('hashed', "CREATE EXTENSION vali_blob; $swap");
is($node->safe_psql('hashed', $hashed{$_}), '', "$_ is silent: partitions") foreach sort keys %hashed;
$node->safe_psql('hashed', q{
	INSERT INTO upload_session (path, total_size) SELECT 'file', 10 FROM generate_series(1, 10000) AS n;
	CREATE INDEX bad ON upload_session (uploaded_bytes);
	DELETE FROM upload_session WHERE id % 2 = 0;
	UPDATE upload_session SET uploaded_bytes = 1;} . $burn);
foreach my $name (sort keys %hashed)
{
	ok($node->poll_query_until('hashed', "SELECT bool_or(detail ~ 'upload_session_2') FROM ($hashed{$name}) AS a"), "$name fires: partitions");
}
my ($tables) = slurp_file("$root/monitoring/vali_blob_postgres_exporter.yaml") =~ /^vali_blob_table:\n  query: \|\n(.*?)^  metrics/ms;
is($node->safe_psql('hashed', "SELECT string_agg(relname || ' ' || (live_rows > 1000), ', ' ORDER BY relname) FROM ($tables) AS t"),
	'upload_part false, upload_reclaim false, upload_session_0 true, upload_session_1 true, upload_session_2 true',
	'the exporter shows partitions');
$node->safe_psql('postgres', 'DROP DATABASE hashed');

# Another version.
is(alert('update_pending'), '', 'update_pending is silent');
$node->safe_psql('postgres', 'CREATE DATABASE old');
$node->safe_psql('old', q{CREATE EXTENSION vali_blob VERSION '1.0'});
like($node->safe_psql('old', $alert{update_pending}{sql}), qr/version 1\.0 is installed/, 'update_pending fires');
$node->safe_psql('old', 'ALTER EXTENSION vali_blob UPDATE');
is($node->safe_psql('old', $alert{update_pending}{sql}), '', 'update_pending is silent again');
$node->safe_psql('postgres', 'DROP DATABASE old');

# --- the exporter

my ($exporter) = grep { -x } ($ENV{VALI_BLOB_WORKPLACE} // '') . '/exporter/usr/bin/prometheus-postgres-exporter',
  '/usr/bin/prometheus-postgres-exporter';

# What a web server on this machine answers, whatever proxy is set; empty if it does not.
sub fetch
{
	my ($port) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or return '';

	print $socket "GET /metrics HTTP/1.0\r\n\r\n";
	return join '', <$socket>;
}

SKIP:
{
	skip 'prometheus-postgres-exporter is not there', 1 if !$exporter;

	$node->safe_psql('postgres', q{
		SELECT FROM start_upload('file', 100, upload_id => 'seen', provider_data => '{"a": 1}');
		SELECT FROM advance_upload('seen', 0, 42);
		SELECT FROM start_upload('file', provider_data => '{"a": 1}', upload_id => 'given up'), abort_upload('given up');
		SELECT FROM fail_reclaim((SELECT max(id) FROM upload_reclaim), 'no')});
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	local $ENV{DATA_SOURCE_NAME} = 'sslmode=disable user=watcher dbname=postgres host=' . $node->host . ' port=' . $node->port;
	# It ends when its standard input does, so with this process, however that ends.
	my $pid = open2(my $out, my $in, 'sh', '-c', '"$@" >"$0" 2>&1 & read -r line; kill -KILL $!; wait $!',
		"$PostgreSQL::Test::Utils::log_path/045_exporter.log", $exporter, "--web.listen-address=127.0.0.1:$port",
		"--extend.query-path=$root/monitoring/vali_blob_postgres_exporter.yaml", '--disable-default-metrics', '--disable-settings-metrics');
	my %metric;
	my $text = '';

	foreach (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		$text = fetch($port);
		last if $text =~ /^vali_blob_uploads_sessions/m;
		usleep(100_000);
	}
	while ($text =~ /^(vali_blob_\w+)\{(.*?)\} (\S+)$/mg)
	{
		my ($name, $labels, $value) = ($1, $2, $3);

		$labels =~ s/server="[^"]*",?//;
		$metric{ "$name " . join ' ', sort split /,/, $labels } = $value;
	}
	my $is = sub {
		my ($name, $labels, $query) = @_;
		my $sql = ask('watcher', "SELECT $query");

		cmp_ok($metric{"$name $labels"} // -1, '==', $sql, "$name $labels is what SQL says: $sql");
	};
	foreach my $status ('pending', 'in_progress', 'complete', 'aborted', 'expired')
	{
		my $labels = qq{datname="postgres" status="$status"};

		$is->('vali_blob_uploads_sessions', $labels, "sessions FROM upload_stats WHERE status = '$status'");
		$is->('vali_blob_uploads_confirmed_bytes', $labels, "bytes FROM upload_stats WHERE status = '$status'");
		$is->('vali_blob_uploads_reclaim_backlog', $labels, "reclaim_backlog FROM upload_stats WHERE status = '$status'");
		$is->('vali_blob_uploads_reclaim_attempts', $labels, "coalesce(most_attempts, 0) FROM upload_stats WHERE status = '$status'");
		$is->($_, $labels, '0') foreach 'vali_blob_uploads_overdue_seconds', 'vali_blob_uploads_estimated';
	}
	cmp_ok($metric{'vali_blob_uploads_confirmed_bytes datname="postgres" status="in_progress"'}, '>=', 42, 'bytes are counted');
	cmp_ok($metric{'vali_blob_uploads_reclaim_attempts datname="postgres" status="aborted"'}, '==', 1, 'attempts are shown');
	cmp_ok($metric{'vali_blob_uploads_reclaim_age_seconds datname="postgres" status="aborted"'}, '>', 0, 'so is the age of the queue');
	$is->('vali_blob_sweeper_running', 'datname="postgres"', '1');
	$is->('vali_blob_sweeper_expired_total', 'datname="postgres"', 'total_expired FROM sweeper_status()');
	$is->('vali_blob_sweeper_purged_total', 'datname="postgres"', 'total_purged FROM sweeper_status()');
	$is->('vali_blob_sweeper_reclaims_dropped_total', 'datname="postgres"', 'total_reclaims_dropped FROM sweeper_status()');
	cmp_ok($metric{'vali_blob_sweeper_last_sweep_timestamp_seconds datname="postgres"'}, '>', time - 3600, 'when the last sweep was');
	is($metric{'vali_blob_sweeper_last_error_timestamp_seconds datname="postgres"'}, 'NaN', 'and that none has failed');
	$is->('vali_blob_table_live_rows', 'datname="postgres" relname="upload_session"',
		q{n_live_tup FROM pg_stat_all_tables WHERE relid = 'upload_session'::regclass});
	$is->('vali_blob_table_hot_updates_total', 'datname="postgres" relname="upload_session"',
		q{n_tup_hot_upd FROM pg_stat_all_tables WHERE relid = 'upload_session'::regclass});
	$is->('vali_blob_table_size_bytes', 'datname="postgres" relname="upload_part"', q{pg_total_relation_size('upload_part')});
	my $version = $node->safe_psql('postgres', q{SELECT extversion FROM pg_extension WHERE extname = 'vali_blob'});
	$is->('vali_blob_extension_update_pending', qq{datname="postgres" version="$version"}, '0');

	# every metric of the file is there, and described
	my $file = slurp_file("$root/monitoring/vali_blob_postgres_exporter.yaml");
	my ($namespace, @missing);
	foreach (split /\n/, $file)
	{
		$namespace = $1 if /^(\w+):$/;
		push @missing, "${namespace}_$1" if /^    - (\w+):$/ && $1 !~ /^(datname|status|relname|version)$/ && $text !~ /^# HELP ${namespace}_$1 .*\n# TYPE.*\n${namespace}_$1\{/m;
	}
	is("@missing", '', 'every metric is shown');
	close $in;
	waitpid $pid, 0;
}

# --- the sweeper, whose errors stay for a while

set_conf($node, 'vali_blob.sweep_interval' => '1h');
await_alert('sweep_late', qr/last sweep: \d/, '10 minutes' => '3 seconds');
is(alert('sweep_late'), '', 'but not at once');
set_conf($node, 'vali_blob.sweep_interval' => '1s');
await_sweep($node, 'postgres');
is(alert('sweep_late', '10 minutes' => '1 minute'), '', 'sweep_late is silent again');

build_gate($node, 'postgres');
$node->safe_psql('postgres', q{
	CREATE OR REPLACE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'the disk of the application is full'; END$$});
add_stale($node, 'postgres', 'stale', 1);
await_alert('sweep_failing', qr/the disk of the application is full/);
$node->safe_psql('postgres', 'DROP TRIGGER gate ON upload_session');

is(alert('reclaims_dropped'), '', 'reclaims_dropped is silent');
$node->safe_psql('postgres', q{INSERT INTO upload_reclaim (reason, upload_id, path, provider_data, enqueued_at)
	VALUES ('aborted', 'u', 'file', '{}', now() - interval '31 days')});
await_alert('reclaims_dropped', qr/1 rows of the reclaim queue/);

is(alert('sweeper_down'), '', 'sweeper_down is silent');
$_->quit foreach values %session;
%session = ();
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
like(alert('sweeper_down'), qr/no launcher is running/, 'sweeper_down fires');
is(alert('reclaims_dropped'), '', 'reclaims_dropped is silent again');
$node->safe_psql('postgres', 'SELECT start_sweeper()');
is(alert('sweeper_down'), '', 'sweeper_down is silent again');

is(join(' ', grep { !$tried{$_} } sort keys %alert), '', 'every alert was tried');
$_->quit foreach values %session;
$node->stop;
done_testing();
