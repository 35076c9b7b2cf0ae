-- The statement of the manual that puts a table with hash partitions in the place of
-- upload_session, for any number of them.

CREATE PROCEDURE make_partitions(partitions integer)
LANGUAGE plpgsql SET search_path = vali_blob AS $$
BEGIN
    ALTER TABLE upload_session RENAME TO upload_session_plain;
    CREATE TABLE upload_session (LIKE upload_session_plain INCLUDING ALL) PARTITION BY HASH (upload_id);
    FOR n IN 0 .. partitions - 1 LOOP
        EXECUTE format('CREATE TABLE upload_session_%s PARTITION OF upload_session'
                       ' FOR VALUES WITH (MODULUS %s, REMAINDER %s) WITH (fillfactor = 75)', n, partitions, n);
    END LOOP;
    INSERT INTO upload_session SELECT * FROM upload_session_plain;
    PERFORM setval(pg_get_serial_sequence('upload_session', 'id'), max(id)) FROM upload_session;
    ALTER TABLE upload_part DROP CONSTRAINT upload_part_upload_id_fkey,
        ADD CONSTRAINT upload_part_upload_id_fkey
            FOREIGN KEY (upload_id) REFERENCES upload_session (upload_id) ON DELETE CASCADE;
    TRUNCATE upload_session_plain;
    PERFORM grant_upload_access('upload_server');
END $$;
