-- Access: who may call and see what, before grant_upload_access(), with it, and
-- after revoke_upload_access(), and what pg_monitor brings.
BEGIN;
\ir lib/uploads.sql
SELECT no_plan();

CREATE ROLE "vali ""blob"" stranger";
CREATE ROLE "vali ""blob"" client";
CREATE ROLE "vali ""blob"" former";
CREATE ROLE "vali ""blob"" monitor" IN ROLE pg_monitor;
CREATE ROLE "vali ""blob"" caller";
SELECT grant_upload_access('vali "blob" client'), grant_upload_access(role => 'vali "blob" former'), revoke_upload_access('vali "blob" former') \gset
SELECT lives_ok($$ SELECT revoke_upload_access(role => 'vali "blob" former') $$, 'to revoke what is not granted does no harm');

-- What a statement of a role raises.
CREATE FUNCTION pg_temp.raised_as(role text, statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('SET LOCAL ROLE %I', 'vali "blob" ' || role);
	EXECUTE statement;
	RESET ROLE;
	RETURN 'is allowed';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;

-- Every function and table, and whom it is for
CREATE TEMPORARY TABLE use (n serial, for_whom text, object text, statement text);
INSERT INTO use (for_whom, object, statement) VALUES
	('client', 'start_upload', 'SELECT start_upload(''test/access'')'),
	('client', 'advance_upload', 'SELECT advance_upload(%L, 40, 1)'),
	('client', 'try_advance_upload', 'SELECT try_advance_upload(%L, 40, 60, final => true)'),
	('client', 'advance_uploads', 'SELECT advance_uploads(ARRAY[%L], ARRAY[40], ARRAY[1])'),
	('client', 'declare_upload_size', 'SELECT declare_upload_size(%L, 100)'),
	('client', 'merge_upload_data', 'SELECT merge_upload_data(%L, ''{"a": 1}'')'),
	('client', 'complete_upload', 'SELECT advance_upload(%L, 40, 60), complete_upload(%1$L)'),
	('client', 'abort_upload', 'SELECT abort_upload(%L)'),
	('client', 'get_upload', 'SELECT get_upload(%L)'),
	('client', 'get_uploads', 'SELECT get_uploads(ARRAY[%L])'),
	('client', 'list_uploads', 'SELECT list_uploads()'),
	('client', 'delete_upload', 'SELECT delete_upload(%L)'),
	('client', 'sweep_uploads', 'SELECT sweep_uploads()'),
	('client', 'claim_reclaims', 'SELECT claim_reclaims()'),
	('client', 'finish_reclaim', 'SELECT finish_reclaim(0)'),
	('client', 'fail_reclaim', 'SELECT fail_reclaim(0, ''error'')'),
	('client', 'list_parts', 'SELECT list_parts(%L)'),
	('client', 'missing_ranges', 'SELECT missing_ranges(%L)'),
	('client', 'concatenate_uploads', 'SELECT concatenate_uploads(''test/access'', ARRAY[(start_upload(''test/access'', 0, partial => true)).upload_id])'),
	('client', 'acquire_upload_lease', 'SELECT acquire_upload_lease(%L, ''holder'')'),
	('client', 'renew_upload_lease', 'SELECT renew_upload_lease(%L, 1)'),
	('client', 'release_upload_lease', 'SELECT release_upload_lease(%L, 1)'),
	('client', 'upload_usage', 'SELECT upload_usage(''alice'')'),
	('client', 'upload_session', 'SELECT FROM upload_session'),
	('client', 'upload_part', 'SELECT FROM upload_part'),
	('client', 'upload_reclaim', 'SELECT FROM upload_reclaim'),
	('monitor', 'sweeper_status', 'SELECT sweeper_status()'),
	('monitor', 'read_upload_stats', 'SELECT read_upload_stats()'),
	('monitor', 'upload_stats', 'SELECT FROM upload_stats'),
	('administrator', 'set_upload_quota', 'SELECT set_upload_quota(''alice'', 100)'),
	('administrator', 'upload_quota', 'SELECT FROM upload_quota'),
	('administrator', 'upload_live', 'SELECT FROM upload_live'),
	('administrator', 'start_sweeper', 'SELECT start_sweeper()'),
	('administrator', 'grant_upload_access', 'SELECT grant_upload_access(''vali "blob" stranger'')'),
	('administrator', 'revoke_upload_access', 'SELECT revoke_upload_access(''vali "blob" client'')');
SELECT is_empty($$
	SELECT coalesce(p.proname, c.relname) FROM pg_depend d JOIN pg_extension e ON d.refobjid = e.oid
	  LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
	  LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relkind IN ('r', 'v')
	 WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'vali_blob'
	EXCEPT SELECT NULL EXCEPT SELECT object FROM use $$, 'every function and table is looked at');

SELECT is(pg_temp.raised_as(role, format(statement, pg_temp.upload('live'))), CASE role WHEN for_whom THEN 'is allowed' ELSE '42501' END,
		format('%s: %s %s', role, object, CASE role WHEN for_whom THEN 'is allowed' ELSE 'is refused' END))
  FROM use, unnest(ARRAY['stranger', 'client', 'former', 'monitor']) WITH ORDINALITY AS r (role, m)
 ORDER BY m, n;
SELECT is(pg_temp.raised_as('client', statement), 'is allowed', 'client: ' || statement)
  FROM unnest(ARRAY[
		'INSERT INTO upload_session (path, upload_id) VALUES (''test/access'', ''access-1'')',
		'UPDATE upload_session SET owner = ''bob'' WHERE upload_id = ''access-1''',
		'DELETE FROM upload_session WHERE upload_id = ''access-1''',
		'UPDATE upload_reclaim SET claimed_until = NULL'
	]) AS statement;

-- The functions run with the rights of their caller.
GRANT EXECUTE ON FUNCTION try_advance_upload, get_upload(text, text) TO "vali ""blob"" caller";
SELECT is(pg_temp.raised_as('caller', format(statement, pg_temp.upload('live'))), '42501', 'to be allowed to call is not enough: ' || statement)
  FROM unnest(ARRAY['SELECT try_advance_upload(%L, 40, 1)', 'SELECT try_advance_upload(%L, 0, 1)', 'SELECT get_upload(%L)']) AS statement;
GRANT SELECT ON upload_session TO "vali ""blob"" caller";
SELECT is(pg_temp.raised_as('caller', format(statement, pg_temp.upload('live'))), code, 'with SELECT: ' || statement)
  FROM (VALUES ('SELECT get_upload(%L)', 'is allowed'), ('SELECT try_advance_upload(%L, 40, 1)', '42501'), ('SELECT try_advance_upload(%L, 0, 1)', '42501'))
	AS x (statement, code);

-- What a role may do changes with its memberships and attributes at once, also for a backend that has seen them before.
SELECT format('SELECT try_advance_upload(%L, 40, 1)', pg_temp.upload('live')) AS chunk \gset
GRANT "vali ""blob"" client" TO "vali ""blob"" caller";
SELECT is(pg_temp.raised_as('caller', :'chunk'), 'is allowed', 'a member of a role that may write a chunk');
REVOKE "vali ""blob"" client" FROM "vali ""blob"" caller";
SELECT is(pg_temp.raised_as('caller', :'chunk'), '42501', 'no longer a member');
ALTER ROLE "vali ""blob"" caller" SUPERUSER;
SELECT is(pg_temp.raised_as('caller', :'chunk'), 'is allowed', 'a superuser');
ALTER ROLE "vali ""blob"" caller" NOSUPERUSER;
SELECT is(pg_temp.raised_as('caller', :'chunk'), '42501', 'no longer a superuser');
GRANT UPDATE ON upload_session TO "vali ""blob"" caller";
SELECT is(pg_temp.raised_as('caller', :'chunk'), 'is allowed', 'with UPDATE');
REVOKE UPDATE ON upload_session FROM "vali ""blob"" caller";
SELECT is(pg_temp.raised_as('caller', :'chunk'), '42501', 'without it');

-- Several calls of one statement share its memory.
SELECT is(format('%s %s %s', before, between, after), 'BEFORE BETWEEN AFTER', 'what a statement has made before and after these calls stays what it is')
  FROM (SELECT upper('before') AS before, grant_upload_access('vali "blob" stranger'), upper('between') AS between,
	       revoke_upload_access('vali "blob" stranger'), upper('after') AS after) s;
SELECT lives_ok('DROP ROLE "vali ""blob"" former"', 'what is revoked leaves nothing that keeps a role from being dropped');

-- What is no role
SELECT throws_ok(format('SELECT %s(%L)', name, role), code, NULL, format('%s(%L): %s', name, role, sentence))
  FROM (VALUES ('grant_upload_access'), ('revoke_upload_access')) AS f (name),
	(VALUES
		('vali_blob_nobody', '42704', 'there is no such role'),
		('', '42704', 'nor one without a name'),
		(NULL, '22004', 'a null is refused'),
		('public', '42704', 'public is no role'),
		('current_user', '42704', 'nor is a keyword'),
		('x; DROP TABLE upload_session', '42704', 'nor is a command')
	) AS x (role, code, sentence);

SELECT * FROM finish();
ROLLBACK;
