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
-- Options
--
SELECT is((s.any_order, s.size_limit, s.auto_complete, s.end_by)::text, '(f,,f,)', 'unless told otherwise: in order, without a size limit, any age, completed by a call')
  FROM start_upload('test/start') s;
SELECT is((s.any_order, s.size_limit, s.auto_complete)::text, '(t,100,t)', 'options by position')
  FROM start_upload('test/start', 5, NULL, NULL, NULL, NULL, NULL, NULL, NULL, true, 100, true, '1 day', false) s;
SELECT is(s.rules_version, version, format('start_upload(%s) needs the rules of %s', options, coalesce('1.' || version, '1.0')))
  FROM (VALUES ('', NULL::bigint, start_upload('test/start')), ('any_order', 1, start_upload('test/start', any_order => true)),
		('size_limit', 1, start_upload('test/start', size_limit => 5)), ('auto_complete', 1, start_upload('test/start', auto_complete => true)),
		('max_age', 1, start_upload('test/start', max_age => '1 day'))) AS x (options, version, session), LATERAL (SELECT (session).*) s;
-- size_limit
SELECT is(s.total_size, 10::bigint, 'a size may reach the limit') FROM start_upload('test/start', 10, size_limit => 10, upload_id => 'start-limit') s;
SELECT start_upload('test/start', size_limit => 10, upload_id => 'start-limit-2') AS row \gset
SELECT is(outcome, 'advanced', '... and so may a chunk while the length is deferred') FROM try_advance_upload('start-limit-2', 0, 10);
SELECT is(outcome, 'too_large', '... but not exceed it') FROM try_advance_upload('start-limit-2', 10, 1);
SELECT throws_ok($$ SELECT advance_upload('start-limit-2', 10, 1) $$, 'VB005', NULL, '... which is VB005');
SELECT throws_ok($$ SELECT declare_upload_size('start-limit-2', 11) $$, 'VB009', NULL, 'nor may a declared size');
SELECT is(s.total_size, 0::bigint, 'a limit of 0 allows an empty file') FROM start_upload('test/start', 0, size_limit => 0) s;
-- auto_complete
SELECT is((s.status, s.uploaded_bytes)::text, '(complete,0)', 'auto_complete: an empty file is complete at once') FROM start_upload('test/start', 0, auto_complete => true) s;
SELECT ok(s.expires_at BETWEEN now() + interval '48 hours' AND now() + interval '52 hours', '... and kept for its retention') FROM start_upload('test/start', 0, auto_complete => true, ttl => '1 minute') s;
SELECT start_upload('test/start', 10, auto_complete => true, upload_id => 'start-auto') AS row \gset
SELECT is((r.outcome, r.status, r.ready)::text, '(advanced,in_progress,f)', 'auto_complete: with bytes missing it goes on') FROM advance_upload('start-auto', 0, 9) r;
SELECT is((r.outcome, r.status, r.ready)::text, '(advanced,complete,f)', '... and the last byte completes it') FROM advance_upload('start-auto', 9, 1) r;
SELECT is(r.outcome, 'replayed', '... and may be repeated') FROM advance_upload('start-auto', 9, 1) r;
SELECT is(s.result, '{"a": 1}', '... and complete_upload() brings the result') FROM complete_upload('start-auto', '{"a": 1}') s;
SELECT start_upload('test/start', auto_complete => true, upload_id => 'start-auto-2') AS row \gset
SELECT is(r.status, 'in_progress', 'auto_complete: not while the length is deferred') FROM advance_upload('start-auto-2', 0, 10) r;
SELECT is(s.status, 'complete', '... but when the size that is declared is reached') FROM declare_upload_size('start-auto-2', 10) s;
SELECT start_upload('test/start', auto_complete => true, upload_id => 'start-auto-3') AS row \gset
SELECT is(s.status, 'pending', '... and not before') FROM declare_upload_size('start-auto-3', 10) s;
SELECT start_upload('test/start', 20, auto_complete => true, any_order => true, upload_id => 'start-auto-4') AS row \gset
SELECT is(string_agg(r.status::text, ' '), 'in_progress complete', 'auto_complete: in any order') FROM advance_uploads('{start-auto-4,start-auto-4}', '{10,0}', '{10,10}') r;
-- max_age
SELECT is((s.end_by, s.expires_at)::text, (s.created_at + interval '1 day', s.created_at + interval '1 day')::text, 'max_age: the deadline is not beyond it')
  FROM start_upload('test/start', max_age => '1 day') s;
SELECT is(s.expires_at, s.created_at + interval '51 hours', '... nor moved there') FROM start_upload('test/start', max_age => '30 days') s;
SELECT is(s.expires_at, s.created_at + interval '1 day', '... also where the upload would never expire') FROM start_upload('test/start', ttl => '0', max_age => '1 day') s;
SELECT start_upload('test/start', max_age => '30 days', upload_id => 'start-age') AS row \gset
UPDATE upload_session SET created_at = now() - interval '29 days', end_by = now() + interval '1 day', expires_at = now() + interval '1 hour' WHERE upload_id = 'start-age';
SELECT is(r.expires_at, now() + interval '1 day', 'max_age: a chunk slides the deadline up to it') FROM advance_upload('start-age', 0, 1) r;
SELECT is(r.expires_at, now() + interval '1 day', '... and not beyond') FROM advance_upload('start-age', 1, 1) r;
UPDATE upload_session SET end_by = now() - interval '1 second', expires_at = now() - interval '1 second' WHERE upload_id = 'start-age';
SELECT is(r.outcome, 'expired', '... and then the upload expires, however active it is') FROM try_advance_upload('start-age', 2, 1) r;
-- or_resume
SELECT start_upload('test/start', 10, owner => 'alice', bucket => 'b', upload_id => 'start-resume', or_resume => true) AS row \gset
SELECT is((s.status, s.uploaded_bytes)::text, '(pending,0)', 'or_resume: starts an upload that is not there') FROM get_upload('start-resume') s;
SELECT advance_upload('start-resume', 0, 4) AS row \gset
SELECT is(s::text, g::text, 'or_resume: returns one that is there, as it is')
  FROM get_upload('start-resume') g, start_upload('test/start', 10, 'text/plain', '{"a": 1}', '{"b": 2}', 'alice', 'b', '1 second', 'start-resume', or_resume => true) s;
SELECT is((t.code, t.detail)::text, (ROW('23505', format('It was started with another "%s".', argument)))::text, 'or_resume: not with another ' || argument)
  FROM (VALUES
		('owner', 'start_upload(''test/start'', 10, owner => ''bob'', bucket => ''b'', upload_id => ''start-resume'', or_resume => true)'),
		('owner', 'start_upload(''test/start'', 10, bucket => ''b'', upload_id => ''start-resume'', or_resume => true)'),
		('bucket', 'start_upload(''test/start'', 10, owner => ''alice'', upload_id => ''start-resume'', or_resume => true)'),
		('path', 'start_upload(''test/other'', 10, owner => ''alice'', bucket => ''b'', upload_id => ''start-resume'', or_resume => true)'),
		('total_size', 'start_upload(''test/start'', 11, owner => ''alice'', bucket => ''b'', upload_id => ''start-resume'', or_resume => true)'),
		('total_size', 'start_upload(''test/start'', owner => ''alice'', bucket => ''b'', upload_id => ''start-resume'', or_resume => true)'),
		('any_order', 'start_upload(''test/start'', 10, owner => ''alice'', bucket => ''b'', upload_id => ''start-resume'', any_order => true, or_resume => true)')
	) AS x (argument, call), LATERAL pg_temp.told('SELECT ' || call) t;
SELECT abort_upload('start-resume') AS row \gset
SELECT is(s.status, 'aborted', 'or_resume: whatever its status') FROM start_upload('test/start', 10, owner => 'alice', bucket => 'b', upload_id => 'start-resume', or_resume => true) s;
SELECT start_upload('test/start', upload_id => 'start-resume-2') AS row \gset
UPDATE upload_session SET expires_at = now() - interval '1 second' WHERE upload_id = 'start-resume-2';
SELECT is(s.status, 'expired', 'or_resume: one past its deadline has expired') FROM start_upload('test/start', upload_id => 'start-resume-2', or_resume => true) s;

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
		('''test/bad'', ttl => ''300000 years''', '22023', 'a ttl that leads out of the calendar'),
		('''test/bad'', size_limit => -1', '22023', 'a negative size limit'),
		('''test/bad'', 11, size_limit => 10', 'VB009', 'a size beyond the limit'),
		('''test/bad'', max_age => ''0''', '22023', 'an age of 0'),
		('''test/bad'', max_age => ''-1 day''', '22023', '... or less'),
		('''test/bad'', max_age => ''300000 years''', '22023', 'an age that leads out of the calendar'),
		('''test/bad'', or_resume => true', '22004', 'to resume without an upload_id')
	) AS x (arguments, code, sentence);
SELECT is(t.detail::jsonb, '{"quota": "size_limit", "limit": 10, "used": 0, "requested": 11}', 'the detail of a size beyond the limit is for programs')
  FROM pg_temp.told('SELECT start_upload(''test/bad'', 11, size_limit => 10)') t;
SELECT is(t.message, 'upload "test/bad" of 11 bytes exceeds its size limit of 10 bytes', '... whose message names the path')
  FROM pg_temp.told('SELECT start_upload(''test/bad'', 11, size_limit => 10)') t;
SELECT is(count(*), 0::bigint, 'nothing is left of a start that was refused') FROM upload_session WHERE path = 'test/bad' OR upload_id = '' OR path LIKE 'xxx%';

SELECT * FROM finish();
ROLLBACK;
