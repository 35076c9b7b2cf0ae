-- Values are values: ids, paths and owners with quotes, backslashes, pattern
-- characters, control and multibyte characters come back as they went in, and
-- find their own session and no other.
\set VERBOSITY sqlstate
\set ON_ERROR_ROLLBACK on
\pset null (null)
\pset format unaligned
\pset footer off
BEGIN;

-- Awkward ids, all of them different.
CREATE TEMPORARY TABLE awkward (n int, word text COLLATE "C") ON COMMIT DROP;
INSERT INTO awkward VALUES
	(1, $$it's$$), (2, $$it''s$$), (3, '"double"'), (4, 'back\slash'), (5, 'back\\slash'),
	(6, 'dollar $1 $$'), (7, 'semi; DROP TABLE upload_session; --'), (8, 'per%cent'), (9, 'under_score'),
	(10, E'tab\tnewline\nreturn\r'), (11, ' leading'), (12, 'trailing '), (13, 'NULL'), (14, '{"a": 1}'),
	(15, '(1,2)'), (16, '{a,b}'), (17, 'größe'), (18, U&'gro\0308\00DFe'), (19, 'фильм'), (20, '動画'),
	(21, U&'\+01F600'), (22, U&'zero\200Bwidth'), (23, repeat('x', 128)), (24, repeat('動', 128)),
	(25, repeat(U&'\+01F600', 128)), (26, ' '), (27, 'per%%cent'), (28, '%s%n');
SELECT count(*), count(DISTINCT word), max(length(word)) AS longest, max(octet_length(word)) AS longest_in_bytes FROM awkward;

-- As id, path, owner, bucket, type, JSON key and value, reason.
SELECT n FROM awkward, LATERAL
       start_upload('quoting/' || word, n, content_type => word, metadata => jsonb_build_object(word, word),
                    provider_data => jsonb_build_object(word, word), owner => word, bucket => word, upload_id => word) s
 WHERE (s.upload_id, s.path, s.owner, s.bucket, s.content_type, s.total_size, s.metadata, s.provider_data)
       IS DISTINCT FROM
       (word, 'quoting/' || word, word, word, word, n::bigint, jsonb_build_object(word, word), jsonb_build_object(word, word));
SELECT count(*) FROM upload_session WHERE path LIKE 'quoting/%';
-- Each finds its own.
SELECT n FROM awkward WHERE NOT EXISTS (SELECT FROM get_upload(word, word) s WHERE s.upload_id = word AND s.total_size = n);
SELECT n FROM awkward WHERE (SELECT count(*) FROM list_uploads(word)) <> 1;
SELECT n FROM awkward WHERE NOT EXISTS (SELECT FROM list_uploads(word, 'quoting/' || word, 'pending') s WHERE s.upload_id = word);
SELECT bool_and(s.total_size = n) AS in_order, count(*)
  FROM (SELECT array_agg(word ORDER BY n DESC) AS ids FROM awkward) a, LATERAL
       get_uploads(ids) WITH ORDINALITY s, LATERAL
       (SELECT 29 - s.ordinality) o (n);
-- Changes reach one session each.
SELECT n, outcome FROM awkward, LATERAL advance_upload(word, 0, 1, owner => word, provider_data => jsonb_build_object(word, n))
 WHERE outcome <> 'advanced';
SELECT bool_and(outcome = 'replayed') AS replayed, bool_and(total_size = n) AS in_order, count(*)
  FROM (SELECT array_agg(word ORDER BY n) AS ids, array_agg(0::bigint) AS offsets, array_agg(1::bigint) AS lengths FROM awkward) a, LATERAL
       advance_uploads(ids, offsets, lengths) WITH ORDINALITY r, LATERAL
       (SELECT r.ordinality) o (n);
SELECT n FROM awkward, LATERAL merge_upload_data(word, jsonb_build_object(word, n), NULL, word) s
 WHERE (s.metadata, s.provider_data) IS DISTINCT FROM (jsonb_build_object(word, n), jsonb_build_object(word, n));
SELECT n FROM awkward, LATERAL declare_upload_size(word, n, word) s WHERE s.total_size <> n;
SELECT status FROM complete_upload($$it's$$, jsonb_build_object($$it's$$, '"\'), $$it's$$);
SELECT result FROM get_upload($$it's$$);
SELECT n FROM awkward, LATERAL abort_upload(word, word, word) s
 WHERE n <> 1 AND (s.status, s.abort_reason) IS DISTINCT FROM ('aborted', word);
SELECT n FROM awkward LEFT JOIN upload_reclaim r ON r.upload_id = word
 WHERE n <> 1 AND (r.path, r.owner, r.bucket, r.provider_data)
       IS DISTINCT FROM ('quoting/' || word, word, word, jsonb_build_object(word, n));
SELECT count(*) FROM claim_reclaims();
SELECT count(fail_reclaim(r.id, r.upload_id)) FROM upload_reclaim r;
SELECT count(*) FROM upload_reclaim WHERE last_error = upload_id;
SELECT n FROM awkward WHERE NOT delete_upload(word, word);
SELECT count(*) FROM upload_session WHERE path LIKE 'quoting/%';

-- An id that is longer than any is not found by its first 128 characters.
SELECT status FROM start_upload('quoting/long', 5, upload_id => repeat('x', 128));
SELECT outcome FROM try_advance_upload(repeat('x', 129), 0, 1);
SELECT outcome FROM try_advance_upload(repeat('x', 128) || ' ', 0, 1);
SELECT outcome FROM try_advance_upload(repeat('x', 128), 0, 1);
SELECT outcome FROM advance_uploads(ARRAY[repeat('x', 129), repeat('x', 128), repeat('x', 128) || ' '], ARRAY[1, 1, 1], ARRAY[1, 1, 1]);
SELECT advance_upload(repeat('x', 129), 0, 1);
SELECT declare_upload_size(repeat('x', 129), 5);
SELECT merge_upload_data(repeat('x', 128) || ' ', '{"a": 1}');
SELECT complete_upload(repeat('x', 129));
SELECT abort_upload(repeat('x', 129));
SELECT count(*) FROM get_upload(repeat('x', 129));
SELECT count(*) FROM get_upload(repeat('x', 128) || ' ');
SELECT count(*) FROM get_uploads(ARRAY[repeat('x', 129), repeat('x', 128)]);
SELECT delete_upload(repeat('x', 129));
SELECT count(*) FROM get_upload(repeat('x', 100000));
SELECT uploaded_bytes, total_size, status, metadata FROM get_upload(repeat('x', 128));
-- Trailing blanks and accents composed differently make another id.
SELECT status FROM start_upload('quoting/blank', 5, upload_id => 'blank');
SELECT outcome FROM try_advance_upload('blank ', 0, 1);
SELECT outcome FROM try_advance_upload('BLANK', 0, 1);
SELECT status FROM start_upload('quoting/accent', 5, upload_id => U&'e\0301');
SELECT outcome FROM try_advance_upload(U&'\00E9', 0, 1);
SELECT outcome FROM try_advance_upload(U&'e\0301', 0, 1);
-- Large JSON comes back whole.
SELECT length(s.metadata::text) > 1000000 AS large, s.metadata = jsonb_build_object('large', repeat('"\', 500000)) AS same
  FROM start_upload('quoting/large', metadata => jsonb_build_object('large', repeat('"\', 500000)), upload_id => 'quoting-large') s;
SELECT outcome FROM advance_upload('quoting-large', 0, 1, provider_data => jsonb_build_object('large', repeat('"\', 500000)));
SELECT metadata = provider_data AS same FROM get_upload('quoting-large');
ROLLBACK;
