"""An uploader of several files at a time, through a router over several servers.

    shard_uploader.py CONNECTION_STRING SCHEMA NAME UPLOADS CHUNKS [HOLD_FILE]

Starts UPLOADS uploads of CHUNKS chunks of 10 bytes and sends chunks of one or the other,
until all are complete.  Each answer becomes a line: "OUTCOME ID BYTES", "failed ID
SQLSTATE", "complete ID BYTES".  The last chunk is not sent as long as there is HOLD_FILE,
so that the test can do what it likes while chunks are sent; until then the others are
sent again.  Ends with standard input."""

import os
import random
import select
import sys

import psycopg2

connection, schema, name, count, chunks = sys.argv[1:6]
hold_file = sys.argv[6] if len(sys.argv) > 6 else None
count, size = int(count), 10 * int(chunks)
database = None


def query(statement, *arguments):
    """Runs a statement in a transaction of its own."""
    global database
    if database is None:
        database = psycopg2.connect(connection, application_name="uploader")
        database.autocommit = True
    try:
        with database.cursor() as cursor:
            cursor.execute(statement, arguments)
            return cursor.fetchone()
    except psycopg2.Error as error:
        if database.closed:
            database = None
        return "failed", error.pgcode or str(error).strip().split("\n")[0]


def step(upload, bytes_there):
    """Makes the next call for an upload.  Returns how many of its bytes are there, as the answer
    says, or None once it is complete."""
    if bytes_there is None:
        outcome, number = query(
            f"SELECT 'started', uploaded_bytes FROM {schema}.start_upload('file', %s, upload_id => %s, or_resume => true)", size, upload)
    elif bytes_there == size:
        outcome, number = query(f"SELECT status, uploaded_bytes FROM {schema}.complete_upload(%s)", upload)
    elif bytes_there == size - 10 and hold_file and os.path.exists(hold_file):
        outcome, number = query(f"SELECT outcome, uploaded_bytes FROM {schema}.try_advance_upload(%s, %s, 10)", upload, max(0, bytes_there - 10))
    else:
        function = random.choice(("try_advance_upload", "advance_uploads"))
        arguments = (upload, bytes_there, 10) if function == "try_advance_upload" else ([upload], [bytes_there], [10])
        outcome, number = query(f"SELECT outcome, uploaded_bytes FROM {schema}.{function}(%s, %s, %s)", *arguments)
    print(outcome, upload, number, flush=True)
    return bytes_there if outcome == "failed" else "done" if outcome == "complete" else number


def main():
    random.seed(os.environ["RANDOM_SEED"] + name)
    uploads = {f"{name}-{number}": None for number in range(count)}
    while uploads:
        upload = random.choice(list(uploads))
        uploads[upload] = step(upload, uploads[upload])
        if uploads[upload] == "done":
            del uploads[upload]
        if select.select([0], [], [], 0.01)[0] and not os.read(0, 1):
            sys.exit("the test has gone")


if __name__ == "__main__":
    main()
