-- What vali_blob is compared with: each in a schema of its own, with the same
-- sessions.

-- The same table, for a hand-written UPDATE and for a PL/pgSQL function

CREATE SCHEMA by_hand;
CREATE TABLE by_hand.upload_session (LIKE vali_blob.upload_session INCLUDING ALL);

CREATE SCHEMA by_function;
CREATE TABLE by_function.upload_session (LIKE vali_blob.upload_session INCLUDING ALL);

SELECT format('ALTER TABLE %I.upload_session SET (%s)', schema, array_to_string(reloptions, ', '))
FROM pg_class, unnest('{by_hand,by_function}'::text[]) AS schema
WHERE oid = 'vali_blob.upload_session'::regclass
\gexec

INSERT INTO by_hand.upload_session TABLE vali_blob.upload_session;
INSERT INTO by_function.upload_session TABLE vali_blob.upload_session;
SELECT setval('by_hand.upload_session_id_seq', max(id)) FROM by_hand.upload_session;

-- The rules of try_advance_upload, but for nowait and provider_data
CREATE FUNCTION by_function.try_advance_upload(
    p_upload_id text,
    p_offset bigint,
    p_length bigint,
    p_final boolean = false,
    p_owner text = NULL)
RETURNS vali_blob.chunk_result LANGUAGE plpgsql AS $$
DECLARE
    session record;
    result vali_blob.chunk_result;
    moment timestamptz;
    chunk_end bigint := p_offset + p_length;
BEGIN
    SELECT id, owner, uploaded_bytes, total_size, status, ttl, expires_at
    INTO session
    FROM by_function.upload_session
    WHERE upload_id = p_upload_id
    FOR UPDATE;

    IF NOT FOUND OR session.owner IS DISTINCT FROM coalesce(p_owner, session.owner) THEN
        result.outcome := 'not_found';
        result.ready := false;
        RETURN result;
    END IF;

    moment := clock_timestamp();
    result.outcome := CASE
        WHEN session.status = 'aborted' THEN 'ended'
        WHEN session.status = 'expired'
            OR session.status <> 'complete' AND session.expires_at <= moment THEN 'expired'
        WHEN chunk_end <= session.uploaded_bytes
            AND (p_length > 0 OR session.status = 'complete') THEN 'replayed'
        WHEN session.status = 'complete' THEN 'ended'
        WHEN p_offset <> session.uploaded_bytes THEN 'conflict'
        WHEN chunk_end > session.total_size THEN 'too_large'
        WHEN p_final AND chunk_end < session.total_size THEN 'incomplete'
        ELSE 'advanced'
    END;

    IF result.outcome = 'advanced' THEN
        UPDATE by_function.upload_session
        SET uploaded_bytes = chunk_end,
            total_size = CASE WHEN p_final THEN chunk_end ELSE total_size END,
            status = CASE WHEN p_final THEN 'complete'::vali_blob.upload_status ELSE 'in_progress' END,
            updated_at = moment,
            expires_at = CASE
                WHEN p_final AND expires_at BETWEEN moment + interval '48 hours'
                    AND moment + interval '51 hours' THEN expires_at
                WHEN p_final THEN moment + interval '51 hours'
                WHEN expires_at < moment + ttl THEN moment + ttl + ttl / 16
                ELSE expires_at
            END
        WHERE id = session.id
        RETURNING uploaded_bytes, total_size, status, expires_at
        INTO session.uploaded_bytes, session.total_size, session.status, session.expires_at;
    END IF;

    result.uploaded_bytes := session.uploaded_bytes;
    result.total_size := session.total_size;
    result.status := CASE WHEN result.outcome = 'expired' THEN 'expired' ELSE session.status END;
    result.ready := result.status IN ('pending', 'in_progress')
        AND coalesce(session.uploaded_bytes = session.total_size, false);
    result.expires_at := session.expires_at;
    RETURN result;
END
$$;

-- What applications have today, with an index for their clean-up job

CREATE SCHEMA original;
CREATE TABLE original.upload_session (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    upload_id varchar(128) NOT NULL UNIQUE,
    bucket varchar(256),
    path varchar(2048) NOT NULL,
    total_size bigint,
    uploaded_bytes bigint NOT NULL DEFAULT 0,
    status varchar(32) NOT NULL,
    content_type varchar(256),
    metadata text,
    provider_data text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON original.upload_session (status, updated_at);

INSERT INTO original.upload_session
    (upload_id, path, total_size, status, content_type, metadata, provider_data)
SELECT upload_id, path, total_size, status, content_type, metadata, provider_data
FROM vali_blob.upload_session;

GRANT USAGE ON SCHEMA by_hand, by_function, original TO upload_server;
GRANT SELECT, INSERT, UPDATE ON by_hand.upload_session, by_function.upload_session,
    original.upload_session TO upload_server;

VACUUM ANALYZE;
