# Limits of owners on whole servers: exact, while 16 processes start, confirm, end and
# sweep uploads, and after SIGKILL for the server; for clients without privileges, and
# with policies; on standbys, in dumps, and in databases that were updated from 1.0.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use IO::Handle;
use IPC::Open2;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use UploadTest;

my $seed = $ENV{RANDOM_SEED} || time;

note "RANDOM_SEED=$seed";
srand $seed;

my $node = upload_node('main', allows_streaming => 1, conf => "max_connections = 30\nvali_blob.sweep = off\ndeadlock_timeout = '10ms'\nautovacuum = off");
my @ways = ('auto', 'sql');

# What upload_live and the live sessions of the owners that are counted do not have in
# common.
my $difference = q{
	WITH
		live AS (
			SELECT s.owner, s.upload_id, coalesce(s.total_size, s.size_limit, 0) AS bytes, s.expires_at
			  FROM upload_session s JOIN upload_quota q USING (owner)
			 WHERE q.counted AND s.status IN ('pending', 'in_progress')),
		recorded AS (
			SELECT l.owner, l.upload_id, l.bytes, l.expires_at
			  FROM upload_live l JOIN upload_quota q USING (owner)
			 WHERE q.counted)
	SELECT 'live', l.* FROM (TABLE live EXCEPT TABLE recorded) l
	UNION ALL
	SELECT 'recorded', r.* FROM (TABLE recorded EXCEPT TABLE live) r};

# --- privileges and policies, for each access path

$node->safe_psql('postgres', q{
	CREATE ROLE client;
	CREATE ROLE other;
	CREATE ROLE owner;
	GRANT CREATE ON SCHEMA public TO owner;
	SELECT grant_upload_access('client'), grant_upload_access('other')});
is($node->safe_psql('postgres', q{
		SELECT relname FROM pg_class
		WHERE relname IN ('upload_quota', 'upload_live') AND has_table_privilege('client', oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')}),
	'', 'a client has no privilege on the tables of limits');
foreach my $way (@ways)
{
	my $as_client = "SET vali_blob.row_access = $way; SET ROLE client";

	$node->safe_psql('postgres', q{
		SELECT start_upload('file', owner => 'bob', upload_id => 'sizeless');
		SELECT set_upload_quota('ann', 1), set_upload_quota('bob', -1, 100)});
	is_deeply(
		[ sqlstates_of($node, 'postgres', $as_client,
			map { "SELECT $_" } q{start_upload('file', 10, owner => 'ann', upload_id => 'a1')},
			q{start_upload('file', 10, owner => 'ann', upload_id => 'a2')},
			q{advance_upload('a1', 0, 10, true)},
			q{start_upload('file', 10, owner => 'ann', upload_id => 'a2')},
			q{abort_upload('a2')},
			q{start_upload('file', 10, owner => 'ann', upload_id => 'a3', ttl => '1 microsecond')},
			q{start_upload('file', 10, owner => 'ann', upload_id => 'a4')},
			q{sweep_uploads()},
			q{start_upload('file', 10, owner => 'ann', upload_id => 'a5')},
			q{delete_upload('a4')},
			q{start_upload('file', 10, owner => 'ann', upload_id => 'a5')},
			q{start_upload('file', 50, owner => 'bob', upload_id => 'b1')},
			q{declare_upload_size('sizeless', 51)},
			q{declare_upload_size('sizeless', 50)},
			q{upload_usage('ann')},
			q{set_upload_quota('ann', 100)}) ],
		[ '00000', 'VB009', ('00000') x 6, 'VB009', ('00000') x 3, 'VB009', '00000', '00000', '42501' ],
		"a client without privileges on them has limits, row_access = $way");
	is($node->safe_psql('postgres', $difference), '', "... and its uploads are recorded, row_access = $way");

	# a policy that shows each role its own sessions, of one tenant; forced or not
	foreach my $forced ('', 'ALTER TABLE upload_session FORCE ROW LEVEL SECURITY')
	{
		$node->safe_psql('postgres', qq{
			TRUNCATE upload_session, upload_quota, upload_live CASCADE;
			ALTER TABLE upload_session OWNER TO owner;
			ALTER TABLE upload_session ENABLE ROW LEVEL SECURITY;
			$forced;
			CREATE POLICY own ON upload_session USING (path = current_user);
			SELECT set_upload_quota('tenant', 3)});
		my $starts = 'SELECT ' . join ', ', map { qq{start_upload(current_user::text, 10, owner => 'tenant')} } 1 .. 2;
		is_deeply(
			[ map { sqlstates_of($node, 'postgres', "SET vali_blob.row_access = $way; SET ROLE $_", "SELECT start_upload(current_user::text, 10, owner => 'tenant')", $starts) } 'client', 'other' ],
			[ '00000', '00000', 'VB009', 'VB009' ],
			"what a policy hides counts" . ($forced && ', a forced one') . ", row_access = $way");
		is_deeply(
			[ map { $node->safe_psql('postgres', "SET ROLE $_; SELECT * FROM upload_usage('tenant')") } 'client', 'other' ],
			[ '3|30|0|3|', '0|0|0|3|' ], '... and is not shown');
		is($node->safe_psql('postgres', $difference), '', '... and stays counted');
		$node->safe_psql('postgres', q{
			DROP POLICY own ON upload_session;
			ALTER TABLE upload_session NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY;
			ALTER TABLE upload_session OWNER TO current_user;
			TRUNCATE upload_session, upload_quota, upload_live CASCADE});
	}
}

# --- a standby, and read-only transactions

$node->safe_psql('postgres', q{
	SELECT start_upload('file', 10, owner => 'free', upload_id => 'free');
	SELECT set_upload_quota('ann', 2, 100, 60);
	SELECT start_upload('file', 60, owner => 'ann', upload_id => 'a1'), advance_upload('a1', 0, 7);
	SELECT start_upload('file', owner => 'ann', size_limit => 30, upload_id => 'a2')});
my $usage = q{SELECT * FROM upload_usage('ann'); SELECT * FROM upload_usage('free')};
my $used = "2|90|7|2|100\n1|10|0||";
$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
is($standby->safe_psql('postgres', $usage), $used, 'a standby tells what is used');
is($standby->safe_psql('postgres', "SET vali_blob.max_live_uploads = 5; $usage"), $used =~ s/0\|\|$/0|5|/r, '... and what a setting says');
is(sqlstate_of($standby, $_), '25006', "$_ on a standby") foreach q{SELECT set_upload_quota('ann', 5)}, q{SELECT start_upload('file', 10, owner => 'ann')};
$standby->stop;
is($node->safe_psql('postgres', "BEGIN READ ONLY; $usage"), $used, 'a read-only transaction tells what is used');
is(sqlstate_of($node, q{BEGIN READ ONLY; SELECT set_upload_quota('ann', 5)}), '25006', '... and sets no quota');

# --- a table that is missing

$node->safe_psql('postgres', 'ALTER TABLE upload_quota RENAME TO away');
is(sqlstate_of($node, q{SELECT start_upload('file', 10, owner => 'ann')}), '42P01', 'no limit is passed by where upload_quota is missing');
is(sqlstate_of($node, q{SET vali_blob.max_live_uploads = 5; SELECT start_upload('file', 10, owner => 'bob')}), '42P01', '... nor that of a setting');
$node->safe_psql('postgres', 'ALTER TABLE away RENAME TO upload_quota');

# --- a dump

my $tables = q{SELECT to_jsonb(q) FROM upload_quota q ORDER BY owner; SELECT to_jsonb(l) FROM upload_live l ORDER BY upload_id};
foreach my $format ('plain', 'custom')
{
	my $dump = "$PostgreSQL::Test::Utils::tmp_check/quota.$format";

	$node->safe_psql('postgres', "CREATE DATABASE restored_$format");
	command_ok([ 'pg_dump', "--format=$format", '-f', $dump, '-d', $node->connstr('postgres') ], "a $format dump");
	command_ok([ $format eq 'plain' ? ('psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f') : ('pg_restore', '--exit-on-error'), $dump, '-d', $node->connstr("restored_$format") ], 'is restored');
	is($node->safe_psql("restored_$format", $tables), $node->safe_psql('postgres', $tables), '... with all quotas');
	is($node->safe_psql("restored_$format", $usage), $used, '... and what is used');
	is_deeply(
		[ sqlstates_of($node, "restored_$format", 'SET ROLE client', q{SELECT start_upload('file', 10, owner => 'ann')},
			q{SELECT abort_upload('a2')}, q{SELECT start_upload('file', 41, owner => 'ann')}, q{SELECT start_upload('file', 40, owner => 'ann')}) ],
		[ 'VB009', '00000', 'VB009', '00000' ], '... and the limits hold');
}

# --- the objects of 1.0, and the update

$node->safe_psql('postgres', 'CREATE DATABASE updated');
$node->safe_psql('updated', q{
	CREATE EXTENSION vali_blob VERSION '1.0';
	SELECT grant_upload_access('client');
	SELECT start_upload('file', 10, owner => 'ann', upload_id => 'a' || n) FROM generate_series(1, 3) AS n;
	SELECT start_upload('file', owner => 'ann', upload_id => 'sizeless');
	SELECT abort_upload('a3')});
my $before = $node->background_psql('updated');
$before->query_safe(q{SELECT status FROM get_upload('a1')});
foreach my $setting ('max_upload_size', 'max_live_uploads', 'max_live_bytes')
{
	my ($rc, $stdout, $stderr) = $node->psql('updated', "SET vali_blob.$setting = 100; SELECT start_upload('file', 10, owner => 'ann')", extra_params => [ '-v', 'VERBOSITY=verbose' ]);

	like($stderr, qr/ERROR:  55000: limits on uploads need version 1\.1 of extension "vali_blob"\nHINT:  Run ALTER EXTENSION vali_blob UPDATE, or set vali_blob\.max_upload_size, vali_blob\.max_live_uploads and vali_blob\.max_live_bytes to -1\./,
		"$setting needs the objects of 1.1");
	is($node->safe_psql('updated', "SET vali_blob.$setting = 100; SELECT outcome FROM try_advance_upload('a1', 0, 0); SELECT total_size FROM declare_upload_size('a1', 10)"), "advanced\n10", '... chunks do not');
}
is(sqlstate_of($node, q{SET vali_blob.max_live_uploads = 1; SELECT start_upload('file', 10)}, 'updated'), '00000', 'an upload without an owner has no such limit');
is($node->safe_psql('updated', q{SELECT upload_id FROM start_upload('file', 10, owner => 'ann', upload_id => 'a4')}), 'a4', 'without the settings, uploads of 1.0 are started');
$node->safe_psql('updated', q{ALTER EXTENSION vali_blob UPDATE; SELECT set_upload_quota('ann', 5, 70)});
is(answer($before, q{SELECT live_uploads, live_bytes, max_live_uploads FROM upload_usage('ann')}), '4|30|5', 'after the update, what was live before is used');
is_deeply(
	[ sqlstates_of($node, 'updated', 'SET ROLE client', map { "SELECT $_" } q{start_upload('file', 41, owner => 'ann')}, q{start_upload('file', 30, owner => 'ann')},
		q{declare_upload_size('sizeless', 11)}, q{start_upload('file', 0, owner => 'ann')}, q{declare_upload_size('sizeless', 10)},
		q{abort_upload('a1')}, q{start_upload('file', 10, owner => 'ann')}) ],
	[ 'VB009', '00000', 'VB009', 'VB009', '00000', '00000', '00000' ], '... and counts');
is($node->safe_psql('updated', $difference), '', '... and is recorded');
is(answer($before, q{DO $$ BEGIN PERFORM start_upload('file', 0, owner => 'ann'); EXCEPTION WHEN SQLSTATE 'VB009' THEN PERFORM set_config('a.state', SQLSTATE, false); END $$; SELECT current_setting('a.state')}),
	'VB009', 'a session from before the update has limits');
$before->quit;

# --- many that have ended

$node->safe_psql('postgres', 'CREATE DATABASE many');
$node->safe_psql('many', q{
	CREATE EXTENSION vali_blob;
	INSERT INTO upload_session (upload_id, path, owner, total_size, uploaded_bytes, status, expires_at)
		SELECT 'many' || n, 'file', 'many', 10, 10, CASE WHEN n % 11 = 0 THEN 'in_progress' ELSE 'complete' END::upload_status, now() + interval '1 day'
		FROM generate_series(1, 110000) AS n;
	INSERT INTO upload_session (upload_id, path, owner, total_size, expires_at)
		SELECT 'some' || n, 'file', 'some', 10, now() + interval '1 day' FROM generate_series(1, 100) AS n;
	VACUUM ANALYZE upload_session;
	SELECT set_upload_quota('many', 20000), set_upload_quota('some', 101);
	SELECT start_upload('file', 10, owner => 'many'), start_upload('file', 10, owner => 'some')});
is($node->safe_psql('many', q{SELECT live_uploads, live_bytes FROM upload_usage('many')}), '10001|100010', '10,000 live and 100,000 ended uploads');
foreach my $way (@ways)
{
	my $reads = q{SELECT seq_scan, idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'upload_session'};
	my ($scans, $fetched) = split /\|/, $node->safe_psql('many', qq{
		SET vali_blob.row_access = $way;
		BEGIN;
		SELECT FROM start_upload('file', 10, owner => 'many');
		$reads}) =~ s/^\n//r;

	is($scans, 0, "a start scans no table, row_access = $way");
	cmp_ok($fetched, '<=', 2, '... and reads no session but its own');
	($scans, $fetched) = split /\|/, $node->safe_psql('many', qq{
		SET vali_blob.row_access = $way;
		BEGIN;
		DO \$\$ BEGIN PERFORM start_upload('file', 10, owner => 'some'); RAISE 'not refused'; EXCEPTION WHEN SQLSTATE 'VB009' THEN NULL; END \$\$;
		$reads});
	is($scans, 0, "nor does one that is refused, row_access = $way");
	cmp_ok($fetched, '<=', 110, '... which reads the live ones');
}

# --- limits that are set again and again, while others start

$node->safe_psql('postgres', 'CREATE DATABASE again');
# an index, so that each new version of the row has an index entry of its own
$node->safe_psql('again', q{
	CREATE EXTENSION vali_blob;
	CREATE INDEX own ON upload_quota (max_live_bytes);
	SELECT set_upload_quota('none', 0)});
$node->pgbench(
	'--no-vacuum --client=10 --jobs=2 --transactions=1500 again',
	0,
	[qr{processed: 15000/15000}],
	[qr{^(?!.*(?:ERROR|aborted))}s],
	'an owner with the limit 0, which is set again and again',
	{
		'set@2' => "\\set bytes random(1, 1000000)\nSELECT set_upload_quota('none', 0, :bytes);",
		'start@3' => q{DO $$ BEGIN PERFORM start_upload('file', 1, owner => 'none'); EXCEPTION WHEN SQLSTATE 'VB009' THEN NULL; END $$;} });
is($node->safe_psql('again', 'SELECT count(*) FROM upload_session'), '0', '... never starts an upload');

# --- many at once

my $workers = 16;
my %limit = (
	'few' => [ 3, 'NULL' ], 'more' => [ 10, 'NULL' ], 'bytes' => [ 'NULL', 1000 ], 'both' => [ 8, 500 ],
	'by setting' => undef);
my ($uploads_setting, $bytes_setting) = (6, 2000);
my $exceeded = q{
	SELECT s.owner, count(*), sum(coalesce(total_size, size_limit))
	  FROM upload_session s JOIN "limit" USING (owner)
	 WHERE status IN ('pending', 'in_progress') AND expires_at > clock_timestamp()
	 GROUP BY s.owner, uploads, bytes
	HAVING count(*) > uploads OR sum(coalesce(total_size, size_limit)) > bytes};

# A random live upload of an owner, or some of all owners.
sub any_of { my ($owner) = @_; return "(SELECT * FROM upload_session WHERE owner = '$owner' AND status IN ('pending', 'in_progress') ORDER BY random() LIMIT 1) AS s"; }

# A random operation: what it is called, and its statements.
sub random_operation
{
	my $owner = (sort keys %limit)[ rand keys %limit ];
	my $size = 1 + int rand 200;
	my $args = (qw(NULL false))[ rand 2 ] eq 'NULL' ? "NULL, size_limit => $size" : $size;
	my $options = "owner => '$owner', auto_complete => " . (qw(true false))[ rand 2 ] . ', any_order => ' . (qw(true false))[ rand 2 ];
	my $start = "SELECT FROM start_upload('file', $args, $options)";
	my $any = any_of($owner);
	my $chunk = "SELECT try_advance_upload(upload_id, uploaded_bytes, coalesce(total_size, size_limit) - uploaded_bytes, final => true) FROM $any";
	my $which = rand 100;

	return (start => $start) if $which < 45;
	return (final => $chunk) if $which < 55;
	return (chunk => "SELECT try_advance_upload(upload_id, uploaded_bytes, 1) FROM $any") if $which < 60;
	return (declare => "SELECT declare_upload_size(upload_id, size_limit - 1) FROM $any WHERE total_size IS NULL AND uploaded_bytes < size_limit") if $which < 65;
	return (abort => "SELECT abort_upload(upload_id) FROM $any") if $which < 72;
	return (delete => "SELECT delete_upload(upload_id) FROM $any") if $which < 79;
	return (batch => q{SELECT advance_uploads(array_agg(upload_id), array_agg(uploaded_bytes), array_agg(coalesce(total_size, size_limit) - uploaded_bytes))
		FROM (SELECT * FROM upload_session WHERE status IN ('pending', 'in_progress') ORDER BY random() LIMIT 5) AS s}) if $which < 84;
	return (sweep => 'SELECT sweep_uploads(10)') if $which < 87;
	# as if time had passed
	return (overdue => "WITH late AS (UPDATE upload_session SET expires_at = now() - interval '1 s' WHERE upload_id = (SELECT upload_id FROM $any) AND status IN ('pending', 'in_progress') RETURNING *)
		UPDATE upload_live l SET expires_at = late.expires_at FROM late WHERE late.upload_id = l.upload_id") if $which < 91;
	return (undone => 'BEGIN', $start, 'ROLLBACK') if $which < 94;
	return (both => 'BEGIN', $start, $chunk, 'COMMIT') if $which < 98;
	return (usage => "SELECT upload_usage('$owner')") if $which < 99 || !$limit{$owner};
	# the same again, which counts anew
	return (quota => "SELECT set_upload_quota('$owner', $limit{$owner}[0], $limit{$owner}[1])");
}

# Which errors an operation may meet, as another one may end or delete its upload first.
sub is_allowed
{
	my ($operation, $sqlstate) = @_;

	return $sqlstate eq '00000' || $sqlstate eq 'VB009' && $operation =~ /start|undone|both/ ||
	  $sqlstate =~ /VB00[134]/ && $operation =~ /abort|declare/ || $sqlstate eq 'VB007' && $operation eq 'declare' ||
	  $sqlstate eq 'VB005' && $operation eq 'declare' || $sqlstate eq '25P02' && $operation eq 'both';
}

# Run a statement in a psql.  Returns its SQLSTATE and the lines that it prints, or
# nothing once the connection is broken.
sub ask
{
	my ($commands, $answers, $statement) = @_;
	my @lines;

	print $commands "$statement;\n\\echo SQLSTATE :SQLSTATE\n";
	while (my $line = <$answers>)
	{
		chomp $line;
		return ($1, @lines) if $line =~ /^SQLSTATE (\w+)/;
		push @lines, $line;
	}
	return;
}

# Start a process with a psql of its own, which runs $code and reports to a pipe.
sub start_process
{
	my ($way, $reports, $report, $code) = @_;
	my $child_seed = int rand 2**31;
	my $pid = fork // die "fork: $!";

	return if $pid;
	close $reports;
	open STDERR, '>', '/dev/null';
	srand $child_seed;
	local $SIG{PIPE} = 'IGNORE';
	local $ENV{PGOPTIONS} = "-c vali_blob.row_access=$way -c vali_blob.max_live_uploads=$uploads_setting -c vali_blob.max_live_bytes=$bytes_setting";
	my $psql = open2(my $answers, my $commands, 'psql', '-XAtq', '-d', $node->connstr("race_$way"));
	$commands->autoflush(1);
	$code->($commands, $answers, $report);
	close $commands;
	waitpid $psql, 0;
	# without the END blocks, which would stop the server
	POSIX::_exit(0);
}

sub work
{
	my ($operations, $commands, $answers, $report) = @_;

	foreach (1 .. $operations)
	{
		my ($operation, @statements) = random_operation();

		foreach my $statement (@statements)
		{
			my ($sqlstate) = ask($commands, $answers, $statement) or return;
			syswrite $report, "$operation $sqlstate\n";
		}
	}
	syswrite $report, "done 00000\n";
	return;
}

# See again and again, with one snapshot, whether an owner has more than it may.
sub watch
{
	my ($stop, $commands, $answers, $report) = @_;

	while (!-e $stop)
	{
		my ($sqlstate, @lines) = ask($commands, $answers, $exceeded) or return;
		syswrite $report, join(' ', 'watch', @lines ? "exceeded: @lines" : $sqlstate) . "\n";
	}
	return;
}

# Let 16 processes work.  Returns what they report: how often each operation had each
# SQLSTATE.  The server is killed after so many reports, if a number is given.  It goes on
# until the process that watches has looked some times.
sub race
{
	my ($way, $name, $operations, $kill_after) = @_;
	my $stop = "$PostgreSQL::Test::Utils::tmp_check/stop $way $name";
	my ($heard, $watched, %heard) = (0, 0);

	pipe my $reports, my $report or die "pipe: $!";
	start_process($way, $reports, $report, sub { work($operations, @_) }) foreach 1 .. $workers;
	start_process($way, $reports, $report, sub { watch($stop, @_) });
	close $report;
	while (my $line = <$reports>)
	{
		chomp $line;
		$heard{$line}++;
		$heard++;
		$watched++ if $line =~ /^watch /;
		next if -e $stop || $watched <= 5;
		append_to_file($stop, '') if ($heard{'done 00000'} // 0) == $workers;
		if ($kill_after && $heard >= $kill_after)
		{
			$node->kill9;
			append_to_file($stop, '');
		}
	}
	1 while waitpid(-1, 0) > 0;
	return %heard;
}

foreach my $way (@ways)
{
	my $dbname = "race_$way";
	my $as_owner = "SET vali_blob.row_access = $way; SET vali_blob.max_live_uploads = $uploads_setting; SET vali_blob.max_live_bytes = $bytes_setting";

	$node->safe_psql('postgres', "CREATE DATABASE $dbname");
	$node->safe_psql($dbname, q{CREATE EXTENSION vali_blob; CREATE TABLE "limit" (owner text, uploads bigint, bytes bigint)});
	foreach my $owner (sort keys %limit)
	{
		my ($uploads, $bytes) = $limit{$owner} ? @{ $limit{$owner} } : ('NULL', 'NULL');

		# some are there before anything is counted
		$node->safe_psql($dbname, "SELECT start_upload('file', 10, owner => '$owner') FROM generate_series(1, 2)");
		$node->safe_psql($dbname, "SELECT set_upload_quota('$owner', $uploads, $bytes)") if $limit{$owner};
		$node->safe_psql($dbname, "$as_owner; SELECT start_upload('file', 10, owner => '$owner')");
		$node->safe_psql($dbname, qq{INSERT INTO "limit" VALUES ('$owner', coalesce($uploads, $uploads_setting), coalesce($bytes, $bytes_setting))});
	}

	foreach my $round ('killed', 'finished')
	{
		my %heard = race($way, $round, $round eq 'killed' ? (100_000, 1000 + int rand 1000) : 80);
		my $what = "the server is $round, row_access = $way";
		my @bad = grep { my ($operation, $sqlstate) = split ' ', $_, 2; $operation eq 'watch' ? $sqlstate ne '00000' : !is_allowed($operation, $sqlstate) } sort keys %heard;

		restart_after_kill($node) if $round eq 'killed';
		is_deeply([@bad], [], "$what: no owner ever has more than it may, and no process meets another error")
		  or diag "RANDOM_SEED=$seed";
		cmp_ok($heard{'watch 00000'} // 0, '>', 5, "... as was seen $heard{'watch 00000'} times");
		cmp_ok($heard{'start 00000'} // 0, '>', 50, '... there were starts');
		cmp_ok($heard{'start VB009'} // 0, '>', 50, '... there were refusals');
		note join ', ', map { "$_: $heard{$_}" } sort keys %heard;
		is($node->safe_psql($dbname, $exceeded), '', '... then no owner has more either')
		  or diag "RANDOM_SEED=$seed";
		is($node->safe_psql($dbname, $difference), '', '... and upload_live has the live uploads')
		  or diag "RANDOM_SEED=$seed";
	}

	# what is left may be taken, and no more
	is($node->safe_psql($dbname, qq{
			$as_owner;
			DO \$\$
			DECLARE
				o text;
			BEGIN
				FOR o IN SELECT owner FROM "limit" LOOP
					LOOP
						BEGIN
							PERFORM start_upload('file', 1, owner => o);
						EXCEPTION WHEN SQLSTATE 'VB009' THEN
							EXIT;
						END;
					END LOOP;
				END LOOP;
			END \$\$;
			SELECT owner, live_uploads, live_bytes, uploads, bytes FROM "limit" l, LATERAL upload_usage(owner) u
			WHERE (live_uploads < uploads AND live_bytes < bytes) OR live_uploads > uploads OR live_bytes > bytes
				OR (coalesce(u.max_live_uploads, uploads), coalesce(u.max_live_bytes, bytes)) <> (uploads, bytes)}),
		'', "every owner may have as much as its limits say, row_access = $way");
	is($node->safe_psql($dbname, $difference), '', '... which is recorded');
}

$node->stop;
done_testing();
