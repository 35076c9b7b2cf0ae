-- A function that meets a conflict as an error.
CREATE FUNCTION raise_conflict(id text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM advance_upload(id, 1::bigint << 49, 8388608);
    RAISE 'there is no conflict';
EXCEPTION WHEN SQLSTATE 'VB002' THEN
END
$$;
