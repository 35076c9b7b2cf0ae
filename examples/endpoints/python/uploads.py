"""What the endpoint does with files and with the database."""

import contextlib
import os
import shutil
import sys
import time
import uuid
from psycopg.types.json import Jsonb

GET = """SELECT *, to_char(expires_at AT TIME ZONE 'GMT', 'Dy, DD Mon YYYY HH24:MI:SS "GMT"') AS until FROM get_upload(%s, %s)"""
START = """SELECT session.* FROM (
               SELECT jsonb_object_agg(split_part(pair, ' ', 1), convert_from(decode(split_part(pair, ' ', 2), 'base64'), 'UTF8')) AS pairs
               FROM regexp_split_to_table(%s, ' *, *') AS pair WHERE pair <> '') AS metadata,
           start_upload(coalesce(pairs->>'filename', 'unnamed'), %s, content_type => pairs->>'filetype', metadata => pairs,
                        provider_data => %s, owner => %s, upload_id => %s, or_resume => %s) AS session"""
pool = folder = None  # set by the main program


def query(statement, *arguments):
    """Runs a statement in a transaction of its own.  No connection is held while bytes move."""
    with pool.connection() as connection:
        return connection.execute(statement, arguments).fetchall()


def sync(path):
    """Returns once a file, or the names in a folder, would survive a crash."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def written(path):
    """Opens a new file, which would survive a crash once the block is left.  If anything fails it
    goes: on a disk that is full it would be in the way."""
    try:
        with open(path, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        sync(path.parent)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def complete(upload, home):
    """Makes one file of all pieces, then completes.  Two processes may do so at the same time."""
    if not (home / "file").exists():
        whole = home / str(uuid.uuid4())
        with written(whole) as file:
            for part in query("SELECT etag FROM list_parts(%s, %s, 2147483647)", upload.upload_id, upload.owner):
                file.write((home / part.etag).read_bytes())
        os.rename(whole, home / "file")
    sync(home)
    for file in set(home.iterdir()) - {home / "file"}:
        file.unlink(missing_ok=True)
    query("SELECT status FROM complete_upload(%s, %s, %s)", upload.upload_id, Jsonb({"file": f"{home.name}/file"}), upload.owner)


def reclaim():
    """Frees what ended uploads have left, for ever."""
    while True:
        try:
            for row in query("SELECT id, provider_data->>'folder' AS name FROM claim_reclaims(10)"):
                try:
                    name = str(uuid.UUID(row.name or "none"))  # whatever is in the queue, only a folder of ours goes
                    if (folder / name).exists():
                        shutil.rmtree(folder / name)
                    query("SELECT finish_reclaim(%s)", row.id)
                except (OSError, ValueError) as error:
                    query("SELECT fail_reclaim(%s, %s)", row.id, str(error))
        except Exception as error:
            print("reclaim:", error, file=sys.stderr)
        time.sleep(1)
