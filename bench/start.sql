-- Each client starts uploads of one owner.
\set id random(5000000000000000000, 9000000000000000000)
SELECT upload_id, expires_at
FROM vali_blob.start_upload('videos/2025/holiday.mp4', 8388608, 'video/mp4', owner => 'user-' || :owner, upload_id => :id);
