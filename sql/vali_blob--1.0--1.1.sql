/* sql/vali_blob--1.0--1.1.sql */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION vali_blob UPDATE TO '1.1'" to load this file. \quit

--
-- Types
--

ALTER TYPE chunk_outcome ADD VALUE 'replaced';
ALTER TYPE chunk_outcome ADD VALUE 'fenced';

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
    ADD COLUMN rules_version bigint,
    ADD COLUMN lease_epoch bigint NOT NULL DEFAULT 0,
    ADD COLUMN lease_holder text,
    ADD COLUMN lease_expires_at timestamptz,
    ADD COLUMN lease_requested boolean NOT NULL DEFAULT false,
    ADD COLUMN notified_at timestamptz,
    ADD COLUMN partial boolean NOT NULL DEFAULT false,
    ADD COLUMN concatenated_from jsonb;

COMMENT ON COLUMN upload_session.any_order IS 'chunks may come in any order';
COMMENT ON COLUMN upload_session.auto_complete IS 'completes by itself when all bytes are there';
COMMENT ON COLUMN upload_session.end_by IS 'the deadline never moves beyond it; null: any time';
COMMENT ON COLUMN upload_session.size_limit IS 'the most bytes the session may ever hold; null: any number';
COMMENT ON COLUMN upload_session.rules_version IS 'the rules that a library must know to change the session; null: those of 1.0';
COMMENT ON COLUMN upload_session.lease_epoch IS 'counts the leases that were given';
COMMENT ON COLUMN upload_session.lease_holder IS 'who has the lease; null: nobody';
COMMENT ON COLUMN upload_session.lease_expires_at IS 'until when';
COMMENT ON COLUMN upload_session.lease_requested IS 'another one has asked for the lease';
COMMENT ON COLUMN upload_session.notified_at IS 'the last notification of progress; null: none';
COMMENT ON COLUMN upload_session.partial IS 'to be concatenated with others; never completes by itself';
COMMENT ON COLUMN upload_session.concatenated_from IS 'the upload_ids of the partial sessions that it was made of; null: none';

CREATE TYPE upload_lease AS (
    held boolean,
    epoch bigint,
    holder text,
    expires_at timestamptz,
    requested boolean,
    uploaded_bytes bigint,
    total_size bigint,
    status upload_status
);
COMMENT ON TYPE upload_lease IS 'the lease of an upload, and how far the upload has come';
COMMENT ON COLUMN upload_lease.held IS 'the caller has the lease';
COMMENT ON COLUMN upload_lease.epoch IS 'the epoch of the last lease that was given';
COMMENT ON COLUMN upload_lease.holder IS 'who has the lease; null: nobody';
COMMENT ON COLUMN upload_lease.expires_at IS 'until when';
COMMENT ON COLUMN upload_lease.requested IS 'another one has asked for the lease';
COMMENT ON COLUMN upload_lease.uploaded_bytes IS 'bytes confirmed';
COMMENT ON COLUMN upload_lease.total_size IS 'bytes declared; null: not known yet';
COMMENT ON COLUMN upload_lease.status IS 'the status that readers see';

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

CREATE TABLE upload_quota (
    max_live_uploads bigint,
    max_live_bytes bigint,
    max_upload_size bigint,
    counted boolean NOT NULL DEFAULT false,
    owner text COLLATE "C" NOT NULL,
    CONSTRAINT upload_quota_pkey PRIMARY KEY (owner),
    CONSTRAINT upload_quota_check
        CHECK (max_live_uploads OPERATOR(pg_catalog.>=) (-1)
               AND max_live_bytes OPERATOR(pg_catalog.>=) (-1)
               AND max_upload_size OPERATOR(pg_catalog.>=) (-1))
);

COMMENT ON TABLE upload_quota IS 'limits of owners, where they differ from the settings';
COMMENT ON COLUMN upload_quota.owner IS 'the application''s own user or tenant id';
COMMENT ON COLUMN upload_quota.max_live_uploads IS 'live sessions; -1: any number, null: as vali_blob.max_live_uploads says';
COMMENT ON COLUMN upload_quota.max_live_bytes IS 'bytes promised to live sessions; -1: any number, null: as vali_blob.max_live_bytes says';
COMMENT ON COLUMN upload_quota.max_upload_size IS 'bytes that one session may hold; -1 or null: as vali_blob.max_upload_size says';
COMMENT ON COLUMN upload_quota.counted IS 'upload_live has the live sessions of the owner';
COMMENT ON CONSTRAINT upload_quota_check ON upload_quota IS 'limits are in range';

CREATE TABLE upload_live (
    bytes bigint NOT NULL,
    expires_at timestamptz,
    upload_id varchar(128) COLLATE "C" NOT NULL,
    owner text COLLATE "C" NOT NULL,
    CONSTRAINT upload_live_pkey PRIMARY KEY (upload_id)
);

CREATE INDEX upload_live_owner_idx ON upload_live (owner);

COMMENT ON TABLE upload_live IS 'the live sessions of owners with limits; written by the functions only';
COMMENT ON COLUMN upload_live.upload_id IS 'the session''s upload_id';
COMMENT ON COLUMN upload_live.owner IS 'the session''s owner';
COMMENT ON COLUMN upload_live.bytes IS 'bytes promised: the session''s total_size, or size_limit';
COMMENT ON COLUMN upload_live.expires_at IS 'the session''s deadline; null: never';
COMMENT ON INDEX upload_live_owner_idx IS 'for counting what an owner uses';

SELECT pg_catalog.pg_extension_config_dump('upload_quota', '');
SELECT pg_catalog.pg_extension_config_dump('upload_live', '');
REVOKE ALL ON TABLE upload_quota, upload_live FROM PUBLIC;

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

CREATE FUNCTION copy_owner(catalog pg_catalog.regclass, source oid, target oid)
RETURNS void
AS 'MODULE_PATHNAME', 'vali_blob_copy_owner'
LANGUAGE C STRICT;

-- What is written as the owner of these tables must not be written as a superuser.
SELECT copy_owner('pg_catalog.pg_class'::pg_catalog.regclass,
    'upload_session'::pg_catalog.regclass::pg_catalog.oid,
    name::pg_catalog.regclass::pg_catalog.oid)
FROM pg_catalog.unnest('{upload_quota,upload_live}'::pg_catalog.text[]) AS name;
DROP FUNCTION copy_owner(pg_catalog.regclass, oid, oid);

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
    or_resume boolean = false,
    partial boolean = false)
RETURNS upload_session
AS 'MODULE_PATHNAME', 'vali_blob_start_upload'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION start_upload(text, bigint, text, jsonb, jsonb, text, text, interval, text, boolean, bigint, boolean, interval, boolean, boolean) IS
'start an upload session; a null total_size defers the length, ttl 0 never expires';
REVOKE ALL ON FUNCTION start_upload(text, bigint, text, jsonb, jsonb, text, text, interval, text, boolean, bigint, boolean, interval, boolean, boolean) FROM PUBLIC;
SELECT copy_privileges('pg_catalog.pg_proc'::pg_catalog.regclass,
    'start_upload_1_0(text, bigint, text, jsonb, jsonb, text, text, interval, text)'::pg_catalog.regprocedure::pg_catalog.oid,
    'start_upload(text, bigint, text, jsonb, jsonb, text, text, interval, text, boolean, bigint, boolean, interval, boolean, boolean)'::pg_catalog.regprocedure::pg_catalog.oid);
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
    checksum bytea = NULL,
    lease_epoch bigint = NULL)
RETURNS chunk_result
AS 'MODULE_PATHNAME', 'vali_blob_advance_upload'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION advance_upload(text, bigint, bigint, boolean, jsonb, text, boolean, integer, text, bytea, bigint) IS
'confirm a chunk of an upload; raises any outcome but advanced, replayed and replaced';
REVOKE ALL ON FUNCTION advance_upload(text, bigint, bigint, boolean, jsonb, text, boolean, integer, text, bytea, bigint) FROM PUBLIC;
SELECT copy_privileges('pg_catalog.pg_proc'::pg_catalog.regclass,
    'advance_upload_1_0(text, bigint, bigint, boolean, jsonb, text, boolean)'::pg_catalog.regprocedure::pg_catalog.oid,
    'advance_upload(text, bigint, bigint, boolean, jsonb, text, boolean, integer, text, bytea, bigint)'::pg_catalog.regprocedure::pg_catalog.oid);
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
    checksum bytea = NULL,
    lease_epoch bigint = NULL)
RETURNS chunk_result
AS 'MODULE_PATHNAME', 'vali_blob_try_advance_upload'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION try_advance_upload(text, bigint, bigint, boolean, jsonb, text, boolean, integer, text, bytea, bigint) IS
'confirm a chunk of an upload; returns every outcome';
REVOKE ALL ON FUNCTION try_advance_upload(text, bigint, bigint, boolean, jsonb, text, boolean, integer, text, bytea, bigint) FROM PUBLIC;
SELECT copy_privileges('pg_catalog.pg_proc'::pg_catalog.regclass,
    'try_advance_upload_1_0(text, bigint, bigint, boolean, jsonb, text, boolean)'::pg_catalog.regprocedure::pg_catalog.oid,
    'try_advance_upload(text, bigint, bigint, boolean, jsonb, text, boolean, integer, text, bytea, bigint)'::pg_catalog.regprocedure::pg_catalog.oid);
DROP FUNCTION try_advance_upload_1_0(text, bigint, bigint, boolean, jsonb, text, boolean);

ALTER FUNCTION advance_uploads(text[], bigint[], bigint[]) RENAME TO advance_uploads_1_0;
CREATE FUNCTION advance_uploads(
    upload_ids text[],
    chunk_offsets bigint[],
    chunk_lengths bigint[],
    owner text = NULL,
    part_numbers integer[] = NULL,
    etags text[] = NULL,
    checksums bytea[] = NULL,
    lease_epochs bigint[] = NULL)
RETURNS SETOF chunk_result
AS 'MODULE_PATHNAME', 'vali_blob_advance_uploads'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION advance_uploads(text[], bigint[], bigint[], text, integer[], text[], bytea[], bigint[]) IS
'confirm chunks of many uploads in one round trip; returns outcomes in argument order';
REVOKE ALL ON FUNCTION advance_uploads(text[], bigint[], bigint[], text, integer[], text[], bytea[], bigint[]) FROM PUBLIC;
SELECT copy_privileges('pg_catalog.pg_proc'::pg_catalog.regclass,
    'advance_uploads_1_0(text[], bigint[], bigint[])'::pg_catalog.regprocedure::pg_catalog.oid,
    'advance_uploads(text[], bigint[], bigint[], text, integer[], text[], bytea[], bigint[])'::pg_catalog.regprocedure::pg_catalog.oid);
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

CREATE FUNCTION concatenate_uploads(
    path text,
    upload_ids text[],
    upload_id text = NULL,
    owner text = NULL,
    bucket text = NULL,
    content_type text = NULL,
    metadata jsonb = NULL,
    provider_data jsonb = NULL,
    result jsonb = NULL)
RETURNS upload_session
AS 'MODULE_PATHNAME', 'vali_blob_concatenate_uploads'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION concatenate_uploads(text, text[], text, text, text, text, jsonb, jsonb, jsonb) IS
'start a complete upload that has the bytes of partial ones, which end with it';
REVOKE ALL ON FUNCTION concatenate_uploads(text, text[], text, text, text, text, jsonb, jsonb, jsonb) FROM PUBLIC;
SELECT copy_privileges('pg_catalog.pg_proc'::pg_catalog.regclass,
    'complete_upload(text, jsonb, text)'::pg_catalog.regprocedure::pg_catalog.oid,
    'concatenate_uploads(text, text[], text, text, text, text, jsonb, jsonb, jsonb)'::pg_catalog.regprocedure::pg_catalog.oid);

CREATE FUNCTION acquire_upload_lease(
    upload_id text,
    holder text,
    duration interval = '30 s',
    owner text = NULL,
    take_over boolean = false)
RETURNS upload_lease
AS 'MODULE_PATHNAME', 'vali_blob_acquire_upload_lease'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION acquire_upload_lease(text, text, interval, text, boolean) IS
'get the lease of an upload, or ask whoever has it to release it';
REVOKE ALL ON FUNCTION acquire_upload_lease(text, text, interval, text, boolean) FROM PUBLIC;
SELECT copy_privileges('pg_catalog.pg_proc'::pg_catalog.regclass,
    'complete_upload(text, jsonb, text)'::pg_catalog.regprocedure::pg_catalog.oid,
    'acquire_upload_lease(text, text, interval, text, boolean)'::pg_catalog.regprocedure::pg_catalog.oid);

CREATE FUNCTION renew_upload_lease(
    upload_id text,
    epoch bigint,
    duration interval = '30 s',
    owner text = NULL)
RETURNS upload_lease
AS 'MODULE_PATHNAME', 'vali_blob_renew_upload_lease'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION renew_upload_lease(text, bigint, interval, text) IS
'extend the lease of an upload, unless another one has got it since';
REVOKE ALL ON FUNCTION renew_upload_lease(text, bigint, interval, text) FROM PUBLIC;
SELECT copy_privileges('pg_catalog.pg_proc'::pg_catalog.regclass,
    'complete_upload(text, jsonb, text)'::pg_catalog.regprocedure::pg_catalog.oid,
    'renew_upload_lease(text, bigint, interval, text)'::pg_catalog.regprocedure::pg_catalog.oid);

CREATE FUNCTION release_upload_lease(
    upload_id text,
    epoch bigint,
    owner text = NULL)
RETURNS upload_lease
AS 'MODULE_PATHNAME', 'vali_blob_release_upload_lease'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION release_upload_lease(text, bigint, text) IS
'end the lease of an upload, unless another one has got it since';
REVOKE ALL ON FUNCTION release_upload_lease(text, bigint, text) FROM PUBLIC;
SELECT copy_privileges('pg_catalog.pg_proc'::pg_catalog.regclass,
    'complete_upload(text, jsonb, text)'::pg_catalog.regprocedure::pg_catalog.oid,
    'release_upload_lease(text, bigint, text)'::pg_catalog.regprocedure::pg_catalog.oid);

CREATE FUNCTION set_upload_quota(
    owner text,
    max_live_uploads bigint = NULL,
    max_live_bytes bigint = NULL,
    max_upload_size bigint = NULL)
RETURNS upload_quota
AS 'MODULE_PATHNAME', 'vali_blob_set_upload_quota'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION set_upload_quota(text, bigint, bigint, bigint) IS
'set the limits of an owner; -1 is any number, null as the setting says';
REVOKE ALL ON FUNCTION set_upload_quota(text, bigint, bigint, bigint) FROM PUBLIC;

CREATE FUNCTION upload_usage(
    owner text,
    OUT live_uploads bigint,
    OUT live_bytes bigint,
    OUT confirmed_bytes bigint,
    OUT max_live_uploads bigint,
    OUT max_live_bytes bigint)
AS 'MODULE_PATHNAME', 'vali_blob_upload_usage'
LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION upload_usage(text) IS
'what the live sessions of an owner use, and its limits; null: any number';
REVOKE ALL ON FUNCTION upload_usage(text) FROM PUBLIC;
SELECT copy_privileges('pg_catalog.pg_proc'::pg_catalog.regclass,
    'get_upload(text, text)'::pg_catalog.regprocedure::pg_catalog.oid,
    'upload_usage(text)'::pg_catalog.regprocedure::pg_catalog.oid);

--
-- Statistics
--

ALTER FUNCTION read_upload_stats() RENAME TO read_upload_stats_1_0;
CREATE FUNCTION read_upload_stats(
    OUT status upload_status,
    OUT sessions bigint,
    OUT bytes bigint,
    OUT bytes_in_flight bigint,
    OUT oldest_deadline timestamptz,
    OUT reclaim_backlog bigint,
    OUT oldest_reclaim timestamptz,
    OUT most_attempts integer,
    OUT estimated boolean,
    OUT counted_at timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'vali_blob_read_upload_stats'
LANGUAGE C STABLE PARALLEL RESTRICTED ROWS 5;
COMMENT ON FUNCTION read_upload_stats() IS
'the rows of the view upload_stats';
REVOKE ALL ON FUNCTION read_upload_stats() FROM PUBLIC;
SELECT copy_privileges('pg_catalog.pg_proc'::pg_catalog.regclass,
    'read_upload_stats_1_0()'::pg_catalog.regprocedure::pg_catalog.oid,
    'read_upload_stats()'::pg_catalog.regprocedure::pg_catalog.oid);

CREATE OR REPLACE VIEW upload_stats AS
SELECT s.status, s.sessions, s.bytes, s.bytes_in_flight, s.oldest_deadline, s.reclaim_backlog,
    s.oldest_reclaim, s.most_attempts, s.estimated, s.counted_at
FROM read_upload_stats() AS s;
COMMENT ON COLUMN upload_stats.oldest_reclaim IS 'when the oldest of these rows was enqueued';
COMMENT ON COLUMN upload_stats.most_attempts IS 'how often freeing one of them has failed at most';
COMMENT ON COLUMN upload_stats.estimated IS 'sessions, bytes and oldest_deadline are of an earlier count';
COMMENT ON COLUMN upload_stats.counted_at IS 'when the sessions were counted';
DROP FUNCTION read_upload_stats_1_0();

DROP FUNCTION copy_privileges(pg_catalog.regclass, oid, oid);
