-- Transactions: what is rolled back has not happened, every call sees what the
-- ones before it did, and a read-only transaction refuses every writer.
BEGIN;
\ir lib/uploads.sql
SELECT no_plan();

-- An upload as it is stored, with what is queued of it.
CREATE FUNCTION pg_temp.stored(my_id text) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_object(
		'session', (SELECT to_jsonb(s) FROM upload_session s WHERE s.upload_id = my_id),
		'queue', (SELECT jsonb_agg(to_jsonb(r)) FROM upload_reclaim r WHERE r.upload_id = my_id))
$$;

--
-- Rolled back
--
-- What is left of a call after a rollback to the moment before it, and whether it can be made again.
CREATE FUNCTION pg_temp.undo(state text, call text, OUT has_changed boolean, OUT is_undone boolean, OUT again text) LANGUAGE plpgsql AS $$
DECLARE
	my_id text := pg_temp.upload(state);
	before jsonb := pg_temp.stored(my_id);
BEGIN
	BEGIN
		EXECUTE format('SELECT ' || call, my_id);
		has_changed := pg_temp.stored(my_id) <> before;
		RAISE EXCEPTION USING ERRCODE = 'UNDO0';
	EXCEPTION WHEN SQLSTATE 'UNDO0' THEN
		NULL;
	END;
	is_undone := pg_temp.stored(my_id) = before;
	again := coalesce(pg_temp.raised(format('SELECT ' || call, my_id)), 'can be made again');
END $$;
SELECT is(format('changed %s, undone %s, %s', r.has_changed, r.is_undone, r.again), 'changed t, undone t, can be made again',
		format('rolled back: %s, %s', replace(call, '%L', '...'), state))
  FROM (VALUES
		('pending', 'advance_upload(%L, 0, 40)'),
		('live', 'advance_upload(%L, 40, 10, provider_data => ''{"part": 2}'')'),
		('live', 'advance_upload(%L, 40, 60, final => true)'),
		('live', 'advance_uploads(ARRAY[%L], ARRAY[40], ARRAY[10])'),
		('deferred', 'declare_upload_size(%L, 50)'),
		('live', 'merge_upload_data(%L, ''{"a": 1}'', ''{"part": 2}'')'),
		('full', 'complete_upload(%L, ''{"etag": "e"}'')'),
		('live', 'abort_upload(%L, ''cancelled'')'),
		('live', 'delete_upload(%L)'),
		('overdue', 'delete_upload(%L)'),
		('overdue', 'sweep_uploads()'),
		('complete due', 'sweep_uploads()')
	) AS x (state, call), LATERAL pg_temp.undo(state, call) r;

-- An error takes along what its block did before it, and no more.
SELECT pg_temp.upload('live') AS id, pg_temp.upload('deferred') AS other_id \gset
CREATE FUNCTION pg_temp.go_on_after_an_error(id text, other_id text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM advance_upload(id, 40, 5);
	BEGIN
		PERFORM advance_upload(id, 45, 5), declare_upload_size(other_id, 50), abort_upload(other_id);
		PERFORM advance_upload(id, 99, 1);
	EXCEPTION WHEN SQLSTATE 'VB002' THEN
		PERFORM advance_upload(id, 45, 1);
	END;
	RETURN (SELECT format('%s of %s, %s of %s, %s queued', s.uploaded_bytes, s.total_size, o.uploaded_bytes, o.total_size,
			(SELECT count(*) FROM upload_reclaim r WHERE r.upload_id = other_id))
	          FROM get_upload(id) s, get_upload(other_id) o);
END $$;
SELECT is(pg_temp.go_on_after_an_error(:'id', :'other_id'), '46 of 100, 40 of , 0 queued', 'an error takes along what its block did, and the upload goes on from there');

--
-- Within one transaction, and one statement
--
CREATE FUNCTION pg_temp.live_twice() RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
	answers text[];
BEGIN
	answers := ARRAY[(start_upload('test/twice', 10, upload_id => 'transaction-twice')).status::text];
	answers := answers || (advance_upload('transaction-twice', 0, 10)).outcome::text;
	answers := answers || (complete_upload('transaction-twice')).status::text;
	answers := answers || delete_upload('transaction-twice')::text;
	answers := answers || (start_upload('test/twice', 20, upload_id => 'transaction-twice')).total_size::text;
	answers := answers || (try_advance_upload('transaction-twice', 10, 10)).outcome::text;
	RETURN answers;
END $$;
SELECT is(pg_temp.live_twice(), ARRAY['pending', 'advanced', 'complete', 'true', '20', 'conflict'],
	'one transaction may start, fill, complete and delete an upload, and start another under its id');
SELECT is((count(*) FILTER (WHERE outcome = 'advanced'), max(r.uploaded_bytes))::text, '(2000,20000)', 'one statement may send 2,000 chunks of one upload')
  FROM (SELECT (start_upload('test/many')).upload_id OFFSET 0) u, generate_series(0, 1999) AS n, LATERAL try_advance_upload(u.upload_id, n * 10, 10) r;
SELECT is((r.uploaded_bytes, s.uploaded_bytes)::text, '(50,40)', 'a reader sees what its statement sees, not what it writes')
  FROM advance_upload(:'other_id', 40, 10) r, LATERAL get_upload(CASE r.outcome WHEN 'advanced' THEN :'other_id' END) s;
SELECT is(s.uploaded_bytes, 50::bigint, '... the next statement does') FROM get_upload(:'other_id') s;

-- A prepared statement, whose plan turns generic
PREPARE chunk (text, bigint, bigint) AS SELECT outcome::text FROM try_advance_upload($1, $2, $3);
SELECT pg_temp.upload('live') AS id \gset
SELECT results_eq(format('EXECUTE chunk(%L, %s, 1)', id, chunk_offset), ARRAY[outcome], format('prepared, execution %s: %s', n, outcome))
  FROM (VALUES
		(1, :'id', 40, 'advanced'), (2, :'id', 40, 'replayed'), (3, :'id', 42, 'conflict'), (4, 'transaction-unknown', 0, 'not_found'),
		(5, :'id', 41, 'advanced'), (6, :'id', 42, 'advanced'), (7, :'id', 42, 'replayed'), (8, :'id', 43, 'advanced')
	) AS x (n, id, chunk_offset, outcome);
SELECT throws_ok(format('EXECUTE chunk(%L, NULL, 1)', :'id'), '22004', NULL, 'prepared: a null is refused');
DEALLOCATE chunk;

--
-- Read-only
--
-- What a statement raises in a read-only transaction; DONE0: nothing.
CREATE FUNCTION pg_temp.raised_read_only(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	SET LOCAL transaction_read_only = on;
	EXECUTE statement;
	RAISE EXCEPTION USING ERRCODE = 'DONE0';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
SELECT is(pg_temp.raised_read_only(format('SELECT ' || call, :'id')), '25006', format('read-only: refuses %s, %s', replace(call, '%L', '...'), sentence))
  FROM (VALUES
		('start_upload(''test/read-only'')', 'which would write'),
		('advance_upload(%L, 44, 1)', 'which would write'),
		('advance_upload(%L, 0, 1)', 'a replay'),
		('try_advance_upload(%L, 44, 1)', 'which would write'),
		('try_advance_upload(%L, 0, 1)', 'a replay'),
		('try_advance_upload(''transaction-unknown'', 0, 1)', 'which would find nothing'),
		('advance_uploads(ARRAY[%L], ARRAY[44], ARRAY[1])', 'which would write'),
		('declare_upload_size(%L, 100)', 'which would change nothing'),
		('merge_upload_data(%L, ''{"a": 1}'')', 'which would write'),
		('complete_upload(%L)', 'which would be incomplete'),
		('abort_upload(%L)', 'which would write'),
		('delete_upload(%L)', 'which would write'),
		('delete_upload(''transaction-unknown'')', 'which would find nothing'),
		('sweep_uploads()', 'whatever is due'),
		('claim_reclaims()', 'whatever is queued'),
		('finish_reclaim(-1)', 'which would find nothing'),
		('fail_reclaim(-1, ''read only'')', 'which would find nothing'),
		('grant_upload_access(current_user)', 'which would write'),
		('revoke_upload_access(current_user)', 'which would write')
	) AS x (call, sentence);
SELECT is(pg_temp.raised_read_only(format('SELECT ' || call, :'id')), 'DONE0', format('read-only: allows %s', replace(call, '%L', '...')))
  FROM unnest(ARRAY['get_upload(%L)', 'get_uploads(ARRAY[%L])', 'list_uploads(max_rows => 1)']) AS call;

SELECT * FROM finish();
ROLLBACK;
