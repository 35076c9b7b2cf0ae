-- A call of a life as an ORM does it: it loads a session, then saves it.
\if :step = 0
    \set id random(5000000000000000000, 9000000000000000000)
    \set user random(0, 4999)
    \set number random(1, 1000000)
    \set size :chunks * 8388608
    INSERT INTO original.upload_session
        (upload_id, path, total_size, uploaded_bytes, status, content_type, metadata, provider_data)
    VALUES (
        :id,
        'videos/2025/user-' || :user || '/holiday-' || :number || '.mp4',
        :size,
        0,
        'pending',
        'video/mp4',
        :metadata,
        :provider_data)
    RETURNING id, created_at, updated_at;
\else
    SELECT id, upload_id, bucket, path, total_size, uploaded_bytes, status, content_type,
        metadata, provider_data, created_at, updated_at
    FROM original.upload_session
    WHERE upload_id = :id
    \gset session_
    \if :step <= :chunks
        \set uploaded_bytes :session_uploaded_bytes + 8388608
        UPDATE original.upload_session
        SET uploaded_bytes = :uploaded_bytes, status = 'in_progress', updated_at = now()
        WHERE id = :session_id;
    \else
        UPDATE original.upload_session
        SET status = 'complete', updated_at = now()
        WHERE id = :session_id;
    \endif
\endif
\set step (:step + 1) % (:chunks + 2)
