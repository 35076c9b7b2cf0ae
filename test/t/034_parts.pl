# Parts on whole servers: dumps, standbys, privileges, policies, HOT updates, and
# SIGKILL for the server while 16 writers are at work on one upload.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use IO::Handle;
use IPC::Open2;
use List::Util qw(shuffle);
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use UploadTest;

my $seed = $ENV{RANDOM_SEED} || time;

note "RANDOM_SEED=$seed";
srand $seed;

my $node = upload_node('main', allows_streaming => 1, conf => "fsync = on\nmax_connections = 30\nvali_blob.sweep = off");
$node->safe_psql('postgres', q{
	CREATE ROLE client;
	SELECT grant_upload_access('client');
	SELECT start_upload('file', 100, upload_id => 'u', any_order => true);
	SELECT advance_upload('u', 20, 20, part_number => 2, etag => 'b', checksum => '\x0102'), advance_upload('u', 60, 10);
	SELECT start_upload('file', upload_id => 'ended', any_order => true);
	SELECT advance_upload('ended', 20, 20, etag => 'b'), abort_upload('ended')});
my $shown = q{
	SELECT chunk_offset, chunk_length, part_number, etag, checksum FROM list_parts('u');
	SELECT * FROM missing_ranges('u')};
my $expected = join "\n", '20|20|2|b|\x0102', '60|10|||', '0|20', '40|20', '70|30';

# --- a dump

my $tables = q{SELECT to_jsonb(s) FROM upload_session s ORDER BY id; SELECT to_jsonb(p) FROM upload_part p ORDER BY upload_id, chunk_offset; SELECT to_jsonb(r) FROM upload_reclaim r ORDER BY id};
my $dump = "$PostgreSQL::Test::Utils::tmp_check/parts.sql";
$node->safe_psql('postgres', 'CREATE DATABASE restored');
command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr('postgres') ], 'pg_dump');
command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, '-d', $node->connstr('restored') ], 'restore');
is($node->safe_psql('restored', $tables), $node->safe_psql('postgres', $tables), 'a dump has all parts');
is($node->safe_psql('restored', q{SET ROLE client; SELECT outcome, uploaded_bytes FROM advance_uploads('{u,u}', '{20,0}', '{20,20}', etags => '{b,a}')}),
	"replayed|30\nadvanced|50", 'and the upload goes on');

# --- a standby

$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
is($standby->safe_psql('postgres', $shown), $expected, 'a standby shows parts and what is missing');
is(sqlstate_of($standby, q{SELECT try_advance_upload('u', 0, 20)}), '25006', 'and takes none');
$standby->stop;
is($node->safe_psql('postgres', "BEGIN READ ONLY; $shown"), $expected, 'readers in a read-only transaction');

# --- privileges and policies, for each access path

foreach my $way ('auto', 'sql')
{
	my $as_client = "SET vali_blob.row_access = $way; SET ROLE client";
	my @calls = map { "SELECT $_" } q{advance_upload('u', 0, 5)}, q{advance_upload('u', 20, 20, etag => 'z')}, q{list_parts('u')}, q{missing_ranges('u')};
	my $refused = sub { my ($do, $undo, $name, @sqlstates) = @_;
		my $before = $node->safe_psql('postgres', $tables);

		$node->safe_psql('postgres', $do);
		is_deeply([ sqlstates_of($node, 'postgres', $as_client, @calls) ], \@sqlstates, "$name, row_access = $way");
		is($node->safe_psql('postgres', $tables), $before, "... and nothing changes, row_access = $way");
		$node->safe_psql('postgres', $undo);
	};

	$refused->('REVOKE INSERT, UPDATE ON upload_part FROM client', 'GRANT INSERT, UPDATE ON upload_part TO client',
		'without the privilege to write parts', '42501', '42501', '00000', '00000');
	$refused->('REVOKE ALL ON upload_part FROM client', q{SELECT grant_upload_access('client')},
		'without any', ('42501') x 4);
	is($node->safe_psql('postgres', qq{
			$as_client;
			SELECT upload_id FROM start_upload('file', upload_id => 'plain');
			SELECT outcome FROM try_advance_upload('plain', 0, 10);
			RESET ROLE;
			REVOKE ALL ON upload_part FROM client;
			SET ROLE client;
			SELECT outcome FROM try_advance_upload('plain', 10, 10);
			SELECT delete_upload('plain');
			RESET ROLE;
			SELECT grant_upload_access('client')}),
		"plain\nadvanced\nadvanced\nt\n", "an upload without parts needs none, row_access = $way");
	$refused->(q{
		ALTER TABLE upload_part ENABLE ROW LEVEL SECURITY;
		CREATE POLICY visible ON upload_part USING (true) WITH CHECK (false)}, q{
		DROP POLICY visible ON upload_part;
		ALTER TABLE upload_part DISABLE ROW LEVEL SECURITY},
		'a policy that lets no part be written', '42501', '42501', '00000', '00000');
	$refused->(q{
		CREATE FUNCTION suppress() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
		CREATE TRIGGER suppress BEFORE INSERT OR UPDATE ON upload_part FOR EACH ROW EXECUTE FUNCTION suppress()}, q{
		DROP TRIGGER suppress ON upload_part;
		DROP FUNCTION suppress},
		'a trigger that suppresses parts', '27000', '27000', '00000', '00000');
	is($node->safe_psql('postgres', qq{
			ALTER TABLE upload_part ENABLE ROW LEVEL SECURITY;
			CREATE POLICY own ON upload_part USING (etag <> 'hidden');
			SELECT advance_upload('u', 90, 10, etag => 'hidden');
			$as_client;
			SELECT count(*) FROM list_parts('u');
			SELECT outcome FROM try_advance_upload('u', 20, 20, etag => 'b');
			RESET ROLE;
			DROP POLICY own ON upload_part;
			ALTER TABLE upload_part DISABLE ROW LEVEL SECURITY;
			DELETE FROM upload_part WHERE etag = 'hidden';
			UPDATE upload_session SET uploaded_bytes = 30 WHERE upload_id = 'u'}) =~ s/^\(.*\n//r,
		"1\nreplayed", "a policy hides parts from a client, row_access = $way");

	is(sqlstate_of($node, qq{
			ALTER TABLE upload_part ENABLE ROW LEVEL SECURITY;
			CREATE POLICY own ON upload_part USING (true);
			$as_client;
			SELECT try_advance_upload('u', 80, 1, part_number => 2)}),
		'23505', "a number is used once, row_access = $way");
	$node->safe_psql('postgres', 'DROP POLICY own ON upload_part; ALTER TABLE upload_part DISABLE ROW LEVEL SECURITY');

	# privileges on columns are enough, through SQL
	is($node->safe_psql('postgres', qq{
			REVOKE ALL ON upload_part FROM client;
			GRANT SELECT, INSERT (upload_id, chunk_offset, chunk_length, part_number, etag, checksum, confirmed_at) ON upload_part TO client;
			$as_client;
			SELECT outcome FROM try_advance_upload('u', 0, 20, etag => 'a');
			RESET ROLE;
			SELECT grant_upload_access('client');
			DELETE FROM upload_part WHERE etag = 'a';
			UPDATE upload_session SET uploaded_bytes = 30 WHERE upload_id = 'u'}),
		"advanced\n", "privileges on columns are enough, row_access = $way");

	# a column that an administrator adds, and one that he drops
	is($node->safe_psql('postgres', qq{
			ALTER TABLE upload_part ADD note text, ADD gone text;
			ALTER TABLE upload_part DROP gone;
			$as_client;
			SELECT outcome FROM try_advance_upload('u', 0, 20, etag => 'a');
			SELECT note IS NULL FROM list_parts('u') WHERE etag = 'a';
			RESET ROLE;
			ALTER TABLE upload_part ALTER note SET DEFAULT 'x';
			$as_client;
			SELECT outcome FROM try_advance_upload('u', 40, 20, etag => 'a');
			SELECT note FROM list_parts('u') WHERE chunk_offset = 40;
			RESET ROLE;
			DELETE FROM upload_part WHERE etag = 'a';
			UPDATE upload_session SET uploaded_bytes = 30 WHERE upload_id = 'u';
			ALTER TABLE upload_part DROP note}),
		"advanced\nt\nadvanced\nx", "an added column has its default, row_access = $way");
}

# --- what may be attached to the table makes no difference, for each access path

my $has_icu = sqlstate_of($node, q{CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)}) eq '00000';
$node->safe_psql('postgres', q{
	SELECT start_upload('file', 100, upload_id => 'U', any_order => true);
	SELECT advance_upload('U', 50, 10)});
foreach (
	[ 'a CHECK' => 'ADD CHECK (part_number <> 13)', q{DROP CONSTRAINT upload_part_part_number_check}, '23514' ],
	[ 'NOT NULL on another column' => 'ADD note text NOT NULL DEFAULT 1; ALTER TABLE upload_part ALTER note DROP DEFAULT', 'DROP note', '23502' ],
	[ 'a default of another column' => 'ADD note text DEFAULT 1, ADD CHECK (note IS NOT NULL)', 'DROP note', '00000' ],
	[ 'no default of confirmed_at' => 'ALTER confirmed_at DROP DEFAULT', 'ALTER confirmed_at SET DEFAULT clock_timestamp()', '00000' ],
	[ 'a shorter upload_id' => 'ALTER upload_id TYPE varchar(100)', 'ALTER upload_id TYPE varchar(128)', '00000' ],
	[ 'no primary key' => 'DROP CONSTRAINT upload_part_pkey', 'ADD CONSTRAINT upload_part_pkey PRIMARY KEY (upload_id, chunk_offset)', '00000' ],
	[ 'a key that is deferrable' => 'DROP CONSTRAINT upload_part_pkey, ADD CONSTRAINT upload_part_pkey PRIMARY KEY (upload_id, chunk_offset) DEFERRABLE',
		'DROP CONSTRAINT upload_part_pkey, ADD CONSTRAINT upload_part_pkey PRIMARY KEY (upload_id, chunk_offset)', '00000' ],
	[ 'a foreign key that is deferred' => 'ALTER CONSTRAINT upload_part_upload_id_fkey DEFERRABLE INITIALLY DEFERRED', 'ALTER CONSTRAINT upload_part_upload_id_fkey NOT DEFERRABLE', '00000' ],
	[ 'no foreign key' => 'DROP CONSTRAINT upload_part_upload_id_fkey',
		'ADD CONSTRAINT upload_part_upload_id_fkey FOREIGN KEY (upload_id) REFERENCES upload_session ON DELETE CASCADE', '00000' ],
	[ 'another unique index' => 'ADD CONSTRAINT covering UNIQUE (upload_id, confirmed_at) INCLUDE (chunk_offset)', 'DROP CONSTRAINT covering', '00000' ])
{
	my ($name, $do, $undo, $sqlstate) = @$_;

	$node->safe_psql('postgres', "ALTER TABLE upload_part $do");
	foreach my $way ('auto', 'sql')
	{
		my @call = ("SET vali_blob.row_access = $way; BEGIN", q{SELECT advance_upload('u', 80, 1, part_number => 13, etag => 'x')});

		is((sqlstates_of($node, 'postgres', @call))[0], $sqlstate, "$name, row_access = $way");
	}
	$node->safe_psql('postgres', "ALTER TABLE upload_part $undo");
}
foreach (
	$has_icu ? [ 'an index with another collation' => 'CREATE UNIQUE INDEX other ON upload_part (upload_id COLLATE any_case, chunk_offset)' ] : (),
	[ 'one on fewer columns' => 'CREATE UNIQUE INDEX other ON upload_part (confirmed_at, upload_id) INCLUDE (chunk_offset)' ],
	[ 'one in the other direction' => 'CREATE UNIQUE INDEX other ON upload_part (upload_id, chunk_offset DESC)' ],
	[ 'one on an expression' => 'CREATE INDEX other ON upload_part (lower(etag))' ],
	[ 'one that is partial' => 'CREATE UNIQUE INDEX other ON upload_part (upload_id, chunk_offset) WHERE chunk_offset < 0' ])
{
	my ($name, $do) = @$_;

	$node->safe_psql('postgres', $do);
	foreach my $way ('auto', 'sql')
	{
		is($node->safe_psql('postgres', qq{
				SET vali_blob.row_access = $way;
				BEGIN;
				SELECT outcome FROM advance_uploads('{u,u,u}', '{40,20,55}', '{10,20,5}')}),
			"advanced\nreplayed\nadvanced", "$name, row_access = $way");
	}
	$node->safe_psql('postgres', 'DROP INDEX other');
}
is(sqlstate_of($node, q{
		BEGIN;
		CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
		CREATE TRIGGER t BEFORE INSERT ON upload_part FOR EACH ROW EXECUTE FUNCTION nothing();
		SET vali_blob.row_access = direct;
		SELECT advance_upload('u', 80, 1)}),
	'0A000', 'the fast path that is forced says that it cannot be used');
is(sqlstate_of($node, q{SET vali_blob.row_access = direct; BEGIN; SELECT advance_upload('u', 80, 1); SELECT advance_upload('u', 80, 1)}),
	'00000', 'otherwise it is used');

# A table that is renamed is missed, and found again.
my $other = $node->background_psql('postgres');
$other->query_safe(q{SELECT try_advance_upload('u', 20, 20)});
$node->safe_psql('postgres', 'ALTER TABLE upload_part RENAME TO elsewhere');
is(answer($other, q{DO $$ BEGIN PERFORM advance_upload('u', 80, 1); EXCEPTION WHEN undefined_table THEN PERFORM set_config('a.state', SQLSTATE, false); END $$; SELECT current_setting('a.state')}),
	'42P01', 'a table that is renamed is missed');
$node->safe_psql('postgres', 'ALTER TABLE elsewhere RENAME TO upload_part');
is(answer($other, q{BEGIN; SELECT outcome FROM advance_upload('u', 80, 1); ROLLBACK}), 'advanced', 'and found again');
$other->quit;

# --- HOT updates

$node->safe_psql('postgres', q{
	CREATE INDEX ON upload_session USING gin (metadata jsonb_path_ops);
	SELECT start_upload('file', 1000, upload_id => 'hot', any_order => true, metadata => '{"a": 1}');
	SELECT start_upload('file', 1000, upload_id => 'warm', metadata => '{"a": 1}');
	SELECT pg_stat_reset()});
$node->safe_psql('postgres', q{
	DO $$
	BEGIN
		FOR n IN REVERSE 99 .. 0 LOOP
			PERFORM advance_upload('hot', 10 * n, 10, part_number => n + 1, etag => 'e' || n);
			COMMIT;
			PERFORM advance_upload('warm', 10 * (99 - n), 10, etag => 'e' || n);
			COMMIT;
		END LOOP;
		PERFORM complete_upload('hot'), complete_upload('warm');
	END $$});
is($node->safe_psql('postgres', q{SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'upload_session'}),
	'202|202', 'chunks that leave parts are HOT updates of their session, also with an index on metadata');
is($node->safe_psql('postgres', q{SELECT n_tup_ins, n_tup_upd FROM pg_stat_user_tables WHERE relname = 'upload_part'}),
	'200|0', 'and leave a row each');

# --- many parts

$node->safe_psql('postgres', q{SELECT start_upload('file', upload_id => 'many', any_order => true, provider_data => '{"multipart": "m"}')});
$node->safe_psql('postgres', q{
	SET synchronous_commit = off;
	DO $$
	BEGIN
		FOR n IN 0 .. 10000 LOOP
			PERFORM advance_upload('many', 20 * ((n * 7919) % 10001), 10, part_number => n + 1, etag => md5(n::text));
			COMMIT;
		END LOOP;
	END $$});
is($node->safe_psql('postgres', q{
		SELECT uploaded_bytes FROM get_upload('many');
		SELECT count(*), count(DISTINCT part_number), max(chunk_offset) FROM list_parts('many', max_rows => 20000);
		SELECT count(*), sum(chunk_length) FROM missing_ranges('many', max_rows => 20000);
		SELECT count(*) FROM list_parts('many');
		SELECT count(*) FROM missing_ranges('many');
		SELECT status FROM abort_upload('many');
		SELECT jsonb_array_length(parts), parts->10000->>'offset' FROM upload_reclaim WHERE upload_id = 'many'}),
	"100010\n10001|10001|200000\n10001|100000\n1000\n1000\naborted\n10001|200000", '10,001 parts');

# Each row of the queue has a page of the parts.
is($node->safe_psql('postgres', q{
		SELECT FROM start_upload('file', upload_id => 'more', any_order => true), advance_upload('more', 0, 1);
		INSERT INTO upload_part (upload_id, chunk_offset, chunk_length) SELECT 'more', n, 1 FROM generate_series(1, 40000) AS n;
		SELECT status FROM abort_upload('more');
		SELECT jsonb_array_length(parts), parts->0->>'offset', parts->-1->>'offset' FROM upload_reclaim WHERE upload_id = 'more' ORDER BY id}),
	"aborted\n20000|0|19999\n20000|20000|39999\n1|40000|40000", '40,001 parts are queued in several rows');

# --- a crash, with 16 writers on one upload

my $writers = 16;
my $parts = 4000;
my %acknowledged;

# One writer: sends parts until its connection breaks, and reports what was
# acknowledged.
sub write_parts
{
	my ($report, @numbers) = @_;
	my $pid = open2(my $answers, my $commands, 'psql', '-XAtq', '-d', $node->connstr('postgres'));

	local $SIG{PIPE} = 'IGNORE';
	$commands->autoflush(1);
	foreach my $number (@numbers)
	{
		print $commands "SELECT outcome FROM try_advance_upload('crash', ($number - 1) * 1000::bigint, 1000, part_number => $number, etag => 'e$number');\n";
		my $answer = <$answers>;
		last if !defined $answer;
		syswrite $report, "$number $answer";
	}
	close $commands;
	waitpid $pid, 0;
	return;
}

$node->safe_psql('postgres', "SELECT start_upload('file', $parts * 1000, upload_id => 'crash', any_order => true)");
foreach my $crash (1 .. 5)
{
	pipe my $reports, my $report or die "pipe: $!";
	my @left = shuffle grep { !$acknowledged{$_} } 1 .. $parts;
	my $wanted = 100 + int rand 400;
	my $heard = 0;

	foreach my $writer (0 .. $writers - 1)
	{
		# some send what others send, too
		my @mine = map { $left[$_] } grep { $_ % $writers == $writer || $_ % 50 == $writer } 0 .. $#left;
		my $pid = fork // die "fork: $!";
		next if $pid;
		close $reports;
		open STDERR, '>', '/dev/null';
		write_parts($report, @mine);
		POSIX::_exit(0);
	}
	close $report;
	while (my $line = <$reports>)
	{
		my ($number, $outcome) = split ' ', $line;

		die "part $number: $outcome; RANDOM_SEED=$seed" if $outcome !~ /^(advanced|replayed)$/;
		$acknowledged{$number} = 1;
		$node->kill9 if ++$heard == $wanted;
	}
	1 while waitpid(-1, 0) > 0;
	restart_after_kill($node);
	my %there = map { $_ => 1 } split /\n/, $node->safe_psql('postgres', q{SELECT part_number FROM list_parts('crash', max_rows => 100000)});
	is_deeply([ grep { !$there{$_} } keys %acknowledged ], [], "crash $crash after $heard acknowledgements: every part is there")
	  or diag "RANDOM_SEED=$seed";
	is($node->safe_psql('postgres', q{SELECT uploaded_bytes FROM get_upload('crash')}), 1000 * keys %there, '... and counts once');
}
my $left = join ',', grep { !$acknowledged{$_} } 1 .. $parts;
is( $node->safe_psql('postgres', qq{
		SELECT count(*) FROM unnest('{$left}'::int[]) AS n, LATERAL advance_upload('crash', (n - 1) * 1000::bigint, 1000, part_number => n, etag => 'e' || n);
		SELECT status, uploaded_bytes FROM complete_upload('crash')}) =~ s/^\d+\n//r,
	'complete|' . $parts * 1000, 'the upload is finished');

$node->stop;
done_testing();
