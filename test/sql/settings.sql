-- The settings: names, who may set them, which values they take.  Their defaults
-- are in test/pgtap/schema.sql, and what each changes in deadline.sql, reclaim.sql
-- and owner.sql there.
\set VERBOSITY sqlstate
\set ON_ERROR_ROLLBACK on
\pset format unaligned
\pset tuples_only on
-- A session knows the settings once it has loaded the library.
LOAD 'vali_blob';
BEGIN;

SELECT name, vartype, context FROM pg_settings WHERE name LIKE 'vali\_blob.%' ORDER BY name COLLATE "C";
-- Each has a description.
SELECT name FROM pg_settings WHERE name LIKE 'vali\_blob.%' AND short_desc = '';

-- session_ttl: nothing that is rounded to 0 may become "never"
SET LOCAL vali_blob.session_ttl = -2;
SET LOCAL vali_blob.session_ttl = -1;
SET LOCAL vali_blob.session_ttl = 0;
SET LOCAL vali_blob.session_ttl = '400ms';
SET LOCAL vali_blob.session_ttl = '600ms';
SHOW vali_blob.session_ttl;
SET LOCAL vali_blob.session_ttl = 'never';
SET LOCAL vali_blob.session_ttl = '1 fortnight';
SET LOCAL vali_blob.session_ttl = '';
SHOW vali_blob.session_ttl;
-- retention
SET LOCAL vali_blob.retention = -2;
SET LOCAL vali_blob.retention = -1;
SET LOCAL vali_blob.retention = 0;
SET LOCAL vali_blob.retention = '90min';
SET LOCAL vali_blob.retention = 'short';
-- reclaim_retention
SET LOCAL vali_blob.reclaim_retention = -2;
SET LOCAL vali_blob.reclaim_retention = -1;
SET LOCAL vali_blob.reclaim_retention = '7d';
-- sweep_interval
SET LOCAL vali_blob.sweep_interval = 0;
SET LOCAL vali_blob.sweep_interval = -1;
SET LOCAL vali_blob.sweep_interval = '10s';
-- sweep_batch_size
SET LOCAL vali_blob.sweep_batch_size = 0;
SET LOCAL vali_blob.sweep_batch_size = -1;
SET LOCAL vali_blob.sweep_batch_size = 'all';
SET LOCAL vali_blob.sweep_batch_size = 10;
-- node
SET LOCAL vali_blob.node = -1;
SET LOCAL vali_blob.node = 1024;
SET LOCAL vali_blob.node = 1023;
-- the flags
SET LOCAL vali_blob.require_owner = 'maybe';
SET LOCAL vali_blob.require_owner = 'off';
SET LOCAL vali_blob.sweep = 'maybe';
SET LOCAL vali_blob.sweep = 'off';
-- There are no others.
SET LOCAL vali_blob.session_tll = '1h';

-- Any user sets what an argument could say as well; the rest is for superusers.
CREATE ROLE regress_vali_blob_client;
SET LOCAL ROLE regress_vali_blob_client;
SET LOCAL vali_blob.session_ttl = '1h';
SET LOCAL vali_blob.retention = '1h';
SET LOCAL vali_blob.require_owner = on;
SET LOCAL vali_blob.reclaim_retention = '1h';
SET LOCAL vali_blob.sweep = off;
SET LOCAL vali_blob.sweep_interval = '1h';
SET LOCAL vali_blob.sweep_batch_size = 1;
SET LOCAL vali_blob.row_access = 'sql';
SET LOCAL vali_blob.node = 1;
RESET ROLE;
ROLLBACK;
