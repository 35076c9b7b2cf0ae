-- A database with the extension and a way to fill it.  A session in the midst
-- of its upload: some 300 bytes, half of a year's worth of video still to come.

CREATE EXTENSION pg_walinspect;
CREATE SCHEMA vali_blob;
CREATE EXTENSION vali_blob SCHEMA vali_blob;
SELECT vali_blob.grant_upload_access('upload_server');
GRANT SET ON PARAMETER vali_blob.row_access TO upload_server;

CREATE FUNCTION make_sessions(first bigint, last bigint, deadline timestamptz, live_every integer = 1)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO vali_blob.upload_session
        (upload_id, owner, path, total_size, status, content_type,
         metadata, provider_data, ttl, expires_at)
    SELECT 4000000000000000000 + i,
           'user-' || i % 5000,
           'videos/2025/user-' || i % 5000 || '/holiday-' || i || '.mp4',
           1::bigint << 50,
           CASE WHEN i % live_every = 0 THEN 'in_progress' ELSE 'aborted' END::vali_blob.upload_status,
           'video/mp4',
           jsonb_build_object('filename', 'holiday-' || i || '.mp4'),
           jsonb_build_object('multipart_id', md5(i::text)),
           '48 hours',
           deadline
    FROM generate_series(first, last) AS i
$$;
