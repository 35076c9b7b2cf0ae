-- A chunk, and the calls that a lease takes.  What each of them costs, pgbench says.
\set i :n * 7919 % :sessions + :client_id * :sessions
\set id 4000000000000000001 + :i * :step
\set offset :n / :sessions * 8388608
\set epoch :n / :sessions + 1
SELECT * FROM vali_blob.acquire_upload_lease(:id, 'server');
SELECT * FROM vali_blob.try_advance_upload(:id, :offset, 8388608, lease_epoch => :epoch);
SELECT * FROM vali_blob.renew_upload_lease(:id, :epoch);
SELECT * FROM vali_blob.release_upload_lease(:id, :epoch);
\set n :n + 1
