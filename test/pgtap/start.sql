-- Starting uploads: what a new one holds, and what is refused.
BEGIN;
\ir lib/uploads.sql
SELECT no_plan();
DELETE FROM upload_session;

--
-- What it holds
--
SELECT is((s.path, s.total_size, s.uploaded_bytes, s.status, s.content_type, s.metadata, s.provider_data, s.owner, s.bucket, s.result, s.abort_reason)::text,
		ROW('test/start', NULL, 0, 'pending', NULL, '{}'::jsonb, '{}'::jsonb, NULL, NULL, NULL, NULL)::text, format('an upload needs a path only: start_upload(%s)', call))
  FROM (VALUES (1, 'path', start_upload('test/start')), (2, 'path, nulls', start_upload('test/start', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL))) AS x (n, call, session), LATERAL (SELECT (session).*) s
 ORDER BY n;
SELECT is((s.path, s.total_size, s.content_type, s.metadata, s.provider_data, s.owner, s.bucket, s.ttl, s.upload_id)::text,
		ROW('test/start', 5, 'text/plain', '{"a": {"b": [1, 2]}}'::jsonb, '{"b": 2}'::jsonb, 'alice', 'bucket', interval '1 hour', 'start-' || n)::text,
		format('and keeps what it is given, by %s', CASE n WHEN 1 THEN 'position' ELSE 'name' END))
  FROM (VALUES
		(1, start_upload('test/start', 5, 'text/plain', '{"a": {"b": [1, 2]}}', '{"b": 2}', 'alice', 'bucket', '1 hour', 'start-1')),
		(2, start_upload(upload_id => 'start-2', ttl => '1 hour', bucket => 'bucket', owner => 'alice', provider_data => '{"b": 2}',
			metadata => '{"a": {"b": [1, 2]}}', content_type => 'text/plain', total_size => 5, path => 'test/start'))
	) AS x (n, session), LATERAL (SELECT (session).*) s ORDER BY n;
SELECT is((s.owner, s.bucket, s.content_type)::text, '("","","")', 'an empty text is a text') FROM start_upload('test/start', owner => '', bucket => '', content_type => '') s;
SELECT is(s.total_size, size, format('a size of %s bytes is kept', size))
  FROM unnest(ARRAY[0, 1, 9223372036854775807]) AS size, LATERAL start_upload('test/start', size) s;
SELECT ok(s.upload_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$', 'it gets a random UUID where it gets no upload_id') FROM start_upload('test/start') s;
SELECT is(count(DISTINCT (start_upload('test/start')).upload_id), 5::bigint, '... another one each time') FROM generate_series(1, 5);
SELECT ok(s.created_at BETWEEN now() AND clock_timestamp() AND s.updated_at = s.created_at, 'it notes the time') FROM start_upload('test/start') s;
SELECT start_upload('test/start', 5, upload_id => 'start-stored') AS returned \gset
SELECT is(s::text, :'returned', 'what is returned is what is stored') FROM upload_session s WHERE upload_id = 'start-stored';
SELECT is((length(s.upload_id), length(s.path), length(s.bucket), length(s.content_type))::text, '(128,2048,256,256)', 'lengths are counted in characters')
  FROM start_upload(repeat('é', 2048), upload_id => repeat('é', 128), bucket => repeat('é', 256), content_type => repeat('é', 256)) s;
SELECT lives_ok(format('SELECT start_upload(''test/start'', upload_id => %L)', id), format('an upload_id differs by its bytes: %s, %L', sentence, id))
  FROM (VALUES ('START-1', 'case'), ('start-1 ', 'a blank'), ('start-', 'a shorter one')) AS x (id, sentence);

--
-- What is refused
--
SELECT abort_upload('start-2') AS row \gset
SELECT throws_ok(format('SELECT start_upload(%s)', arguments), code, NULL, 'start_upload: ' || sentence)
  FROM (VALUES
		('NULL', '22004', 'a null path'),
		('''''', '22023', 'an empty path'),
		('repeat(''x'', 2049)', '22001', 'a path that is too long'),
		('repeat(''x'', 2048) || '' ''', '22001', '... by a blank'),
		('''test/bad'', upload_id => ''''', '22023', 'an empty upload_id'),
		('''test/bad'', upload_id => repeat(''x'', 129)', '22001', 'an upload_id that is too long'),
		('''test/bad'', upload_id => repeat(''x'', 128) || '' ''', '22001', '... by a blank'),
		('''test/bad'', upload_id => ''start-1''', '23505', 'an upload_id that exists'),
		('''test/bad'', upload_id => ''start-1'', owner => ''bob''', '23505', '... for another owner as well'),
		('''test/bad'', upload_id => ''start-2''', '23505', '... of an upload that has ended'),
		('''test/bad'', bucket => repeat(''x'', 257)', '22001', 'a bucket that is too long'),
		('''test/bad'', bucket => repeat(''x'', 256) || '' ''', '22001', '... by a blank'),
		('''test/bad'', content_type => repeat(''x'', 257)', '22001', 'a content_type that is too long'),
		('''test/bad'', content_type => repeat(''x'', 256) || '' ''', '22001', '... by a blank'),
		('''test/bad'', -1', '22023', 'a negative size'),
		('''test/bad'', ''-9223372036854775808''', '22023', 'the most negative size'),
		('''test/bad'', metadata => ''[]''', '22023', 'metadata that is an array'),
		('''test/bad'', metadata => ''"text"''', '22023', 'metadata that is a text'),
		('''test/bad'', metadata => ''1''', '22023', 'metadata that is a number'),
		('''test/bad'', metadata => ''null''', '22023', 'metadata that is a JSON null'),
		('''test/bad'', provider_data => ''[{}]''', '22023', 'provider_data that is an array'),
		('''test/bad'', provider_data => ''null''', '22023', 'provider_data that is a JSON null'),
		('''test/bad'', ttl => ''-1 second''', '22023', 'a negative ttl'),
		('''test/bad'', ttl => ''1 day -25 hours''', '22023', '... however it is written'),
		('''test/bad'', ttl => ''300000 years''', '22023', 'a ttl that leads out of the calendar')
	) AS x (arguments, code, sentence);
SELECT is(count(*), 0::bigint, 'nothing is left of a start that was refused') FROM upload_session WHERE path = 'test/bad' OR upload_id = '' OR path LIKE 'xxx%';

SELECT * FROM finish();
ROLLBACK;
