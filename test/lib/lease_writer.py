"""One of several servers that receive uploads.  It gets the lease of one of them,
writes chunks of it to files and confirms them, and goes on with another one until
all are complete.

    lease_writer.py CONNECTION_STRING FOLDER HOLDER DURATION UPLOAD...

The bytes of UPLOAD are those of the file UPLOAD.source.  Each attempt at a chunk has
a file of its own, UPLOAD.EPOCH.OFFSET; which of them count, the etag of the confirmed
part says.  So that the test can do what it likes between the two, "written NAME" on
standard output waits for a line on standard input, before the chunk is confirmed and
"OUTCOME NAME" tells so.  SIGUSR1 says that this process was stopped for too long: all
that it writes is wrong then, until it has another lease."""

import os
import random
import select
import signal
import sys

import psycopg2

CHUNK = 2000
connection, folder, holder, duration, *uploads = sys.argv[1:]
database = None
stale = False


def become_stale(*_):
    global stale
    stale = True


def report(*words):
    print(*words, flush=True)


def read_line():
    """Waits for a line.  There is none any more when the test has gone."""
    while (byte := os.read(0, 1)) != b"\n":
        if not byte:
            sys.exit("the test has gone")


def pause(seconds):
    if select.select([0], [], [], seconds)[0]:
        read_line()


def query(statement, *arguments):
    """Runs a statement in a transaction of its own, again if the connection breaks:
    whether it was committed, nobody knows then."""
    global database
    while True:
        try:
            if database is None:
                database = psycopg2.connect(connection, application_name=holder)
                database.autocommit = True
            with database.cursor() as cursor:
                cursor.execute(statement, arguments)
                return cursor.fetchone()
        except psycopg2.Error as error:
            if error.pgcode is not None and not error.pgcode.startswith("57P"):
                raise
            report("lost", str(error).strip().split("\n")[0])
            database = None
            pause(0.05)


def write_chunk(upload, epoch, offset):
    """Writes the next chunk, and confirms it.  Returns where it ends, or None if that
    was refused, as another one has the lease."""
    name = f"{upload}.{epoch}.{offset}"
    with open(f"{folder}/{upload}.source", "rb") as source:
        source.seek(offset)
        data = source.read(random.randint(1, CHUNK))
    with open(f"{folder}/{name}", "wb") as file:
        file.write(os.urandom(len(data)) if stale else data)
        file.flush()
        report("written", name)
        read_line()
        if stale:
            file.seek(0)
            file.write(os.urandom(len(data)))
    outcome, = query("SELECT outcome FROM try_advance_upload(%s, %s, %s, etag => %s, lease_epoch => %s)",
                     upload, offset, len(data), name, epoch)
    report(outcome, name)
    if outcome == "fenced":
        # nor can it do anything else to the lease
        for statement in ("SELECT held FROM renew_upload_lease(%s, %s)", "SELECT held FROM release_upload_lease(%s, %s)"):
            held, = query(statement, upload, epoch)
            assert not held, statement
    return offset + len(data) if outcome in ("advanced", "replayed") else None


def write(upload):
    """Writes as much of an upload as the lease allows.  Returns whether it has ended."""
    global stale
    held, epoch, offset, size, status = query(
        "SELECT held, epoch, uploaded_bytes, total_size, status FROM acquire_upload_lease(%s, %s, %s)",
        upload, holder, duration)
    if not held:
        return status not in ("pending", "in_progress")
    stale = False
    while offset is not None and offset < size:
        offset = write_chunk(upload, epoch, offset)
        if offset is not None and random.random() < 0.2:
            held, requested = query("SELECT held, requested FROM renew_upload_lease(%s, %s, %s)",
                                    upload, epoch, duration)
            if held and requested and random.random() < 0.3:
                query("SELECT held FROM release_upload_lease(%s, %s)", upload, epoch)
                return False
            if not held:
                return False
    if offset is None:
        return False
    query("SELECT status FROM complete_upload(%s)", upload)
    return True


def main():
    random.seed(os.environ["RANDOM_SEED"] + holder)
    signal.signal(signal.SIGUSR1, become_stale)
    report("begun")
    while uploads:
        upload = random.choice(uploads)
        if write(upload):
            uploads.remove(upload)
        pause(0.02)


if __name__ == "__main__":
    main()
