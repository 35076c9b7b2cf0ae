-- Big arguments, ready in tables, so that a backend that takes one has not
-- spent memory on making it.

CREATE TABLE object (value jsonb);
ALTER TABLE object ALTER value SET STORAGE EXTERNAL;

-- An object of so many megabytes: 22,000 parts with their ETags each
CREATE FUNCTION make_object(megabytes integer) RETURNS void LANGUAGE sql AS $$
    TRUNCATE object;
    INSERT INTO object
    SELECT jsonb_object_agg(i, md5(i::text)) FROM generate_series(1, megabytes * 22000) AS i
$$;

CREATE TABLE chunks (ids text[], offsets bigint[], lengths bigint[]);

-- The next chunk of so many sessions
CREATE FUNCTION make_chunks(count integer) RETURNS void LANGUAGE sql AS $$
    TRUNCATE chunks;
    INSERT INTO chunks
    SELECT array_agg(upload_id), array_agg(uploaded_bytes), array_agg(8388608::bigint)
    FROM (SELECT upload_id, uploaded_bytes FROM vali_blob.upload_session LIMIT count) AS session
$$;
