-- Concatenation: several partial uploads become one.
BEGIN;
\ir lib/uploads.sql
SELECT no_plan();

-- A new partial upload of 10 bytes, of owner alice, in the given state:
--     ready             all bytes are there
--     any order         the same, sent backwards
--     empty             of 0 bytes
--     pending, live     no byte is there, or half of them
--     unsized           of unknown length
--     complete, aborted, overdue, expired   ended; the last two by the deadline
--     whole             ready, but not partial
--     leased            ready, and somebody has the lease
CREATE FUNCTION pg_temp.piece(state text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	new_id text := (start_upload('piece/' || state, CASE state WHEN 'unsized' THEN NULL WHEN 'empty' THEN 0 ELSE 10 END, owner => 'alice',
		any_order => state = 'any order', partial => state <> 'whole')).upload_id;
BEGIN
	CASE state
		WHEN 'pending', 'empty' THEN NULL;
		WHEN 'live', 'unsized' THEN PERFORM advance_upload(new_id, 0, 5);
		WHEN 'any order' THEN PERFORM advance_upload(new_id, 5, 5), advance_upload(new_id, 0, 5);
		ELSE PERFORM advance_upload(new_id, 0, 10);
	END CASE;
	CASE state
		WHEN 'complete' THEN PERFORM complete_upload(new_id);
		WHEN 'aborted' THEN PERFORM abort_upload(new_id);
		WHEN 'leased' THEN PERFORM acquire_upload_lease(new_id, 'server');
		WHEN 'overdue', 'expired' THEN UPDATE upload_session SET expires_at = now() - interval '1 second' WHERE upload_id = new_id;
		ELSE NULL;
	END CASE;
	IF state = 'expired' THEN
		PERFORM sweep_uploads();
	END IF;
	RETURN new_id;
END $$;

-- Pieces in the given states.
CREATE FUNCTION pg_temp.pieces(VARIADIC states text[]) RETURNS text[] LANGUAGE sql AS $$
	SELECT array_agg(pg_temp.piece(state) ORDER BY n) FROM unnest(states) WITH ORDINALITY AS s (state, n)
$$;

--
-- What becomes of them
--
SELECT pg_temp.pieces('ready', 'any order', 'empty', 'leased') AS ids \gset
SELECT is((s.upload_id, s.status, s.path, s.total_size, s.uploaded_bytes, s.owner, s.bucket, s.content_type, s.metadata, s.provider_data, s.result, s.partial, s.ttl)::text,
		ROW('whole', 'complete', 'file', 30, 30, 'alice', 'bucket', 'text/plain', '{"m": 1}'::jsonb, '{"p": 2}'::jsonb, '{"r": 3}'::jsonb, false, NULL)::text,
		'the whole is complete at once, and keeps what it is given')
  FROM concatenate_uploads('file', :'ids', 'whole', 'alice', 'bucket', 'text/plain', '{"m": 1}', '{"p": 2}', '{"r": 3}') s;
SELECT is(s.concatenated_from, to_jsonb(:'ids'::text[]), '... also the list, in its order') FROM get_upload('whole') s;
SELECT ok(s.created_at = s.updated_at AND s.expires_at BETWEEN now() + interval '48 hours' AND now() + interval '52 hours', '... for its retention') FROM get_upload('whole') s;
SELECT is((s.status, s.uploaded_bytes, s.result, s.partial, s.lease_holder)::text, format('(complete,%s,"{""concatenated_into"": ""whole""}",t,)', s.total_size), s.path || ': the piece ends with it')
  FROM get_uploads(:'ids') s;
SELECT ok(s.expires_at > now() + interval '40 hours', s.path || ': and is kept for its retention') FROM get_uploads(:'ids') s;
SELECT is_empty('SELECT FROM upload_reclaim', 'nothing is queued: the pieces are the caller''s');
SELECT ok(delete_upload((:'ids'::text[])[1], reclaim_complete => true), 'a piece can be deleted');
SELECT isnt_empty('SELECT FROM upload_reclaim', '... and what it has left in storage be queued');

--
-- The same call again
--
SELECT is(s::text, g::text, sentence)
  FROM (VALUES
		('the same row', concatenate_uploads('file', :'ids', 'whole', 'alice', 'bucket', 'text/plain', '{"m": 1}', '{"p": 2}', '{"r": 3}')),
		('... whatever else is passed', concatenate_uploads('other', :'ids', 'whole', 'alice'))
	) AS x (sentence, s), get_upload('whole') g;
SELECT throws_ok(format('SELECT concatenate_uploads(''file'', %L, ''whole'', %L)', ids, owner), '23505', 'upload "whole" already exists', sentence)
  FROM (VALUES
		((:'ids'::text[])[2:], 'alice', 'not with another list'),
		(ARRAY[(:'ids'::text[])[2], (:'ids'::text[])[1]] || (:'ids'::text[])[3:], 'alice', '... nor with the list in another order'),
		(:'ids'::text[], 'bob', '... nor for another owner'),
		(:'ids'::text[], NULL, '... nor for none')
	) AS x (ids, owner, sentence);
SELECT is((pg_temp.told(format('SELECT concatenate_uploads(''file'', %L, ''whole'', ''bob'')', :'ids'))).detail, 'It was started with another "owner".', '... which the error says');
SELECT start_upload('file', 30, upload_id => 'other', owner => 'alice') AS row \gset
SELECT throws_ok(format('SELECT concatenate_uploads(''file'', %L, ''other'', ''alice'')', pg_temp.pieces('ready')), '23505', 'upload "other" already exists', '... nor where another upload is');

--
-- Who is to blame
--
SELECT is(pg_temp.raised(format('SELECT concatenate_uploads(''file'', %L, owner => %L)', ids, owner)), code, sentence)
  FROM (VALUES
		(pg_temp.pieces('ready', 'ready'), 'alice', NULL, 'all are ready'),
		(pg_temp.pieces('ready', 'ready'), NULL, NULL, '... and a caller without an owner may have any'),
		(pg_temp.pieces('ready', 'pending'), 'alice', 'VB006', 'one has no byte'),
		(pg_temp.pieces('live', 'ready'), 'alice', 'VB006', 'one has half of them'),
		(pg_temp.pieces('unsized'), 'alice', 'VB006', 'one has no size'),
		(pg_temp.pieces('complete', 'ready'), 'alice', 'VB003', 'one is complete'),
		(pg_temp.pieces('ready', 'aborted'), 'alice', 'VB003', 'one was aborted'),
		(pg_temp.pieces('ready', 'overdue'), 'alice', 'VB004', 'one is past its deadline'),
		(pg_temp.pieces('ready', 'expired'), 'alice', 'VB004', 'one has expired'),
		(pg_temp.pieces('ready', 'whole'), 'alice', '22023', 'one is not partial'),
		(pg_temp.pieces('ready') || 'nobody'::text, 'alice', 'VB001', 'one does not exist'),
		(pg_temp.pieces('ready', 'ready'), 'bob', 'VB001', 'they are another owner''s'),
		(pg_temp.pieces('aborted', 'live', 'overdue'), 'alice', 'VB003', 'the first one is to blame'),
		(pg_temp.pieces('live', 'overdue', 'aborted'), 'alice', 'VB006', '... whichever it is'),
		(array_append(pg_temp.pieces('live'), 'nobody'), 'alice', 'VB006', '... also before one that does not exist'),
		(array_prepend('nobody', pg_temp.pieces('live')), 'alice', 'VB001', '... or behind it')
	) AS x (ids, owner, code, sentence);
SELECT is(pg_temp.raised(format('SELECT concatenate_uploads(''file'', ARRAY[%L, %1$L])', pg_temp.piece('ready'))), '22023', 'a piece can be used once');
SELECT pg_temp.pieces('ready', 'live') AS ids \gset
SELECT is(pg_temp.raised(format('SELECT concatenate_uploads(''file'', %L, ''failed'')', :'ids')), 'VB006', 'after an error ...');
SELECT is(s.status, 'in_progress', '... ' || s.path || ' is as before') FROM get_uploads(:'ids') s;
SELECT is_empty($$ SELECT FROM get_upload('failed') $$, '... and there is no whole');

--
-- Partial uploads do not complete by themselves
--
SELECT pg_temp.piece('live') AS id \gset
SELECT throws_ok(format('SELECT %s(%L, 5, 5, true)', function, :'id'), '22023', NULL, function || ': final is refused') FROM unnest(ARRAY['advance_upload', 'try_advance_upload']) AS function;
SELECT is(r.ready, true, 'without it, the last chunk makes the piece ready') FROM advance_upload(:'id', 5, 5) r;
SELECT throws_ok($$ SELECT start_upload('file', 10, auto_complete => true, partial => true) $$, '22023', NULL, 'auto_complete is refused');
SELECT start_upload('file', 0, partial => true, upload_id => 'resumed') AS row \gset
SELECT lives_ok($$ SELECT start_upload('file', 0, partial => true, upload_id => 'resumed', or_resume => true) $$, 'a partial upload is resumed as one');
SELECT throws_ok($$ SELECT start_upload('file', 0, upload_id => 'resumed', or_resume => true) $$, '23505', NULL, '... and as nothing else');
SELECT is(s.rules_version, 1::bigint, 'an older library leaves it alone') FROM get_upload('resumed') s;

--
-- Arguments
--
SELECT is(pg_temp.raised(format('SELECT concatenate_uploads(%s)', args)), code, sentence)
  FROM (VALUES
		('NULL, ''{a}''', '22004', 'a path is needed'),
		(''''', ''{a}''', '22023', '... which is not empty'),
		('repeat(''x'', 2049), ''{a}''', '22001', '... nor too long'),
		('''file'', NULL', '22004', 'a list is needed'),
		('''file'', ''{}''', '22023', '... which is not empty'),
		('''file'', ''{a,NULL}''', '22004', '... without nulls'),
		('''file'', ''{{a},{b}}''', '22023', '... of one dimension'),
		('''file'', ''{a}'', upload_id => ''''', '22023', 'an upload_id is not empty'),
		('''file'', ''{a}'', upload_id => repeat(''x'', 129)', '22001', '... nor too long'),
		('''file'', ''{a}'', metadata => ''[]''', '22023', 'metadata are an object'),
		('''file'', ''{a}'', provider_data => ''[]''', '22023', '... and so are provider_data'),
		('''file'', ''{a}'', result => ''1''', '22023', '... and the result')
	) AS x (args, code, sentence);
SET vali_blob.require_owner = on;
SELECT throws_ok($$ SELECT concatenate_uploads('file', '{a}') $$, '22004', NULL, 'an owner may be required');
RESET vali_blob.require_owner;
UPDATE upload_session SET total_size = 9223372036854775807, uploaded_bytes = 9223372036854775807 WHERE upload_id = :'id';
SELECT throws_ok(format('SELECT concatenate_uploads(''file'', %L)', ARRAY[:'id', pg_temp.piece('ready')]), '22003', NULL, 'a sum may be too great');

--
-- Limits
--
SELECT pg_temp.pieces('ready', 'ready') AS ids \gset
SET vali_blob.max_upload_size = 19;
SELECT throws_ok(format('SELECT concatenate_uploads(''file'', %L)', :'ids'), 'VB009', NULL, 'a whole may be too large');
SET vali_blob.max_upload_size = 20;
SET vali_blob.max_live_uploads = 0;
SET vali_blob.max_live_bytes = 0;
SELECT is((s.total_size, s.size_limit)::text, '(20,20)', '... but it is never live') FROM concatenate_uploads('file', :'ids', owner => 'alice') s;

SELECT * FROM finish();
ROLLBACK;
