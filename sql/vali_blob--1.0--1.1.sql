/* sql/vali_blob--1.0--1.1.sql */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION vali_blob UPDATE TO '1.1'" to load this file. \quit

--
-- Types
--

ALTER TYPE chunk_outcome ADD VALUE 'replaced';

--
-- Tables
--
-- Adding these columns and constraints reads no row.
--

ALTER TABLE upload_session
    ADD COLUMN any_order boolean NOT NULL DEFAULT false,
    ADD COLUMN auto_complete boolean NOT NULL DEFAULT false,
    ADD COLUMN end_by timestamptz,
    ADD COLUMN size_limit bigint,
    ADD COLUMN rules_version bigint;

COMMENT ON COLUMN upload_session.any_order IS 'chunks may come in any order';
COMMENT ON COLUMN upload_session.auto_complete IS 'completes by itself when all bytes are there';
COMMENT ON COLUMN upload_session.end_by IS 'the deadline never moves beyond it; null: any time';
COMMENT ON COLUMN upload_session.size_limit IS 'the most bytes the session may ever hold; null: any number';
COMMENT ON COLUMN upload_session.rules_version IS 'the rules that a library must know to change the session; null: those of 1.0';

ALTER TABLE upload_reclaim
    ADD COLUMN parts jsonb,
    DROP CONSTRAINT IF EXISTS upload_reclaim_reason_check,
    ADD CONSTRAINT upload_reclaim_reason_check
        CHECK (reason OPERATOR(pg_catalog.<>) 'pending'
               AND reason OPERATOR(pg_catalog.<>) 'in_progress') NOT VALID;
COMMENT ON COLUMN upload_reclaim.parts IS 'the session''s parts: an array of objects with offset, length, part_number, etag; null: none';
COMMENT ON COLUMN upload_reclaim.reason IS 'how the session ended: aborted, expired, or complete, and then was deleted';

CREATE TABLE upload_part (
    chunk_offset bigint NOT NULL,
    chunk_length bigint NOT NULL,
    confirmed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    part_number integer,
    upload_id varchar(128) COLLATE "C" NOT NULL
        REFERENCES upload_session (upload_id) ON DELETE CASCADE,
    etag text,
    checksum bytea,
    CONSTRAINT upload_part_pkey PRIMARY KEY (upload_id, chunk_offset),
    CONSTRAINT upload_part_check
        CHECK (chunk_offset OPERATOR(pg_catalog.>=) 0
               AND chunk_length OPERATOR(pg_catalog.>) 0
               AND part_number OPERATOR(pg_catalog.>=) 1
               AND pg_catalog.length(etag) OPERATOR(pg_catalog.<=) 1024
               AND pg_catalog.octet_length(checksum) OPERATOR(pg_catalog.<=) 64)
);

CREATE UNIQUE INDEX upload_part_number_idx
    ON upload_part (upload_id, part_number) WHERE part_number IS NOT NULL;

COMMENT ON TABLE upload_part IS 'parts: chunks of sessions that take them in any order, or that brought a part_number, etag or checksum';
COMMENT ON COLUMN upload_part.upload_id IS 'the session''s upload_id';
COMMENT ON COLUMN upload_part.chunk_offset IS 'where the part begins';
COMMENT ON COLUMN upload_part.chunk_length IS 'number of bytes';
COMMENT ON COLUMN upload_part.part_number IS 'the storage provider''s number of the part';
COMMENT ON COLUMN upload_part.etag IS 'the storage provider''s ETag of the part';
COMMENT ON COLUMN upload_part.checksum IS 'checksum of the part''s bytes';
COMMENT ON COLUMN upload_part.confirmed_at IS 'when the part was confirmed, or replaced';
COMMENT ON CONSTRAINT upload_part_check ON upload_part IS 'offsets, lengths and numbers are in range';
COMMENT ON CONSTRAINT upload_part_upload_id_fkey ON upload_part IS 'a part goes with its session';
COMMENT ON INDEX upload_part_number_idx IS 'part numbers are unique in a session';

SELECT pg_catalog.pg_extension_config_dump('upload_part', '');
REVOKE ALL ON TABLE upload_part FROM PUBLIC;

--
-- Functions
--
-- One that gets more arguments is a new function, with the privileges of the old
-- one.  Whoever may use upload_session may use upload_part.  The arguments of
-- copy_privileges() have exactly its types, so that no other function fits better.
--

CREATE FUNCTION copy_privileges(catalog pg_catalog.regclass, source oid, target oid)
RETURNS void
AS 'MODULE_PATHNAME', 'vali_blob_copy_privileges'
LANGUAGE C STRICT;

SELECT copy_privileges('pg_catalog.pg_class'::pg_catalog.regclass,
    'upload_session'::pg_catalog.regclass::pg_catalog.oid,
    'upload_part'::pg_catalog.regclass::pg_catalog.oid);

CREATE FUNCTION copy_row_security()
RETURNS void
AS 'MODULE_PATHNAME', 'vali_blob_copy_row_security'
LANGUAGE C;
SELECT copy_row_security();
DROP FUNCTION copy_row_security();

ALTER FUNCTION start_upload(text, bigint, text, jsonb, jsonb, text, text, interval, text) RENAME TO start_upload_1_0;
CREATE FUNCTION start_upload(
    path text,
    total_size bigint = NULL,
    content_type text = NULL,
    metadata jsonb = NULL,
    provider_data jsonb = NULL,
    owner text = NULL,
    bucket text = NULL,
    ttl interval = NULL,
    upload_id text = NULL,
    any_order boolean = false,
    size_limit bigint = NULL,
    auto_complete boolean = false,
    max_age interval = NULL,
    or_resume boolean = false)
RETURNS upload_session
AS 'MODULE_PATHNAME', 'vali_blob_start_upload'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION start_upload(text, bigint, text, jsonb, jsonb, text, text, interval, text, boolean, bigint, boolean, interval, boolean) IS
'start an upload session; a null total_size defers the length, ttl 0 never expires';
REVOKE ALL ON FUNCTION start_upload(text, bigint, text, jsonb, jsonb, text, text, interval, text, boolean, bigint, boolean, interval, boolean) FROM PUBLIC;
SELECT copy_privileges('pg_catalog.pg_proc'::pg_catalog.regclass,
    'start_upload_1_0(text, bigint, text, jsonb, jsonb, text, text, interval, text)'::pg_catalog.regprocedure::pg_catalog.oid,
    'start_upload(text, bigint, text, jsonb, jsonb, text, text, interval, text, boolean, bigint, boolean, interval, boolean)'::pg_catalog.regprocedure::pg_catalog.oid);
DROP FUNCTION start_upload_1_0(text, bigint, text, jsonb, jsonb, text, text, interval, text);

ALTER FUNCTION advance_upload(text, bigint, bigint, boolean, jsonb, text, boolean) RENAME TO advance_upload_1_0;
CREATE FUNCTION advance_upload(
    upload_id text,
    chunk_offset bigint,
    chunk_length bigint,
    final boolean = false,
    provider_data jsonb = NULL,
    owner text = NULL,
    nowait boolean = false,
    part_number integer = NULL,
    etag text = NULL,
    checksum bytea = NULL)
RETURNS chunk_result
AS 'MODULE_PATHNAME', 'vali_blob_advance_upload'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION advance_upload(text, bigint, bigint, boolean, jsonb, text, boolean, integer, text, bytea) IS
'confirm a chunk of an upload; raises any outcome but advanced, replayed and replaced';
REVOKE ALL ON FUNCTION advance_upload(text, bigint, bigint, boolean, jsonb, text, boolean, integer, text, bytea) FROM PUBLIC;
SELECT copy_privileges('pg_catalog.pg_proc'::pg_catalog.regclass,
    'advance_upload_1_0(text, bigint, bigint, boolean, jsonb, text, boolean)'::pg_catalog.regprocedure::pg_catalog.oid,
    'advance_upload(text, bigint, bigint, boolean, jsonb, text, boolean, integer, text, bytea)'::pg_catalog.regprocedure::pg_catalog.oid);
DROP FUNCTION advance_upload_1_0(text, bigint, bigint, boolean, jsonb, text, boolean);

ALTER FUNCTION try_advance_upload(text, bigint, bigint, boolean, jsonb, text, boolean) RENAME TO try_advance_upload_1_0;
CREATE FUNCTION try_advance_upload(
    upload_id text,
    chunk_offset bigint,
    chunk_length bigint,
    final boolean = false,
    provider_data jsonb = NULL,
    owner text = NULL,
    nowait boolean = false,
    part_number integer = NULL,
    etag text = NULL,
    checksum bytea = NULL)
RETURNS chunk_result
AS 'MODULE_PATHNAME', 'vali_blob_try_advance_upload'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION try_advance_upload(text, bigint, bigint, boolean, jsonb, text, boolean, integer, text, bytea) IS
'confirm a chunk of an upload; returns every outcome';
REVOKE ALL ON FUNCTION try_advance_upload(text, bigint, bigint, boolean, jsonb, text, boolean, integer, text, bytea) FROM PUBLIC;
SELECT copy_privileges('pg_catalog.pg_proc'::pg_catalog.regclass,
    'try_advance_upload_1_0(text, bigint, bigint, boolean, jsonb, text, boolean)'::pg_catalog.regprocedure::pg_catalog.oid,
    'try_advance_upload(text, bigint, bigint, boolean, jsonb, text, boolean, integer, text, bytea)'::pg_catalog.regprocedure::pg_catalog.oid);
DROP FUNCTION try_advance_upload_1_0(text, bigint, bigint, boolean, jsonb, text, boolean);

ALTER FUNCTION advance_uploads(text[], bigint[], bigint[]) RENAME TO advance_uploads_1_0;
CREATE FUNCTION advance_uploads(
    upload_ids text[],
    chunk_offsets bigint[],
    chunk_lengths bigint[],
    owner text = NULL,
    part_numbers integer[] = NULL,
    etags text[] = NULL,
    checksums bytea[] = NULL)
RETURNS SETOF chunk_result
AS 'MODULE_PATHNAME', 'vali_blob_advance_uploads'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION advance_uploads(text[], bigint[], bigint[], text, integer[], text[], bytea[]) IS
'confirm chunks of many uploads in one round trip; returns outcomes in argument order';
REVOKE ALL ON FUNCTION advance_uploads(text[], bigint[], bigint[], text, integer[], text[], bytea[]) FROM PUBLIC;
SELECT copy_privileges('pg_catalog.pg_proc'::pg_catalog.regclass,
    'advance_uploads_1_0(text[], bigint[], bigint[])'::pg_catalog.regprocedure::pg_catalog.oid,
    'advance_uploads(text[], bigint[], bigint[], text, integer[], text[], bytea[])'::pg_catalog.regprocedure::pg_catalog.oid);
DROP FUNCTION advance_uploads_1_0(text[], bigint[], bigint[]);

ALTER FUNCTION delete_upload(text, text) RENAME TO delete_upload_1_0;
CREATE FUNCTION delete_upload(
    upload_id text,
    owner text = NULL,
    reclaim_complete boolean = false)
RETURNS boolean
AS 'MODULE_PATHNAME', 'vali_blob_delete_upload'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION delete_upload(text, text, boolean) IS
'forget an upload, aborting it first if it is live; false if there was none';
REVOKE ALL ON FUNCTION delete_upload(text, text, boolean) FROM PUBLIC;
SELECT copy_privileges('pg_catalog.pg_proc'::pg_catalog.regclass,
    'delete_upload_1_0(text, text)'::pg_catalog.regprocedure::pg_catalog.oid,
    'delete_upload(text, text, boolean)'::pg_catalog.regprocedure::pg_catalog.oid);
DROP FUNCTION delete_upload_1_0(text, text);

ALTER FUNCTION list_uploads(text, text, upload_status, interval, integer, bigint) RENAME TO list_uploads_1_0;
CREATE FUNCTION list_uploads(
    owner text = NULL,
    path_prefix text = NULL,
    status upload_status = NULL,
    idle_for interval = NULL,
    max_rows integer = 100,
    after_id bigint = NULL,
    metadata jsonb = NULL)
RETURNS SETOF upload_session
AS 'MODULE_PATHNAME', 'vali_blob_list_uploads'
LANGUAGE C STABLE PARALLEL SAFE ROWS 100;
COMMENT ON FUNCTION list_uploads(text, text, upload_status, interval, integer, bigint, jsonb) IS
'a page of sessions, newest first; the next page begins after the last id seen';
REVOKE ALL ON FUNCTION list_uploads(text, text, upload_status, interval, integer, bigint, jsonb) FROM PUBLIC;
SELECT copy_privileges('pg_catalog.pg_proc'::pg_catalog.regclass,
    'list_uploads_1_0(text, text, upload_status, interval, integer, bigint)'::pg_catalog.regprocedure::pg_catalog.oid,
    'list_uploads(text, text, upload_status, interval, integer, bigint, jsonb)'::pg_catalog.regprocedure::pg_catalog.oid);
DROP FUNCTION list_uploads_1_0(text, text, upload_status, interval, integer, bigint);

CREATE FUNCTION list_parts(
    upload_id text,
    owner text = NULL,
    max_rows integer = 1000,
    after_offset bigint = NULL)
RETURNS SETOF upload_part
AS 'MODULE_PATHNAME', 'vali_blob_list_parts'
LANGUAGE C STABLE PARALLEL SAFE ROWS 1000;
COMMENT ON FUNCTION list_parts(text, text, integer, bigint) IS
'a page of the parts of an upload, by offset; the next page begins after the last offset seen';
REVOKE ALL ON FUNCTION list_parts(text, text, integer, bigint) FROM PUBLIC;
SELECT copy_privileges('pg_catalog.pg_proc'::pg_catalog.regclass,
    'get_upload(text, text)'::pg_catalog.regprocedure::pg_catalog.oid,
    'list_parts(text, text, integer, bigint)'::pg_catalog.regprocedure::pg_catalog.oid);

CREATE FUNCTION missing_ranges(
    upload_id text,
    owner text = NULL,
    max_rows integer = 1000)
RETURNS TABLE (chunk_offset bigint, chunk_length bigint)
AS 'MODULE_PATHNAME', 'vali_blob_missing_ranges'
LANGUAGE C STABLE PARALLEL SAFE ROWS 100;
COMMENT ON FUNCTION missing_ranges(text, text, integer) IS
'what is still to be sent of an upload, by offset; a null length has no end yet';
REVOKE ALL ON FUNCTION missing_ranges(text, text, integer) FROM PUBLIC;
SELECT copy_privileges('pg_catalog.pg_proc'::pg_catalog.regclass,
    'get_upload(text, text)'::pg_catalog.regprocedure::pg_catalog.oid,
    'missing_ranges(text, text, integer)'::pg_catalog.regprocedure::pg_catalog.oid);

DROP FUNCTION copy_privileges(pg_catalog.regclass, oid, oid);
