# The .NET library Vali-Blob moves to this extension: the statements of the manual take
# over the rows of its Entity Framework tables, and a view takes the place of one of
# them, with which the library goes on, by the very statements that it sends.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use UploadTest;

my $node = upload_node('main', conf => 'vali_blob.sweep = off');
my $script = $node->config_data('--sharedir') . '/extension/vali_blob_ef_view.sql';
my $manual = slurp_file("$FindBin::Bin/../../doc/vali_blob.md");
my $table = '"ValiBlob_ResumableSessions"';
my $text_table = '"ResumableUploadSessions"';
my ($true, $false) = (JSON::PP::true, JSON::PP::false);
my $has_psycopg = system('python3 -c "import psycopg" 2>/dev/null') == 0;

$node->safe_psql('postgres', 'CREATE ROLE dotnet LOGIN');

# A database with the extension in a schema, "public" or another one.
sub new_database
{
	my ($dbname, $schema) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $dbname");
	$node->safe_psql($dbname, qq{
		SET client_min_messages = error;
		CREATE SCHEMA IF NOT EXISTS "$schema";
		CREATE EXTENSION vali_blob SCHEMA "$schema";
		ALTER DATABASE $dbname SET search_path = "$schema", public;
		SELECT "$schema".grant_upload_access('dotnet')});
	return;
}

# Run the script; returns what psql has said.
sub run_script
{
	my ($dbname, %variables) = @_;
	my ($rc, $stdout, $stderr) = $node->psql($dbname, "\\i '$script'",
		extra_params => [ '--single-transaction', map { ('-v', "$_=$variables{$_}") } sort keys %variables ]);

	return $rc == 0 ? $stdout . $stderr : $stderr;
}

# The blocks of the manual that create a table as Entity Framework does, and that take its
# rows over.
sub manual_block
{
	my ($first_line, $name) = @_;
	my @blocks = grep { /\Q$name\E/ && /^$first_line/ } $manual =~ /^```sql\n(.*?)^```$/msg;

	die "$first_line ... $name: not in the manual" if @blocks != 1;
	return $blocks[0] =~ s/^INSERT INTO "(?s:.*)//mr;
}
my %create = map { $_ => manual_block('CREATE TABLE', "CREATE TABLE $_") } $table, $text_table;
my %take_over = map { $_ => manual_block('INSERT INTO upload_session', "FROM $_") } $table, $text_table;

# --- rows are taken over

my $takeover = q{SELECT upload_id, path, bucket, total_size, uploaded_bytes, content_type, metadata, provider_data,
	status, created_at, ttl, end_by, 
	CASE WHEN status IN ('complete', 'aborted') THEN expires_at BETWEEN now() + '47 hours' AND now() + '48 hours'
		ELSE expires_at IS NOT DISTINCT FROM end_by END
	FROM upload_session ORDER BY id};

new_database('takeover', 'public');
$node->safe_psql('takeover', "$create{$table}; $create{$text_table}");
$node->safe_psql('takeover', qq{SET timezone = 'UTC'; INSERT INTO $table VALUES
	('b', 'p/b', NULL, 100, 40, NULL, NULL, '{"awsUploadId":"m"}', '2025-01-02 03:04:05.678901', '2030-01-01', false, false),
	('a', 'p/a', 'bucket', 100, 0, 'text/plain', '{"k":"v","k":"w","n":null}', NULL, '2025-01-01', NULL, false, false),
	('B', 'p/B', '', 100, 100, '', '', '', '2025-01-03', '2030-01-01', false, true),
	('c', 'p/c', NULL, 100, 30, NULL, '{}', 'null', '2025-01-04', '2030-01-01', false, true),
	('d', 'p/d', NULL, 0, 30, NULL, NULL, ' { "\\u00fc" : "\\"" } ', '2025-01-05', '2025-01-06', false, false),
	('e', 'p/e', NULL, 100, 30, NULL, NULL, '{"part":"1"}', '2025-01-06', '2030-01-01', true, false),
	('f', 'p/f', NULL, 100, 120, NULL, NULL, NULL, '2025-01-07', 'infinity', false, false),
	('g', 'p/g', NULL, -1, -1, NULL, NULL, NULL, '2025-01-08', '2030-01-01', true, true)});
$node->safe_psql('takeover', $take_over{$table});
my $taken = q{a|p/a|bucket|100|0|text/plain|{"k": "w", "n": null}|{}|pending|2025-01-01 00:00:00+00|||t
b|p/b||100|40||{}|{"awsUploadId": "m"}|in_progress|2025-01-02 03:04:05.678901+00||2030-01-01 00:00:00+00|t
B|p/B||100|100||{}|{}|complete|2025-01-03 00:00:00+00||2030-01-01 00:00:00+00|t
c|p/c||30|30||{}|{}|complete|2025-01-04 00:00:00+00||2030-01-01 00:00:00+00|t
d|p/d|||30||{}|{"ü": "\""}|in_progress|2025-01-05 00:00:00+00||2025-01-06 00:00:00+00|t
e|p/e||100|30||{}|{"part": "1"}|aborted|2025-01-06 00:00:00+00||2030-01-01 00:00:00+00|t
f|p/f||120|120||{}|{}|in_progress|2025-01-07 00:00:00+00||infinity|t
g|p/g||0|0||{}|{}|aborted|2025-01-08 00:00:00+00||2030-01-01 00:00:00+00|t};
is($node->safe_psql('takeover', "SET timezone = 'UTC'; $takeover"), $taken, "the rows of $table");
$node->safe_psql('takeover', "SELECT advance_upload('b', 40, 10); UPDATE $table SET \"BytesUploaded\" = 99; $take_over{$table}");
is($node->safe_psql('takeover', "SET timezone = 'UTC'; $takeover"), $taken =~ s/\|40\|/|50|/r, '... once only');
is($node->safe_psql('takeover', 'SELECT expired FROM sweep_uploads(); SELECT upload_id, reason, provider_data FROM upload_reclaim'),
	qq{1\nd|expired|{"ü": "\\""}}, '... and the one past its deadline expires, with what it has left');

# What does not fit stops the statement, and the manual says how to find it.
my ($unfit) = $manual =~ /^(    CREATE FUNCTION pg_temp\.unfit.*?2600;\n)/ms;
foreach my $case (
	[ '"MetadataJson" = \'{"a"\'', '22P02' ],
	[ '"ProviderDataJson" = \'[1]\'', '23514' ],
	[ q{"MetadataJson" = '{"a": "\u0000"}'}, '22P05' ],
	[ q{"BucketOverride" = repeat('b', 257)}, '22001' ],
	[ q{"ContentType" = repeat('c', 257)}, '22001' ],
	[ q{"Path" = (SELECT string_agg(chr(20000 + (i * 7919) % 9000), '') FROM generate_series(1, 2048) i)}, '54000' ])
{
	my ($change, $sqlstate) = @$case;

	$node->safe_psql('takeover', qq{DELETE FROM $table; DELETE FROM upload_session; INSERT INTO $table
		SELECT i, 'p', NULL, 1, 0, NULL, NULL, NULL, now(), NULL, false, false FROM generate_series(1, 3) i;
		UPDATE $table SET $change WHERE "UploadId" = '2'});
	is(sqlstate_of($node, $take_over{$table}, 'takeover'), $sqlstate, "$change: $sqlstate");
	is($node->safe_psql('takeover', 'SELECT count(*) FROM upload_session'), '0', '... and nothing is taken over');
	is($node->safe_psql('takeover', $unfit), '2', '... because of the row that is found');
}

$node->safe_psql('takeover', qq{SET timezone = 'UTC'; DELETE FROM upload_session;
	INSERT INTO $text_table ("UploadId", "Path", "TotalSize", "UploadedBytes", "ContentType", "CreatedAt", "UpdatedAt", "Status")
	VALUES ('a', 'p/a', 100, 0, NULL, '2025-01-01', '2029-12-31 22:00', 'Pending'),
		('b', 'p/b', 100, 40, 'text/plain', '2025-01-02', '2029-12-31 23:00', 'InProgress'),
		('c', 'p/c', 100, 100, NULL, '2025-01-03', '2025-01-03', 'Complete'),
		('d', 'p/d', 100, 90, NULL, '2025-01-04', '2025-01-03', 'COMPLETE'),
		('e', 'p/e', 0, 5, NULL, '2025-01-05', '2025-01-05', 'Pending'),
		('f', 'p/f', 100, 5, NULL, '2025-01-06', '2025-01-06', 'Aborted')});
$node->safe_psql('takeover', $take_over{$text_table}) foreach 1, 2;
is($node->safe_psql('takeover', "SET timezone = 'UTC'; $takeover"), q{a|p/a||100|0||{}|{}|pending|2025-01-01 00:00:00+00|48:00:00||f
b|p/b||100|40|text/plain|{}|{}|in_progress|2025-01-02 00:00:00+00|48:00:00||f
c|p/c||100|100||{}|{}|complete|2025-01-03 00:00:00+00|48:00:00||t
d|p/d||90|90||{}|{}|complete|2025-01-04 00:00:00+00|48:00:00||t
e|p/e|||5||{}|{}|in_progress|2025-01-05 00:00:00+00|48:00:00||f
f|p/f||100|5||{}|{}|aborted|2025-01-06 00:00:00+00|48:00:00||t}, "the rows of $text_table");
is($node->safe_psql('takeover', 'SELECT upload_id FROM upload_session WHERE expires_at = updated_at + ttl ORDER BY 1'),
	"a\nb\ne", '... which live for 48 hours from the last chunk');
$node->safe_psql('takeover', qq{UPDATE $text_table SET "Status" = 'Lost', "UploadId" = 'l' WHERE "UploadId" = 'a'});
is(sqlstate_of($node, $take_over{$text_table}, 'takeover'), '23502', 'a status that is unknown');

# --- the script says what keeps it from its work

$node->safe_psql('postgres', 'CREATE DATABASE old');
like(run_script('old'), qr/ERROR:  extension "vali_blob" is not installed.*HINT:  Run CREATE EXTENSION/s, 'without the extension');
$node->safe_psql('old', q{SET client_min_messages = error; CREATE EXTENSION vali_blob VERSION '1.0'});
like(run_script('old'), qr/ERROR:  .* is older than version 1\.1.*HINT:  Run ALTER EXTENSION/s, 'with version 1.0');
$node->safe_psql('old', 'ALTER EXTENSION vali_blob UPDATE');
is(run_script('old'), '', '... and with an updated one');
like(run_script('takeover', schema => 'no"where'), qr/ERROR:  schema "no""where" does not exist/, 'without the schema');
like(run_script('takeover'), qr/ERROR:  public\.$table is a table.*HINT: .*ALTER TABLE public\.$table RENAME TO "ValiBlob_ResumableSessions_old"/s,
	'where a table has the name');
$node->safe_psql('takeover', 'CREATE VIEW v AS SELECT 1; CREATE SEQUENCE s');
like(run_script('takeover', name => $_), qr/ERROR:  public\.$_ exists, and was not created by this script/, "another object has the name $_") foreach 'v', 's';
is($node->safe_psql('takeover', q{SELECT count(*) FROM pg_proc WHERE proname ~ '^vali_blob_ef'}), '0', '... and nothing is left');

# --- the library's statements, by a role with the privileges that the manual names

# Send statements as Entity Framework does; returns what each has reported.
sub send_statements
{
	my ($dbname, $name, @calls) = @_;
	my ($in, $out, $err) = (JSON::PP->new->utf8->encode([@calls]), '', '');

	IPC::Run::run [ 'python3', "$FindBin::Bin/../lib/ef_client.py", $node->connstr($dbname) . ' user=dotnet', $name ],
	  '<' => \$in, '>' => \$out, '2>' => \$err or die $err;
	return @{ JSON::PP->new->utf8->decode($out) };
}

# A row as the library makes it.
sub row
{
	my ($id, %values) = @_;

	return {
		UploadId => $id, Path => "path/$id", BucketOverride => undef, TotalSize => 100, BytesUploaded => 0,
		ContentType => undef, MetadataJson => undef, ProviderDataJson => undef,
		CreatedAt => '2026-01-01T02:03:04.567891+00:00', ExpiresAt => '2126-01-02T02:03:04.567891+00:00',
		IsAborted => $false, IsComplete => $false, %values };
}

# Run [expected answer, what, row, name of the test]... in one session.
sub check_statements
{
	my ($dbname, $name, @cases) = @_;
	my @answers = send_statements($dbname, $name, map { [ $_->[1], $_->[2] ] } @cases);

	foreach my $case (@cases)
	{
		my ($expected, $what, $row, $title) = @$case;
		is_deeply(shift @answers, $expected, "$name: $title");
	}
	return;
}

# The whole life of uploads, as the providers of the library live it.
sub check_life
{
	my ($dbname, $name) = @_;
	my ($aws, $aws1, $aws2) = map { qq({"awsUploadId": "mp", "awsParts": "$_"}) =~ s/^(.)(.*), (.*)}$/$1$3, $2}/r } '', '1:e', '1:e|2:f';
	my $aws_row = row('aws', ProviderDataJson => $aws, MetadataJson => '{"a": null, "ü": "\\"é"}', BucketOverride => 'b', ContentType => 'text/plain');

	check_statements($dbname, $name,
		[ 'INSERT 0 1', 'insert', $aws_row, 'a session is inserted' ],
		[ $aws_row, 'find', { UploadId => 'aws' }, '... and read as it was written' ],
		[ '23505', 'insert', $aws_row, '... once' ],
		[ 'UPDATE 1', 'update', $aws_row, '... and an update of all columns changes nothing' ],
		[ 'UPDATE 1', 'update', { %$aws_row, BytesUploaded => 60, ProviderDataJson => $aws1 }, 'a chunk, by all columns' ],
		[ { %$aws_row, BytesUploaded => 60, ProviderDataJson => $aws1 }, 'find', { UploadId => 'aws' }, '... is read as it was written' ],
		[ 'UPDATE 1', 'update', { %$aws_row, BytesUploaded => 60, ProviderDataJson => $aws1 =~ s/ //gr }, '... and repeated, with other blanks' ],
		[ 'VB002', 'update', { %$aws_row, BytesUploaded => 60, ProviderDataJson => $aws2 }, '... but not by one with other provider data' ],
		[ 'VB002', 'update', { UploadId => 'aws', BytesUploaded => 30 }, '... and not taken back' ],
		[ 'VB005', 'update', { UploadId => 'aws', BytesUploaded => 101 }, 'too many bytes' ],
		[ 'VB006', 'update', { UploadId => 'aws', IsComplete => $true }, 'complete too early' ],
		[ 'UPDATE 1', 'update', { UploadId => 'aws', BytesUploaded => 100, ProviderDataJson => $aws2 }, 'a chunk, by the changed columns' ],
		[ 'UPDATE 1', 'update', { %$aws_row, BytesUploaded => 100, ProviderDataJson => $aws2, IsComplete => $true }, 'complete' ],
		[ { %$aws_row, BytesUploaded => 100, ProviderDataJson => $aws2, IsComplete => $true }, 'find', { UploadId => 'aws' }, '... is read as it was written' ],
		[ 'UPDATE 1', 'update', { UploadId => 'aws', IsComplete => $true }, '... and repeated' ],
		[ 'VB003', 'update', { UploadId => 'aws', IsComplete => $false }, '... and not undone' ],
		[ 'VB003', 'update', { UploadId => 'aws', BytesUploaded => 50 }, '... and has no other bytes' ],
		[ 'VB003', 'update', { UploadId => 'aws', ProviderDataJson => undef }, '... or provider data' ],
		[ 'DELETE 1', 'delete', { UploadId => 'aws' }, '... and deleted' ],
		[ undef, 'find', { UploadId => 'aws' }, '... so it is not found' ],
		[ 'UPDATE 0', 'update', { UploadId => 'aws', BytesUploaded => 1 }, '... or updated' ],
		[ 'DELETE 0', 'delete', { UploadId => 'aws' }, '... or deleted' ],

		[ 'INSERT 0 1', 'insert', row('full', ProviderDataJson => '{"p": "full"}'), 'another' ],
		[ 'UPDATE 1', 'update', { UploadId => 'full', BytesUploaded => 100 }, '... gets all its bytes' ],
		[ 'DELETE 1', 'delete', { UploadId => 'full' }, '... and is deleted as the providers complete' ],
		[ 'INSERT 0 1', 'insert', row('gone', ProviderDataJson => '{"p": "gone"}', BytesUploaded => 30), 'one with bytes' ],
		[ 'DELETE 1', 'delete', { UploadId => 'gone' }, '... is deleted as they abort' ],
		[ 'INSERT 0 1', 'insert', row('bad', ProviderDataJson => '{"p": "bad"}'), 'another' ],
		[ 'UPDATE 1', 'update', row('bad', ProviderDataJson => '{"p": "bad"}', IsAborted => $true), '... is aborted' ],
		[ row('bad', ProviderDataJson => '{"p": "bad"}', IsAborted => $true), 'find', { UploadId => 'bad' }, '... is read as it was written' ],
		[ 'VB003', 'update', { UploadId => 'bad', IsAborted => $false }, '... which is not undone' ],
		[ 'VB003', 'update', { UploadId => 'bad', IsComplete => $true }, '... and not completed' ],

		[ 'INSERT 0 1', 'insert', row('edit', TotalSize => 0, MetadataJson => '{}', ProviderDataJson => '{"a": "1", "b": "2"}'), 'a size that is not known' ],
		[ row('edit', TotalSize => 0, ProviderDataJson => '{"a": "1", "b": "2"}'), 'find', { UploadId => 'edit' }, '... reads as 0, and {} as null' ],
		[ 'UPDATE 1', 'update', { UploadId => 'edit', ProviderDataJson => '{"a": "3"}' }, 'provider data is replaced before the first chunk' ],
		[ 'UPDATE 1', 'update', { UploadId => 'edit', BytesUploaded => 50 }, 'a chunk' ],
		[ 'UPDATE 1', 'update', { UploadId => 'edit', ProviderDataJson => '{"a": "3", "n": null}' }, '... and new members after it' ],
		[ 'VB002', 'update', { UploadId => 'edit', ProviderDataJson => '{"a": "4"}' }, '... but no other ones' ],
		[ 'UPDATE 1', 'update', { UploadId => 'edit', Path => 'q', BucketOverride => 'b', ContentType => 'c', MetadataJson => '{"x": null}',
			CreatedAt => '2026-05-05T00:00:00+00:00', ExpiresAt => undef }, 'all that may change' ],
		[ row('edit', TotalSize => 0, BytesUploaded => 50, ProviderDataJson => '{"a": "3", "n": null}', Path => 'q', BucketOverride => 'b', ContentType => 'c',
			MetadataJson => '{"x": null}', CreatedAt => '2026-05-05T00:00:00+00:00', ExpiresAt => undef), 'find', { UploadId => 'edit' }, '... is read as it was written' ],
		[ 'UPDATE 1', 'update', { UploadId => 'edit', TotalSize => 80 }, 'its size is declared' ],
		[ 'VB007', 'update', { UploadId => 'edit', TotalSize => 90 }, '... once' ],
		[ 'DELETE 1', 'delete', { UploadId => 'edit' }, '... and it is deleted' ],
		[ 'INSERT 0 1', 'insert', row('open', TotalSize => 0, BytesUploaded => 7), 'a size that is never known' ],
		[ 'UPDATE 1', 'update', { UploadId => 'open', IsComplete => $true }, '... is what was uploaded' ],
		[ row('open', TotalSize => 7, BytesUploaded => 7, IsComplete => $true), 'find', { UploadId => 'open' }, '... at the end' ],

		[ 'INSERT 0 1', 'insert', row('done', BytesUploaded => 100, IsComplete => $true), 'a row that is complete' ],
		[ row('done', BytesUploaded => 100, IsComplete => $true), 'find', { UploadId => 'done' }, '... is read as it was written' ],
		[ 'INSERT 0 1', 'insert', row('lost', BytesUploaded => 9, IsAborted => $true), 'a row that is aborted' ],
		[ row('lost', BytesUploaded => 9, IsAborted => $true), 'find', { UploadId => 'lost' }, '... is read as it was written' ],
		[ 'INSERT 0 1', 'insert', row('late', BytesUploaded => 100, ExpiresAt => '2026-01-01T00:00:00.000001+00:00', ProviderDataJson => '{"p": "late"}'), 'one past its deadline' ],
		[ row('late', BytesUploaded => 100, ExpiresAt => '2026-01-01T00:00:00.000001+00:00', ProviderDataJson => '{"p": "late"}'), 'find', { UploadId => 'late' }, '... is read as it was written' ],
		[ 'VB004', 'update', { UploadId => 'late', ExpiresAt => undef }, '... and does not live again' ],
		[ 'VB004', 'update', { UploadId => 'late', IsComplete => $true }, '... and does not become complete' ],
		[ 'DELETE 1', 'delete', { UploadId => 'late' }, '... and is deleted, as the library does' ],
		[ 'INSERT 0 1', 'insert', row('stale', ExpiresAt => '2026-01-01T00:00:00.000001+00:00', ProviderDataJson => '{"p": "stale"}'), 'another' ],

		[ '22001', 'insert', row('i' x 129), 'an id that is too long' ],
		[ '22001', 'insert', row('long', ContentType => 'c' x 257), 'a content type that is too long' ],
		[ '22P02', 'insert', row('json', MetadataJson => '{"a"'), 'what is not JSON' ],
		[ '22023', 'insert', row('json', ProviderDataJson => '[]'), 'what is not an object' ],
		[ '22P02', 'update', { UploadId => 'stale', MetadataJson => '{"a"' }, '... in an update' ],
		[ '22023', 'insert', row('neg', TotalSize => -1), 'a negative size' ]);

	is($node->safe_psql($dbname, q{SELECT reason, provider_data FROM upload_reclaim ORDER BY id}),
		qq{aborted|{"p": "gone"}\naborted|{"p": "bad"}\naborted|{"a": "3", "n": null}\nexpired|{"p": "late"}}, "$name: what is to be reclaimed");
	is($node->safe_psql($dbname, q{SELECT expired FROM sweep_uploads(); SELECT reason FROM upload_reclaim WHERE upload_id = 'stale'}),
		"1\nexpired", '... and what the sweep adds');
	check_statements($dbname, $name,
		[ row('stale', ExpiresAt => '2026-01-01T00:00:00.000001+00:00', ProviderDataJson => '{"p": "stale"}'), 'find', { UploadId => 'stale' }, 'a session that a sweep has expired' ],
		[ 'VB004', 'update', { UploadId => 'stale', BytesUploaded => 10 }, '... takes no chunk' ],
		[ 'DELETE 1', 'delete', { UploadId => 'stale' }, '... and is deleted by the library' ]);
	$node->safe_psql($dbname, 'TRUNCATE upload_session CASCADE; TRUNCATE upload_reclaim');
	return;
}

# What the script is told to call the view, and what SQL calls it
my %names = (
	plain => [ {}, $table, 'public' ],
	odd => [ { schema => q{my "S'%s $body$}, name => q{We"ird\\ 'Ta%ble $1} }, q{"my ""S'%s $body$"."We""ird\\ 'Ta%ble $1"}, q{up 'L"oads $body$ %} ]);

foreach my $dbname (sort keys %names)
{
	my ($variables, $name, $schema) = @{ $names{$dbname} };
	my ($view_schema) = $name =~ /^(".*")\./ ? $1 : 'public';

	new_database($dbname, 'public') if $schema eq 'public';
	if ($schema ne 'public')
	{
		$node->safe_psql('postgres', "CREATE DATABASE $dbname");
		my $quoted = '"' . $schema =~ s/"/""/gr . '"';
		$node->safe_psql($dbname, "SET client_min_messages = error; CREATE SCHEMA $quoted; CREATE EXTENSION vali_blob SCHEMA $quoted;
			ALTER DATABASE $dbname SET search_path = $quoted; SELECT $quoted.grant_upload_access('dotnet');
			CREATE SCHEMA $view_schema; GRANT USAGE ON SCHEMA $view_schema TO dotnet");
	}
	is(run_script($dbname, %$variables), '', "$dbname: the script");
	is(sqlstate_of($node, "SET ROLE dotnet; SELECT FROM $name", $dbname), '42501', '... gives nobody a privilege');
	is($node->safe_psql($dbname, qq{SELECT count(*) FROM pg_proc WHERE proname ~ '^vali_blob_ef'
		AND has_function_privilege('dotnet', oid, 'EXECUTE')}), '0', '... on its functions neither');
	$node->safe_psql($dbname, "GRANT SELECT, INSERT, UPDATE, DELETE ON $name TO dotnet");
	is(run_script($dbname, %$variables), '', '... runs twice');
	is($node->safe_psql($dbname, "SELECT has_table_privilege('dotnet', oid, 'INSERT'), obj_description(oid) IS NOT NULL
		FROM pg_class WHERE oid = \$\$$name\$\$::regclass"), 't|t', '... and leaves the privileges');
  SKIP:
	{
		skip 'python3-psycopg is not there', 1 if !$has_psycopg;
		foreach my $way ('auto', $dbname eq 'plain' ? 'sql' : ())
		{
			$node->safe_psql('postgres', "ALTER ROLE dotnet SET vali_blob.row_access = $way");
			check_life($dbname, $name);
		}
	}
}

# --- privileges and policies are the caller's

my $insert = qq{INSERT INTO $table ("UploadId", "Path", "TotalSize", "BytesUploaded", "ProviderDataJson", "CreatedAt", "IsAborted", "IsComplete")};
$node->safe_psql('plain', 'CREATE ROLE guest; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO guest;
	REVOKE ALL ON upload_session, upload_part, upload_reclaim FROM guest');
is(sqlstate_of($node, "SET ROLE guest; SELECT FROM $table", 'plain'), '42501', 'a privilege on the view is not one on the sessions');
is(sqlstate_of($node, "SET ROLE guest; $insert VALUES ('g', 'p', 1, 0, NULL, now(), false, false)", 'plain'), '42501', '... and not one to start them');
$node->safe_psql('plain', qq{
	$insert VALUES ('mine', 'mine/1', 10, 0, NULL, now(), false, false), ('yours', 'yours/1', 10, 0, NULL, now(), false, false),
		('read', 'read/1', 10, 0, NULL, now(), false, false);
	ALTER TABLE upload_session ENABLE ROW LEVEL SECURITY;
	CREATE POLICY a ON upload_session TO dotnet USING (path LIKE 'mine/%');
	CREATE POLICY b ON upload_session FOR SELECT TO dotnet USING (path LIKE 'read/%')});
is( $node->safe_psql('plain', qq{SET ROLE dotnet;
		SELECT "UploadId" FROM $table ORDER BY 1;
		WITH u AS (UPDATE $table SET "BytesUploaded" = 5 RETURNING "UploadId") SELECT * FROM u;
		WITH d AS (DELETE FROM $table RETURNING "UploadId") SELECT * FROM d}),
	"mine\nread\nmine\nmine", 'policies hold beneath the view');
is(sqlstate_of($node, "SET ROLE dotnet; $insert VALUES ('x', 'yours/2', 1, 0, NULL, now(), false, false)", 'plain'), '42501', '... also for new sessions');
$node->safe_psql('plain', 'DROP POLICY a ON upload_session; DROP POLICY b ON upload_session; ALTER TABLE upload_session DISABLE ROW LEVEL SECURITY; TRUNCATE upload_session CASCADE');

# Whoever may create something in the schema may run the script.
$node->safe_psql('plain', 'CREATE ROLE deployer LOGIN; CREATE SCHEMA app AUTHORIZATION deployer');
is($node->safe_psql('plain', "\\set schema app\n\\set name sessions\n\\i '$script'", extra_params => [ '-U', 'deployer' ]), '', 'a role that is not a superuser runs the script');

# Look-alikes in the search_path are not called.
$node->safe_psql('plain', q{
	CREATE SCHEMA trap; GRANT USAGE ON SCHEMA trap TO PUBLIC;
	CREATE FUNCTION trap.op(varchar, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
	CREATE FUNCTION trap.op(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
	CREATE FUNCTION trap.op(jsonb, jsonb) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
	CREATE FUNCTION trap.op(upload_status, upload_status) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
	DO $$ DECLARE op text; t text;
	BEGIN
		FOREACH op IN ARRAY '{=,<>,<,>,@>}'::text[] LOOP
			FOREACH t IN ARRAY '{bigint,jsonb,upload_status}'::text[] LOOP
				EXECUTE format('CREATE OPERATOR trap.%s (FUNCTION = trap.op, LEFTARG = %s, RIGHTARG = %2$s)', op, t);
			END LOOP;
		END LOOP;
	END $$;
	CREATE FUNCTION trap.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
	CREATE FUNCTION trap.format(text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$});
is( $node->safe_psql('plain', "SET search_path = trap, pg_catalog, public; \\i '$script'
	$insert VALUES ('t', 'p', 10, 0, '{\"a\": \"b\"}', now(), false, false);
	UPDATE $table SET \"BytesUploaded\" = 10, \"ProviderDataJson\" = NULL; UPDATE $table SET \"IsComplete\" = true; DELETE FROM $table; SHOW search_path"),
	'trap, pg_catalog, public', 'look-alikes in the search_path are not called, and it stays');

# --- sessions of other clients, and tables that others have changed

$node->safe_psql('plain', q{
	SELECT start_upload('p', upload_id => 'idle', ttl => '1 microsecond');
	SELECT sweep_uploads();
	SELECT start_upload('p', 100, upload_id => 'parts', any_order => true);
	SELECT start_upload('p', 100, upload_id => 'sliding', ttl => '1 hour');
	SELECT start_upload('p', 100, upload_id => 'leased');
	SELECT acquire_upload_lease('leased', 'server')});
is( $node->safe_psql('plain', qq{SELECT "UploadId", "TotalSize", "ExpiresAt" < now(), "IsAborted", "IsComplete" FROM $table ORDER BY 1}),
	"idle|0|t|f|f\nleased|100|f|f|f\nparts|100|f|f|f\nsliding|100|f|f|f", 'sessions of other clients');
is(sqlstate_of($node, qq{UPDATE $table SET "BytesUploaded" = 10 WHERE "UploadId" = '$_->[0]'}, 'plain'), $_->[1], "... $_->[0]: a chunk")
  foreach [ idle => 'VB004' ], [ leased => 'VB008' ], [ parts => '0A000' ], [ sliding => '00000' ];
is(sqlstate_of($node, qq{UPDATE $table SET "UploadId" = 'x' WHERE "UploadId" = 'sliding'}, 'plain'), '0A000', 'another id');
is( $node->safe_psql('plain', qq{UPDATE $table SET "ExpiresAt" = '2030-01-01 UTC' WHERE "UploadId" = 'sliding';
		UPDATE $table SET "BytesUploaded" = 20 WHERE "UploadId" = 'sliding';
		SELECT "ExpiresAt" = '2030-01-01 UTC', "BytesUploaded" FROM $table WHERE "UploadId" = 'sliding'}),
	't|20', 'a deadline that the library sets slides no more');
$node->safe_psql('plain', q{
	CREATE FUNCTION suppress() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
	CREATE TRIGGER suppress BEFORE UPDATE ON upload_session FOR EACH ROW EXECUTE FUNCTION suppress()});
is(sqlstate_of($node, $_, 'plain'), '27000', 'a trigger that suppresses the write')
  foreach qq{UPDATE $table SET "MetadataJson" = '{"a": "b"}' WHERE "UploadId" = 'sliding'},
  "$insert VALUES ('x', 'p', 10, 0, NULL, now(), false, false)";
$node->safe_psql('plain', 'DROP FUNCTION suppress CASCADE; SET client_min_messages = error');

# --- two servers at once

# Send a statement that may have to wait, and go on.
sub send_sql
{
	my ($session, $sql) = @_;
	$session->query_until(qr/sent/, "\\echo sent\n$sql;\n\\echo result :SQLSTATE :ROW_COUNT\n");
	return;
}

sub await_blocked
{
	$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'})
	  or die 'nobody waits';
	return;
}

sub result_of
{
	my ($session) = @_;
	return $session->query_until(qr/result \S+ \d+/, "\n") =~ /result (\S+ \d+)/ ? $1 : '';
}

# The first server's statement is under way; the second one's waits for it.
sub race
{
	my ($title, $first, $second, $expected) = @_;
	my ($a, $b) = map { $node->background_psql('plain', on_error_stop => 0) } 1, 2;

	$node->safe_psql('plain', qq{TRUNCATE upload_session CASCADE;
		$insert VALUES ('r', 'p', 100, 0, '{"parts": ""}', now(), false, false)});
	$a->query_safe("BEGIN; $first");
	send_sql($b, $second);
	await_blocked();
	$a->query_safe('COMMIT');
	is(result_of($b), $expected, $title);
	$_->quit foreach $a, $b;
	return $node->safe_psql('plain', q{SELECT uploaded_bytes, status, provider_data FROM upload_session});
}

sub chunk
{
	my ($bytes, $data) = @_;
	return qq{UPDATE $table SET "BytesUploaded" = $bytes, "ProviderDataJson" = '{"parts": "$data"}', "IsAborted" = false WHERE "UploadId" = 'r'};
}

is(race('the same chunk twice', chunk(8, '1:e'), chunk(8, '1:e'), '00000 1'), '8|in_progress|{"parts": "1:e"}', '... counts once');
is(race('two chunks of one length', chunk(8, '1:e'), chunk(8, '1:f'), 'VB002 0'), '8|in_progress|{"parts": "1:e"}', '... are not one');
is(race('a longer chunk', chunk(8, '1:e'), chunk(12, '1:f'), 'VB002 0'), '8|in_progress|{"parts": "1:e"}', '... does not replace the first');
is(race('a shorter chunk', chunk(8, '1:e'), chunk(5, '1:f'), 'VB002 0'), '8|in_progress|{"parts": "1:e"}', '... does not go back');
is(race('a chunk, and an abort', chunk(8, '1:e'), qq{UPDATE $table SET "IsAborted" = true}, '00000 1'), '8|aborted|{"parts": "1:e"}', '... which does not touch the bytes');
is(race('a chunk after an abort', qq{UPDATE $table SET "IsAborted" = true}, chunk(8, '1:e'), 'VB003 0'), '0|aborted|{"parts": ""}', '... is refused');
is(race('a chunk after a delete', "DELETE FROM $table", chunk(8, '1:e'), '00000 0'), '', '... finds no row');
is(race('a delete after a delete', "DELETE FROM $table", "DELETE FROM $table", '00000 0'), '', '... finds none either');

# --- the table becomes a view while the servers run

new_database('live', 'public');
$node->safe_psql('live', $create{$table});
$node->safe_psql('live', qq{$insert VALUES ('r', 'p', 100, 8, '{"parts": "1:e"}', now(), false, false);
	GRANT ALL ON $table TO dotnet});
my ($server, $admin) = map { $node->background_psql('live', on_error_stop => 0) } 1, 2;
$server->query_safe(qq{SET ROLE dotnet; PREPARE chunk (bigint, text, varchar) AS
	UPDATE $table SET "BytesUploaded" = \$1, "ProviderDataJson" = \$2 WHERE "UploadId" = \$3;
	EXECUTE chunk (16, '{"parts": "1:e|2:f"}', 'r')});
$admin->query_safe("BEGIN; LOCK TABLE $table");
send_sql($server, q{EXECUTE chunk (24, '{"parts": "1:e|2:f|3:g"}', 'r')});
await_blocked();
$admin->query_safe(qq{$take_over{$table}; ALTER TABLE $table RENAME TO "ValiBlob_ResumableSessions_old";
	\\i '$script'
	GRANT SELECT, INSERT, UPDATE, DELETE ON $table TO dotnet;
	COMMIT});
is(result_of($server), '00000 1', 'a prepared statement that waited for the table goes on with the view');
is($node->safe_psql('live', 'SELECT uploaded_bytes, provider_data FROM upload_session'), '24|{"parts": "1:e|2:f|3:g"}', '... and no chunk is lost');
$_->quit foreach $server, $admin;

# --- the view is dumped and restored, and goes with the extension

foreach my $dbname ('live', 'odd')
{
	my $name = $dbname eq 'odd' ? $names{odd}[1] : $table;
	my $dump = $node->backup_dir . "/$dbname.sql";

	$node->safe_psql($dbname, "$insert VALUES ('dumped', 'p', 10, 5, NULL, now(), false, false)" =~ s/\Q$table\E/$name/r);
	$node->command_ok([ 'pg_dump', '--file', $dump, $node->connstr($dbname) ], "$dbname: a dump");
	$node->safe_psql('postgres', "CREATE DATABASE restored");
	$node->command_ok([ 'psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-f', $dump, $node->connstr('restored') ], '... is restored');
	is($node->safe_psql('restored', qq{UPDATE $name SET "BytesUploaded" = 10 WHERE "UploadId" = 'dumped';
			SELECT "BytesUploaded", (SELECT reloptions FROM pg_class WHERE oid = \$\$$name\$\$::regclass) FROM $name WHERE "UploadId" = 'dumped'}),
		'10|{security_invoker=true}', '... with the view');
	my ($rc, $stdout, $stderr) = $node->psql('restored', 'DROP EXTENSION vali_blob');
	like($stderr, qr/ERROR:  cannot drop extension vali_blob.*view .* depends on table /s, '... which keeps the extension from being dropped');
	$node->safe_psql('restored', 'SET client_min_messages = error; DROP EXTENSION vali_blob CASCADE');
	is($node->safe_psql('restored', q{SELECT (SELECT count(*) FROM pg_proc WHERE proname ~ '^vali_blob'), to_regclass($$} . $name . '$$)'), '0|', '... or goes with it, and its functions');
	$node->safe_psql('postgres', 'DROP DATABASE restored');
}

# The manual's way to remove it
my ($remove) = $manual =~ /^(    DROP VIEW "ValiBlob_ResumableSessions";\n    DROP FUNCTION .*;\n)/m;
$node->safe_psql('live', $remove);
is($node->safe_psql('live', q{SELECT count(*) FROM pg_proc WHERE proname ~ '^vali_blob_ef'}), '0', 'the view is removed');

# ... and what else keeps the extension from being dropped
$node->safe_psql('live', q{
	CREATE VIEW mine AS SELECT upload_id FROM upload_session;
	CREATE TABLE note (upload_id text CONSTRAINT of_mine REFERENCES upload_session (upload_id))});
my (undef, undef, $refusal) = $node->psql('live', 'DROP EXTENSION vali_blob');
like($refusal, qr/ERROR:  cannot drop extension vali_blob/, 'views and foreign keys of the user keep the extension');
like($refusal, qr/^(DETAIL:  )?\Q$_\E depends on/m, "... which names $_") foreach 'view mine', 'constraint of_mine on table note';
$node->safe_psql('live', 'DROP VIEW mine; ALTER TABLE note DROP CONSTRAINT of_mine');
is($node->safe_psql('live', 'SET client_min_messages = error; DROP EXTENSION vali_blob; SELECT 1'), '1', 'without them it is dropped');

done_testing();
