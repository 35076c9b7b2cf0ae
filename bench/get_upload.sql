\set id 4000000000000000001 + random(0, :sessions - 1)
SELECT * FROM vali_blob.get_upload(:id);
