-- Leases: what each call makes of a lease in each state, and which chunks are
-- fenced, line by line.
BEGIN;
\ir lib/uploads.sql
SELECT no_plan();

-- An upload of 100 bytes of the given kind, whose lease is in the given state.
-- Kinds:
--     plain         [0, 40) is confirmed
--     with a part   the same, with etag "a"
--     any order     the same, of an upload that takes chunks in any order
--     full          [0, 100) is confirmed
--     ending        like plain, but completes itself
-- States:
--     none          there has never been a lease
--     running       A has it, with epoch 1, for another hour
--     requested     the same, and B has asked for it
--     run out       A has it, with epoch 1, and its time ran out a minute ago
--     missed        the same, and B has asked for it
--     released      A has released it
--     taken over    B has taken it over, with epoch 2, for another hour
--     complete, aborted, expired, overdue   what has become of an upload in the state
--                   "requested"
-- A live one was changed an hour ago, and its deadline is in an hour.
CREATE FUNCTION pg_temp.lease(state text, kind text DEFAULT 'plain') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	bytes bigint := CASE kind WHEN 'full' THEN 100 ELSE 40 END;
	new_id text := (start_upload('test/' || state, 100, provider_data => '{"multipart": "m"}', owner => 'alice', any_order => kind = 'any order',
		auto_complete => kind = 'ending')).upload_id;
BEGIN
	PERFORM advance_upload(new_id, 0, bytes, etag => CASE WHEN kind IN ('with a part', 'any order') THEN 'a' END);
	UPDATE upload_session SET updated_at = now() - interval '1 hour', expires_at = now() + interval '1 hour' WHERE upload_id = new_id;
	IF state <> 'none' THEN
		PERFORM acquire_upload_lease(new_id, 'A', '1 hour');
	END IF;
	IF state IN ('requested', 'missed', 'complete', 'aborted', 'expired', 'overdue') THEN
		PERFORM acquire_upload_lease(new_id, 'B', '1 hour');
	END IF;
	CASE state
		WHEN 'none', 'running', 'requested' THEN
			NULL;
		WHEN 'run out', 'missed' THEN
			UPDATE upload_session SET lease_expires_at = clock_timestamp() - interval '1 minute' WHERE upload_id = new_id;
		WHEN 'released' THEN
			PERFORM release_upload_lease(new_id, 1);
		WHEN 'taken over' THEN
			PERFORM acquire_upload_lease(new_id, 'B', '1 hour', take_over => true);
		WHEN 'complete' THEN
			PERFORM advance_upload(new_id, bytes, 100 - bytes, true, lease_epoch => 1);
		WHEN 'aborted' THEN
			PERFORM abort_upload(new_id);
		WHEN 'expired', 'overdue' THEN
			UPDATE upload_session SET expires_at = now() - interval '1 second' WHERE upload_id = new_id;
	END CASE;
	IF state = 'expired' THEN
		PERFORM sweep_uploads();
	END IF;
	RETURN new_id;
END $$;

-- What a call changes: the names of the columns, or nothing, if nobody has written
-- a new version of the row.
CREATE TYPE pg_temp.version AS (place tid, columns jsonb);
CREATE FUNCTION pg_temp.version_of(my_id text) RETURNS pg_temp.version LANGUAGE sql AS $$
	SELECT (s.ctid, to_jsonb(s))::pg_temp.version FROM upload_session s WHERE s.upload_id = my_id
$$;
CREATE FUNCTION pg_temp.changes(before pg_temp.version, after pg_temp.version) RETURNS text LANGUAGE sql AS $$
	SELECT CASE WHEN before.place = after.place THEN 'nothing' ELSE coalesce(string_agg(key, ', ' ORDER BY key), 'nothing, but writes the row') END
	  FROM jsonb_each(before.columns) b FULL JOIN jsonb_each(after.columns) a USING (key)
	 WHERE a.value IS DISTINCT FROM b.value
$$;

-- How many versions of rows were written, and how many of them into no index.
CREATE FUNCTION pg_temp.updates(OUT written bigint, OUT hot bigint) LANGUAGE sql AS $$
	SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_user_tables WHERE relid = 'upload_session'::regclass
$$;
SELECT pg_temp.upload('live') AS id \gset
SELECT u.written, u.hot FROM pg_temp.updates() u \gset
SELECT epoch FROM acquire_upload_lease(:'id', 'A') \gset
SELECT requested FROM acquire_upload_lease(:'id', 'B') \gset
SELECT held FROM renew_upload_lease(:'id', 1) \gset
SELECT held FROM release_upload_lease(:'id', 1) \gset
SELECT is((u.written - :written, u.hot - :hot)::text, '(4,4)', 'the life of a lease stays HOT') FROM pg_temp.updates() u;

--
-- Acquire, renew, release
--
CREATE TEMPORARY TABLE call (name text PRIMARY KEY, statement text);
INSERT INTO call VALUES
	('A acquires', 'acquire_upload_lease(%L, ''A'', ''2 hours'')'),
	('B acquires', 'acquire_upload_lease(%L, ''B'', ''2 hours'')'),
	('C acquires', 'acquire_upload_lease(%L, ''C'', ''2 hours'')'),
	('A takes over', 'acquire_upload_lease(%L, ''A'', ''2 hours'', take_over => true)'),
	('B takes over', 'acquire_upload_lease(%L, ''B'', ''2 hours'', take_over => true)'),
	('0 renews', 'renew_upload_lease(%L, 0, ''2 hours'')'),
	('1 renews', 'renew_upload_lease(%L, 1, ''2 hours'')'),
	('2 renews', 'renew_upload_lease(%L, 2, ''2 hours'')'),
	('0 releases', 'release_upload_lease(%L, 0)'),
	('1 releases', 'release_upload_lease(%L, 1)'),
	('2 releases', 'release_upload_lease(%L, 2)');

-- What a call returns, and what it changes.  The minutes are those for which the
-- lease still runs.  An answer is truthful if it is what the row says, which is kept
-- from libraries without leases once it has had one.
CREATE FUNCTION pg_temp.try_lease(state text, statement text, OUT held boolean, OUT epoch bigint, OUT holder text, OUT minutes numeric,
	OUT requested boolean, OUT status text, OUT changes text, OUT truthful boolean)
LANGUAGE plpgsql AS $$
DECLARE
	my_id text := pg_temp.lease(state);
	before pg_temp.version := pg_temp.version_of(my_id);
	result upload_lease;
BEGIN
	EXECUTE format('SELECT * FROM ' || statement, my_id) INTO result;
	held := result.held;
	epoch := result.epoch;
	holder := result.holder;
	minutes := round((extract(epoch FROM result.expires_at - clock_timestamp()) / 60)::numeric);
	requested := result.requested;
	status := result.status;
	changes := pg_temp.changes(before, pg_temp.version_of(my_id));
	truthful := (SELECT (result.epoch, result.holder, result.expires_at, result.requested, result.uploaded_bytes, result.total_size)
			IS NOT DISTINCT FROM (s.lease_epoch, s.lease_holder, s.lease_expires_at, s.lease_requested, s.uploaded_bytes, s.total_size)
			AND (s.rules_version = 1) IS NOT DISTINCT FROM (result.epoch > 0 OR NULL)
		  FROM upload_session s WHERE upload_id = my_id);
END $$;

CREATE TEMPORARY TABLE line (n serial, state text, call text, held boolean, epoch bigint, holder text, minutes numeric, requested boolean, changes text, sentence text);
INSERT INTO line (state, call, held, epoch, holder, minutes, requested, changes, sentence) VALUES
	-- none
	('none', 'A acquires', true, 1, 'A', 120, false, 'lease_epoch, lease_expires_at, lease_holder, rules_version', 'the first lease has epoch 1'),
	('none', 'B acquires', true, 1, 'B', 120, false, 'lease_epoch, lease_expires_at, lease_holder, rules_version', '... whoever gets it'),
	('none', 'A takes over', true, 1, 'A', 120, false, 'lease_epoch, lease_expires_at, lease_holder, rules_version', '... also if it is taken over from nobody'),
	('none', '0 renews', false, 0, NULL, NULL, false, 'nothing', 'epoch 0 is no lease'),
	('none', '1 renews', false, 0, NULL, NULL, false, 'nothing', '... nor is one that was not given yet'),
	('none', '0 releases', false, 0, NULL, NULL, false, 'nothing', '... and there is nothing to release'),
	('none', '1 releases', false, 0, NULL, NULL, false, 'nothing', '... neither way'),
	-- running
	('running', 'A acquires', true, 1, 'A', 120, false, 'lease_expires_at', 'the same holder again renews its lease'),
	('running', 'B acquires', false, 1, 'A', 60, true, 'lease_requested', 'another one asks for it'),
	('running', 'A takes over', true, 2, 'A', 120, false, 'lease_epoch, lease_expires_at', 'the same holder may take over its own lease, with a new epoch'),
	('running', 'B takes over', true, 2, 'B', 120, false, 'lease_epoch, lease_expires_at, lease_holder', 'another one may take it over'),
	('running', '0 renews', false, 1, 'A', 60, false, 'nothing', 'an earlier epoch does not renew'),
	('running', '1 renews', true, 1, 'A', 120, false, 'lease_expires_at', 'the current one does'),
	('running', '2 renews', false, 1, 'A', 60, false, 'nothing', 'a later one does not'),
	('running', '0 releases', false, 1, 'A', 60, false, 'nothing', 'an earlier epoch does not release'),
	('running', '1 releases', false, 1, NULL, NULL, false, 'lease_expires_at, lease_holder', 'the current one does, and stays'),
	('running', '2 releases', false, 1, 'A', 60, false, 'nothing', 'a later one does not'),
	-- requested
	('requested', 'A acquires', true, 1, 'A', 120, true, 'lease_expires_at', 'the holder learns that it is asked for the lease'),
	('requested', 'B acquires', false, 1, 'A', 60, true, 'nothing', 'a second request is no news'),
	('requested', 'C acquires', false, 1, 'A', 60, true, 'nothing', '... from whom it may be'),
	('requested', 'A takes over', true, 2, 'A', 120, true, 'lease_epoch, lease_expires_at', 'who has asked the same holder goes on waiting'),
	('requested', 'B takes over', true, 2, 'B', 120, false, 'lease_epoch, lease_expires_at, lease_holder, lease_requested', '... whoever has taken it'),
	('requested', '0 renews', false, 1, 'A', 60, true, 'nothing', 'an earlier epoch does not renew'),
	('requested', '1 renews', true, 1, 'A', 120, true, 'lease_expires_at', 'who renews learns that it is asked'),
	('requested', '2 renews', false, 1, 'A', 60, true, 'nothing', 'a later one does not renew'),
	('requested', '0 releases', false, 1, 'A', 60, true, 'nothing', 'an earlier epoch does not release'),
	('requested', '1 releases', false, 1, NULL, NULL, false, 'lease_expires_at, lease_holder, lease_requested', 'who releases is asked no more'),
	('requested', '2 releases', false, 1, 'A', 60, true, 'nothing', 'a later one does not release'),
	-- run out
	('run out', 'A acquires', true, 2, 'A', 120, false, 'lease_epoch, lease_expires_at', 'the same holder gets a new epoch after its time'),
	('run out', 'B acquires', true, 2, 'B', 120, false, 'lease_epoch, lease_expires_at, lease_holder', '... and so does another one'),
	('run out', 'A takes over', true, 2, 'A', 120, false, 'lease_epoch, lease_expires_at', '... who may take it over'),
	('run out', 'B takes over', true, 2, 'B', 120, false, 'lease_epoch, lease_expires_at, lease_holder', '... without need'),
	('run out', '0 renews', false, 1, 'A', -1, false, 'nothing', 'an earlier epoch does not renew'),
	('run out', '1 renews', true, 1, 'A', 120, false, 'lease_expires_at', 'a lease that has run out can be renewed, as long as nobody else has it'),
	('run out', '2 renews', false, 1, 'A', -1, false, 'nothing', 'a later one does not renew'),
	('run out', '0 releases', false, 1, 'A', -1, false, 'nothing', 'an earlier epoch does not release'),
	('run out', '1 releases', false, 1, NULL, NULL, false, 'lease_expires_at, lease_holder', 'a lease that has run out can be released'),
	('run out', '2 releases', false, 1, 'A', -1, false, 'nothing', 'a later one does not release'),
	-- missed
	('missed', 'A acquires', true, 2, 'A', 120, true, 'lease_epoch, lease_expires_at', 'who has asked the same holder goes on waiting'),
	('missed', 'B acquires', true, 2, 'B', 120, false, 'lease_epoch, lease_expires_at, lease_holder, lease_requested', '... and who has asked gets it by another try'),
	('missed', 'C acquires', true, 2, 'C', 120, false, 'lease_epoch, lease_expires_at, lease_holder, lease_requested', '... unless another one is faster'),
	('missed', '1 renews', true, 1, 'A', 120, true, 'lease_expires_at', 'who renews learns that it is asked'),
	('missed', '1 releases', false, 1, NULL, NULL, false, 'lease_expires_at, lease_holder, lease_requested', 'who releases is asked no more'),
	-- released
	('released', 'A acquires', true, 2, 'A', 120, false, 'lease_epoch, lease_expires_at, lease_holder', 'the lease after one that was released has a new epoch'),
	('released', 'B acquires', true, 2, 'B', 120, false, 'lease_epoch, lease_expires_at, lease_holder', '... whoever gets it'),
	('released', 'A takes over', true, 2, 'A', 120, false, 'lease_epoch, lease_expires_at, lease_holder', '... also if it is taken over from nobody'),
	('released', '0 renews', false, 1, NULL, NULL, false, 'nothing', 'an earlier epoch does not renew'),
	('released', '1 renews', false, 1, NULL, NULL, false, 'nothing', 'what was released is not renewed'),
	('released', '2 renews', false, 1, NULL, NULL, false, 'nothing', 'a later one does not renew'),
	('released', '1 releases', false, 1, NULL, NULL, false, 'nothing', 'a second release changes nothing'),
	-- taken over
	('taken over', 'A acquires', false, 2, 'B', 60, true, 'lease_requested', 'who has lost the lease may ask for it'),
	('taken over', 'B acquires', true, 2, 'B', 120, false, 'lease_expires_at', 'who has got it renews it'),
	('taken over', 'A takes over', true, 3, 'A', 120, false, 'lease_epoch, lease_expires_at, lease_holder', 'it can be taken back'),
	('taken over', 'B takes over', true, 3, 'B', 120, false, 'lease_epoch, lease_expires_at', 'each time with a new epoch'),
	('taken over', '1 renews', false, 2, 'B', 60, false, 'nothing', 'who has lost the lease learns that by renewing'),
	('taken over', '2 renews', true, 2, 'B', 120, false, 'lease_expires_at', 'who has got it renews it'),
	('taken over', '1 releases', false, 2, 'B', 60, false, 'nothing', 'who has lost the lease does not release that of another'),
	('taken over', '2 releases', false, 2, NULL, NULL, false, 'lease_expires_at, lease_holder', 'who has got it releases it');
-- ended: nothing is raised, and nothing changes
INSERT INTO line (state, call, held, epoch, holder, minutes, requested, changes, sentence)
	SELECT state, name, false, 1, CASE state WHEN 'overdue' THEN 'A' END, CASE state WHEN 'overdue' THEN 60 END, state = 'overdue', 'nothing', sentence
	  FROM (VALUES ('complete', 'nobody writes a complete upload'), ('aborted', 'nor an aborted one'), ('expired', 'nor an expired one'),
			('overdue', 'nor one past its deadline, though its lease still runs')) AS x (state, sentence), call;

SELECT is(format('held %s, epoch %s of %s for %s minutes, requested %s, %s; changes %s; truthful %s', r.held, r.epoch, r.holder, r.minutes, r.requested, r.status,
			r.changes, r.truthful),
		format('held %s, epoch %s of %s for %s minutes, requested %s, %s; changes %s; truthful t', l.held, l.epoch, l.holder, l.minutes, l.requested,
			CASE l.state WHEN 'overdue' THEN 'expired' WHEN 'complete' THEN 'complete' WHEN 'aborted' THEN 'aborted' WHEN 'expired' THEN 'expired' ELSE 'in_progress' END,
			l.changes),
		format('%s, %s: %s', l.state, l.call, l.sentence))
  FROM line l JOIN call c ON c.name = l.call, LATERAL pg_temp.try_lease(l.state, c.statement) r
 ORDER BY n;

-- What an answer tells of the upload
SELECT is((held, epoch, uploaded_bytes, total_size, status)::text, expected, 'the answer tells how far the upload has come: ' || state)
  FROM (VALUES ('pending', '(t,1,0,100,pending)'), ('live', '(t,1,40,100,in_progress)'), ('full', '(t,1,100,100,in_progress)'),
		('deferred', '(t,1,40,,in_progress)'), ('unsized', '(t,1,0,,pending)'), ('empty', '(t,1,0,0,pending)'), ('complete', '(f,0,100,100,complete)'),
		('aborted', '(f,0,40,100,aborted)'), ('expired', '(f,0,40,100,expired)'), ('overdue', '(f,0,40,100,expired)')) AS x (state, expected),
	LATERAL acquire_upload_lease(pg_temp.upload(state), 'A');

-- How long
SELECT pg_temp.lease('none') AS id \gset
SELECT ok(expires_at > now() + interval '30 seconds' AND expires_at <= clock_timestamp() + interval '30 seconds', 'a lease lasts 30 seconds') FROM acquire_upload_lease(:'id', 'A');
SELECT expires_at AS short FROM acquire_upload_lease(:'id', 'A', '1 second') \gset
SELECT ok(:'short' <= clock_timestamp() + interval '1 second', '... or as long as one says, which may be shorter than before');
SELECT ok(expires_at > now() + interval '30 seconds' AND expires_at <= clock_timestamp() + interval '30 seconds', '... and 30 more when it is renewed') FROM renew_upload_lease(:'id', 1);
SELECT is(round((extract(epoch FROM expires_at - now()) / 86400)::numeric), 10::numeric, '... or as long as one says') FROM renew_upload_lease(:'id', 1, '10 days');
SELECT is((held, expires_at > now() + interval '9999 years')::text, '(t,t)', 'a lease may last for ever') FROM acquire_upload_lease(:'id', 'A', '10000 years');
SELECT upload_id AS id FROM start_upload('test/forever', 10, ttl => '0') \gset
SELECT held FROM acquire_upload_lease(:'id', 'A') \gset
SELECT is((s.lease_epoch, s.expires_at)::text, '(1,)', 'an upload that never expires may have a lease') FROM upload_session s WHERE upload_id = :'id';

-- Who
SELECT pg_temp.lease('running') AS id \gset
SELECT is((held, holder)::text, '(f,A)', format('%s is another holder than "A"', quote_ident(name))) FROM unnest(ARRAY['a', 'A ', 'AA', 'Á']) AS name, LATERAL acquire_upload_lease(:'id', name);
SELECT is((held, epoch)::text, '(f,1)', 'a null take_over takes nothing over') FROM acquire_upload_lease(:'id', 'B', take_over => NULL);
SELECT repeat('é', 255) || 'z' AS long_name \gset
SELECT pg_temp.lease('none') AS id \gset
SELECT is((held, epoch, holder = :'long_name')::text, '(t,1,t)', 'the name of a holder may have 256 characters') FROM acquire_upload_lease(:'id', :'long_name');
SELECT is((held, epoch, holder = :'long_name')::text, '(t,1,t)', '... and is compared as a whole') FROM acquire_upload_lease(:'id', :'long_name');
SELECT is((held, epoch, holder = :'long_name')::text, '(f,1,t)', '... to its last character') FROM acquire_upload_lease(:'id', left(:'long_name', -1) || 'x');
SELECT is((held, epoch, holder = :'long_name')::text, '(t,1,t)', '... and stays when the lease is renewed') FROM renew_upload_lease(:'id', 1);

-- How often
SELECT pg_temp.lease('none') AS id \gset
SELECT is(array_agg(epoch ORDER BY n), ARRAY[1, 2, 3, 4, 5]::bigint[], 'no epoch is given twice')
  FROM generate_series(1, 5) AS n, LATERAL acquire_upload_lease(:'id', 'holder ' || n, take_over => true);
SELECT is((l.epoch, r.holder, a.epoch)::text, '(5,,6)', '... after a release neither')
  FROM renew_upload_lease(:'id', 5) l, LATERAL release_upload_lease(:'id', l.epoch) r, LATERAL acquire_upload_lease(:'id', coalesce(r.holder, 'A')) a;
SELECT release_upload_lease(:'id', 6) AS released \gset
SELECT is(rules_version::integer, 1, 'an upload that has had a lease is not for libraries without them') FROM upload_session WHERE upload_id = :'id';
UPDATE upload_session SET rules_version = 2 WHERE upload_id = :'id';
SELECT is(pg_temp.raised(format('SELECT ' || statement, :'id')), 'VB003', name || ': an upload that is not for this library is refused') FROM call;

--
-- Chunks
--
-- What a chunk with an epoch does, by itself and as one of many.
CREATE FUNCTION pg_temp.try_chunk(state text, kind text, chunk_offset bigint, chunk_length bigint, final boolean, etag text, epoch bigint,
	OUT outcome text, OUT raised text, OUT of_many text, OUT changes text, OUT truthful boolean)
LANGUAGE plpgsql AS $$
DECLARE
	my_id text := pg_temp.lease(state, kind);
	before pg_temp.version := pg_temp.version_of(my_id);
	result chunk_result;
BEGIN
	result := try_advance_upload(my_id, chunk_offset, chunk_length, final, etag => etag, lease_epoch => epoch);
	outcome := result.outcome;
	changes := pg_temp.changes(before, pg_temp.version_of(my_id));
	truthful := (SELECT (result.uploaded_bytes, result.total_size, result.status, result.expires_at)
			IS NOT DISTINCT FROM (s.uploaded_bytes, s.total_size, s.status, s.expires_at) FROM get_upload(my_id) s)
		AND (outcome <> 'fenced' OR etag IS NULL OR EXISTS (SELECT FROM list_parts(my_id) AS p WHERE p.etag = 'a'));
	raised := pg_temp.raised(format('SELECT advance_upload(%L, %s, %s, %L, etag => %L, lease_epoch => %L)',
		pg_temp.lease(state, kind), chunk_offset, chunk_length, final, etag, epoch));
	of_many := CASE WHEN final THEN outcome ELSE
		(SELECT r.outcome::text FROM advance_uploads(ARRAY[pg_temp.lease(state, kind)], ARRAY[chunk_offset], ARRAY[chunk_length],
			etags => ARRAY[etag], lease_epochs => ARRAY[epoch]) r) END;
END $$;

-- Without leases
CREATE TEMPORARY TABLE chunk (n serial, chunk_offset bigint, chunk_length bigint, final boolean, etag text, outcome text, changes text, when_complete text);
INSERT INTO chunk (chunk_offset, chunk_length, final, etag, outcome, changes, when_complete) VALUES
	(40, 10, false, NULL, 'advanced', 'expires_at, updated_at, uploaded_bytes', 'replayed'),
	(40, 0, false, NULL, 'advanced', 'expires_at, updated_at', 'replayed'),
	(0, 40, false, NULL, 'replayed', 'nothing', 'replayed'),
	(0, 40, false, 'b', 'replaced', 'expires_at, updated_at', 'replayed'),
	(30, 20, false, NULL, 'conflict', 'nothing', 'replayed'),
	(40, 61, false, NULL, 'too_large', 'nothing', 'ended'),
	(40, 10, true, NULL, 'incomplete', 'nothing', 'replayed'),
	(40, 60, true, NULL, 'advanced', 'ends the lease', 'replayed');

-- What a lease makes of them; null: nothing.
CREATE TEMPORARY TABLE fence (n serial, state text, epoch bigint, outcome text, sentence text);
INSERT INTO fence (state, epoch, outcome, sentence) VALUES
	('none', NULL, NULL, 'without a lease no epoch is needed'),
	('none', 0, NULL, '... and 0 is the current one'),
	('none', 1, 'fenced', '... but no other is'),
	('none', -1, 'fenced', '... in either direction'),
	('running', NULL, 'fenced', 'while a lease runs, its epoch is needed'),
	('running', 0, 'fenced', '... not an earlier one'),
	('running', 1, NULL, '... but the current one'),
	('running', 2, 'fenced', '... and not a later one'),
	('requested', NULL, 'fenced', 'a request changes nothing: an epoch is needed'),
	('requested', 0, 'fenced', '... not an earlier one'),
	('requested', 1, NULL, '... but the current one'),
	('requested', 2, 'fenced', '... and not a later one'),
	('run out', NULL, NULL, 'once a lease has run out, no epoch is needed'),
	('run out', 0, 'fenced', '... but an earlier one is refused'),
	('run out', 1, NULL, '... and the current one is good'),
	('run out', 2, 'fenced', '... and a later one refused'),
	('missed', NULL, NULL, 'a request changes nothing: no epoch is needed'),
	('missed', 0, 'fenced', '... but an earlier one is refused'),
	('missed', 1, NULL, '... and the current one is good'),
	('missed', 2, 'fenced', '... and a later one refused'),
	('released', NULL, NULL, 'once a lease is released, no epoch is needed'),
	('released', 0, 'fenced', '... but an earlier one is refused'),
	('released', 1, NULL, '... and the current one is good'),
	('released', 2, 'fenced', '... and a later one refused'),
	('taken over', NULL, 'fenced', 'while another lease runs, its epoch is needed'),
	('taken over', 1, 'fenced', '... not that of whom it was taken from'),
	('taken over', 2, NULL, '... but the current one'),
	('taken over', 3, 'fenced', '... and not a later one'),
	('complete', NULL, NULL, 'a complete upload has no lease, and no epoch is needed'),
	('complete', 0, 'fenced', '... but an earlier one is refused'),
	('complete', 1, NULL, '... and the last one is good'),
	('complete', 2, 'fenced', '... and a later one refused'),
	('aborted', NULL, 'ended', 'an aborted upload has ended before anything is fenced'),
	('aborted', 0, 'ended', '... whatever epoch is brought'),
	('aborted', 1, 'ended', '... the last one, too'),
	('expired', NULL, 'expired', 'an expired upload has expired before anything is fenced'),
	('expired', 0, 'expired', '... whatever epoch is brought'),
	('expired', 1, 'expired', '... the last one, too'),
	('overdue', NULL, 'expired', 'an upload past its deadline has expired, too'),
	('overdue', 0, 'expired', '... whatever epoch is brought'),
	('overdue', 1, 'expired', '... the current one, too');

SELECT is(format('%s, raises %s, of many %s, changes %s, truthful %s', r.outcome, r.raised, r.of_many, r.changes, r.truthful),
		format('%1$s, raises %2$s, of many %1$s, changes %3$s, truthful t', x.outcome,
			CASE x.outcome WHEN 'fenced' THEN 'VB008' WHEN 'conflict' THEN 'VB002' WHEN 'ended' THEN 'VB003' WHEN 'expired' THEN 'VB004'
				WHEN 'too_large' THEN 'VB005' WHEN 'incomplete' THEN 'VB006' END,
			CASE WHEN x.outcome IN ('advanced', 'replaced') THEN c.changes ELSE 'nothing' END),
		format('%s, %s, [%s, %s)%s%s, epoch %s, %s: %s', kind, f.state, c.chunk_offset, c.chunk_offset + c.chunk_length, CASE WHEN c.final THEN ' final' END,
			' etag ' || c.etag, coalesce(f.epoch::text, 'null'), x.outcome, f.sentence))
  FROM unnest(ARRAY['with a part', 'any order']) AS kind, fence f, chunk c,
	LATERAL (SELECT coalesce(f.outcome, CASE f.state WHEN 'complete' THEN c.when_complete ELSE c.outcome END)) AS x (outcome),
	LATERAL pg_temp.try_chunk(f.state, kind, c.chunk_offset, c.chunk_length, c.final, c.etag, f.epoch) r
 -- what ends the lease comes below; nor is everything tried in any order
 WHERE NOT (x.outcome = 'advanced' AND c.final)
   AND NOT (kind = 'any order' AND f.state IN ('requested', 'missed', 'aborted', 'expired'))
 ORDER BY kind DESC, f.n, c.n;

SELECT is(outcome::text, expected, sentence)
  FROM (VALUES
		('carol', 2, 'not_found', 'a chunk of another owner is not found before it is fenced'),
		('alice', 2, 'fenced', '... and that of the owner is fenced'),
		('alice', 1, 'advanced', '... unless it has the lease')
	) AS x (owner, epoch, expected, sentence), LATERAL try_advance_upload(pg_temp.lease('running'), 40, 10, owner => x.owner, lease_epoch => x.epoch);
SELECT is(outcome::text, 'not_found', 'a chunk of an unknown upload, too') FROM try_advance_upload('lease-unknown', 40, 10, lease_epoch => 1);
SELECT pg_temp.lease('running') AS id \gset
SELECT outcome FROM try_advance_upload(:'id', 40, 10, provider_data => '{"part": 2}') \gset
SELECT is((:'outcome', provider_data)::text, '(fenced,"{""multipart"": ""m""}")', 'a chunk that is fenced merges no provider_data') FROM upload_session WHERE upload_id = :'id';

--
-- Many chunks
--
SELECT results_eq(
	format('SELECT outcome::text, uploaded_bytes FROM advance_uploads(array_fill(%L::text, ARRAY[6]), ''{40,50,50,50,0,0}'', ''{10,10,10,10,40,40}'', lease_epochs => ''{1,NULL,0,1,1,2}'')',
		pg_temp.lease('running')),
	$$ VALUES ('advanced', 50::bigint), ('fenced', 50), ('fenced', 50), ('advanced', 60), ('replayed', 60), ('fenced', 60) $$,
	'each chunk of one upload is judged by its own epoch');
SELECT results_eq(
	format('SELECT outcome::text, uploaded_bytes FROM advance_uploads(ARRAY[%L, %L, %L, %L], ''{40,40,40,40}'', ''{10,10,10,10}'', lease_epochs => ''{1,NULL,NULL,1}'')',
		pg_temp.lease('running'), pg_temp.lease('running'), pg_temp.lease('none'), pg_temp.lease('taken over')),
	$$ VALUES ('advanced', 50::bigint), ('fenced', 40), ('advanced', 50), ('fenced', 40) $$,
	'... and each upload by its own lease');
SELECT results_eq(
	format('SELECT outcome::text FROM advance_uploads(ARRAY[%L, %L], ''{40,40}'', ''{10,10}'', lease_epochs => NULL)', pg_temp.lease('running'), pg_temp.lease('run out')),
	$$ VALUES ('fenced'), ('advanced') $$, 'no lease_epochs are no epoch for each');
SELECT results_eq(
	format('SELECT outcome::text, status::text FROM advance_uploads(array_fill(%L::text, ARRAY[5]), ''{40,0,0,0,100}'', ''{60,40,40,40,1}'', lease_epochs => ''{1,1,NULL,0,1}'')',
		pg_temp.lease('running', 'ending')),
	$$ VALUES ('advanced', 'complete'), ('replayed', 'complete'), ('replayed', 'complete'), ('fenced', 'complete'), ('ended', 'complete') $$,
	'the lease ends with the chunk that completes the upload');
SELECT is_empty('SELECT * FROM advance_uploads(''{}'', ''{}'', ''{}'', lease_epochs => ''{}'')', 'no chunks need no epochs');
SELECT throws_ok(format('SELECT advance_uploads(ARRAY[%L, ''y''], ''{40,40}'', ''{10,10}'', lease_epochs => %s)', pg_temp.lease('running'), epochs), '22023', NULL,
		'lease_epochs has one element for each chunk, not ' || epochs)
  FROM unnest(ARRAY['''{1}''', '''{}''', '''{1,1,1}''', '''{{1,1}}''']) AS epochs;

--
-- What ends an upload ends its lease, and needs none
--
CREATE FUNCTION pg_temp.try_end(state text, kind text, statement text, OUT status text, OUT lease text) LANGUAGE plpgsql AS $$
DECLARE
	my_id text := pg_temp.lease(state, kind);
BEGIN
	IF statement LIKE 'sweep%' THEN
		UPDATE upload_session SET expires_at = now() - interval '1 second' WHERE upload_id = my_id;
	END IF;
	EXECUTE format('SELECT FROM ' || statement, my_id, CASE state WHEN 'none' THEN 0 WHEN 'taken over' THEN 2 ELSE 1 END);
	SELECT s.status, format('epoch %s, holder %s until %s, requested %s', s.lease_epoch, s.lease_holder, s.lease_expires_at, s.lease_requested)
	  INTO status, lease
	  FROM upload_session s
	 WHERE s.upload_id = my_id;
END $$;
SELECT is(format('%s, %s', r.status, r.lease), format('%s, epoch %s, holder  until , requested f', c.status, CASE s.state WHEN 'none' THEN 0 WHEN 'taken over' THEN 2 ELSE 1 END),
		format('%s, %s: %s', replace(replace(c.statement, '%1$L', '...'), '%2$L', 'its own'), s.state, c.sentence))
  FROM (VALUES
		('full', 'complete_upload(%1$L)', 'complete', 'a complete upload has no lease'),
		('plain', 'abort_upload(%1$L)', 'aborted', 'nor has an aborted one'),
		('plain', 'sweep_uploads()', 'expired', 'nor has an expired one'),
		('plain', 'advance_upload(%1$L, 40, 60, true, lease_epoch => %2$L)', 'complete', 'nor has one that a final chunk completes'),
		('any order', 'advance_upload(%1$L, 40, 60, true, lease_epoch => %2$L)', 'complete', '... in any order'),
		('ending', 'advance_upload(%1$L, 40, 60, lease_epoch => %2$L)', 'complete', 'nor has one that completes itself')
	) AS c (kind, statement, status, sentence),
	(VALUES ('none'), ('running'), ('requested'), ('run out'), ('missed'), ('released'), ('taken over')) AS s (state),
	LATERAL pg_temp.try_end(s.state, c.kind, c.statement) r;
SELECT upload_id AS id FROM start_upload('test/declared', auto_complete => true) \gset
SELECT advance_upload(:'id', 0, 40) AS advanced, acquire_upload_lease(:'id', 'A') AS acquired, declare_upload_size(:'id', 40) AS declared \gset
SELECT is((status, lease_epoch, lease_holder, lease_expires_at)::text, '(complete,1,,)', 'nor has one that is completed when its size is declared') FROM upload_session WHERE upload_id = :'id';


-- Deleted, which leaves nothing of it but what is to be reclaimed.
CREATE FUNCTION pg_temp.try_delete(state text, OUT deleted boolean, OUT sessions bigint, OUT queued bigint) LANGUAGE plpgsql AS $$
DECLARE
	my_id text := pg_temp.lease(state);
BEGIN
	deleted := delete_upload(my_id);
	sessions := count(*) FROM upload_session s WHERE s.upload_id = my_id;
	queued := count(*) FROM upload_reclaim r WHERE r.upload_id = my_id;
END $$;
SELECT is(format('deleted %s, %s left, %s queued', r.deleted, r.sessions, r.queued), 'deleted t, 0 left, 1 queued', 'delete_upload(...), ' || state || ': needs no lease')
  FROM unnest(ARRAY['none', 'running', 'requested', 'run out', 'missed', 'released', 'taken over', 'overdue']) AS state, LATERAL pg_temp.try_delete(state) r;

-- What leaves the lease alone, and needs none.
CREATE FUNCTION pg_temp.changes_by(state text, statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	my_id text := pg_temp.lease(state);
	before pg_temp.version := pg_temp.version_of(my_id);
BEGIN
	EXECUTE format('SELECT FROM ' || statement, my_id);
	RETURN pg_temp.changes(before, pg_temp.version_of(my_id));
END $$;
SELECT is(pg_temp.changes_by(state, x.statement), x.changes, format('%s, %s: %s', replace(x.statement, '%L', '...'), state, x.sentence))
  FROM (VALUES
		('merge_upload_data(%L, ''{"a": 1}'')', 'expires_at, metadata, updated_at', 'to merge data needs no lease, and leaves it'),
		('declare_upload_size(%L, 100)', 'nothing', 'nor does a size that is declared'),
		('get_upload(%L)', 'nothing', 'nor does a reader'),
		('sweep_uploads()', 'nothing', 'nor does a sweep, before the deadline')
	) AS x (statement, changes, sentence), unnest(ARRAY['running', 'requested', 'run out']) AS state;

--
-- What a program learns from an error
--
CREATE FUNCTION pg_temp.told_with_hint(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
	hint text;
BEGIN
	EXECUTE statement;
	RETURN NULL;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n', SQLSTATE || ': ' || message, 'DETAIL: ' || nullif(detail, ''), 'HINT: ' || nullif(hint, ''));
END $$;
SELECT pg_temp.lease('taken over') AS id \gset
SELECT is(pg_temp.told_with_hint(format('SELECT advance_upload(%L, 40, 10, lease_epoch => 1)', :'id')), format(
$$VB008: lease epoch 1 of upload "%s" is not the current one, which is 2
DETAIL: A newer lease was given.
HINT: Stop writing, and discard what was written under that epoch; to go on, call acquire_upload_lease().$$, :'id'), 'who has lost the lease learns what to do');
SELECT is(pg_temp.told_with_hint(format('SELECT advance_upload(%L, 40, 10)', :'id')), format(
$$VB008: the lease of upload "%s" is held, and the chunk brings no lease_epoch
DETAIL: The holder is "B".
HINT: Call acquire_upload_lease(), and pass the epoch that it returns.$$, :'id'), '... and who has had none, who has it');
SELECT is(pg_temp.told_with_hint(format('SELECT advance_upload(%L, 40, 10, lease_epoch => 3)', :'id')), format(
$$VB008: lease epoch 3 of upload "%s" is not the current one, which is 2
HINT: Stop writing, and discard what was written under that epoch; to go on, call acquire_upload_lease().$$, :'id'), '... of an epoch that was not given, nothing is made up');
SELECT held FROM acquire_upload_lease(:'id', repeat('€', 256), take_over => true) \gset
SELECT is((t.code, t.detail)::text, ('VB008', format('The holder is "%s...".', repeat('€', 170)))::text, 'the name of a holder is cut in a message, between two characters')
  FROM pg_temp.told(format('SELECT advance_upload(%L, 40, 10)', :'id')) t;

--
-- Unknown uploads, owners, bad arguments
--
SELECT is(pg_temp.raised(format('SELECT ' || statement, 'lease-unknown')), 'VB001', name || ': an unknown upload') FROM call;
CREATE TEMPORARY TABLE owned (name text, statement text);
INSERT INTO owned VALUES
	('acquires', 'SELECT acquire_upload_lease(%L, ''A'', owner => %L)'),
	('takes over', 'SELECT acquire_upload_lease(%L, ''A'', owner => %L, take_over => true)'),
	('renews', 'SELECT renew_upload_lease(%L, 1, owner => %L)'),
	('releases', 'SELECT release_upload_lease(%L, 1, owner => %L)');
SELECT is(pg_temp.raised(format(statement, pg_temp.lease(state), 'bob')), 'VB001', format('%s, %s: not found by another owner', state, name))
  FROM unnest(ARRAY['none', 'running', 'released', 'complete', 'aborted', 'expired', 'overdue']) AS state, owned;
SELECT is(pg_temp.raised(format(statement, pg_temp.lease(state), owner)), NULL, format('%s, %s: found by %s', state, name, coalesce('its owner', 'who does not say')))
  FROM unnest(ARRAY['running', 'complete']) AS state, owned, unnest(ARRAY['alice', NULL]) AS owner;
SELECT upload_id AS id FROM start_upload('test/nobodys', 100) \gset
SELECT is(pg_temp.raised(format(statement, :'id', 'alice')), 'VB001', format('an upload without an owner, %s: not found by one', name)) FROM owned;
SET LOCAL vali_blob.require_owner = on;
SELECT is(pg_temp.raised(format(statement, id, NULL)), '22004', format('vali_blob.require_owner, %s: needs an owner', name)) FROM owned, unnest(ARRAY[:'id', 'lease-unknown']) AS id;
RESET vali_blob.require_owner;
SELECT pg_temp.lease('running') AS id \gset
SET LOCAL vali_blob.require_owner = on;
SELECT is(pg_temp.raised(format(statement, :'id', 'alice')), NULL, format('vali_blob.require_owner, %s: with an owner', name)) FROM owned;
RESET vali_blob.require_owner;

SELECT is((t.code, t.message)::text, (x.code, x.message)::text, format('%s: %s', x.statement, x.message))
  FROM (VALUES
		('acquire_upload_lease(NULL, ''A'')', '22004', '"upload_id" must not be null'),
		('acquire_upload_lease(''lease-unknown'', NULL)', '22004', '"holder" must not be null'),
		('acquire_upload_lease(''lease-unknown'', '''')', '22023', '"holder" must not be empty'),
		('acquire_upload_lease(''lease-unknown'', ''A'', NULL)', '22004', '"duration" must not be null'),
		('acquire_upload_lease(''lease-unknown'', ''A'', ''0'')', '22023', '"duration" must be greater than zero and at most 10000 years, but is 00:00:00'),
		('acquire_upload_lease(''lease-unknown'', ''A'', ''-1 second'')', '22023', '"duration" must be greater than zero and at most 10000 years, but is -00:00:01'),
		('acquire_upload_lease(''lease-unknown'', ''A'', ''1 day -25 hours'')', '22023', '"duration" must be greater than zero and at most 10000 years, but is 1 day -25:00:00'),
		('acquire_upload_lease(''lease-unknown'', ''A'', ''10001 years'')', '22023', '"duration" must be greater than zero and at most 10000 years, but is 10001 years'),
		('renew_upload_lease(NULL, 1)', '22004', '"upload_id" must not be null'),
		('renew_upload_lease(''lease-unknown'', NULL)', '22004', '"epoch" must not be null'),
		('renew_upload_lease(''lease-unknown'', 1, NULL)', '22004', '"duration" must not be null'),
		('renew_upload_lease(''lease-unknown'', 1, ''0'')', '22023', '"duration" must be greater than zero and at most 10000 years, but is 00:00:00'),
		('renew_upload_lease(''lease-unknown'', 1, ''-1 second'')', '22023', '"duration" must be greater than zero and at most 10000 years, but is -00:00:01'),
		('renew_upload_lease(''lease-unknown'', 1, ''10001 years'')', '22023', '"duration" must be greater than zero and at most 10000 years, but is 10001 years'),
		('release_upload_lease(NULL, 1)', '22004', '"upload_id" must not be null'),
		('release_upload_lease(''lease-unknown'', NULL)', '22004', '"epoch" must not be null')
	) AS x (statement, code, message), LATERAL pg_temp.told('SELECT ' || x.statement) t;
SELECT throws_ok('SELECT acquire_upload_lease(''lease-unknown'', repeat(''é'', 257))', '22001', NULL, 'the name of a holder has at most 256 characters');

-- Read-only
CREATE FUNCTION pg_temp.raised_read_only(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	SET LOCAL transaction_read_only = on;
	EXECUTE statement;
	RAISE EXCEPTION USING ERRCODE = 'DONE0';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
SELECT is(pg_temp.raised_read_only(format('SELECT ' || statement, id)), '25006', format('read-only, %s: refused, %s', name, sentence))
  FROM call, (VALUES (:'id', 'whether it would write or not'), ('lease-unknown', 'also if it would find nothing')) AS x (id, sentence);

--
-- Rolled back
--
SELECT pg_temp.lease('running') AS id \gset
SAVEPOINT before_it;
SELECT epoch FROM acquire_upload_lease(:'id', 'B', take_over => true) \gset
ROLLBACK TO before_it;
SELECT is((:epoch, held, epoch)::text, '(2,t,1)', 'a lease that is rolled back was not given') FROM renew_upload_lease(:'id', 1);
SELECT is(epoch, 2::bigint, '... and its epoch is given to the next one') FROM acquire_upload_lease(:'id', 'C', take_over => true);

SELECT * FROM finish();
ROLLBACK;
