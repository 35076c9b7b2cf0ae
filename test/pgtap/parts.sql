-- Chunks in any order, and the parts that they leave: the table of outcomes line
-- by line, what is listed, what is missing.
BEGIN;
\ir lib/uploads.sql
SELECT no_plan();

-- An upload of 100 bytes that takes chunks in any order, in the given state:
--     new          no part
--     scattered    [10, 20) with number 1, etag "a", checksum 01; [40, 60) without any
--     full         the same, and the three parts between
--     complete     completed
--     aborted, overdue   as scattered
--     open         as scattered, of unknown length
--     limited      as open, with a size_limit of 100
--     ordered      not in any order: [0, 10) with etag "a", [10, 40) without any
CREATE FUNCTION pg_temp.parts(state text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	size bigint := CASE WHEN state IN ('open', 'limited') THEN NULL ELSE 100 END;
	new_id text := (start_upload('test/' || state, size, owner => 'alice', any_order => state <> 'ordered',
		size_limit => CASE WHEN state = 'limited' THEN 100 END)).upload_id;
BEGIN
	IF state = 'ordered' THEN
		PERFORM advance_upload(new_id, 0, 10, etag => 'a'), advance_upload(new_id, 10, 30);
	ELSIF state <> 'new' THEN
		PERFORM advance_upload(new_id, 40, 20),
			advance_upload(new_id, 10, 10, part_number => 1, etag => 'a', checksum => '\x01');
	END IF;
	IF state IN ('full', 'complete') THEN
		PERFORM advance_upload(new_id, 60, 40), advance_upload(new_id, 0, 10), advance_upload(new_id, 20, 20);
	END IF;
	CASE state
		WHEN 'complete' THEN PERFORM complete_upload(new_id);
		WHEN 'aborted' THEN PERFORM abort_upload(new_id);
		WHEN 'overdue' THEN UPDATE upload_session SET expires_at = now() - interval '1 second' WHERE upload_id = new_id;
		ELSE NULL;
	END CASE;
	RETURN new_id;
END $$;

-- The parts of an upload, and what is missing of it, as texts.
CREATE FUNCTION pg_temp.listed(id text) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(string_agg(format('%s+%s%s%s%s', chunk_offset, chunk_length, ' #' || part_number, ' ' || etag, ' ' || checksum::text), ', ' ORDER BY n), 'none')
	  FROM list_parts(id) WITH ORDINALITY AS p (chunk_offset, chunk_length, confirmed_at, part_number, upload_id, etag, checksum, n)
$$;
CREATE FUNCTION pg_temp.missing(id text) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(string_agg(format('%s+%s', chunk_offset, coalesce(chunk_length::text, '?')), ', ' ORDER BY n), 'none')
	  FROM missing_ranges(id) WITH ORDINALITY AS m (chunk_offset, chunk_length, n)
$$;

-- What a chunk does.  A row is unchanged if nobody has written a new version.
CREATE FUNCTION pg_temp.try_chunk(state text, args text, OUT outcome text, OUT raised text, OUT bytes bigint, OUT status text,
	OUT ready boolean, OUT parts text, OUT unchanged boolean)
LANGUAGE plpgsql AS $$
DECLARE
	my_id text := pg_temp.parts(state);
	version tid := (SELECT ctid FROM upload_session WHERE upload_id = my_id);
	result chunk_result;
BEGIN
	EXECUTE format('SELECT * FROM try_advance_upload(%L, %s)', my_id, args) INTO result;
	outcome := result.outcome;
	bytes := result.uploaded_bytes;
	status := result.status;
	ready := result.ready;
	parts := pg_temp.listed(my_id);
	unchanged := version = (SELECT ctid FROM upload_session WHERE upload_id = my_id);
	raised := pg_temp.raised(format('SELECT advance_upload(%L, %s)', pg_temp.parts(state), args));
END $$;

CREATE TEMPORARY TABLE line (n serial, state text, args text, outcome text, raised text, bytes bigint, status text, parts text, sentence text);
INSERT INTO line (state, args, outcome, raised, bytes, status, parts, sentence) VALUES
	-- touches no confirmed part
	('new', '50, 10', 'advanced', NULL, 10, 'in_progress', '50+10', 'the first chunk may be any'),
	('scattered', '20, 20', 'advanced', NULL, 50, 'in_progress', '10+10 #1 a \x01, 20+20, 40+20', 'a chunk between two parts fills the gap'),
	('scattered', '0, 10', 'advanced', NULL, 40, 'in_progress', '0+10, 10+10 #1 a \x01, 40+20', '... also at the beginning'),
	('scattered', '60, 40, etag => ''z''', 'advanced', NULL, 70, 'in_progress', '10+10 #1 a \x01, 40+20, 60+40 z', '... also at the end'),
	('scattered', '90, 10, part_number => 10, etag => ''z'', checksum => ''\x02''', 'advanced', NULL, 40, 'in_progress', '10+10 #1 a \x01, 40+20, 90+10 #10 z \x02', 'a part keeps what the chunk brings'),
	('open', '1000, 1', 'advanced', NULL, 31, 'in_progress', '10+10 #1 a \x01, 40+20, 1000+1', 'no chunk is too large while the length is deferred'),
	('open', '9223372036854775806, 1', 'advanced', NULL, 31, 'in_progress', '10+10 #1 a \x01, 40+20, 9223372036854775806+1', '... up to where bigint ends'),
	('limited', '60, 40', 'advanced', NULL, 70, 'in_progress', '10+10 #1 a \x01, 40+20, 60+40', 'a chunk may end at the size limit'),
	-- length 0
	('scattered', '15, 0', 'advanced', NULL, 30, 'in_progress', '10+10 #1 a \x01, 40+20', 'an empty chunk advances by nothing, wherever it is'),
	('scattered', '100, 0', 'advanced', NULL, 30, 'in_progress', '10+10 #1 a \x01, 40+20', '... also at the end'),
	('scattered', '15, 0, part_number => 7, etag => ''z''', 'advanced', NULL, 30, 'in_progress', '10+10 #1 a \x01, 40+20', '... and leaves no part'),
	-- is exactly a part
	('scattered', '40, 20', 'replayed', NULL, 30, 'in_progress', '10+10 #1 a \x01, 40+20', 'a chunk that is exactly a part is replayed'),
	('scattered', '10, 10', 'replayed', NULL, 30, 'in_progress', '10+10 #1 a \x01, 40+20', '... also if it does not repeat what it has brought'),
	('scattered', '10, 10, etag => ''a''', 'replayed', NULL, 30, 'in_progress', '10+10 #1 a \x01, 40+20', '... or repeats some of it'),
	('scattered', '10, 10, part_number => 1, etag => ''a'', checksum => ''\x01''', 'replayed', NULL, 30, 'in_progress', '10+10 #1 a \x01, 40+20', '... or all'),
	('scattered', '10, 10, part_number => 5, etag => ''a''', 'replayed', NULL, 30, 'in_progress', '10+10 #1 a \x01, 40+20', '... and another number is not looked at'),
	('scattered', '10, 10, etag => ''b''', 'replaced', NULL, 30, 'in_progress', '10+10 #1 b, 40+20', 'with another etag it replaces the part, whose checksum is no longer known'),
	('scattered', '10, 10, checksum => ''\x02''', 'replaced', NULL, 30, 'in_progress', '10+10 #1 \x02, 40+20', '... and so it does with another checksum'),
	('scattered', '10, 10, etag => ''a'', checksum => ''\x02''', 'replaced', NULL, 30, 'in_progress', '10+10 #1 a \x02, 40+20', '... even if the etag is the same'),
	('scattered', '10, 10, part_number => 3, etag => ''b''', 'replaced', NULL, 30, 'in_progress', '10+10 #3 b, 40+20', '... and takes a new number'),
	('scattered', '40, 20, etag => ''b''', 'replaced', NULL, 30, 'in_progress', '10+10 #1 a \x01, 40+20 b', 'an etag is another one also where there was none'),
	('open', '40, 20, true, etag => ''b''', 'replaced', NULL, 30, 'in_progress', '10+10 #1 a \x01, 40+20 b', 'a final chunk that replaces the last part says where the file ends'),
	('open', '40, 20, true', 'replayed', NULL, 30, 'in_progress', '10+10 #1 a \x01, 40+20', '... but one that is replayed changes nothing'),
	('full', '60, 40, true, etag => ''b''', 'replaced', NULL, 100, 'complete', '0+10, 10+10 #1 a \x01, 20+20, 40+20, 60+40 b', '... and completes the upload if nothing is missing'),
	('full', '10, 10, etag => ''b''', 'replaced', NULL, 100, 'in_progress', '0+10, 10+10 #1 b, 20+20, 40+20, 60+40', 'a part of a full upload may be replaced'),
	-- a partial overlap
	('scattered', '5, 10', 'conflict', 'VB002', 30, 'in_progress', '10+10 #1 a \x01, 40+20', 'a chunk that ends in a part is a conflict'),
	('scattered', '15, 10', 'conflict', 'VB002', 30, 'in_progress', '10+10 #1 a \x01, 40+20', '... and one that begins there'),
	('scattered', '12, 3', 'conflict', 'VB002', 30, 'in_progress', '10+10 #1 a \x01, 40+20', '... and one that lies inside'),
	('scattered', '5, 20', 'conflict', 'VB002', 30, 'in_progress', '10+10 #1 a \x01, 40+20', '... and one that contains it'),
	('scattered', '0, 100', 'conflict', 'VB002', 30, 'in_progress', '10+10 #1 a \x01, 40+20', '... or several'),
	('scattered', '10, 9', 'conflict', 'VB002', 30, 'in_progress', '10+10 #1 a \x01, 40+20', '... or begins with it, but is shorter'),
	('scattered', '10, 11', 'conflict', 'VB002', 30, 'in_progress', '10+10 #1 a \x01, 40+20', '... or longer'),
	('full', '0, 100', 'conflict', 'VB002', 100, 'in_progress', '0+10, 10+10 #1 a \x01, 20+20, 40+20, 60+40', '... also once all bytes are there'),
	-- too large
	('scattered', '60, 41', 'too_large', 'VB005', 30, 'in_progress', '10+10 #1 a \x01, 40+20', 'a chunk that ends beyond total_size is too large'),
	('scattered', '101, 0', 'too_large', 'VB005', 30, 'in_progress', '10+10 #1 a \x01, 40+20', '... an empty one, too'),
	('scattered', '50, 51', 'too_large', 'VB005', 30, 'in_progress', '10+10 #1 a \x01, 40+20', '... before it is a conflict'),
	('limited', '60, 41', 'too_large', 'VB005', 30, 'in_progress', '10+10 #1 a \x01, 40+20', 'a chunk that ends beyond the size limit is too large'),
	('open', '20, 10, true', 'too_large', 'VB005', 30, 'in_progress', '10+10 #1 a \x01, 40+20', 'a final chunk before a part cannot be the last one'),
	('open', '40, 0, true', 'too_large', 'VB005', 30, 'in_progress', '10+10 #1 a \x01, 40+20', '... nor can an empty one'),
	-- final
	('scattered', '60, 40, true', 'advanced', NULL, 70, 'in_progress', '10+10 #1 a \x01, 40+20, 60+40', 'a final chunk does not complete an upload with gaps'),
	('scattered', '20, 10, true', 'too_large', 'VB005', 30, 'in_progress', '10+10 #1 a \x01, 40+20', '... also if the size is known'),
	('scattered', '60, 10, true', 'incomplete', 'VB006', 30, 'in_progress', '10+10 #1 a \x01, 40+20', 'a final chunk that ends before total_size is incomplete'),
	('open', '60, 40, true', 'advanced', NULL, 70, 'in_progress', '10+10 #1 a \x01, 40+20, 60+40', 'a final chunk says where the file ends'),
	('open', '60, 0, true', 'advanced', NULL, 30, 'in_progress', '10+10 #1 a \x01, 40+20', '... also an empty one'),
	('new', '0, 100, true', 'advanced', NULL, 100, 'complete', '0+100', 'a final chunk completes an upload if nothing is missing'),
	('full', '100, 0, true', 'advanced', NULL, 100, 'complete', '0+10, 10+10 #1 a \x01, 20+20, 40+20, 60+40', '... also an empty one'),
	-- ended
	('complete', '10, 10, true', 'replayed', NULL, 100, 'complete', '0+10, 10+10 #1 a \x01, 20+20, 40+20, 60+40', 'every chunk of a complete upload is replayed'),
	('complete', '5, 50', 'replayed', NULL, 100, 'complete', '0+10, 10+10 #1 a \x01, 20+20, 40+20, 60+40', '... whatever parts it lies in'),
	('complete', '10, 10, etag => ''b''', 'replayed', NULL, 100, 'complete', '0+10, 10+10 #1 a \x01, 20+20, 40+20, 60+40', '... and replaces nothing'),
	('complete', '90, 11', 'ended', 'VB003', 100, 'complete', '0+10, 10+10 #1 a \x01, 20+20, 40+20, 60+40', 'but not one that ends beyond it'),
	('aborted', '40, 20', 'ended', 'VB003', 30, 'aborted', '10+10 #1 a \x01, 40+20', 'an aborted upload takes no chunk'),
	('overdue', '40, 20', 'expired', 'VB004', 30, 'expired', '10+10 #1 a \x01, 40+20', 'nor does one past its deadline'),
	-- in order
	('ordered', '40, 10, part_number => 5', 'advanced', NULL, 50, 'in_progress', '0+10 a, 40+10 #5', 'a chunk in order leaves a part if it brings a number'),
	('ordered', '40, 10, checksum => ''\x05''', 'advanced', NULL, 50, 'in_progress', '0+10 a, 40+10 \x05', '... or a checksum'),
	('ordered', '40, 10', 'advanced', NULL, 50, 'in_progress', '0+10 a', '... and none otherwise'),
	('ordered', '40, 60, true, etag => ''z''', 'advanced', NULL, 100, 'complete', '0+10 a, 40+60 z', 'a final one does, too'),
	('ordered', '0, 10', 'replayed', NULL, 40, 'in_progress', '0+10 a', 'what is confirmed is replayed'),
	('ordered', '0, 10, etag => ''a''', 'replayed', NULL, 40, 'in_progress', '0+10 a', '... with the same etag'),
	('ordered', '0, 10, etag => ''b''', 'replaced', NULL, 40, 'in_progress', '0+10 b', '... and replaced with another one'),
	('ordered', '0, 10, true, etag => ''b''', 'replaced', NULL, 40, 'in_progress', '0+10 b', '... and final is not looked at'),
	('ordered', '10, 30, etag => ''b''', 'replayed', NULL, 40, 'in_progress', '0+10 a', '... but not where no part is'),
	('ordered', '0, 9, etag => ''b''', 'replayed', NULL, 40, 'in_progress', '0+10 a', '... nor if it is not exactly that part'),
	('ordered', '5, 5, etag => ''b''', 'replayed', NULL, 40, 'in_progress', '0+10 a', '... nor if it only ends there'),
	('ordered', '50, 10, etag => ''b''', 'conflict', 'VB002', 40, 'in_progress', '0+10 a', 'a gap is a conflict');

SELECT is(format('%s, raises %s, %s bytes, %s, ready %s, parts %s, row unchanged %s', r.outcome, r.raised, r.bytes, r.status, r.ready, r.parts, r.unchanged),
		format('%s, raises %s, %s bytes, %s, ready %s, parts %s, row unchanged %s', l.outcome, l.raised, l.bytes, l.status,
			l.status = 'in_progress' AND l.bytes = 100, l.parts, l.outcome NOT IN ('advanced', 'replaced')),
		format('%s, %s: %s', l.state, l.outcome, l.sentence))
  FROM line l, LATERAL pg_temp.try_chunk(l.state, l.args) r
 ORDER BY n;

--
-- Replaced
--
SELECT pg_temp.parts('scattered') AS id \gset
UPDATE upload_session SET updated_at = now() - interval '1 hour', expires_at = now() + interval '1 hour' WHERE upload_id = :'id';
UPDATE upload_part SET confirmed_at = now() - interval '1 hour' WHERE upload_id = :'id';
SELECT is(outcome::text, 'replaced') FROM try_advance_upload(:'id', 10, 10, etag => 'b', provider_data => '{"key": 1}');
SELECT ok(updated_at > now() - interval '1 minute' AND expires_at > now() + interval '47 hours', 'a chunk that replaces a part slides the deadline')
  FROM upload_session WHERE upload_id = :'id';
SELECT is(provider_data, '{"key": 1}', '... and merges provider_data') FROM upload_session WHERE upload_id = :'id';
SELECT is(confirmed_at > now() - interval '1 minute', chunk_offset = 10, '... and is confirmed now; the other part was then')
  FROM list_parts(:'id');

--
-- What a program learns from an error
--
SELECT is((t.code, t.detail::jsonb)::text, (x.code, x.detail::jsonb)::text, x.sentence)
  FROM (VALUES
		('scattered', 'advance_upload(%L, 15, 10)', 'VB002',
			'{"provided_offset": 15, "provided_end": 25, "confirmed_offset": 10, "confirmed_end": 20}', 'the detail of a conflict tells which part the chunk overlaps'),
		('ordered', 'advance_upload(%L, 50, 10)', 'VB002',
			'{"expected_offset": 40, "provided_offset": 50}', '... of one in order, where to go on'),
		('scattered', 'advance_upload(%L, 90, 11)', 'VB005', '{"total_size": 100, "provided_end": 101}', 'the detail of a chunk that is too large tells how much there may be'),
		('limited', 'advance_upload(%L, 90, 11)', 'VB005', '{"size_limit": 100, "provided_end": 101}', '... or the size limit'),
		('open', 'advance_upload(%L, 20, 10, true)', 'VB005', '{"total_size": 30, "provided_end": 60}', '... or where the last part ends, for a final chunk before it'),
		('open', 'declare_upload_size(%L, 59)', 'VB005', '{"total_size": 59, "provided_end": 60}', '... or for a size that is declared'),
		('limited', 'declare_upload_size(%L, 101)', 'VB009',
			'{"quota": "size_limit", "limit": 100, "used": 0, "requested": 101}', 'the detail of a size beyond the limit names it')
	) AS x (state, call, code, detail, sentence), LATERAL pg_temp.told(format('SELECT ' || x.call, pg_temp.parts(x.state))) t;

--
-- Bad arguments
--
SELECT throws_ok(format('SELECT try_advance_upload(%L, %s)', pg_temp.parts(state), args), code, NULL, sentence)
  FROM (VALUES
		('scattered', '0, 5, part_number => 0', '22023', 'part numbers begin at 1'),
		('scattered', '0, 5, part_number => -1', '22023', '... and are not negative'),
		('scattered', '0, 5, part_number => 1', '23505', 'a part number is used once in an upload'),
		('scattered', '40, 20, part_number => 1, etag => ''z''', '23505', '... also by a part that is replaced'),
		('scattered', '0, 5, etag => repeat(''e'', 1025)', '22001', 'an etag has at most 1024 characters'),
		('scattered', '0, 5, checksum => decode(repeat(''00'', 65), ''hex'')', '22001', 'a checksum has at most 64 bytes'),
		('scattered', '9223372036854775807, 1', '22003', 'a chunk ends within bigint')
	) AS x (state, args, code, sentence);
SELECT is(outcome::text, 'advanced', 'a checksum of 64 bytes fits') FROM try_advance_upload(pg_temp.parts('scattered'), 0, 5, checksum => decode(repeat('00', 64), 'hex'));
SELECT pg_temp.parts('new') AS id \gset
SELECT is(outcome::text, 'advanced', 'an etag of 1024 characters fits') FROM try_advance_upload(:'id', 0, 5, etag => repeat('é', 1024));
SELECT is(outcome::text, 'replayed', '... and is compared as a whole') FROM try_advance_upload(:'id', 0, 5, etag => repeat('é', 1024));
SELECT is(outcome::text, 'replaced', '... to its last character') FROM try_advance_upload(:'id', 0, 5, etag => repeat('é', 1023) || 'x');
SELECT is(outcome::text, 'advanced', 'another upload may use the number') FROM try_advance_upload(pg_temp.parts('new'), 0, 5, part_number => 1);

--
-- Many chunks in one call
--
SELECT results_eq(
	format('SELECT outcome::text, uploaded_bytes FROM advance_uploads(array_fill(%L::text, ARRAY[8]),
			ARRAY[0, 0, 0, 5, 20, 50, 20, 90]::bigint[], ARRAY[10, 10, 10, 10, 20, 10, 20, 11]::bigint[],
			''alice'', ARRAY[4, NULL, NULL, NULL, 5, NULL, NULL, NULL]::integer[], ARRAY[''x'', ''x'', ''y'', NULL, NULL, NULL, ''z'', NULL])', pg_temp.parts('scattered')),
	$$ VALUES ('advanced', 40::bigint), ('replayed', 40), ('replaced', 40), ('conflict', 40), ('advanced', 60), ('conflict', 60), ('replaced', 60), ('too_large', 60) $$,
	'chunks of one upload are judged in the order given');
SELECT results_eq(
	format('SELECT outcome::text, uploaded_bytes FROM advance_uploads(ARRAY[%L, %1$L, %1$L], ''{40,50,60}'', ''{10,10,10}'', etags => ARRAY[NULL, ''x'', NULL])', pg_temp.parts('ordered')),
	$$ VALUES ('advanced', 50::bigint), ('advanced', 60), ('advanced', 70) $$, '... with and without parts');
SELECT is(outcome::text, 'not_found', 'the owner is checked') FROM advance_uploads(ARRAY[pg_temp.parts('scattered')], '{0}', '{1}', 'bob');
SELECT throws_ok(format('SELECT advance_uploads(ARRAY[%L, ''y''], ''{0,0}'', ''{1,1}'', %s)', pg_temp.parts('scattered'), args), code, NULL, sentence)
  FROM (VALUES
		('part_numbers => ''{1}''', '22023', 'part_numbers has one element for each chunk'),
		('etags => ''{}''', '22023', 'etags has one element for each chunk'),
		('checksums => ''{a,b,c}''', '22023', 'checksums has one element for each chunk'),
		('part_numbers => ''{2,0}''', '22023', 'a part number in an array is checked')
	) AS x (args, code, sentence);

--
-- Listing, and what is missing
--
SELECT is(pg_temp.missing(pg_temp.parts(state)), missing, state || ': missing is ' || missing)
  FROM (VALUES ('new', '0+100'), ('scattered', '0+10, 20+20, 60+40'), ('full', 'none'), ('complete', 'none'), ('aborted', 'none'),
		('overdue', 'none'), ('open', '0+10, 20+20, 60+?'), ('ordered', '40+60')) AS x (state, missing);
SELECT is(pg_temp.missing(pg_temp.upload(state)), missing, 'in order, ' || state || ': missing is ' || missing)
  FROM (VALUES ('pending', '0+100'), ('live', '40+60'), ('full', 'none'), ('empty', 'none'), ('deferred', '40+?'), ('complete', 'none')) AS x (state, missing);
SELECT results_eq(format('SELECT chunk_offset FROM missing_ranges(%L, max_rows => 2)', pg_temp.parts('open')), 'VALUES (0::bigint), (20)', 'missing_ranges returns at most max_rows');
SELECT results_eq(format('SELECT chunk_offset FROM list_parts(%L, max_rows => 2)', pg_temp.parts('full')), 'VALUES (0::bigint), (10)', 'list_parts returns a page');
SELECT results_eq(format('SELECT chunk_offset FROM list_parts(%L, max_rows => 2, after_offset => 10)', pg_temp.parts('full')), 'VALUES (20::bigint), (40)', '... and the next one');
SELECT is_empty(format('SELECT * FROM %s(%L, ''bob'')', f, pg_temp.parts('open')), f || ' shows nothing to another owner') FROM unnest(ARRAY['list_parts', 'missing_ranges']) AS f;
SELECT isnt_empty(format('SELECT * FROM %s(%L, ''alice'')', f, pg_temp.parts('open')), f || ' shows it to the owner') FROM unnest(ARRAY['list_parts', 'missing_ranges']) AS f;
SELECT is_empty(format('SELECT * FROM %s(''parts-unknown'')', f), f || ' of an unknown upload is empty') FROM unnest(ARRAY['list_parts', 'missing_ranges']) AS f;
SELECT throws_ok(format('SELECT * FROM %s(%s)', f, args), code, NULL, format('%s(%s) is refused', f, args))
  FROM (VALUES ('list_parts', 'NULL', '22004'), ('list_parts', '''x'', max_rows => 0', '22023'), ('list_parts', '''x'', max_rows => NULL', '22004'),
		('list_parts', '''x'', after_offset => -1', '22023'), ('missing_ranges', 'NULL', '22004'), ('missing_ranges', '''x'', max_rows => 0', '22023')) AS x (f, args, code);

--
-- Declaring the size
--
SELECT is(total_size, 60::bigint, 'a size may be declared where the last part ends') FROM declare_upload_size(pg_temp.parts('open'), 60);
SELECT throws_ok(format('SELECT declare_upload_size(%L, 59)', pg_temp.parts('open')), 'VB005', NULL, '... but not before it, though fewer bytes are confirmed');
SELECT is(total_size, 100::bigint, 'the size limit may be declared') FROM declare_upload_size(pg_temp.parts('limited'), 100);
SELECT throws_ok(format('SELECT declare_upload_size(%L, 101)', pg_temp.parts('limited')), 'VB009', NULL, '... but not more');

--
-- Completing, and what follows
--
SELECT throws_ok(format('SELECT complete_upload(%L)', pg_temp.parts('scattered')), 'VB006', NULL, 'an upload with gaps cannot be completed');
SELECT is(status, 'complete', 'one without gaps can') FROM complete_upload(pg_temp.parts('full'));
SELECT is(pg_temp.listed(pg_temp.parts('complete')), '0+10, 10+10 #1 a \x01, 20+20, 40+20, 60+40', 'its parts stay');
SELECT pg_temp.parts('scattered') AS id \gset
SELECT status FROM abort_upload(:'id') \gset
SELECT is((SELECT parts FROM upload_reclaim WHERE upload_id = :'id'), '[{"offset": 10, "length": 10, "part_number": 1, "etag": "a"}, {"offset": 40, "length": 20, "part_number": null, "etag": null}]',
	'an aborted upload enters the reclaim queue with its parts, though provider_data is empty');
SELECT pg_temp.parts('overdue') AS id \gset
SELECT expired > 0 AS swept FROM sweep_uploads() \gset
SELECT is((SELECT jsonb_array_length(parts) FROM upload_reclaim WHERE upload_id = :'id' AND reason = 'expired'), 2, '... and so does an expired one');
SELECT pg_temp.parts('ordered') AS id \gset
SELECT status FROM abort_upload(:'id') \gset
SELECT is((SELECT jsonb_array_length(parts) FROM upload_reclaim WHERE upload_id = :'id'), 1, '... and one that takes chunks in order');
SELECT pg_temp.parts('new') AS id \gset
SELECT status FROM abort_upload(:'id') \gset
SELECT is_empty(format('SELECT FROM upload_reclaim WHERE upload_id = %L', :'id'), 'one without parts leaves nothing');
SELECT pg_temp.parts('scattered') AS id \gset
SELECT ok(delete_upload(:'id'), 'an upload with parts can be deleted');
SELECT is_empty(format('SELECT FROM upload_part WHERE upload_id = %L', :'id'), '... and its parts go with it');
SELECT is((SELECT jsonb_array_length(parts) FROM upload_reclaim WHERE upload_id = :'id'), 2, '... into the queue');
SELECT pg_temp.parts('complete') AS id \gset
SELECT delete_upload(:'id') AS deleted \gset
SELECT is_empty(format('SELECT FROM upload_reclaim WHERE upload_id = %L', :'id'), 'a complete one is deleted without a trace');
SELECT pg_temp.parts('complete') AS id \gset
SELECT delete_upload(:'id', reclaim_complete => true) AS deleted \gset
SELECT is((SELECT (reason, jsonb_array_length(parts))::text FROM upload_reclaim WHERE upload_id = :'id'), '(complete,5)', '... and queued with reclaim_complete');
SELECT pg_temp.upload('complete') AS id \gset
SELECT delete_upload(:'id', reclaim_complete => true) AS deleted \gset
SELECT is((SELECT (reason, parts)::text FROM upload_reclaim WHERE upload_id = :'id'), '(complete,)', '... also one without parts');

-- A column that was given another type is read as of its own
SELECT pg_temp.parts('scattered') AS id \gset
ALTER TABLE upload_part DROP CONSTRAINT upload_part_check, ALTER etag TYPE integer USING 7, ALTER chunk_length TYPE numeric;
SELECT is((try_advance_upload(:'id', 10, 10, etag => '7')).outcome::text, 'replayed', 'a chunk is compared with a part whose columns have other types');
SELECT results_eq(format('SELECT * FROM missing_ranges(%L)', :'id'), 'VALUES (0::bigint, 10::bigint), (20, 20), (60, 40)', '... and so are the gaps between parts');

SELECT * FROM finish();
ROLLBACK;
