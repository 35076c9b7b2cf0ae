-- Limits of 1,000 owners, and an owner with 10,000 live sessions and :ended that
-- have ended.
SELECT count(vali_blob.set_upload_quota('limited-' || i, 1000000, 1::bigint << 60))
FROM generate_series(1, 1000) AS i;
SELECT vali_blob.set_upload_quota('user-limited', 1000000, 1::bigint << 60);

INSERT INTO vali_blob.upload_session
    (upload_id, owner, path, total_size, uploaded_bytes, status, ttl, expires_at)
SELECT 3000000000000000000 + i, 'user-limited', 'videos/2025/holiday-' || i || '.mp4', 8388608,
       CASE WHEN i > 10000 THEN 8388608 ELSE 0 END,
       (CASE WHEN i > 10000 THEN 'complete' ELSE 'pending' END)::vali_blob.upload_status,
       '48 hours', now() + '51 hours'
FROM generate_series(1, 10000 + :ended) AS i;
SELECT vali_blob.start_upload('file', 1, owner => 'user-limited');
VACUUM ANALYZE;
