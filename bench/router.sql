-- A router over as many shards, databases of this server, with sessions that were
-- started through it.

CREATE EXTENSION plproxy;
SELECT format('CREATE SERVER uploads FOREIGN DATA WRAPPER plproxy OPTIONS (modular_mapping ''1'', %s)',
    string_agg(format('p%s ''dbname=shard_%s host=%s''', i, i, :'host'), ', ' ORDER BY i))
FROM generate_series(0, :shards - 1) AS i
\gexec
\ir ../contrib/vali_blob_router.sql
GRANT USAGE ON SCHEMA vali_blob, api TO upload_server;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA api TO upload_server;
GRANT USAGE ON FOREIGN SERVER uploads TO upload_server;
CREATE USER MAPPING FOR upload_server SERVER uploads OPTIONS (user 'upload_server');
ALTER ROLE upload_server IN DATABASE router SET search_path = api, public;
SET ROLE upload_server;
SELECT count(*)
FROM generate_series(1, :sessions) AS i,
    api.start_upload('videos/2025/holiday-' || i || '.mp4', 1::bigint << 50, upload_id => (4000000000000000000 + i)::text);
RESET ROLE;
