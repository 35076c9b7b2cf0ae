-- A call of a life in SQL, written as well as one can.  A ttl and a retention of 48
-- hours move the deadline lazily, so that all updates can be HOT.
\if :step = 0
    \set id random(5000000000000000000, 9000000000000000000)
    \set user random(0, 4999)
    \set number random(1, 1000000)
    \set size :chunks * 8388608
    \set offset 0
    INSERT INTO by_hand.upload_session
        (upload_id, owner, path, total_size, content_type, metadata, provider_data, ttl, expires_at)
    VALUES (
        :id,
        'user-' || :user,
        'videos/2025/user-' || :user || '/holiday-' || :number || '.mp4',
        :size,
        'video/mp4',
        :metadata,
        :provider_data,
        '48 hours',
        now() + interval '51 hours')
    RETURNING upload_id, expires_at;
\elif :step <= :chunks
    UPDATE by_hand.upload_session
    SET uploaded_bytes = uploaded_bytes + 8388608,
        status = 'in_progress',
        updated_at = now(),
        expires_at = CASE
            WHEN expires_at < now() + ttl THEN now() + ttl + ttl / 16
            ELSE expires_at
        END
    WHERE upload_id = :id
        AND uploaded_bytes = :offset
        AND status IN ('pending', 'in_progress')
        AND (expires_at IS NULL OR expires_at > now())
        AND (total_size IS NULL OR uploaded_bytes + 8388608 <= total_size)
    RETURNING uploaded_bytes, total_size, status, uploaded_bytes = total_size AS ready, expires_at;
    \set offset :offset + 8388608
\else
    UPDATE by_hand.upload_session
    SET status = 'complete',
        updated_at = now(),
        expires_at = CASE
            WHEN expires_at BETWEEN now() + interval '48 hours' AND now() + interval '51 hours'
                THEN expires_at
            ELSE now() + interval '51 hours'
        END
    WHERE upload_id = :id
        AND uploaded_bytes = total_size
        AND status IN ('pending', 'in_progress')
        AND (expires_at IS NULL OR expires_at > now())
    RETURNING upload_id, status, expires_at;
\endif
\set step (:step + 1) % (:chunks + 2)
