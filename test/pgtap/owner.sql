-- Owners: to a caller who names one, the uploads of others do not exist.
BEGIN;
\ir lib/uploads.sql
SELECT no_plan();
DELETE FROM upload_session;

SELECT (start_upload('test/owner', 10, owner => 'alice')).upload_id AS hers \gset
SELECT (start_upload('test/owner', 10)).upload_id AS nobodys \gset
SELECT (start_upload('test/owner', 10, owner => '')).upload_id AS empty_ones \gset

-- Every function that takes an owner, as a statement that tells what it found
CREATE TEMPORARY TABLE call (name text, statement text);
INSERT INTO call VALUES
	('advance_upload', 'SELECT outcome = ''advanced'' FROM advance_upload(%1$L, 0, 0, owner => %2$L)'),
	('try_advance_upload', 'SELECT outcome = ''advanced'' FROM try_advance_upload(%1$L, 0, 0, owner => %2$L)'),
	('declare_upload_size', 'SELECT total_size = 10 FROM declare_upload_size(%1$L, 10, %2$L)'),
	('merge_upload_data', 'SELECT upload_id = %1$L FROM merge_upload_data(%1$L, owner => %2$L)'),
	('get_upload', 'SELECT EXISTS (SELECT FROM get_upload(%1$L, %2$L))'),
	('get_uploads', 'SELECT EXISTS (SELECT FROM get_uploads(ARRAY[%1$L], %2$L))'),
	('list_uploads', 'SELECT EXISTS (SELECT FROM list_uploads(%2$L) WHERE upload_id = %1$L)'),
	('abort_upload', 'SELECT status = ''aborted'' FROM abort_upload(%1$L, owner => %2$L)'),
	('delete_upload', 'SELECT delete_upload(%1$L, %2$L)');
CREATE FUNCTION pg_temp.finds(statement text, id text, owner text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	found boolean;
BEGIN
	EXECUTE format(statement, id, owner) INTO found;
	RETURN found;
EXCEPTION WHEN SQLSTATE 'VB001' THEN
	RETURN false;
END $$;

SELECT ok(NOT pg_temp.finds(statement, :'hers', owner), format('%s: alice''s upload is not found by %s', name, quote_literal(owner)))
  FROM call, unnest(ARRAY['bob', 'Alice', 'alic', 'alicE', 'alice2', 'alice ', '']) AS owner;
SELECT ok(NOT pg_temp.finds(statement, :'nobodys', owner), format('%s: nobody''s upload is not found by %s', name, quote_literal(owner)))
  FROM call, unnest(ARRAY['bob', '']) AS owner;
SELECT ok(NOT pg_temp.finds(statement, :'empty_ones', 'bob'), format('%s: the upload of an owner with an empty name is not found by another', name)) FROM call;
SELECT throws_ok(format(statement, :'hers', 'bob'), 'VB001', NULL, name || ': raises that there is no such upload')
  FROM call WHERE name IN ('advance_upload', 'declare_upload_size', 'merge_upload_data', 'abort_upload');
SELECT is(count(*), 3::bigint, 'none of these calls has changed anything') FROM upload_session WHERE status = 'pending' AND updated_at = created_at;

SELECT ok(pg_temp.finds(statement, (start_upload('test/owner', 10, owner => 'alice')).upload_id, 'alice'), name || ': found by its owner') FROM call;
SELECT ok(pg_temp.finds(statement, (start_upload('test/owner', 10, owner => 'alice')).upload_id, NULL), name || ': found without an owner')
  FROM call WHERE name <> 'list_uploads';
SELECT ok(pg_temp.finds(statement, (start_upload('test/owner', 10)).upload_id, NULL), name || ': nobody''s upload is found without an owner')
  FROM call WHERE name <> 'list_uploads';

SELECT ok(pg_temp.finds(statement, (start_upload('test/owner', 10, owner => '')).upload_id, ''), name || ': found by an owner with an empty name') FROM call;

-- complete_upload, which needs a full upload
SELECT is(pg_temp.raised(format('SELECT complete_upload(%L, owner => ''bob'')', pg_temp.upload('full'))), 'VB001', 'complete_upload: not found by another owner');
SELECT is(s.status, 'complete', 'complete_upload: found by its owner') FROM complete_upload(pg_temp.upload('full'), owner => 'alice') s;

--
-- vali_blob.require_owner
--
SET LOCAL vali_blob.require_owner = on;
SELECT throws_ok(format(statement, :'nobodys', NULL), '22004', NULL, 'vali_blob.require_owner: ' || name || ' needs an owner') FROM call;
SELECT throws_ok(statement, '22004', NULL, 'vali_blob.require_owner: ' || statement)
  FROM unnest(ARRAY['SELECT start_upload(''test/owner'')', 'SELECT complete_upload(''test'')', 'SELECT try_advance_upload(''owner-unknown'', 0, 1)',
		'SELECT advance_uploads(ARRAY[''test''], ARRAY[0], ARRAY[1])']) AS statement;
SELECT ok(pg_temp.finds(statement, (start_upload('test/owner', 10, owner => 'alice')).upload_id, 'alice'), 'vali_blob.require_owner: ' || name || ' with an owner')
  FROM call;
SELECT ok(NOT pg_temp.finds(statement, :'hers', 'bob'), 'vali_blob.require_owner: ' || name || ' with another owner') FROM call;
SELECT lives_ok(statement, 'vali_blob.require_owner: ' || statement)
  FROM unnest(ARRAY['SELECT sweep_uploads()', 'SELECT claim_reclaims()', 'SELECT finish_reclaim(0)', 'SELECT fail_reclaim(0, ''error'')']) AS statement;

SELECT * FROM finish();
ROLLBACK;
