-- Finding and listing uploads.
BEGIN;
\ir lib/uploads.sql
SELECT no_plan();
DELETE FROM upload_session;

--
-- get_upload and get_uploads
--
SELECT count(start_upload('test/start', 10, 'text/plain', '{"a": 1}', '{"b": 2}', 'alice', 'bucket', '1 hour', 'reader-' || n)) AS started
  FROM generate_series(1, 3) AS n \gset
SELECT is(s, (SELECT u FROM upload_session u WHERE upload_id = 'reader-1'), 'get_upload shows the row as it is stored') FROM get_upload('reader-1') s;
SELECT is_empty('SELECT get_upload('''')', 'get_upload: no row for an empty id');
SELECT is_empty('SELECT get_upload(''reader-unknown'')', 'get_upload: no row for an unknown one');
SELECT is_empty('SELECT get_upload(repeat(''é'', 129))', 'get_upload: a longer id is not found by its first 128 characters');
SELECT is_empty('SELECT get_upload(''reader-1 '')', 'get_upload: blanks count');
SELECT is_empty('SELECT get_upload(''READER-1'')', 'get_upload: case counts');
SELECT throws_ok('SELECT get_upload(NULL)', '22004', NULL, 'get_upload: a null upload_id');
SELECT results_eq('SELECT upload_id::text COLLATE "default" FROM get_uploads(ARRAY[''reader-3'', ''reader-1'', ''reader-unknown'', ''reader-2'', NULL, ''reader-3''])',
	ARRAY['reader-3', 'reader-1', 'reader-2', 'reader-3'], 'get_uploads answers in argument order, and leaves out what it does not know');
SELECT is_empty(format('SELECT get_uploads(%s)', arguments), format('get_uploads(%s): %s', arguments, sentence))
  FROM (VALUES ('''{}''', 'nothing for nothing'), ('ARRAY[NULL]::text[]', 'nothing for a null'), ('ARRAY[''reader-1''], ''bob''', 'nothing of another owner'))
	AS x (arguments, sentence);
SELECT throws_ok('SELECT get_uploads(NULL)', '22004', NULL, 'get_uploads: a null array');
SELECT start_upload('test/start', owner => 'bob', upload_id => 'reader-4') \gset
SELECT results_eq('SELECT upload_id::text COLLATE "default" FROM get_uploads(owner => ''alice'', upload_ids => ARRAY[''reader-3'', ''reader-4'', ''reader-1''])',
	ARRAY['reader-3', 'reader-1'], 'get_uploads leaves out the uploads of another owner');

--
-- list_uploads
--
DELETE FROM upload_session;
SELECT count(start_upload(path, 10, owner => owner, upload_id => 'reader-' || n)) AS started
  FROM (VALUES (1, 'a/1', 'alice'), (2, 'a/2', 'bob'), (3, 'a%', 'alice'), (4, 'a_', 'bob'), (5, 'a\', 'alice'), (6, 'b/1', NULL), (7, 'é\\%_', '')) AS x (n, path, owner) \gset
SELECT advance_upload('reader-1', 0, 10), abort_upload('reader-2') \gset
CREATE FUNCTION pg_temp.list(arguments text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	found text;
BEGIN
	EXECUTE format('SELECT string_agg(replace(upload_id, ''reader-'', ''''), '' '') FROM list_uploads(%s)', arguments) INTO found;
	RETURN found;
END $$;
SELECT is(pg_temp.list(arguments), found, format('list_uploads(%s)', arguments) || sentence)
  FROM (VALUES
		('', '7 6 5 4 3 2 1', ': newest first'),
		('''alice''', '5 3 1', ': of an owner'),
		('''nobody''', NULL, ': of another one'),
		('''''', '7', ': of one with an empty name'),
		('path_prefix => ''a''', '5 4 3 2 1', ': by path'),
		('path_prefix => ''a/''', '2 1', ': by path'),
		('path_prefix => ''a%''', '3', ': % is a character like any other'),
		('path_prefix => ''a_''', '4', ': so is _'),
		('path_prefix => ''a\''', '5', ': and \'),
		('path_prefix => ''é''', '7', ': and so is every other'),
		('path_prefix => ''é\''', '7', ': however many there are'),
		('path_prefix => ''é\\%''', '7', ': of whatever kind'),
		('path_prefix => ''é\\%_''', '7', ': up to the whole path'),
		('path_prefix => ''é\\%_ ''', NULL, ': and not beyond it'),
		('path_prefix => ''%''', NULL, ': % is not anything'),
		('path_prefix => ''_''', NULL, ': _ is not any character'),
		('path_prefix => ''/''', NULL, ': a prefix is at the start'),
		('path_prefix => ''A''', NULL, ': and case counts'),
		('path_prefix => ''''', '7 6 5 4 3 2 1', ': any path'),
		('status => ''pending''', '7 6 5 4 3', ': by status'),
		('status => ''in_progress''', '1', ': by status'),
		('status => ''aborted''', '2', ': by status'),
		('status => ''complete''', NULL, ': by status'),
		('''alice'', ''a'', ''pending''', '5 3', ': by all of them'),
		('max_rows => 2', '7 6', ': the first page'),
		('max_rows => 2, after_id => (SELECT id FROM upload_session WHERE upload_id = ''reader-6'')', '5 4', ': the next one'),
		('max_rows => 2, after_id => (SELECT id FROM upload_session WHERE upload_id = ''reader-2'')', '1', ': the last one, with what is left'),
		('max_rows => 2, after_id => (SELECT id FROM upload_session WHERE upload_id = ''reader-1'')', NULL, ': none after the last'),
		('after_id => 0', NULL, ': none below the lowest id'),
		('max_rows => 1, after_id => 9223372036854775807', '7', ': from the highest id on'),
		('''alice'', ''a'', ''pending'', ''0'', 1, (SELECT id FROM upload_session WHERE upload_id = ''reader-5'')', '3', ': all arguments by position'),
		('after_id => NULL, max_rows => 2, idle_for => NULL, status => NULL, path_prefix => NULL, owner => NULL', '7 6', ': nulls are no conditions')
	) AS x (arguments, found, sentence);
UPDATE upload_session SET updated_at = now() - interval '2 hours' WHERE upload_id IN ('reader-3', 'reader-4');
SELECT is(pg_temp.list('idle_for => ''1 hour'''), '4 3', 'list_uploads: what has been idle');
SELECT is(pg_temp.list('idle_for => ''3 hours'''), NULL, 'list_uploads: what has been idle for longer');
SELECT advance_upload('reader-3', 0, 1) \gset
SELECT is(pg_temp.list('idle_for => ''1 hour'''), '4', 'list_uploads: a chunk ends the idle time');
SELECT throws_ok(format('SELECT list_uploads(idle_for => %L)', idle_for), '22023', NULL, format('list_uploads: an idle time of %s is refused', idle_for))
  FROM unnest(ARRAY['-1 second', '1 day -25 hours', '300000 years']) AS idle_for;
UPDATE upload_session SET expires_at = now() - interval '1 second' WHERE upload_id IN ('reader-2', 'reader-4');
SELECT is(pg_temp.list('status => ''pending'''), '7 6 5', 'list_uploads: an upload past its deadline is not pending any more');
SELECT is(pg_temp.list('status => ''expired'''), '4', 'list_uploads: but expired');
UPDATE upload_session SET expires_at = now() - interval '1 second' WHERE upload_id = 'reader-1';
SELECT is(pg_temp.list('status => ''in_progress'''), '3', 'list_uploads: nor is it in_progress');
SELECT is(pg_temp.list('status => ''expired'''), '4 1', 'list_uploads: but expired as well');
SELECT is(pg_temp.list('path_prefix => ''a/'''), '2 1', 'list_uploads: any status counts where none is asked for');
UPDATE upload_session SET expires_at = NULL, ttl = NULL WHERE upload_id IN ('reader-3', 'reader-5');
SELECT is(pg_temp.list('status => ''in_progress'''), '3', 'list_uploads: an upload that never expires is listed');
SELECT is(pg_temp.list('status => ''pending'''), '7 6 5', 'list_uploads: ... by every status');
SELECT is(pg_temp.list('status => ''aborted'''), '2', 'list_uploads: an aborted one stays aborted');
SELECT throws_ok(format('SELECT list_uploads(max_rows => %s)', max_rows), code, NULL, 'list_uploads: ' || sentence)
  FROM (VALUES ('0', '22023', 'a page has a row at least'), ('-1', '22023', 'and not less'), ('NULL', '22004', 'nor a null')) AS x (max_rows, code, sentence);
SELECT merge_upload_data('reader-3', '{"kind": "image", "tags": ["a", "b"]}'), merge_upload_data('reader-5', '{"kind": "image"}') \gset
SELECT is(pg_temp.list('metadata => ''{"kind": "image"}'''), '5 3', 'list_uploads: whose metadata contain an object');
SELECT is(pg_temp.list('metadata => ''{"kind": "image", "tags": ["b"]}'', status => ''in_progress'''), '3', '... with other conditions');
SELECT is(pg_temp.list('metadata => ''{}'', path_prefix => ''a/'''), '2 1', '... and every one contains the empty one');
SELECT throws_ok('SELECT list_uploads(metadata => ''[]'')', '22023', NULL, '... which must be an object');
-- Page by page, while another upload starts
SELECT min(id) AS last, string_agg(upload_id, ' ') AS page_1 FROM list_uploads(max_rows => 2) \gset
SELECT start_upload('a/8', upload_id => 'reader-8') \gset
SELECT min(id) AS last, string_agg(upload_id, ' ') AS page_2 FROM list_uploads(max_rows => 3, after_id => :last) \gset
SELECT is(format('%s, %s, %s', :'page_1', :'page_2', string_agg(upload_id, ' ')), 'reader-7 reader-6, reader-5 reader-4 reader-3, reader-2 reader-1',
		'list_uploads: an upload that starts meanwhile moves no other to another page')
  FROM list_uploads(max_rows => 100, after_id => :last);
DECLARE pages CURSOR FOR SELECT upload_id::text COLLATE "default" FROM list_uploads();
MOVE 1 FROM pages;
SELECT results_eq('FETCH 2 FROM pages', ARRAY['reader-7', 'reader-6'], 'list_uploads: in a cursor');
CLOSE pages;
SELECT is(count(start_upload('test/many')), 101::bigint, 'with a hundred uploads and one') FROM generate_series(1, 101);
SELECT is(count(*), 100::bigint, 'list_uploads: a page has a hundred rows unless asked for more') FROM list_uploads(path_prefix => 'test/many');
SELECT is(count(*), 101::bigint, '... or less') FROM list_uploads(path_prefix => 'test/many', max_rows => 1000);

SELECT * FROM finish();
ROLLBACK;
