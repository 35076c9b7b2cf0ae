-- Deadlines: how long an upload may be idle, when the deadline moves, what the
-- sweep does once it has passed, and how long an ended upload is kept.
BEGIN;
\ir lib/uploads.sql
SELECT no_plan();

-- Whether a moment lies so far behind now, give or take what this file takes to run.
CREATE FUNCTION pg_temp.is_in(moment timestamptz, away interval, sentence text) RETURNS text LANGUAGE sql AS $$
	SELECT ok(moment BETWEEN now() + away AND clock_timestamp() + away, sentence)
$$;
-- An upload with a ttl of 16 hours and the given time left.
CREATE FUNCTION pg_temp.upload_with(time_left interval, size bigint = 100) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	new_id text := (start_upload('test/deadline', size, ttl => '16 hours')).upload_id;
BEGIN
	PERFORM advance_upload(new_id, 0, 40);
	UPDATE upload_session SET expires_at = now() + time_left WHERE upload_id = new_id;
	RETURN new_id;
END $$;

--
-- At the start
--
SELECT is(s.ttl, '48 hours', 'an upload may be idle for 48 hours') FROM start_upload('test/ttl') s;
SELECT pg_temp.is_in(s.expires_at, '51 hours', '... and has a sixteenth more at its start') FROM start_upload('test/ttl') s;
SELECT is(s.ttl, '16 minutes', 'a caller may give another ttl') FROM start_upload('test/ttl', ttl => '16 minutes') s;
SELECT pg_temp.is_in(s.expires_at, '17 minutes', '... which counts in the same way') FROM start_upload('test/ttl', ttl => '16 minutes') s;
SELECT pg_temp.is_in(s.expires_at, '17 milliseconds', '... however short it is') FROM start_upload('test/ttl', ttl => '16 milliseconds') s;
SELECT is((s.ttl, s.expires_at)::text, '(,)', format('a ttl of %s: it never expires', zero)) FROM unnest(ARRAY['0', '0 hours']) AS zero, LATERAL start_upload('test/ttl', ttl => zero::interval) s;
SET LOCAL vali_blob.session_ttl = '16h';
SELECT is(s.ttl, '16 hours', 'vali_blob.session_ttl is the ttl of those that give none') FROM start_upload('test/ttl', upload_id => 'deadline-kept') s;
SELECT pg_temp.is_in(s.expires_at, '17 hours', '... with its sixteenth') FROM start_upload('test/ttl') s;
SELECT is(s.ttl, '16 minutes', '... and of no others') FROM start_upload('test/ttl', ttl => '16 minutes') s;
SET LOCAL vali_blob.session_ttl = -1;
SELECT is((s.ttl, s.expires_at)::text, '(,)', '-1: they never expire') FROM start_upload('test/ttl') s;
SELECT is(s.ttl, '16 minutes', '... the others do') FROM start_upload('test/ttl', ttl => '16 minutes') s;
SELECT ok(r.expires_at > now() + interval '16 hours', '... and an upload keeps the ttl that it was started with') FROM advance_upload('deadline-kept', 0, 1) r;
RESET vali_blob.session_ttl;

--
-- A chunk moves the deadline only once now + ttl has overtaken it
--
SELECT is(r.expires_at, now() + interval '16 hours 1 minute', 'a chunk leaves the deadline while it is further away than ttl')
  FROM advance_upload(pg_temp.upload_with('16 hours 1 minute'), 40, 1) r;
SELECT pg_temp.is_in(r.expires_at, '17 hours', '... and moves it to ttl and a sixteenth once it is nearer')
  FROM advance_upload(pg_temp.upload_with('15 hours 59 minutes'), 40, 1) r;
SELECT pg_temp.is_in(r.expires_at, '17 hours', '... an empty chunk as well')
  FROM advance_upload(pg_temp.upload_with('1 minute'), 40, 0) r;
SELECT is(r.expires_at, now() + interval '1 minute', '... but no replay') FROM advance_upload(pg_temp.upload_with('1 minute'), 0, 40) r;
SELECT is(r.expires_at, now() + interval '1 minute', '... nor a refused chunk') FROM try_advance_upload(pg_temp.upload_with('1 minute'), 50, 1) r;
SELECT is(s.expires_at, now() + interval '1 minute', '... nor the same size again') FROM declare_upload_size(pg_temp.upload_with('1 minute'), 100) s;
SELECT pg_temp.is_in(r.expires_at, '17 hours', '... each chunk of advance_uploads as well')
  FROM (SELECT ARRAY[pg_temp.upload_with('1 minute')] AS ids OFFSET 0) u, LATERAL advance_uploads(ids, ARRAY[40], ARRAY[1]) r;
SELECT pg_temp.is_in(s.expires_at, '17 hours', 'merged data moves it') FROM merge_upload_data(pg_temp.upload_with('1 minute'), '{"a": 1}') s;
SELECT pg_temp.is_in(s.expires_at, '17 hours', 'a declared size moves it') FROM declare_upload_size(pg_temp.upload_with('1 minute', NULL), 100) s;
SELECT is(r.expires_at, NULL, 'an upload that never expires goes on so')
  FROM (SELECT (start_upload('test/deadline', ttl => '0')).upload_id) u, LATERAL advance_upload(u.upload_id, 0, 1) r;
SELECT pg_temp.is_in(r.expires_at, '51 hours', '... until it is complete, and then is kept as any other')
  FROM (SELECT (start_upload('test/deadline', ttl => '0')).upload_id) u, LATERAL advance_upload(u.upload_id, 0, 1, final => true) r;

--
-- Past the deadline
--
SELECT pg_temp.upload('overdue') AS id \gset
SELECT is(s.status, 'expired', 'get_upload shows an upload past its deadline as expired') FROM get_upload(:'id') s;
SELECT is(s.status, 'expired', 'get_uploads as well') FROM get_uploads(ARRAY[:'id']) s;
SELECT is(s.status, 'expired', 'list_uploads as well') FROM list_uploads(status => 'expired') s WHERE s.upload_id = :'id';
SELECT is_empty($$ SELECT FROM list_uploads(status => 'in_progress', max_rows => 1000) WHERE expires_at <= now() $$,
	'list_uploads no longer shows it as in_progress');
SELECT is(status, 'in_progress', 'the row waits for the sweep') FROM upload_session WHERE upload_id = :'id';

--
-- The sweep
--
DELETE FROM upload_session;
DELETE FROM upload_reclaim;
SELECT is(s::text, '(0,0,0)', 'nothing to sweep') FROM sweep_uploads() s;
SELECT start_upload('test/for-ever', ttl => '0') AS row, start_upload('test/for-ever', ttl => '0', upload_id => 'deadline-live') AS live, advance_upload('deadline-live', 0, 1) AS chunk \gset
SELECT is(s::text, '(0,0,0)', 'what never expires is not swept') FROM sweep_uploads() s;
DELETE FROM upload_session;
CREATE TEMPORARY TABLE swept AS
	SELECT state, due, pg_temp.upload(state) AS upload
	  FROM unnest(ARRAY['pending', 'live', 'full', 'deferred', 'complete', 'aborted']) AS state, unnest(ARRAY[true, false]) AS due;
UPDATE upload_session SET expires_at = now() - interval '1 second' FROM swept WHERE upload_id = upload AND due;
SELECT is(s::text, '(4,2,0)', 'a sweep expires the live ones past their deadline, and purges the ended ones past their retention') FROM sweep_uploads() s;
SELECT is(s.status, 'expired', state || ' and due: expired') FROM swept LEFT JOIN upload_session s ON upload_id = upload
 WHERE due AND state NOT IN ('complete', 'aborted');
SELECT is(s.upload_id, NULL, state || ' and due: purged') FROM swept LEFT JOIN upload_session s ON upload_id = upload
 WHERE due AND state IN ('complete', 'aborted');
SELECT ok(s.status <> 'expired', state || ' and not due: left alone') FROM swept LEFT JOIN upload_session s ON upload_id = upload WHERE NOT due;
SELECT is((s.uploaded_bytes, s.total_size)::text, (SELECT (u.uploaded_bytes, u.total_size)::text FROM swept t JOIN upload_session u ON u.upload_id = t.upload WHERE t.state = swept.state AND NOT t.due),
		state || ' and due: keeps what is known of it')
  FROM swept JOIN upload_session s ON s.upload_id = upload WHERE due;
SELECT is(s::text, '(0,0,0)', 'a second sweep finds nothing') FROM sweep_uploads() s;
SELECT is(string_agg(reason || ' ' || count, ', ' ORDER BY reason), 'aborted 2, expired 4', 'what they left is queued, once; a purge queues nothing')
  FROM (SELECT reason, count(*) FROM upload_reclaim GROUP BY reason) r;

UPDATE upload_session SET expires_at = now() - interval '1 second';
SELECT is(s::text, '(3,0,0)', 'a batch is as large as its caller says, and expires first') FROM sweep_uploads(3) s;
SELECT is(s::text, '(1,4,0)', '... then it purges') FROM sweep_uploads(max_rows => 5) s;
SET LOCAL vali_blob.sweep = off;
SET LOCAL vali_blob.sweep_batch_size = 1;
SELECT is(s::text, '(0,1,0)', '... else vali_blob.sweep_batch_size') FROM sweep_uploads() s;
RESET vali_blob.sweep_batch_size;
SELECT is(s::text, '(0,1,0)', '... until nothing is left, also where the worker does not sweep') FROM sweep_uploads(NULL) s;
RESET vali_blob.sweep;
SELECT throws_ok(format('SELECT sweep_uploads(%s)', max_rows), '22023', NULL, format('a batch of %s: has a row at least', max_rows)) FROM unnest(ARRAY[0, -1]) AS max_rows;
SELECT is(count(*), 10::bigint, 'the purge leaves the reclaim queue alone: all that ten uploads have left is there') FROM upload_reclaim;
DELETE FROM upload_session;

-- A row that cannot be swept does not keep the others from it.
CREATE FUNCTION pg_temp.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON upload_session FOR EACH ROW WHEN (OLD.path = 'test/refused') EXECUTE FUNCTION pg_temp.refuse();
SELECT start_upload('test/swept', upload_id => 'deadline-1') AS a, start_upload('test/refused', upload_id => 'deadline-2') AS b, start_upload('test/swept', upload_id => 'deadline-3') AS c \gset
UPDATE upload_session SET expires_at = now() - interval '1 second' WHERE path = 'test/swept';
ALTER TABLE upload_session DISABLE TRIGGER refuse;
UPDATE upload_session SET expires_at = now() - interval '2 seconds' WHERE path = 'test/refused';
ALTER TABLE upload_session ENABLE TRIGGER refuse;
SET LOCAL client_min_messages = error;
SELECT is(s::text, '(2,0,0)', 'a sweep goes on after a row that a trigger refuses') FROM sweep_uploads() s;
SET LOCAL client_min_messages = warning;
SELECT results_eq($$ SELECT upload_id::text COLLATE "default", status::text FROM upload_session ORDER BY id $$,
	$$ VALUES ('deadline-1', 'expired'), ('deadline-2', 'pending'), ('deadline-3', 'expired') $$, '... and leaves that one as it is');
DROP TRIGGER refuse ON upload_session;
DELETE FROM upload_session;

--
-- Retention
--
CREATE FUNCTION pg_temp.ended(how text) RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
	my_id text := pg_temp.upload(CASE how WHEN 'complete_upload' THEN 'full' WHEN 'sweep_uploads' THEN 'overdue' ELSE 'live' END);
BEGIN
	CASE how
		WHEN 'complete_upload' THEN PERFORM complete_upload(my_id);
		WHEN 'final' THEN PERFORM advance_upload(my_id, 40, 60, final => true);
		WHEN 'abort_upload' THEN PERFORM abort_upload(my_id);
		WHEN 'sweep_uploads' THEN PERFORM sweep_uploads();
	END CASE;
	RETURN (SELECT expires_at FROM upload_session WHERE upload_id = my_id);
END $$;
SELECT pg_temp.is_in(pg_temp.ended(how), '51 hours', how || ': the ended upload is kept for two days, and a sixteenth more')
  FROM unnest(ARRAY['complete_upload', 'final', 'abort_upload', 'sweep_uploads']) AS how;
SET LOCAL vali_blob.retention = '32min';
SELECT pg_temp.is_in(pg_temp.ended(how), '34 minutes', how || ': ... for vali_blob.retention')
  FROM unnest(ARRAY['complete_upload', 'final', 'abort_upload', 'sweep_uploads']) AS how;
SELECT pg_temp.upload('complete') AS id \gset
SET LOCAL vali_blob.retention = '30 d';
SELECT ok(expires_at < now() + interval '35 minutes', '... as it is when the upload ends, and not later') FROM complete_upload(:'id', '{"etag": "e"}');

-- Lazily: what lies between the retention and a sixteenth more stays as it is.
CREATE FUNCTION pg_temp.kept(how text, retention text, time_left interval) RETURNS interval LANGUAGE plpgsql AS $$
DECLARE
	my_id text := (start_upload('test/kept', 100)).upload_id;
BEGIN
	PERFORM advance_upload(my_id, 0, 100);
	UPDATE upload_session SET expires_at = now() + time_left WHERE upload_id = my_id;
	PERFORM set_config('vali_blob.retention', retention, true);
	CASE how
		WHEN 'complete' THEN PERFORM complete_upload(my_id);
		WHEN 'final' THEN PERFORM advance_upload(my_id, 100, 0, final => true);
		WHEN 'abort' THEN PERFORM abort_upload(my_id);
	END CASE;
	-- to the minute; what this file takes to run is less
	RETURN (SELECT date_trunc('minute', expires_at - now() + interval '1 ms') FROM upload_session WHERE upload_id = my_id);
END $$;
SELECT is(pg_temp.kept(how, retention, time_left), kept,
		format('%s: retention %s, deadline in %s: kept for %s', how, retention, coalesce(time_left::text, 'never'), coalesce(kept::text, 'ever')))
  FROM unnest(ARRAY['complete', 'final', 'abort']) AS how, (VALUES
		('48h', interval '1 minute', interval '51 hours'),
		('48h', '47:59', '51 hours'),
		('48h', '48:05', '48:05'),
		('48h', '50:59', '50:59'),
		('48h', '51:05', '51 hours'),
		('48h', '30 days', '51 hours'),
		('48h', NULL, '51 hours'),
		('16min', '00:15', '00:17'),
		('16min', '51 hours', '00:17'),
		('0', '51 hours', '00:00'),
		('-1', '51 hours', NULL),
		('-1', NULL, NULL),
		('20000d', '51 hours', interval '21250 days')
	) AS x (retention, time_left, kept);

SET LOCAL vali_blob.retention = -1;
SELECT is(pg_temp.ended(how), NULL, how || ': ... -1: for ever')
  FROM unnest(ARRAY['complete_upload', 'final', 'abort_upload', 'sweep_uploads']) AS how;
SELECT is((SELECT purged FROM sweep_uploads()), 0::bigint, 'what is kept for ever is not purged');
SET LOCAL vali_blob.retention = 0;
SELECT pg_temp.is_in(pg_temp.ended('complete_upload'), '0', '0: gone with the next sweep');
SELECT is(s::text, '(0,1,0)', '... that is, now') FROM sweep_uploads() s;
SELECT pg_temp.upload('overdue') AS id \gset
SELECT is(s::text, '(1,0,0)', 'what a sweep expires is not purged by the same sweep') FROM sweep_uploads() s;
SELECT is(s::text, '(0,1,0)', '... but by the next one') FROM sweep_uploads() s;
RESET vali_blob.retention;

SELECT * FROM finish();
ROLLBACK;
