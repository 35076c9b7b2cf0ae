-- contrib/vali_blob_router.sql
--
-- Creates, or renews, a schema with the functions of vali_blob, which pass each call
-- on to the server that has the session, through PL/Proxy.  See "Several servers" in the
-- manual.
--
--     psql -v router=api -v server=uploads -f vali_blob_router.sql DATABASE
--
-- The database has the extensions vali_blob and plproxy, and a foreign server of plproxy
-- named by "server" (uploads).  Its partitions are databases that have vali_blob in a schema
-- of the same name.  The functions are made from the catalog: they have the names, arguments,
-- defaults and results of this database's vali_blob.
--
-- The schema is the script's own: what else is in it is dropped when it is renewed.  Privileges
-- are kept.

\set ON_ERROR_STOP on
\if :{?router}
\else
\set router api
\endif
\if :{?server}
\else
\set server uploads
\endif

BEGIN;
SET LOCAL client_min_messages = warning;
SET LOCAL search_path = pg_catalog, pg_temp;

--
-- What keeps the router from being created, as an error.
--

SELECT format('DO %L', format('BEGIN RAISE EXCEPTION USING ERRCODE = %L, MESSAGE = %L, HINT = %L; END',
	p.code, p.message, p.hint))
FROM (
	SELECT 'undefined_object', format('extension "%s" is not installed in this database', name),
		format('Run CREATE EXTENSION %s first.', name)
	FROM unnest('{vali_blob,plproxy}'::text[]) AS name
	WHERE NOT EXISTS (SELECT FROM pg_extension WHERE extname = name)
	UNION ALL
	SELECT 'feature_not_supported', 'extension "vali_blob" is older than version 1.1',
		'Run ALTER EXTENSION vali_blob UPDATE first, here and in the partitions.'
	FROM pg_extension WHERE extname = 'vali_blob' AND extversion = '1.0'
	UNION ALL
	SELECT 'undefined_object', format('there is no server %I of plproxy', :'server'),
		format('CREATE SERVER %I FOREIGN DATA WRAPPER plproxy OPTIONS (modular_mapping ''1'', p0 ''...'', p1 ''...'').', :'server')
	WHERE NOT EXISTS (SELECT FROM pg_foreign_server JOIN pg_foreign_data_wrapper AS w ON w.oid = srvfdw
		WHERE srvname = :'server' AND fdwname = 'plproxy')
	UNION ALL
	SELECT 'duplicate_schema', format('schema %I exists, and was not created by this script', :'router'),
		'Choose another name with -v router=NAME.'
	FROM pg_namespace
	WHERE nspname = :'router' AND obj_description(oid, 'pg_namespace') IS DISTINCT FROM 'vali_blob on several servers'
	UNION ALL
	SELECT 'dependent_objects_still_exist', format('objects outside of schema %I depend on it: %s', :'router', string_agg(DISTINCT u.dependent, ', ')),
		'Drop them, and create them again afterwards.'
	FROM (
		WITH RECURSIVE inside (classid, objid) AS (
			SELECT classid, objid FROM pg_depend
			WHERE refclassid = 'pg_namespace'::regclass AND refobjid = (SELECT oid FROM pg_namespace WHERE nspname = :'router')
			UNION
			SELECT d.classid, d.objid FROM pg_depend AS d JOIN inside AS i ON (d.refclassid, d.refobjid) = (i.classid, i.objid)
			WHERE d.deptype IN ('i', 'a'))
		-- of a view, it is its rule that depends
		SELECT coalesce(pg_describe_object('pg_class'::regclass, r.ev_class, 0), pg_describe_object(d.classid, d.objid, d.objsubid))
		FROM pg_depend AS d JOIN inside AS i ON (d.refclassid, d.refobjid) = (i.classid, i.objid)
			LEFT JOIN pg_rewrite AS r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
		WHERE (d.classid, d.objid) NOT IN (SELECT classid, objid FROM inside)
	) AS u (dependent)
	HAVING count(*) > 0
) AS p (code, message, hint)
LIMIT 1
\gexec

-- Who may use the schema that is there, to be granted again
CREATE TEMPORARY TABLE privileges ON COMMIT DROP AS
SELECT p.kind, p.name, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END AS grantee, privilege_type, is_grantable
FROM pg_namespace AS n, LATERAL (
	SELECT 'SCHEMA', NULL::name, nspowner, nspacl
	UNION ALL
	SELECT 'FUNCTION', proname, proowner, proacl FROM pg_proc WHERE pronamespace = n.oid
	UNION ALL
	SELECT 'TABLE', relname, relowner, relacl FROM pg_class WHERE relnamespace = n.oid
) AS p (kind, name, owner, acl), aclexplode(p.acl)
WHERE nspname = :'router' AND grantee <> p.owner;

CREATE TEMPORARY TABLE old_functions ON COMMIT DROP AS
SELECT proname AS name FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = pronamespace WHERE nspname = :'router';

DROP SCHEMA IF EXISTS :"router" CASCADE;
CREATE SCHEMA :"router";
COMMENT ON SCHEMA :"router" IS 'vali_blob on several servers';

--
-- How the functions are made
--

CREATE TEMPORARY TABLE names ON COMMIT DROP AS
SELECT quote_ident(:'router') AS router, quote_literal(:'server') AS server, quote_ident(nspname) AS schema
FROM pg_extension JOIN pg_namespace AS n ON n.oid = extnamespace WHERE extname = 'vali_blob';

CREATE TEMPORARY TABLE functions ON COMMIT DROP AS
SELECT p.proname AS name, pg_get_function_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result,
	p.proargnames[:p.pronargs] AS argument_names, obj_description(p.oid) AS comment,
	-- by name, as the servers may have more columns than the router
	coalesce((SELECT string_agg(format('r.%I', attname), ', ' ORDER BY attnum) FROM pg_type AS t JOIN pg_attribute ON attrelid = typrelid
			WHERE t.oid = p.prorettype AND attnum > 0 AND NOT attisdropped),
		(SELECT string_agg(format('r.%I', c.name), ', ' ORDER BY n) FROM unnest(p.proargnames, p.proargmodes) WITH ORDINALITY AS c (name, mode, n)
			WHERE c.mode IN ('o', 't')),
		'r') AS columns
FROM pg_proc AS p
JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
JOIN pg_extension AS e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
WHERE e.extname = 'vali_blob';

-- "@away@" are the conditions of a server that does not answer; internal_error is what
-- PL/Proxy itself raises.
CREATE FUNCTION pg_temp.with_names(command text) RETURNS text LANGUAGE sql AS $make$
	SELECT replace(replace(replace(replace(command, '@router@', router), '@server@', server), '@schema@', schema), '@away@',
		'internal_error OR connection_exception OR admin_shutdown OR crash_shutdown OR cannot_connect_now OR database_dropped OR idle_session_timeout')
	FROM names
$make$;

CREATE FUNCTION pg_temp.make(command text) RETURNS void LANGUAGE plpgsql AS $make$
BEGIN
	EXECUTE pg_temp.with_names(command);
END $make$;

-- A function with the arguments and the result of one of the extension.
CREATE FUNCTION pg_temp.make_function(function_name text, language text, body text) RETURNS void LANGUAGE sql AS $make$
	SELECT pg_temp.make(format('CREATE FUNCTION @router@.%I(%s) RETURNS %s VOLATILE LANGUAGE %s %s AS %L', name, arguments, result,
			language, CASE WHEN language <> 'plproxy' THEN 'SET search_path = pg_catalog, pg_temp' END, pg_temp.with_names(body))),
		pg_temp.make(format('COMMENT ON FUNCTION @router@.%I IS %L', name, comment))
	FROM functions WHERE name = function_name
$make$;

-- A function for those above: the rows that one of the extension gives in the partitions
-- that "place" names, which may be its first argument, "shard".
CREATE FUNCTION pg_temp.make_part(function_name text, place text, split text = '') RETURNS void LANGUAGE sql AS $make$
	SELECT pg_temp.make(format('CREATE FUNCTION @router@.%I(%s) RETURNS SETOF %s VOLATILE LANGUAGE plproxy AS %L', 'part_' || name,
			concat_ws(', ', CASE WHEN place = 'shard' THEN 'shard integer' END, nullif(arguments, '')), regexp_replace(result, '^SETOF ', ''),
			pg_temp.with_names(format('CLUSTER @server@; %s RUN ON %s; SELECT %s FROM @schema@.%I(%s) AS r;', split, place, columns, name,
				array_to_string(argument_names, ', '))))),
		pg_temp.make(format('COMMENT ON FUNCTION @router@.%I IS %L', 'part_' || name, 'for ' || name || '()'))
	FROM functions WHERE name = function_name
$make$;

--
-- Where a session is
--

SELECT pg_temp.make($make$
CREATE FUNCTION @router@.partition_of(upload_id text) RETURNS integer STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
	SELECT CASE WHEN bool_or(option_name = 'modular_mapping' AND option_value::integer <> 0)
		THEN abs(hashtext(upload_id) % (count(*) FILTER (WHERE option_name ~ '^p\d+$'))::integer)
		ELSE hashtext(upload_id) & (count(*) FILTER (WHERE option_name ~ '^p\d+$') - 1)::integer END
	FROM pg_foreign_server, pg_options_to_table(srvoptions) WHERE srvname = @server@
$$;
COMMENT ON FUNCTION @router@.partition_of IS 'the partition that has an upload';

CREATE FUNCTION @router@.shards() RETURNS SETOF integer STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
	SELECT min(substr(option_name, 2)::integer) FROM pg_foreign_server, pg_options_to_table(srvoptions)
	WHERE srvname = @server@ AND option_name ~ '^p\d+$' GROUP BY option_value ORDER BY 1
$$;
COMMENT ON FUNCTION @router@.shards IS 'a partition of each server';
$make$);

--
-- Calls that concern one session.  What has no upload_id goes anywhere, to be refused.
--

SELECT pg_temp.make_function(name, 'plproxy', format(
	'CLUSTER @server@; RUN ON coalesce(pg_catalog.hashtext(upload_id), 0); SELECT %s FROM @schema@.%I(%s) AS r;',
	columns, name, array_to_string(argument_names, ', ')))
FROM functions WHERE argument_names[1] = 'upload_id';

-- The id is made here, as it says where to start.
SELECT pg_temp.make_part('start_upload', 'coalesce(pg_catalog.hashtext(upload_id), 0)');
SELECT pg_temp.make_function('start_upload', 'sql', format('SELECT r.* FROM @router@.part_start_upload(%s) AS r',
	replace(array_to_string(argument_names, ', '), 'upload_id',
		'CASE WHEN upload_id IS NULL AND or_resume IS NOT TRUE THEN gen_random_uuid()::text ELSE upload_id END')))
FROM functions WHERE name = 'start_upload';

-- Sessions can only be concatenated within a partition.
SELECT pg_temp.make_part('concatenate_uploads', 'coalesce(pg_catalog.hashtext(upload_id), 0)');
SELECT pg_temp.make_function('concatenate_uploads', 'plpgsql', $body$
DECLARE
	new_id text := upload_id;
	partitions integer[] := ARRAY(SELECT DISTINCT @router@.partition_of(u) FROM unnest(upload_ids) AS u WHERE u IS NOT NULL AND array_ndims(upload_ids) = 1
		UNION SELECT @router@.partition_of(new_id) WHERE new_id IS NOT NULL);
BEGIN
	IF cardinality(partitions) > 1 THEN
		RAISE EXCEPTION 'the uploads are in partitions % of server %', array_to_string(partitions, ', '), @server@
			USING ERRCODE = 'feature_not_supported',
				HINT = 'Start those that are to be concatenated with ids for which partition_of() is the same.';
	END IF;
	WHILE new_id IS NULL OR @router@.partition_of(new_id) <> partitions[1] LOOP
		new_id := gen_random_uuid();
	END LOOP;
	RETURN (SELECT r FROM @router@.part_concatenate_uploads(path, upload_ids, new_id, owner, bucket, content_type, metadata,
		provider_data, result) AS r);
END $body$);

--
-- Calls with many ids are split, and their results put together in the order of the
-- arguments.  Arrays that cannot be split go to a partition as they are, to be refused, and so
-- do those with elements that are refused whatever the sessions are: other partitions would
-- have done their share.
--

SELECT pg_temp.make($make$
CREATE FUNCTION @router@.is_list(list anyarray, elements integer) RETURNS boolean IMMUTABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
	SELECT coalesce(array_ndims(list) = 1 AND cardinality(list) = elements, false)
$$;
COMMENT ON FUNCTION @router@.is_list IS 'has an array so many elements, in one dimension?';
$make$);

SELECT pg_temp.make(format($make$
CREATE FUNCTION @router@.split_advance_uploads(upload_ids text[], chunk_offsets bigint[], chunk_lengths bigint[], owner text,
	part_numbers integer[], etags text[], checksums bytea[], lease_epochs bigint[], positions integer[])
RETURNS TABLE (nr integer, %s) VOLATILE LANGUAGE plproxy AS $$
	CLUSTER @server@;
	SPLIT upload_ids, chunk_offsets, chunk_lengths, part_numbers, etags, checksums, lease_epochs, positions;
	RUN ON coalesce(pg_catalog.hashtext(upload_ids), 0);
	SELECT (positions)[r.ordinality] AS nr, %s
	FROM @schema@.advance_uploads(upload_ids, chunk_offsets, chunk_lengths, owner, part_numbers, etags, checksums, lease_epochs)
		WITH ORDINALITY AS r;
$$;
COMMENT ON FUNCTION @router@.split_advance_uploads IS 'for advance_uploads()';
$make$, string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum),
	string_agg(format('r.%I', attname), ', ' ORDER BY attnum)))
FROM pg_attribute
WHERE attrelid = (SELECT format('%s.chunk_result', schema)::regclass FROM names) AND attnum > 0 AND NOT attisdropped;

-- What is looked for here is what advance_uploads() refuses, with its limits.
SELECT pg_temp.make_part('advance_uploads', '0');
SELECT pg_temp.make_function('advance_uploads', 'plpgsql', format($body$
DECLARE
	n integer := cardinality(upload_ids);
	some_numbers integer[] := coalesce(part_numbers, array_fill(NULL::integer, ARRAY[n]));
	some_etags text[] := coalesce(etags, array_fill(NULL::text, ARRAY[n]));
	some_checksums bytea[] := coalesce(checksums, array_fill(NULL::bytea, ARRAY[n]));
	some_epochs bigint[] := coalesce(lease_epochs, array_fill(NULL::bigint, ARRAY[n]));
BEGIN
	IF @router@.is_list(upload_ids, n) AND @router@.is_list(chunk_offsets, n) AND @router@.is_list(chunk_lengths, n)
		AND @router@.is_list(some_numbers, n) AND @router@.is_list(some_etags, n) AND @router@.is_list(some_checksums, n)
		AND @router@.is_list(some_epochs, n)
		AND NOT EXISTS (
			SELECT FROM unnest(upload_ids, chunk_offsets, chunk_lengths, some_numbers, some_etags, some_checksums)
				AS c (upload_id, place, length, part_number, etag, checksum)
			WHERE c.upload_id IS NULL OR c.place IS NULL OR c.length IS NULL OR c.place < 0 OR c.length < 0
				OR c.place > 9223372036854775807 - greatest(c.length, 0)
				OR c.part_number < 1 OR char_length(c.etag) > 1024 OR octet_length(c.checksum) > 64)
	THEN
		RETURN QUERY SELECT %1$s FROM @router@.split_advance_uploads(upload_ids, chunk_offsets, chunk_lengths, owner,
			some_numbers, some_etags, some_checksums, some_epochs, ARRAY(SELECT generate_series(1, n))) AS r ORDER BY r.nr;
	ELSE
		RETURN QUERY SELECT %1$s FROM @router@.part_advance_uploads(upload_ids, chunk_offsets, chunk_lengths, owner,
			part_numbers, etags, checksums, lease_epochs) AS r;
	END IF;
END $body$, columns))
FROM functions WHERE name = 'advance_uploads';

SELECT pg_temp.make_part('get_uploads', 'coalesce(pg_catalog.hashtext(upload_ids), 0)', 'SPLIT upload_ids;');
SELECT pg_temp.make(format($make$
CREATE FUNCTION @router@.any_get_uploads(upload_ids text[], owner text) RETURNS SETOF @schema@.upload_session VOLATILE LANGUAGE plproxy AS $$
	CLUSTER @server@; RUN ON 0; SELECT %s FROM @schema@.get_uploads(upload_ids, owner) AS r;
$$;
COMMENT ON FUNCTION @router@.any_get_uploads IS 'for get_uploads()';
$make$, columns)) FROM functions WHERE name = 'get_uploads';
SELECT pg_temp.make_function('get_uploads', 'plpgsql', $body$
BEGIN
	IF upload_ids IS NOT NULL THEN
		RETURN QUERY SELECT r.* FROM @router@.part_get_uploads(ARRAY(SELECT DISTINCT unnest(upload_ids)), owner) AS r
			JOIN unnest(upload_ids) WITH ORDINALITY AS u (id, n) ON u.id = r.upload_id ORDER BY u.n;
	ELSE
		RETURN QUERY SELECT r.* FROM @router@.any_get_uploads(upload_ids, owner) AS r;
	END IF;
END $body$);

--
-- Calls that concern all sessions.  A listing asks all servers, as one that left some
-- sessions out would be wrong.
--

SELECT pg_temp.make_part('list_uploads', 'ALL');
SELECT pg_temp.make_function('list_uploads', 'sql', format(
	'SELECT r.* FROM @router@.part_list_uploads(%s) AS r ORDER BY r.id DESC LIMIT CASE WHEN max_rows > 0 THEN max_rows END', array_to_string(argument_names, ', ')))
FROM functions WHERE name = 'list_uploads';

SELECT pg_temp.make_part('sweep_uploads', 'ALL');
SELECT pg_temp.make_function('sweep_uploads', 'sql',
	'SELECT sum(r.expired)::bigint, sum(r.purged)::bigint, sum(r.reclaims_dropped)::bigint FROM @router@.part_sweep_uploads(max_rows) AS r');

SELECT pg_temp.make_part('set_upload_quota', 'ALL');
SELECT pg_temp.make_function('set_upload_quota', 'sql',
	'SELECT r.* FROM @router@.part_set_upload_quota(owner, max_live_uploads, max_live_bytes, max_upload_size) AS r LIMIT 1');
SELECT pg_temp.make_part('upload_usage', 'ALL');
-- As on one server, a sum of bytes or of limits has the highest value at most.
SELECT pg_temp.make_function('upload_usage', 'sql', $body$
	SELECT sum(r.live_uploads)::bigint, least(sum(r.live_bytes), 9223372036854775807)::bigint, least(sum(r.confirmed_bytes), 9223372036854775807)::bigint,
		CASE WHEN bool_and(r.max_live_uploads IS NOT NULL) THEN least(sum(r.max_live_uploads), 9223372036854775807)::bigint END,
		CASE WHEN bool_and(r.max_live_bytes IS NOT NULL) THEN least(sum(r.max_live_bytes), 9223372036854775807)::bigint END
	FROM @router@.part_upload_usage(owner) AS r
$body$);

-- The queue goes on while a server is away: one after the other is asked.  What was claimed
-- from others is committed there, so that no error may keep it from who claims.
SELECT pg_temp.make_part('claim_reclaims', 'shard');
SELECT pg_temp.make_function('claim_reclaims', 'plpgsql', $body$
DECLARE
	place integer;
	left_over integer := max_rows;
	claimed integer;
BEGIN
	FOR place IN SELECT s FROM @router@.shards() AS s ORDER BY random() LOOP
		BEGIN
			RETURN QUERY SELECT r.* FROM @router@.part_claim_reclaims(place, left_over, lease) AS r;
			GET DIAGNOSTICS claimed = ROW_COUNT;
			left_over := left_over - claimed;
		EXCEPTION WHEN @away@ THEN
			RAISE WARNING 'partition % of server % could not be asked: %', place, @server@, SQLERRM;
		WHEN OTHERS OR query_canceled THEN
			IF left_over < max_rows THEN
				RAISE WARNING 'partition % of server % has failed: %', place, @server@, SQLERRM USING ERRCODE = SQLSTATE;
				RETURN;
			END IF;
			RAISE;
		END;
		EXIT WHEN left_over <= 0;
	END LOOP;
END $body$);

SELECT pg_temp.make_part(name, 'shard'), pg_temp.make_function(name, 'plpgsql', format($body$
DECLARE
	place integer;
	failure text;
BEGIN
	FOR place IN SELECT s FROM @router@.shards() AS s LOOP
		BEGIN
			IF (SELECT r FROM @router@.%I(place, %s) AS r) THEN
				RETURN true;
			END IF;
		EXCEPTION WHEN @away@ THEN
			failure := format('partition %%s could not be asked: %%s', place, SQLERRM);
		END;
	END LOOP;
	IF failure IS NOT NULL THEN
		RAISE EXCEPTION 'row %% of the reclaim queue was not found on the servers that answer', id
			USING ERRCODE = 'connection_exception', DETAIL = failure, HINT = 'Try again when all servers are there.';
	END IF;
	RETURN false;
END $body$, 'part_' || name, array_to_string(argument_names, ', ')))
FROM functions WHERE name IN ('finish_reclaim', 'fail_reclaim');

--
-- Monitoring: of each server, also of one that is away, and of all
--

-- A function with the rows that one for a partition gives, of each server, or its error.
CREATE FUNCTION pg_temp.make_by_shard(function_name text, part text, columns text, comment text) RETURNS void LANGUAGE sql AS $make$
	SELECT pg_temp.make(format($by_shard$
		CREATE FUNCTION @router@.%1$I() RETURNS TABLE (shard integer, error text, %2$s)
		VOLATILE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
		BEGIN
			FOR shard IN SELECT s FROM @router@.shards() AS s LOOP
				BEGIN
					RETURN QUERY SELECT shard, NULL::text, r.* FROM @router@.%3$I(shard) AS r;
				EXCEPTION WHEN @away@ THEN
					RAISE WARNING 'partition %% of server %% could not be asked: %%', shard, @server@, SQLERRM;
					error := SQLERRM;
					RETURN NEXT;
					error := NULL;
				END;
			END LOOP;
		END $$;
		COMMENT ON FUNCTION @router@.%1$I IS %4$L;
	$by_shard$, function_name, columns, part, comment))
$make$;

SELECT pg_temp.make_part('sweeper_status', 'shard');
SELECT pg_temp.make_by_shard('sweeper_status_by_shard', 'part_sweeper_status', replace(arguments, 'OUT ', ''),
	'the state of the background sweeper on each server')
FROM functions WHERE name = 'sweeper_status';
SELECT pg_temp.make_function('sweeper_status', 'sql', $body$
	SELECT bool_and(coalesce(s.running, false)), min(s.last_sweep), max(s.last_duration), sum(s.last_expired)::bigint, sum(s.last_purged)::bigint,
		sum(s.last_reclaims_dropped)::bigint, sum(s.total_expired)::bigint, sum(s.total_purged)::bigint, sum(s.total_reclaims_dropped)::bigint,
		string_agg(format('partition %s: %s', s.shard, coalesce(s.error, s.last_error)), '; ') FILTER (WHERE coalesce(s.error, s.last_error) IS NOT NULL),
		max(s.last_error_at)
	FROM @router@.sweeper_status_by_shard() AS s
$body$);

SELECT pg_temp.make($make$
CREATE FUNCTION @router@.part_node(shard integer) RETURNS integer VOLATILE LANGUAGE plproxy AS $$
	CLUSTER @server@; RUN ON shard; SELECT COALESCE(pg_catalog.current_setting('vali_blob.node', true), '0')::pg_catalog.int4;
$$;
COMMENT ON FUNCTION @router@.part_node IS 'for nodes_by_shard()';
$make$);
SELECT pg_temp.make_by_shard('nodes_by_shard', 'part_node', 'node integer', 'vali_blob.node of each server, of which no two may be the same');

-- The columns of the view upload_stats
CREATE TEMPORARY TABLE figures ON COMMIT DROP AS
SELECT string_agg(format('r.%I', attname), ', ' ORDER BY attnum) AS columns,
	string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum) AS definitions
FROM pg_attribute WHERE attrelid = (SELECT format('%s.upload_stats', schema)::regclass FROM names) AND attnum > 0 AND NOT attisdropped;

SELECT pg_temp.make(format($make$
CREATE FUNCTION @router@.part_upload_stats(shard integer) RETURNS SETOF @schema@.upload_stats VOLATILE LANGUAGE plproxy AS $$
	CLUSTER @server@; RUN ON shard; SELECT %s FROM @schema@.upload_stats AS r;
$$;
COMMENT ON FUNCTION @router@.part_upload_stats IS 'for upload_stats_by_shard';
$make$, columns)) FROM figures;
SELECT pg_temp.make_by_shard('each_upload_stats', 'part_upload_stats', definitions, 'for upload_stats_by_shard') FROM figures;

-- The sums leave a server out that is away, which the warning says.
SELECT pg_temp.make($make$
CREATE VIEW @router@.upload_stats_by_shard AS SELECT * FROM @router@.each_upload_stats();
COMMENT ON VIEW @router@.upload_stats_by_shard IS 'upload_stats of each server';
CREATE VIEW @router@.upload_stats AS
	SELECT status, sum(sessions)::bigint AS sessions, least(sum(bytes), 9223372036854775807)::bigint AS bytes,
		least(sum(bytes_in_flight), 9223372036854775807)::bigint AS bytes_in_flight,
		min(oldest_deadline) AS oldest_deadline, sum(reclaim_backlog)::bigint AS reclaim_backlog,
		min(oldest_reclaim) AS oldest_reclaim, max(most_attempts) AS most_attempts, bool_or(estimated) AS estimated,
		min(counted_at) AS counted_at
	FROM @router@.upload_stats_by_shard WHERE error IS NULL GROUP BY status ORDER BY status;
COMMENT ON VIEW @router@.upload_stats IS 'upload_stats of all servers';
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA @router@ FROM PUBLIC;
-- Who monitors a server may monitor all.
GRANT EXECUTE ON FUNCTION @router@.shards, @router@.sweeper_status, @router@.sweeper_status_by_shard, @router@.part_sweeper_status,
	@router@.nodes_by_shard, @router@.part_node, @router@.each_upload_stats, @router@.part_upload_stats TO pg_monitor;
GRANT SELECT ON @router@.upload_stats, @router@.upload_stats_by_shard TO pg_monitor;
$make$);

-- Who could call all functions may call new ones, too: the others may need them.
SELECT pg_temp.make(format('GRANT %s ON %s @router@%s TO %s%s', p.privilege_type, p.kind, '.' || quote_ident(p.name), p.grantee,
	CASE WHEN p.is_grantable THEN ' WITH GRANT OPTION' END))
FROM (
	SELECT kind, name, grantee, privilege_type, is_grantable FROM privileges
	UNION
	SELECT 'FUNCTION', proname, grantee, 'EXECUTE', grantable
	FROM (SELECT grantee, bool_and(is_grantable) AS grantable FROM privileges WHERE kind = 'FUNCTION' GROUP BY grantee
			HAVING count(DISTINCT name) = (SELECT count(*) FROM old_functions)) AS g,
		pg_proc
	WHERE pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = :'router') AND proname NOT IN (SELECT name FROM old_functions)
) AS p
WHERE kind = 'SCHEMA' OR name IN (
	SELECT proname FROM pg_proc JOIN pg_namespace AS n ON n.oid = pronamespace WHERE nspname = :'router'
	UNION ALL
	SELECT relname FROM pg_class JOIN pg_namespace AS n ON n.oid = relnamespace WHERE nspname = :'router');

COMMIT;
