-- Access: without a grant every function is refused; grant_upload_access gives a
-- role all that a client needs, revoke_upload_access takes it back.
\set VERBOSITY sqlstate
\set ON_ERROR_ROLLBACK on
\pset null (null)
\set session 'upload_id, owner, status, uploaded_bytes, total_size'
BEGIN;

SELECT :session FROM start_upload('access/one', 10, upload_id => 'access-1');
CREATE ROLE "regress vali ""blob"" client";
CREATE ROLE regress_vali_blob_other;

SET ROLE "regress vali ""blob"" client";
SELECT start_upload('access/two');
SELECT advance_upload('access-1', 0, 1);
SELECT try_advance_upload('access-1', 0, 1);
SELECT advance_uploads(ARRAY['access-1'], ARRAY[0], ARRAY[1]);
SELECT declare_upload_size('access-1', 10);
SELECT merge_upload_data('access-1', '{"a": 1}');
SELECT complete_upload('access-1');
SELECT abort_upload('access-1');
SELECT get_upload('access-1');
SELECT get_uploads(ARRAY['access-1']);
SELECT list_uploads();
SELECT delete_upload('access-1');
SELECT sweep_uploads();
SELECT claim_reclaims();
SELECT finish_reclaim(1);
SELECT fail_reclaim(1, 'error');
SELECT grant_upload_access('regress vali "blob" client');
SELECT revoke_upload_access('regress vali "blob" client');
SELECT count(*) FROM upload_session;
SELECT count(*) FROM upload_reclaim;
RESET ROLE;

SELECT grant_upload_access('regress vali "blob" client');
SET ROLE "regress vali ""blob"" client";
SELECT :session FROM start_upload('access/two', 10, provider_data => '{"multipart": "m"}', upload_id => 'access-2');
SELECT outcome FROM advance_upload('access-2', 0, 1);
SELECT outcome FROM try_advance_upload('access-2', 1, 1);
SELECT outcome FROM advance_uploads(ARRAY['access-2'], ARRAY[2], ARRAY[1]);
SELECT :session FROM declare_upload_size('access-2', 10);
SELECT metadata FROM merge_upload_data('access-2', '{"a": 1}');
SELECT :session FROM get_upload('access-1');
SELECT :session FROM get_uploads(ARRAY['access-2', 'access-1']);
SELECT :session FROM list_uploads(path_prefix => 'access/');
SELECT outcome FROM advance_upload('access-1', 0, 10);
SELECT :session FROM complete_upload('access-1');
SELECT :session FROM abort_upload('access-2');
SELECT delete_upload('access-1'), delete_upload('access-2');
-- Monitoring shows the ids and errors of all; it is not for clients.
SELECT sweeper_status();
SELECT count(*) FROM upload_stats;
-- Granted work, not the right to hand it on.
SELECT grant_upload_access(role => 'regress_vali_blob_other');
RESET ROLE;
-- Nobody else has gained anything.
SET ROLE regress_vali_blob_other;
SELECT list_uploads();
SELECT count(*) FROM upload_session;
RESET ROLE;

SELECT revoke_upload_access(role => 'regress vali "blob" client');
SET ROLE "regress vali ""blob"" client";
SELECT start_upload('access/three');
SELECT try_advance_upload('access-1', 0, 1);
SELECT get_upload('access-1');
SELECT count(*) FROM upload_session;
SELECT count(*) FROM upload_reclaim;
RESET ROLE;
-- Twice does no harm; nothing keeps the role from being dropped.
SELECT revoke_upload_access('regress vali "blob" client');
DROP ROLE "regress vali ""blob"" client";

-- Execute alone is not enough: the functions run with the caller's rights.
GRANT EXECUTE ON FUNCTION try_advance_upload, get_upload(text, text) TO regress_vali_blob_other;
SET ROLE regress_vali_blob_other;
SELECT try_advance_upload('access-1', 0, 1);
SELECT get_upload('access-1');
RESET ROLE;

-- Monitoring is for pg_monitor, and needs no privilege on the tables.
GRANT pg_monitor TO regress_vali_blob_other;
SET ROLE regress_vali_blob_other;
SELECT count(*) FROM sweeper_status();
SELECT status, sessions FROM upload_stats;
SELECT count(*) FROM upload_session;
SELECT get_upload('access-1');
RESET ROLE;

-- Several of these calls in one statement share its memory.
SELECT upper('before') AS before, grant_upload_access('regress_vali_blob_other'), upper('between') AS between,
       revoke_upload_access('regress_vali_blob_other'), upper('after') AS after;

-- Roles that do not exist, no role at all.
SELECT grant_upload_access('regress_vali_blob_nobody');
SELECT revoke_upload_access('regress_vali_blob_nobody');
SELECT grant_upload_access('');
SELECT grant_upload_access(NULL);
SELECT revoke_upload_access(NULL);
SELECT grant_upload_access('public');
SELECT grant_upload_access('current_user');
SELECT grant_upload_access('regress_vali_blob_other; DROP TABLE upload_session');
ROLLBACK;
