"""A client of vali_blob: uploads a file in chunks, whatever happens on the way.

Three calls are all that it takes: get_upload tells where to go on,
advance_upload confirms a chunk, complete_upload ends the upload.  The bytes
are the application's own business; here they go into a file.

One rule keeps the two together: a chunk is confirmed only after its bytes are
safe.  So the database never promises a byte that a crash could still take
away, and what lies beyond the confirmed byte is simply sent again.
"""

import os
import time
from contextlib import closing

import psycopg2
from psycopg2.extras import NamedTupleCursor

CHUNK = 8 * 1024 * 1024


def connect(dsn):
    db = psycopg2.connect(dsn, cursor_factory=NamedTupleCursor)
    db.autocommit = True
    return db


def call(db, function, **arguments):
    """Calls an SQL function with named arguments; returns its rows."""
    named = ", ".join(f"{name} => %({name})s" for name in arguments)
    with db.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {function}({named})", arguments)
        return cursor.fetchall()


def write_durably(file, offset, data):
    """Returns once the data would survive a crash."""
    file.seek(offset)
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def send_rest(db, upload, source, destination, progress):
    """Sends all that the database has not confirmed yet."""
    [session] = call(db, "get_upload", **upload)
    offset = session.uploaded_bytes
    progress("resumed", offset)
    while offset < session.total_size:
        source.seek(offset)
        chunk = source.read(CHUNK)
        write_durably(destination, offset, chunk)
        [result] = call(db, "advance_upload", **upload,
                        chunk_offset=offset, chunk_length=len(chunk))
        offset = result.uploaded_bytes
        progress("confirmed", offset)


def run(dsn, upload, source_path, destination_path, progress):
    """Uploads to the end; reconnects as often as it must."""
    with open(source_path, "rb") as source, open(destination_path, "r+b") as destination:
        while True:
            try:
                with closing(connect(dsn)) as db:
                    return send_rest(db, upload, source, destination, progress)
            except psycopg2.OperationalError:
                time.sleep(0.05)  # the server is away; try again
