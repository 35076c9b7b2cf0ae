-- Every other part of one session, so that as many are missing
\set number :n + 1
\set offset :n * 2 * 8388608
SELECT * FROM vali_blob.try_advance_upload(:id, :offset, 8388608, part_number => :number::integer,
    etag => md5(:number::text));
\set n :n + 1
