# What a session has cached about the extension never outlives a change: the
# extension dropped and created elsewhere, its schema renamed, columns added and
# dropped, triggers, rules and child tables attached, in mid-session or by
# another session.  Nothing that suppresses a write is reported as done.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use UploadTest;

my $node = upload_node('main', conf => 'max_prepared_transactions = 2');

my $copies = 0;
$node->safe_psql('postgres',
	q{CREATE DATABASE pristine; ALTER DATABASE pristine SET client_min_messages = error});
$node->safe_psql('pristine', 'CREATE EXTENSION vali_blob');

sub fresh_database
{
	my $dbname = 'copy' . ++$copies;

	$node->safe_psql('postgres', "CREATE DATABASE $dbname TEMPLATE pristine");
	return $dbname;
}

# Run commands in one session, up to the first error, which is shown.
sub answers_in
{
	my ($dbname, $sql) = @_;
	my ($rc, $stdout, $stderr) = $node->psql($dbname, $sql);

	return join "\n", grep { $_ ne '' } $stdout, $stderr;
}

subtest 'dropped and created elsewhere, in one session' => sub {
	my $dbname = fresh_database();

	is( answers_in(
			$dbname, q{
			SET client_min_messages = error;
			SELECT outcome FROM start_upload('file', upload_id => 'u'), try_advance_upload('u', 0, 10);
			DROP EXTENSION vali_blob;
			CREATE SCHEMA "Else where";
			CREATE EXTENSION vali_blob SCHEMA "Else where";
			SELECT count(*) FROM "Else where".get_upload('u');
			SELECT path FROM "Else where".start_upload('new file', upload_id => 'u');
			SELECT outcome, uploaded_bytes FROM "Else where".try_advance_upload('u', 0, 20);
			BEGIN;
			DROP EXTENSION vali_blob;
			CREATE EXTENSION vali_blob SCHEMA public;
			SELECT path FROM start_upload('newest file', upload_id => 'u');
			SELECT outcome, uploaded_bytes FROM try_advance_upload('u', 0, 30);
			ROLLBACK;
			BEGIN;
			SAVEPOINT a;
			DROP EXTENSION vali_blob;
			CREATE EXTENSION vali_blob SCHEMA public;
			SELECT count(*) FROM get_upload('u');
			ROLLBACK TO SAVEPOINT a;
			SELECT outcome, uploaded_bytes FROM "Else where".try_advance_upload('u', 20, 1);
			COMMIT;
			DROP EXTENSION vali_blob;
			CREATE EXTENSION vali_blob SCHEMA "Else where";
			SELECT outcome FROM "Else where".try_advance_upload('u', 21, 1);
			SELECT upload_id FROM "Else where".start_upload('file', upload_id => 'v');
			SELECT outcome FROM "Else where".try_advance_upload('v', 0, 1);
			SELECT status FROM "Else where".abort_upload('v');
		}),
		join("\n",
			'advanced', 0, 'new file', 'advanced|20',
			'newest file', 'advanced|30', 0, 'advanced|21',
			'not_found', 'v', 'advanced', 'aborted'),
		'each call finds the extension of the moment');
};

subtest 'changed by another session' => sub {
	my $dbname = fresh_database();
	my $session = $node->background_psql($dbname);

	$session->query_safe(
		q{SET search_path = public, renamed; SELECT start_upload('file', upload_id => 'u'); SELECT advance_upload('u', 0, 10)});
	$node->safe_psql(
		$dbname, q{
		ALTER SCHEMA public RENAME TO renamed;
		CREATE SCHEMA public;
		CREATE TABLE public.upload_session (upload_id text, uploaded_bytes bigint);
	});
	is( answer($session, q{SELECT outcome, uploaded_bytes FROM try_advance_upload('u', 10, 10)}),
		'advanced|20', 'schema renamed, and a decoy in its place');
	$node->safe_psql($dbname, 'ALTER TABLE renamed.upload_session ADD COLUMN note text');
	is( answer($session, q{SELECT uploaded_bytes, note FROM get_upload('u')}),
		'20|', 'column added');
	is( answer($session, q{SELECT outcome, uploaded_bytes FROM try_advance_upload('u', 20, 10)}),
		'advanced|30', 'a chunk after that');
	$node->safe_psql($dbname, 'DROP EXTENSION vali_blob; CREATE EXTENSION vali_blob SCHEMA renamed');
	is( answer($session, q{SELECT outcome FROM try_advance_upload('u', 30, 10)}),
		'not_found', 'extension dropped and created');
	$session->quit;
};

subtest 'columns' => sub {
	my $dbname = fresh_database();

	is( answers_in(
			$dbname, q{
			SELECT outcome FROM start_upload('file', upload_id => 'u'), try_advance_upload('u', 0, 10);
			ALTER TABLE upload_session ADD COLUMN note text DEFAULT 'none';
			ALTER TABLE upload_session ADD COLUMN twice bigint GENERATED ALWAYS AS (uploaded_bytes * 2) STORED;
			SELECT outcome FROM try_advance_upload('u', 10, 10);
			SELECT uploaded_bytes, note, twice FROM get_upload('u');
			SELECT note, twice FROM start_upload('file', upload_id => 'v');
			ALTER TABLE upload_session DROP COLUMN note;
			SELECT outcome FROM try_advance_upload('u', 20, 10);
			SELECT uploaded_bytes, twice FROM merge_upload_data('u', '{"a": 1}');
			ALTER TABLE upload_session ALTER COLUMN content_type TYPE text;
			SELECT content_type FROM start_upload('file', 0, 'text/plain', upload_id => 'w');
			SELECT uploaded_bytes, twice, content_type FROM complete_upload('w', '{"a": 1}');
			SELECT upload_id, uploaded_bytes, twice FROM list_uploads();
			DISCARD ALL;
			ALTER TABLE upload_reclaim ADD COLUMN note text DEFAULT 'none';
			SELECT provider_data FROM merge_upload_data('u', provider_data => '{"a": 1}');
			SELECT delete_upload('u');
			SELECT upload_id, note FROM claim_reclaims();
		}),
		join("\n",
			'advanced', 'advanced', '20|none|40', 'none|0',
			'advanced', '30|60', 'text/plain', '0|0|text/plain',
			'w|0|0', 'v|0|0', 'u|30|60',
			'{"a": 1}', 't', 'u|none'),
		'added, generated, dropped, of another type');
};

subtest 'triggers that see or change a row' => sub {
	my $dbname = fresh_database();

	is( answers_in(
			$dbname, q{
			SELECT outcome FROM start_upload('file', 100, upload_id => 'u'), try_advance_upload('u', 0, 10);
			CREATE TABLE audit (n serial, what text);
			CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
			BEGIN
				INSERT INTO audit (what) VALUES (TG_OP || ' ' || OLD.uploaded_bytes || ' ' || NEW.uploaded_bytes);
				RETURN NULL;
			END $$;
			CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS $$
			BEGIN
				NEW.metadata = NEW.metadata || '{"marked": true}';
				RETURN NEW;
			END $$;
			CREATE TRIGGER note AFTER UPDATE ON upload_session FOR EACH ROW EXECUTE FUNCTION note();
			CREATE TRIGGER mark BEFORE INSERT OR UPDATE ON upload_session FOR EACH ROW EXECUTE FUNCTION mark();
			SELECT outcome FROM try_advance_upload('u', 10, 10);
			SELECT outcome FROM try_advance_upload('u', 10, 10);
			SELECT outcome FROM advance_uploads('{u}', '{20}', '{80}');
			SELECT metadata FROM complete_upload('u');
			SELECT metadata FROM start_upload('file');
			SELECT what FROM audit ORDER BY n;
		}),
		join("\n",
			'advanced', 'advanced', 'replayed', 'advanced',
			'{"marked": true}', '{"marked": true}',
			'UPDATE 10 20', 'UPDATE 20 100', 'UPDATE 100 100'),
		'each write fires them once, and the result is the stored row');
};

subtest 'triggers that call the extension' => sub {
	my $dbname = fresh_database();

	is( answers_in(
			$dbname, q{
			SELECT outcome FROM start_upload('file', 20, upload_id => 'u'), try_advance_upload('u', 0, 10);
			CREATE FUNCTION finish() RETURNS trigger LANGUAGE plpgsql AS $$
			BEGIN
				IF NEW.uploaded_bytes = NEW.total_size AND NEW.status = 'in_progress' THEN
					PERFORM complete_upload(NEW.upload_id, '{"by": "trigger"}');
				END IF;
				RETURN NULL;
			END $$;
			CREATE TRIGGER finish AFTER UPDATE ON upload_session FOR EACH ROW EXECUTE FUNCTION finish();
			SELECT outcome, ready FROM advance_uploads('{u,u,u}', '{10,15,10}', '{5,5,10}');
			SELECT status, result FROM get_upload('u');
		}),
		join("\n", 'advanced', 'advanced|f', 'advanced|t', 'replayed|f', 'complete|{"by": "trigger"}'),
		'a chunk that leads to another call');
};

subtest 'triggers that suppress a write' => sub {
	my $dbname = fresh_database();

	$node->safe_psql(
		$dbname, q{
		SELECT start_upload('file', upload_id => 'u', provider_data => '{"part": 1}');
		SELECT start_upload('file', 0, upload_id => 'ready');
		SELECT advance_upload('u', 0, 10);
		SELECT start_upload('file', upload_id => 'stale', provider_data => '{"part": 1}');
		UPDATE upload_session SET expires_at = now() - interval '1 hour' WHERE upload_id = 'stale';
		CREATE FUNCTION suppress() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
		CREATE TRIGGER suppress BEFORE INSERT OR UPDATE OR DELETE ON upload_session
			FOR EACH ROW EXECUTE FUNCTION suppress();
	});
	my $before = $node->safe_psql($dbname, 'SELECT * FROM upload_session ORDER BY id');
	my @writes = (
		q{advance_upload('u', 10, 10)},
		q{try_advance_upload('u', 10, 10)},
		q{try_advance_upload('u', 10, 10, final => true)},
		q{advance_uploads('{u}', '{10}', '{10}')},
		q{declare_upload_size('u', 100)},
		q{merge_upload_data('u', '{"a": 1}')},
		q{complete_upload('ready')},
		q{abort_upload('u')},
		q{delete_upload('u')},
		q{start_upload('file')});
	my @sqlstates = sqlstates_of($node, $dbname, 'SELECT 1', map { "SELECT $_" } @writes);

	is_deeply(
		[ map { "$writes[$_]: $sqlstates[$_]" } 0 .. $#writes ],
		[ map { "$_: 27000" } @writes ],
		'all raise 27000');
	is(answers_in($dbname, 'SET client_min_messages = error; SELECT expired FROM sweep_uploads()'),
		'0', 'nothing is swept');
	is($node->safe_psql($dbname, 'SELECT * FROM upload_session ORDER BY id'),
		$before, 'nothing changed');
	is($node->safe_psql($dbname, 'SELECT count(*) FROM upload_reclaim'), 0,
		'nothing is queued');
};

subtest 'rules' => sub {
	my $dbname = fresh_database();

	is( answers_in(
			$dbname, q{
			SELECT outcome FROM start_upload('file', 30, upload_id => 'u'), try_advance_upload('u', 0, 10);
			CREATE TABLE audit (n serial, what text);
			CREATE RULE note AS ON UPDATE TO upload_session
				DO ALSO INSERT INTO audit (what) VALUES (OLD.upload_id || ' ' || NEW.status);
			CREATE RULE gone AS ON DELETE TO upload_session DO ALSO INSERT INTO audit (what) VALUES ('delete');
			CREATE RULE claim AS ON UPDATE TO upload_reclaim DO ALSO INSERT INTO audit (what) VALUES ('claim');
			CREATE RULE queue AS ON INSERT TO upload_reclaim DO ALSO INSERT INTO audit (what) VALUES ('queue');
			SELECT outcome FROM try_advance_upload('u', 10, 10, provider_data => '{"a": 1}');
			SELECT outcome FROM advance_uploads('{u}', '{20}', '{10}');
			SELECT status FROM complete_upload('u');
			SELECT delete_upload('u');
			SELECT upload_id FROM start_upload('file', provider_data => '{"a": 1}', upload_id => 'v');
			UPDATE upload_session SET expires_at = now() - interval '1 hour';
			SELECT * FROM sweep_uploads();
			SELECT upload_id FROM claim_reclaims();
			UPDATE upload_session SET expires_at = now() - interval '1 hour';
			SELECT * FROM sweep_uploads();
			SELECT DISTINCT what FROM audit ORDER BY what;
		}),
		join("\n",
			'advanced', 'advanced', 'advanced', 'complete', 't', 'v',
			'1|0|0', 'v', '0|1|0',
			'claim', 'delete', 'queue', 'u complete', 'u in_progress', 'v expired', 'v pending'),
		'an administrator may attach them');
};

subtest 'child tables' => sub {
	my $dbname = fresh_database();

	is( answers_in(
			$dbname, q{
			SELECT outcome FROM start_upload('file', upload_id => 'u'), try_advance_upload('u', 0, 10);
			CREATE TABLE child () INHERITS (upload_session);
			INSERT INTO child (id, upload_id, path, ttl, expires_at) VALUES (1000, 'c', 'file', '1 hour', now() + '1 hour');
			SELECT outcome FROM try_advance_upload('c', 0, 20, provider_data => '{"a": 1}');
			SELECT outcome FROM try_advance_upload('u', 10, 10);
			SELECT upload_id, uploaded_bytes FROM list_uploads();
			SELECT status FROM abort_upload('c');
			SELECT delete_upload('c');
			SELECT upload_id, uploaded_bytes FROM list_uploads();
		}),
		join("\n",
			'advanced', 'advanced', 'advanced', 'c|20', 'u|20', 'aborted', 't', 'u|20'),
		'their sessions are sessions');
};

subtest 'transactions that end otherwise' => sub {
	my $dbname = fresh_database();

	is( answers_in(
			$dbname, q{
			SELECT outcome FROM start_upload('file', upload_id => 'u'), try_advance_upload('u', 0, 10);
			BEGIN;
			SELECT outcome FROM try_advance_upload('u', 10, 10);
			PREPARE TRANSACTION 'chunk';
			SELECT outcome FROM try_advance_upload('u', 10, 10, nowait => true);
			COMMIT PREPARED 'chunk';
			SELECT outcome FROM try_advance_upload('u', 10, 10, nowait => true);
			SELECT uploaded_bytes FROM get_upload('u');
		}),
		join("\n", 'advanced', 'advanced', 'locked', 'replayed', '20'),
		'prepared');
	is_deeply(
		[
			sqlstates_of(
				$node, $dbname, q{SET client_min_messages = error},
				q{BEGIN; SELECT advance_upload('u', 20, 10); PREPARE TRANSACTION 'chunk'},
				q{SET statement_timeout = '50ms'},
				q{SELECT advance_upload('u', 20, 10)},
				q{SELECT get_upload('u')},
				q{ROLLBACK PREPARED 'chunk'},
				q{SELECT advance_upload('u', 20, 10)},
				q{SELECT advance_upload('u', 500, 10)},
				q{SELECT advance_upload('u', 30, 10)})
		],
		[qw(00000 00000 57014 00000 00000 00000 VB002 00000)],
		'cancelled while waiting, failed, and alive');
};

subtest 'calls inside queries' => sub {
	my $dbname = fresh_database();

	is( answers_in(
			$dbname, q{
			SELECT count(start_upload('file', upload_id => 'u' || i)) FROM generate_series(1, 100) i;
			SELECT (r).outcome, count(*) FROM (SELECT try_advance_upload(upload_id, 0, 10) r FROM upload_session OFFSET 0) x GROUP BY 1;
			SELECT count(*) FROM upload_session, LATERAL advance_upload(upload_id, 10, 10);
			SELECT (advance_uploads('{u1,u2,u3}', '{20,20,20}', '{5,5,5}')).uploaded_bytes LIMIT 1;
			SELECT sum(uploaded_bytes) FROM upload_session;
			SELECT count(*) FROM generate_series(1, 3) i, LATERAL get_uploads(ARRAY['u' || i, 'u1']) s WHERE s.upload_id = 'u1';
			SELECT count(*) FROM (SELECT * FROM list_uploads(max_rows => 50) LIMIT 7) x;
			CREATE FUNCTION chunk(id text, at bigint) RETURNS text LANGUAGE plpgsql AS $$
			BEGIN
				PERFORM advance_upload(id, at, 10);
				RETURN 'done';
			EXCEPTION WHEN SQLSTATE 'VB002' THEN
				RETURN 'conflict at ' || (SELECT uploaded_bytes FROM get_upload(id));
			END $$;
			SELECT chunk('u1', 30), chunk('u1', 25), chunk('u1', 35);
			SELECT delete_upload('u1'), (try_advance_upload('u1', 0, 1, nowait => true)).outcome;
		}),
		join("\n", 100, 'advanced|100', 100, 25, 2015, 4, 7, 'conflict at 25|done|done', 't|not_found'),
		'row by row, lateral, limited, nested');
};

subtest 'result type' => sub {
	my $dbname = fresh_database();

	like(
		sqlstate_of(
			$node, q{
			SELECT start_upload('file', upload_id => 'u');
			ALTER TYPE chunk_result ADD ATTRIBUTE note text;
			SELECT try_advance_upload('u', 0, 10);
			ALTER TYPE chunk_result DROP ATTRIBUTE note;
			SELECT * FROM advance_uploads('{u}', '{10}', '{10}');
		}, $dbname),
		qr/^(00000|42804)$/,
		'altered: it works, or is a clean error');
};

done_testing();
