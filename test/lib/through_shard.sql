-- What the rule tables of pgTAP want from a server behind a router besides the functions
-- of vali_blob.  The schema of vali_blob is the variable vb.
CREATE SCHEMA through;
GRANT USAGE ON SCHEMA through TO app;
SELECT set_config('search_path', quote_ident(:'vb'), false) AS search_path \gset

-- Where a row is.
CREATE FUNCTION through.place(id text) RETURNS tid LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
	SELECT ctid FROM upload_session WHERE upload_id = $1
$$;

-- Write what the rule tables change of a row.
CREATE FUNCTION through.put_session(new_row jsonb) RETURNS integer LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
	UPDATE upload_session AS s
	   SET (created_at, updated_at, expires_at, end_by, ttl, lease_expires_at, rules_version, uploaded_bytes, total_size)
	     = (n.created_at, n.updated_at, n.expires_at, n.end_by, n.ttl, n.lease_expires_at, n.rules_version, n.uploaded_bytes, n.total_size)
	  FROM jsonb_populate_record(NULL::upload_session, new_row) AS n WHERE n.upload_id = s.upload_id
	RETURNING 1
$$;
CREATE FUNCTION through.put_part(new_row jsonb) RETURNS integer LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
	UPDATE upload_part AS p SET confirmed_at = n.confirmed_at
	  FROM jsonb_populate_record(NULL::upload_part, new_row) AS n WHERE (n.upload_id, n.chunk_offset) = (p.upload_id, p.chunk_offset)
	RETURNING 1
$$;

-- Run a command.
CREATE FUNCTION through.run(command text) RETURNS SETOF integer LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
	EXECUTE command;
	RETURN NEXT 1;
END $$;

-- Change a setting, for this connection of the router's and for those that follow it.
CREATE FUNCTION through.set(setting text, new_value text) RETURNS SETOF integer LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
	place text := format('ALTER ROLE app IN DATABASE %I ', current_database());
BEGIN
	IF new_value IS NULL THEN
		EXECUTE place || 'RESET ' || setting;
		PERFORM set_config(s.name, s.boot_val, false) FROM pg_settings AS s WHERE s.name = $1;
	ELSE
		EXECUTE format('%s SET %s TO %L', place, setting, new_value);
		PERFORM set_config(setting, new_value, false);
	END IF;
	RETURN NEXT 1;
END $$;
