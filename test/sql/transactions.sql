-- Sessions and transactions: what is rolled back has not happened, read-only
-- transactions are refused, every call sees what the ones before it did.
\set VERBOSITY sqlstate
\pset null (null)
\set session 'upload_id, status, uploaded_bytes, total_size'

-- Outside a transaction every call is one of its own.
SELECT :session FROM start_upload('transactions/one', 100, provider_data => '{"multipart": "m"}', upload_id => 'transactions-1');
SELECT :session FROM start_upload('transactions/two', upload_id => 'transactions-2');
SELECT outcome FROM advance_upload('transactions-1', 0, 10);
SELECT advance_upload('transactions-1', 11, 10);
SELECT outcome FROM advance_upload('transactions-1', 10, 10);

-- Rolled back: the chunk was never confirmed, and can be sent again.
BEGIN;
SELECT outcome, uploaded_bytes FROM advance_upload('transactions-1', 20, 30);
SELECT outcome, uploaded_bytes FROM advance_upload('transactions-1', 50, 50);
SELECT :session FROM get_upload('transactions-1');
ROLLBACK;
SELECT :session FROM get_upload('transactions-1');
SELECT outcome, uploaded_bytes FROM advance_upload('transactions-1', 20, 30);

-- An error ends the transaction, and takes the chunks before it along ...
BEGIN;
SELECT outcome, uploaded_bytes FROM advance_upload('transactions-1', 50, 10);
SELECT advance_upload('transactions-1', 50, 20);
SELECT advance_upload('transactions-1', 60, 10);
COMMIT;
SELECT :session FROM get_upload('transactions-1');
-- ... unless it happened inside a savepoint, which leaves nothing behind.
BEGIN;
SELECT outcome, uploaded_bytes FROM advance_upload('transactions-1', 50, 10);
SAVEPOINT a;
SELECT outcome, uploaded_bytes FROM advance_upload('transactions-1', 60, 10);
SELECT status FROM abort_upload('transactions-1', 'in the savepoint');
SELECT advance_upload('transactions-1', 70, 10);
ROLLBACK TO a;
SELECT :session, abort_reason FROM get_upload('transactions-1');
SELECT count(*) FROM upload_reclaim WHERE upload_id = 'transactions-1';
SELECT outcome, uploaded_bytes FROM advance_upload('transactions-1', 60, 5);
RELEASE a;
COMMIT;
SELECT :session FROM get_upload('transactions-1');
-- The same from a procedural language.
DO $$
BEGIN
	PERFORM advance_upload('transactions-1', 65, 5);
	BEGIN
		PERFORM advance_upload('transactions-1', 70, 5);
		PERFORM declare_upload_size('transactions-2', 5);
		PERFORM advance_upload('transactions-1', 0, 99);
	EXCEPTION WHEN SQLSTATE 'VB002' THEN
		NULL;
	END;
END $$;
SELECT :session FROM get_uploads(ARRAY['transactions-1', 'transactions-2']);

-- Abort, expiry and delete enter the queue with their transaction or not at all.
BEGIN;
SELECT delete_upload('transactions-1');
SELECT count(*) FROM upload_reclaim WHERE upload_id = 'transactions-1';
ROLLBACK;
SELECT count(*) FROM upload_reclaim WHERE upload_id = 'transactions-1';
SELECT :session FROM get_upload('transactions-1');

-- One transaction may start, fill and complete a session.
BEGIN;
SELECT :session FROM start_upload('transactions/three', 10, upload_id => 'transactions-3');
SELECT outcome FROM advance_upload('transactions-3', 0, 10);
SELECT :session FROM complete_upload('transactions-3', '{"etag": "e"}');
SELECT delete_upload('transactions-3');
SELECT :session FROM start_upload('transactions/three', 20, upload_id => 'transactions-3');
SELECT outcome FROM try_advance_upload('transactions-3', 10, 10);
COMMIT;
SELECT :session FROM get_upload('transactions-3');

-- Many chunks in one statement.
SELECT count(*), min(outcome), max(r.uploaded_bytes)
  FROM generate_series(0, 1999) AS n, LATERAL try_advance_upload('transactions-2', n * 10, 10) AS r;

-- Repeatable read and serializable, with nobody else there.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT outcome FROM advance_upload('transactions-3', 0, 5);
SELECT outcome FROM advance_upload('transactions-3', 5, 5);
SELECT :session FROM get_upload('transactions-3');
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT outcome FROM advance_upload('transactions-3', 10, 5);
SELECT :session FROM get_upload('transactions-3');
COMMIT;

-- Prepared statements go on working when plans turn generic, and parameters are null.
PREPARE chunk (text, bigint, bigint) AS SELECT outcome FROM try_advance_upload($1, $2, $3);
EXECUTE chunk('transactions-3', 15, 1);
EXECUTE chunk('transactions-3', 15, 1);
EXECUTE chunk('transactions-3', 17, 1);
EXECUTE chunk('transactions-unknown', 0, 1);
EXECUTE chunk('transactions-3', NULL, 1);
EXECUTE chunk('transactions-3', 16, 5);
EXECUTE chunk('transactions-3', 16, 1);
EXECUTE chunk('transactions-3', 17, 1);
DEALLOCATE chunk;

-- A read-only transaction refuses every writer, whether it would have written or not.
BEGIN READ ONLY;
\set ON_ERROR_ROLLBACK on
SELECT start_upload('transactions/read-only');
SELECT advance_upload('transactions-3', 18, 1);
SELECT advance_upload('transactions-3', 0, 1);
SELECT try_advance_upload('transactions-3', 18, 1);
SELECT try_advance_upload('transactions-3', 0, 1);
SELECT try_advance_upload('transactions-unknown', 0, 1);
SELECT advance_uploads(ARRAY['transactions-3'], ARRAY[18], ARRAY[1]);
SELECT declare_upload_size('transactions-3', 20);
SELECT merge_upload_data('transactions-3', '{"a": 1}');
SELECT complete_upload('transactions-3');
SELECT abort_upload('transactions-3');
SELECT delete_upload('transactions-3');
SELECT delete_upload('transactions-unknown');
SELECT sweep_uploads();
SELECT claim_reclaims();
SELECT finish_reclaim(-1);
SELECT fail_reclaim(-1, 'read only');
SELECT grant_upload_access(current_user);
SELECT revoke_upload_access(current_user);
SELECT :session FROM get_upload('transactions-3');
SELECT :session FROM get_uploads(ARRAY['transactions-3']);
SELECT :session FROM list_uploads(path_prefix => 'transactions/three');
\set ON_ERROR_ROLLBACK off
COMMIT;

SELECT delete_upload('transactions-' || n) FROM generate_series(1, 3) AS n;
DELETE FROM upload_reclaim WHERE upload_id LIKE 'transactions-%' RETURNING upload_id, reason;
