-- CREATE EXTENSION in a schema whose name needs quoting, the whole life of an
-- upload there, whatever search_path says; dropping, creating again in another
-- schema, renaming the schema, all within one session.
\set VERBOSITY sqlstate
\pset null (null)
\pset format unaligned
\pset footer off
\set main :DBNAME
SET client_min_messages = error; -- whether the launcher is running makes no difference
DROP DATABASE IF EXISTS regress_vali_blob_install;
DROP ROLE IF EXISTS regress_vali_blob_owner;
CREATE DATABASE regress_vali_blob_install ENCODING 'UTF8' TEMPLATE template0;
\c regress_vali_blob_install
SET client_min_messages = error;

CREATE SCHEMA "Odd Schema";
CREATE EXTENSION vali_blob SCHEMA "Odd Schema";
SELECT nspname, extrelocatable FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'vali_blob';
-- Every object is in that schema.
SELECT count(*) > 0 AS objects, bool_and(schema = '"Odd Schema"') AS all_in_schema
  FROM pg_depend, LATERAL pg_identify_object(classid, objid, objsubid)
 WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
   AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'vali_blob');

-- Unqualified names are not found, qualified ones work, without a search_path as well.
SELECT start_upload('install/one');
CREATE FUNCTION pg_temp.upload_a_file(file text) RETURNS TABLE (step text, answer text) LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY SELECT 'start', s.status::text FROM "Odd Schema".start_upload(pg_catalog.concat('install/', file), provider_data => '{"multipart": "m"}', owner => 'alice', upload_id => file) s;
	RETURN QUERY SELECT 'advance', c.outcome::text FROM "Odd Schema".advance_upload(file, 0, 10, provider_data => '{"part-1": "e"}') c;
	RETURN QUERY SELECT 'try_advance', c.outcome::text FROM "Odd Schema".try_advance_upload(file, 5, 10) c;
	RETURN QUERY SELECT 'advance_uploads', c.outcome::text FROM "Odd Schema".advance_uploads(ARRAY[file], ARRAY[10], ARRAY[10]) c;
	RETURN QUERY SELECT 'declare', s.total_size::text FROM "Odd Schema".declare_upload_size(file, 20, 'alice') s;
	RETURN QUERY SELECT 'merge', s.metadata::text FROM "Odd Schema".merge_upload_data(file, '{"a": 1}') s;
	RETURN QUERY SELECT 'get', s.status::text FROM "Odd Schema".get_upload(file, 'alice') s;
	RETURN QUERY SELECT 'get_uploads', s.status::text FROM "Odd Schema".get_uploads(ARRAY[file]) s;
	RETURN QUERY SELECT 'list', s.status::text FROM "Odd Schema".list_uploads('alice', pg_catalog.concat('install/', file), 'in_progress', max_rows => 1) s;
	RETURN QUERY SELECT 'complete', s.status::text FROM "Odd Schema".complete_upload(file, '{"etag": "e"}') s;
	RETURN QUERY SELECT 'delete', "Odd Schema".delete_upload(file)::text;
	PERFORM "Odd Schema".start_upload(pg_catalog.concat('install/', file), provider_data => '{"multipart": "m"}', upload_id => file);
	RETURN QUERY SELECT 'abort', s.status::text FROM "Odd Schema".abort_upload(file) s;
	PERFORM "Odd Schema".start_upload(pg_catalog.concat('install/', file), provider_data => '{"multipart": "m"}', upload_id => pg_catalog.concat(file, ' stale'));
	UPDATE "Odd Schema".upload_session SET expires_at = '-infinity' WHERE path OPERATOR(pg_catalog.=) pg_catalog.concat('install/', file);
	RETURN QUERY SELECT 'sweep', s::text FROM "Odd Schema".sweep_uploads() s;
	RETURN QUERY SELECT 'claim', pg_catalog.concat(c.upload_id, ' ', c.reason) FROM "Odd Schema".claim_reclaims() c;
	RETURN QUERY SELECT 'fail', pg_catalog.bool_and("Odd Schema".fail_reclaim(r.id, 'try again'))::text FROM "Odd Schema".upload_reclaim r;
	RETURN QUERY SELECT 'finish', pg_catalog.bool_and("Odd Schema".finish_reclaim(r.id))::text FROM "Odd Schema".upload_reclaim r;
	DELETE FROM "Odd Schema".upload_session;
END $$;
SELECT * FROM pg_temp.upload_a_file('one');
SET search_path = '';
SELECT * FROM pg_temp.upload_a_file('two');

-- Tables, types, functions and operators of the same names in front of ours change nothing.
CREATE SCHEMA decoy;
CREATE TABLE decoy.upload_session (upload_id text, path text);
CREATE TABLE decoy.upload_reclaim (upload_id text);
CREATE TYPE decoy.upload_status AS ENUM ('decoy');
CREATE TYPE decoy.chunk_outcome AS ENUM ('decoy');
CREATE TEMPORARY TABLE upload_session (upload_id text);
DO $$
DECLARE
	type text;
	operator text;
BEGIN
	FOREACH type IN ARRAY ARRAY['text', 'bigint', 'integer', 'timestamptz', 'interval', 'jsonb', '"Odd Schema".upload_status'] LOOP
		EXECUTE format('CREATE FUNCTION decoy.trap(%s, %1$s) RETURNS boolean LANGUAGE plpgsql AS
			''BEGIN RAISE EXCEPTION USING ERRCODE = ''''F0000'''', MESSAGE = ''''search_path was used''''; END''', type);
		FOREACH operator IN ARRAY ARRAY['=', '<>', '<', '<=', '>', '>=', '+', '-', '*', '/', '||'] LOOP
			EXECUTE format('CREATE OPERATOR decoy.%s (LEFTARG = %s, RIGHTARG = %2$s, FUNCTION = decoy.trap)', operator, type);
		END LOOP;
	END LOOP;
END $$;
CREATE FUNCTION decoy.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT 'infinity'::timestamptz $$;
CREATE FUNCTION decoy.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT 'infinity'::timestamptz $$;
CREATE FUNCTION decoy.starts_with(text, text) RETURNS boolean LANGUAGE sql AS $$ SELECT false $$;
CREATE FUNCTION decoy.gen_random_uuid() RETURNS text LANGUAGE sql AS $$ SELECT 'decoy' $$;
SET search_path = decoy, pg_temp, pg_catalog;
SELECT 'a'::text = 'a'::text AS the_decoys_stand_in_front;
SELECT * FROM pg_temp.upload_a_file('three');
SELECT upload_id OPERATOR(pg_catalog.<>) 'decoy' AS random FROM "Odd Schema".start_upload('install/random');
SELECT (SELECT pg_catalog.count(*) FROM decoy.upload_session) AS sessions, (SELECT pg_catalog.count(*) FROM decoy.upload_reclaim) AS reclaims;
SET search_path = "Odd Schema", pg_catalog;
SELECT status FROM start_upload('install/first', 10, upload_id => 'first');
SELECT outcome FROM advance_upload('first', 0, 10, final => true);
SELECT start_upload('install/first', upload_id => 'first');
RESET search_path;
DROP TABLE pg_temp.upload_session;
DROP SCHEMA decoy CASCADE;

-- The schema gets another name: the functions go with it.
SELECT outcome FROM "Odd Schema".try_advance_upload('first', 0, 10);
ALTER SCHEMA "Odd Schema" RENAME TO "It's ""odd"" \ too";
SELECT outcome FROM "It's ""odd"" \ too".try_advance_upload('first', 0, 10);
SELECT upload_id, status FROM "It's ""odd"" \ too".get_upload('first');
SELECT upload_id, status FROM "It's ""odd"" \ too".list_uploads(path_prefix => 'install/first');
ALTER SCHEMA "It's ""odd"" \ too" RENAME TO "Odd Schema";
SELECT outcome FROM "Odd Schema".try_advance_upload('first', 0, 10);
-- It cannot be moved to another schema.
CREATE SCHEMA other;
ALTER EXTENSION vali_blob SET SCHEMA other;

-- Dropped and created again in this session: nothing is remembered of the first one.
DROP EXTENSION vali_blob;
SELECT "Odd Schema".start_upload('install/gone');
SELECT count(*) FROM pg_class WHERE relnamespace = '"Odd Schema"'::regnamespace;
SELECT count(*) FROM pg_type WHERE typnamespace = '"Odd Schema"'::regnamespace;
SELECT count(*) FROM pg_proc WHERE pronamespace = '"Odd Schema"'::regnamespace;
CREATE EXTENSION vali_blob SCHEMA other;
SELECT status FROM other.start_upload('install/again', 10, upload_id => 'first');
SELECT outcome FROM other.advance_upload('first', 0, 10);
SELECT upload_id, status FROM other.get_upload('first');
-- The same in a transaction that is rolled back.
BEGIN;
DROP EXTENSION vali_blob;
CREATE EXTENSION vali_blob SCHEMA "Odd Schema";
SELECT status FROM "Odd Schema".start_upload('install/never', 10, upload_id => 'never');
SELECT outcome FROM "Odd Schema".advance_upload('never', 0, 10);
ROLLBACK;
SELECT outcome FROM other.try_advance_upload('first', 0, 10);
SELECT outcome FROM other.try_advance_upload('never', 0, 10);

-- Columns that an administrator adds do not disturb, nor do those that came and went.
ALTER TABLE other.upload_session ADD COLUMN note text DEFAULT 'noted', ADD COLUMN gone int;
ALTER TABLE other.upload_session DROP COLUMN gone;
SELECT outcome FROM other.advance_upload('first', 0, 10);
SELECT upload_id, status, note FROM other.complete_upload('first');
SELECT upload_id, status, note FROM other.start_upload('install/note', upload_id => 'note');
SELECT upload_id, status, note FROM other.get_uploads(ARRAY['note', 'first']);

-- Without a schema it goes where new objects go; the version that is asked for; only once in a database.
DROP EXTENSION vali_blob;
SET search_path = "Odd Schema";
CREATE EXTENSION vali_blob;
SELECT status FROM start_upload('install/here');
CREATE EXTENSION vali_blob SCHEMA other;
RESET search_path;
DROP EXTENSION vali_blob;
CREATE EXTENSION vali_blob VERSION 'none';
-- Only superusers create it.
CREATE ROLE regress_vali_blob_owner;
GRANT CREATE ON DATABASE regress_vali_blob_install TO regress_vali_blob_owner;
SET ROLE regress_vali_blob_owner;
CREATE EXTENSION vali_blob SCHEMA other;
RESET ROLE;

-- A setting of the database reaches its new sessions, also before the library is loaded.
CREATE EXTENSION vali_blob;
ALTER DATABASE regress_vali_blob_install SET vali_blob.session_ttl = '16h';
ALTER DATABASE regress_vali_blob_install SET vali_blob.require_owner = on;
\c
SELECT start_upload('install/setting');
SELECT ttl = '16 hours' AS ttl_from_database FROM start_upload('install/setting', owner => 'alice');

\c :main
DROP DATABASE regress_vali_blob_install;
DROP ROLE regress_vali_blob_owner;
