-- The reclaim queue: claim_reclaims with its leases, finish_reclaim, and
-- fail_reclaim with its growing delay.
\set VERBOSITY sqlstate
\set ON_ERROR_ROLLBACK on
\pset null (null)
\set claim 'upload_id, owner, bucket, path, provider_data, reason, attempts, last_error'
BEGIN;

-- Three sessions die: two aborted, one expired; a fourth left nothing behind.
SELECT upload_id FROM start_upload('reclaim/1', owner => 'alice', bucket => 'videos',
                                   provider_data => '{"multipart": "m-1"}', upload_id => 'reclaim-1');
SELECT upload_id FROM start_upload('reclaim/2', upload_id => 'reclaim-2');
SELECT upload_id FROM start_upload('reclaim/3', provider_data => '{"multipart": "m-3"}', upload_id => 'reclaim-3');
SELECT upload_id FROM start_upload('reclaim/4', upload_id => 'reclaim-4');
SELECT outcome FROM advance_upload('reclaim-2', 0, 5, provider_data => '{"part-1": "etag"}');
SELECT count(abort_upload(id)) FROM unnest(ARRAY['reclaim-1', 'reclaim-4', 'reclaim-2']) AS id;
UPDATE upload_session SET expires_at = now() - interval '1 second' WHERE upload_id = 'reclaim-3';
SELECT expired FROM sweep_uploads();

-- In the order they came, each to one claimer only.
SELECT :claim, claimed_until BETWEEN now() + interval '5 minutes'
                                 AND clock_timestamp() + interval '5 minutes' AS leased
  FROM claim_reclaims(2);
SELECT :claim, claimed_until BETWEEN now() + interval '1 hour'
                                 AND clock_timestamp() + interval '1 hour' AS leased
  FROM claim_reclaims(lease => '1 hour', max_rows => 2);
SELECT :claim FROM claim_reclaims();
-- What was returned is what is stored.
SELECT upload_id, claimed_until > now() AS leased, attempts FROM upload_reclaim ORDER BY id;

-- A lease that ran out is handed out again, after those that nobody has had yet.
SELECT upload_id FROM start_upload('reclaim/5', provider_data => '{"multipart": "m-5"}', upload_id => 'reclaim-5');
SELECT status FROM abort_upload('reclaim-5');
UPDATE upload_reclaim SET claimed_until = now() - interval '1 second' WHERE upload_id = 'reclaim-1';
SELECT upload_id FROM claim_reclaims(1);
SELECT upload_id FROM claim_reclaims(1);
SELECT upload_id FROM claim_reclaims(1);

-- Done: the row is gone.
SELECT id AS id1 FROM upload_reclaim WHERE upload_id = 'reclaim-1' \gset
SELECT finish_reclaim(:id1);
SELECT finish_reclaim(id => :id1);
SELECT fail_reclaim(:id1, 'too late');
SELECT finish_reclaim(0), finish_reclaim(-1), finish_reclaim(9223372036854775807);
SELECT upload_id FROM upload_reclaim ORDER BY id;

-- Failed: back in the queue, not at once, and later every time: 15 s doubling to an hour.
SELECT id AS id2 FROM upload_reclaim WHERE upload_id = 'reclaim-2' \gset
SELECT fail_reclaim(:id2, 'storage is down');
SELECT upload_id, attempts, last_error FROM upload_reclaim WHERE id = :id2;
SELECT upload_id FROM claim_reclaims();
SELECT fail_reclaim(error => 'storage is still down', id => :id2);
SELECT upload_id, attempts, last_error FROM upload_reclaim WHERE id = :id2;
UPDATE upload_reclaim SET attempts = 0 WHERE id = :id2;
CREATE FUNCTION pg_temp.delay_of_failure(id bigint, error text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	since timestamptz := clock_timestamp();
BEGIN
	PERFORM fail_reclaim(id, error);
	RETURN (SELECT floor(extract(epoch FROM r.claimed_until - since)) FROM upload_reclaim r WHERE r.id = $1);
END $$;
SELECT i AS attempt, pg_temp.delay_of_failure(:id2, 'attempt ' || i) AS seconds FROM generate_series(1, 10) AS i;
-- However often: the delay stays an hour.
UPDATE upload_reclaim SET attempts = 100000 WHERE id = :id2;
SELECT fail_reclaim(:id2, 'hopeless');
SELECT attempts, last_error,
       claimed_until BETWEEN now() + interval '1 hour' AND clock_timestamp() + interval '1 hour' AS in_an_hour
  FROM upload_reclaim WHERE id = :id2;
-- After the delay it is handed out again, with what is known of it.
UPDATE upload_reclaim SET claimed_until = now() - interval '1 second' WHERE id = :id2;
SELECT :claim FROM claim_reclaims();
SELECT finish_reclaim(:id2);

-- The queue outlives the session.
SELECT delete_upload('reclaim-3');
UPDATE upload_reclaim SET claimed_until = now() - interval '1 second' WHERE upload_id = 'reclaim-3';
SELECT :claim FROM claim_reclaims();

-- Bounds and nulls.
UPDATE upload_reclaim SET claimed_until = now() - interval '1 second' WHERE upload_id = 'reclaim-5';
SELECT claim_reclaims(1, '300000 years');
SELECT claim_reclaims(0);
SELECT claim_reclaims(-1);
SELECT claim_reclaims(NULL);
SELECT claim_reclaims(1, '0');
SELECT claim_reclaims(1, '-1 second');
SELECT claim_reclaims(1, '1 day -25 hours');
SELECT claim_reclaims(1, NULL);
SELECT finish_reclaim(NULL);
SELECT fail_reclaim(NULL, 'null');
SELECT upload_id, attempts, claimed_until > now() AS leased FROM upload_reclaim ORDER BY id;
SELECT count(*) FROM claim_reclaims(2147483647, '1 microsecond');
ROLLBACK;
