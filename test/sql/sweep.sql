-- sweep_uploads: what expires and what is purged, in batches; what enters the
-- reclaim queue, and what leaves it by age.
\set VERBOSITY sqlstate
\set ON_ERROR_ROLLBACK on
\pset null (null)
\set session 'upload_id, status, uploaded_bytes, total_size'
BEGIN;

SELECT * FROM sweep_uploads();

-- One session in every state, each past its expires_at, and one of each that is not.
SELECT upload_id FROM start_upload('sweep/live', 10, upload_id => 'sweep-live-pending');
SELECT upload_id FROM start_upload('sweep/live', 10, upload_id => 'sweep-live-chunk');
SELECT upload_id FROM start_upload('sweep/live', 10, ttl => '0', upload_id => 'sweep-live-for-ever');
SELECT upload_id FROM start_upload('sweep/live', 0, upload_id => 'sweep-live-complete');
SELECT upload_id FROM start_upload('sweep/live', 10, upload_id => 'sweep-live-aborted');
SELECT upload_id FROM start_upload('sweep/due', 10, upload_id => 'sweep-due-pending');
SELECT upload_id FROM start_upload('sweep/due', 10, owner => 'alice', bucket => 'videos',
                                   provider_data => '{"multipart": "m-1"}', upload_id => 'sweep-due-chunk');
SELECT upload_id FROM start_upload('sweep/due', 10, provider_data => '{"multipart": "m-2"}', upload_id => 'sweep-due-full');
SELECT upload_id FROM start_upload('sweep/due', 0, provider_data => '{"multipart": "m-3"}', upload_id => 'sweep-due-complete');
SELECT upload_id FROM start_upload('sweep/due', 10, upload_id => 'sweep-due-aborted');
SELECT outcome FROM advance_upload('sweep-live-chunk', 0, 4);
SELECT outcome FROM advance_upload('sweep-due-chunk', 0, 4);
SELECT outcome FROM advance_upload('sweep-due-full', 0, 10);
SELECT status FROM complete_upload('sweep-live-complete');
SELECT status FROM complete_upload('sweep-due-complete');
SELECT status FROM abort_upload('sweep-live-aborted', 'on purpose');
SELECT status FROM abort_upload('sweep-due-aborted', 'on purpose');
UPDATE upload_session SET expires_at = now() - interval '1 second' WHERE path = 'sweep/due';

SELECT * FROM sweep_uploads();
SELECT :session, abort_reason,
       expires_at BETWEEN now() + interval '48 hours'
                      AND clock_timestamp() + interval '48 hours' AS kept_two_days
  FROM upload_session WHERE path LIKE 'sweep/%' ORDER BY path, id;
-- What they left in storage is queued in the same transaction; a complete session left nothing.
SELECT upload_id, owner, bucket, path, provider_data, reason, attempts, claimed_until, last_error,
       enqueued_at BETWEEN now() AND clock_timestamp() AS enqueued_now
  FROM upload_reclaim ORDER BY upload_id;
-- Swept once, swept for good.
SELECT * FROM sweep_uploads();
SELECT count(*) FROM upload_reclaim;
-- The purge leaves the queue alone.
UPDATE upload_session SET expires_at = now() - interval '1 second' WHERE path = 'sweep/due';
SELECT * FROM sweep_uploads();
SELECT :session FROM upload_session WHERE path LIKE 'sweep/%' ORDER BY path, id;
SELECT upload_id FROM upload_reclaim ORDER BY upload_id;
DELETE FROM upload_session WHERE path LIKE 'sweep/%';
DELETE FROM upload_reclaim WHERE path LIKE 'sweep/%';

-- In batches: expiry goes first, both together are at most max_rows.
SELECT count(start_upload('sweep/batch', upload_id => 'sweep-batch-' || i)) FROM generate_series(1, 6) AS i;
SELECT count(abort_upload('sweep-batch-' || i)) FROM generate_series(4, 6) AS i;
UPDATE upload_session SET expires_at = now() - interval '1 second' WHERE path = 'sweep/batch';
SELECT * FROM sweep_uploads(1);
SELECT * FROM sweep_uploads(max_rows => 3);
SELECT * FROM sweep_uploads(1);
SELECT * FROM sweep_uploads(2147483647);
SELECT * FROM sweep_uploads(NULL);
-- Without max_rows a batch is vali_blob.sweep_batch_size.
UPDATE upload_session SET expires_at = now() - interval '1 second' WHERE path = 'sweep/batch';
SET LOCAL vali_blob.sweep_batch_size = 2;
SELECT * FROM sweep_uploads();
SELECT * FROM sweep_uploads(NULL);
RESET vali_blob.sweep_batch_size;
SELECT sweep_uploads(0);
SELECT sweep_uploads(-1);

-- What was expired by a batch is purged by a later one, even with no retention.
SET LOCAL vali_blob.retention = 0;
SELECT upload_id FROM start_upload('sweep/retention', upload_id => 'sweep-retention');
UPDATE upload_session SET expires_at = now() - interval '1 second' WHERE path = 'sweep/retention';
SELECT * FROM sweep_uploads();
SELECT :session FROM get_upload('sweep-retention');
SELECT * FROM sweep_uploads();
SELECT :session FROM get_upload('sweep-retention');
-- Kept for ever: an ended session has no deadline any more.
SET LOCAL vali_blob.retention = -1;
SELECT upload_id FROM start_upload('sweep/retention', upload_id => 'sweep-kept');
UPDATE upload_session SET expires_at = now() - interval '1 second' WHERE path = 'sweep/retention';
SELECT * FROM sweep_uploads();
SELECT :session, expires_at FROM get_upload('sweep-kept');
SELECT * FROM sweep_uploads();
RESET vali_blob.retention;
-- The retention at the end of the session counts, not the one at the sweep.
SELECT upload_id FROM start_upload('sweep/retention', 0, upload_id => 'sweep-short');
SET LOCAL vali_blob.retention = '10min';
SELECT expires_at BETWEEN now() + interval '10 minutes'
                      AND clock_timestamp() + interval '10 minutes' AS kept_ten_minutes
  FROM complete_upload('sweep-short');
RESET vali_blob.retention;

-- Reclaim rows past vali_blob.reclaim_retention go, also those that keep failing, and are counted.
SELECT count(start_upload('sweep/age', provider_data => '{"multipart": "m"}', upload_id => 'sweep-age-' || i))
  FROM generate_series(1, 4) AS i;
SELECT count(abort_upload('sweep-age-' || i)) FROM generate_series(1, 4) AS i;
UPDATE upload_reclaim SET enqueued_at = now() - interval '31 days' WHERE upload_id IN ('sweep-age-1', 'sweep-age-2');
UPDATE upload_reclaim SET enqueued_at = now() - interval '29 days' WHERE upload_id = 'sweep-age-3';
SELECT fail_reclaim(id, 'no such multipart upload') FROM upload_reclaim WHERE upload_id = 'sweep-age-2';
SET LOCAL vali_blob.reclaim_retention = -1;
SELECT * FROM sweep_uploads();
SELECT upload_id FROM upload_reclaim ORDER BY upload_id;
RESET vali_blob.reclaim_retention;
SELECT * FROM sweep_uploads();
SELECT upload_id FROM upload_reclaim ORDER BY upload_id;
SET LOCAL vali_blob.reclaim_retention = '1d';
SELECT * FROM sweep_uploads();
SELECT upload_id FROM upload_reclaim ORDER BY upload_id;
ROLLBACK;
