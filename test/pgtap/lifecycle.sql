-- The life of an upload: what each function makes of an upload in each state.
--
--     pending --first chunk--> in_progress --complete_upload--> complete
--        |                         |
--        +------ abort_upload -----+--> aborted
--        +------ deadline passed --+--> expired
BEGIN;
\ir lib/uploads.sql
SELECT no_plan();

-- What a call does to a new upload in the given state: the status that it
-- returns or the SQLSTATE that it raises, and whether the row is as before.
CREATE FUNCTION pg_temp.try_call(state text, call text, OUT answer text, OUT unchanged boolean) LANGUAGE plpgsql AS $$
DECLARE
	my_id text := pg_temp.upload(state);
	before upload_session;
BEGIN
	SELECT * INTO before FROM upload_session WHERE upload_id = my_id;
	BEGIN
		EXECUTE format('SELECT status FROM ' || call, my_id) INTO answer;
	EXCEPTION WHEN OTHERS THEN
		answer := SQLSTATE;
	END;
	unchanged := before IS NOT DISTINCT FROM (SELECT s FROM upload_session s WHERE upload_id = my_id);
END $$;

CREATE TEMPORARY TABLE line (n serial, call text, state text, answer text, unchanged boolean, sentence text);
INSERT INTO line (call, state, answer, unchanged, sentence) VALUES
	('complete_upload(%L)', 'pending', 'VB006', true, 'an upload without bytes cannot be completed'),
	('complete_upload(%L)', 'live', 'VB006', true, 'nor can one with bytes missing'),
	('complete_upload(%L)', 'deferred', 'VB006', true, 'nor one whose length is not known'),
	('complete_upload(%L)', 'unsized', 'VB006', true, '... whether bytes have come or not'),
	('complete_upload(%L)', 'empty', 'complete', false, 'an upload of 0 bytes is completed without any chunk'),
	('complete_upload(%L)', 'full', 'complete', false, 'an upload with all its bytes is completed'),
	('complete_upload(%L, ''{"etag": "e"}'')', 'full', 'complete', false, 'and may be given a result'),
	('complete_upload(%L, ''[]'')', 'full', '22023', true, 'which is an object'),
	('complete_upload(%L, ''null'')', 'full', '22023', true, 'and no JSON null'),
	('complete_upload(%L)', 'complete', 'complete', true, 'once complete, it stays as it is'),
	('complete_upload(%L, ''{"etag": "e"}'')', 'complete', 'complete', false, 'but takes a result, if it has none'),
	('complete_upload(%L)', 'aborted', 'VB003', true, 'an aborted upload cannot be completed'),
	('complete_upload(%L)', 'expired', 'VB004', true, 'nor can an expired one'),
	('complete_upload(%L)', 'overdue', 'VB004', true, 'nor one past its deadline'),
	('complete_upload(%L)', 'full due', 'VB004', true, 'not even with all its bytes'),
	('complete_upload(%L)', 'complete due', 'complete', true, 'but a complete one stays so past its retention'),

	('abort_upload(%L)', 'pending', 'aborted', false, 'an upload can be aborted before its first chunk'),
	('abort_upload(%L)', 'live', 'aborted', false, 'and while it runs'),
	('abort_upload(%L)', 'deferred', 'aborted', false, 'also if its length is not known'),
	('abort_upload(%L)', 'full', 'aborted', false, 'also with all its bytes'),
	('abort_upload(%L, ''again'')', 'aborted', 'aborted', true, 'once aborted, it stays as it is'),
	('abort_upload(%L)', 'complete', 'VB003', true, 'a complete upload cannot be aborted'),
	('abort_upload(%L)', 'expired', 'VB004', true, 'nor can an expired one'),
	('abort_upload(%L)', 'overdue', 'VB004', true, 'nor one past its deadline'),
	('abort_upload(%L)', 'pending due', 'VB004', true, 'whether a chunk has come or not'),
	('abort_upload(%L)', 'aborted due', 'aborted', true, 'but an aborted one stays so past its retention'),

	('declare_upload_size(%L, 50)', 'deferred', 'in_progress', false, 'a deferred length can be declared'),
	('declare_upload_size(%L, 40)', 'deferred', 'in_progress', false, 'down to the bytes that are there'),
	('declare_upload_size(%L, 39)', 'deferred', 'VB005', true, 'but not below them'),
	('declare_upload_size(%L, 0)', 'unsized', 'pending', false, 'a file may turn out to be empty'),
	('declare_upload_size(%L, 9223372036854775807)', 'deferred', 'in_progress', false, 'and up to all that bigint can count'),
	('declare_upload_size(%L, -1)', 'deferred', '22023', true, 'a size is not negative'),
	('declare_upload_size(%L, NULL)', 'deferred', '22004', true, 'nor null'),
	('declare_upload_size(%L, 100)', 'live', 'in_progress', true, 'the same size again changes nothing'),
	('declare_upload_size(%L, 100)', 'complete', 'complete', true, 'not even on a complete upload'),
	('declare_upload_size(%L, 101)', 'pending', 'VB007', true, 'another size is refused'),
	('declare_upload_size(%L, 101)', 'live', 'VB007', true, 'a larger one'),
	('declare_upload_size(%L, 99)', 'live', 'VB007', true, 'and a smaller one'),
	('declare_upload_size(%L, 101)', 'complete', 'VB003', true, 'a complete upload takes no other size'),
	('declare_upload_size(%L, 100)', 'aborted', 'VB003', true, 'an aborted one takes none'),
	('declare_upload_size(%L, 100)', 'expired', 'VB004', true, 'nor does an expired one'),
	('declare_upload_size(%L, 100)', 'overdue', 'VB004', true, 'nor one past its deadline'),

	('merge_upload_data(%L, ''{"a": 1}'')', 'pending', 'pending', false, 'data can be merged before the first chunk'),
	('merge_upload_data(%L, ''{"a": 1}'')', 'live', 'in_progress', false, 'and while the upload runs'),
	('merge_upload_data(%L, ''{"a": 1}'')', 'full', 'in_progress', false, 'and when all bytes are there'),
	('merge_upload_data(%L, ''{"a": 1}'')', 'deferred', 'in_progress', false, 'and while its length is not known'),
	('merge_upload_data(%L, ''[]'')', 'live', '22023', true, 'metadata is an object'),
	('merge_upload_data(%L, ''null'')', 'live', '22023', true, 'and no JSON null'),
	('merge_upload_data(%L, NULL, ''1'')', 'live', '22023', true, 'provider_data is an object'),
	('merge_upload_data(%L, ''{"a": 1}'', ''"text"'')', 'live', '22023', true, 'and none is merged without the other'),
	('merge_upload_data(%L, ''{"a": 1}'')', 'complete', 'VB003', true, 'a complete upload takes no more data'),
	('merge_upload_data(%L, ''{"a": 1}'')', 'aborted', 'VB003', true, 'nor does an aborted one'),
	('merge_upload_data(%L, ''{"a": 1}'')', 'expired', 'VB004', true, 'nor an expired one'),
	('merge_upload_data(%L, ''{"a": 1}'')', 'overdue', 'VB004', true, 'nor one past its deadline'),

	('get_upload(%L)', 'pending', 'pending', true, 'a reader shows the status'),
	('get_upload(%L)', 'complete', 'complete', true, 'also of an upload that has ended'),
	('get_upload(%L)', 'aborted', 'aborted', true, 'in whatever way'),
	('get_upload(%L)', 'expired', 'expired', true, 'that may have been'),
	('get_upload(%L)', 'overdue', 'expired', true, 'and shows one past its deadline as expired, without writing it'),
	('get_upload(%L)', 'pending due', 'expired', true, 'whether a chunk has come or not'),
	('get_upload(%L)', 'complete due', 'complete', true, 'but one that is complete as complete');

SELECT is(r.answer || CASE WHEN r.unchanged THEN ', row unchanged' ELSE ', row changed' END,
		l.answer || CASE WHEN l.unchanged THEN ', row unchanged' ELSE ', row changed' END,
		format('%s, %s: %s', format(replace(l.call, '%L', '...')), l.state, l.sentence))
  FROM line l, LATERAL pg_temp.try_call(l.state, l.call) r
 ORDER BY n;

-- To another owner, an upload does not exist, whatever its state
SELECT is(r.answer, 'VB001', format('%s, %s: not found by another owner', format(replace(call, '%L', '...')), state))
  FROM unnest(ARRAY['complete_upload(%L, owner => ''bob'')', 'abort_upload(%L, owner => ''bob'')', 'declare_upload_size(%L, 100, ''bob'')',
		'merge_upload_data(%L, owner => ''bob'')']) AS call,
	unnest(ARRAY['complete', 'aborted', 'expired', 'overdue']) AS state, LATERAL pg_temp.try_call(state, call) r;

-- Unknown, of another owner, null
SELECT throws_ok(format('SELECT ' || call, id), code, NULL, format('%s: %s', replace(call, '%L', '...'), sentence))
  FROM (VALUES ('lifecycle-unknown', 'VB001', 'an unknown upload'), (pg_temp.upload('live'), 'VB001', 'the upload of another owner'),
		(NULL, '22004', 'a null upload_id')) AS i (id, code, sentence),
	(VALUES ('complete_upload(%L, owner => ''bob'')'), ('abort_upload(%L, owner => ''bob'')'),
		('declare_upload_size(%L, 10, ''bob'')'), ('merge_upload_data(%L, ''{}'', owner => ''bob'')')) AS c (call);

--
-- What the row holds afterwards
--
SELECT is(s.result, '{"etag": "e"}', 'a result is kept') FROM complete_upload(pg_temp.upload('full'), '{"etag": "e"}') s;
SELECT is(complete_upload(u, '{"etag": "another"}'), complete_upload(u, '{"etag": "e"}'), 'and returned by every later call')
  FROM pg_temp.upload('full') u;
SELECT pg_temp.upload('complete') AS completed_by_final \gset
SELECT is(s.result, '{"etag": "e"}', 'an upload that was completed by a final chunk takes the first result that it is given')
	FROM complete_upload(:'completed_by_final', '{"etag": "e"}') AS s;
SELECT is(s.result, '{"etag": "e"}', 'and keeps it') FROM complete_upload(:'completed_by_final', '{"etag": "f"}') AS s;
CREATE FUNCTION pg_temp.kept_until(state text, call text) RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
	my_id text := pg_temp.upload(state);
BEGIN
	UPDATE upload_session SET expires_at = now() + interval '1 hour' WHERE upload_id = my_id;
	EXECUTE format('SELECT ' || call, my_id);
	RETURN (SELECT expires_at FROM upload_session WHERE upload_id = my_id);
END $$;
SELECT is(pg_temp.kept_until('complete', 'complete_upload(%L, ''{"etag": "e"}'')'), now() + interval '1 hour', '... for no longer than without it');
SELECT is(s.result, NULL, 'an upload may be complete without a result') FROM complete_upload(pg_temp.upload('full')) s;
SELECT is(s.provider_data, '{"multipart": "m"}', 'a complete upload keeps its provider ids') FROM complete_upload(pg_temp.upload('full')) s;

SELECT is(s.abort_reason, 'cancelled', 'the reason of an abort is kept') FROM abort_upload(pg_temp.upload('live'), 'cancelled') s;
SELECT is(abort_upload(u, 'again'), abort_upload(u, 'cancelled'), 'the first one') FROM pg_temp.upload('live') u;
SELECT is((s.abort_reason, s.uploaded_bytes)::text, '(,40)', 'an abort needs no reason') FROM abort_upload(pg_temp.upload('live')) s;
SELECT is(s.abort_reason, '', '... an empty one is one') FROM abort_upload(pg_temp.upload('live'), '') s;

SELECT is((s.total_size, s.uploaded_bytes)::text, '(50,40)', 'a declared size is the total size') FROM declare_upload_size(pg_temp.upload('deferred'), 50) s;
SELECT throws_ok(format('SELECT declare_upload_size(%L, 51), declare_upload_size(%1$L, 52)', pg_temp.upload('deferred')), 'VB007', NULL,
	'declared once');
SELECT is(r.outcome, 'too_large', 'a declared size counts for the next chunk')
  FROM declare_upload_size(pg_temp.upload('deferred'), 50) s, LATERAL try_advance_upload(s.upload_id, 40, 11) r;
SELECT is((s.status, r.outcome, r.ready)::text, '(in_progress,replayed,t)', 'an upload is ready, not complete, once its bytes are declared to be all')
  FROM declare_upload_size(pg_temp.upload('deferred'), 40) s, LATERAL try_advance_upload(s.upload_id, 0, 40) r;

SELECT is(s.metadata, '{"a": 1, "b": {"c": 2}}', 'metadata is merged')
  FROM pg_temp.upload('live') u, LATERAL merge_upload_data(u, '{"a": 1}') m, LATERAL merge_upload_data(m.upload_id, '{"b": {"c": 2}}') s;
SELECT is(s.metadata, '{"b": {"d": 3}}', '... at the top level: values are replaced whole')
  FROM pg_temp.upload('live') u, LATERAL merge_upload_data(u, '{"b": {"c": 2}}') m, LATERAL merge_upload_data(m.upload_id, '{"b": {"d": 3}}') s;
SELECT is(s.metadata, '{"b": {"c": null}}', '... a null removes its key there')
  FROM pg_temp.upload('live') u, LATERAL merge_upload_data(u, '{"a": 1, "b": 2}') m,
	LATERAL merge_upload_data(m.upload_id, '{"a": null, "b": {"c": null}, "z": null}') s;
SELECT is((s.metadata, s.provider_data)::text, ROW('{"a": 1}'::jsonb, '{"multipart": "m"}'::jsonb)::text, '... and provider_data is left alone')
  FROM merge_upload_data(pg_temp.upload('live'), '{"a": 1}') s;
SELECT is((s.metadata, s.provider_data)::text, ROW('{}'::jsonb, '{"part": 1}'::jsonb)::text, 'provider_data is merged in the same way')
  FROM merge_upload_data(pg_temp.upload('live'), provider_data => '{"multipart": null, "part": 1}') s;
SELECT is((s.metadata, s.provider_data)::text, ROW('{}'::jsonb, '{"multipart": "m"}'::jsonb)::text, 'nulls merge nothing')
  FROM merge_upload_data(pg_temp.upload('live')) s;

-- Each change is noted
CREATE FUNCTION pg_temp.updated_at_after(state text, call text) RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
	my_id text := pg_temp.upload(state);
BEGIN
	UPDATE upload_session SET updated_at = now() - interval '1 hour' WHERE upload_id = my_id;
	EXECUTE format('SELECT ' || call, my_id);
	RETURN (SELECT updated_at FROM upload_session WHERE upload_id = my_id);
END $$;
SELECT ok(u > now() AND u <= clock_timestamp(), format('%s, %s: updated_at is the wall clock', replace(call, '%L', '...'), state))
  FROM (VALUES
		('live', 'advance_upload(%L, 40, 1)'), ('live', 'advance_upload(%L, 40, 0)'), ('live', 'advance_upload(%L, 40, 60, true)'),
		('live', 'advance_uploads(ARRAY[%L], ARRAY[40], ARRAY[1])'), ('deferred', 'declare_upload_size(%L, 100)'),
		('live', 'merge_upload_data(%L, ''{"a": 1}'')'), ('full', 'complete_upload(%L)'), ('complete', 'complete_upload(%L, ''{"etag": "e"}'')'),
		('live', 'abort_upload(%L)'), ('overdue', 'sweep_uploads()')
	) AS x (state, call), LATERAL pg_temp.updated_at_after(state, call) u;

--
-- An ended session never becomes live again
--
CREATE FUNCTION pg_temp.status_after_all_that(state text) RETURNS upload_status LANGUAGE plpgsql AS $$
DECLARE
	my_id text := pg_temp.upload(state);
BEGIN
	PERFORM pg_temp.raised(format('SELECT ' || call, my_id))
	   FROM unnest(ARRAY['advance_upload(%L, 40, 1)', 'advance_upload(%L, 0, 0)', 'advance_upload(%L, 100, 0, true)',
			'complete_upload(%L)', 'abort_upload(%L)', 'declare_upload_size(%L, 100)', 'merge_upload_data(%L, ''{}'')']) AS call;
	RETURN (SELECT s.status FROM get_upload(my_id) s);
END $$;
SELECT is(pg_temp.status_after_all_that(state), status, state || ' is for good')
  FROM (VALUES ('complete', 'complete'::upload_status), ('aborted', 'aborted'), ('expired', 'expired'), ('overdue', 'expired')) AS x (state, status);

--
-- delete_upload forgets it, whatever its state
--
SELECT ok(delete_upload(pg_temp.upload(state)), 'delete_upload: ' || state)
  FROM unnest(ARRAY['pending', 'live', 'full', 'deferred', 'complete', 'aborted', 'expired', 'overdue']) AS state;
SELECT pg_temp.upload('live') AS id \gset
SELECT ok(NOT delete_upload(:'id', 'bob'), 'delete_upload: the upload of another owner');
SELECT is(count(*), 1::bigint, 'delete_upload: stays') FROM get_upload(:'id');
SELECT ok(delete_upload(:'id', 'alice'), 'delete_upload: the owner''s own');
SELECT is(count(*), 0::bigint, 'delete_upload: is gone') FROM get_upload(:'id');
SELECT ok(NOT delete_upload(:'id'), 'delete_upload: once');
SELECT throws_ok('SELECT delete_upload(NULL)', '22004', NULL, 'delete_upload: a null upload_id');
SELECT is(s.status, 'pending', 'a deleted id can be used again') FROM start_upload('test/again', upload_id => :'id') s;

SELECT * FROM finish();
ROLLBACK;
