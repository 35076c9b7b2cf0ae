# The two ways to a row, through SQL and through the table access method, cannot
# be told apart: the same random operations, good and bad, give the same answers
# and leave the same rows.  The direct way is refused wherever the table or the
# user is not an ordinary one, and what an administrator adds to the table counts
# in any case.  Logical decoding sees the chunks, and a chunk writes exactly its
# three WAL records.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use UploadTest;

my $operations = $ENV{RANDOM_OPERATIONS} || 5000;
my $seed = $ENV{RANDOM_SEED} || time;

note "RANDOM_SEED=$seed";
srand $seed;

my $node = upload_node('main', conf => "wal_level = logical\nautovacuum = off");

# --- the same operations, both ways -----------------------------------------

sub one_of { return $_[ rand @_ ] }

# A random call.  A few uploads, small numbers: everything happens to everything.
sub random_operation
{
	my $id = "'u" . int(rand 12) . "'";
	my $owner = one_of('NULL', 'NULL', "'ann'", "'bob'");
	my $json = one_of('NULL', 'NULL', q('{"a": 1}'), q('{"a": null, "b": [2]}'), q('[]'));
	my $size = one_of('NULL', 0, 10, 20, 30, -1);
	my $offset = one_of('NULL', -1, 0, 0, 5, 10, 10, 15, 20, 9223372036854775807);
	my $length = one_of(0, 5, 5, 10, 10, 20, -1, 1);
	my $final = one_of('false', 'false', 'true');
	my $nowait = one_of('false', 'true');
	my $chunk = "$id, $offset, $length, $final, $json, $owner, $nowait";
	my $live = "upload_id = $id AND status IN ('pending', 'in_progress')";
	my $follow = "(SELECT uploaded_bytes FROM get_upload($id)), $length, $final";

	return one_of(
		"SELECT outcome, uploaded_bytes, total_size, status, ready FROM advance_upload($chunk)",
		("SELECT outcome, uploaded_bytes, total_size, status, ready FROM try_advance_upload($chunk)") x 4,
		("SELECT outcome, uploaded_bytes, total_size, status, ready FROM try_advance_upload($id, $follow)") x 8,
		"SELECT outcome, uploaded_bytes FROM advance_uploads(ARRAY[$id, 'u1', 'u2', $id], ARRAY[0, 0, 5, 10], ARRAY[10, 5, 5, 5])",
		("SELECT upload_id, total_size FROM start_upload('f', $size, metadata => $json, provider_data => $json, owner => $owner, upload_id => $id)") x 3,
		"SELECT total_size FROM declare_upload_size($id, $size, $owner)",
		"SELECT metadata, provider_data FROM merge_upload_data($id, $json, $json, $owner)",
		("SELECT status, result FROM complete_upload($id, $json, $owner)") x 2,
		"SELECT status, abort_reason FROM abort_upload($id, 'because', $owner)",
		"SELECT delete_upload($id, $owner)",
		"SELECT uploaded_bytes, status FROM get_upload($id, $owner)",
		"UPDATE upload_session SET expires_at = timestamptz '2001-01-01' + id * interval '1 s' WHERE $live",
		"SELECT expired, purged FROM sweep_uploads(1000)",
		"BEGIN; SELECT outcome FROM try_advance_upload($id, 0, 5); SAVEPOINT s; SELECT outcome FROM try_advance_upload($id, 5, 5); ROLLBACK TO s; SELECT outcome FROM try_advance_upload($id, 5, 5); COMMIT");
}

my $script = join "\n", map { random_operation() . ";\n\\echo SQLSTATE :SQLSTATE" } 1 .. $operations;

# All of a table but its timestamps, of which only the order of some is sure.
my $dump = q{
	SELECT id, upload_id, owner, bucket, path, total_size, uploaded_bytes, status, content_type,
		metadata, provider_data, result, abort_reason, ttl, updated_at >= created_at,
		date_trunc('day', expires_at - updated_at)
	FROM upload_session ORDER BY id;
	SELECT id, upload_id, owner, provider_data, reason, attempts FROM upload_reclaim ORDER BY id;
};

my %printed;
my %rows;
foreach my $way ('sql', 'direct')
{
	$node->safe_psql('postgres', "CREATE DATABASE $way");
	$node->safe_psql($way, 'CREATE EXTENSION vali_blob');
	my ($rc, $stdout, $stderr) = $node->psql($way, "SET vali_blob.row_access = $way;\n$script", on_error_stop => 0);
	$printed{$way} = $stdout;
	$rows{$way} = $node->safe_psql($way, $dump);
}
my $answers = () = $printed{sql} =~ /^SQLSTATE 00000$/mg;
my $errors = () = $printed{sql} =~ /^SQLSTATE (?!00000)/mg;
is($answers + $errors, $operations, "all $operations operations were answered");
cmp_ok($answers, '>', $operations / 4, 'many of them were good');
cmp_ok($errors, '>', $operations / 20, 'and many bad');
is($printed{direct}, $printed{sql}, 'both ways give the same answers');
is($rows{direct}, $rows{sql}, 'both ways leave the same rows');
cmp_ok(length $rows{sql}, '>', 500, 'which are some');

# --- where the direct way is refused ------------------------------------------

# What makes the table an extraordinary one, and how to undo it.
my @obstacles = (
	[ 'row-level security', 'ALTER TABLE upload_session ENABLE ROW LEVEL SECURITY', 'ALTER TABLE upload_session DISABLE ROW LEVEL SECURITY' ],
	[ 'a trigger for updates', 'CREATE TRIGGER t BEFORE UPDATE ON upload_session FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()', 'DROP TRIGGER t ON upload_session' ],
	[ 'a trigger such as a distributed table has', 'CREATE TRIGGER t BEFORE TRUNCATE ON upload_session EXECUTE FUNCTION nothing()', 'DROP TRIGGER t ON upload_session' ],
	[ 'a foreign key to what a chunk changes', 'CREATE UNIQUE INDEX pair ON upload_session (upload_id, status);
		CREATE TABLE file (upload varchar, status upload_status, FOREIGN KEY (upload, status) REFERENCES upload_session (upload_id, status))',
		'DROP TABLE file; DROP INDEX pair' ],
	[ 'a foreign key that is checked later', 'CREATE TABLE account (name text PRIMARY KEY);
		ALTER TABLE upload_session ADD CONSTRAINT f FOREIGN KEY (owner) REFERENCES account DEFERRABLE', 'ALTER TABLE upload_session DROP CONSTRAINT f; DROP TABLE account' ],
	[ 'a unique constraint that is checked later', 'ALTER TABLE upload_session ADD CONSTRAINT d UNIQUE (id) DEFERRABLE', 'ALTER TABLE upload_session DROP CONSTRAINT d' ],
	[ 'a rule', 'CREATE RULE r AS ON UPDATE TO upload_session DO ALSO NOTIFY chunk', 'DROP RULE r ON upload_session' ],
	[ 'a generated column', 'ALTER TABLE upload_session ADD half bigint GENERATED ALWAYS AS (uploaded_bytes / 2) STORED', 'ALTER TABLE upload_session DROP half' ],
	[ 'a child table', 'CREATE TABLE child () INHERITS (upload_session)', 'DROP TABLE child; ANALYZE upload_session' ],
	[ 'a CHECK that runs a function', 'ALTER TABLE upload_session ADD CONSTRAINT c CHECK (fine(uploaded_bytes))', 'ALTER TABLE upload_session DROP CONSTRAINT c' ],
	[ 'a CHECK that may run SQL', "ALTER TABLE upload_session ADD CONSTRAINT c CHECK (ts_rewrite('a', 'SELECT ''a''::tsquery, ''b''::tsquery') IS NOT NULL)", 'ALTER TABLE upload_session DROP CONSTRAINT c' ],
	[ 'a CHECK that compares arrays', "ALTER TABLE upload_session ADD CONSTRAINT c CHECK (ARRAY[uploaded_bytes] >= '{0}')", 'ALTER TABLE upload_session DROP CONSTRAINT c' ],
	[ 'a CHECK that compares', 'ALTER TABLE upload_session ADD CONSTRAINT c CHECK (greatest(uploaded_bytes, 0) >= 0)', 'ALTER TABLE upload_session DROP CONSTRAINT c' ],
	[ 'a shorter type', 'ALTER TABLE upload_session ALTER updated_at TYPE timestamptz(0)', 'ALTER TABLE upload_session ALTER updated_at TYPE timestamptz' ],
	[ 'no unique index', 'ALTER TABLE upload_session DROP CONSTRAINT upload_session_pkey CASCADE',
		'ALTER TABLE upload_session ADD CONSTRAINT upload_session_pkey PRIMARY KEY (upload_id); '
		  . 'ALTER TABLE upload_part ADD CONSTRAINT upload_part_upload_id_fkey FOREIGN KEY (upload_id) REFERENCES upload_session ON DELETE CASCADE' ],
);

$node->safe_psql(
	'postgres', q{
	CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
	CREATE FUNCTION fine(bigint) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN $1 < 1000; END';
	SELECT start_upload('f', upload_id => 'u');
});
my $advance = "SELECT advance_upload('u', (SELECT uploaded_bytes FROM get_upload('u')), 2)";
foreach (@obstacles)
{
	my ($name, $do, $undo) = @$_;
	my @states = sqlstates_of($node, 'postgres', 'SET vali_blob.row_access = direct',
		$advance, $do, $advance, 'SET vali_blob.row_access = auto', $advance,
		'SET vali_blob.row_access = direct', $undo, $advance);

	is("@states[0, 2, 4, 7]", '00000 0A000 00000 00000', "$name is left to SQL, in a session that is open already");
}

# Foreign keys from and to the table are no obstacle, as their keys do not change.
$node->safe_psql('postgres', q{
	CREATE TABLE account (name text PRIMARY KEY);
	INSERT INTO account VALUES ('ann');
	CREATE TABLE file (upload varchar REFERENCES upload_session ON UPDATE CASCADE ON DELETE CASCADE);
	ALTER TABLE upload_session ADD CONSTRAINT account FOREIGN KEY (owner) REFERENCES account ON UPDATE CASCADE;
	INSERT INTO file VALUES ('u');
});
is_deeply(
	[
		sqlstates_of($node, 'postgres', 'SET vali_blob.row_access = direct', $advance,
			q{SELECT start_upload('f', owner => 'nobody')}, q{SELECT start_upload('f', owner => 'ann', upload_id => 'a')},
			q{BEGIN}, q{SELECT start_upload('f', owner => 'ann', upload_id => 'b')}, q{SELECT advance_upload('b', 0, 1)}, q{COMMIT},
			q{UPDATE account SET name = 'anne'}, q{SELECT advance_upload('a', 0, 1, owner => 'anne')}, q{DELETE FROM account})
	],
	[ '00000', '23503', ('00000') x 7, '23503' ],
	'foreign keys hold');
# A check that the running statement has queued is of the version it wrote.
is_deeply(
	[ sqlstates_of($node, 'postgres', 'SET vali_blob.row_access = direct',
		q{INSERT INTO upload_session (path, owner, upload_id, total_size) VALUES ('f', 'nobody', 'own', 10) RETURNING (try_advance_upload(upload_id, 0, 5)).outcome}) ],
	['23503'],
	'also of a row of the same statement');
is($node->safe_psql('postgres', q{SELECT delete_upload('u'); SELECT count(*) FROM file}), "t\n0", 'and cascade');
is_deeply(
	[ sqlstates_of($node, 'postgres', 'SET vali_blob.row_access = direct',
		'ALTER TABLE upload_session ADD region text, ADD CONSTRAINT region_check CHECK (region IS NOT NULL) NOT VALID',
		q{SELECT start_upload('f', owner => 'anne')}, 'ALTER TABLE upload_session DROP region') ],
	[ '00000', '23514', '00000' ],
	'a new row satisfies a CHECK of an added column');
is_deeply(
	[ sqlstates_of($node, 'postgres', 'BEGIN', 'ALTER TABLE upload_session DROP CONSTRAINT upload_session_pkey CASCADE',
		'ALTER TABLE upload_session ALTER upload_id DROP NOT NULL',
		q{INSERT INTO upload_session (upload_id, path, expires_at, owner) VALUES (NULL, 'f', '2001-01-01', 'anne')},
		q{INSERT INTO upload_session (upload_id, path, expires_at, owner) VALUES ('after', 'f', '2001-01-02', 'anne')},
		'SELECT sweep_uploads()', q{SELECT 1 / count(*) FROM upload_session WHERE upload_id = 'after' AND status = 'expired'}, 'ROLLBACK') ],
	[ ('00000') x 7 ],
	'a NULL key keeps no other row from expiring');
$node->safe_psql('postgres', q{
	ALTER TABLE upload_session DROP CONSTRAINT account;
	DROP TABLE file, account;
	SELECT start_upload('f', upload_id => 'u');
});

# --- inserting ------------------------------------------------------------------

# What is asked of a new row: columns of others get their defaults, constraints
# and lengths hold, ids go on, whether the INSERT is SQL's or ours.
my $number = 0;
foreach (
	[ 'plain' => '' ],
	[ 'a column with a default' => 'ALTER TABLE upload_session ADD extra text NOT NULL DEFAULT $$of mine$$' ],
	[ 'a default that calls a function' => 'ALTER TABLE upload_session ADD made timestamptz NOT NULL DEFAULT clock_timestamp()' ],
	[ 'a dropped column' => 'ALTER TABLE upload_session DROP made, ADD COLUMN gone int DEFAULT 7; ALTER TABLE upload_session DROP gone' ],
	[ 'a domain' => 'CREATE DOMAIN filled AS text DEFAULT $$of the domain$$; ALTER TABLE upload_session ADD named filled' ],
	[ 'a shorter path' => 'ALTER TABLE upload_session ALTER path TYPE varchar(20)' ],
	[ 'another type' => 'ALTER TABLE upload_session ALTER bucket TYPE text' ],
	[ 'an identity of another kind' => 'ALTER TABLE upload_session ALTER id SET GENERATED ALWAYS' ],
	[ 'a CHECK' => 'ALTER TABLE upload_session ADD CONSTRAINT c CHECK (length(path) < 10)' ],
	[ 'a partial index' => 'CREATE INDEX ON upload_session (path) WHERE owner IS NULL' ])
{
	my ($name, $do) = @$_;
	my %got;

	$node->safe_psql('postgres', $do);
	foreach my $way ('sql', 'direct')
	{
		$number++;
		my ($rc, $stdout, $stderr) = $node->psql('postgres', qq{
			SET vali_blob.row_access = $way;
			SELECT to_jsonb(s) - '{id,upload_id,created_at,updated_at,expires_at,made}'::text[], s.id > lag, to_jsonb(s) ->> 'made' IS NULL
			FROM (SELECT max(id) AS lag FROM upload_session) AS l,
				start_upload('file', 10, 'a/b', '{"a": 1}', '{"b": 2}', 'ann', 'bucket', '1 hour', 'n$number') AS s;
			SELECT to_jsonb(s) - '{id,upload_id,created_at,updated_at,expires_at,made}'::text[] FROM upload_session AS s WHERE upload_id = 'n$number';
			SELECT start_upload('file', upload_id => 'n$number');
			SELECT start_upload(repeat('x', 15), upload_id => 'm$number') IS NOT NULL;
			SELECT start_upload(repeat('x', 25), upload_id => 'l$number') IS NOT NULL;
			SELECT count(*) FROM upload_session WHERE path = 'file' AND owner = 'ann';
			DELETE FROM upload_session WHERE upload_id IN ('n$number', 'm$number', 'l$number');
		}, on_error_stop => 0);
		$got{$way} = ($stdout . $stderr) =~ s/\b[lmn]$number\b/n/gr =~ s/Failing row contains.*//gr;
	}
	is($got{direct}, $got{sql}, "$name: both ways insert the same row");
	like($got{sql}, qr/"owner": "ann"/, 'which is there');
}
$node->safe_psql('postgres', q{
	ALTER TABLE upload_session DROP CONSTRAINT c, DROP extra, DROP named, ALTER path TYPE varchar(2048), ALTER bucket TYPE varchar(256);
});

# What fails when it is planned concerns those who need it, as in SQL.
foreach (
	[ 'a default', 'ALTER TABLE upload_session ADD broken int, ALTER broken SET DEFAULT 1 / 0', '00000 00000 22012' ],
	[ 'a CHECK', 'ALTER TABLE upload_session ADD CONSTRAINT broken CHECK (uploaded_bytes >= 0 OR 1 / 0 > 0) NOT VALID', '00000 22012 22012' ],
	[ 'an identity of what a chunk changes', 'ALTER TABLE upload_session ALTER uploaded_bytes DROP DEFAULT, ALTER uploaded_bytes ADD GENERATED ALWAYS AS IDENTITY', '00000 428C9 00000' ],
	[ 'an identity of what a start sets', 'ALTER TABLE upload_session ALTER total_size SET NOT NULL, ALTER total_size ADD GENERATED ALWAYS AS IDENTITY', '00000 00000 428C9' ])
{
	my ($name, $do, $want) = @$_;

	foreach my $way ('sql', 'auto')
	{
		my @got = sqlstates_of($node, 'postgres', 'BEGIN', q{UPDATE upload_session SET total_size = 9999 WHERE total_size IS NULL}, $do, "SET LOCAL vali_blob.row_access = $way",
			'SAVEPOINT s', q{SELECT get_upload('u')}, 'ROLLBACK TO s', $advance, 'ROLLBACK TO s', q{SELECT start_upload('f', 10)}, 'ROLLBACK');

		is("@got[4, 6, 8]", $want, "$name that fails, row_access = $way");
	}
}

# Where the extension citus exists, rows may be on other servers; on its workers
# nothing of the table tells.
my $extensions = $node->config_data('--sharedir') . '/extension';
SKIP:
{
	skip 'the extensions of this installation cannot be changed', 1 if !-w $extensions || -e "$extensions/citus.control";
	append_to_file("$extensions/citus.control", "default_version = '1'\n");
	append_to_file("$extensions/citus--1.sql", "CREATE FUNCTION citus_version() RETURNS text LANGUAGE sql AS 'SELECT NULL::text';\n");
	my @with_citus = sqlstates_of($node, 'postgres', 'SET vali_blob.row_access = direct', $advance, 'CREATE EXTENSION citus',
		$advance, q{SELECT start_upload('f')}, 'SET vali_blob.row_access = auto', $advance, q{SELECT start_upload('f')}, 'DROP EXTENSION citus');
	unlink "$extensions/citus.control", "$extensions/citus--1.sql";
	is("@with_citus", '00000 00000 0A000 0A000 00000 00000 00000 00000', 'an extension citus is left to SQL');
}

# Where a shard runs a statement, a whole row is not of the table's row type.
$node->safe_psql('postgres', q{
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END';
	ALTER TABLE upload_session ADD "odd @.""name" int;
	CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON upload_session FOR EACH ROW EXECUTE FUNCTION refuse();
	CREATE TRIGGER refuse BEFORE UPDATE ON upload_reclaim FOR EACH ROW EXECUTE FUNCTION refuse();
	INSERT INTO upload_reclaim (upload_id, path, reason, provider_data) VALUES ('r', 'f', 'aborted', '{}');
});
foreach ([ q{start_upload('f')}, 'upload_session' ], [ q{merge_upload_data('u', '{"a": 1}')}, 'upload_session' ], [ 'claim_reclaims()', 'upload_reclaim' ])
{
	my ($call, $table) = @$_;
	my ($rc, $stdout, $stderr) = $node->psql('postgres', "SELECT * FROM $call");

	like($stderr, qr/RETURNING ROW\(id, [a-z_, ]+(, "odd @\.""name")?\)::public\.$table"$/m, "$call names the columns that it returns");
}
$node->safe_psql('postgres', q{
	DROP FUNCTION refuse CASCADE;
	ALTER TABLE upload_session DROP "odd @.""name";
	DELETE FROM upload_reclaim;
});

# Chunks of one upload in a call are written once, if the table accepts each.
foreach (
	[ 'a CHECK', 'ALTER TABLE upload_session ADD CHECK (uploaded_bytes % 8 = 0)', '23514' ],
	[ 'an index that fails', 'CREATE INDEX ON upload_session ((8 / (uploaded_bytes - 4)))', '22012' ],
	[ 'a unique index', 'CREATE UNIQUE INDEX ON upload_session (uploaded_bytes, status)', '23505',
		q{INSERT INTO upload_session (upload_id, path, uploaded_bytes, status) VALUES ('w', 'f', 4, 'in_progress')} ])
{
	my ($name, $do, $want, @more) = @$_;

	foreach my $way ('sql', 'direct')
	{
		is( (sqlstates_of($node, 'postgres', "TRUNCATE upload_session CASCADE; SET vali_blob.row_access = $way", 'BEGIN', $do,
				q{SELECT start_upload('f', upload_id => 'v')}, @more, q{SELECT advance_uploads('{v,v}', '{0,4}', '{4,4}')}))[-1],
			$want, "$name rejects what is not the last of some chunks, row_access = $way");
	}
}
$node->safe_psql('postgres', q{TRUNCATE upload_session CASCADE; SELECT start_upload('f', upload_id => 'u')});

# A privilege on columns is enough for SQL, and privileges are looked at anew.
$node->safe_psql('postgres', q{
	CREATE ROLE client;
	SELECT grant_upload_access('client');
});
my @states = sqlstates_of($node, 'postgres', 'SET vali_blob.row_access = direct',
	'SET ROLE client', $advance,
	'RESET ROLE', 'REVOKE UPDATE ON upload_session FROM client', 'SET ROLE client', $advance,
	'RESET ROLE', 'SET vali_blob.row_access = auto', 'SET ROLE client', $advance,
	'RESET ROLE', 'GRANT UPDATE (uploaded_bytes, updated_at, expires_at) ON upload_session TO client', 'SET ROLE client', $advance);
is("@states[1, 5, 9, 13]", '00000 0A000 42501 00000', 'privileges are those that SQL asks for');

# USAGE on the schema is looked at, too, where a call does not name it.
$node->safe_psql('postgres', q{
	CREATE DATABASE elsewhere;
	CREATE ROLE stranger;
});
$node->safe_psql('elsewhere', q{
	CREATE SCHEMA up;
	CREATE EXTENSION vali_blob SCHEMA up;
	CREATE VIEW advance AS SELECT outcome FROM up.try_advance_upload('u', 0, 10);
	SELECT up.start_upload('f', upload_id => 'u');
	GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA up TO stranger;
	GRANT SELECT, UPDATE ON up.upload_session TO stranger;
	GRANT SELECT ON advance TO stranger;
});
foreach my $way ('sql', 'auto')
{
	is(sqlstate_of($node, "SET vali_blob.row_access = $way; SET ROLE stranger; SELECT * FROM advance", 'elsewhere'),
		'42501', "USAGE on the schema is asked for, row_access = $way");
}
is(sqlstate_of($node, "SET vali_blob.row_access = direct; SET ROLE stranger; SELECT * FROM advance", 'elsewhere'),
	'0A000', 'and direct access is refused without it');

# A CHECK may call what everybody may, as long as everybody may.
$node->safe_psql('postgres', 'ALTER TABLE upload_session ADD CONSTRAINT c CHECK (length(path) > 0)');
@states = sqlstates_of($node, 'postgres', 'SET vali_blob.row_access = direct', $advance,
	'REVOKE EXECUTE ON FUNCTION length(text) FROM PUBLIC', $advance,
	'ALTER TABLE upload_session DROP CONSTRAINT c', 'GRANT EXECUTE ON FUNCTION length(text) TO PUBLIC', $advance);
is("@states[0, 2, 5]", '00000 0A000 00000', 'privileges on functions are looked at anew');

# What an administrator adds counts.
$node->safe_psql('postgres', 'ALTER TABLE upload_session ADD CONSTRAINT few CHECK (uploaded_bytes < 100), ADD CONSTRAINT sized CHECK (total_size IS NULL OR total_size > 5)');
@states = sqlstates_of($node, 'postgres', 'SET vali_blob.row_access = direct',
	"SELECT advance_upload('u', (SELECT uploaded_bytes FROM get_upload('u')), 100)", $advance);
is("@states", '23514 00000', 'a CHECK constraint holds');
$node->safe_psql('postgres', 'ALTER TABLE upload_session DROP CONSTRAINT few, DROP CONSTRAINT sized, ALTER expires_at SET NOT NULL');
@states = sqlstates_of($node, 'postgres', 'SET vali_blob.row_access = direct; SET vali_blob.retention = -1',
	"SELECT abort_upload('u')", $advance);
is("@states", '23502 00000', 'a NOT NULL holds');
$node->safe_psql('postgres', 'ALTER TABLE upload_session ALTER expires_at DROP NOT NULL, ADD note text DEFAULT $$kept$$; CREATE INDEX ON upload_session (uploaded_bytes)');
$node->safe_psql('postgres', "SET vali_blob.row_access = direct; $advance");
is($node->safe_psql('postgres', q{
	SET enable_seqscan = off;
	SELECT note FROM upload_session WHERE uploaded_bytes = (SELECT uploaded_bytes FROM get_upload('u'))}),
	'kept', 'a column that was added is kept, and an index on what a chunk changes is kept up');
$node->safe_psql('postgres', 'DROP INDEX upload_session_uploaded_bytes_idx');

# A column that came later has its default in old rows, a dropped one nothing.
$node->safe_psql('postgres', q{
	SELECT start_upload('f', 0, upload_id => 'old');
	ALTER TABLE upload_session ADD added int NOT NULL DEFAULT 7, ADD dropped text DEFAULT repeat('x', 1000);
});
is($node->safe_psql('postgres', q{
	SET vali_blob.row_access = direct;
	SELECT added FROM get_upload('old');
	SELECT added FROM complete_upload('old');
	SELECT added FROM complete_upload('old')}), "7\n7\n7", 'a column with a default is read, written and read again');

# A server built without contrib can run only what is above.
if ($node->safe_psql('postgres', q{SELECT count(*) FROM pg_available_extensions WHERE name IN ('pageinspect', 'pg_walinspect')}) < 2)
{
	note 'no pageinspect or pg_walinspect: what a chunk stores and logs is not tested';
	$node->stop;
	done_testing();
	exit;
}
# A unique index by which other ids are the same is not searched.
if (sqlstate_of($node, q{CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)}) eq '00000')
{
	$node->safe_psql('postgres', q{
		CREATE UNIQUE INDEX other ON upload_session (upload_id COLLATE any_case);
		SELECT start_upload('file', upload_id => 'case')});
	is($node->safe_psql('postgres', q{SELECT count(*) FROM get_upload('CASE'); SELECT count(*) FROM get_upload('case'); SELECT outcome FROM try_advance_upload('CASE', 0, 1)}),
		"0\n1\nnot_found", 'an index with another collation is not searched');
	$node->safe_psql('postgres', 'DROP INDEX other');
}

$node->safe_psql('postgres', "CREATE EXTENSION pageinspect; SET vali_blob.row_access = direct; $advance");
my $stored_size = q{SELECT lp_len FROM upload_session, heap_page_items(get_raw_page('upload_session', (ctid::text::point)[0]::int))
	WHERE upload_id = 'u' AND lp = (ctid::text::point)[1]};
my $with_remains = $node->safe_psql('postgres', $stored_size);
$node->safe_psql('postgres', 'ALTER TABLE upload_session DROP added, DROP dropped');
$node->safe_psql('postgres', "SET vali_blob.row_access = direct; $advance");
cmp_ok($node->safe_psql('postgres', $stored_size), '<', $with_remains - 900, 'what a dropped column held is not carried on');

# --- what else sees a chunk -----------------------------------------------------

my $begin = $node->lsn('insert');
$node->safe_psql('postgres', q{
	SELECT pg_create_logical_replication_slot('s', 'test_decoding');
	SET vali_blob.row_access = direct;
	SELECT advance_upload('u', (SELECT uploaded_bytes FROM get_upload('u')), 7);
});
like($node->safe_psql('postgres', q{SELECT data FROM pg_logical_slot_get_changes('s', NULL, NULL)}),
	qr/upload_session: UPDATE: .*uploaded_bytes/, 'logical decoding sees it');

$node->safe_psql('postgres', 'CREATE EXTENSION pg_walinspect; CHECKPOINT; SET vali_blob.row_access = direct;' . "$advance; $advance");
$begin = $node->lsn('insert');
$node->safe_psql('postgres', "SET vali_blob.row_access = direct; $advance");
my $records = $node->safe_psql('postgres', qq{
	SELECT string_agg(resource_manager || ' ' || split_part(record_type, '+', 1), ', ' ORDER BY start_lsn)
	FROM pg_get_wal_records_info('$begin', pg_current_wal_flush_lsn())
	WHERE resource_manager IN ('Heap', 'Heap2', 'Btree', 'Transaction') AND xid <> '0'});
is($records, 'Heap LOCK, Heap HOT_UPDATE, Transaction COMMIT', 'its WAL is a lock, a HOT update and the commit');

# Where pages are as full as they ever get, most chunks still prune nothing.
my ($uploads, $chunks) = (200, 10);
$node->safe_psql('postgres', qq{
	SELECT count(start_upload('f', upload_id => 'page' || i)) FROM generate_series(1, $uploads) i;
	SELECT count(advance_upload(upload_id, 0, 10)) FROM upload_session WHERE upload_id LIKE 'page%';
	VACUUM upload_session;
});
$begin = $node->lsn('insert');
send_chunks($node, 'page', $uploads, $chunks, 10, 'SET vali_blob.row_access = direct');
my ($updates, $prunings) = split /\|/, $node->safe_psql('postgres', qq{
	SELECT sum(count) FILTER (WHERE record LIKE 'Heap/HOT_UPDATE%'), sum(count) FILTER (WHERE record LIKE 'Heap2/PRUNE%')
	FROM pg_get_wal_stats('$begin', pg_current_wal_flush_lsn(), true) AS stats (record, count)
});
is($updates, $uploads * $chunks, 'every chunk is a HOT update');
cmp_ok($prunings, '<', $updates / 4, 'and its page is pruned now and then') and note "$prunings prunings";

done_testing();
