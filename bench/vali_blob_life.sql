-- A call of a life: the upload starts, advances by :chunks chunks, completes.
\if :step = 0
    \set id random(5000000000000000000, 9000000000000000000)
    \set user random(0, 4999)
    \set number random(1, 1000000)
    \set size :chunks * 8388608
    \set offset 0
    SELECT upload_id, expires_at
    FROM vali_blob.start_upload(
        'videos/2025/user-' || :user || '/holiday-' || :number || '.mp4',
        :size,
        'video/mp4',
        :metadata,
        :provider_data,
        'user-' || :user,
        upload_id => :id);
\elif :step <= :chunks
    SELECT * FROM vali_blob.try_advance_upload(:id, :offset, 8388608);
    \set offset :offset + 8388608
\else
    SELECT upload_id, status, expires_at FROM vali_blob.complete_upload(:id);
\endif
\set step (:step + 1) % (:chunks + 2)
