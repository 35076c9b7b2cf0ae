-- start_upload: what a new session holds, named and positional calls, bounds
-- of the values, and what is refused.
\set VERBOSITY sqlstate
\set ON_ERROR_ROLLBACK on
\pset null (null)
BEGIN;

-- Only the path is needed; the id is a random UUID, the deadline in 48 hours.
\x on
SELECT upload_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' AS id_is_uuid,
       owner, bucket, path, total_size, uploaded_bytes, status, content_type,
       metadata, provider_data, result, abort_reason,
       ttl = '48 hours' AS ttl_is_48h,
       created_at BETWEEN now() AND clock_timestamp() AS created_now,
       updated_at = created_at AS not_touched,
       expires_at BETWEEN now() + interval '51 hours'
                      AND clock_timestamp() + interval '51 hours' AS deadline_is_ttl_and_a_sixteenth
  FROM start_upload('start/minimal');

-- Every argument by position...
SELECT owner, bucket, path, total_size, uploaded_bytes, status, content_type,
       metadata, provider_data, upload_id,
       ttl = '16 minutes' AS ttl_kept,
       expires_at BETWEEN now() + interval '17 minutes'
                      AND clock_timestamp() + interval '17 minutes' AS deadline_from_ttl
  FROM start_upload('start/positional', 1000, 'video/mp4', '{"name": "a.mp4"}',
                    '{"multipart": "m-1"}', 'alice', 'videos', '16 minutes', 'start-positional');

-- ... and by name, in any order.
SELECT owner, bucket, path, total_size, uploaded_bytes, status, content_type,
       metadata, provider_data, upload_id, ttl = '16 minutes' AS ttl_kept
  FROM start_upload(upload_id => 'start-named', ttl => '16 minutes', bucket => 'videos',
                    owner => 'alice', provider_data => '{"multipart": "m-1"}',
                    metadata => '{"name": "a.mp4"}', content_type => 'video/mp4',
                    total_size => 1000, path => 'start/named');
\x off

-- What was returned is what was stored.
SELECT r AS row, pg_typeof(r) AS type
  FROM start_upload('start/stored', 5, upload_id => 'start-stored') r \gset returned_
SELECT s::text = :'returned_row' AS same, :'returned_type' AS type
  FROM upload_session s WHERE upload_id = 'start-stored';

-- Two sessions without an id get different ones, also for one path.
SELECT count(DISTINCT (start_upload('start/many')).upload_id) FROM generate_series(1, 5);
SELECT count(*) FROM upload_session WHERE path = 'start/many';

-- A ttl of zero, however it is written: never expires.
SELECT ttl, expires_at FROM start_upload('start/for-ever', ttl => '0');
SELECT ttl, expires_at FROM start_upload('start/for-ever', ttl => '0 hours');
-- A very short one counts as any other.
SELECT ttl = '16 milliseconds' AS ttl_kept,
       expires_at BETWEEN now() + interval '17 milliseconds'
                      AND clock_timestamp() + interval '17 milliseconds' AS deadline_from_ttl
  FROM start_upload('start/short', ttl => '16 milliseconds');

-- Sizes: none (deferred), 0, 1, the largest bigint.
SELECT upload_id, total_size, uploaded_bytes, status
  FROM unnest(ARRAY[NULL, 0, 1, 9223372036854775807]) WITH ORDINALITY AS sizes (size, n), LATERAL
       start_upload('start/sizes', sizes.size, upload_id => 'start-size-' || n);
SELECT start_upload('start/sizes', -1);
SELECT start_upload('start/sizes', '-9223372036854775808');
SELECT start_upload('start/sizes', '9223372036854775808');

-- Lengths are counted in characters: the longest of each column is kept whole ...
SELECT length(upload_id), length(path), length(bucket), length(content_type),
       octet_length(upload_id) AS id_bytes, octet_length(path) AS path_bytes
  FROM start_upload(repeat('é', 2048), upload_id => repeat('é', 128),
                    bucket => repeat('é', 256), content_type => repeat('é', 256));
-- ... and one more is refused, a blank included.
SELECT start_upload('start/long', upload_id => repeat('x', 129));
SELECT start_upload('start/long', upload_id => repeat('x', 128) || ' ');
SELECT start_upload(repeat('x', 2049));
SELECT start_upload(repeat('x', 2048) || ' ');
SELECT start_upload('start/long', bucket => repeat('x', 257));
SELECT start_upload('start/long', bucket => repeat('x', 256) || ' ');
SELECT start_upload('start/long', content_type => repeat('x', 257));
SELECT start_upload('start/long', content_type => repeat('x', 256) || ' ');

-- Nulls and empty strings.
SELECT start_upload(NULL);
SELECT start_upload('');
SELECT start_upload('start/empty', upload_id => '');
SELECT owner, bucket, content_type
  FROM start_upload('start/empty', owner => '', bucket => '', content_type => '');
SELECT owner, bucket, content_type, metadata, provider_data, total_size
  FROM start_upload('start/nulls', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

-- The JSON columns are objects.
SELECT metadata, provider_data
  FROM start_upload('start/json', metadata => '{"a": {"b": [1, 2]}}', provider_data => '{}');
SELECT start_upload('start/json', metadata => '[]');
SELECT start_upload('start/json', metadata => '"text"');
SELECT start_upload('start/json', metadata => '1');
SELECT start_upload('start/json', metadata => 'null');
SELECT start_upload('start/json', provider_data => '[{}]');
SELECT start_upload('start/json', provider_data => 'null');
SELECT start_upload('start/json', metadata => '{');

-- A ttl below zero, or one that leads out of the calendar.
SELECT start_upload('start/ttl', ttl => '-1 second');
SELECT start_upload('start/ttl', ttl => '1 day -25 hours');
SELECT start_upload('start/ttl', ttl => '300000 years');

-- An id can be given once, whoever owns it and whether it has ended or not.
SELECT upload_id FROM start_upload('start/twice', upload_id => 'start-twice', owner => 'alice');
SELECT start_upload('start/twice', upload_id => 'start-twice');
SELECT start_upload('start/twice', upload_id => 'start-twice', owner => 'bob');
SELECT status FROM abort_upload('start-twice');
SELECT start_upload('start/twice', upload_id => 'start-twice');
-- Ids differ where their bytes differ.
SELECT upload_id FROM start_upload('start/twice', upload_id => 'START-twice');
SELECT upload_id FROM start_upload('start/twice', upload_id => 'start-twice ');

-- No such function: a call without a path, an argument that is not there.
SELECT start_upload();
SELECT start_upload('start/unknown', colour => 'red');

-- Nothing is left of a call that was refused.
SELECT path, count(*) FROM upload_session
 WHERE path LIKE 'start/%' GROUP BY path ORDER BY path COLLATE "C";
ROLLBACK;
