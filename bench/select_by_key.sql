\set id 4000000000000000001 + random(0, :sessions - 1)
SELECT * FROM vali_blob.upload_session WHERE upload_id = :id;
