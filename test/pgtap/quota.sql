-- Limits: of one upload's size, and of the live uploads and the promised bytes of
-- an owner; by setting and by upload_quota; what counts, what frees, what is refused.
BEGIN;
\ir lib/uploads.sql
SELECT no_plan();

DELETE FROM upload_session;

-- What upload_live and the live sessions of the owners that are counted do not have
-- in common; null if they are the same.
CREATE FUNCTION pg_temp.difference() RETURNS text LANGUAGE sql AS $$
	WITH
		live AS (
			SELECT s.owner, s.upload_id, coalesce(s.total_size, s.size_limit, 0) AS bytes, s.expires_at
			  FROM upload_session s JOIN upload_quota q USING (owner)
			 WHERE q.counted AND s.status IN ('pending', 'in_progress')),
		recorded AS (
			SELECT l.owner, l.upload_id, l.bytes, l.expires_at
			  FROM upload_live l JOIN upload_quota q USING (owner)
			 WHERE q.counted)
	SELECT string_agg(d, E'\n' ORDER BY d)
	  FROM (SELECT 'live: ' || l::text FROM (TABLE live EXCEPT TABLE recorded) l
			UNION ALL
			SELECT 'recorded: ' || r::text FROM (TABLE recorded EXCEPT TABLE live) r) AS x (d)
$$;
CREATE FUNCTION pg_temp.mirrors(step text) RETURNS text LANGUAGE sql AS $$
	SELECT is(pg_temp.difference(), NULL, step || ': upload_live has the live uploads')
$$;
-- The upload_ids that upload_live has of an owner.
CREATE FUNCTION pg_temp.recorded(whose text) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(string_agg(upload_id, ' ' ORDER BY upload_id), 'none') FROM upload_live WHERE owner = whose
$$;

-- The error that a statement raises, with its hint.
CREATE FUNCTION pg_temp.refusal(statement text, OUT code text, OUT message text, OUT detail text, OUT hint text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
END $$;

-- How many of four uploads of 10 bytes an owner may start, under limits that
-- upload_quota has, unless both are "none", and under a setting, if one is given.
CREATE FUNCTION pg_temp.starts_of_four(owner text, max_live_uploads text, max_live_bytes text, setting text = 'vali_blob.max_live_uploads', value text = '-1') RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
	started integer := 0;
BEGIN
	PERFORM set_config(setting, value, true);
	IF max_live_uploads <> 'none' OR max_live_bytes <> 'none' THEN
		PERFORM set_upload_quota(owner, nullif(nullif(max_live_uploads, 'null'), 'none')::bigint, nullif(nullif(max_live_bytes, 'null'), 'none')::bigint);
	END IF;
	FOR i IN 1 .. 4 LOOP
		IF coalesce(pg_temp.raised(format('SELECT start_upload(''test/quota'', 10, owner => %L)', owner)), 'started') = 'started' THEN
			started := started + 1;
		END IF;
	END LOOP;
	PERFORM set_config(setting, '-1', true);
	RETURN started;
END $$;

--
-- Settings
--
SELECT is(current_setting('vali_blob.' || name), '-1', name || ' is any number at first') FROM unnest(ARRAY['max_upload_size', 'max_live_uploads', 'max_live_bytes']) AS name;
SELECT is(set_config('vali_blob.' || name, value, true), shown, format('%s may be %s', name, value))
  FROM unnest(ARRAY['max_upload_size', 'max_live_bytes']) AS name,
	   (VALUES ('5GB', '5GB'), ('1kB', '1kB'), ('1024', '1kB'), ('1.5kB', '1536B'), ('1000', '1000B'), ('0', '0'), ('8192TB', '8192TB'), ('-1', '-1'), ('-0.4', '-1')) AS x (value, shown);
SELECT is(set_config('vali_blob.max_live_uploads', value, true), value, format('max_live_uploads may be %s', value)) FROM unnest(ARRAY['2147483647', '0', '-1']) AS value;
SELECT throws_ok(format('SET LOCAL vali_blob.%s = %L', name, value), '22023', NULL, format('%s cannot be %s', name, value))
  FROM (VALUES ('max_upload_size', '-2'), ('max_upload_size', '8193TB'), ('max_upload_size', 'many'), ('max_upload_size', '1 day'),
		('max_live_bytes', '-2'), ('max_live_bytes', '8193TB'), ('max_live_uploads', '-2'), ('max_live_uploads', '2147483648'), ('max_live_uploads', '5kB')) AS x (name, value);
SELECT is(set_config('vali_blob.' || name, '-1', true), '-1') FROM unnest(ARRAY['max_upload_size', 'max_live_bytes']) AS name;
SET LOCAL vali_blob.max_upload_size = '5GB';
SELECT is((s.total_size, s.size_limit)::text, '(5368709120,5368709120)', 'a size may reach a setting with a unit') FROM start_upload('test/quota', 5368709120) s;
SELECT throws_ok($$ SELECT start_upload('test/quota', 5368709121) $$, 'VB009', NULL, '... but not exceed it');
SET LOCAL vali_blob.max_upload_size = '1kB';
SELECT lives_ok($$ SELECT start_upload('test/quota', 1024) $$, '1kB are 1024 bytes');
SELECT throws_ok($$ SELECT start_upload('test/quota', 1025) $$, 'VB009', NULL, '... not more');
SET LOCAL vali_blob.max_upload_size = '0.6kB';
SELECT is(s.size_limit, 614::bigint, 'a fraction is rounded to bytes') FROM start_upload('test/quota') s;
SET LOCAL vali_blob.max_upload_size = -1;

--
-- The size of one upload
--
CREATE TEMPORARY TABLE size_case (n serial, argument bigint, quota bigint, setting bigint, least bigint, name text);
INSERT INTO size_case (argument, quota, setting)
	SELECT argument, quota, setting
	  FROM unnest(ARRAY[NULL, 40, 50, 60]::bigint[]) AS argument, unnest(ARRAY[NULL, -1, 45, 60]::bigint[]) AS quota, unnest(ARRAY[-1, 0, 40, 55]::bigint[]) AS setting;
UPDATE size_case SET least = least(argument, nullif(quota, -1), nullif(setting, -1));
UPDATE size_case SET name = CASE WHEN least IN (quota, setting) THEN 'max_upload_size' ELSE 'size_limit' END WHERE least IS NOT NULL;
SELECT set_upload_quota('size ' || n, max_upload_size => quota) AS row FROM size_case WHERE n % 4 > 0 OR quota IS NOT NULL \g /dev/null
CREATE FUNCTION pg_temp.try_size(c size_case, size bigint, OUT size_limit text, OUT refusal text) LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	PERFORM set_config('vali_blob.max_upload_size', c.setting::text, true);
	SELECT coalesce(s.size_limit::text, 'none') INTO size_limit FROM start_upload('test/size', size, owner => 'size ' || c.n, size_limit => c.argument) s;
	PERFORM set_config('vali_blob.max_upload_size', '-1', true);
EXCEPTION WHEN SQLSTATE 'VB009' THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	size_limit := NULL;
	refusal := detail::jsonb->>'quota';
END $$;
SELECT is(format('%s; %s; %s', deferred.size_limit, reached.size_limit, exceeded.refusal), format('%s; %1$s; %s', coalesce(least::text, 'none'), name),
		format('size_limit %s, quota %s, setting %s: %s', coalesce(argument::text, 'null'), coalesce(quota::text, 'null'), setting, coalesce(least::text || ' by ' || name, 'any size')))
  FROM size_case c, LATERAL pg_temp.try_size(c, NULL) deferred, LATERAL pg_temp.try_size(c, coalesce(c.least, 1000)) reached, LATERAL pg_temp.try_size(c, coalesce(c.least, 1000) + 1) exceeded
 ORDER BY n;
SELECT is_empty($$ SELECT FROM upload_live $$, 'an upload whose size alone is limited is not counted');
SELECT set_upload_quota('fixed', max_upload_size => 40) AS row \gset
SELECT start_upload('test/size', owner => 'fixed', upload_id => 'fixed') AS row \gset
SELECT set_upload_quota('fixed', max_upload_size => 10) AS row \gset
SELECT is(outcome, 'advanced', 'the limit is fixed at the start: a lower one does not hold for a chunk') FROM try_advance_upload('fixed', 0, 40);
SELECT set_upload_quota('fixed') AS row \gset
SELECT is(outcome, 'too_large', '... nor does a higher one') FROM try_advance_upload('fixed', 40, 1);
SELECT throws_ok($$ SELECT advance_upload('fixed', 40, 1) $$, 'VB005', NULL, '... which is VB005');
SELECT lives_ok($$ SELECT declare_upload_size('fixed', 40) $$, '... and a size that is declared may reach it');
SELECT start_upload('test/size', upload_id => 'unlimited') AS row \gset
SET LOCAL vali_blob.max_upload_size = 20;
SELECT is((pg_temp.told($$ SELECT declare_upload_size('unlimited', 21) $$)).detail, '{"quota": "max_upload_size", "limit": 20, "used": 0, "requested": 21}',
	'... but it holds for a size that is declared, if the upload has none');
SELECT is(s.total_size, 20::bigint, '... which may reach it') FROM declare_upload_size('unlimited', 20) s;
SELECT is(s.size_limit, 20::bigint, 'it holds for an upload without an owner') FROM start_upload('test/size') s;
SELECT throws_ok($$ SELECT start_upload('test/size', 21) $$, 'VB009', NULL, '... whose size is refused as well');
SET LOCAL vali_blob.max_upload_size = -1;

--
-- The live limits of an owner
--
-- A row's limit holds in place of the setting, whichever is greater.
SELECT is(pg_temp.starts_of_four(format('uploads %s %s', quota, setting), quota, 'none', 'vali_blob.max_live_uploads', setting), least(coalesce(nullif(holds, -1), 4), 4),
		format('max_live_uploads is %s in upload_quota, %s by setting: %s hold', quota, setting, CASE holds WHEN -1 THEN 'any number' ELSE holds::text END))
  FROM unnest(ARRAY['none', 'null', '-1', '0', '1', '3', '100']) AS quota, unnest(ARRAY['-1', '0', '2']) AS setting,
	   LATERAL (SELECT coalesce(nullif(nullif(quota, 'null'), 'none'), setting)::integer) AS h (holds);
SELECT pg_temp.mirrors('limits of uploads');
SELECT is(pg_temp.starts_of_four(format('bytes %s %s', quota, setting), 'none', quota, 'vali_blob.max_live_bytes', setting), least(coalesce(nullif(holds, -1) / 10, 4), 4),
		format('max_live_bytes is %s in upload_quota, %s by setting: %s hold', quota, setting, CASE holds WHEN -1 THEN 'any number' ELSE holds::text END))
  FROM unnest(ARRAY['none', 'null', '-1', '0', '9', '10', '39', '1000']) AS quota, unnest(ARRAY['-1', '0', '25']) AS setting,
	   LATERAL (SELECT coalesce(nullif(nullif(quota, 'null'), 'none'), setting)::integer) AS h (holds);
SELECT pg_temp.mirrors('limits of bytes');
SELECT is(pg_temp.starts_of_four(format('both %s %s', uploads, bytes), uploads, bytes), least(uploads::integer, bytes::integer / 10), format('of %s uploads and %s bytes, the lesser holds', uploads, bytes))
  FROM unnest(ARRAY['1', '2', '3']) AS uploads, unnest(ARRAY['15', '25', '35']) AS bytes;
SELECT pg_temp.mirrors('both limits');
SELECT is_empty($$ SELECT FROM upload_live l WHERE NOT EXISTS (SELECT FROM upload_quota q WHERE q.owner = l.owner AND counted) $$, 'only owners with limits are counted');
SELECT is_empty($$ SELECT FROM upload_quota WHERE owner IN ('uploads none -1', 'bytes none -1') $$, 'an owner whom nothing limits has no row');
SELECT is((max_live_uploads, max_live_bytes, max_upload_size, counted)::text, '(,,,t)', 'one whom a setting limits has a row') FROM upload_quota WHERE owner = 'uploads none 2';
-- By owner
SET LOCAL vali_blob.max_live_uploads = 0;
SET LOCAL vali_blob.max_live_bytes = 0;
SELECT is(count(start_upload('test/quota', 10)), 3::bigint, 'uploads without an owner have no such limits') FROM generate_series(1, 3);
SELECT lives_ok($$ SELECT start_upload('test/quota') $$, '... nor must they have a size');
SELECT throws_ok($$ SELECT start_upload('test/quota', 10, owner => '') $$, 'VB009', NULL, 'an empty text is an owner');
SET LOCAL vali_blob.max_live_bytes = -1;
SET LOCAL vali_blob.max_live_uploads = 1;
SELECT lives_ok(format('SELECT start_upload(''test/quota'', owner => %L)', owner), format('%L has its own limit', owner)) FROM unnest(ARRAY['anna', 'Anna', 'anna ', 'ann', 'é', '', repeat('o', 5000)]) AS owner;
SELECT throws_ok(format('SELECT start_upload(''test/quota'', owner => %L)', owner), 'VB009', NULL, format('... which it has reached: %L', left(owner, 10))) FROM unnest(ARRAY['anna', 'Anna', 'anna ', 'ann', 'é', '', repeat('o', 5000)]) AS owner;
SET LOCAL vali_blob.max_live_uploads = -1;
SELECT pg_temp.mirrors('owners that differ by their bytes');
-- Many starts in one statement
SELECT set_upload_quota('many', 3, 35) AS row \gset
SELECT throws_ok($$ SELECT start_upload('test/quota', 1, owner => 'many') FROM generate_series(1, 4) $$, 'VB009', NULL, 'a start counts what its own statement has started');
SELECT throws_ok($$ SELECT start_upload('test/quota', 12, owner => 'many') FROM generate_series(1, 3) $$, 'VB009', NULL, '... and its bytes');
SELECT is(count(start_upload('test/quota', 10, owner => 'many')), 3::bigint, '... which may reach the limit') FROM generate_series(1, 3);
SELECT pg_temp.mirrors('many starts in one statement');

--
-- What a program learns
--
SELECT set_upload_quota('full', 2, 100) AS row \gset
SELECT start_upload('test/quota', 60, owner => 'full', upload_id => 'full 1') AS row \gset
SELECT set_upload_quota('fuller', 1) AS row \gset
SELECT start_upload('test/quota', owner => 'fuller', upload_id => 'fuller 1') AS row \gset
SELECT set_upload_quota('nothing', 0) AS row, set_upload_quota('no bytes', -1, 0) AS row2, set_upload_quota('small', max_upload_size => 10) AS row3 \gset
SELECT is((r.code, r.detail::jsonb, r.hint)::text, ('VB009', x.detail::jsonb, x.hint)::text, x.sentence)
  FROM (VALUES
		('start_upload(''test/quota'', 11, size_limit => 10)', '{"quota": "size_limit", "limit": 10, "used": 0, "requested": 11}',
			'Pass a greater size_limit to start_upload().', 'beyond size_limit'),
		('start_upload(''test/quota'', 11, owner => ''small'')', '{"quota": "max_upload_size", "limit": 10, "used": 0, "requested": 11}',
			'Start a smaller upload.', 'beyond max_upload_size'),
		('start_upload(''test/quota'', 11, owner => ''small'', size_limit => 100)', '{"quota": "max_upload_size", "limit": 10, "used": 0, "requested": 11}',
			'Start a smaller upload.', '... which is less than size_limit'),
		('start_upload(''test/quota'', 9, owner => ''small'', size_limit => 8)', '{"quota": "size_limit", "limit": 8, "used": 0, "requested": 9}',
			'Pass a greater size_limit to start_upload().', '... or more'),
		('start_upload(''test/quota'', owner => ''fuller'')', '{"quota": "max_live_uploads", "limit": 1, "used": 1, "requested": 1}',
			'Complete or abort another upload of the owner first.', 'beyond max_live_uploads'),
		('start_upload(''test/quota'', 41, owner => ''full'')', '{"quota": "max_live_bytes", "limit": 100, "used": 60, "requested": 41}',
			'Complete or abort another upload of the owner first.', 'beyond max_live_bytes'),
		('start_upload(''test/quota'', owner => ''full'', size_limit => 41)', '{"quota": "max_live_bytes", "limit": 100, "used": 60, "requested": 41}',
			'Complete or abort another upload of the owner first.', '... by a size_limit'),
		('start_upload(''test/quota'', owner => ''full'')', '{"quota": "max_live_bytes", "limit": 100, "used": 60, "requested": null}',
			'Pass a total_size or a size_limit to start_upload().', '... without any size'),
		('start_upload(''test/quota'', owner => ''no bytes'')', '{"quota": "max_live_bytes", "limit": 0, "used": 0, "requested": null}',
			'Pass a total_size or a size_limit to start_upload().', '... where nothing is used')
	) AS x (call, detail, hint, sentence), LATERAL pg_temp.refusal('SELECT ' || x.call) r;
SELECT is(r.detail::jsonb, x.detail::jsonb, x.sentence)
  FROM (VALUES
		('start_upload(''test/quota'', 1, owner => ''nothing'')', '{"quota": "max_live_uploads", "limit": 0, "used": 0, "requested": 1}', 'a limit of no upload'),
		('start_upload(''test/quota'', 1, owner => ''no bytes'')', '{"quota": "max_live_bytes", "limit": 0, "used": 0, "requested": 1}', 'a limit of no byte')
	) AS x (call, detail, sentence), LATERAL pg_temp.refusal('SELECT ' || x.call) r;
SELECT is(r.message, x.message, 'the message: ' || x.message)
  FROM (VALUES
		('start_upload(''dir/file'', 41, owner => ''full'', upload_id => ''u'')', 'upload "u" of 41 bytes exceeds the bytes that its owner may have: 60 of 100 are promised already'),
		('start_upload(''dir/file'', owner => ''full'', upload_id => ''u'')', 'upload "u" has neither a total size nor a size limit, and the bytes of its owner are limited'),
		('start_upload(''dir/file'', owner => ''fuller'', upload_id => ''u'')', 'owner of upload "u" has 1 live uploads, and may have 1'),
		('start_upload(''dir/file'', 11, owner => ''small'', upload_id => ''u'')', 'upload "u" of 11 bytes exceeds its size limit of 10 bytes')
	) AS x (call, message), LATERAL pg_temp.refusal('SELECT ' || x.call) r;
SELECT lives_ok($$ SELECT start_upload('test/quota', 0, owner => 'no bytes') $$, 'an empty file needs no bytes');
SELECT lives_ok($$ SELECT start_upload('test/quota', 40, owner => 'full', upload_id => 'full 2') $$, 'what is left may be taken');
SELECT pg_temp.mirrors('refused starts');
-- Nothing is left of a start that was refused.
CREATE FUNCTION pg_temp.counts() RETURNS text LANGUAGE sql AS $$
	SELECT format('%s sessions, %s live, %s quotas: %s', (SELECT count(*) FROM upload_session), (SELECT count(*) FROM upload_live), (SELECT count(*) FROM upload_quota), (SELECT md5(string_agg(q::text, '' ORDER BY owner)) FROM upload_quota q))
$$;
SELECT pg_temp.counts() AS before \gset
SELECT throws_ok('SELECT start_upload(''test/bad'', ' || args || ')', 'VB009') FROM unnest(ARRAY['10, owner => ''full''', 'owner => ''full'', or_resume => true, upload_id => ''bad''', '10, owner => ''fuller''', '11, owner => ''small''', '1, owner => ''nothing''', '11, size_limit => 10']) AS args;
SELECT is(pg_temp.counts(), :'before', 'nothing is left of a start that was refused');
SELECT set_config('vali_blob.max_live_uploads', '0', true) \gset
SELECT throws_ok($$ SELECT start_upload('test/bad', owner => 'stranger') $$, 'VB009');
SELECT set_config('vali_blob.max_live_uploads', '-1', true) \gset
SELECT is(pg_temp.counts(), :'before', '... nor of the first one of an owner');

--
-- Promised bytes
--
SELECT set_upload_quota('promised', -1, 1000, 500) AS row \gset
CREATE FUNCTION pg_temp.promised(args text, steps text, OUT bytes bigint, OUT used bigint) LANGUAGE plpgsql AS $$
DECLARE
	new_id text;
	before bigint := (SELECT u.live_bytes FROM upload_usage('promised') u);
BEGIN
	EXECUTE format('SELECT upload_id FROM start_upload(''test/promised'', %s, owner => ''promised'')', args) INTO new_id;
	IF steps <> '' THEN
		EXECUTE 'SELECT ' || replace(steps, '%L', quote_literal(new_id));
	END IF;
	bytes := (SELECT l.bytes FROM upload_live l WHERE l.upload_id = new_id);
	used := (SELECT u.live_bytes FROM upload_usage('promised') u) - before;
	PERFORM delete_upload(new_id);
END $$;
SELECT is((p.bytes, p.used)::text, (expected, expected)::text, format('start_upload(%s) %s promises %s', args, steps, expected))
  FROM (VALUES ('0', '', 0), ('100', '', 100), ('100, size_limit => 300', '', 100), ('NULL, size_limit => 300', '', 300), ('NULL, size_limit => 0', '', 0),
		('NULL', '', 500), ('NULL, size_limit => 600', '', 500),
		('100', 'advance_upload(%L, 0, 40)', 100), ('100', 'advance_upload(%L, 0, 100)', 100), ('NULL, size_limit => 300', 'advance_upload(%L, 0, 40)', 300),
		('NULL, size_limit => 300', 'declare_upload_size(%L, 120)', 120), ('NULL, size_limit => 300', 'declare_upload_size(%L, 300)', 300), ('NULL, size_limit => 300', 'declare_upload_size(%L, 0)', 0),
		('NULL, size_limit => 300, any_order => true', 'advance_upload(%L, 100, 20, final => true)', 120),
		('100', 'merge_upload_data(%L, ''{"a": 1}'')', 100), ('100', 'acquire_upload_lease(%L, ''a'')', 100)) AS x (args, steps, expected), LATERAL pg_temp.promised(args, steps) p;
SELECT pg_temp.mirrors('promised bytes');

--
-- A size that is declared
--
SELECT start_upload('test/declared', owner => 'declared', upload_id => 'declared ' || n) FROM generate_series(1, 4) AS n \g /dev/null
SELECT set_upload_quota('declared', -1, 100) AS row \gset
SELECT start_upload('test/declared', owner => 'declared', size_limit => 60, upload_id => 'declared 5') AS row \gset
SELECT pg_temp.mirrors('uploads without a size');
SELECT is((r.code, r.detail::jsonb, r.hint)::text, ('VB009', '{"quota": "max_live_bytes", "limit": 100, "used": 60, "requested": 41}'::jsonb, 'Complete or abort another upload of the owner first.')::text,
	'a declared size counts, where nothing was promised') FROM pg_temp.refusal($$ SELECT declare_upload_size('declared 1', 41) $$) r;
SELECT is(total_size, NULL, '... and leaves nothing if it is refused') FROM get_upload('declared 1');
SELECT pg_temp.mirrors('a declared size that is refused');
SELECT is(total_size, 40::bigint, '... and may take all that is left') FROM declare_upload_size('declared 1', 40);
SELECT pg_temp.mirrors('a declared size');
SELECT lives_ok($$ SELECT declare_upload_size('declared 1', 40) $$, 'it may be repeated');
SELECT throws_ok($$ SELECT declare_upload_size('declared 1', 50) $$, 'VB007', NULL, '... but not changed, whatever is left');
SELECT throws_ok($$ SELECT declare_upload_size('declared 2', 1) $$, 'VB009', NULL, 'then nothing is left');
SELECT lives_ok($$ SELECT declare_upload_size('declared 2', 0) $$, '... but an empty file needs nothing');
SELECT throws_ok($$ SELECT declare_upload_size('declared 5', 61) $$, 'VB009', NULL, 'not more than was promised');
SELECT is((r.detail::jsonb, r.hint)::text, ('{"quota": "size_limit", "limit": 60, "used": 0, "requested": 61}'::jsonb, 'Pass a greater size_limit to start_upload().')::text, '... which the error tells')
  FROM pg_temp.refusal($$ SELECT declare_upload_size('declared 5', 61) $$) r;
SELECT is(total_size, 50::bigint, 'what was promised may be declared') FROM declare_upload_size('declared 5', 50);
SELECT pg_temp.mirrors('a size within the limit');
SELECT lives_ok($$ SELECT declare_upload_size('declared 3', 10) $$, '... and what it does not take is free');
SELECT set_upload_quota('declared', 0, 0) AS row \gset
SELECT throws_ok($$ SELECT declare_upload_size('declared 4', 1) $$, 'VB009', NULL, 'a lower limit holds for what is declared then');
SELECT lives_ok($$ SELECT declare_upload_size('declared 5', 50) $$, '... and not for what was declared before');
SELECT set_upload_quota('declared', 0, -1) AS row \gset
SELECT lives_ok($$ SELECT declare_upload_size('declared 4', 1000) $$, 'a limit of uploads does not hold for a size');
SELECT pg_temp.mirrors('sizes under other limits');
SELECT set_upload_quota('promised size', -1, 100) AS row \gset
SELECT start_upload('test/declared', owner => 'promised size', size_limit => 100, upload_id => 'promised size') AS row \gset
SELECT set_upload_quota('promised size', -1, 10) AS row \gset
SELECT lives_ok($$ SELECT declare_upload_size('promised size', 100) $$, 'what was promised may be declared under any limit');

--
-- What frees, and what does not
--
CREATE FUNCTION pg_temp.holds(owner text) RETURNS boolean LANGUAGE sql AS $$
	SELECT pg_temp.raised(format('SELECT start_upload(''test/next'', 1, owner => %L)', owner)) IS NOT DISTINCT FROM 'VB009'
$$;
CREATE TEMPORARY TABLE freeing (n serial, frees boolean, args text, steps text, sentence text);
INSERT INTO freeing (frees, args, steps, sentence) VALUES
	(true, '100', 'SELECT advance_upload(%L, 0, 100, final => true)', 'a final chunk'),
	(true, 'NULL, size_limit => 100', 'SELECT advance_upload(%L, 0, 10, final => true)', 'a final chunk that says how long the file is'),
	(true, '100, any_order => true', 'SELECT advance_upload(%L, 40, 60, final => true); SELECT advance_upload(%L, 0, 40, part_number => 1); SELECT complete_upload(%L)', 'complete_upload(), with parts'),
	(true, '100', 'SELECT advance_upload(%L, 0, 100); SELECT complete_upload(%L)', 'complete_upload()'),
	(true, '100, auto_complete => true', 'SELECT advance_upload(%L, 0, 100)', 'the last byte with auto_complete'),
	(true, '100, auto_complete => true', 'SELECT advance_uploads(ARRAY[%L, %L], ''{0,10}'', ''{10,90}'')', '... in a batch'),
	(true, '100, auto_complete => true, any_order => true', 'SELECT advance_uploads(ARRAY[%L, %L], ''{10,0}'', ''{90,10}'')', '... in any order'),
	(true, 'NULL, size_limit => 100, auto_complete => true', 'SELECT advance_upload(%L, 0, 10); SELECT declare_upload_size(%L, 10)', 'the size with auto_complete'),
	(true, '100', 'SELECT abort_upload(%L)', 'abort_upload()'),
	(true, '100', 'SELECT advance_upload(%L, 0, 10); SELECT abort_upload(%L, ''reason'', ''free 10'')', '... by its owner'),
	(true, '100', 'SELECT delete_upload(%L)', 'delete_upload()'),
	(true, '100', 'SELECT abort_upload(%L); SELECT delete_upload(%L)', '... after the end'),
	(true, '100, ttl => ''1 microsecond''', 'SELECT sweep_uploads()', 'a sweep'),
	(true, '100, ttl => ''1 microsecond''', 'SELECT delete_upload(%L)', 'delete_upload(), past the deadline'),
	(true, '100, ttl => ''1 microsecond''', '', 'a deadline that has passed'),
	(true, '100, max_age => ''1 microsecond''', '', '... by max_age'),
	(true, '100', 'UPDATE upload_session SET expires_at = ''-infinity'' WHERE upload_id = %L', '... by hand'),
	(true, '100', 'SET LOCAL vali_blob.retention = -1; SELECT abort_upload(%L); SET LOCAL vali_blob.retention = ''48h''', 'the end of an upload that is kept for ever'),
	(true, '100, ttl => ''0''', 'SELECT abort_upload(%L)', 'the end of one that would never expire'),
	(false, '100', '', 'nothing'),
	(false, '100', 'SELECT advance_upload(%L, 0, 40)', 'a chunk'),
	(false, '100', 'SELECT advance_upload(%L, 0, 100)', 'the last byte'),
	(false, '100, any_order => true', 'SELECT advance_upload(%L, 40, 60, final => true)', 'a final chunk before others'),
	(false, '100, ttl => ''0''', 'SELECT sweep_uploads()', 'a sweep that finds nothing'),
	(false, '100', 'SELECT pg_temp.raised(''SELECT advance_upload('' || quote_literal(%L) || '', 0, 100, true), 1 / 0'')', 'a final chunk that is rolled back'),
	(false, '100', 'SELECT pg_temp.raised(''SELECT abort_upload('' || quote_literal(%L) || ''), 1 / 0'')', 'an end that is rolled back'),
	(false, '100', 'SELECT pg_temp.raised(''SELECT delete_upload('' || quote_literal(%L) || ''), 1 / 0'')', 'a deletion that is rolled back'),
	(false, '100', 'SELECT pg_temp.raised(''SELECT abort_upload('' || quote_literal(%L) || '', owner => ''''bob'''')'')', 'an end for another owner');
CREATE FUNCTION pg_temp.try_freeing(f freeing, which text, limits text, OUT held boolean, OUT holds boolean, OUT difference text, OUT difference_then text) LANGUAGE plpgsql AS $$
DECLARE
	whose text := format('free %s%s', f.n, which);
	step text;
BEGIN
	EXECUTE format('SELECT set_upload_quota(%L, %s)', whose, limits);
	EXECUTE format('SELECT start_upload(''test/free'', %s, owner => %L, upload_id => %2$L)', f.args, whose);
	held := f.args LIKE '%microsecond%' OR pg_temp.holds(whose);
	FOREACH step IN ARRAY string_to_array(f.steps, '; ') LOOP
		EXECUTE replace(replace(step, '%L', quote_literal(whose)), 'free 10''', whose || '''');
	END LOOP;
	difference := pg_temp.difference();
	holds := pg_temp.holds(whose);
	UPDATE upload_live SET expires_at = '-infinity' WHERE upload_id = (SELECT upload_id FROM upload_session WHERE expires_at = '-infinity' AND owner = whose);
	difference_then := pg_temp.difference();
END $$;
SELECT unnest(ARRAY[
		is((r.held, r.holds)::text, (true, NOT f.frees)::text, format('%s %s, with %s', f.sentence, CASE WHEN f.frees THEN 'frees' ELSE 'does not free' END, limits.name)),
		CASE WHEN f.steps LIKE 'UPDATE%' THEN pass('... though upload_live does not tell') ELSE is(r.difference, NULL, '... and upload_live has the live uploads') END,
		is(r.difference_then, NULL, '... also with the next one')])
  FROM freeing f, (VALUES ('', '1', 'a limit of uploads'), (' bytes', '-1, 100', 'a limit of bytes')) AS limits (which, value, name), LATERAL pg_temp.try_freeing(f, limits.which, limits.value) r
 ORDER BY f.n, limits.name;
-- An upload that is complete from its start
SELECT set_upload_quota('at once', 1, 0) AS row \gset
SELECT is(status, 'complete', 'an upload that is complete at once') FROM start_upload('test/quota', 0, owner => 'at once', auto_complete => true);
SELECT is(pg_temp.recorded('at once'), 'none', '... is not recorded');
SELECT lives_ok($$ SELECT start_upload('test/quota', 0, owner => 'at once') $$, '... and does not count');
-- Starts that are rolled back
SELECT set_upload_quota('undone', 1) AS row \gset
SELECT is(pg_temp.raised($$ SELECT start_upload('test/quota', owner => 'undone'), 1 / 0 $$), '22012') FROM generate_series(1, 3);
SELECT pg_temp.mirrors('a start that was rolled back');
SELECT lives_ok($$ SELECT start_upload('test/quota', owner => 'undone') $$, 'what was rolled back does not count');
SELECT throws_ok($$ SELECT start_upload('test/quota', owner => 'undone') $$, 'VB009', NULL, '... what was not does');

--
-- Chunks
--
SELECT set_upload_quota('chunks', 2, 1000) AS row \gset
SELECT start_upload('test/chunks', 1000, owner => 'chunks', upload_id => 'chunks', ttl => '16 hours') AS row \gset
SELECT set_upload_quota('chunks', 0, 0, 0) AS row \gset
SELECT is(outcome, 'advanced', 'a chunk looks at no limit of the owner') FROM try_advance_upload('chunks', 0, 100);
SELECT lives_ok($$ SELECT merge_upload_data('chunks', '{"a": 1}') $$, '... nor does other data');
SELECT throws_ok($$ SELECT start_upload('test/chunks', 0, owner => 'chunks') $$, 'VB009', NULL, '... a start does');
SELECT set_upload_quota('chunks', 1, 1000) AS row \gset
SELECT throws_ok($$ SELECT start_upload('test/chunks', 0, owner => 'chunks') $$, 'VB009');
SELECT set_upload_quota('chunks', 2, 1000) AS row \gset
SELECT start_upload('test/chunks', 0, owner => 'chunks', upload_id => 'chunks 2', ttl => '0') AS row \gset
SELECT is(expires_at, NULL, 'an upload that never expires is recorded as such') FROM upload_live WHERE upload_id = 'chunks 2';
SELECT pg_temp.mirrors('before chunks');
-- the deadline: as if time had passed
CREATE FUNCTION pg_temp.leave(which text, time_left interval) RETURNS void LANGUAGE sql AS $$
	UPDATE upload_session SET expires_at = now() + time_left WHERE upload_id = which;
	UPDATE upload_live SET expires_at = now() + time_left WHERE upload_id = which;
$$;
CREATE FUNCTION pg_temp.slides(statement text, sentence text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_temp.leave('chunks', '1 hour');
	RETURN NEXT pg_temp.mirrors('before ' || sentence);
	EXECUTE statement;
	RETURN NEXT ok(expires_at > now() + interval '16 hours', sentence || ' moves the deadline in upload_live') FROM upload_live WHERE upload_id = 'chunks';
	RETURN NEXT pg_temp.mirrors('after ' || sentence);
END $$;
SELECT pg_temp.slides($$ SELECT advance_upload('chunks', 100, 100) $$, 'a chunk');
SELECT pg_temp.slides($$ SELECT try_advance_upload('chunks', 200, 0) $$, 'an empty chunk');
SELECT pg_temp.slides($$ SELECT advance_uploads('{chunks,chunks}', '{200,300}', '{100,100}') $$, 'a batch');
SELECT pg_temp.slides($$ SELECT merge_upload_data('chunks', '{"a": 2}') $$, 'other data');
SELECT (ctid::text) AS version FROM upload_live WHERE upload_id = 'chunks' \gset
SELECT is(outcome, 'advanced') FROM try_advance_upload('chunks', 400, 100);
SELECT is(ctid::text, :'version', 'a chunk that moves no deadline leaves upload_live alone') FROM upload_live WHERE upload_id = 'chunks';
SELECT pg_temp.leave('chunks', '-1 second');
SELECT is(outcome, 'expired', 'a chunk past the deadline') FROM try_advance_upload('chunks', 500, 100);
SELECT pg_temp.mirrors('a chunk past the deadline');

--
-- or_resume
--
SELECT set_upload_quota('resumed', 1, 10) AS row \gset
SELECT start_upload('test/resumed', 10, owner => 'resumed', upload_id => 'resumed', or_resume => true) AS row \gset
SELECT is(upload_id, 'resumed', 'or_resume: what is there is returned, though nothing is left') FROM start_upload('test/resumed', 10, owner => 'resumed', upload_id => 'resumed', or_resume => true);
SELECT is(pg_temp.recorded('resumed'), 'resumed', '... and counts once');
SELECT throws_ok($$ SELECT start_upload('test/resumed', 10, owner => 'resumed', upload_id => 'resumed 2', or_resume => true) $$, 'VB009', NULL, '... and what is not is refused');
SELECT throws_ok($$ SELECT start_upload('test/resumed', 11, owner => 'resumed', upload_id => 'resumed', or_resume => true) $$, '23505', NULL, '... and what differs is what it is');
SELECT set_upload_quota('resumed', 0, 0, 0) AS row \gset
SELECT is(upload_id, 'resumed', '... under any limit') FROM start_upload('test/resumed', 10, owner => 'resumed', upload_id => 'resumed', or_resume => true);
SELECT abort_upload('resumed') AS row \gset
SELECT is(status, 'aborted', '... whatever its status') FROM start_upload('test/resumed', 10, owner => 'resumed', upload_id => 'resumed', or_resume => true);
SELECT is(pg_temp.recorded('resumed'), 'none', '... which does not make it live');
SELECT pg_temp.mirrors('or_resume');
SELECT set_upload_quota('resumed', 1) AS row \gset
SELECT throws_ok($$ SELECT start_upload('test/resumed', 10, owner => 'resumed', upload_id => 'resumed') $$, '23505', NULL, 'an upload_id that is taken');
SELECT pg_temp.mirrors('an upload_id that is taken');
SELECT lives_ok($$ SELECT start_upload('test/resumed', 10, owner => 'resumed', upload_id => 'resumed 3', or_resume => true) $$, '... leaves room');
SELECT pg_temp.mirrors('a start with or_resume');

--
-- Uploads from before there was a limit
--
SELECT start_upload('test/before', n, owner => 'before', upload_id => 'before ' || n) FROM generate_series(1, 5) AS n \g /dev/null
SELECT start_upload('test/before', NULL, owner => 'before', upload_id => 'before 6', ttl => '0') AS row \gset
SELECT advance_upload('before 6', 0, 50), abort_upload('before 1'), advance_upload('before 2', 0, 2, true) \g /dev/null
UPDATE upload_session SET expires_at = '-infinity' WHERE upload_id = 'before 3';
SELECT is(pg_temp.recorded('before'), 'none', 'without a limit nothing is recorded');
SELECT set_upload_quota('before', 3) AS row \gset
SELECT is((r.code, r.detail::jsonb)::text, ('VB009', '{"quota": "max_live_uploads", "limit": 3, "used": 3, "requested": 1}'::jsonb)::text, 'what was live before there was a limit counts')
  FROM pg_temp.refusal($$ SELECT start_upload('test/before', owner => 'before') $$) r;
SELECT set_upload_quota('before', 4) AS row \gset
SELECT lives_ok($$ SELECT start_upload('test/before', owner => 'before', upload_id => 'before 7') $$, '... and no more');
SELECT pg_temp.mirrors('uploads from before');
SELECT is(pg_temp.recorded('before'), 'before 3 before 4 before 5 before 6 before 7', '... one past its deadline as well');
SELECT throws_ok($$ SELECT start_upload('test/before', owner => 'before') $$, 'VB009');
SELECT abort_upload('before 5') AS row \gset
SELECT pg_temp.mirrors('the end of one from before');
SELECT lives_ok($$ SELECT start_upload('test/before', owner => 'before', upload_id => 'before 8') $$, 'what ends of them frees');
SELECT set_upload_quota('before', -1, 13) AS row \gset
SELECT is((r.code, r.detail::jsonb)::text, ('VB009', '{"quota": "max_live_bytes", "limit": 13, "used": 4, "requested": 10}'::jsonb)::text, 'without size and limit, they count no bytes')
  FROM pg_temp.refusal($$ SELECT start_upload('test/before', 10, owner => 'before') $$) r;
SELECT is(outcome, 'advanced', '... and a chunk does not ask') FROM try_advance_upload('before 6', 50, 1000);
SELECT lives_ok($$ SELECT start_upload('test/before', 9, owner => 'before', upload_id => 'before 9') $$);
SELECT pg_temp.mirrors('bytes of uploads from before');
-- by setting
SELECT start_upload('test/before', 10, owner => 'by setting', upload_id => 'by setting ' || n) FROM generate_series(1, 2) AS n \g /dev/null
SET LOCAL vali_blob.max_live_uploads = 2;
SELECT throws_ok($$ SELECT start_upload('test/before', owner => 'by setting') $$, 'VB009', NULL, 'they count under a setting, too');
SET LOCAL vali_blob.max_live_uploads = 3;
SELECT lives_ok($$ SELECT start_upload('test/before', owner => 'by setting', upload_id => 'by setting 3') $$);
SELECT pg_temp.mirrors('uploads from before a setting');
-- a limit that is lifted, and is there again
SET LOCAL vali_blob.max_live_uploads = -1;
SELECT lives_ok($$ SELECT start_upload('test/before', owner => 'by setting', upload_id => 'by setting 4') $$, 'a setting that is reset does not limit');
SELECT abort_upload('by setting 1') AS row \gset
SELECT pg_temp.mirrors('without the setting');
SELECT set_upload_quota('by setting', -1, -1) AS row \gset
SELECT start_upload('test/before', owner => 'by setting', upload_id => 'by setting 5') AS row \gset
SELECT abort_upload('by setting 2') AS row \gset
SELECT set_upload_quota('by setting', 3) AS row \gset
SELECT is(r.detail::jsonb, '{"quota": "max_live_uploads", "limit": 3, "used": 3, "requested": 1}', 'a limit that was lifted for a while counts all') FROM pg_temp.refusal($$ SELECT start_upload('test/before', owner => 'by setting') $$) r;
SELECT abort_upload('by setting 5') AS row \gset
SELECT lives_ok($$ SELECT start_upload('test/before', owner => 'by setting', upload_id => 'by setting 6') $$);
SELECT pg_temp.mirrors('a limit that was lifted for a while');

--
-- Sums near the end of bigint
--
SELECT set_upload_quota('huge', -1, 9223372036854775807) AS row \gset
SELECT lives_ok($$ SELECT start_upload('test/huge', 9223372036854775807, owner => 'huge', upload_id => 'huge 1') $$, 'a limit of all bytes may be reached');
SELECT lives_ok($$ SELECT start_upload('test/huge', 0, owner => 'huge') $$, '... also by an empty file after it');
SELECT is(r.detail::jsonb, format('{"quota": "max_live_bytes", "limit": 9223372036854775807, "used": 9223372036854775807, "requested": %s}', size)::jsonb, format('... but not exceeded, by %s', size))
  FROM unnest(ARRAY[1, 9223372036854775807]) AS size, LATERAL pg_temp.refusal(format('SELECT start_upload(''test/huge'', %s, owner => ''huge'')', size)) r;
SELECT abort_upload('huge 1') AS row \gset
SELECT lives_ok($$ SELECT start_upload('test/huge', 9223372036854775806, owner => 'huge', upload_id => 'huge 2') $$);
SELECT lives_ok($$ SELECT start_upload('test/huge', 1, owner => 'huge', upload_id => 'huge 3') $$, 'the last byte may be promised');
SELECT throws_ok($$ SELECT start_upload('test/huge', 1, owner => 'huge') $$, 'VB009', NULL, '... once');
SELECT pg_temp.mirrors('sums near the end of bigint');
SELECT start_upload('test/huge', 9223372036854775807, owner => 'huger', upload_id => 'huger ' || n) FROM generate_series(1, 3) AS n \g /dev/null
SELECT is(live_bytes, 9223372036854775807, 'a sum beyond bigint is shown as its greatest number') FROM upload_usage('huger');
SELECT set_upload_quota('huger', -1, 10) AS row \gset
SELECT is(r.detail::jsonb, '{"quota": "max_live_bytes", "limit": 10, "used": 9223372036854775807, "requested": 0}', '... and exceeds every limit') FROM pg_temp.refusal($$ SELECT start_upload('test/huge', 0, owner => 'huger') $$) r;
SELECT set_upload_quota('huger', -1, 9223372036854775807) AS row \gset
SELECT throws_ok($$ SELECT start_upload('test/huge', 1, owner => 'huger') $$, 'VB009', NULL, '... also the greatest');
SELECT set_upload_quota('huger', 9223372036854775807) AS row \gset
SELECT lives_ok($$ SELECT start_upload('test/huge', 1, owner => 'huger') $$, 'no limit is too great');

--
-- What was changed by hand
--
SELECT set_upload_quota('hand', 2, 100) AS row \gset
SELECT start_upload('test/hand', 50, owner => 'hand', upload_id => 'hand ' || n) FROM generate_series(1, 2) AS n \g /dev/null
SELECT throws_ok($$ SELECT start_upload('test/hand', 1, owner => 'hand') $$, 'VB009');
DELETE FROM upload_session WHERE upload_id = 'hand 1';
SELECT lives_ok($$ SELECT start_upload('test/hand', 50, owner => 'hand', upload_id => 'hand 3') $$, 'a session that was deleted by hand does not block');
SELECT pg_temp.mirrors('a start after that');
UPDATE upload_session SET status = 'aborted' WHERE upload_id = 'hand 2';
SELECT lives_ok($$ SELECT start_upload('test/hand', 50, owner => 'hand', upload_id => 'hand 4') $$, 'nor does one that was ended by hand');
SELECT pg_temp.mirrors('a start after that');
UPDATE upload_session SET total_size = 10 WHERE upload_id = 'hand 4';
SELECT set_upload_quota('hand', 3, 100) AS row \gset
SELECT lives_ok($$ SELECT start_upload('test/hand', 40, owner => 'hand', upload_id => 'hand 5') $$, 'nor do bytes of which it has fewer now');
SELECT is((r.code, r.detail::jsonb->>'used')::text, '(VB009,3)', '... and no others are free') FROM pg_temp.refusal($$ SELECT start_upload('test/hand', 0, owner => 'hand') $$) r;
UPDATE upload_session SET total_size = 1000 WHERE upload_id = 'hand 5';
SELECT is(r.detail::jsonb->>'used', '3', 'an error tells what is used now') FROM pg_temp.refusal($$ SELECT start_upload('test/hand', 1, owner => 'hand') $$) r;
SELECT set_upload_quota('hand', -1, 100) AS row \gset
SELECT is(r.detail::jsonb->>'used', '1060', '... and how many bytes') FROM pg_temp.refusal($$ SELECT start_upload('test/hand', 30, owner => 'hand') $$) r;
DELETE FROM upload_session WHERE owner = 'hand';
SELECT lives_ok($$ SELECT start_upload('test/hand', 100, owner => 'hand', upload_id => 'hand 3') $$, 'an upload_id that was deleted by hand may be taken again');
SELECT pg_temp.mirrors('a start after all were deleted');
INSERT INTO upload_session (upload_id, path, owner, total_size) VALUES ('hand 6', 'test/hand', 'hand', 10);
SELECT set_upload_quota('hand', 2) AS row \gset
SELECT throws_ok($$ SELECT start_upload('test/hand', 1, owner => 'hand') $$, 'VB009', NULL, 'a session that was inserted by hand counts from the next set_upload_quota() on');
DELETE FROM upload_live;
SELECT set_upload_quota('hand', 2) AS row \gset
SELECT throws_ok($$ SELECT start_upload('test/hand', 1, owner => 'hand') $$, 'VB009', NULL, 'what is deleted from upload_live by hand is counted again, too');
UPDATE upload_quota SET counted = false;
SELECT pg_temp.raised(format('SELECT abort_upload(%L)', upload_id)) FROM upload_session WHERE upload_id = 'hand 6' \g /dev/null
SELECT lives_ok($$ SELECT start_upload('test/hand', 1, owner => 'hand') $$);
SELECT pg_temp.mirrors('counted again');
-- uploads that were deleted by hand, whose upload_ids other owners take
SELECT set_upload_quota('hand', 2) AS row \gset
DELETE FROM upload_session WHERE owner = 'hand';
SELECT start_upload('test/hand', 1, owner => 'hand', upload_id => 'taken ' || n) FROM generate_series(1, 2) AS n \g /dev/null
DELETE FROM upload_session WHERE owner = 'hand';
SELECT set_upload_quota('limited', 1) AS row \gset
SELECT start_upload('test/hand', 1, owner => 'limited', upload_id => 'taken 1') AS row \gset
SELECT start_upload('test/hand', 1, owner => 'unlimited', upload_id => 'taken 2') AS row \gset
SELECT lives_ok($$ SELECT start_upload('test/hand', 1, owner => 'hand') $$, 'uploads of other owners do not count') FROM generate_series(1, 2);
SELECT pg_temp.mirrors('an upload_id of another owner');
SELECT set_upload_quota('unlimited', 1) AS row \gset
SELECT throws_ok($$ SELECT start_upload('test/hand', 1, owner => 'unlimited') $$, 'VB009', NULL, '... but theirs');

--
-- set_upload_quota
--
SELECT is((q.owner, q.max_live_uploads, q.max_live_bytes, q.max_upload_size)::text, '(setter,1,2,3)', 'set_upload_quota() by position') FROM set_upload_quota('setter', 1, 2, 3) q;
SELECT is((q.owner, q.max_live_uploads, q.max_live_bytes, q.max_upload_size)::text, '(setter,0,-1,9223372036854775807)', '... by name')
  FROM set_upload_quota(max_upload_size => 9223372036854775807, max_live_bytes => -1, max_live_uploads => 0, owner => 'setter') q;
SELECT is((q.max_live_uploads, q.max_live_bytes, q.max_upload_size)::text, '(0,-1,9223372036854775807)', '... is stored') FROM upload_quota q WHERE owner = 'setter';
SELECT is((q.max_live_uploads, q.max_live_bytes, q.max_upload_size)::text, '(,,)', '... and says nothing where it is told nothing') FROM set_upload_quota('setter') q;
SELECT is(count(*), 1::bigint, '... in one row') FROM upload_quota WHERE owner = 'setter';
SELECT is((r.code, r.message, r.hint)::text, (x.code, x.message, x.hint)::text, format('set_upload_quota(%s) is refused', args))
  FROM (VALUES ('NULL', '22004', '"owner" must not be null', 'Pass a value for "owner".'),
		('NULL, -2', '22004', '"owner" must not be null', 'Pass a value for "owner".'),
		('''setter'', -2', '22023', '"max_live_uploads" must be greater than or equal to -1, but is -2', 'Pass -1 for no limit, or null for what the setting vali_blob.max_live_uploads says.'),
		('''setter'', 1, -2', '22023', '"max_live_bytes" must be greater than or equal to -1, but is -2', 'Pass -1 for no limit, or null for what the setting vali_blob.max_live_bytes says.'),
		('''setter'', 1, 1, ''-9223372036854775808''', '22023', '"max_upload_size" must be greater than or equal to -1, but is -9223372036854775808', 'Pass -1 for no limit, or null for what the setting vali_blob.max_upload_size says.')
	) AS x (args, code, message, hint), LATERAL pg_temp.refusal(format('SELECT set_upload_quota(%s)', args)) r;
SELECT throws_ok(format('INSERT INTO upload_quota (owner, %s) VALUES (''bad'', -2)', limit_name), '23514', NULL, limit_name || ' is checked by the table, too') FROM unnest(ARRAY['max_live_uploads', 'max_live_bytes', 'max_upload_size']) AS limit_name;
CREATE FUNCTION pg_temp.suppress() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER suppress BEFORE INSERT ON upload_quota FOR EACH ROW EXECUTE FUNCTION pg_temp.suppress();
SELECT throws_ok($$ SELECT set_upload_quota('setter', 5) $$, '27000', NULL, 'a trigger that suppresses the row is reported');
DROP TRIGGER suppress ON upload_quota;
-- privileges
CREATE ROLE "vali ""blob"" client";
SELECT grant_upload_access('vali "blob" client');
CREATE FUNCTION pg_temp.raised_as_client(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	SET LOCAL ROLE "vali ""blob"" client";
	EXECUTE statement;
	RESET ROLE;
	RETURN 'is allowed';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
SELECT set_upload_quota('client', 1, 100) AS row \gset
SELECT is(pg_temp.raised_as_client(statement), outcome, format('%s: a client %s', statement, outcome))
  FROM (VALUES (1, 'SELECT set_upload_quota(''client'', 100)', '42501'), (2, 'SELECT FROM upload_quota', '42501'), (3, 'SELECT FROM upload_live', '42501'), (4, 'DELETE FROM upload_live', '42501'),
		(5, 'UPDATE upload_quota SET max_live_uploads = 5', '42501'), (6, 'SELECT upload_usage(''client'')', 'is allowed'), (7, 'SET vali_blob.max_live_uploads = -1', '42501'),
		(8, 'SET vali_blob.max_live_bytes = -1', '42501'), (9, 'SET vali_blob.max_upload_size = -1', '42501'),
		(10, 'SELECT start_upload(''test/client'', 10, owner => ''client'')', 'is allowed'), (11, 'SELECT start_upload(''test/client'', 10, owner => ''client'')', 'VB009'),
		(12, 'SELECT upload_usage(''client'')', 'is allowed')) AS x (n, statement, outcome)
 ORDER BY n;
GRANT EXECUTE ON FUNCTION set_upload_quota TO "vali ""blob"" client";
SELECT is(pg_temp.raised_as_client('SELECT set_upload_quota(''client'', 100)'), '42501', 'set_upload_quota() has the privileges of its caller');
GRANT SELECT, INSERT, UPDATE ON upload_quota TO "vali ""blob"" client";
SELECT is(pg_temp.raised_as_client('SELECT set_upload_quota(''client'', 2)'), 'is allowed', '... who may have them');
SELECT pg_temp.mirrors('starts by a client');

--
-- upload_usage
--
SELECT is(u::text, '(0,0,0,,)', 'an owner without uploads uses nothing') FROM upload_usage('nobody') u;
SELECT start_upload('test/usage', 100, owner => 'usage', upload_id => 'usage ' || n) FROM generate_series(1, 5) AS n \g /dev/null
SELECT start_upload('test/usage', NULL, owner => 'usage', size_limit => 30, upload_id => 'usage 6'), start_upload('test/usage', NULL, owner => 'usage', upload_id => 'usage 7') \g /dev/null
SELECT advance_upload('usage ' || n, 0, 10 * n) FROM generate_series(1, 7) AS n WHERE n <> 6 \g /dev/null
SELECT abort_upload('usage 1') AS row, advance_upload('usage 2', 20, 80, true) AS row2 \gset
UPDATE upload_session SET expires_at = '-infinity' WHERE upload_id = 'usage 3';
SELECT is(u::text, '(4,230,160,,)', 'what live uploads use, past no deadline') FROM upload_usage('usage') u;
SELECT set_upload_quota('usage', 5, 1000) AS row \gset
SELECT is(u::text, '(4,230,160,5,1000)', '... under limits') FROM upload_usage('usage') u;
SELECT start_upload('test/usage', 5, owner => 'usage', upload_id => 'usage 8') AS row \gset
SELECT is(u::text, '(5,235,160,5,1000)', '... and counted') FROM upload_usage('usage') u;
SELECT set_upload_quota('usage', -1, NULL) AS row \gset
SET LOCAL vali_blob.max_live_uploads = 7;
SET LOCAL vali_blob.max_live_bytes = '1kB';
SELECT is(u::text, '(5,235,160,,1024)', 'limits: any number, and as the setting says') FROM upload_usage('usage') u;
SELECT is(u::text, '(0,0,0,7,1024)', '... where there is no quota') FROM upload_usage('nobody') u;
SET LOCAL vali_blob.max_live_uploads = -1;
SET LOCAL vali_blob.max_live_bytes = -1;
SELECT throws_ok($$ SELECT upload_usage(NULL) $$, '22004', NULL, 'a null owner uses nothing that could be told');
SELECT is(u::text, '(0,0,0,,)', 'an owner is compared by its bytes') FROM upload_usage('Usage') u;

--
-- Row-level security
--
SELECT set_upload_quota('visible', 3, 100) AS row \gset
SELECT start_upload('hidden/file', 40, owner => 'visible', upload_id => 'visible 1'), start_upload('test/visible', 20, owner => 'visible', upload_id => 'visible 2') \g /dev/null
ALTER TABLE upload_session ENABLE ROW LEVEL SECURITY;
CREATE POLICY visible ON upload_session USING (path NOT LIKE 'hidden/%') WITH CHECK (true);
CREATE FUNCTION pg_temp.usage_of_client(whose text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	told text;
BEGIN
	SET LOCAL ROLE "vali ""blob"" client";
	told := (SELECT u::text FROM upload_usage(whose) u);
	RESET ROLE;
	RETURN told;
END $$;
SELECT is(pg_temp.usage_of_client('visible'), '(1,20,0,3,100)', 'upload_usage() shows what the caller may see');
SELECT is(u::text, '(2,60,0,3,100)', '... all to whom no policy applies') FROM upload_usage('visible') u;
SELECT is(pg_temp.raised_as_client($$ SELECT start_upload('test/visible', 41, owner => 'visible') $$), 'VB009', 'but what is hidden counts');
SELECT is(pg_temp.raised_as_client($$ SELECT start_upload('test/visible', 40, owner => 'visible', upload_id => 'visible 3') $$), 'is allowed', '... once');
SELECT is(pg_temp.raised_as_client($$ SELECT start_upload('test/visible', 0, owner => 'visible') $$), 'VB009', '... for each limit');
SELECT is(pg_temp.recorded('visible'), 'visible 1 visible 2 visible 3', '... and stays counted');
SELECT pg_temp.mirrors('row-level security');
ALTER TABLE upload_session FORCE ROW LEVEL SECURITY;
SELECT is(pg_temp.raised_as_client($$ SELECT start_upload('test/visible', 0, owner => 'visible') $$), 'VB009', '... also if the policy is for the owner of the table, too');
SELECT pg_temp.mirrors('row-level security that is forced');
SELECT start_upload('hidden/file', 40, owner => 'uncounted') AS row \gset
SELECT set_upload_quota('uncounted', 1) AS row \gset
SELECT is(pg_temp.raised_as_client($$ SELECT start_upload('test/visible', 0, owner => 'uncounted') $$), 'VB009', 'what is hidden counts from the first start on');
SELECT is(pg_temp.usage_of_client('uncounted'), '(0,0,0,1,)', '... and is not told');

--
-- Triggers, policies and privileges
--
CREATE FUNCTION pg_temp.change_owner() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.owner := nullif(TG_ARGV[0], ''); RETURN NEW; END $$;
SELECT set_upload_quota('traded', 1) AS row \gset
CREATE TRIGGER change_owner BEFORE INSERT ON upload_session FOR EACH ROW EXECUTE FUNCTION pg_temp.change_owner('');
SELECT throws_ok($$ SELECT start_upload('test/quota', 1, owner => 'traded') $$, '27000', NULL, 'a trigger must not change the owner to nobody');
DROP TRIGGER change_owner ON upload_session;
CREATE TRIGGER change_owner BEFORE INSERT ON upload_session FOR EACH ROW EXECUTE FUNCTION pg_temp.change_owner('other');
SELECT throws_ok($$ SELECT start_upload('test/quota', 1, owner => 'traded') $$, '27000', NULL, '... nor to another one');
DROP TRIGGER change_owner ON upload_session;

CREATE ROLE "vali ""blob"" tenant";
SELECT grant_upload_access('vali "blob" tenant') AS row \gset
ALTER TABLE upload_session ENABLE ROW LEVEL SECURITY;
DROP POLICY visible ON upload_session;
CREATE POLICY own ON upload_session USING (owner IN ('mine', 'mine too'));
SELECT set_upload_quota('mine', 1), set_upload_quota('others', 1) AS row \gset
SELECT count(start_upload('test/quota', 1, owner => owner)) AS row FROM unnest(ARRAY['mine', 'others']) AS owner \gset
SET LOCAL ROLE "vali ""blob"" tenant";
SELECT is(t.code || t.detail, 'VB009{"quota": "max_live_uploads", "limit": 1, "used": 1, "requested": 1}', 'with a policy that allows the upload, a limit is told') FROM pg_temp.told($$ SELECT start_upload('test/quota', 1, owner => 'mine') $$) t;
SELECT is(t.code, '42501', 'what an owner uses whom a policy hides is not') FROM pg_temp.told($$ SELECT start_upload('test/quota', 1, owner => 'others') $$) t;
RESET ROLE;
ALTER TABLE upload_session DISABLE ROW LEVEL SECURITY;
REVOKE INSERT ON upload_session FROM "vali ""blob"" tenant";
SET LOCAL ROLE "vali ""blob"" tenant";
SELECT is(t.code, '42501', '... nor to whom cannot start any') FROM pg_temp.told($$ SELECT start_upload('test/quota', 1, owner => 'others') $$) t;
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
