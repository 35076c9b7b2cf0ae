-- 100 sessions a call, far from each other in the table
\set calls :sessions / 100
\set i :n * 7919 % :calls + :client_id * :sessions + 1
\set offset :n / :calls * 8388608
SELECT *
FROM advance_uploads(
    (SELECT array_agg((4000000000000000000 + :i + k * :calls)::text)
     FROM generate_series(0, 99) AS k),
    array_fill(:offset::bigint, '{100}'),
    array_fill(8388608::bigint, '{100}'));
\set n :n + 1
