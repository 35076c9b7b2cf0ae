-- What applications do without parts: the ETags in a JSON document of the session
\set number :n + 1
\set offset :n * 8388608
SELECT * FROM vali_blob.try_advance_upload(:id, :offset, 8388608,
    provider_data => jsonb_build_object(:number::text, md5(:number::text)));
\set n :n + 1
