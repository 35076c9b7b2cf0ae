-- What CREATE EXTENSION vali_blob makes: types, tables, constraints, indexes,
-- functions, comments, privileges, and what pg_dump keeps.
BEGIN;
SET client_min_messages = warning;
SET intervalstyle = postgres;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS vali_blob;
SELECT no_plan();

CREATE FUNCTION pg_temp.raised(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN 'none';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;

-- The objects of the extension
CREATE TEMPORARY VIEW member AS
	SELECT d.classid, d.objid, pg_describe_object(d.classid, d.objid, d.objsubid) AS name
	  FROM pg_depend d JOIN pg_extension e ON d.refobjid = e.oid
	 WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'vali_blob';

--
-- The extension
--
SELECT ok(superuser AND NOT trusted, 'a superuser creates the extension')
  FROM pg_available_extension_versions v JOIN pg_extension e ON (v.name, v.version) = (e.extname, e.extversion)
 WHERE name = 'vali_blob';
SELECT ok(NOT extrelocatable, 'it stays in the schema where it was created') FROM pg_extension WHERE extname = 'vali_blob';
SELECT ok(schema IS NULL, 'which may be any schema')
  FROM pg_available_extension_versions v JOIN pg_extension e ON (v.name, v.version) = (e.extname, e.extversion)
 WHERE name = 'vali_blob';

--
-- Types
--
SELECT enum_has_labels('upload_status', ARRAY['pending', 'in_progress', 'complete', 'aborted', 'expired'],
	'an upload is pending, in_progress, complete, aborted or expired, in this order');
SELECT enum_has_labels('chunk_outcome', ARRAY['advanced', 'replayed', 'conflict', 'too_large', 'incomplete',
	'ended', 'expired', 'not_found', 'locked', 'replaced', 'fenced'],
	'a chunk has one of eleven outcomes, in this order');
SELECT has_composite(name) FROM unnest(ARRAY['chunk_result', 'upload_lease']) AS name;
SELECT results_eq(
	$$ SELECT attname::text COLLATE "default", format_type(atttypid, atttypmod)
	     FROM pg_attribute WHERE attrelid = 'chunk_result'::regclass ORDER BY attnum $$,
	$$ VALUES ('outcome', 'chunk_outcome'), ('uploaded_bytes', 'bigint'), ('total_size', 'bigint'),
	          ('status', 'upload_status'), ('ready', 'boolean'), ('expires_at', 'timestamp with time zone') $$,
	'a chunk_result has these fields, in this order');
SELECT results_eq(
	$$ SELECT attname::text COLLATE "default", format_type(atttypid, atttypmod)
	     FROM pg_attribute WHERE attrelid = 'upload_lease'::regclass ORDER BY attnum $$,
	$$ VALUES ('held', 'boolean'), ('epoch', 'bigint'), ('holder', 'text'), ('expires_at', 'timestamp with time zone'),
	          ('requested', 'boolean'), ('uploaded_bytes', 'bigint'), ('total_size', 'bigint'), ('status', 'upload_status') $$,
	'an upload_lease has these fields, in this order');

--
-- Tables
--
SELECT has_table(name) FROM unnest(ARRAY['upload_session', 'upload_reclaim', 'upload_part', 'upload_quota', 'upload_live']) AS name;
SELECT ok(relkind = 'r' AND relpersistence = 'p' AND NOT relhasrules AND NOT relrowsecurity
		AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal),
		relname || ' is a plain, logged table')
  FROM pg_class c WHERE oid IN ('upload_session'::regclass, 'upload_reclaim'::regclass, 'upload_part'::regclass,
		'upload_quota'::regclass, 'upload_live'::regclass);

CREATE TEMPORARY VIEW session_column AS
	SELECT attname AS name, format_type(atttypid, atttypmod) AS type, NOT attnotnull AS nullable,
	       attcollation = '"C"'::regcollation AS collate_c, pg_get_expr(adbin, adrelid) AS value, attidentity AS identity
	  FROM pg_attribute LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)
	 WHERE attrelid = 'upload_session'::regclass AND attnum > 0 AND NOT attisdropped;

SELECT columns_are('upload_session', ARRAY['id', 'upload_id', 'owner', 'bucket', 'path', 'total_size', 'uploaded_bytes',
	'status', 'content_type', 'metadata', 'provider_data', 'result', 'abort_reason', 'ttl', 'created_at', 'updated_at',
	'expires_at', 'any_order', 'auto_complete', 'end_by', 'size_limit', 'rules_version', 'lease_epoch', 'lease_holder',
	'lease_expires_at', 'lease_requested', 'notified_at', 'partial', 'concatenated_from'], 'upload_session has these columns, in any order');
SELECT is((c.type, c.nullable)::text, (x.type, x.nullable)::text,
		format('%s is %s, %s', x.name, x.type, CASE WHEN x.nullable THEN 'may be null' ELSE 'is never null' END))
  FROM (VALUES
		('id', 'bigint', false),
		('upload_id', 'character varying(128)', false),
		('owner', 'text', true),
		('bucket', 'character varying(256)', true),
		('path', 'character varying(2048)', false),
		('total_size', 'bigint', true),
		('uploaded_bytes', 'bigint', false),
		('status', 'upload_status', false),
		('content_type', 'character varying(256)', true),
		('metadata', 'jsonb', false),
		('provider_data', 'jsonb', false),
		('result', 'jsonb', true),
		('abort_reason', 'text', true),
		('ttl', 'interval', true),
		('created_at', 'timestamp with time zone', false),
		('updated_at', 'timestamp with time zone', false),
		('expires_at', 'timestamp with time zone', true),
		('any_order', 'boolean', false),
		('auto_complete', 'boolean', false),
		('end_by', 'timestamp with time zone', true),
		('size_limit', 'bigint', true),
		('rules_version', 'bigint', true),
		('lease_epoch', 'bigint', false),
		('lease_holder', 'text', true),
		('lease_expires_at', 'timestamp with time zone', true),
		('lease_requested', 'boolean', false),
		('notified_at', 'timestamp with time zone', true),
		('partial', 'boolean', false),
		('concatenated_from', 'jsonb', true)
	) AS x (name, type, nullable) LEFT JOIN session_column c USING (name);
SELECT ok(c.collate_c, x.name || ' compares byte by byte')
  FROM (VALUES ('upload_id'), ('owner'), ('path')) AS x (name) LEFT JOIN session_column c USING (name);
SELECT isnt(identity, '', 'id is an identity column') FROM session_column WHERE name = 'id';
SELECT is(c.value, x.value, format('%s is %s unless given', x.name, x.value))
  FROM (VALUES
		('uploaded_bytes', '0'),
		('status', '''pending''::upload_status'),
		('metadata', '''{}''::jsonb'),
		('provider_data', '''{}''::jsonb'),
		('any_order', 'false'),
		('auto_complete', 'false'),
		('lease_epoch', '0'),
		('lease_requested', 'false'),
		('partial', 'false')
	) AS x (name, value) LEFT JOIN session_column c USING (name);
SELECT ok(c.value IS NULL, x.name || ' has no default')
  FROM (VALUES ('owner'), ('bucket'), ('path'), ('total_size'), ('content_type'), ('result'), ('abort_reason'), ('ttl'),
		('expires_at'), ('end_by'), ('size_limit'), ('rules_version'), ('lease_holder'), ('lease_expires_at'), ('notified_at'),
		('concatenated_from')) AS x (name) LEFT JOIN session_column c USING (name);

INSERT INTO upload_session (path, created_at, updated_at) VALUES ('schema/1', now(), now()), ('schema/2', now(), now());
SELECT ok(bool_and(upload_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$') AND count(DISTINCT upload_id) = 2,
		'upload_id is a random UUID unless given')
  FROM upload_session WHERE path LIKE 'schema/%';

SELECT columns_are('upload_reclaim', ARRAY['id', 'upload_id', 'owner', 'bucket', 'path', 'provider_data', 'reason',
	'enqueued_at', 'attempts', 'claimed_until', 'last_error', 'parts'], 'upload_reclaim has these columns, in any order');
SELECT columns_are('upload_part', ARRAY['upload_id', 'chunk_offset', 'chunk_length', 'part_number', 'etag', 'checksum',
	'confirmed_at'], 'upload_part has these columns, in any order');
SELECT columns_are('upload_quota', ARRAY['owner', 'max_live_uploads', 'max_live_bytes', 'max_upload_size', 'counted'],
	'upload_quota has these columns, in any order');
SELECT columns_are('upload_live', ARRAY['upload_id', 'owner', 'bytes', 'expires_at'], 'upload_live has these columns, in any order');

--
-- Constraints
--
SELECT col_is_pk('upload_session', 'upload_id', 'upload_id identifies a session');
SELECT col_is_pk('upload_reclaim', ARRAY['id', 'upload_id'], 'upload_id is in the key of the reclaim queue, too');

CREATE TEMPORARY VIEW valid_session AS
	SELECT 'schema-check'::text AS upload_id, 'schema/check'::text AS path, 10::bigint AS total_size,
	       5::bigint AS uploaded_bytes, 'in_progress'::upload_status AS status, '{}'::jsonb AS metadata,
	       '{}'::jsonb AS provider_data, '{}'::jsonb AS result;
CREATE FUNCTION pg_temp.insert_session_with(change text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE 'INSERT INTO upload_session (upload_id, path, total_size, uploaded_bytes, status, metadata, provider_data,
			result, created_at, updated_at)
		SELECT upload_id, path, total_size, uploaded_bytes, status, metadata, provider_data, result, now(), now()
		  FROM (SELECT (jsonb_populate_record(v, $1)).* FROM valid_session v) s' USING change::jsonb;
END $$;
SELECT lives_ok(format('SELECT pg_temp.insert_session_with(%L)', change), sentence)
  FROM (VALUES
		('{}', 'a session may hold some of its bytes'),
		('{"upload_id": "schema-1", "uploaded_bytes": 0}', '... none of them'),
		('{"upload_id": "schema-2", "uploaded_bytes": 10}', '... all of them'),
		('{"upload_id": "schema-3", "total_size": 0, "uploaded_bytes": 0}', 'a total_size of 0 is a size'),
		('{"upload_id": "schema-4", "total_size": null}', 'total_size may be unknown'),
		('{"upload_id": "schema-5", "uploaded_bytes": 10, "status": "complete"}', 'a complete session has all its bytes')
	) AS x (change, sentence);
SELECT throws_ok(format('SELECT pg_temp.insert_session_with(%L)', change), code, NULL, sentence)
  FROM (VALUES
		('23505', '{}', 'no two sessions have the same upload_id'),
		('23514', '{"upload_id": "schema-6", "uploaded_bytes": -1}', 'uploaded_bytes is not negative'),
		('23514', '{"upload_id": "schema-6", "uploaded_bytes": -1, "total_size": null}', '... nor is it where total_size is unknown'),
		('23514', '{"upload_id": "schema-6", "uploaded_bytes": 11}', 'uploaded_bytes does not exceed total_size'),
		('23514', '{"upload_id": "schema-6", "total_size": -1, "uploaded_bytes": 0}', 'total_size is not negative'),
		('23514', '{"upload_id": "schema-6", "status": "complete"}', 'a session with bytes missing is not complete'),
		('23514', '{"upload_id": "schema-6", "total_size": null, "status": "complete"}', 'a session of unknown size is not complete'),
		('23514', '{"upload_id": "schema-6", "metadata": []}', 'metadata is an object'),
		('23514', '{"upload_id": "schema-6", "metadata": [{}], "result": null}', '... also where there is no result'),
		('23514', '{"upload_id": "schema-6", "provider_data": "text"}', 'provider_data is an object'),
		('23514', '{"upload_id": "schema-6", "result": 1}', 'result is an object'),
		('23502', '{"upload_id": "schema-6", "path": null}', 'path is given')
	) AS x (code, change, sentence);

CREATE FUNCTION pg_temp.insert_reclaim(reason upload_status, attempts integer) RETURNS void LANGUAGE sql AS $$
	INSERT INTO upload_reclaim (upload_id, path, provider_data, reason, attempts) VALUES ('schema-check', 'schema/check', '{}', reason, attempts)
$$;
SELECT is(reason || ', ' || pg_temp.raised(format('SELECT pg_temp.insert_reclaim(%L, 0)', reason)), reason || ', ' || code, sentence)
  FROM (VALUES
		('aborted', 'none', 'what an aborted upload left is queued'),
		('expired', 'none', '... or an expired one'),
		('complete', 'none', '... or a complete one that was deleted'),
		('pending', '23514', '... but not a live one'),
		('in_progress', '23514', '... whether it has bytes or not')
	) AS x (reason, code, sentence);
SELECT throws_ok($$ SELECT pg_temp.insert_reclaim('aborted', -1) $$, '23514', NULL, 'attempts are not negative');

--
-- Parts
--
SELECT col_is_pk('upload_part', ARRAY['upload_id', 'chunk_offset'], 'a part is identified by where it begins');
SELECT fk_ok('upload_part', 'upload_id', 'upload_session', 'upload_id');
CREATE FUNCTION pg_temp.insert_part(chunk_offset bigint, chunk_length bigint, part_number integer, checksum bytea, etag text = NULL) RETURNS void LANGUAGE sql AS $$
	INSERT INTO upload_part (upload_id, chunk_offset, chunk_length, part_number, checksum, etag) VALUES ('schema-check', chunk_offset, chunk_length, part_number, checksum, etag)
$$;
SELECT is(pg_temp.raised(format('SELECT pg_temp.insert_part(%s)', part)), code, sentence)
  FROM (VALUES
		('0, 1, 1, repeat(''x'', 64)::bytea', 'none', 'a part may have a number and a checksum'),
		('1, 1, NULL, NULL', 'none', '... or none'),
		('2, 1, NULL, NULL', 'none', '... as often as there are parts'),
		('3, 1, 1, NULL', '23505', 'numbers are unique in a session'),
		('0, 2, NULL, NULL', '23505', 'parts begin at different offsets'),
		('-1, 1, NULL, NULL', '23514', 'an offset is not negative'),
		('4, 0, NULL, NULL', '23514', 'a part is not empty'),
		('4, 1, 0, NULL', '23514', 'numbers begin at 1'),
		('4, 1, NULL, repeat(''x'', 65)::bytea', '23514', 'a checksum has at most 64 bytes'),
		('4, 1, NULL, NULL, repeat(''x'', 1025)', '23514', 'an etag has at most 1024 characters'),
		('NULL, 1, NULL, NULL', '23502', 'an offset is given'),
		('4, NULL, NULL, NULL', '23502', 'a length is given')
	) AS x (part, code, sentence);
DELETE FROM upload_session WHERE upload_id = 'schema-check';
SELECT is_empty('SELECT FROM upload_part', 'parts go with their session');

--
-- Indexes
--
CREATE TEMPORARY VIEW session_index AS
	SELECT i.indisunique AS is_unique, i.indpred IS NULL AS is_whole, pg_get_indexdef(i.indexrelid) AS definition,
	       (SELECT string_agg(pg_get_indexdef(i.indexrelid, n, false), ', ' ORDER BY n)
	          FROM generate_series(1, i.indnkeyatts) AS n) AS columns
	  FROM pg_index i WHERE i.indrelid = 'upload_session'::regclass;

SELECT ok(EXISTS (SELECT FROM session_index WHERE columns = 'upload_id' AND is_unique AND is_whole), 'upload_id has a unique index');
SELECT ok(EXISTS (SELECT FROM session_index WHERE columns = x.columns AND is_whole), format('(%s) has an index, %s', x.columns, purpose))
  FROM (VALUES
		('id', 'for listings'),
		('expires_at, id', 'for the sweep'),
		('path', 'for listings by path'),
		('owner, id', 'for listings by owner')
	) AS x (columns, purpose);
SELECT is_empty(format('SELECT definition FROM session_index WHERE definition ~ %L', x.name),
		format('no index contains %s, which a chunk or a completion changes', x.name))
  FROM (VALUES ('uploaded_bytes'), ('updated_at'), ('status'), ('result')) AS x (name);
SELECT ok(EXISTS (SELECT FROM unnest(reloptions) AS o WHERE o ~ '^fillfactor=[1-9][0-9]$'),
		'pages keep room for new versions of their rows')
  FROM pg_class WHERE oid = 'upload_session'::regclass;

--
-- Functions
--
CREATE TEMPORARY VIEW member_function AS
	SELECT p.oid, p.proname AS name, p.prosecdef,
	       format('(%s) returns %s, %s, parallel %s', pg_get_function_arguments(p.oid), pg_get_function_result(p.oid),
			CASE p.provolatile WHEN 'v' THEN 'volatile' WHEN 's' THEN 'stable' ELSE 'immutable' END,
			CASE p.proparallel WHEN 'u' THEN 'unsafe' WHEN 'r' THEN 'restricted' ELSE 'safe' END) AS signature
	  FROM member m JOIN pg_proc p ON p.oid = m.objid AND m.classid = 'pg_proc'::regclass;

SELECT is(f.signature, x.signature, x.name || x.signature)
  FROM (VALUES
		('start_upload', '(path text, total_size bigint DEFAULT NULL::bigint, content_type text DEFAULT NULL::text, metadata jsonb DEFAULT NULL::jsonb, provider_data jsonb DEFAULT NULL::jsonb, owner text DEFAULT NULL::text, bucket text DEFAULT NULL::text, ttl interval DEFAULT NULL::interval, upload_id text DEFAULT NULL::text, any_order boolean DEFAULT false, size_limit bigint DEFAULT NULL::bigint, auto_complete boolean DEFAULT false, max_age interval DEFAULT NULL::interval, or_resume boolean DEFAULT false, partial boolean DEFAULT false) returns upload_session, volatile, parallel unsafe'),
		('advance_upload', '(upload_id text, chunk_offset bigint, chunk_length bigint, final boolean DEFAULT false, provider_data jsonb DEFAULT NULL::jsonb, owner text DEFAULT NULL::text, nowait boolean DEFAULT false, part_number integer DEFAULT NULL::integer, etag text DEFAULT NULL::text, checksum bytea DEFAULT NULL::bytea, lease_epoch bigint DEFAULT NULL::bigint) returns chunk_result, volatile, parallel unsafe'),
		('try_advance_upload', '(upload_id text, chunk_offset bigint, chunk_length bigint, final boolean DEFAULT false, provider_data jsonb DEFAULT NULL::jsonb, owner text DEFAULT NULL::text, nowait boolean DEFAULT false, part_number integer DEFAULT NULL::integer, etag text DEFAULT NULL::text, checksum bytea DEFAULT NULL::bytea, lease_epoch bigint DEFAULT NULL::bigint) returns chunk_result, volatile, parallel unsafe'),
		('advance_uploads', '(upload_ids text[], chunk_offsets bigint[], chunk_lengths bigint[], owner text DEFAULT NULL::text, part_numbers integer[] DEFAULT NULL::integer[], etags text[] DEFAULT NULL::text[], checksums bytea[] DEFAULT NULL::bytea[], lease_epochs bigint[] DEFAULT NULL::bigint[]) returns SETOF chunk_result, volatile, parallel unsafe'),
		('declare_upload_size', '(upload_id text, total_size bigint, owner text DEFAULT NULL::text) returns upload_session, volatile, parallel unsafe'),
		('merge_upload_data', '(upload_id text, metadata jsonb DEFAULT NULL::jsonb, provider_data jsonb DEFAULT NULL::jsonb, owner text DEFAULT NULL::text) returns upload_session, volatile, parallel unsafe'),
		('complete_upload', '(upload_id text, result jsonb DEFAULT NULL::jsonb, owner text DEFAULT NULL::text) returns upload_session, volatile, parallel unsafe'),
		('abort_upload', '(upload_id text, reason text DEFAULT NULL::text, owner text DEFAULT NULL::text) returns upload_session, volatile, parallel unsafe'),
		('get_upload', '(upload_id text, owner text DEFAULT NULL::text) returns SETOF upload_session, stable, parallel safe'),
		('get_uploads', '(upload_ids text[], owner text DEFAULT NULL::text) returns SETOF upload_session, stable, parallel safe'),
		('list_uploads', '(owner text DEFAULT NULL::text, path_prefix text DEFAULT NULL::text, status upload_status DEFAULT NULL::upload_status, idle_for interval DEFAULT NULL::interval, max_rows integer DEFAULT 100, after_id bigint DEFAULT NULL::bigint, metadata jsonb DEFAULT NULL::jsonb) returns SETOF upload_session, stable, parallel safe'),
		('delete_upload', '(upload_id text, owner text DEFAULT NULL::text, reclaim_complete boolean DEFAULT false) returns boolean, volatile, parallel unsafe'),
		('list_parts', '(upload_id text, owner text DEFAULT NULL::text, max_rows integer DEFAULT 1000, after_offset bigint DEFAULT NULL::bigint) returns SETOF upload_part, stable, parallel safe'),
		('missing_ranges', '(upload_id text, owner text DEFAULT NULL::text, max_rows integer DEFAULT 1000) returns TABLE(chunk_offset bigint, chunk_length bigint), stable, parallel safe'),
		('concatenate_uploads', '(path text, upload_ids text[], upload_id text DEFAULT NULL::text, owner text DEFAULT NULL::text, bucket text DEFAULT NULL::text, content_type text DEFAULT NULL::text, metadata jsonb DEFAULT NULL::jsonb, provider_data jsonb DEFAULT NULL::jsonb, result jsonb DEFAULT NULL::jsonb) returns upload_session, volatile, parallel unsafe'),
		('acquire_upload_lease', '(upload_id text, holder text, duration interval DEFAULT ''00:00:30''::interval, owner text DEFAULT NULL::text, take_over boolean DEFAULT false) returns upload_lease, volatile, parallel unsafe'),
		('renew_upload_lease', '(upload_id text, epoch bigint, duration interval DEFAULT ''00:00:30''::interval, owner text DEFAULT NULL::text) returns upload_lease, volatile, parallel unsafe'),
		('release_upload_lease', '(upload_id text, epoch bigint, owner text DEFAULT NULL::text) returns upload_lease, volatile, parallel unsafe'),
		('set_upload_quota', '(owner text, max_live_uploads bigint DEFAULT NULL::bigint, max_live_bytes bigint DEFAULT NULL::bigint, max_upload_size bigint DEFAULT NULL::bigint) returns upload_quota, volatile, parallel unsafe'),
		('upload_usage', '(owner text, OUT live_uploads bigint, OUT live_bytes bigint, OUT confirmed_bytes bigint, OUT max_live_uploads bigint, OUT max_live_bytes bigint) returns record, stable, parallel safe'),
		('sweep_uploads', '(max_rows integer DEFAULT NULL::integer, OUT expired bigint, OUT purged bigint, OUT reclaims_dropped bigint) returns record, volatile, parallel unsafe'),
		('claim_reclaims', '(max_rows integer DEFAULT 100, lease interval DEFAULT ''00:05:00''::interval) returns SETOF upload_reclaim, volatile, parallel unsafe'),
		('finish_reclaim', '(id bigint) returns boolean, volatile, parallel unsafe'),
		('fail_reclaim', '(id bigint, error text) returns boolean, volatile, parallel unsafe'),
		('grant_upload_access', '(role name) returns void, volatile, parallel unsafe'),
		('revoke_upload_access', '(role name) returns void, volatile, parallel unsafe')
	) AS x (name, signature) LEFT JOIN member_function f USING (name);
SELECT is_empty('SELECT name FROM member_function GROUP BY name HAVING count(*) > 1', 'no function is overloaded');
SELECT is_empty('SELECT name FROM member_function WHERE prosecdef', 'all functions run with the rights of the caller');

--
-- Comments
--
-- From PostgreSQL 17 on, arrays and the row types of tables are members, too.
SELECT is_empty($$
	SELECT name FROM member
	WHERE obj_description(objid, classid::regclass::name) IS NULL
		AND NOT (classid = 'pg_type'::regclass AND EXISTS (
			SELECT FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
			WHERE t.oid = objid AND (t.typelem <> 0 OR c.relkind IN ('r', 'v'))))
	$$, 'every object has a comment');
SELECT is_empty(
	$$ SELECT attrelid::regclass, attname FROM pg_attribute
	    WHERE attrelid IN ('upload_session'::regclass, 'upload_reclaim'::regclass, 'upload_part'::regclass, 'upload_quota'::regclass,
	                       'upload_live'::regclass, 'chunk_result'::regclass, 'upload_lease'::regclass)
	      AND attnum > 0 AND NOT attisdropped AND col_description(attrelid, attnum) IS NULL $$,
	'every column has a comment');

--
-- Privileges
--
SELECT is_empty($$ SELECT name FROM member_function WHERE has_function_privilege('public', oid, 'EXECUTE') $$,
	'nobody may call a function before it is granted');
SELECT is_empty(
	$$ SELECT c.relname, privilege FROM member m JOIN pg_class c ON c.oid = m.objid AND m.classid = 'pg_class'::regclass,
	          unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS privilege
	    WHERE c.relkind = 'r' AND has_table_privilege('public', c.oid, privilege) $$,
	'nobody may touch a table before it is granted');
SELECT is_empty(
	$$ SELECT c.relname FROM member m JOIN pg_class c ON c.oid = m.objid AND m.classid = 'pg_class'::regclass
	    WHERE CASE c.relkind WHEN 'S' THEN has_sequence_privilege('public', c.oid, 'USAGE, SELECT, UPDATE') END $$,
	'nobody may touch a sequence before it is granted');

--
-- Dumps
--
SELECT results_eq(
	$$ SELECT c.oid::regclass::text, condition COLLATE "default" FROM pg_extension, unnest(extconfig, extcondition) AS x (oid, condition)
	     JOIN pg_class c USING (oid) WHERE extname = 'vali_blob' ORDER BY c.oid::regclass::text COLLATE "C" $$,
	$$ SELECT name, '' FROM unnest(ARRAY['upload_part', 'upload_quota', 'upload_live', 'upload_reclaim', pg_get_serial_sequence('upload_reclaim', 'id')::regclass::text,
	                                     'upload_session', pg_get_serial_sequence('upload_session', 'id')::regclass::text]) AS name
	    ORDER BY name COLLATE "C" $$,
	'pg_dump keeps all rows of the tables, and where their ids go on');

--
-- Settings
--
LOAD 'vali_blob';
SELECT is((s.boot_val || s.unit)::interval, value::interval, format('vali_blob.%s is %s', x.name, value))
  FROM (VALUES ('session_ttl', '48 hours'), ('retention', '48 hours'), ('reclaim_retention', '30 days'),
		('sweep_interval', '60 seconds'), ('notify_interval', '1 second')) AS x (name, value) LEFT JOIN pg_settings AS s ON s.name = 'vali_blob.' || x.name;
SELECT is(s.boot_val, value, format('vali_blob.%s is %s', x.name, value))
  FROM (VALUES ('require_owner', 'off'), ('sweep', 'on'), ('sweep_batch_size', '1000'), ('notify', 'off'), ('node', '0'),
		('max_upload_size', '-1'), ('max_live_uploads', '-1'), ('max_live_bytes', '-1')) AS x (name, value)
  LEFT JOIN pg_settings AS s ON s.name = 'vali_blob.' || x.name;

SELECT * FROM finish();
ROLLBACK;
