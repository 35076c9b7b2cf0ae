-- The reclaim queue: what enters it, how it is claimed, finished and failed.
BEGIN;
\ir lib/uploads.sql
SELECT no_plan();
DELETE FROM upload_session;
DELETE FROM upload_reclaim;

--
-- What a dead upload left behind enters the queue, once
--
SELECT start_upload('test/reclaim', 100, provider_data => '{"multipart": "m"}', owner => 'alice', bucket => 'videos', upload_id => 'reclaim-1') AS row \gset
SELECT abort_upload('reclaim-1') AS row \gset
SELECT is((upload_id, owner, bucket, path, provider_data, reason)::text,
		ROW('reclaim-1', 'alice', 'videos', 'test/reclaim', '{"multipart": "m"}'::jsonb, 'aborted')::text,
		'an aborted upload leaves all that is needed to free its parts')
  FROM upload_reclaim;
SELECT is((attempts, claimed_until, last_error)::text, '(0,,)', '... not claimed, not failed') FROM upload_reclaim;
SELECT ok(enqueued_at BETWEEN now() AND clock_timestamp(), '... with the time') FROM upload_reclaim;
SELECT abort_upload('reclaim-1') AS row \gset
SELECT is(count(*), 1::bigint, 'a second abort queues nothing') FROM upload_reclaim;
SELECT delete_upload('reclaim-1') AS row \gset
SELECT is(count(*), 1::bigint, 'what is queued stays queued when the upload is deleted') FROM upload_reclaim;

CREATE FUNCTION pg_temp.queued_by(state text, call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	my_id text;
BEGIN
	DELETE FROM upload_reclaim;
	my_id := pg_temp.upload(state);
	DELETE FROM upload_reclaim;
	PERFORM pg_temp.raised(format('SELECT ' || call, my_id));
	RETURN (SELECT string_agg(reason::text, ', ') FROM upload_reclaim WHERE upload_id = my_id);
END $$;
SELECT is(pg_temp.queued_by(state, call), reason, format('%s, %s: %s', replace(call, '%L', '...'), state, coalesce(reason, 'nothing')))
  FROM (VALUES
		('pending', 'abort_upload(%L)', 'aborted'),
		('live', 'abort_upload(%L)', 'aborted'),
		('full', 'abort_upload(%L)', 'aborted'),
		('pending due', 'sweep_uploads()', 'expired'),
		('overdue', 'sweep_uploads()', 'expired'),
		('live', 'delete_upload(%L)', 'aborted'),
		('overdue', 'delete_upload(%L)', 'expired'),
		('pending', 'delete_upload(%L)', 'aborted'),
		('full', 'delete_upload(%L)', 'aborted'),
		('pending due', 'delete_upload(%L)', 'expired'),
		('live', 'sweep_uploads()', NULL),
		('complete due', 'sweep_uploads()', NULL),
		('aborted due', 'sweep_uploads()', NULL),
		('aborted', 'abort_upload(%L)', NULL),
		('full', 'complete_upload(%L)', NULL),
		('live', 'advance_upload(%L, 40, 60, true)', NULL),
		('complete', 'delete_upload(%L)', NULL),
		('aborted', 'delete_upload(%L)', NULL),
		('expired', 'delete_upload(%L)', NULL),
		('overdue', 'abort_upload(%L)', NULL),
		('overdue', 'advance_upload(%L, 40, 1)', NULL)
	) AS x (state, call, reason);

CREATE FUNCTION pg_temp.queued_with(provider_data jsonb) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	my_id text := (start_upload('test/reclaim', provider_data => provider_data)).upload_id;
BEGIN
	PERFORM abort_upload(my_id);
	RETURN (SELECT count(*) FROM upload_reclaim WHERE upload_id = my_id);
END $$;
SELECT is(pg_temp.queued_with(NULL), 0::bigint, 'an upload without provider ids leaves nothing');
SELECT is(pg_temp.queued_with('{}'), 0::bigint, '... nor does one with an empty object');
SELECT is(pg_temp.queued_with('{"a": {}}'), 1::bigint, '... any key counts');
DELETE FROM upload_reclaim;
SELECT merge_upload_data((start_upload('test/reclaim', provider_data => '{"a": 1}', upload_id => 'reclaim-2')).upload_id, provider_data => '{"a": null}') AS row \gset
SELECT abort_upload('reclaim-2') AS row \gset
SELECT is(count(*), 0::bigint, '... unless it was removed again') FROM upload_reclaim;

--
-- Claims
--
DELETE FROM upload_session;
INSERT INTO upload_reclaim (upload_id, path, provider_data, reason, enqueued_at, attempts)
	SELECT 'reclaim-' || n, 'test/reclaim', '{}', 'aborted', now(), 0 FROM generate_series(1, 5) AS n;
SELECT results_eq('SELECT upload_id::text COLLATE "default" FROM claim_reclaims(2)', ARRAY['reclaim-1', 'reclaim-2'], 'rows are claimed in the order they came');
SELECT results_eq('SELECT upload_id::text COLLATE "default" FROM claim_reclaims()', ARRAY['reclaim-3', 'reclaim-4', 'reclaim-5'], 'each by one caller');
SELECT is_empty('SELECT upload_id FROM claim_reclaims()', 'and no more');
SELECT ok(bool_and(claimed_until BETWEEN now() + interval '5 minutes' AND clock_timestamp() + interval '5 minutes'), 'a lease lasts five minutes')
  FROM upload_reclaim;
UPDATE upload_reclaim SET claimed_until = now() - interval '1 second' WHERE upload_id IN ('reclaim-2', 'reclaim-4');
SELECT results_eq('SELECT upload_id::text COLLATE "default" FROM claim_reclaims(lease => ''1 hour'')', ARRAY['reclaim-2', 'reclaim-4'],
	'a lease that ran out is handed out again');
SELECT ok(bool_and(claimed_until BETWEEN now() + interval '1 hour' AND clock_timestamp() + interval '1 hour'), '... for as long as the caller says')
  FROM upload_reclaim WHERE upload_id IN ('reclaim-2', 'reclaim-4');
SELECT ok(bool_and(attempts = 0), 'a claim is no attempt') FROM upload_reclaim;
INSERT INTO upload_reclaim (upload_id, path, provider_data, reason) VALUES ('reclaim-6', 'test/reclaim', '{}', 'aborted');
UPDATE upload_reclaim SET claimed_until = now() - CASE upload_id WHEN 'reclaim-1' THEN interval '1 minute' ELSE interval '2 minutes' END
 WHERE upload_id IN ('reclaim-1', 'reclaim-3');
SELECT results_eq('SELECT upload_id::text COLLATE "default" FROM unnest(ARRAY[1, 1, 1]) AS n, LATERAL claim_reclaims(n)', ARRAY['reclaim-6', 'reclaim-3', 'reclaim-1'],
	'what nobody has claimed yet comes first, then what was due first');
DELETE FROM upload_reclaim WHERE upload_id = 'reclaim-6';
UPDATE upload_reclaim SET claimed_until = NULL WHERE upload_id = 'reclaim-1';
SELECT c AS claimed FROM claim_reclaims(lease => '1 microsecond', max_rows => 2147483647) c \gset
SELECT is(r::text, :'claimed', 'what is returned is what is stored') FROM upload_reclaim r WHERE upload_id = 'reclaim-1';
SELECT throws_ok(format('SELECT claim_reclaims(%s)', arguments), code, NULL, 'claim_reclaims: ' || sentence)
  FROM (VALUES ('0', '22023', 'no rows'), ('-1', '22023', 'less than none'), ('NULL', '22004', 'null rows'), ('1, ''0''', '22023', 'no lease'),
		('1, ''-1 second''', '22023', 'a lease in the past'), ('1, ''1 day -25 hours''', '22023', '... however it is written'),
		('1, ''300000 years''', '22023', 'a lease that leads out of the calendar'), ('1, NULL', '22004', 'a null lease')) AS x (arguments, code, sentence);

--
-- Finished
--
SELECT id FROM upload_reclaim WHERE upload_id = 'reclaim-1' \gset
SELECT ok(finish_reclaim(:id), 'a row is finished');
SELECT is(count(*), 0::bigint, '... and gone') FROM upload_reclaim WHERE upload_id = 'reclaim-1';
SELECT ok(NOT finish_reclaim(:id), '... once');
SELECT ok(NOT fail_reclaim(:id, 'too late'), '... and cannot fail any more');
SELECT ok(NOT finish_reclaim(unknown), format('there is no row %s', unknown)) FROM unnest(ARRAY[0, -1, 9223372036854775807]) AS unknown;

--
-- Failed
--
CREATE FUNCTION pg_temp.delay_after_failure(id bigint, error text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	since timestamptz := clock_timestamp();
BEGIN
	PERFORM fail_reclaim(id, error);
	RETURN (SELECT floor(extract(epoch FROM r.claimed_until - since)) FROM upload_reclaim r WHERE r.id = $1);
END $$;
SELECT id FROM upload_reclaim WHERE upload_id = 'reclaim-2' \gset
SELECT is(pg_temp.delay_after_failure(:id, 'failure ' || n), seconds, format('failure %s: back in the queue after %s seconds', n, seconds))
  FROM unnest(ARRAY[15, 30, 60, 120, 240, 480, 960, 1920, 3600, 3600]) WITH ORDINALITY AS x (seconds, n);
SELECT is((attempts, last_error)::text, '(10,"failure 10")', 'attempts are counted, the last error is kept') FROM upload_reclaim WHERE id = :id;
SELECT is_empty($$ SELECT FROM claim_reclaims() WHERE upload_id = 'reclaim-2' $$, 'it is not handed out before the delay is over');
UPDATE upload_reclaim SET attempts = 100000 WHERE id = :id;
SELECT is(pg_temp.delay_after_failure(:id, 'hopeless'), 3600, 'an hour is the longest delay, however often it fails');
UPDATE upload_reclaim SET attempts = 10, last_error = 'failure 10' WHERE id = :id;
UPDATE upload_reclaim SET claimed_until = now() - interval '1 second' WHERE id = :id;
SELECT is((c.upload_id, c.attempts, c.last_error)::text, '(reclaim-2,10,"failure 10")', 'who claims it next is told') FROM claim_reclaims() c;
SELECT ok(finish_reclaim(:id), 'and may still finish it');
SELECT throws_ok('SELECT finish_reclaim(NULL)', '22004', NULL, 'finish_reclaim: a null id');
SELECT throws_ok('SELECT fail_reclaim(NULL, ''error'')', '22004', NULL, 'fail_reclaim: a null id');

--
-- Given up
--
SELECT fail_reclaim(id, 'no such multipart upload') FROM upload_reclaim WHERE upload_id = 'reclaim-3' \gset
UPDATE upload_reclaim SET enqueued_at = now() - interval '31 days' WHERE upload_id IN ('reclaim-3', 'reclaim-4');
UPDATE upload_reclaim SET enqueued_at = now() - interval '29 days' WHERE upload_id = 'reclaim-5';
SET LOCAL vali_blob.reclaim_retention = -1;
SELECT is(s.reclaims_dropped, 0::bigint, 'no row is dropped where vali_blob.reclaim_retention is -1') FROM sweep_uploads() AS s;
SELECT is(count(*), 3::bigint, 'all are kept') FROM upload_reclaim;
RESET vali_blob.reclaim_retention;
SELECT is(s.reclaims_dropped, 2::bigint, 'a sweep says how many rows it drops') FROM sweep_uploads() AS s;
SELECT is(string_agg(upload_id, ', ' ORDER BY id), 'reclaim-5', 'else the sweep gives up on them after 30 days, also on those that keep failing') FROM upload_reclaim;
SET LOCAL vali_blob.reclaim_retention = '28d';
SELECT is(s.reclaims_dropped, 1::bigint, 'vali_blob.reclaim_retention is when it gives up') FROM sweep_uploads() AS s;
SELECT abort_upload((start_upload('test/reclaim', provider_data => '{"a": 1}')).upload_id) AS row \gset
SELECT is(s.reclaims_dropped, 0::bigint, '... no earlier') FROM sweep_uploads() AS s;
SET LOCAL vali_blob.reclaim_retention = 0;
SELECT is(s.reclaims_dropped, 1::bigint, '... 0: with the next sweep') FROM sweep_uploads() AS s;

SELECT * FROM finish();
ROLLBACK;
