# ALTER EXTENSION vali_blob UPDATE: this library works with the objects of 1.0
# before it, nothing is lost or locked for long by it, and after it the database is
# the same as one in which 1.1 was created.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use UploadTest;

my $sessions = $ENV{UPDATE_SESSIONS} // 1_000_000;
my $node = upload_node('main', conf => qq{
shared_preload_libraries = 'vali_blob'
vali_blob.sweep_interval = 1s
});

# A new database with the extension at a version; in a schema that needs quotes.
sub create_database
{
	my ($name, $version) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $name");
	$node->safe_psql('postgres', qq{ALTER DATABASE $name SET search_path = "the schema", public});
	$node->safe_psql($name, qq{
		CREATE SCHEMA "the schema";
		CREATE EXTENSION vali_blob SCHEMA "the schema" VERSION '$version'});
	return;
}

create_database('updated', '1.0');
create_database('fresh', '1.1');
$node->safe_psql('postgres', 'CREATE ROLE client; CREATE ROLE other; CREATE ROLE owner; CREATE ROLE third');

# --- 1.0, by this library

my @calls = (
	upload_life(),
	[ q{SELECT status FROM start_upload('dir/file', provider_data => '{"part": 1}', upload_id => 'v')}, 'pending' ],
	[ q{SELECT status, abort_reason FROM abort_upload('v', 'reason')}, 'aborted|reason' ],
	[ q{SELECT upload_id, reason, attempts FROM claim_reclaims() ORDER BY upload_id}, 'v|aborted|0' ],
	[ q{SELECT fail_reclaim(id, 'no') FROM upload_reclaim}, 't' ],
	[ q{SELECT finish_reclaim(id) FROM upload_reclaim}, 't' ],
	[ q{SELECT delete_upload('v')}, 't' ],
	[ q{SELECT * FROM sweep_uploads()}, '0|0|0' ],
	[ q{SELECT count(*) FROM upload_stats}, '5' ],
	[ q{SELECT running FROM sweeper_status()}, 't' ],
	[ q{SELECT grant_upload_access('third'), revoke_upload_access('third')}, '|' ]);
my @life = statements(@calls);
my $expected = answers(@calls);

foreach my $way ('auto', 'sql')
{
	is($node->safe_psql('updated', join(';', "SET vali_blob.row_access = $way", @life)),
		$expected, "1.0 works with this library, row_access = $way");
}
$node->poll_query_until('updated', 'SELECT last_sweep IS NOT NULL AND last_error IS NULL FROM sweeper_status()')
  or die 'there was no sweep of 1.0';
is(sqlstate_of($node, q{SELECT start_upload('x', any_order => true)}, 'updated'), '42883', 'what is new is not there');

# --- an update that fails

# What the view calls cannot be dropped.
$node->safe_psql('updated', q{CREATE VIEW in_the_way AS SELECT * FROM advance_upload('u', 0, 1)});
is(sqlstate_of($node, 'ALTER EXTENSION vali_blob UPDATE', 'updated'), '2BP01', 'an update may fail');
is($node->safe_psql('updated', q{SELECT extversion FROM pg_extension WHERE extname = 'vali_blob'}), '1.0', '... then 1.0 is there');
is($node->safe_psql('updated', join(';', @life)), $expected, '... and works');
$node->safe_psql('updated', 'DROP VIEW in_the_way');

# --- before the update

# What a client has been granted, in several ways.
$node->safe_psql('updated', q{
	SELECT grant_upload_access('client');
	GRANT USAGE ON SCHEMA "the schema" TO owner, other;
	GRANT EXECUTE ON FUNCTION list_uploads TO other WITH GRANT OPTION;
	SET ROLE other;
	GRANT EXECUTE ON FUNCTION list_uploads TO client;
	RESET ROLE;
	ALTER TABLE upload_session OWNER TO owner;
	ALTER TABLE upload_reclaim OWNER TO owner;
	ALTER FUNCTION start_upload OWNER TO owner;
});
$node->safe_psql('updated', qq{
	INSERT INTO upload_session (upload_id, path, total_size, expires_at)
	SELECT 'many' || n, 'file', 1000, now() + interval '1 day' FROM generate_series(1, $sessions) AS n});
$node->safe_psql('updated', q{
	SELECT start_upload('file', 1000000, upload_id => 'writer' || n) FROM generate_series(1, 4) AS n;
	SELECT start_upload('file', 1000, upload_id => 'held');
	SELECT start_upload('file', 1000, upload_id => 'stale', provider_data => '{"a": 1}')});
my $files = q{SELECT relname, relfilenode FROM pg_class WHERE relname ~ '^upload_(session|reclaim)' AND relfilenode <> 0 ORDER BY relname};
my $files_before = $node->safe_psql('updated', $files);
my $rows = q{SELECT count(*), sum(hashtext(upload_id || path || total_size || expires_at)::bigint) FROM upload_session WHERE upload_id LIKE 'many%'};
my $rows_before = $node->safe_psql('updated', $rows);

# A session of before, with a prepared statement; and writers that go on meanwhile.
my $before = $node->background_psql('updated');
$before->query_safe(q{PREPARE chunk AS SELECT outcome, uploaded_bytes FROM advance_upload($1, $2, $3)});
is(answer($before, q{EXECUTE chunk('held', 0, 10)}), 'advanced|10', 'a prepared chunk');
my $stop = "$PostgreSQL::Test::Utils::tmp_check/stop";
my %writer;
foreach my $number (1 .. 4)
{
	my $pid = fork // die "could not fork: $!";
	if ($pid == 0)
	{
		# one chunk after the other, each acknowledged before the next, until told to stop
		my $offset = 0;
		my $failed = '';
		while (!-e $stop)
		{
			my ($rc, $stdout, $stderr) = $node->psql('updated', join ';',
				map { "SELECT outcome FROM advance_upload('writer$number', " . ($offset + $_) . ', 1)' } 0 .. 19);
			my @outcomes = split /\n/, $stdout;

			# a statement that is being planned while its function goes away
			$failed .= $stderr if $rc && $stderr !~ /cache lookup failed for function/;
			$failed .= "not all advanced: @outcomes" if grep { $_ ne 'advanced' } @outcomes;
			$offset += @outcomes;
			last if $failed;
		}
		append_to_file("$stop.$number", "$offset\n$failed");
		require POSIX;
		POSIX::_exit(0);
	}
	$writer{$number} = $pid;
}
$node->poll_query_until('updated', q{SELECT min(uploaded_bytes) > 100 FROM upload_session WHERE upload_id LIKE 'writer%'})
  or die 'the writers did not begin';

# --- the update, while they write

my $reads = q{SELECT seq_tup_read FROM pg_stat_all_tables WHERE relid = 'upload_session'::regclass};
my $reads_before = $node->safe_psql('updated', $reads);
$node->safe_psql('updated', q{ALTER EXTENSION vali_blob UPDATE});
is($node->safe_psql('updated', $reads), $reads_before, 'the update has not read the table');
is($node->safe_psql('updated', q{SELECT extversion FROM pg_extension WHERE extname = 'vali_blob'}), '1.1', 'the extension is updated');
is(answer($before, q{EXECUTE chunk('held', 10, 10)}), 'advanced|20', 'a session of before goes on with its prepared statement');
my $bytes = $node->safe_psql('updated', q{SELECT sum(uploaded_bytes) FROM upload_session WHERE upload_id LIKE 'writer%'});
$node->poll_query_until('updated', qq{SELECT sum(uploaded_bytes) > $bytes + 400 FROM upload_session WHERE upload_id LIKE 'writer%'})
  or die 'the writers did not go on';
append_to_file($stop, '');
waitpid $_, 0 foreach values %writer;
foreach my $number (sort keys %writer)
{
	my ($offset, $failed) = split /\n/, slurp_file("$stop.$number"), 2;

	is($failed // '', '', "writer $number has met no error");
	is($node->safe_psql('updated', "SELECT uploaded_bytes FROM upload_session WHERE upload_id = 'writer$number'"),
		$offset, 'every byte that it has confirmed is there, and no other');
}
is($node->safe_psql('updated', $files), $files_before, 'no table and no index was rewritten');
is($node->safe_psql('updated', $rows), $rows_before, 'no row has changed');
is(answer($before, join ';', @life), $expected, 'a session of before works');
is($node->safe_psql('updated', join ';', @life), $expected, 'a new session works');

# The sweeper goes on.
$node->safe_psql('updated', q{UPDATE upload_session SET expires_at = now() WHERE upload_id = 'stale'});
$node->poll_query_until('updated', q{SELECT status = 'expired' FROM upload_session WHERE upload_id = 'stale'})
  or die 'no session expired';
is($node->safe_psql('updated', 'SELECT last_error FROM sweeper_status()'), '', 'the sweeper has met no error');

# What is new works.
is( $node->safe_psql('updated', q{
		SET ROLE client;
		SELECT any_order FROM start_upload('file', 20, upload_id => 'new', any_order => true);
		SELECT outcome, uploaded_bytes, ready FROM advance_upload('new', 10, 10, part_number => 2, etag => 'b');
		SELECT outcome, uploaded_bytes, ready FROM advance_upload('new', 0, 10, part_number => 1, etag => 'a');
		SELECT part_number, etag FROM list_parts('new');
		SELECT status FROM complete_upload('new')}),
	join("\n", 't', 'advanced|10|f', 'advanced|20|t', '1|a', '2|b', 'complete'),
	'a client of before can use what is new');

# --- privileges

is($node->safe_psql('updated', q{SELECT relowner::regrole FROM pg_class WHERE oid = 'upload_part'::regclass}),
	'owner', 'the new table belongs to the owner of the others');
is($node->safe_psql('updated', q{SELECT proowner::regrole FROM pg_proc WHERE oid = 'start_upload'::regproc}),
	'owner', 'a function keeps its owner');
is( $node->safe_psql('updated', q{
		SELECT grantor::regrole, grantee::regrole, is_grantable
		FROM pg_proc, aclexplode(proacl) WHERE oid = 'list_uploads'::regproc AND grantee = 'client'::regrole ORDER BY grantor::regrole::text COLLATE "C"}),
	"other|client|f\npostgres|client|f" =~ s/postgres/$node->safe_psql('postgres', 'SELECT current_user')/er,
	'and its privileges, with who granted them');
my $dump = "$PostgreSQL::Test::Utils::tmp_check/updated.sql";
command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr('updated') ], 'the updated database can be dumped');
my $dumped = slurp_file($dump);
like($dumped, qr/GRANT .*EXECUTE|GRANT ALL ON FUNCTION "the schema"\.start_upload\(.*or_resume/s, 'with the privileges that were kept');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), '-f', $dump ], 'and restored');
is( $node->safe_psql('restored', q{
		SET search_path = "the schema";
		SET ROLE client;
		SELECT count(*) FROM list_parts('new');
		SELECT outcome FROM try_advance_upload('new', 0, 10)}),
	"2\nreplayed", 'so that a client can use it there');

# --- a dump of 1.0

# It grants the functions of 1.0, so it is restored into a database that has these.
create_database('earlier', '1.0');
$node->safe_psql('earlier', q{SELECT grant_upload_access('client'); SELECT start_upload('file', 10, upload_id => 'u')});
command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr('earlier') ], 'a database of 1.0 can be dumped');
create_database('later', '1.0');
append_to_file("$dump.without_schema", slurp_file($dump) =~ s/^CREATE SCHEMA "the schema";$//mr);
command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('later'), '-f', "$dump.without_schema" ], 'and restored');
is($node->safe_psql('later', q{
		ALTER EXTENSION vali_blob UPDATE;
		SET ROLE client;
		SELECT outcome FROM try_advance_upload('u', 0, 10, etag => 'e');
		SELECT etag FROM list_parts('u')}),
	"advanced\ne", 'and updated');

# --- policies

# A role that sees some sessions only sees their parts only.
create_database('policies', '1.0');
$node->safe_psql('policies', q{
	SELECT grant_upload_access('client');
	ALTER TABLE upload_session ENABLE ROW LEVEL SECURITY;
	CREATE POLICY visible ON upload_session FOR SELECT USING (owner IN (current_user, 'shared'));
	CREATE POLICY starts ON upload_session FOR INSERT WITH CHECK (owner = current_user);
	CREATE POLICY changes ON upload_session FOR UPDATE USING (owner = current_user);
	CREATE POLICY deletes ON upload_session FOR DELETE USING (owner = current_user);
	ALTER EXTENSION vali_blob UPDATE;
	SELECT start_upload('file', 20, owner => 'client', upload_id => 'own', any_order => true), advance_upload('own', 0, 10);
	SELECT start_upload('file', 20, owner => 'shared', upload_id => 'shared', any_order => true), advance_upload('shared', 0, 10);
	SELECT start_upload('file', 20, owner => 'other', upload_id => 'not own', any_order => true), advance_upload('not own', 0, 10)});
is($node->safe_psql('policies', q{
		SET ROLE client;
		SELECT upload_id FROM upload_part ORDER BY 1;
		SELECT outcome FROM try_advance_upload('own', 10, 10, etag => 'e');
		SELECT outcome FROM try_advance_upload('own', 10, 10, etag => 'f');
		UPDATE upload_part SET etag = 'bad' WHERE upload_id <> 'own';
		DELETE FROM upload_part WHERE upload_id <> 'own';
		RESET ROLE;
		SELECT upload_id, count(*) FROM upload_part GROUP BY upload_id ORDER BY upload_id}),
	"own\nshared\nadvanced\nreplaced\nnot own|1\nown|2\nshared|1", 'a role that sees some sessions only has their parts only');
is(sqlstate_of($node, qq{SET ROLE client; INSERT INTO upload_part (upload_id, chunk_offset, chunk_length) VALUES ('$_', 10, 10)}, 'policies'),
	'42501', "and cannot forge a part: $_") foreach 'shared', 'not own';
is($node->safe_psql('policies', q{SELECT count(*) FROM upload_part WHERE etag = 'bad'; SET ROLE client; SELECT delete_upload('own'); RESET ROLE; SELECT count(*) FROM upload_part WHERE upload_id = 'own'}),
	"0\nt\n0", 'nor change one, but delete its own session');

# --- what others have put into the schema

# No function of theirs runs in the update.
create_database('planted', '1.0');
$node->safe_psql('planted', q{
	CREATE ROLE mallory;
	GRANT CREATE, USAGE ON SCHEMA "the schema" TO mallory;
	SET ROLE mallory;
	CREATE FUNCTION copy_privileges(text, regclass, regclass) RETURNS void LANGUAGE plpgsql AS $$BEGIN EXECUTE 'ALTER ROLE mallory SUPERUSER'; END$$;
	CREATE FUNCTION copy_privileges(regclass, regprocedure, regprocedure) RETURNS void LANGUAGE plpgsql AS $$BEGIN EXECUTE 'ALTER ROLE mallory SUPERUSER'; END$$;
	CREATE FUNCTION copy_privileges(regclass, oid, VARIADIC oid[]) RETURNS void LANGUAGE plpgsql AS $$BEGIN EXECUTE 'ALTER ROLE mallory SUPERUSER'; END$$;
	CREATE FUNCTION start_upload(int) RETURNS void LANGUAGE sql AS '';
	CREATE FUNCTION get_upload() RETURNS void LANGUAGE sql AS '';
	RESET ROLE;
	ALTER EXTENSION vali_blob UPDATE});
is($node->safe_psql('planted', q{
		SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory';
		SELECT relacl = (SELECT relacl FROM pg_class WHERE oid = 'upload_session'::regclass) FROM pg_class WHERE oid = 'upload_part'::regclass}),
	"f\nt", 'an update runs no function that was planted, and copies privileges');

# What merely has the name of an object of 1.1 is not taken for it, before the update.
create_database('names', '1.0');
$node->safe_psql('names', q{
	CREATE TABLE upload_part (a int);
	ALTER TABLE upload_part OWNER TO other;
	ALTER TABLE upload_session ADD end_by date, ADD size_limit bigint DEFAULT 1, ADD any_order text DEFAULT 'x'});
is($node->safe_psql('names', join ';', "SELECT FROM grant_upload_access('client')", @life) =~ s/^\n//r, $expected, 'objects of the same name do no harm to 1.0');
is($node->safe_psql('names', q{SELECT has_table_privilege('client', 'upload_part', 'SELECT')}), 'f', 'and are granted to nobody');
$node->safe_psql('names', q{INSERT INTO upload_session (upload_id, path, expires_at) VALUES ('stale', 'file', '-infinity')});
$node->poll_query_until('names', q{SELECT status = 'expired' FROM upload_session WHERE upload_id = 'stale'})
  or die 'no session expired';

# --- the same objects as in a new database

create_database('plain', '1.0');
$node->safe_psql('plain', q{ALTER EXTENSION vali_blob UPDATE TO '1.1'});
my $objects = q{
	WITH member AS (SELECT classid, objid FROM pg_depend
		WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
			AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'vali_blob'))
	SELECT 'object', pg_describe_object(classid, objid, 0), obj_description(objid, classid::regclass::name), NULL FROM member
	UNION ALL
	SELECT 'function', pg_get_functiondef(oid), proacl::text, NULL FROM member JOIN pg_proc ON classid = 'pg_proc'::regclass AND objid = oid
	UNION ALL
	SELECT 'table', relname, relacl::text, reloptions::text FROM member JOIN pg_class ON classid = 'pg_class'::regclass AND objid = oid
	UNION ALL
	SELECT 'column', format('%s %s %s', attrelid::regclass, attnum, attname), format('%s %s %s %s', format_type(atttypid, atttypmod), attnotnull, attcollation::regcollation, attidentity),
		concat_ws(' ', pg_get_expr(adbin, adrelid), col_description(attrelid, attnum))
	FROM member JOIN pg_attribute ON classid = 'pg_class'::regclass AND objid = attrelid LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)
	WHERE attnum > 0
	UNION ALL
	SELECT 'constraint', format('%s %s', conrelid::regclass, conname), pg_get_constraintdef(c.oid), obj_description(c.oid, 'pg_constraint')
	FROM member JOIN pg_constraint c ON classid = 'pg_class'::regclass AND objid = conrelid
	UNION ALL
	SELECT 'index', indrelid::regclass::text, pg_get_indexdef(indexrelid), obj_description(indexrelid, 'pg_class')
	FROM member JOIN pg_index ON classid = 'pg_class'::regclass AND objid = indrelid
	UNION ALL
	SELECT 'trigger', tgrelid::regclass::text, tgfoid::regproc::text, NULL
	FROM member JOIN pg_trigger ON classid = 'pg_class'::regclass AND objid = tgrelid
	UNION ALL
	SELECT 'label', enumtypid::regtype::text, enumlabel, row_number() OVER (PARTITION BY enumtypid ORDER BY enumsortorder)::text
	FROM member JOIN pg_enum ON classid = 'pg_type'::regclass AND objid = enumtypid
	UNION ALL
	SELECT 'initial privileges', pg_describe_object(i.classoid, i.objoid, i.objsubid), i.initprivs::text, NULL
	FROM member m JOIN pg_init_privs i ON (i.classoid, i.objoid) = (m.classid, m.objid)
	UNION ALL
	SELECT 'dumped', c.oid::regclass::text, condition, n::text
	FROM pg_extension, unnest(extconfig, extcondition) WITH ORDINALITY AS x (oid, condition, n) JOIN pg_class c USING (oid) WHERE extname = 'vali_blob'
	ORDER BY 1, 2, 3, 4};
my $fresh = $node->safe_psql('fresh', $objects);
is($node->safe_psql('plain', $objects), $fresh, 'an updated database has the same objects, comments and privileges as a new one');
like($fresh, qr/missing_ranges/, '... those of 1.1');

$before->quit;
$node->stop;
done_testing();
