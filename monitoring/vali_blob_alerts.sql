-- What to alert on, for members of pg_monitor: each statement returns a row for
-- what is wrong, and none if all is well.  Its comment has the reason, and what to
-- do is in the manual, chapter "Monitoring".  The thresholds are for an ordinary
-- server; change them in a copy.
--
--     psql -X --tuples-only --file vali_blob_alerts.sql DATABASE
--
-- The schema of the extension must be in the search_path.  A partitioned upload_session is
-- looked at by its partitions; pg_partition_tree has no row for one that is not.

-- Nothing expires by itself.
SELECT 'sweeper_down' AS alert, 'no launcher is running' AS detail
FROM sweeper_status()
WHERE NOT running AND NOT pg_is_in_recovery();

-- The launcher runs, but does not get to this database.
SELECT 'sweep_late' AS alert, format('last sweep: %s', coalesce(last_sweep::text, 'none')) AS detail
FROM sweeper_status()
WHERE running AND current_setting('vali_blob.sweep', true) IS DISTINCT FROM 'off'
  AND coalesce(last_sweep, pg_postmaster_start_time()) < now() - interval '10 minutes';

-- Something keeps the sweep, or a row of it, from its work.
SELECT 'sweep_failing' AS alert, last_error AS detail
FROM sweeper_status()
WHERE last_error_at > now() - interval '10 minutes';

-- Whatever sweeps here, sessions stay longer than they should.
SELECT 'overdue' AS alert, format('%s sessions: the first deadline was %s', status, oldest_deadline) AS detail
FROM upload_stats
WHERE oldest_deadline < now() - interval '15 minutes' AND NOT estimated;

-- Nobody frees storage, or not all of it.
SELECT 'reclaim_old' AS alert, format('%s %s uploads, queued since %s', reclaim_backlog, status, oldest_reclaim) AS detail
FROM upload_stats
WHERE oldest_reclaim < now() - interval '1 day';

-- The storage refuses to free something.
SELECT 'reclaim_failing' AS alert, format('%s attempts for one of the %s uploads', most_attempts, status) AS detail
FROM upload_stats
WHERE most_attempts >= 10;

-- Nobody frees that storage any more.  It says so until the server is restarted: what
-- counts is that the number has grown.
SELECT 'reclaims_dropped' AS alert, format('%s rows of the reclaim queue since the server was started', total_reclaims_dropped) AS detail
FROM sweeper_status()
WHERE total_reclaims_dropped > 0;

-- Vacuum does not keep up.
SELECT 'bloat' AS alert, format('%I has %s dead rows, and %s live ones', relname, n_dead_tup, n_live_tup) AS detail
FROM pg_stat_all_tables
WHERE relid IN (SELECT relid FROM pg_partition_tree('upload_session')
    UNION VALUES ('upload_session'::regclass), ('upload_part'), ('upload_reclaim'))
  AND n_dead_tup > 100000 AND n_dead_tup > n_live_tup / 2;

-- Chunks write into indexes, which one of your own can cause.
SELECT 'not_hot' AS alert, format('%s of %s updates of %I were HOT', n_tup_hot_upd, n_tup_upd, relname) AS detail
FROM pg_stat_all_tables
WHERE (relid = 'upload_session'::regclass OR relid IN (SELECT relid FROM pg_partition_tree('upload_session')))
  AND n_tup_upd > 10000 AND n_tup_hot_upd < 0.9 * n_tup_upd;

-- Vacuum cannot freeze old rows: the server will refuse to write before they are too old.
SELECT 'wraparound' AS alert, format('%I is %s transactions old', relname, age(relfrozenxid)) AS detail
FROM pg_class
WHERE oid IN (SELECT relid FROM pg_partition_tree('upload_session')
    UNION VALUES ('upload_session'::regclass), ('upload_part'), ('upload_reclaim'))
  AND relfrozenxid <> '0' AND age(relfrozenxid) > 1000000000;

-- What keeps vacuum from removing dead rows, and HOT updates from finding room.
SELECT 'vacuum_held_back' AS alert, held_by AS detail
FROM (
    SELECT format('process %s of %s, in a transaction since %s', pid, coalesce(usename, backend_type), xact_start),
        xact_start
    FROM pg_stat_activity
    WHERE backend_xid IS NOT NULL OR backend_xmin IS NOT NULL
    UNION ALL
    SELECT format('prepared transaction %s of %s, since %s', gid, owner, prepared), prepared
    FROM pg_prepared_xacts
    UNION ALL
    SELECT format('replication slot %s', slot_name), '-infinity'
    FROM pg_replication_slots
    WHERE greatest(age(xmin), age(catalog_xmin)) > 10000000
) AS holder (held_by, since)
WHERE since < now() - interval '1 hour';

-- The library is newer than the objects of this database.
SELECT 'update_pending' AS alert, format('version %s is installed, %s is there', installed_version, default_version) AS detail
FROM pg_available_extensions
WHERE name = 'vali_blob' AND installed_version <> default_version;
