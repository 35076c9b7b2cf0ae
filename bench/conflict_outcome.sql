-- A conflict as an outcome: nothing is written.
\set id 4000000000000000001 + random(0, :sessions - 1)
SELECT outcome FROM try_advance_upload(:id, 1::bigint << 49, 8388608);
