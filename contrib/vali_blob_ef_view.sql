-- contrib/vali_blob_ef_view.sql
--
-- Creates, or renews, an updatable view over upload_session that looks like the
-- table which the .NET library Vali-Blob keeps through Entity Framework.  See
-- "Coming from Vali-Blob" in the manual.
--
--     psql --single-transaction -v schema=public -v name=ValiBlob_ResumableSessions \
--          -f vali_blob_ef_view.sql DATABASE
--
-- Without "schema", it is the first one of the search_path, as for a table that
-- Entity Framework makes without one.  The view and its functions belong to the
-- role that runs the script, which needs no privilege on the sessions.

\set ON_ERROR_STOP on
\if :{?schema}
\else
SELECT current_schema() AS schema \gset
\endif
\if :{?name}
\else
\set name ValiBlob_ResumableSessions
\endif

SELECT pg_catalog.current_setting('search_path') AS vali_blob_search_path \gset
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', false) AS vali_blob_ignored \gset

--
-- What keeps the view from being created, as an error.
--

SELECT format('DO %L', format('BEGIN RAISE EXCEPTION USING ERRCODE = %L, MESSAGE = %L, HINT = %L; END',
	p.code, p.message, p.hint))
FROM (
	SELECT 'undefined_object', 'extension "vali_blob" is not installed in this database',
		'Run CREATE EXTENSION vali_blob first.'
	WHERE NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'vali_blob')
	UNION ALL
	SELECT 'feature_not_supported', 'extension "vali_blob" is older than version 1.1',
		'Run ALTER EXTENSION vali_blob UPDATE first.'
	FROM pg_extension WHERE extname = 'vali_blob' AND extversion = '1.0'
	UNION ALL
	SELECT 'invalid_schema_name', format('schema %I does not exist', :'schema'),
		'Choose another one with -v schema=NAME.'
	WHERE NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = :'schema')
	UNION ALL
	SELECT 'duplicate_table', format('%I.%I is a table, where the view is to be', :'schema', :'name'),
		format('Take its rows over, see "Coming from Vali-Blob" in the manual; then give it another name: '
			'ALTER TABLE %I.%I RENAME TO %I.', :'schema', :'name', left(:'name', 50) || '_old')
	FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
	WHERE c.relname = :'name' AND n.nspname = :'schema' AND c.relkind IN ('r', 'p', 'f')
	UNION ALL
	SELECT 'duplicate_table', format('%I.%I exists, and was not created by this script', :'schema', :'name'),
		'Choose another name with -v name=NAME, or give that one another name.'
	FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
	WHERE c.relname = :'name' AND n.nspname = :'schema' AND c.relkind NOT IN ('r', 'p', 'f')
		AND NOT EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgrelid = c.oid AND t.tgname = 'vali_blob_update')
) AS p (code, message, hint)
LIMIT 1
\gexec

SELECT n.nspname AS vali_blob_schema
FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
WHERE e.extname = 'vali_blob' \gset

--
-- Functions
--
-- They run with the rights of their caller, as the extension's functions do, which
-- they call, so that its rules hold.  What these functions cannot write as the
-- library has it (exact times, a null in a JSON object) they write themselves.
--

SELECT format('CREATE OR REPLACE FUNCTION %I.vali_blob_ef_%s() RETURNS trigger LANGUAGE plpgsql '
	'SET search_path = pg_catalog, pg_temp AS %L',
	:'schema', f.name, replace(f.body, '@extschema@', quote_ident(:'vali_blob_schema')))
FROM (VALUES
('insert', $body$
DECLARE
	session @extschema@.upload_session;
BEGIN
	-- the library's deadline is absolute, so nothing is to slide it
	SELECT * INTO session FROM @extschema@.start_upload(
		path => NEW."Path"::text,
		total_size => NULLIF(NEW."TotalSize", 0),
		content_type => NEW."ContentType",
		metadata => NULLIF(NULLIF(NEW."MetadataJson", '')::jsonb, 'null'),
		provider_data => NULLIF(NULLIF(NEW."ProviderDataJson", '')::jsonb, 'null'),
		bucket => NEW."BucketOverride",
		ttl => interval '0',
		upload_id => NEW."UploadId"::text);
	IF NEW."BytesUploaded" <> 0 THEN
		PERFORM @extschema@.advance_upload(session.upload_id::text, 0::bigint, NEW."BytesUploaded");
	END IF;
	IF NEW."IsComplete" THEN
		PERFORM @extschema@.declare_upload_size(session.upload_id::text, NEW."BytesUploaded")
		WHERE session.total_size IS NULL;
		PERFORM @extschema@.complete_upload(session.upload_id::text);
	END IF;
	IF NEW."IsAborted" THEN
		PERFORM @extschema@.abort_upload(session.upload_id::text);
	END IF;

	-- of an ended session, expires_at is the end of its retention
	UPDATE @extschema@.upload_session AS s
	SET created_at = COALESCE(NEW."CreatedAt", s.created_at),
		end_by = NEW."ExpiresAt",
		expires_at = CASE WHEN s.status IN ('pending', 'in_progress') THEN NEW."ExpiresAt" ELSE s.expires_at END
	WHERE s.upload_id = session.upload_id;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = '27000',
			MESSAGE = format('upload "%s" was not written', session.upload_id),
			HINT = 'Look for triggers, rules and policies on upload_session.';
	END IF;
	RETURN NEW;
END
$body$),
('update', $body$
DECLARE
	key constant text := OLD."UploadId";
	session @extschema@.upload_session;
	target @extschema@.upload_session;
	old_data constant jsonb := COALESCE(OLD."ProviderDataJson", '{}');
	new_data constant jsonb := COALESCE(NULLIF(NULLIF(NEW."ProviderDataJson", '')::jsonb, 'null'), '{}');
	old_metadata constant jsonb := COALESCE(OLD."MetadataJson", '{}');
	new_metadata constant jsonb := COALESCE(NULLIF(NULLIF(NEW."MetadataJson", '')::jsonb, 'null'), '{}');
	moves boolean;
	reopens constant boolean := OLD."IsComplete" AND NEW."IsComplete" IS NOT TRUE
		OR OLD."IsAborted" AND NEW."IsAborted" IS NOT TRUE;
BEGIN
	SELECT * INTO session FROM @extschema@.upload_session AS s WHERE s.upload_id = OLD."UploadId" FOR UPDATE;
	IF NOT FOUND THEN
		RETURN NULL; -- deleted since the statement began: no row is counted
	END IF;
	IF NEW."UploadId" IS DISTINCT FROM OLD."UploadId" THEN
		RAISE EXCEPTION USING ERRCODE = '0A000',
			MESSAGE = format('the "UploadId" of upload "%s" cannot be changed', key),
			HINT = 'Insert another upload, and delete this one.';
	END IF;

	-- what is not in SET is as the statement has found it, and stays as it is now
	target := session;
	IF NEW."Path" IS DISTINCT FROM OLD."Path" THEN target.path := NEW."Path"; END IF;
	IF NEW."BucketOverride" IS DISTINCT FROM OLD."BucketOverride" THEN target.bucket := NEW."BucketOverride"; END IF;
	IF NEW."ContentType" IS DISTINCT FROM OLD."ContentType" THEN target.content_type := NEW."ContentType"; END IF;
	IF NEW."CreatedAt" IS DISTINCT FROM OLD."CreatedAt" THEN target.created_at := NEW."CreatedAt"; END IF;
	IF new_metadata <> old_metadata THEN target.metadata := new_metadata; END IF;
	IF new_data <> old_data THEN target.provider_data := new_data; END IF;
	IF NEW."ExpiresAt" IS DISTINCT FROM OLD."ExpiresAt" THEN
		target.ttl := NULL;
		target.end_by := NEW."ExpiresAt";
		target.expires_at := NEW."ExpiresAt";
	END IF;
	moves := NEW."BytesUploaded" <> OLD."BytesUploaded" AND NEW."BytesUploaded" <> session.uploaded_bytes;

	-- of an ended session, this is refused, with the error that says how it ended
	IF (moves OR reopens OR target IS DISTINCT FROM session) AND
		(session.status NOT IN ('pending', 'in_progress') OR session.expires_at <= clock_timestamp())
	THEN
		PERFORM @extschema@.merge_upload_data(key);
	END IF;
	IF moves AND session.any_order THEN
		RAISE EXCEPTION USING ERRCODE = '0A000',
			MESSAGE = format('chunks of upload "%s", which come in any order, cannot be confirmed through a view', key),
			HINT = 'Call advance_upload().';
	END IF;
	-- Two servers have read the same offset, and this is the second one.  What the first
	-- one has confirmed stays.
	IF NOT moves AND session.uploaded_bytes > 0 AND NOT target.provider_data @> session.provider_data THEN
		RAISE EXCEPTION USING ERRCODE = 'VB002',
			MESSAGE = format('%s bytes of upload "%s" are confirmed, with other provider data', session.uploaded_bytes, key),
			DETAIL = format('{"expected_offset": %s, "provided_offset": null}', session.uploaded_bytes),
			HINT = format('Read the upload again, and go on at byte %s.', session.uploaded_bytes);
	END IF;

	IF target IS DISTINCT FROM session THEN
		UPDATE @extschema@.upload_session AS s
		SET path = target.path, bucket = target.bucket, content_type = target.content_type,
			created_at = target.created_at, updated_at = clock_timestamp(),
			metadata = target.metadata, provider_data = target.provider_data,
			ttl = target.ttl, end_by = target.end_by, expires_at = target.expires_at
		WHERE s.upload_id = session.upload_id;
		IF NOT FOUND THEN
			RAISE EXCEPTION USING ERRCODE = '27000',
				MESSAGE = format('upload "%s" was not written', key),
				HINT = 'Look for triggers, rules and policies on upload_session.';
		END IF;
	END IF;
	IF NEW."TotalSize" <> OLD."TotalSize" AND NEW."TotalSize" <> 0 THEN
		PERFORM @extschema@.declare_upload_size(key, NEW."TotalSize");
	END IF;
	IF moves AND NEW."BytesUploaded" > session.uploaded_bytes THEN
		PERFORM @extschema@.advance_upload(key, OLD."BytesUploaded", NEW."BytesUploaded" - OLD."BytesUploaded");
	ELSIF moves THEN
		-- back: an empty chunk there is refused, with the error that says where to go on
		PERFORM @extschema@.advance_upload(key, NEW."BytesUploaded", 0::bigint);
	END IF;
	IF NEW."IsComplete" AND NOT OLD."IsComplete" THEN
		PERFORM @extschema@.declare_upload_size(key, s.uploaded_bytes)
		FROM @extschema@.upload_session AS s
		WHERE s.upload_id = session.upload_id AND s.total_size IS NULL;
		PERFORM @extschema@.complete_upload(key);
	END IF;
	IF NEW."IsAborted" AND NOT OLD."IsAborted" THEN
		PERFORM @extschema@.abort_upload(key);
	END IF;
	RETURN NEW;
END
$body$),
('delete', $body$
DECLARE
	key constant text := OLD."UploadId";
	session @extschema@.upload_session;
BEGIN
	SELECT * INTO session FROM @extschema@.upload_session AS s WHERE s.upload_id = OLD."UploadId" FOR UPDATE;
	IF NOT FOUND THEN
		RETURN NULL; -- deleted since the statement began: no row is counted
	END IF;
	-- Most of the library's providers finish the file, and delete the row without having
	-- said that it is complete.  What they have finished must not be reclaimed.
	IF session.status IN ('pending', 'in_progress') AND session.uploaded_bytes = session.total_size THEN
		BEGIN
			PERFORM @extschema@.complete_upload(key);
		EXCEPTION WHEN SQLSTATE 'VB004' THEN
			NULL; -- past its deadline: the library deletes it unfinished
		END;
	END IF;
	RETURN CASE WHEN @extschema@.delete_upload(key) THEN OLD END;
END
$body$)) AS f (name, body)
\gexec

--
-- The view.  One message makes one transaction of its commands.
--

CREATE OR REPLACE VIEW :"schema".:"name" WITH (security_invoker = true) AS
SELECT s.upload_id AS "UploadId",
	s.path AS "Path",
	s.bucket::text AS "BucketOverride",
	COALESCE(s.total_size, 0) AS "TotalSize",
	s.uploaded_bytes AS "BytesUploaded",
	s.content_type::text AS "ContentType",
	NULLIF(s.metadata, '{}')::text AS "MetadataJson",
	NULLIF(s.provider_data, '{}')::text AS "ProviderDataJson",
	s.created_at AS "CreatedAt",
	-- of an ended session, expires_at is the end of its retention
	CASE WHEN s.status IN ('pending', 'in_progress') THEN s.expires_at
		WHEN s.status = 'expired' THEN LEAST(s.end_by, s.updated_at)
		ELSE s.end_by END AS "ExpiresAt",
	s.status = 'aborted' AS "IsAborted",
	s.status = 'complete' AS "IsComplete"
FROM :"vali_blob_schema".upload_session AS s \;
CREATE OR REPLACE TRIGGER vali_blob_insert INSTEAD OF INSERT ON :"schema".:"name"
	FOR EACH ROW EXECUTE FUNCTION :"schema".vali_blob_ef_insert() \;
CREATE OR REPLACE TRIGGER vali_blob_update INSTEAD OF UPDATE ON :"schema".:"name"
	FOR EACH ROW EXECUTE FUNCTION :"schema".vali_blob_ef_update() \;
CREATE OR REPLACE TRIGGER vali_blob_delete INSTEAD OF DELETE ON :"schema".:"name"
	FOR EACH ROW EXECUTE FUNCTION :"schema".vali_blob_ef_delete() \;
REVOKE ALL ON TABLE :"schema".:"name" FROM PUBLIC \;
COMMENT ON VIEW :"schema".:"name" IS
'upload sessions, as the Entity Framework store of the .NET library Vali-Blob reads and writes them';

-- Whoever drops the extension need not drop these, only what uses them.
ALTER FUNCTION :"schema".vali_blob_ef_insert() DEPENDS ON EXTENSION vali_blob;
ALTER FUNCTION :"schema".vali_blob_ef_update() DEPENDS ON EXTENSION vali_blob;
ALTER FUNCTION :"schema".vali_blob_ef_delete() DEPENDS ON EXTENSION vali_blob;
REVOKE ALL ON FUNCTION :"schema".vali_blob_ef_insert(), :"schema".vali_blob_ef_update(),
	:"schema".vali_blob_ef_delete() FROM PUBLIC;
COMMENT ON FUNCTION :"schema".vali_blob_ef_insert() IS 'starts the upload that is inserted into a view of the .NET library';
COMMENT ON FUNCTION :"schema".vali_blob_ef_update() IS 'changes the upload that is updated in a view of the .NET library';
COMMENT ON FUNCTION :"schema".vali_blob_ef_delete() IS 'deletes the upload that is deleted from a view of the .NET library';

SELECT pg_catalog.set_config('search_path', :'vali_blob_search_path', false) AS vali_blob_ignored \gset
