\set i :n * 7919 % :sessions + :client_id * :sessions
\set id 4000000000000000001 + :i * :step
\set offset :n / :sessions * 8388608
SELECT * FROM try_advance_upload(:id, :offset, 8388608);
\set n :n + 1
