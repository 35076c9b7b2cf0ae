# upload_session may be hash-partitioned by upload_id: a partitioned table takes
# its name, and everything works on it, through SQL.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use UploadTest;

my $node = upload_node('main');
my $swap = q{
	BEGIN;
	LOCK TABLE upload_session;
	ALTER TABLE upload_session RENAME TO upload_session_plain;
	CREATE TABLE upload_session (LIKE upload_session_plain INCLUDING ALL) PARTITION BY HASH (upload_id);
	CREATE TABLE upload_session_0 PARTITION OF upload_session FOR VALUES WITH (MODULUS 3, REMAINDER 0) WITH (fillfactor = 75);
	CREATE TABLE upload_session_1 PARTITION OF upload_session FOR VALUES WITH (MODULUS 3, REMAINDER 1) WITH (fillfactor = 75);
	CREATE TABLE upload_session_2 PARTITION OF upload_session FOR VALUES WITH (MODULUS 3, REMAINDER 2) WITH (fillfactor = 75);
	INSERT INTO upload_session SELECT * FROM upload_session_plain;
	SELECT setval(pg_get_serial_sequence('upload_session', 'id'), max(id)) FROM upload_session;
	ALTER TABLE upload_part DROP CONSTRAINT upload_part_upload_id_fkey,
		ADD CONSTRAINT upload_part_upload_id_fkey FOREIGN KEY (upload_id) REFERENCES upload_session (upload_id) ON DELETE CASCADE;
	TRUNCATE upload_session_plain;
	COMMIT;
	SELECT grant_upload_access('client')};

# A session of before the swap goes on after it.
$node->safe_psql('postgres', 'CREATE ROLE client; SELECT grant_upload_access($$client$$)');
my $old = $node->background_psql('postgres');
$old->query_safe(q{SET ROLE client; SELECT start_upload('old/' || i, 20, upload_id => 'old' || i) FROM generate_series(1, 30) AS i});
is(answer($old, q{SELECT outcome, uploaded_bytes FROM try_advance_upload('old1', 0, 10)}), 'advanced|10', 'before the swap');
$node->safe_psql('postgres', $swap);
is(answer($old, q{SELECT outcome, uploaded_bytes FROM try_advance_upload('old1', 10, 5)}), 'advanced|15', 'a session goes on after the swap');
is($node->safe_psql('postgres', 'SELECT count(DISTINCT tableoid), count(*) FROM upload_session'), '3|30', 'all partitions have rows');

is( $node->safe_psql(
		'postgres', q{
		SET ROLE client;
		SELECT id, upload_id, status FROM start_upload('dir/file', 30, owner => 'ann', provider_data => '{"part": 1}', upload_id => 'new');
		SELECT outcome, uploaded_bytes FROM advance_upload('new', 0, 10);
		SELECT outcome, uploaded_bytes FROM try_advance_upload('new', 0, 10);
		SELECT outcome, uploaded_bytes FROM advance_uploads('{new,old2,nobody,new}', '{10,0,0,20}', '{10,20,1,10}');
		SELECT metadata FROM merge_upload_data('new', '{"a": 1}');
		SELECT upload_id, status FROM get_upload('new', 'ann');
		SELECT upload_id FROM get_uploads('{new,old3,nobody}');
		SELECT upload_id FROM list_uploads(max_rows => 2);
		SELECT upload_id FROM list_uploads(owner => 'ann');
		SELECT upload_id FROM list_uploads(path_prefix => 'old/1', max_rows => 1);
		SELECT status, result FROM complete_upload('new', '{"etag": "e"}');
		SELECT status FROM abort_upload('old4');
		SELECT delete_upload('old5'), delete_upload('old5');
		SELECT any_order FROM start_upload('dir/any', 20, upload_id => 'any', any_order => true);
		SELECT outcome, uploaded_bytes FROM advance_uploads('{any,any,any}', '{10,0,0}', '{10,5,5}', etags => '{a,b,c}');
		SELECT chunk_offset, etag FROM list_parts('any');
		SELECT * FROM missing_ranges('any');
		SELECT delete_upload('any');
		SELECT count(*) FROM upload_part;
	}),
	join("\n",
		'31|new|pending', 'advanced|10', 'replayed|10', 'advanced|20', 'advanced|20', 'not_found|', 'advanced|30',
		'{"a": 1}', 'new|in_progress', 'new', 'old3', 'new', 'old30', 'new', 'old19', 'complete|{"etag": "e"}', 'aborted', 't|f',
		't', 'advanced|10', 'advanced|15', 'replaced|15', '0|c', '10|a', '5|5', 't', '0'),
	'every call works');

# The constraint of a partition has another name.
my ($rc, $stdout, $stderr) = $node->psql('postgres', q{SELECT start_upload('f', upload_id => 'new')}, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
like($stderr, qr/ERROR:  23505: upload "new" already exists\nDETAIL:  Key \(upload_id\)=\(new\) already exists\.\nHINT/, 'a duplicate is told as ever');
unlike($stderr, qr/INSERT/, 'without our statement');
is(sqlstate_of($node, q{SELECT start_upload('f', owner => (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 500) AS i))}), '22001',
	'so is what does not fit into an index');
is(sqlstate_of($node, q{SET vali_blob.row_access = direct; SELECT get_upload('new')}), '0A000', 'all of this is done by SQL');

# Expiry and purge, across partitions and in the order of the deadlines.
$node->safe_psql('postgres', q{
	UPDATE upload_session SET expires_at = now() - interval '1 hour' + id * interval '1 s' WHERE upload_id LIKE 'old%'});
is($node->safe_psql('postgres', q{SELECT * FROM sweep_uploads(10); SELECT count(*) FROM upload_session WHERE status = 'expired' AND id <= 12}),
	"10|0|0\n10", 'a sweep expires the longest overdue first');
is($node->safe_psql('postgres', q{
		SELECT expired, purged FROM sweep_uploads();
		SELECT expired, purged FROM sweep_uploads();
		SELECT status, sessions, bytes FROM upload_stats WHERE sessions > 0}),
	"18|1\n0|0\ncomplete|1|30\nexpired|28|35",
	'upload_stats counts what is there now');

# The extension's own table stands in the way of a whole dump, so only the data are restored.
$node->safe_psql('postgres', q{SELECT start_upload('f', 100, upload_id => 'parts', any_order => true), advance_upload('parts', 10, 10, etag => 'e')});
my $rows = q{SELECT * FROM upload_session ORDER BY id; SELECT * FROM upload_part; SELECT * FROM upload_reclaim ORDER BY id};
my $dumped = $node->safe_psql('postgres', $rows);
my $dump = "$PostgreSQL::Test::Utils::tmp_check/016.dump";

command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'the database is dumped');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->safe_psql('restored', 'CREATE EXTENSION vali_blob');
$node->safe_psql('restored', $swap);
command_ok([ 'pg_restore', '--data-only', '--disable-triggers', '--exit-on-error', '-d', $node->connstr('restored'), $dump ], 'its data are restored into partitions');
is($node->safe_psql('restored', $rows), $dumped, '... all of them');
is($node->safe_psql('restored', q{SELECT id > (SELECT max(id) FROM upload_session WHERE upload_id <> u.upload_id) FROM start_upload('f') AS u}), 't', 'new ids come after them');

# ids of several servers
$node->safe_psql('postgres', 'CREATE DATABASE of_node; ALTER DATABASE of_node SET vali_blob.node = 5');
$node->safe_psql('of_node', q{CREATE EXTENSION vali_blob; SELECT start_upload('f') FROM generate_series(1, 3)});
$node->safe_psql('of_node', $swap =~ s{max\(id\)}{max(id) / 1024}r);
is($node->safe_psql('of_node', q{SELECT id / 1024, id % 1024 FROM start_upload('f')}), '4|5', 'ids with a node go on, too');

$old->quit;
$node->stop;
done_testing();
