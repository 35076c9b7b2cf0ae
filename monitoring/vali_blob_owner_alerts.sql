-- Two more alerts like those of vali_blob_alerts.sql, for the owner of the tables, or a role
-- that may read upload_quota and the sequences and call upload_usage().

-- An owner will soon be refused.
SELECT 'quota_nearly_used' AS alert,
    format('%s: %s of %s uploads, %s of %s bytes', q.owner, u.live_uploads, coalesce(u.max_live_uploads::text, 'any number of'),
        u.live_bytes, coalesce(u.max_live_bytes::text, 'any number of')) AS detail
FROM upload_quota AS q, upload_usage(q.owner) AS u
WHERE u.live_uploads >= 0.9 * u.max_live_uploads OR u.live_bytes >= 0.9 * u.max_live_bytes;

-- Ids come to their end: somebody has set a sequence far forward.
SELECT 'ids_nearly_used' AS alert, format('%I is at %s', s.relname, last_value) AS detail
FROM pg_class AS s, pg_sequence_last_value(s.oid) AS last_value
WHERE s.oid IN ('upload_session_id_seq'::regclass, 'upload_reclaim_id_seq'::regclass)
  AND last_value > 0.9 * 9223372036854775807;
