-- What the rule tables of pgTAP want in the router's database besides the functions of
-- the router: the tables of all servers.  The schema of vali_blob is the variable vb, that
-- of the router "router", its server "server".
CREATE SCHEMA through;
CREATE SCHEMA tap;
CREATE EXTENSION pgtap SCHEMA tap;
GRANT USAGE ON SCHEMA through, tap TO app;
SELECT set_config('search_path', concat_ws(', ', quote_ident(:'router'), quote_ident(:'vb')), false) AS search_path,
	quote_ident(:'vb') AS vb_name, quote_literal(:'server') AS server_name \gset

SELECT format($make$
CREATE FUNCTION through.sessions() RETURNS SETOF upload_session LANGUAGE plproxy AS 'CLUSTER %1$s; RUN ON ALL; SELECT * FROM %2$s.upload_session;';
CREATE FUNCTION through.sessions(id text) RETURNS SETOF upload_session LANGUAGE plproxy AS 'CLUSTER %1$s; RUN ON coalesce(pg_catalog.hashtext(id), 0); SELECT * FROM %2$s.upload_session WHERE upload_id = id;';
CREATE FUNCTION through.parts() RETURNS SETOF upload_part LANGUAGE plproxy AS 'CLUSTER %1$s; RUN ON ALL; SELECT * FROM %2$s.upload_part;';
CREATE FUNCTION through.reclaims() RETURNS SETOF upload_reclaim LANGUAGE plproxy AS 'CLUSTER %1$s; RUN ON ALL; SELECT * FROM %2$s.upload_reclaim;';
CREATE FUNCTION through.place(id text) RETURNS tid LANGUAGE plproxy AS 'CLUSTER %1$s; RUN ON pg_catalog.hashtext(id);';
CREATE FUNCTION through.put_session(id text, new_row jsonb) RETURNS integer LANGUAGE plproxy AS 'CLUSTER %1$s; RUN ON pg_catalog.hashtext(id); SELECT through.put_session(new_row);';
CREATE FUNCTION through.put_part(id text, new_row jsonb) RETURNS integer LANGUAGE plproxy AS 'CLUSTER %1$s; RUN ON pg_catalog.hashtext(id); SELECT through.put_part(new_row);';
CREATE FUNCTION through.run(command text) RETURNS SETOF integer LANGUAGE plproxy AS 'CLUSTER %1$s; RUN ON ALL;';
CREATE FUNCTION through.run_at(id text, command text) RETURNS SETOF integer LANGUAGE plproxy AS 'CLUSTER %1$s; RUN ON pg_catalog.hashtext(id); SELECT through.run(command);';
CREATE FUNCTION through.set(setting text, new_value text) RETURNS SETOF integer LANGUAGE plproxy AS 'CLUSTER %1$s; RUN ON ALL;';
$make$, replace(:'server_name', '''', ''''''), :'vb_name') \gexec

CREATE VIEW through.session AS SELECT * FROM through.sessions();
CREATE VIEW through.part AS SELECT * FROM through.parts();
CREATE FUNCTION through.put() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_TABLE_NAME = 'session' THEN
		PERFORM through.put_session(NEW.upload_id, to_jsonb(NEW));
	ELSE
		PERFORM through.put_part(NEW.upload_id, to_jsonb(NEW));
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER put INSTEAD OF UPDATE ON through.session FOR EACH ROW EXECUTE FUNCTION through.put();
CREATE TRIGGER put INSTEAD OF UPDATE ON through.part FOR EACH ROW EXECUTE FUNCTION through.put();

-- A text of an error without what PL/Proxy puts before that of a server.
CREATE FUNCTION through.plain(told text, kind text) RETURNS text LANGUAGE sql AS $$
	SELECT CASE kind
		WHEN 'message' THEN regexp_replace(told, '^"the ""router"""\.\w+\(\d+\): \[uploads\] REMOTE ERROR: ', '')
		WHEN 'detail' THEN regexp_replace(told, '^Remote detail: ', '')
		WHEN 'hint' THEN regexp_replace(told, '^Remote hint: ', '') END
$$;

-- A new id, in the partition of those that the script on concatenation names.
CREATE FUNCTION through.id() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	new_id text;
BEGIN
	LOOP
		new_id := gen_random_uuid();
		EXIT WHEN partition_of(new_id) = partition_of('whole');
	END LOOP;
	RETURN new_id;
END $$;
GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA through TO app;
