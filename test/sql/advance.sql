-- advance_upload and try_advance_upload: the table of outcomes line by line,
-- final and deferred lengths, replays, empty chunks, bounds of bigint, the
-- sliding deadline.
\set VERBOSITY sqlstate
\set ON_ERROR_ROLLBACK on
\pset null (null)
\set chunk 'outcome, uploaded_bytes, total_size, status, ready'
\set session 'uploaded_bytes, total_size, status, provider_data'
BEGIN;

-- A file of 100 bytes in three chunks.
SELECT upload_id, status FROM start_upload('advance/file', 100, upload_id => 'advance-file');
SELECT :chunk FROM advance_upload('advance-file', 0, 40);
SELECT :chunk FROM advance_upload('advance-file', 40, 40);
SELECT :chunk FROM advance_upload('advance-file', 80, 20);
SELECT :session FROM get_upload('advance-file');

-- Sent again: replayed, as often as one likes, in whole or in part; nothing changes.
SELECT ctid, updated_at, expires_at FROM upload_session WHERE upload_id = 'advance-file' \gset before_
SELECT :chunk FROM advance_upload('advance-file', 80, 20);
SELECT :chunk FROM advance_upload('advance-file', 0, 40);
SELECT :chunk FROM advance_upload('advance-file', 10, 1);
SELECT :chunk FROM advance_upload('advance-file', 0, 100, provider_data => '{"late": 1}');
SELECT :chunk FROM advance_upload('advance-file', 80, 20, final => true);
SELECT :session, ctid = :'before_ctid' AS same_version,
       updated_at = :'before_updated_at' AND expires_at = :'before_expires_at' AS same_times
  FROM upload_session WHERE upload_id = 'advance-file';

-- All bytes are there, and the session is still live: ready, whatever the outcome.
SELECT :chunk FROM try_advance_upload('advance-file', 100, 1);
SELECT :chunk FROM try_advance_upload('advance-file', 101, 1);
SELECT :chunk FROM try_advance_upload('advance-file', 50, 51);
SELECT :chunk FROM try_advance_upload('advance-file', 100, 0);

-- A gap and a partial overlap are conflicts, however large the chunk.
SELECT upload_id FROM start_upload('advance/conflict', 100, upload_id => 'advance-conflict');
SELECT :chunk FROM try_advance_upload('advance-conflict', 1, 10);
SELECT :chunk FROM try_advance_upload('advance-conflict', 0, 50);
SELECT :chunk FROM try_advance_upload('advance-conflict', 51, 10);
SELECT :chunk FROM try_advance_upload('advance-conflict', 49, 10);
SELECT :chunk FROM try_advance_upload('advance-conflict', 0, 51);
SELECT :chunk FROM try_advance_upload('advance-conflict', 51, 1000);
SELECT :chunk FROM try_advance_upload('advance-conflict', 60, 1, final => true);
SELECT advance_upload('advance-conflict', 51, 10);
SELECT advance_upload('advance-conflict', 49, 10);
SELECT :session FROM get_upload('advance-conflict');

-- Past the end of the declared size.
SELECT :chunk FROM try_advance_upload('advance-conflict', 50, 51);
SELECT :chunk FROM try_advance_upload('advance-conflict', 50, 51, final => true);
SELECT advance_upload('advance-conflict', 50, 51);
SELECT advance_upload('advance-conflict', 50, 51, final => true);
SELECT :session FROM get_upload('advance-conflict');

-- The last chunk that is not the last one.
SELECT :chunk FROM try_advance_upload('advance-conflict', 50, 49, final => true);
SELECT :chunk FROM try_advance_upload('advance-conflict', 50, 0, final => true);
SELECT advance_upload('advance-conflict', 50, 49, final => true);
SELECT :session FROM get_upload('advance-conflict');

-- final at the declared size completes in one step, and is replayable.
SELECT :chunk FROM advance_upload('advance-conflict', 50, 50, final => true);
SELECT :chunk FROM advance_upload('advance-conflict', 50, 50, final => true);
SELECT :chunk FROM advance_upload('advance-conflict', 0, 50);
SELECT :chunk FROM advance_upload('advance-conflict', 100, 0, final => true);
SELECT :chunk FROM advance_upload('advance-conflict', 0, 0);
-- On a complete session everything else has ended.
SELECT :chunk FROM try_advance_upload('advance-conflict', 100, 1);
SELECT :chunk FROM try_advance_upload('advance-conflict', 101, 0);
SELECT :chunk FROM try_advance_upload('advance-conflict', 99, 2);
SELECT advance_upload('advance-conflict', 100, 1);
SELECT result, :session FROM get_upload('advance-conflict');

-- A deferred length: no chunk is too large, final sets the size.
SELECT upload_id FROM start_upload('advance/deferred', upload_id => 'advance-deferred');
SELECT :chunk FROM advance_upload('advance-deferred', 0, 1000000);
SELECT :chunk FROM advance_upload('advance-deferred', 1000000, 5, final => true);
SELECT :chunk FROM advance_upload('advance-deferred', 1000000, 5, final => true);
SELECT :session FROM get_upload('advance-deferred');
-- final with no bytes ends it at the bytes that are there.
SELECT upload_id FROM start_upload('advance/deferred', upload_id => 'advance-deferred-empty');
SELECT :chunk FROM advance_upload('advance-deferred-empty', 0, 7);
SELECT :chunk FROM advance_upload('advance-deferred-empty', 7, 0, final => true);
-- A file of unknown size that turns out to be empty.
SELECT upload_id FROM start_upload('advance/deferred', upload_id => 'advance-deferred-nothing');
SELECT :chunk FROM advance_upload('advance-deferred-nothing', 0, 0, final => true);

-- A size of zero is a size: ready at once, no chunk fits, an empty final one completes.
SELECT upload_id FROM start_upload('advance/zero', 0, upload_id => 'advance-zero');
SELECT :chunk FROM try_advance_upload('advance-zero', 0, 1);
SELECT :chunk FROM try_advance_upload('advance-zero', 0, 0);
SELECT :chunk FROM try_advance_upload('advance-zero', 0, 0, final => true);
SELECT :chunk FROM try_advance_upload('advance-zero', 0, 0, final => true);

-- An empty chunk advances by nothing at the current offset, and is a conflict elsewhere.
SELECT upload_id, status FROM start_upload('advance/empty', 10, upload_id => 'advance-empty');
SELECT :chunk FROM try_advance_upload('advance-empty', 0, 0);
SELECT :chunk FROM try_advance_upload('advance-empty', 0, 5);
SELECT :chunk FROM try_advance_upload('advance-empty', 4, 0);
SELECT :chunk FROM try_advance_upload('advance-empty', 5, 0);
SELECT :chunk FROM try_advance_upload('advance-empty', 6, 0);

-- Ended sessions: aborted, expired, past the deadline but not swept yet.
SELECT upload_id FROM start_upload('advance/aborted', 10, upload_id => 'advance-aborted');
SELECT :chunk FROM advance_upload('advance-aborted', 0, 4);
SELECT status FROM abort_upload('advance-aborted');
SELECT :chunk FROM try_advance_upload('advance-aborted', 4, 1);
SELECT :chunk FROM try_advance_upload('advance-aborted', 0, 4);
SELECT :chunk FROM try_advance_upload('advance-aborted', 9, 0);
SELECT advance_upload('advance-aborted', 0, 4);
SELECT upload_id FROM start_upload('advance/expired', 10, upload_id => 'advance-expired');
SELECT :chunk FROM advance_upload('advance-expired', 0, 4);
UPDATE upload_session SET expires_at = now() - interval '1 second' WHERE upload_id = 'advance-expired';
SELECT :chunk FROM try_advance_upload('advance-expired', 4, 1);
SELECT :chunk FROM try_advance_upload('advance-expired', 0, 4);
SELECT :chunk FROM try_advance_upload('advance-expired', 9, 0);
SELECT advance_upload('advance-expired', 4, 1);
SELECT advance_upload('advance-expired', 0, 4);
SELECT status FROM upload_session WHERE upload_id = 'advance-expired';
SELECT expired FROM sweep_uploads();
SELECT :chunk FROM try_advance_upload('advance-expired', 0, 4);
SELECT advance_upload('advance-expired', 4, 1);
-- A full session that was never completed expires as well.
SELECT upload_id FROM start_upload('advance/expired', 10, upload_id => 'advance-full');
SELECT :chunk FROM advance_upload('advance-full', 0, 10);
UPDATE upload_session SET expires_at = now() - interval '1 second' WHERE upload_id = 'advance-full';
SELECT :chunk FROM try_advance_upload('advance-full', 0, 10);
-- A complete one past its retention, not purged yet, still answers a replay.
UPDATE upload_session SET expires_at = now() - interval '1 second' WHERE upload_id = 'advance-zero';
SELECT :chunk FROM try_advance_upload('advance-zero', 0, 0);

-- Unknown, or another owner's: every field is null but the outcome and ready.
SELECT upload_id FROM start_upload('advance/owner', 10, owner => 'alice', upload_id => 'advance-owner');
SELECT :chunk, expires_at FROM try_advance_upload('advance-unknown', 0, 1);
SELECT :chunk, expires_at FROM try_advance_upload('advance-owner', 0, 1, owner => 'bob');
SELECT :chunk, expires_at FROM try_advance_upload('', 0, 1);
SELECT :chunk, expires_at FROM try_advance_upload(repeat('x', 129), 0, 1);
SELECT advance_upload('advance-unknown', 0, 1);
SELECT advance_upload('advance-owner', 0, 1, owner => 'bob');
SELECT :chunk FROM try_advance_upload('advance-owner', 0, 1, owner => 'alice');
SELECT :chunk FROM try_advance_upload('advance-owner', 1, 1);

-- All arguments by position, and by name; nowait changes nothing where nobody holds the lock.
SELECT upload_id FROM start_upload('advance/named', 10, owner => 'alice', upload_id => 'advance-named');
SELECT :chunk FROM advance_upload('advance-named', 0, 4, false, '{"etag-1": "a"}', 'alice', true);
SELECT :chunk FROM advance_upload(nowait => true, owner => 'alice', provider_data => '{"etag-2": "b"}',
                                  final => false, chunk_length => 4, chunk_offset => 4,
                                  upload_id => 'advance-named');
SELECT :chunk FROM try_advance_upload('advance-named', 8, 1, false, '{"etag-1": null, "etag-3": "c"}', 'alice', true);
SELECT :chunk FROM try_advance_upload(nowait => false, owner => 'alice', provider_data => '{"done": {"ok": true}}',
                                      final => true, chunk_length => 1, chunk_offset => 9,
                                      upload_id => 'advance-named');
SELECT :session FROM get_upload('advance-named');

-- provider_data of a refused chunk is not kept; what is no object is refused.
SELECT upload_id FROM start_upload('advance/json', 10, provider_data => '{"id": 1}', upload_id => 'advance-json');
SELECT :chunk FROM try_advance_upload('advance-json', 5, 1, provider_data => '{"id": 2}');
SELECT try_advance_upload('advance-json', 0, 1, provider_data => '[]');
SELECT try_advance_upload('advance-json', 0, 1, provider_data => 'null');
SELECT advance_upload('advance-json', 0, 1, provider_data => '1');
SELECT :session FROM get_upload('advance-json');

-- Nulls and negative numbers raise, also from try_advance_upload.
SELECT try_advance_upload(NULL, 0, 1);
SELECT try_advance_upload('advance-json', NULL, 1);
SELECT try_advance_upload('advance-json', 0, NULL);
SELECT try_advance_upload('advance-json', -1, 1);
SELECT try_advance_upload('advance-json', 0, -1);
SELECT try_advance_upload('advance-json', '-9223372036854775808', '-9223372036854775808');
SELECT advance_upload(NULL, 0, 1);
SELECT advance_upload('advance-json', NULL, 1);
SELECT advance_upload('advance-json', 0, NULL);
SELECT advance_upload('advance-json', -1, 1);
SELECT advance_upload('advance-json', 1, -1);
SELECT :session FROM get_upload('advance-json');

-- The largest file that a bigint can count; a byte more is out of range.
SELECT upload_id FROM start_upload('advance/largest', 9223372036854775807, upload_id => 'advance-largest');
SELECT :chunk FROM advance_upload('advance-largest', 0, 9223372036854775806);
SELECT try_advance_upload('advance-largest', 9223372036854775806, 2);
SELECT advance_upload('advance-largest', 9223372036854775806, 2);
SELECT try_advance_upload('advance-largest', 9223372036854775807, 9223372036854775807);
SELECT :chunk FROM try_advance_upload('advance-largest', 9223372036854775807, 0);
SELECT :chunk FROM advance_upload('advance-largest', 9223372036854775806, 1);
SELECT :chunk FROM advance_upload('advance-largest', 9223372036854775807, 0, final => true);
SELECT upload_id FROM start_upload('advance/largest', upload_id => 'advance-largest-deferred');
SELECT :chunk FROM advance_upload('advance-largest-deferred', 0, 9223372036854775807);
SELECT advance_upload('advance-largest-deferred', 9223372036854775807, 1);
SELECT :chunk FROM advance_upload('advance-largest-deferred', 9223372036854775807, 0, final => true);
SELECT advance_upload('advance-largest', '9223372036854775808', 1);

-- The deadline moves only once now + ttl has overtaken it.
SELECT upload_id FROM start_upload('advance/deadline', 100, ttl => '16 hours', upload_id => 'advance-deadline');
UPDATE upload_session SET expires_at = now() + interval '16 hours 1 minute' WHERE upload_id = 'advance-deadline';
SELECT outcome, expires_at = now() + interval '16 hours 1 minute' AS deadline_kept
  FROM advance_upload('advance-deadline', 0, 10);
UPDATE upload_session SET expires_at = now() + interval '15 hours 59 minutes' WHERE upload_id = 'advance-deadline';
SELECT outcome,
       expires_at BETWEEN now() + interval '17 hours'
                      AND clock_timestamp() + interval '17 hours' AS deadline_moved
  FROM advance_upload('advance-deadline', 10, 10);
-- An empty chunk slides it, too: that is how a client keeps its session alive.
UPDATE upload_session SET expires_at = now() + interval '1 minute' WHERE upload_id = 'advance-deadline';
SELECT outcome, expires_at > now() + interval '16 hours' AS deadline_moved
  FROM advance_upload('advance-deadline', 20, 0);
-- A replay does not.
UPDATE upload_session SET expires_at = now() + interval '1 minute' WHERE upload_id = 'advance-deadline';
SELECT outcome, expires_at = now() + interval '1 minute' AS deadline_kept
  FROM advance_upload('advance-deadline', 0, 20);
-- The result's deadline is the row's, and updated_at is the wall clock.
SELECT expires_at FROM advance_upload('advance-deadline', 20, 1) \gset result_
SELECT expires_at = :'result_expires_at' AS same_deadline,
       updated_at > now() AND updated_at < clock_timestamp() AS wall_clock
  FROM get_upload('advance-deadline');
-- A session that never expires goes on so.
SELECT upload_id FROM start_upload('advance/for-ever', 100, ttl => '0', upload_id => 'advance-for-ever');
SELECT outcome, expires_at FROM advance_upload('advance-for-ever', 0, 10);
-- Once complete, the row is kept for vali_blob.retention, a day.
SELECT outcome, status,
       expires_at BETWEEN now() + interval '48 hours'
                      AND clock_timestamp() + interval '48 hours' AS kept_two_days
  FROM advance_upload('advance-for-ever', 10, 90, final => true);

-- Several chunks in one statement, each judged on what the one before it left.
SELECT upload_id FROM start_upload('advance/statement', 100, upload_id => 'advance-statement');
SELECT o AS chunk_offset, :chunk
  FROM unnest(ARRAY[0, 10, 20, 10, 40, 30]) AS o, LATERAL try_advance_upload('advance-statement', o, 10);

-- One row version for each chunk that advances, none for the others; after the
-- first, which changes the status, all of them HOT.
SELECT upload_id FROM start_upload('advance/hot', 100, upload_id => 'advance-hot');
SELECT :chunk FROM advance_upload('advance-hot', 0, 10);
SELECT pg_stat_get_xact_tuples_updated('upload_session'::regclass) AS updated,
       pg_stat_get_xact_tuples_hot_updated('upload_session'::regclass) AS hot \gset before_
SELECT o AS chunk_offset, outcome
  FROM unnest(ARRAY[10, 20, 10, 30, 99, 40]) AS o, LATERAL
       try_advance_upload('advance-hot', o, 10, provider_data => jsonb_build_object('part', o));
SELECT pg_stat_get_xact_tuples_updated('upload_session'::regclass) - :before_updated AS updated,
       pg_stat_get_xact_tuples_hot_updated('upload_session'::regclass) - :before_hot AS hot;
ROLLBACK;
