-- The extensions, and uploads in every state to test with.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS vali_blob;

-- A new upload of 100 bytes, 40 of them confirmed, in the given state.
CREATE FUNCTION pg_temp.upload(state text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	new_id text := (start_upload('test/' || state, CASE WHEN state <> 'deferred' THEN 100 END,
		provider_data => '{"multipart": "m"}', owner => 'alice')).upload_id;
BEGIN
	CASE state
		WHEN 'pending' THEN
			NULL;
		WHEN 'live', 'deferred' THEN
			PERFORM advance_upload(new_id, 0, 40);
		WHEN 'full' THEN
			PERFORM advance_upload(new_id, 0, 100);
		WHEN 'complete' THEN
			PERFORM advance_upload(new_id, 0, 100, final => true);
		WHEN 'aborted' THEN
			PERFORM advance_upload(new_id, 0, 40), abort_upload(new_id);
		WHEN 'overdue' THEN
			PERFORM advance_upload(new_id, 0, 40);
			UPDATE upload_session SET expires_at = now() - interval '1 second' WHERE upload_id = new_id;
		WHEN 'expired' THEN
			PERFORM advance_upload(new_id, 0, 40);
			UPDATE upload_session SET expires_at = now() - interval '1 second' WHERE upload_id = new_id;
			PERFORM sweep_uploads();
	END CASE;
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
