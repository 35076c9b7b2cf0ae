-- upload_stats: uploads and the reclaim queue in figures, a row for each status.
BEGIN;
\ir lib/uploads.sql
SELECT no_plan();
DELETE FROM upload_session;
DELETE FROM upload_reclaim;

SELECT results_eq('SELECT status::text, sessions, bytes, bytes_in_flight, oldest_deadline, reclaim_backlog FROM upload_stats',
	$$ SELECT s::text, 0::bigint, 0::bigint, 0::bigint, NULL::timestamptz, 0::bigint FROM unnest(enum_range(NULL::upload_status)) AS s $$,
	'there is a row for every status, also where there is no upload');

-- A sweep expires what is overdue, so it comes first.
SELECT count(pg_temp.upload(state)) AS started
  FROM unnest(ARRAY['expired', 'pending', 'unsized', 'live', 'full', 'deferred', 'overdue', 'complete', 'aborted']) AS state \gset
UPDATE upload_session SET expires_at = now() + interval '1 hour' WHERE path = 'test/unsized';
SELECT fail_reclaim(id, 'later') AS row FROM upload_reclaim WHERE reason = 'aborted' \gset
SELECT is(format('%s sessions, %s bytes, %s in flight, oldest deadline in %s, %s queued', u.sessions, u.bytes, u.bytes_in_flight,
			coalesce((u.oldest_deadline - now())::text, 'no time'), u.reclaim_backlog),
		figures, format('%s: %s', x.status, sentence))
  FROM (VALUES
		('pending', '2 sessions, 0 bytes, 0 in flight, oldest deadline in 01:00:00, 0 queued', 'the deadline that passes first'),
		('in_progress', '4 sessions, 220 bytes, 220 in flight, oldest deadline in -00:00:01, 0 queued', 'an overdue upload counts as live until it is swept'),
		('complete', '1 sessions, 100 bytes, 0 in flight, oldest deadline in no time, 0 queued', 'what has ended is not in flight, and has no deadline'),
		('aborted', '1 sessions, 40 bytes, 0 in flight, oldest deadline in no time, 1 queued', 'what is left of it is queued, however often freeing it fails'),
		('expired', '1 sessions, 40 bytes, 0 in flight, oldest deadline in no time, 1 queued', 'each status has its own part of the queue')
	) AS x (status, figures, sentence) LEFT JOIN upload_stats u ON u.status::text = x.status;


SELECT results_eq('SELECT status::text, oldest_reclaim, most_attempts FROM upload_stats WHERE reclaim_backlog > 0',
	$$ SELECT reason::text, min(enqueued_at), max(attempts) FROM upload_reclaim GROUP BY reason ORDER BY reason $$,
	'the oldest row of the queue, and the one that has failed most often');
SELECT results_eq('SELECT DISTINCT estimated, counted_at BETWEEN now() AND clock_timestamp() FROM upload_stats',
	'VALUES (false, true)', 'a small table is counted each time');

-- more bytes than a bigint holds
SELECT count(advance_upload(start.upload_id, 0, 9223372036854775807)) AS sent
  FROM generate_series(1, 2), start_upload('test/huge') AS start \gset
SELECT is(bytes::text, '9223372036854775807', 'a sum ends at the greatest bigint') FROM upload_stats WHERE status = 'in_progress';

SELECT * FROM finish();
ROLLBACK;
