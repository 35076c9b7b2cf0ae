-- Every error with its SQLSTATE, message, detail and hint, under the call that
-- raises it: the message names the upload and the values, the detail of VB002 and
-- VB005 is a JSON object.
\pset format unaligned
\pset tuples_only on
BEGIN;

-- What a call raises, as a program sees it.
CREATE FUNCTION pg_temp.raised(call text, OUT code text, OUT message text, OUT detail text, OUT hint text)
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE 'SELECT ' || call;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
		detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
END $$;
CREATE FUNCTION pg_temp.refused(call text) RETURNS text LANGUAGE sql AS $$
	SELECT concat(code, ': ', message, E'\nDETAIL: ' || nullif(detail, ''), E'\nHINT: ' || nullif(hint, '')) FROM pg_temp.raised(call)
$$;

SELECT count(start_upload('errors/' || id, 100, provider_data => '{"multipart": "m"}', owner => 'alice', upload_id => 'errors-' || id))
  FROM unnest(ARRAY['live', 'full', 'complete', 'aborted', 'expired', 'stale']) AS id;
SELECT count(start_upload('errors/deferred', upload_id => 'errors-deferred'));
SELECT count(advance_upload('errors-' || id, 0, 40)) FROM unnest(ARRAY['live', 'aborted', 'expired', 'stale', 'deferred']) AS id;
SELECT count(advance_upload('errors-' || id, 0, 100)) FROM unnest(ARRAY['full', 'complete']) AS id;
SELECT status FROM complete_upload('errors-complete');
SELECT status FROM abort_upload('errors-aborted', 'the user pressed cancel');
UPDATE upload_session SET expires_at = '2020-02-02 20:20:20+00' WHERE upload_id = 'errors-expired';
SELECT expired FROM sweep_uploads();
UPDATE upload_session SET expires_at = '2020-02-02 20:20:20+00' WHERE upload_id IN ('errors-stale', 'errors-expired');

-- VB001: not found, by an unknown id or with another owner; the two cannot be told apart.
SELECT pg_temp.refused($$ advance_upload('errors-unknown', 0, 1) $$);
SELECT pg_temp.refused($$ advance_upload('errors-live', 40, 1, owner => 'bob') $$);
SELECT pg_temp.refused($$ declare_upload_size('errors-unknown', 1) $$);
SELECT pg_temp.refused($$ merge_upload_data('errors-unknown', '{}') $$);
SELECT pg_temp.refused($$ complete_upload('errors-unknown') $$);
SELECT pg_temp.refused($$ abort_upload('errors-unknown') $$);
SELECT pg_temp.refused($$ abort_upload('errors-live', owner => 'bob') $$);
SELECT pg_temp.refused($$ advance_upload('', 0, 1) $$);

-- VB002: a gap, an overlap.
SELECT pg_temp.refused($$ advance_upload('errors-live', 50, 10) $$);
SELECT pg_temp.refused($$ advance_upload('errors-live', 30, 20) $$);
SELECT pg_temp.refused($$ advance_upload('errors-deferred', 9223372036854775807, 0) $$);

-- VB003: aborted, complete.
SELECT pg_temp.refused($$ advance_upload('errors-aborted', 40, 1) $$);
SELECT pg_temp.refused($$ advance_upload('errors-complete', 100, 1) $$);
SELECT pg_temp.refused($$ declare_upload_size('errors-aborted', 100) $$);
SELECT pg_temp.refused($$ merge_upload_data('errors-complete', '{}') $$);
SELECT pg_temp.refused($$ complete_upload('errors-aborted') $$);
SELECT pg_temp.refused($$ abort_upload('errors-complete') $$);

-- VB004: expired, swept or not.
SELECT pg_temp.refused($$ advance_upload('errors-expired', 40, 1) $$);
SELECT pg_temp.refused($$ advance_upload('errors-stale', 40, 1) $$);
SELECT pg_temp.refused($$ declare_upload_size('errors-stale', 100) $$);
SELECT pg_temp.refused($$ merge_upload_data('errors-expired', '{}') $$);
SELECT pg_temp.refused($$ complete_upload('errors-stale') $$);
SELECT pg_temp.refused($$ abort_upload('errors-expired') $$);

-- VB005: past the declared size, or a size below what is there.
SELECT pg_temp.refused($$ advance_upload('errors-live', 40, 61) $$);
SELECT pg_temp.refused($$ advance_upload('errors-live', 40, 9223372036854775767) $$);
SELECT pg_temp.refused($$ declare_upload_size('errors-deferred', 39) $$);

-- VB006: a final chunk that is not, a completion before the end.
SELECT pg_temp.refused($$ advance_upload('errors-live', 40, 59, final => true) $$);
SELECT pg_temp.refused($$ complete_upload('errors-live') $$);
SELECT pg_temp.refused($$ complete_upload('errors-deferred') $$);

-- VB007: a second, different size.
SELECT pg_temp.refused($$ declare_upload_size('errors-live', 101) $$);

-- Bad values: nulls, negative numbers, too long, no object, a number out of range.
SELECT pg_temp.refused($$ start_upload(NULL) $$);
SELECT pg_temp.refused($$ start_upload('') $$);
SELECT pg_temp.refused($$ start_upload('errors/new', upload_id => '') $$);
SELECT pg_temp.refused($$ start_upload('errors/new', upload_id => 'errors-live') $$);
SELECT pg_temp.refused($$ start_upload('errors/new', -5, upload_id => 'errors-new') $$);
SELECT pg_temp.refused($$ start_upload('errors/new', ttl => '-1 hour', upload_id => 'errors-new') $$);
SELECT pg_temp.refused($$ start_upload('errors/new', ttl => '300000 years', upload_id => 'errors-new') $$);
SELECT pg_temp.refused($$ start_upload('errors/new', metadata => '[1]', upload_id => 'errors-new') $$);
SELECT pg_temp.refused($$ start_upload('errors/new', provider_data => 'null', upload_id => 'errors-new') $$);
SELECT pg_temp.refused($$ start_upload('errors/new', metadata => '"text"') $$);
SELECT pg_temp.refused($$ start_upload('errors/new', -5) $$);
SELECT pg_temp.refused($$ start_upload('errors/new', upload_id => repeat('x', 129)) $$);
SELECT pg_temp.refused($$ start_upload('errors/new', upload_id => repeat('x', 100000)) $$);
SELECT pg_temp.refused($$ start_upload(repeat('x', 2049), upload_id => 'errors-new') $$);
SELECT pg_temp.refused($$ start_upload('errors/new', bucket => repeat('x', 257), upload_id => 'errors-new') $$);
SELECT pg_temp.refused($$ start_upload('errors/new', content_type => repeat('x', 257), upload_id => 'errors-new') $$);
SELECT pg_temp.refused($$ advance_upload(NULL, 0, 1) $$);
SELECT pg_temp.refused($$ advance_upload('errors-live', NULL, 1) $$);
SELECT pg_temp.refused($$ advance_upload('errors-live', 40, NULL) $$);
SELECT pg_temp.refused($$ advance_upload('errors-live', -40, 1) $$);
SELECT pg_temp.refused($$ advance_upload('errors-live', 40, -1) $$);
SELECT pg_temp.refused($$ advance_upload('errors-live', 40, 9223372036854775807) $$);
SELECT pg_temp.refused($$ advance_upload('errors-live', 40, 1, provider_data => '"text"') $$);
SELECT pg_temp.refused($$ try_advance_upload('errors-live', 40, -1) $$);
SELECT pg_temp.refused($$ try_advance_upload('errors-live', 40, 9223372036854775807) $$);
SELECT pg_temp.refused($$ advance_uploads(ARRAY['errors-live', 'errors-full'], ARRAY[40], ARRAY[1, 1]) $$);
SELECT pg_temp.refused($$ advance_uploads(ARRAY['errors-live', NULL], ARRAY[40, 40], ARRAY[1, 1]) $$);
SELECT pg_temp.refused($$ advance_uploads(ARRAY['errors-live', 'errors-full'], ARRAY[40, NULL], ARRAY[1, 1]) $$);
SELECT pg_temp.refused($$ advance_uploads(ARRAY['errors-live', 'errors-full'], ARRAY[40, 40], ARRAY[1, -1]) $$);
SELECT pg_temp.refused($$ advance_uploads(NULL, ARRAY[40, 40], ARRAY[1, -1]) $$);
SELECT pg_temp.refused($$ advance_uploads(ARRAY[['errors-live'], ['errors-full']], ARRAY[40, 40], ARRAY[1, 1]) $$);
SELECT pg_temp.refused($$ declare_upload_size(NULL, 1) $$);
SELECT pg_temp.refused($$ declare_upload_size('errors-deferred', NULL) $$);
SELECT pg_temp.refused($$ declare_upload_size('errors-deferred', -1) $$);
SELECT pg_temp.refused($$ merge_upload_data(NULL, '{}') $$);
SELECT pg_temp.refused($$ merge_upload_data('errors-live', '[]') $$);
SELECT pg_temp.refused($$ merge_upload_data('errors-live', provider_data => '[]') $$);
SELECT pg_temp.refused($$ complete_upload(NULL) $$);
SELECT pg_temp.refused($$ complete_upload('errors-full', '"text"') $$);
SELECT pg_temp.refused($$ abort_upload(NULL) $$);
SELECT pg_temp.refused($$ get_upload(NULL) $$);
SELECT pg_temp.refused($$ get_uploads(NULL) $$);
SELECT pg_temp.refused($$ list_uploads(max_rows => 0) $$);
SELECT pg_temp.refused($$ list_uploads(max_rows => NULL) $$);
SELECT pg_temp.refused($$ list_uploads(idle_for => '-1 hour') $$);
SELECT pg_temp.refused($$ delete_upload(NULL) $$);
SELECT pg_temp.refused($$ sweep_uploads(0) $$);
SELECT pg_temp.refused($$ claim_reclaims(0) $$);
SELECT pg_temp.refused($$ claim_reclaims(NULL) $$);
SELECT pg_temp.refused($$ claim_reclaims(lease => '-1 hour') $$);
SELECT pg_temp.refused($$ claim_reclaims(lease => NULL) $$);
SELECT pg_temp.refused($$ finish_reclaim(NULL) $$);
SELECT pg_temp.refused($$ fail_reclaim(NULL, 'error') $$);
SELECT pg_temp.refused($$ grant_upload_access(NULL) $$);
SELECT pg_temp.refused($$ grant_upload_access('regress_vali_blob_nobody') $$);
-- VB008: somebody else has the lease, or has had it since.
SELECT count(start_upload('other', 100, owner => 'ann', upload_id => 'errors-leased')), count(acquire_upload_lease('errors-leased', 'server 1', '1 hour')) FROM (VALUES (1)) AS one;
SELECT epoch FROM acquire_upload_lease('errors-leased', 'server 2', '1 hour', take_over => true);
SELECT pg_temp.refused($$ advance_upload('errors-leased', 0, 1) $$);
SELECT pg_temp.refused($$ advance_upload('errors-leased', 0, 1, lease_epoch => 1) $$);
SELECT pg_temp.refused($$ advance_upload('errors-leased', 0, 1, lease_epoch => 3) $$);
SELECT pg_temp.refused($$ acquire_upload_lease('errors-nobody', 'server') $$);
SELECT pg_temp.refused($$ acquire_upload_lease('errors-leased', NULL) $$);
SELECT pg_temp.refused($$ acquire_upload_lease('errors-leased', '') $$);
SELECT pg_temp.refused($$ acquire_upload_lease('errors-leased', repeat('x', 257)) $$);
SELECT pg_temp.refused($$ acquire_upload_lease('errors-leased', 'server', '0') $$);
SELECT pg_temp.refused($$ renew_upload_lease('errors-leased', NULL) $$);
SELECT pg_temp.refused($$ renew_upload_lease('errors-leased', 2, NULL) $$);
-- VB009: beyond a limit.
SELECT max_live_uploads FROM set_upload_quota('ann', 1, 200, 150);
SELECT pg_temp.refused($$ start_upload('other', 10, owner => 'ann', upload_id => 'errors-limit') $$);
SELECT max_live_uploads FROM set_upload_quota('ann', -1, 200, 150);
SELECT pg_temp.refused($$ start_upload('other', 101, owner => 'ann', upload_id => 'errors-limit') $$);
SELECT pg_temp.refused($$ start_upload('other', 151, owner => 'ann', upload_id => 'errors-limit') $$);
SELECT pg_temp.refused($$ start_upload('other', 51, owner => 'ann', size_limit => 50, upload_id => 'errors-limit') $$);
SELECT max_live_uploads FROM set_upload_quota('ann', -1, 200);
SELECT pg_temp.refused($$ start_upload('other', owner => 'ann', upload_id => 'errors-limit') $$);
SELECT pg_temp.refused($$ set_upload_quota('ann', -2) $$);
SELECT pg_temp.refused($$ set_upload_quota(NULL) $$);
SELECT pg_temp.refused($$ upload_usage(NULL) $$);
-- Partial uploads.
SELECT count(start_upload('other', 100, upload_id => 'errors-partial', partial => true));
SELECT pg_temp.refused($$ try_advance_upload('errors-partial', 0, 100, true) $$);
SELECT pg_temp.refused($$ start_upload('other', partial => true, auto_complete => true) $$);
SELECT pg_temp.refused($$ concatenate_uploads('other', '{}') $$);
SELECT pg_temp.refused($$ concatenate_uploads('other', '{errors-partial}') $$);
SELECT pg_temp.refused($$ concatenate_uploads('other', '{errors-live}') $$);

-- A forgotten owner.
SET LOCAL vali_blob.require_owner = on;
SELECT pg_temp.refused($$ advance_upload('errors-live', 40, 1) $$);
SELECT pg_temp.refused($$ advance_uploads(ARRAY['errors-live'], ARRAY[40], ARRAY[1]) $$);
RESET vali_blob.require_owner;

-- Values inside messages stay what they are.
SELECT pg_temp.refused($$ abort_upload('100%s "of" it''s \n') $$);
SELECT pg_temp.refused($$ abort_upload(U&'\52D5\753B') $$);

-- The error of a duplicate id is about the caller's statement, not about ours.
SAVEPOINT context;
DO $$ BEGIN PERFORM start_upload('errors/new', upload_id => 'errors-live'); END $$;
ROLLBACK TO context;

-- What is too long for an index: for one of ours it is the path or the owner,
-- for an administrator's it is the administrator's error.
SELECT string_agg(md5(i::text), '') AS incompressible FROM generate_series(1, 300) AS i \gset
SELECT code, message FROM pg_temp.raised(format($$ start_upload('errors/new', owner => %L, upload_id => 'errors-new') $$, left(:'incompressible', 5000)));
SELECT code, message FROM pg_temp.raised(format($$ start_upload('errors/new', owner => %L, upload_id => 'errors-new') $$, :'incompressible'));
CREATE INDEX errors_metadata_idx ON upload_session ((metadata ->> 'a'));
SELECT code, message FROM pg_temp.raised(format($$ start_upload('errors/new', metadata => jsonb_build_object('a', %L), upload_id => 'errors-new') $$, left(:'incompressible', 5000)));
SELECT code, regexp_replace(message, '\d{4}', 'N') AS message -- how small it is compressed depends on the server
FROM pg_temp.raised(format($$ start_upload('errors/new', metadata => jsonb_build_object('a', %L), upload_id => 'errors-new') $$, :'incompressible'));
DROP INDEX errors_metadata_idx;

-- Nothing of all this has changed anything.
SELECT upload_id, status, uploaded_bytes, total_size, metadata, provider_data
  FROM upload_session WHERE path LIKE 'errors/%' ORDER BY id;
SELECT upload_id, reason FROM upload_reclaim WHERE path LIKE 'errors/%' ORDER BY id;

-- A program branches on the code.
DO $$
BEGIN
	PERFORM advance_upload('errors-live', 50, 10);
EXCEPTION
	WHEN SQLSTATE 'VB002' THEN RAISE INFO 'conflict';
END $$;
ROLLBACK;
