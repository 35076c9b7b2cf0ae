\set i :n * 7919 % :sessions + :client_id * :sessions
\set id 4000000000000000001 + :i * :step
BEGIN;
SELECT id, upload_id, bucket, path, total_size, uploaded_bytes, status, content_type,
    metadata, provider_data, created_at, updated_at
FROM original.upload_session
WHERE upload_id = :id
\gset session_
\set uploaded_bytes :session_uploaded_bytes + 8388608
UPDATE original.upload_session
SET uploaded_bytes = :uploaded_bytes, status = 'in_progress', updated_at = now()
WHERE id = :session_id;
COMMIT;
\set n :n + 1
