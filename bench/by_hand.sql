\set i :n * 7919 % :sessions + :client_id * :sessions
\set id 4000000000000000001 + :i * :step
\set offset :n / :sessions * 8388608
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
\set n :n + 1
