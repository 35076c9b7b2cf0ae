-- Starting, finding and listing uploads.
BEGIN;
\ir lib/uploads.sql
SELECT no_plan();
DELETE FROM upload_session;

--
-- start_upload
--
SELECT is((s.path, s.total_size, s.uploaded_bytes, s.status, s.content_type, s.metadata, s.provider_data, s.owner, s.bucket, s.result, s.abort_reason)::text,
		ROW('test/start', NULL, 0, 'pending', NULL, '{}'::jsonb, '{}'::jsonb, NULL, NULL, NULL, NULL)::text, 'an upload needs a path only')
  FROM start_upload('test/start') s;
SELECT is((s.path, s.total_size, s.content_type, s.metadata, s.provider_data, s.owner, s.bucket, s.ttl, s.upload_id)::text,
		ROW('test/start', 5, 'text/plain', '{"a": 1}'::jsonb, '{"b": 2}'::jsonb, 'alice', 'bucket', interval '1 hour', 'reader-1')::text,
		'and keeps what it is given')
  FROM start_upload('test/start', 5, 'text/plain', '{"a": 1}', '{"b": 2}', 'alice', 'bucket', '1 hour', 'reader-1') s;
SELECT ok(s.upload_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$', 'it gets a random UUID where it gets no upload_id') FROM start_upload('test/start') s;
SELECT ok(s.created_at BETWEEN now() AND clock_timestamp() AND s.updated_at = s.created_at, 'it notes the time') FROM start_upload('test/start') s;
SELECT is((length(s.upload_id), length(s.path), length(s.bucket), length(s.content_type))::text, '(128,2048,256,256)', 'lengths are counted in characters')
  FROM start_upload(repeat('é', 2048), upload_id => repeat('é', 128), bucket => repeat('é', 256), content_type => repeat('é', 256)) s;
SELECT throws_ok(format('SELECT start_upload(%s)', arguments), code, NULL, 'start_upload: ' || sentence)
  FROM (VALUES
		('NULL', '22004', 'a null path'),
		('''''', '22023', 'an empty path'),
		('repeat(''x'', 2049)', '22001', 'a path that is too long'),
		('''test/bad'', upload_id => ''''', '22023', 'an empty upload_id'),
		('''test/bad'', upload_id => repeat(''x'', 129)', '22001', 'an upload_id that is too long'),
		('''test/bad'', upload_id => repeat(''x'', 128) || '' ''', '22001', '... by a blank'),
		('''test/bad'', upload_id => ''reader-1''', '23505', 'an upload_id that exists'),
		('''test/bad'', bucket => repeat(''x'', 257)', '22001', 'a bucket that is too long'),
		('''test/bad'', content_type => repeat(''x'', 257)', '22001', 'a content_type that is too long'),
		('''test/bad'', -1', '22023', 'a negative size'),
		('''test/bad'', metadata => ''[]''', '22023', 'metadata that is no object'),
		('''test/bad'', provider_data => ''null''', '22023', 'provider_data that is no object')
	) AS x (arguments, code, sentence);
SELECT is(count(*), 0::bigint, 'nothing is left of a start that was refused') FROM upload_session WHERE path = 'test/bad';

--
-- get_upload and get_uploads
--
SELECT is(s.upload_id, 'reader-1', 'get_upload finds an upload') FROM get_upload('reader-1') s;
SELECT is_empty('SELECT get_upload(''reader-unknown'')', 'get_upload: no row for an unknown one');
SELECT is_empty('SELECT get_upload(repeat(''é'', 129))', 'get_upload: a longer id is not found by its first 128 characters');
SELECT is_empty('SELECT get_upload(''reader-1 '')', 'get_upload: blanks count');
SELECT is_empty('SELECT get_upload(''READER-1'')', 'get_upload: case counts');
SELECT throws_ok('SELECT get_upload(NULL)', '22004', NULL, 'get_upload: a null upload_id');
SELECT start_upload('test/start', upload_id => 'reader-2'), start_upload('test/start', upload_id => 'reader-3') \gset
SELECT results_eq('SELECT upload_id::text COLLATE "default" FROM get_uploads(ARRAY[''reader-3'', ''reader-1'', ''reader-unknown'', ''reader-2'', NULL, ''reader-3''])',
	ARRAY['reader-3', 'reader-1', 'reader-2', 'reader-3'], 'get_uploads answers in argument order, and leaves out what it does not know');

--
-- list_uploads
--
DELETE FROM upload_session;
SELECT count(start_upload(path, 10, owner => owner, upload_id => 'reader-' || n)) AS started
  FROM (VALUES (1, 'a/1', 'alice'), (2, 'a/2', 'bob'), (3, 'a%', 'alice'), (4, 'a_', 'bob'), (5, 'a\', 'alice'), (6, 'b/1', NULL)) AS x (n, path, owner) \gset
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
		('', '6 5 4 3 2 1', ': newest first'),
		('''alice''', '5 3 1', ': of an owner'),
		('path_prefix => ''a''', '5 4 3 2 1', ': by path'),
		('path_prefix => ''a/''', '2 1', ': by path'),
		('path_prefix => ''a%''', '3', ': % is a character like any other'),
		('path_prefix => ''a_''', '4', ': so is _'),
		('path_prefix => ''a\''', '5', ': and \'),
		('path_prefix => ''/''', NULL, ': a prefix is at the start'),
		('path_prefix => ''A''', NULL, ': and case counts'),
		('path_prefix => ''''', '6 5 4 3 2 1', ': any path'),
		('status => ''pending''', '6 5 4 3', ': by status'),
		('status => ''in_progress''', '1', ': by status'),
		('status => ''aborted''', '2', ': by status'),
		('status => ''complete''', NULL, ': by status'),
		('''alice'', ''a'', ''pending''', '5 3', ': by all of them'),
		('max_rows => 2', '6 5', ': the first page'),
		('max_rows => 2, after_id => (SELECT id FROM upload_session WHERE upload_id = ''reader-5'')', '4 3', ': the next one'),
		('max_rows => 2, after_id => (SELECT id FROM upload_session WHERE upload_id = ''reader-1'')', NULL, ': none after the last')
	) AS x (arguments, found, sentence);
UPDATE upload_session SET updated_at = now() - interval '2 hours' WHERE upload_id IN ('reader-3', 'reader-4');
SELECT is(pg_temp.list('idle_for => ''1 hour'''), '4 3', 'list_uploads: what has been idle');
SELECT is(pg_temp.list('idle_for => ''3 hours'''), NULL, 'list_uploads: what has been idle for longer');
UPDATE upload_session SET expires_at = now() - interval '1 second' WHERE upload_id IN ('reader-2', 'reader-4');
SELECT is(pg_temp.list('status => ''pending'''), '6 5 3', 'list_uploads: an upload past its deadline is not pending any more');
SELECT is(pg_temp.list('status => ''expired'''), '4', 'list_uploads: but expired');
SELECT is(pg_temp.list('status => ''aborted'''), '2', 'list_uploads: an aborted one stays aborted');
SELECT throws_ok('SELECT list_uploads(max_rows => 0)', '22023', NULL, 'list_uploads: a page has a row at least');
SELECT is(count(start_upload('test/many')), 101::bigint, 'with a hundred uploads and one') FROM generate_series(1, 101);
SELECT is(count(*), 100::bigint, 'list_uploads: a page has a hundred rows unless asked for more') FROM list_uploads(path_prefix => 'test/many');
SELECT is(count(*), 101::bigint, '... or less') FROM list_uploads(path_prefix => 'test/many', max_rows => 1000);

SELECT * FROM finish();
ROLLBACK;
