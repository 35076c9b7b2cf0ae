-- Owners: a session of another owner is not found, whatever is asked of it;
-- vali_blob.require_owner refuses the calls that name none.
\set VERBOSITY sqlstate
\set ON_ERROR_ROLLBACK on
\pset null (null)
\set session 'upload_id, owner, status, uploaded_bytes, total_size'
BEGIN;

SELECT :session FROM start_upload('owners/hers', 10, owner => 'alice', upload_id => 'owners-alice');
SELECT :session FROM start_upload('owners/deferred', owner => 'alice', upload_id => 'owners-deferred');
SELECT :session FROM start_upload('owners/nobody', 10, upload_id => 'owners-nobody');
SELECT :session FROM start_upload('owners/empty', 10, owner => '', upload_id => 'owners-empty');

-- Another owner's session, and one of nobody, do not exist.
SELECT id, outcome, uploaded_bytes, status
  FROM unnest(ARRAY['owners-alice', 'owners-nobody', 'owners-empty']) AS id, LATERAL
       try_advance_upload(id, 0, 1, owner => 'bob');
SELECT :session
  FROM unnest(ARRAY['owners-alice', 'owners-nobody', 'owners-empty']) AS id, LATERAL
       get_upload(id, 'bob');
SELECT :session FROM get_uploads(ARRAY['owners-alice', 'owners-nobody', 'owners-empty'], 'bob');
SELECT id, delete_upload(id, 'bob')
  FROM unnest(ARRAY['owners-alice', 'owners-nobody', 'owners-empty']) AS id;
SELECT advance_upload('owners-alice', 0, 1, owner => 'bob');
SELECT advance_upload('owners-nobody', 0, 1, owner => 'bob');
SELECT advance_upload('owners-alice', 0, 1, owner => 'Alice');
SELECT advance_upload('owners-alice', 0, 1, owner => 'alice ');
SELECT advance_upload('owners-alice', 0, 1, owner => '');
SELECT advance_upload('owners-nobody', 0, 1, owner => '');
SELECT declare_upload_size('owners-deferred', 10, 'bob');
SELECT merge_upload_data('owners-alice', '{"a": 1}', owner => 'bob');
SELECT complete_upload('owners-alice', owner => 'bob');
SELECT abort_upload('owners-alice', owner => 'bob');
SELECT :session FROM list_uploads('bob', path_prefix => 'owners/');
-- An owner learns nothing of the state of another's session either.
SELECT status FROM abort_upload('owners-nobody');
SELECT complete_upload('owners-nobody', owner => 'bob');
SELECT outcome FROM try_advance_upload('owners-nobody', 0, 1, owner => 'bob');
-- Nothing of all this has changed anything.
SELECT :session, metadata FROM upload_session WHERE path LIKE 'owners/%' ORDER BY id;

-- The owner gets through, and so does a caller who names none.
SELECT outcome FROM advance_upload('owners-alice', 0, 1, owner => 'alice');
SELECT outcome FROM advance_upload('owners-alice', 1, 1);
SELECT outcome FROM advance_upload('owners-empty', 0, 1, owner => '');
SELECT :session FROM declare_upload_size('owners-deferred', 10, 'alice');
SELECT metadata FROM merge_upload_data('owners-alice', '{"a": 1}', owner => 'alice');
SELECT outcome FROM advance_upload('owners-alice', 2, 8, owner => 'alice');
SELECT :session FROM get_upload('owners-alice', 'alice');
SELECT :session FROM get_uploads(ARRAY['owners-alice', 'owners-nobody', 'owners-deferred'], 'alice');
SELECT :session FROM list_uploads('alice');
SELECT :session FROM complete_upload('owners-alice', owner => 'alice');
SELECT :session FROM abort_upload('owners-deferred', owner => 'alice');
SELECT delete_upload('owners-deferred', 'alice');

-- With vali_blob.require_owner a forgotten owner opens nothing.
SET LOCAL vali_blob.require_owner = on;
SELECT start_upload('owners/required');
SELECT advance_upload('owners-alice', 0, 1);
SELECT try_advance_upload('owners-alice', 0, 1);
SELECT try_advance_upload('owners-unknown', 0, 1);
SELECT advance_uploads(ARRAY['owners-alice'], ARRAY[0], ARRAY[1]);
SELECT declare_upload_size('owners-alice', 10);
SELECT merge_upload_data('owners-alice', '{"a": 2}');
SELECT complete_upload('owners-alice');
SELECT abort_upload('owners-alice');
SELECT get_upload('owners-alice');
SELECT get_uploads(ARRAY['owners-alice']);
SELECT list_uploads();
SELECT delete_upload('owners-alice');
SELECT :session FROM upload_session WHERE path LIKE 'owners/%' ORDER BY id;
-- Calls with an owner work as ever ...
SELECT :session FROM start_upload('owners/required', 0, owner => 'alice', upload_id => 'owners-required');
SELECT outcome FROM try_advance_upload('owners-required', 0, 0, owner => 'alice');
SELECT outcome FROM try_advance_upload('owners-required', 0, 0, owner => 'bob');
SELECT :session FROM declare_upload_size('owners-required', 0, 'alice');
SELECT metadata FROM merge_upload_data('owners-required', '{"a": 1}', owner => 'alice');
SELECT :session FROM get_upload('owners-required', 'alice');
SELECT :session FROM get_uploads(ARRAY['owners-required'], 'alice');
SELECT :session FROM list_uploads('alice', max_rows => 1);
SELECT :session FROM complete_upload('owners-required', owner => 'alice');
SELECT abort_upload('owners-required', owner => 'alice');
SELECT delete_upload('owners-required', 'alice');
-- ... and so do those that know no owner.
SELECT expired, purged FROM sweep_uploads();
SELECT count(*) FROM claim_reclaims();
SELECT finish_reclaim(-1), fail_reclaim(-1, 'none');
ROLLBACK;
