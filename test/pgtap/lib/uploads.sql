-- The extensions, and uploads in every state to test with.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS vali_blob;

-- A new upload of 100 bytes in the given state:
--     pending                no chunk yet
--     live                   40 bytes confirmed
--     full                   100 bytes confirmed
--     deferred, unsized      of unknown length: live, pending
--     empty                  of 0 bytes, pending
--     complete, aborted      ended by a call
--     overdue                live, past its deadline
--     expired                ended by the sweep
-- "... due": in that state, and its expires_at has passed.
CREATE FUNCTION pg_temp.upload(state text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	kind text := split_part(state, ' ', 1);
	size bigint := CASE kind WHEN 'deferred' THEN NULL WHEN 'unsized' THEN NULL WHEN 'empty' THEN 0 ELSE 100 END;
	new_id text := (start_upload('test/' || state, size, provider_data => '{"multipart": "m"}', owner => 'alice')).upload_id;
BEGIN
	CASE kind
		WHEN 'pending', 'unsized', 'empty' THEN
			NULL;
		WHEN 'live', 'deferred', 'overdue', 'expired' THEN
			PERFORM advance_upload(new_id, 0, 40);
		WHEN 'full' THEN
			PERFORM advance_upload(new_id, 0, 100);
		WHEN 'complete' THEN
			PERFORM advance_upload(new_id, 0, 100, final => true);
		WHEN 'aborted' THEN
			PERFORM advance_upload(new_id, 0, 40), abort_upload(new_id);
	END CASE;
	IF state LIKE '% due' OR kind IN ('overdue', 'expired') THEN
		UPDATE upload_session SET expires_at = now() - interval '1 second' WHERE upload_id = new_id;
	END IF;
	IF kind = 'expired' THEN
		PERFORM sweep_uploads();
	END IF;
	RETURN new_id;
END $$;

-- The SQLSTATE that a statement raises, or none.
CREATE FUNCTION pg_temp.raised(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN NULL;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;

-- The error that a statement raises.
CREATE FUNCTION pg_temp.told(statement text, OUT code text, OUT message text, OUT detail text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
END $$;
