\set i :n * 7919 % :sessions + :client_id * :sessions
\set id 4000000000000000001 + :i * :step
\set number :n / :sessions + 1
\set offset :n / :sessions * 8388608
SELECT * FROM vali_blob.try_advance_upload(:id, :offset, 8388608, part_number => :number::integer,
    etag => md5(:number::text));
\set n :n + 1
