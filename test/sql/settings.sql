-- The settings: names, defaults, who may set them, which values they take, and
-- what each changes.
\set VERBOSITY sqlstate
\set ON_ERROR_ROLLBACK on
\pset null (null)
-- A session knows the settings once it has loaded the library.
LOAD 'vali_blob';
BEGIN;

SELECT name, vartype, context FROM pg_settings WHERE name LIKE 'vali\_blob.%' ORDER BY name COLLATE "C";
SELECT name FROM pg_settings WHERE name LIKE 'vali\_blob.%' AND name <> 'vali_blob.row_access'
    AND (short_desc = '' OR setting <> boot_val);
SELECT current_setting('vali_blob.session_ttl')::interval = '48 hours' AS session_ttl,
       current_setting('vali_blob.retention')::interval = '48 hours' AS retention,
       current_setting('vali_blob.reclaim_retention')::interval = '30 days' AS reclaim_retention,
       current_setting('vali_blob.sweep_interval')::interval = '60 seconds' AS sweep_interval;
SHOW vali_blob.require_owner;
SHOW vali_blob.sweep;
SHOW vali_blob.sweep_batch_size;

--
-- session_ttl: for sessions that name no ttl of their own
--
SET LOCAL vali_blob.session_ttl = '16h';
SELECT ttl = '16 hours' AS ttl_from_setting,
       expires_at BETWEEN now() + interval '17 hours' AND clock_timestamp() + interval '17 hours' AS deadline_from_setting
  FROM start_upload('settings/ttl', upload_id => 'settings-ttl');
SELECT ttl = '16 minutes' AS own_ttl FROM start_upload('settings/ttl', ttl => '16 minutes');
SELECT ttl, expires_at FROM start_upload('settings/ttl', ttl => '0');
SET LOCAL vali_blob.session_ttl = '90s';
SELECT ttl = '90 seconds' AS ttl_from_setting FROM start_upload('settings/ttl');
SET LOCAL vali_blob.session_ttl = -1;
SELECT ttl, expires_at FROM start_upload('settings/ttl');
SELECT ttl = '16 minutes' AS own_ttl FROM start_upload('settings/ttl', ttl => '16 minutes');
-- A session keeps the ttl that it was started with.
SELECT outcome, expires_at IS NOT NULL AS still_has_a_deadline FROM advance_upload('settings-ttl', 0, 1);
SELECT ttl = '16 hours' AS ttl_kept FROM get_upload('settings-ttl');
RESET vali_blob.session_ttl;
SELECT ttl = '48 hours' AS ttl_from_setting FROM start_upload('settings/ttl');
SET LOCAL vali_blob.session_ttl = -2;
-- Nothing that is rounded to 0 may become "never".
SET LOCAL vali_blob.session_ttl = 0;
SET LOCAL vali_blob.session_ttl = '400ms';
SET LOCAL vali_blob.session_ttl = '600ms';
SELECT ttl = '1 second' AS ttl_rounded FROM start_upload('settings/ttl');
RESET vali_blob.session_ttl;
SET LOCAL vali_blob.session_ttl = 'never';
SET LOCAL vali_blob.session_ttl = '1 fortnight';
SET LOCAL vali_blob.session_ttl = '';
SELECT current_setting('vali_blob.session_ttl')::interval = '48 hours' AS unchanged;

--
-- retention: read when the session ends, in whatever way
--
CREATE FUNCTION pg_temp.kept_with(retention text) RETURNS TABLE (way text, kept text) LANGUAGE plpgsql AS $$
DECLARE
	new_id text;
	ended timestamptz;
BEGIN
	PERFORM set_config('vali_blob.retention', retention, true);
	FOREACH way IN ARRAY ARRAY['complete', 'final', 'abort', 'sweep'] LOOP
		new_id := 'settings-' || way || retention;
		PERFORM start_upload('settings/retention', 0, upload_id => new_id);
		ended := clock_timestamp();
		CASE way
			WHEN 'complete' THEN PERFORM complete_upload(new_id);
			WHEN 'final' THEN PERFORM advance_upload(new_id, 0, 0, final => true);
			WHEN 'abort' THEN PERFORM abort_upload(new_id);
			WHEN 'sweep' THEN
				UPDATE upload_session SET expires_at = now() - interval '1 second' WHERE upload_id = new_id;
				PERFORM sweep_uploads();
		END CASE;
		SELECT coalesce(round(extract(epoch FROM expires_at - ended) / 60) || ' minutes', 'for ever')
		  INTO kept FROM upload_session WHERE upload_id = new_id;
		RETURN NEXT;
	END LOOP;
END $$;
SELECT * FROM pg_temp.kept_with('24h');
SELECT * FROM pg_temp.kept_with('90min');
SELECT * FROM pg_temp.kept_with('0');
SELECT * FROM pg_temp.kept_with('-1');
RESET vali_blob.retention;
SET LOCAL vali_blob.retention = -2;
SET LOCAL vali_blob.retention = 'short';

--
-- The others have their files (sweep, owners); here, which values they take
--
SET LOCAL vali_blob.reclaim_retention = -2;
SET LOCAL vali_blob.reclaim_retention = -1;
SET LOCAL vali_blob.reclaim_retention = '7d';
SET LOCAL vali_blob.sweep_interval = 0;
SET LOCAL vali_blob.sweep_interval = -1;
SET LOCAL vali_blob.sweep_interval = '10s';
SET LOCAL vali_blob.sweep_batch_size = 0;
SET LOCAL vali_blob.sweep_batch_size = -1;
SET LOCAL vali_blob.sweep_batch_size = 'all';
SET LOCAL vali_blob.sweep_batch_size = 10;
SET LOCAL vali_blob.require_owner = 'maybe';
SET LOCAL vali_blob.require_owner = 'off';
-- The worker sweeps or not; a call always does.
SET LOCAL vali_blob.sweep = off;
SELECT count(start_upload('settings/sweep')) FROM generate_series(1, 3);
UPDATE upload_session SET expires_at = now() - interval '1 second' WHERE path = 'settings/sweep';
SELECT expired FROM sweep_uploads();
RESET vali_blob.sweep;

--
-- Any user sets what an argument could say as well; the rest is for superusers
--
CREATE ROLE regress_vali_blob_client;
SET LOCAL ROLE regress_vali_blob_client;
SET LOCAL vali_blob.session_ttl = '1h';
SET LOCAL vali_blob.retention = '1h';
SET LOCAL vali_blob.require_owner = on;
SET LOCAL vali_blob.reclaim_retention = '1h';
SET LOCAL vali_blob.sweep = off;
SET LOCAL vali_blob.sweep_interval = '1h';
SET LOCAL vali_blob.sweep_batch_size = 1;
RESET ROLE;
ROLLBACK;
