-- An application's own tables: users own sessions, and each session has a post
-- that shows the video.

CREATE SCHEMA app;
CREATE TABLE app.users (name text COLLATE "C" PRIMARY KEY);
INSERT INTO app.users SELECT DISTINCT owner FROM vali_blob.upload_session;
ALTER TABLE vali_blob.upload_session ADD FOREIGN KEY (owner) REFERENCES app.users;

CREATE TABLE app.posts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    upload_id varchar(128) COLLATE "C" NOT NULL UNIQUE
        REFERENCES vali_blob.upload_session (upload_id)
);
INSERT INTO app.posts (upload_id) SELECT upload_id FROM vali_blob.upload_session;

VACUUM ANALYZE;
