-- declare_upload_size, merge_upload_data, complete_upload, abort_upload and
-- delete_upload in every state of a session, their replays, and what they
-- leave in the reclaim queue.
\set VERBOSITY sqlstate
\set ON_ERROR_ROLLBACK on
\pset null (null)
\set session 'status, uploaded_bytes, total_size'
BEGIN;

-- A set of sessions, one in every state.
CREATE FUNCTION pg_temp.start_each(what text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	state text;
	new_id text;
BEGIN
	FOREACH state IN ARRAY ARRAY['pending', 'partial', 'full', 'complete', 'aborted', 'expired', 'stale'] LOOP
		new_id := 'lifecycle-' || what || '-' || state;
		PERFORM start_upload('lifecycle/' || what, 10, provider_data => '{"multipart": "m"}', upload_id => new_id);
		IF state <> 'pending' THEN
			PERFORM advance_upload(new_id, 0, CASE WHEN state IN ('full', 'complete') THEN 10 ELSE 4 END);
		END IF;
		IF state = 'complete' THEN
			PERFORM complete_upload(new_id, '{"etag": "first"}');
		ELSIF state = 'aborted' THEN
			PERFORM abort_upload(new_id, 'first reason');
		ELSIF state = 'expired' THEN
			UPDATE upload_session SET expires_at = now() - interval '1 second' WHERE upload_id = new_id;
			PERFORM sweep_uploads();
		ELSIF state = 'stale' THEN
			UPDATE upload_session SET expires_at = now() - interval '1 second' WHERE upload_id = new_id;
		END IF;
		RETURN NEXT new_id;
	END LOOP;
	UPDATE upload_session SET updated_at = now() - interval '1 hour' WHERE path = 'lifecycle/' || what;
END $$;

--
-- declare_upload_size
--
SELECT * FROM pg_temp.start_each('declare');
-- The size is known already: the same one again changes nothing, another one is refused.
SELECT :session, updated_at < now() AS unchanged FROM declare_upload_size('lifecycle-declare-pending', 10);
SELECT :session, updated_at < now() AS unchanged FROM declare_upload_size('lifecycle-declare-partial', 10);
SELECT :session, updated_at < now() AS unchanged FROM declare_upload_size('lifecycle-declare-complete', 10);
SELECT declare_upload_size('lifecycle-declare-pending', 11);
SELECT declare_upload_size('lifecycle-declare-partial', 9);
SELECT declare_upload_size('lifecycle-declare-complete', 11);
SELECT declare_upload_size('lifecycle-declare-aborted', 10);
SELECT declare_upload_size('lifecycle-declare-aborted', 11);
SELECT declare_upload_size('lifecycle-declare-expired', 10);
SELECT declare_upload_size('lifecycle-declare-stale', 10);
SELECT declare_upload_size('lifecycle-declare-unknown', 10);
-- A deferred length: declared once, positional and named.
SELECT :session FROM start_upload('lifecycle/deferred', upload_id => 'lifecycle-deferred', owner => 'alice');
SELECT outcome, ready FROM advance_upload('lifecycle-deferred', 0, 6);
SELECT declare_upload_size('lifecycle-deferred', 5);
SELECT declare_upload_size('lifecycle-deferred', NULL);
SELECT declare_upload_size('lifecycle-deferred', -1);
SELECT declare_upload_size(NULL, 10);
SELECT :session FROM get_upload('lifecycle-deferred');
SELECT :session FROM declare_upload_size('lifecycle-deferred', 10, 'alice');
SELECT :session FROM declare_upload_size(owner => 'alice', total_size => 10, upload_id => 'lifecycle-deferred');
SELECT declare_upload_size('lifecycle-deferred', 20);
SELECT outcome, total_size FROM try_advance_upload('lifecycle-deferred', 6, 5);
-- Declaring exactly what is there makes the session ready, not complete.
SELECT :session FROM start_upload('lifecycle/deferred', upload_id => 'lifecycle-deferred-exact');
SELECT outcome, ready FROM advance_upload('lifecycle-deferred-exact', 0, 6);
SELECT :session FROM declare_upload_size('lifecycle-deferred-exact', 6);
SELECT outcome, ready FROM try_advance_upload('lifecycle-deferred-exact', 0, 6);
-- An empty file, and the largest one.
SELECT :session FROM start_upload('lifecycle/deferred', upload_id => 'lifecycle-deferred-empty');
SELECT :session FROM declare_upload_size('lifecycle-deferred-empty', 0);
SELECT :session FROM start_upload('lifecycle/deferred', upload_id => 'lifecycle-deferred-largest');
SELECT :session FROM declare_upload_size('lifecycle-deferred-largest', 9223372036854775807);
-- Declaring slides the deadline and sets updated_at.
SELECT :session FROM start_upload('lifecycle/deferred', ttl => '16 hours', upload_id => 'lifecycle-deferred-slide');
UPDATE upload_session SET expires_at = now() + interval '1 minute', updated_at = now() - interval '1 hour'
 WHERE upload_id = 'lifecycle-deferred-slide';
SELECT expires_at > now() + interval '16 hours' AS deadline_moved, updated_at >= now() AS touched
  FROM declare_upload_size('lifecycle-deferred-slide', 10);

--
-- merge_upload_data
--
SELECT * FROM pg_temp.start_each('merge');
SELECT status, metadata, provider_data, updated_at >= now() AS touched
  FROM merge_upload_data('lifecycle-merge-pending', '{"name": "a", "tags": {"x": 1}}');
-- Top-level keys are added, replaced whole, or removed by a null.
SELECT status, metadata, provider_data
  FROM merge_upload_data('lifecycle-merge-pending', '{"name": null, "tags": {"y": 2}, "gone": null}', '{"part-1": "e1"}');
SELECT status, metadata, provider_data
  FROM merge_upload_data('lifecycle-merge-pending', provider_data => '{"multipart": null, "part-1": {"etag": null}}');
SELECT status, metadata, provider_data
  FROM merge_upload_data(upload_id => 'lifecycle-merge-pending', metadata => '{}', provider_data => '{}', owner => NULL);
SELECT status, metadata, provider_data FROM merge_upload_data('lifecycle-merge-pending');
SELECT status, metadata, provider_data FROM merge_upload_data('lifecycle-merge-partial', NULL, '{"part-1": "e1"}');
SELECT status, metadata, provider_data FROM merge_upload_data('lifecycle-merge-full', '{"checked": true}');
-- Ended sessions are left alone.
SELECT merge_upload_data('lifecycle-merge-complete', '{"late": 1}');
SELECT merge_upload_data('lifecycle-merge-aborted', '{"late": 1}');
SELECT merge_upload_data('lifecycle-merge-expired', '{"late": 1}');
SELECT merge_upload_data('lifecycle-merge-stale', '{"late": 1}');
SELECT merge_upload_data('lifecycle-merge-unknown', '{"late": 1}');
-- What is no object is refused.
SELECT merge_upload_data(NULL, '{"late": 1}');
SELECT merge_upload_data('lifecycle-merge-full', '[]');
SELECT merge_upload_data('lifecycle-merge-full', 'null');
SELECT merge_upload_data('lifecycle-merge-full', provider_data => '"text"');
SELECT merge_upload_data('lifecycle-merge-full', '{"late": 1}', '1');
SELECT upload_id, status, metadata, provider_data
  FROM upload_session WHERE path = 'lifecycle/merge' ORDER BY upload_id;
-- Merging slides the deadline.
UPDATE upload_session SET ttl = '16 hours', expires_at = now() + interval '1 minute'
 WHERE upload_id = 'lifecycle-merge-full';
SELECT expires_at > now() + interval '16 hours' AS deadline_moved
  FROM merge_upload_data('lifecycle-merge-full', '{"slide": true}');

--
-- complete_upload
--
SELECT * FROM pg_temp.start_each('complete');
SELECT complete_upload('lifecycle-complete-pending');
SELECT complete_upload('lifecycle-complete-partial');
SELECT complete_upload('lifecycle-complete-aborted');
SELECT complete_upload('lifecycle-complete-expired');
SELECT complete_upload('lifecycle-complete-stale');
SELECT complete_upload('lifecycle-complete-unknown');
SELECT complete_upload(NULL);
SELECT complete_upload('lifecycle-complete-full', '["no object"]');
SELECT complete_upload('lifecycle-complete-full', 'null');
SELECT upload_id, :session, result FROM upload_session WHERE path = 'lifecycle/complete' ORDER BY upload_id;
-- Completed once; from then on the stored row is returned, whatever the result says.
SELECT :session, result, provider_data, updated_at >= now() AS touched,
       expires_at BETWEEN now() + interval '48 hours'
                      AND clock_timestamp() + interval '48 hours' AS kept_two_days
  FROM complete_upload('lifecycle-complete-full', '{"etag": "first"}');
UPDATE upload_session SET updated_at = now() - interval '1 hour' WHERE upload_id = 'lifecycle-complete-full';
SELECT :session, result, updated_at < now() AS unchanged
  FROM complete_upload('lifecycle-complete-full', '{"etag": "second"}');
SELECT :session, result, updated_at < now() AS unchanged FROM complete_upload('lifecycle-complete-full');
SELECT :session, result FROM get_upload('lifecycle-complete-full');
-- Without a result; of an empty file that never saw a chunk; after final.
SELECT :session FROM start_upload('lifecycle/empty', 0, upload_id => 'lifecycle-empty', owner => 'alice');
SELECT :session, result FROM complete_upload('lifecycle-empty', NULL, 'alice');
SELECT :session, result FROM complete_upload(owner => 'alice', result => '{}', upload_id => 'lifecycle-empty');
SELECT :session FROM start_upload('lifecycle/final', 5, upload_id => 'lifecycle-final');
SELECT outcome, status FROM advance_upload('lifecycle-final', 0, 5, final => true);
SELECT :session, result FROM complete_upload('lifecycle-final', '{"etag": "first"}');
SELECT :session, result FROM complete_upload('lifecycle-final', '{"etag": "second"}');
-- A deferred length has no end to reach.
SELECT :session FROM start_upload('lifecycle/deferred', upload_id => 'lifecycle-complete-deferred');
SELECT complete_upload('lifecycle-complete-deferred');
SELECT outcome, ready FROM advance_upload('lifecycle-complete-deferred', 0, 5);
SELECT complete_upload('lifecycle-complete-deferred');

--
-- abort_upload
--
SELECT * FROM pg_temp.start_each('abort');
DELETE FROM upload_reclaim WHERE path LIKE 'lifecycle/%';
SELECT :session, abort_reason, updated_at >= now() AS touched,
       expires_at BETWEEN now() + interval '48 hours'
                      AND clock_timestamp() + interval '48 hours' AS kept_two_days
  FROM abort_upload('lifecycle-abort-pending', 'user pressed cancel');
SELECT :session, abort_reason FROM abort_upload('lifecycle-abort-partial');
SELECT :session, abort_reason FROM abort_upload(owner => NULL, reason => '', upload_id => 'lifecycle-abort-full');
-- Replayed: the first reason stays, and nothing is queued twice.
UPDATE upload_session SET updated_at = now() - interval '1 hour' WHERE upload_id = 'lifecycle-abort-pending';
SELECT :session, abort_reason, updated_at < now() AS unchanged
  FROM abort_upload('lifecycle-abort-pending', 'another reason');
SELECT :session, abort_reason FROM abort_upload('lifecycle-abort-aborted', 'another reason');
-- Ended otherwise: refused.
SELECT abort_upload('lifecycle-abort-complete');
SELECT abort_upload('lifecycle-abort-expired');
SELECT abort_upload('lifecycle-abort-stale');
SELECT abort_upload('lifecycle-abort-unknown');
SELECT abort_upload(NULL);
SELECT upload_id, :session, abort_reason FROM upload_session WHERE path = 'lifecycle/abort' ORDER BY upload_id;
SELECT upload_id, reason, path, provider_data, attempts, claimed_until, last_error
  FROM upload_reclaim WHERE path = 'lifecycle/abort' ORDER BY id;
-- Nothing was left in storage: nothing to reclaim.
SELECT :session FROM start_upload('lifecycle/nothing', 5, upload_id => 'lifecycle-nothing');
SELECT :session FROM abort_upload('lifecycle-nothing');
SELECT count(*) FROM upload_reclaim WHERE path = 'lifecycle/nothing';

--
-- delete_upload
--
SELECT * FROM pg_temp.start_each('delete');
DELETE FROM upload_reclaim WHERE path LIKE 'lifecycle/%' AND upload_id NOT LIKE '%-delete-aborted';
SELECT delete_upload('lifecycle-delete-pending');
SELECT delete_upload(owner => NULL, upload_id => 'lifecycle-delete-partial');
SELECT delete_upload('lifecycle-delete-full');
SELECT delete_upload('lifecycle-delete-complete');
SELECT delete_upload('lifecycle-delete-aborted');
SELECT delete_upload('lifecycle-delete-expired');
SELECT delete_upload('lifecycle-delete-stale');
-- Gone: a second call finds nothing, the id is free again.
SELECT delete_upload('lifecycle-delete-pending');
SELECT delete_upload('lifecycle-delete-unknown');
SELECT delete_upload(NULL);
SELECT count(*) FROM upload_session WHERE path = 'lifecycle/delete';
-- Live sessions were aborted first, the stale one expired; queued rows stay queued.
SELECT upload_id, reason, provider_data FROM upload_reclaim WHERE path = 'lifecycle/delete' ORDER BY upload_id;
SELECT :session FROM start_upload('lifecycle/delete', upload_id => 'lifecycle-delete-pending');
SELECT delete_upload('lifecycle-delete-pending');
SELECT count(*) FROM upload_reclaim WHERE upload_id = 'lifecycle-delete-pending';
ROLLBACK;
