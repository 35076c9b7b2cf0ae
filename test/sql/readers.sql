-- get_upload, get_uploads and list_uploads: what they find, in which order and
-- pages; a live session past its deadline is shown as expired; nothing is written.
\set VERBOSITY sqlstate
\set ON_ERROR_ROLLBACK on
\pset null (null)
\set session 'upload_id, owner, status, uploaded_bytes, total_size'
BEGIN;

SELECT :session FROM start_upload('readers/a/one', 10, owner => 'alice', upload_id => 'readers-1');
SELECT :session FROM start_upload('readers/a/two', owner => 'alice', upload_id => 'readers-2');
SELECT :session FROM start_upload('readers/b/one', 10, owner => 'bob', upload_id => 'readers-3');
SELECT :session FROM start_upload('readers/b/two', 10, upload_id => 'readers-4');
SELECT :session FROM start_upload('readers/b/three', 10, owner => 'bob', upload_id => 'readers-5');
SELECT outcome FROM advance_upload('readers-1', 0, 4);
SELECT outcome FROM advance_upload('readers-3', 0, 10, final => true);
SELECT status FROM abort_upload('readers-4', 'no longer wanted');

--
-- get_upload
--
SELECT :session FROM get_upload('readers-1');
SELECT :session FROM get_upload('readers-1', 'alice');
SELECT :session FROM get_upload(owner => 'alice', upload_id => 'readers-1');
SELECT :session FROM get_upload('readers-1', 'bob');
SELECT :session FROM get_upload('readers-4', 'bob');
SELECT :session, abort_reason FROM get_upload('readers-4', NULL);
SELECT :session FROM get_upload('readers-unknown');
SELECT :session FROM get_upload('');
SELECT :session FROM get_upload(repeat('x', 129));
SELECT :session FROM get_upload(NULL);
-- The whole row as it is stored.
SELECT g = s AS same FROM upload_session s, LATERAL get_upload(s.upload_id) g WHERE s.upload_id = 'readers-1';

--
-- get_uploads: in argument order, as often as asked for, unknown and null ids left out
--
SELECT :session FROM get_uploads(ARRAY['readers-3', 'readers-1', 'readers-2']);
SELECT :session FROM get_uploads(ARRAY['readers-2', 'readers-unknown', 'readers-1', NULL, 'readers-2', '']);
SELECT :session FROM get_uploads(ARRAY['readers-3', 'readers-2', 'readers-4', 'readers-1'], 'alice');
SELECT :session FROM get_uploads(owner => 'bob', upload_ids => ARRAY['readers-5', 'readers-3']);
SELECT :session FROM get_uploads('{}');
SELECT :session FROM get_uploads(ARRAY[NULL]::text[]);

--
-- list_uploads: newest first
--
SELECT :session FROM list_uploads(path_prefix => 'readers/');
SELECT :session FROM list_uploads('alice');
SELECT :session FROM list_uploads(owner => 'nobody');
SELECT :session FROM list_uploads('bob', 'readers/b/t', 'pending', NULL, 5, NULL);
SELECT :session FROM list_uploads(after_id => NULL, max_rows => 5, idle_for => NULL, status => 'pending',
                                  path_prefix => 'readers/b/t', owner => 'bob');
-- Without arguments: everything, at most a hundred.
SELECT count(start_upload('readers/many', upload_id => 'readers-many-' || i)) FROM generate_series(1, 101) AS i;
SELECT count(*) FROM list_uploads();
SELECT count(*), bool_or(upload_id = 'readers-many-101') AS newest, bool_or(upload_id = 'readers-many-1') AS oldest
  FROM list_uploads(path_prefix => 'readers/many');
SELECT count(*) FROM list_uploads(path_prefix => 'readers/many', max_rows => 1000);
SELECT count(delete_upload('readers-many-' || i)) FROM generate_series(1, 101) AS i;

-- Filters: a prefix is a prefix, not a pattern.
SELECT :session FROM list_uploads(path_prefix => 'readers/a/one');
SELECT :session FROM list_uploads(path_prefix => 'eaders/a');
SELECT :session FROM list_uploads(path_prefix => 'READERS/A');
SELECT count(*) >= 5 AS everything FROM list_uploads(path_prefix => '');
SELECT upload_id FROM start_upload('readers%x', upload_id => 'readers-percent');
SELECT upload_id FROM start_upload('readers_x', upload_id => 'readers-underscore');
SELECT upload_id FROM start_upload('readers\x', upload_id => 'readers-backslash');
SELECT upload_id FROM start_upload('readers\\%_', upload_id => 'readers-all');
SELECT upload_id FROM start_upload('readersé', upload_id => 'readers-multibyte');
SELECT upload_id, path FROM list_uploads(path_prefix => 'readers%');
SELECT upload_id, path FROM list_uploads(path_prefix => 'readers_');
SELECT upload_id, path FROM list_uploads(path_prefix => 'readers\');
SELECT upload_id, path FROM list_uploads(path_prefix => 'readers\x');
SELECT upload_id, path FROM list_uploads(path_prefix => 'readers\\%');
SELECT upload_id, path FROM list_uploads(path_prefix => 'readers\\%_');
SELECT upload_id, path FROM list_uploads(path_prefix => 'readersé');
SELECT upload_id, path FROM list_uploads(path_prefix => '%');
SELECT upload_id, path FROM list_uploads(path_prefix => '_');

-- Every status, one at a time.
SELECT s AS asked, :session
  FROM unnest(enum_range(NULL::upload_status)) AS s, LATERAL
       list_uploads(status => s, path_prefix => 'readers/') ORDER BY s, upload_id;
SELECT list_uploads(status => 'finished');

-- Idle: no chunk and no change for that long.
UPDATE upload_session SET updated_at = now() - interval '2 hours' WHERE upload_id IN ('readers-1', 'readers-2');
UPDATE upload_session SET updated_at = now() - interval '30 minutes' WHERE upload_id = 'readers-5';
SELECT :session FROM list_uploads(idle_for => '1 hour', path_prefix => 'readers/');
SELECT :session FROM list_uploads(idle_for => '10 minutes', path_prefix => 'readers/');
SELECT :session FROM list_uploads(idle_for => '3 hours', path_prefix => 'readers/');
SELECT outcome FROM advance_upload('readers-2', 0, 1);
SELECT :session FROM list_uploads(idle_for => '1 hour', owner => 'alice');

-- Pages: the next one starts after the last id seen.
SELECT upload_id FROM list_uploads(path_prefix => 'readers/', max_rows => 2);
SELECT min(id) AS last FROM list_uploads(path_prefix => 'readers/', max_rows => 2) \gset
SELECT upload_id FROM list_uploads(path_prefix => 'readers/', max_rows => 2, after_id => :last);
SELECT min(id) AS last FROM list_uploads(path_prefix => 'readers/', max_rows => 2, after_id => :last) \gset
SELECT upload_id FROM list_uploads(path_prefix => 'readers/', max_rows => 2, after_id => :last);
SELECT min(id) AS last FROM list_uploads(path_prefix => 'readers/', max_rows => 2, after_id => :last) \gset
SELECT upload_id FROM list_uploads(path_prefix => 'readers/', max_rows => 2, after_id => :last);
-- Sessions that come while one pages do not shift the pages.
SELECT min(id) AS last FROM list_uploads(path_prefix => 'readers/', max_rows => 2) \gset
SELECT upload_id FROM start_upload('readers/new', upload_id => 'readers-new');
SELECT upload_id FROM list_uploads(path_prefix => 'readers/', max_rows => 2, after_id => :last);
SELECT upload_id FROM list_uploads(path_prefix => 'readers/', after_id => 0);
SELECT upload_id FROM list_uploads(path_prefix => 'readers/', max_rows => 1, after_id => 9223372036854775807);
SELECT list_uploads(max_rows => 0);
SELECT list_uploads(max_rows => -1);

--
-- Past the deadline: all three show expired, the row itself waits for the sweep
--
UPDATE upload_session SET expires_at = now() - interval '1 second' WHERE upload_id IN ('readers-1', 'readers-3', 'readers-4');
SELECT :session FROM get_upload('readers-1');
SELECT :session FROM get_uploads(ARRAY['readers-1', 'readers-2', 'readers-3', 'readers-4']);
SELECT :session FROM list_uploads(path_prefix => 'readers/a/');
SELECT :session FROM list_uploads(path_prefix => 'readers/a/', status => 'expired');
SELECT :session FROM list_uploads(path_prefix => 'readers/a/', status => 'in_progress');
SELECT upload_id, status FROM upload_session WHERE upload_id IN ('readers-1', 'readers-3', 'readers-4') ORDER BY id;
SELECT expired, purged FROM sweep_uploads();
SELECT :session FROM get_uploads(ARRAY['readers-1', 'readers-2', 'readers-3', 'readers-4']);

--
-- Readers read: also where nothing may be written
--
SAVEPOINT read_only;
SET TRANSACTION READ ONLY;
SELECT :session FROM get_upload('readers-2');
SELECT :session FROM get_uploads(ARRAY['readers-2']);
SELECT :session FROM list_uploads('alice', max_rows => 1);
ROLLBACK TO read_only;
-- They see what their statement sees, not what it writes.
SELECT r.uploaded_bytes AS written, g.uploaded_bytes AS seen
  FROM advance_upload('readers-5', 0, 3) r, LATERAL get_upload('readers-5') g;
SELECT uploaded_bytes FROM get_upload('readers-5');
-- Paged with a cursor.
DECLARE pages CURSOR FOR SELECT upload_id FROM list_uploads(path_prefix => 'readers/');
FETCH 2 FROM pages;
FETCH 2 FROM pages;
CLOSE pages;
ROLLBACK;
