-- advance_uploads: many uploads in one call, results in argument order, each
-- judged as by try_advance_upload; arrays that cannot be paired are refused.
\set VERBOSITY sqlstate
\set ON_ERROR_ROLLBACK on
\pset null (null)
\set chunk 'outcome, uploaded_bytes, total_size, status, ready'
BEGIN;

SELECT upload_id, total_size, status
  FROM unnest(ARRAY['a', 'b', 'c', 'd']) AS name, LATERAL
       start_upload('many/' || name, 100, upload_id => 'many-' || name);

-- One result for each argument, in the order of the arguments, not of the ids.
SELECT ordinality AS n, :chunk
  FROM advance_uploads(ARRAY['many-c', 'many-a', 'many-b'], ARRAY[0, 0, 0], ARRAY[30, 10, 20]) WITH ORDINALITY;
SELECT ordinality AS n, :chunk
  FROM advance_uploads(chunk_lengths => ARRAY[2, 3, 1], chunk_offsets => ARRAY[20, 30, 10],
                       upload_ids => ARRAY['many-b', 'many-c', 'many-a']) WITH ORDINALITY;
SELECT upload_id, uploaded_bytes, status
  FROM upload_session WHERE upload_id LIKE 'many-%' ORDER BY upload_id;

-- One outcome does not touch the others: every kind in one call.
SELECT status FROM abort_upload('many-d');
SELECT status FROM start_upload('many/e', 5, upload_id => 'many-e');
SELECT outcome, status FROM advance_upload('many-e', 0, 5, final => true);
SELECT status FROM start_upload('many/f', 5, upload_id => 'many-f');
UPDATE upload_session SET expires_at = now() - interval '1 second' WHERE upload_id = 'many-f';
SELECT status FROM start_upload('many/g', upload_id => 'many-g');
SELECT ordinality AS n, :chunk, expires_at IS NULL AS no_deadline
  FROM advance_uploads(ARRAY['many-a', 'many-a', 'many-b', 'many-c', 'many-d', 'many-e', 'many-e', 'many-f', 'many-g', 'many-z'],
                       ARRAY[      11,        0,       99,       33,        0,        0,        5,        0,        0,        0],
                       ARRAY[      89,        1,        1,       68,        1,        5,        1,        1,        0,        1])
       WITH ORDINALITY;

-- The same upload several times: one after the other, in argument order.
SELECT status FROM start_upload('many/h', 40, upload_id => 'many-h');
SELECT ordinality AS n, :chunk
  FROM advance_uploads(ARRAY['many-h', 'many-b', 'many-h', 'many-h', 'many-h'],
                       ARRAY[0, 22, 10, 0, 30], ARRAY[10, 1, 20, 10, 10]) WITH ORDINALITY;
SELECT upload_id, uploaded_bytes FROM get_uploads(ARRAY['many-h', 'many-b']);

-- More uploads than anybody counts by hand: the order is kept.
SELECT count(start_upload('many/more', 10, upload_id => 'many-more-' || i)) FROM generate_series(1, 500) AS i;
SELECT count(*) AS results,
       bool_and(r.uploaded_bytes = CASE WHEN length > 10 THEN 0 ELSE length END) AS in_order,
       count(*) FILTER (WHERE r.outcome = 'advanced') AS advanced,
       count(*) FILTER (WHERE r.outcome = 'too_large') AS too_large
  FROM (SELECT array_agg('many-more-' || i ORDER BY i DESC) AS ids,
               array_agg(0::bigint) AS offsets,
               array_agg(i % 12 ORDER BY i DESC) AS lengths
          FROM generate_series(1::bigint, 500) AS i) a, LATERAL
       advance_uploads(ids, offsets, lengths) WITH ORDINALITY r, LATERAL
       (SELECT lengths[r.ordinality]) l (length);
SELECT sum(uploaded_bytes) FROM upload_session WHERE upload_id LIKE 'many-more-%';

-- Nothing asked, nothing answered.
SELECT :chunk FROM advance_uploads('{}', '{}', '{}');

-- Arrays that do not match.
SELECT advance_uploads(ARRAY['many-a'], '{}', '{}');
SELECT advance_uploads(ARRAY['many-a'], ARRAY[11], '{}');
SELECT advance_uploads(ARRAY['many-a'], ARRAY[11], ARRAY[1, 1]);
SELECT advance_uploads(ARRAY['many-a', 'many-b'], ARRAY[11], ARRAY[1, 1]);
-- Null arrays and null elements.
SELECT advance_uploads(NULL, ARRAY[11], ARRAY[1]);
SELECT advance_uploads(ARRAY['many-a'], NULL, ARRAY[1]);
SELECT advance_uploads(ARRAY['many-a'], ARRAY[11], NULL);
SELECT advance_uploads(ARRAY['many-a', NULL], ARRAY[11, 0], ARRAY[1, 1]);
SELECT advance_uploads(ARRAY['many-a', 'many-b'], ARRAY[11, NULL], ARRAY[1, 1]);
SELECT advance_uploads(ARRAY['many-a', 'many-b'], ARRAY[11, 23], ARRAY[1, NULL]);
-- Negative numbers, and sums beyond bigint, in any place.
SELECT advance_uploads(ARRAY['many-a', 'many-b'], ARRAY[11, -1], ARRAY[1, 1]);
SELECT advance_uploads(ARRAY['many-a', 'many-b'], ARRAY[11, 23], ARRAY[1, -1]);
SELECT advance_uploads(ARRAY['many-a', 'many-b'], ARRAY[11, 9223372036854775807], ARRAY[1, 1]);
-- A call that raised has moved no upload, not even one that stood before the fault.
SELECT upload_id, uploaded_bytes FROM get_uploads(ARRAY['many-a', 'many-b']);

-- Sliding deadlines and row versions are as with single calls.
SELECT status FROM start_upload('many/i', 100, ttl => '16 hours', upload_id => 'many-i');
UPDATE upload_session SET expires_at = now() + interval '1 minute' WHERE upload_id = 'many-i';
SELECT pg_stat_get_xact_tuples_updated('upload_session'::regclass) AS updated \gset before_
SELECT outcome, expires_at > now() + interval '16 hours' AS deadline_moved
  FROM advance_uploads(ARRAY['many-i', 'many-i', 'many-i'], ARRAY[0, 0, 50], ARRAY[10, 10, 10]);
SELECT pg_stat_get_xact_tuples_updated('upload_session'::regclass) - :before_updated AS updated;
ROLLBACK;
