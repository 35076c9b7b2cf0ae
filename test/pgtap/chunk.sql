-- How a chunk advances an upload: the table of outcomes line by line, what each
-- reports, what each leaves as it was.
BEGIN;
\ir lib/uploads.sql
SELECT no_plan();

-- What a chunk does to a new upload in the given state.  A row is unchanged if
-- nobody has written a new version of it, not even an equal one.
CREATE FUNCTION pg_temp.try_chunk(state text, chunk_offset bigint, chunk_length bigint, final boolean,
	OUT outcome text, OUT raised text, OUT bytes bigint, OUT ready boolean, OUT unchanged boolean, OUT truthful boolean)
LANGUAGE plpgsql AS $$
DECLARE
	my_id text := pg_temp.upload(state);
	before upload_session := (SELECT s FROM upload_session s WHERE upload_id = my_id);
	version tid := (SELECT ctid FROM upload_session WHERE upload_id = my_id);
	after upload_session;
	result chunk_result;
BEGIN
	result := try_advance_upload(my_id, chunk_offset, chunk_length, final);
	after := (SELECT s FROM upload_session s WHERE upload_id = my_id);
	outcome := result.outcome;
	bytes := result.uploaded_bytes;
	ready := result.ready;
	unchanged := after IS NOT DISTINCT FROM before AND version = (SELECT ctid FROM upload_session WHERE upload_id = my_id);
	truthful := (result.uploaded_bytes, result.total_size, result.expires_at)
		IS NOT DISTINCT FROM (after.uploaded_bytes, after.total_size, after.expires_at)
		AND result.status = (SELECT g.status FROM get_upload(my_id) g);
	raised := pg_temp.raised(format('SELECT advance_upload(%L, %s, %s, %L)', pg_temp.upload(state), chunk_offset, chunk_length, final));
END $$;

-- Every line: state, chunk, what try_advance_upload returns, what advance_upload raises.
CREATE TEMPORARY TABLE line (n serial, state text, chunk_offset bigint, chunk_length bigint, final boolean,
	outcome text, raised text, bytes bigint, ready boolean, sentence text);
INSERT INTO line (state, chunk_offset, chunk_length, final, outcome, raised, bytes, ready, sentence) VALUES
	-- otherwise
	('pending', 0, 10, false, 'advanced', NULL, 10, false, 'the first chunk of an upload advances it'),
	('live', 40, 10, false, 'advanced', NULL, 50, false, 'a chunk at the confirmed offset advances the upload'),
	('live', 40, 60, false, 'advanced', NULL, 100, true, 'the chunk that ends at total_size makes the upload ready, not complete'),
	('live', 40, 60, true, 'advanced', NULL, 100, false, 'the same chunk, marked final, completes it'),
	('live', 40, 0, false, 'advanced', NULL, 40, false, 'an empty chunk at the confirmed offset advances by nothing'),
	('full', 100, 0, false, 'advanced', NULL, 100, true, 'an empty chunk at the end advances by nothing'),
	('full', 100, 0, true, 'advanced', NULL, 100, false, 'an empty chunk at the end, marked final, completes'),
	('deferred', 40, 1000, false, 'advanced', NULL, 1040, false, 'no chunk is too large while the length is deferred'),
	('deferred', 40, 1000, true, 'advanced', NULL, 1040, false, 'a final chunk ends a deferred length'),
	('deferred', 40, 0, true, 'advanced', NULL, 40, false, 'an empty final chunk ends a deferred length where it is'),
	('unsized', 0, 0, true, 'advanced', NULL, 0, false, '... also where no byte has come'),
	('unsized', 0, 9223372036854775807, false, 'advanced', NULL, 9223372036854775807, false, 'a deferred length ends where bigint ends'),
	('empty', 0, 0, false, 'advanced', NULL, 0, true, 'a size of 0 is a size: such an upload is ready without a byte'),
	('empty', 0, 0, true, 'advanced', NULL, 0, false, '... and completed by an empty final chunk'),
	-- aborted
	('aborted', 40, 10, false, 'ended', 'VB003', 40, false, 'an aborted upload takes no chunk'),
	('aborted', 0, 40, false, 'ended', 'VB003', 40, false, '... not even one that it has had'),
	('aborted', 99, 999, false, 'ended', 'VB003', 40, false, '... and does not look at its offset'),
	-- expired, or live past its deadline
	('expired', 40, 10, false, 'expired', 'VB004', 40, false, 'an expired upload takes no chunk'),
	('expired', 0, 40, false, 'expired', 'VB004', 40, false, '... not even one that it has had'),
	('overdue', 40, 10, false, 'expired', 'VB004', 40, false, 'an upload past its deadline takes no chunk, swept or not'),
	('overdue', 0, 40, false, 'expired', 'VB004', 40, false, '... not even one that it has had'),
	('overdue', 99, 999, false, 'expired', 'VB004', 40, false, '... and does not look at its offset'),
	('pending due', 0, 10, false, 'expired', 'VB004', 0, false, '... nor does one that has had no chunk yet'),
	('full due', 0, 100, false, 'expired', 'VB004', 100, false, '... nor one that has all its bytes, which is no longer ready'),
	-- replayed
	('live', 0, 40, false, 'replayed', NULL, 40, false, 'a chunk that is there already is replayed'),
	('live', 30, 10, false, 'replayed', NULL, 40, false, '... also the last part of it'),
	('live', 10, 1, false, 'replayed', NULL, 40, false, '... also a byte in the middle'),
	('live', 30, 10, true, 'replayed', NULL, 40, false, '... and final is not looked at'),
	('full', 40, 60, false, 'replayed', NULL, 100, true, 'a replay reports that the upload is ready'),
	('full', 40, 60, true, 'replayed', NULL, 100, true, 'a replay does not complete an upload'),
	('complete', 40, 60, true, 'replayed', NULL, 100, false, 'the final chunk of a complete upload is replayed'),
	('complete', 0, 40, false, 'replayed', NULL, 100, false, '... and so is every other one'),
	('complete', 100, 0, true, 'replayed', NULL, 100, false, '... the empty one at the end included'),
	('complete', 40, 0, false, 'replayed', NULL, 100, false, '... and any other empty one'),
	('complete due', 40, 60, true, 'replayed', NULL, 100, false, '... also past its retention, until it is purged'),
	('live', 0, 1, false, 'replayed', NULL, 40, false, 'the first byte alone is replayed'),
	-- complete
	('complete', 100, 1, false, 'ended', 'VB003', 100, false, 'a complete upload takes no more bytes'),
	('complete', 99, 2, false, 'ended', 'VB003', 100, false, '... nor some that it has had and some that it has not'),
	('complete', 101, 0, false, 'ended', 'VB003', 100, false, '... nor an empty chunk beyond its end'),
	('complete due', 100, 1, false, 'ended', 'VB003', 100, false, '... also past its retention: it has ended, and does not expire'),
	('aborted due', 40, 1, false, 'ended', 'VB003', 40, false, 'an aborted upload does not expire, either'),
	-- conflict
	('pending', 1, 10, false, 'conflict', 'VB002', 0, false, 'a first chunk that does not begin at 0 is a conflict'),
	('live', 41, 10, false, 'conflict', 'VB002', 40, false, 'a gap is a conflict'),
	('live', 39, 10, false, 'conflict', 'VB002', 40, false, 'a partial overlap is a conflict'),
	('live', 0, 41, false, 'conflict', 'VB002', 40, false, '... also one that begins at the beginning'),
	('live', 39, 0, false, 'conflict', 'VB002', 40, false, 'an empty chunk before the confirmed offset is a conflict, no replay'),
	('live', 41, 0, false, 'conflict', 'VB002', 40, false, 'an empty chunk behind it is a conflict'),
	('live', 41, 60, false, 'conflict', 'VB002', 40, false, 'a gap is a conflict before the chunk is too large'),
	('live', 41, 9, true, 'conflict', 'VB002', 40, false, 'a gap is a conflict before a final chunk is incomplete'),
	('full', 99, 2, false, 'conflict', 'VB002', 100, true, 'a conflict reports that the upload is ready'),
	('full', 101, 1, false, 'conflict', 'VB002', 100, true, '... also one beyond its end'),
	-- too large
	('live', 40, 61, false, 'too_large', 'VB005', 40, false, 'a byte more than total_size is too large'),
	('live', 40, 61, true, 'too_large', 'VB005', 40, false, '... marked final or not'),
	('full', 100, 1, false, 'too_large', 'VB005', 100, true, 'a full upload has no room, but is ready'),
	('empty', 0, 1, false, 'too_large', 'VB005', 0, true, '... and so is one of 0 bytes'),
	('live', 40, 9223372036854775767, false, 'too_large', 'VB005', 40, false, 'a chunk may end where bigint ends'),
	-- incomplete
	('live', 40, 59, true, 'incomplete', 'VB006', 40, false, 'a final chunk that ends before total_size is incomplete'),
	('live', 40, 0, true, 'incomplete', 'VB006', 40, false, '... an empty one as well'),
	('pending', 0, 0, true, 'incomplete', 'VB006', 0, false, '... and so is an empty one of an upload that expects bytes');

SELECT is(format('%s, raises %s, %s bytes, ready %s, row unchanged %s, report true %s',
			r.outcome, r.raised, r.bytes, r.ready, r.unchanged, r.truthful),
		format('%s, raises %s, %s bytes, ready %s, row unchanged %s, report true %s',
			l.outcome, l.raised, l.bytes, l.ready, l.outcome <> 'advanced', true),
		format('%s: %s', l.outcome, l.sentence))
  FROM line l, LATERAL pg_temp.try_chunk(l.state, l.chunk_offset, l.chunk_length, l.final) r
 ORDER BY n;

--
-- Not found
--
SELECT is(r, ROW('not_found', NULL, NULL, NULL, false, NULL)::chunk_result, 'not_found: an unknown upload')
  FROM try_advance_upload('chunk-unknown', 0, 1) r;
SELECT is(r, ROW('not_found', NULL, NULL, NULL, false, NULL)::chunk_result, 'not_found: the upload of another owner, and nothing is told of it')
  FROM try_advance_upload(pg_temp.upload('live'), 40, 1, owner => 'bob') r;
SELECT is(r.outcome, 'not_found', 'not_found: comes before ' || state)
  FROM unnest(ARRAY['aborted', 'expired', 'overdue', 'complete']) AS state, LATERAL try_advance_upload(pg_temp.upload(state), 40, 1, owner => 'bob') r;
SELECT is(r.outcome, 'not_found', 'not_found: ' || sentence)
  FROM (VALUES ('', 'an empty id'), (repeat('x', 129), 'an id that is too long for any upload')) AS x (id, sentence), LATERAL try_advance_upload(id, 0, 1) r;
SELECT is(r.outcome, 'advanced', 'the owner finds it') FROM try_advance_upload(pg_temp.upload('live'), 40, 1, owner => 'alice') r;
SELECT is(r.outcome, 'advanced', 'and so does a caller who names no owner') FROM try_advance_upload(pg_temp.upload('live'), 40, 1) r;
SELECT throws_ok($$ SELECT advance_upload('chunk-unknown', 0, 1) $$, 'VB001', NULL, 'advance_upload raises for an unknown upload');
SELECT throws_ok($$ SELECT advance_upload(pg_temp.upload('live'), 40, 1, owner => 'bob') $$, 'VB001', NULL,
	'advance_upload raises for the upload of another owner');

--
-- What a program learns from an error
--
SELECT pg_temp.upload('live') AS id \gset
SELECT is(t.detail::jsonb, '{"expected_offset": 40, "provided_offset": 50}', 'the detail of a conflict tells where to go on')
  FROM pg_temp.told(format('SELECT advance_upload(%L, 50, 1)', :'id')) t;
SELECT is(t.detail::jsonb, '{"total_size": 100, "provided_end": 101}', 'the detail of a chunk that is too large tells how much there may be')
  FROM pg_temp.told(format('SELECT advance_upload(%L, 40, 61)', :'id')) t;
SELECT ok(t.message LIKE '%' || :'id' || '%', format('the message names the upload: %s', call))
  FROM unnest(ARRAY['50, 1', '40, 61', '40, 1, true', '40, 1, owner => ''bob''', '-1, 1', '1, NULL', '40, 9223372036854775807', '40, 1, provider_data => ''1''']) AS call,
	LATERAL pg_temp.told(format('SELECT advance_upload(%L, %s)', :'id', call)) t;

--
-- Advanced: what becomes of the row
--
CREATE FUNCTION pg_temp.advanced(state text, chunk_length bigint, final boolean = false, provider_data jsonb = NULL)
RETURNS upload_session LANGUAGE plpgsql AS $$
DECLARE
	my_id text := pg_temp.upload(state);
	row upload_session;
BEGIN
	PERFORM advance_upload(my_id, (SELECT uploaded_bytes FROM upload_session WHERE upload_id = my_id), chunk_length, final, provider_data);
	SELECT * INTO row FROM upload_session WHERE upload_id = my_id;
	RETURN row;
END $$;

SELECT is((s.status, s.uploaded_bytes)::text, '(in_progress,10)', 'the first chunk makes a pending upload in_progress')
  FROM pg_temp.advanced('pending', 10) s;
SELECT is((s.status, s.uploaded_bytes)::text, '(in_progress,0)', '... also an empty one') FROM pg_temp.advanced('pending', 0) s;
SELECT is((s.status, s.uploaded_bytes)::text, '(in_progress,100)', 'the last byte does not complete an upload') FROM pg_temp.advanced('live', 60) s;
SELECT is((s.status, s.uploaded_bytes, s.total_size)::text, '(complete,100,100)', 'final completes it') FROM pg_temp.advanced('live', 60, true) s;
SELECT is((s.status, s.uploaded_bytes, s.total_size)::text, '(complete,47,47)', 'final sets a deferred total_size') FROM pg_temp.advanced('deferred', 7, true) s;
SELECT is((s.status, s.uploaded_bytes, s.total_size)::text, '(in_progress,47,)', 'no other chunk does') FROM pg_temp.advanced('deferred', 7) s;
SELECT is(s.result, NULL, 'an upload completed by final has no result') FROM pg_temp.advanced('live', 60, true) s;
SELECT ok(s.updated_at > now() AND s.updated_at <= clock_timestamp(), 'updated_at is the wall clock, not the start of the transaction')
  FROM pg_temp.advanced('live', 1) s;
SELECT is(s.provider_data, '{"multipart": "m"}', 'provider_data stays where none is given') FROM pg_temp.advanced('live', 1) s;
SELECT is(s.provider_data, '{"multipart": "m", "part": {"a": 1}}', 'provider_data is merged')
  FROM pg_temp.advanced('live', 1, false, '{"part": {"a": 1}}') s;
SELECT is(s.provider_data, '{"part": 2}', '... a null removes its key') FROM pg_temp.advanced('live', 1, false, '{"multipart": null, "part": 2}') s;
SELECT is(s.provider_data, '{"multipart": "m", "part": 2}', '... with a final chunk as well')
  FROM pg_temp.advanced('live', 60, true, '{"part": 2}') s;
CREATE FUNCTION pg_temp.data_after(state text, chunk_offset bigint, chunk_length bigint) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	my_id text := pg_temp.upload(state);
BEGIN
	PERFORM try_advance_upload(my_id, chunk_offset, chunk_length, provider_data => '{"late": 1}');
	RETURN (SELECT s.provider_data FROM upload_session s WHERE upload_id = my_id);
END $$;
SELECT is(pg_temp.data_after(state, chunk_offset, chunk_length), '{"multipart": "m"}', format('... but not with one that is %s', outcome))
  FROM (VALUES ('live', 0, 40, 'replayed'), ('live', 50, 1, 'a conflict'), ('live', 40, 61, 'too large'), ('overdue', 40, 1, 'expired')
	) AS x (state, chunk_offset, chunk_length, outcome);
SELECT is((r.outcome, r.uploaded_bytes)::text, '(advanced,44)', 'arguments by position: advance_upload')
  FROM advance_upload(pg_temp.upload('live'), 40, 4, false, '{"part": 1}', 'alice', true) r;
SELECT is((r.outcome, r.status)::text, '(advanced,complete)', 'arguments by position: try_advance_upload')
  FROM try_advance_upload(pg_temp.upload('live'), 40, 60, true, '{"part": 1}', 'alice', true) r;

--
-- Several chunks of one upload
--
SELECT pg_temp.upload('live') AS id \gset
SELECT pg_stat_get_xact_tuples_updated('upload_session'::regclass) AS before \gset
SELECT results_eq(
	format('SELECT o, outcome::text, uploaded_bytes FROM unnest(ARRAY[40, 50, 60, 50, 80, 70]::bigint[]) AS o, LATERAL try_advance_upload(%L, o, 10)', :'id'),
	$$ VALUES (40::bigint, 'advanced', 50::bigint), (50, 'advanced', 60), (60, 'advanced', 70), (50, 'replayed', 70), (80, 'conflict', 70), (70, 'advanced', 80) $$,
	'each chunk of a statement is judged on what the one before it left');
SELECT is(pg_stat_get_xact_tuples_updated('upload_session'::regclass) - :before, 4::bigint, '... and those that advance write one row version each, the others none');

--
-- What an administrator adds to the table counts
--
SELECT pg_temp.upload('live') AS id \gset
ALTER TABLE upload_session ADD CONSTRAINT no_57 CHECK (uploaded_bytes <> 57);
SELECT throws_ok(format('SELECT advance_upload(%L, 40, 17)', :'id'), '23514', NULL, 'a chunk that breaks a CHECK is refused');
SELECT throws_ok(format('SELECT advance_uploads(ARRAY[%L], ARRAY[40], ARRAY[17])', :'id'), '23514', NULL, '... among many as well');
SELECT is(r.outcome, 'advanced', '... one that keeps it is not') FROM try_advance_upload(:'id', 40, 10) r;
ALTER TABLE upload_session DROP CONSTRAINT no_57;

--
-- Bad arguments raise, also from try_advance_upload, and change nothing
--
SELECT (start_upload('test/bad', 9223372036854775807)).upload_id AS id \gset
SELECT throws_ok(format('SELECT %s(%s)', name, replace(arguments, 'id', quote_literal(:'id'))), code, NULL, format('%s: %s', name, sentence))
  FROM unnest(ARRAY['advance_upload', 'try_advance_upload']) AS name,
	(VALUES
		('NULL, 0, 1', '22004', 'a null upload_id'),
		('id, NULL, 1', '22004', 'a null offset'),
		('id, 0, NULL', '22004', 'a null length'),
		('id, -1, 1', '22023', 'a negative offset'),
		('id, 0, -1', '22023', 'a negative length'),
		('id, 1, -1', '22023', '... also one that leads back to 0'),
		('id, ''-9223372036854775808'', ''-9223372036854775808''', '22023', 'the most negative numbers'),
		('id, 1, 9223372036854775807', '22003', 'an end beyond bigint'),
		('id, 9223372036854775807, 1', '22003', '... by a byte'),
		('id, 9223372036854775807, 9223372036854775807', '22003', '... by as much as can be'),
		('id, 0, 1, false, ''[]''', '22023', 'provider_data that is no object'),
		('id, 0, 1, false, ''null''', '22023', 'provider_data that is a JSON null')
	) AS x (arguments, code, sentence);
SELECT is((s.status, s.uploaded_bytes)::text, '(pending,0)', 'bad arguments change nothing') FROM get_upload(:'id') s;
SELECT is((r.outcome, r.uploaded_bytes, r.ready)::text, '(advanced,9223372036854775807,t)', 'an upload may have as many bytes as bigint can count')
  FROM try_advance_upload(:'id', 0, 9223372036854775807) r;
SELECT throws_ok(format('SELECT advance_upload(%L, 9223372036854775807, 1)', :'id'), '22003', NULL, '... and not one more');
SELECT is((r.outcome, r.status)::text, '(advanced,complete)', '... and is completed by an empty final chunk')
  FROM try_advance_upload(:'id', 9223372036854775807, 0, final => true) r;

--
-- Many chunks in one call
--
-- The lines of the table once more; a sweep expires what is overdue, so it comes first.
CREATE TEMPORARY TABLE many AS
	SELECT row_number() OVER (ORDER BY n) AS position, pg_temp.upload(state) AS id, l.*
	  FROM (SELECT * FROM line WHERE NOT final ORDER BY state <> 'expired' OFFSET 0) l;
SELECT is(format('%s, %s bytes, ready %s', r.outcome, r.uploaded_bytes, r.ready), format('%s, %s bytes, ready %s', l.outcome, l.bytes, l.ready),
		format('advance_uploads: %s: %s', l.outcome, l.sentence))
  FROM (SELECT array_agg(id ORDER BY position) AS ids, array_agg(chunk_offset ORDER BY position) AS offsets, array_agg(chunk_length ORDER BY position) AS lengths FROM many) a,
	LATERAL advance_uploads(ids, offsets, lengths) WITH ORDINALITY r, many l
 WHERE l.position = r.ordinality
 ORDER BY l.position;

SELECT results_eq(
	$$ SELECT ordinality, outcome::text, uploaded_bytes
	     FROM (SELECT ARRAY[pg_temp.upload('live'), pg_temp.upload('aborted'), pg_temp.upload('complete')] AS id OFFSET 0) u,
	          advance_uploads(id || ARRAY['chunk-unknown'] || id, ARRAY[40, 40, 0, 0, 50, 0, 100], ARRAY[10, 10, 100, 1, 10, 40, 1])
	          WITH ORDINALITY $$,
	$$ VALUES (1::bigint, 'advanced', 50::bigint), (2, 'ended', 40), (3, 'replayed', 100), (4, 'not_found', NULL),
	          (5, 'advanced', 60), (6, 'ended', 40), (7, 'ended', 100) $$,
	'advance_uploads answers in argument order, and judges each chunk on what the one before it left');
SELECT is((r.outcome, r.uploaded_bytes, r.total_size, r.status, r.ready, r.expires_at)::text, '(not_found,,,,f,)', 'advance_uploads tells nothing of an unknown upload')
  FROM advance_uploads(chunk_lengths => ARRAY[1], chunk_offsets => ARRAY[0], upload_ids => ARRAY['chunk-unknown']) r;
-- 500 uploads, the last one first; the lengths are 0 to 11 of at most 10
SELECT is((count(*), bool_and(r.uploaded_bytes = CASE lengths[r.ordinality] WHEN 11 THEN 0 ELSE lengths[r.ordinality] END),
		count(*) FILTER (WHERE r.outcome = 'advanced'), count(*) FILTER (WHERE r.outcome = 'too_large'))::text,
		'(500,t,459,41)', 'advance_uploads answers in argument order, however many there are')
  FROM (SELECT array_agg((start_upload('test/many', 10, upload_id => 'chunk-many-' || i)).upload_id::text ORDER BY i DESC) AS ids,
	       array_agg(0::bigint) AS offsets, array_agg(i % 12 ORDER BY i DESC) AS lengths FROM generate_series(1::bigint, 500) AS i) a,
	LATERAL advance_uploads(ids, offsets, lengths) WITH ORDINALITY r;
SELECT pg_temp.upload('live') AS id \gset
SELECT pg_stat_get_xact_tuples_updated('upload_session'::regclass) AS before \gset
SELECT is((count(*) FILTER (WHERE r.outcome = 'advanced'), max(r.uploaded_bytes))::text, '(3,70)', 'advance_uploads takes three chunks of one upload')
  FROM advance_uploads(array_fill(:'id'::text, ARRAY[4]), ARRAY[40, 50, 99, 60], ARRAY[10, 10, 1, 10]) r;
SELECT is(pg_stat_get_xact_tuples_updated('upload_session'::regclass) - :before,
	CASE current_setting('vali_blob.row_access') WHEN 'sql' THEN 3::bigint ELSE 1 END, '... and the fast path writes one row version for all of them');
SELECT is_empty($$ SELECT advance_uploads('{}', '{}', '{}') $$, 'no chunks, no answers');
SELECT throws_ok(format('SELECT advance_uploads(%s)', arguments), code, NULL, 'advance_uploads: ' || sentence)
  FROM (VALUES
		('ARRAY[''a''], ARRAY[0, 1], ARRAY[1, 1]', '22023', 'arrays of different lengths'),
		('ARRAY[''a''], ARRAY[0], ARRAY[1, 1]', '22023', '... the last one alone'),
		('ARRAY[''a'', ''b''], ARRAY[0], ARRAY[1, 1]', '22023', '... the one in the middle'),
		('ARRAY[''a''], ''{}'', ''{}''', '22023', '... empty ones'),
		('ARRAY[[''a''], [''b'']], ARRAY[0, 0], ARRAY[1, 1]', '22023', 'an array of two dimensions'),
		('NULL, ARRAY[0], ARRAY[1]', '22004', 'a null array of ids'),
		('ARRAY[''a''], NULL, ARRAY[1]', '22004', 'a null array of offsets'),
		('ARRAY[''a''], ARRAY[0], NULL', '22004', 'a null array of lengths'),
		('ARRAY[''a'', NULL], ARRAY[0, 0], ARRAY[1, 1]', '22004', 'a null id, in any place'),
		('ARRAY[''a'', ''b''], ARRAY[0, NULL], ARRAY[1, 1]', '22004', 'a null offset'),
		('ARRAY[''a'', ''b''], ARRAY[0, 0], ARRAY[1, NULL]', '22004', 'a null length'),
		('ARRAY[''a'', ''b''], ARRAY[0, -1], ARRAY[1, 1]', '22023', 'a negative offset'),
		('ARRAY[''a'', ''b''], ARRAY[0, 0], ARRAY[1, -1]', '22023', 'a negative length'),
		('ARRAY[''a'', ''b''], ARRAY[0, 9223372036854775807], ARRAY[1, 1]', '22003', 'an end beyond bigint')
	) AS x (arguments, code, sentence);

SELECT * FROM finish();
ROLLBACK;
