"""A client that uploads one file of SIZE bytes after the other, wherever the primary is,
until its standard input ends.  It finishes the upload that it is at then.

    failover_uploader.py CONNECTION_STRING FOLDER NAME SIZE [lease] [forget]

It writes down in FOLDER/NAME.ledger what it is about to ask, and what it was answered:

    calls FUNCTION UPLOAD [OFFSET LENGTH]
    UPLOAD ANSWER UPLOADED_BYTES [OFFSET LENGTH | EPOCH]

The bytes go to its storage first, FOLDER/NAME.storage; the etag of a part is the place
where they begin there.  Each upload that is complete is read back from there as its parts
say, and compared with its file.  With "lease" it gets the lease of each upload; with
"forget" it cannot go back to bytes that were confirmed, as one that passes a stream on."""

import os
import random
import select
import sys
import time

import psycopg2

CHUNK = 400
connection, folder, name, SIZE, *options = sys.argv[1:]
SIZE = int(SIZE)
ledger = open(f"{folder}/{name}.ledger", "w", buffering=1)
storage = open(f"{folder}/{name}.storage", "w+b", buffering=0)
database = None


class Unknown(Exception):
    """The connection broke: whether the call was committed, nobody knows."""


def write_down(*words):
    print(*words, file=ledger)


def call(function, upload, statement, *arguments, chunk=()):
    """Runs a statement in a transaction of its own."""
    global database
    try:
        if database is None:
            database = psycopg2.connect(connection, application_name=name)
            database.autocommit = True
        with database.cursor() as cursor:
            write_down("calls", function, upload, *chunk)
            cursor.execute(statement, arguments)
            return cursor.fetchone()
    except psycopg2.Error as error:
        if error.pgcode is not None and not error.pgcode.startswith("57P"):
            raise
        database = None
        time.sleep(random.uniform(0.05, 0.3))
        raise Unknown from error


def insist(*arguments):
    """Calls until there is an answer.  All that is called so may be called again."""
    while True:
        try:
            return call(*arguments)
        except Unknown:
            pass


def start(upload, ttl):
    status, offset = insist("start", upload,
        "SELECT status, uploaded_bytes FROM start_upload('file', %s, upload_id => %s, ttl => %s, or_resume => true)",
        SIZE, upload, ttl)
    write_down(upload, "started", offset)
    return offset


def get_lease(upload):
    held, epoch, offset, status = insist("acquire", upload,
        "SELECT held, epoch, uploaded_bytes, status FROM acquire_upload_lease(%s, %s, '1 hour')", upload, name)
    write_down(upload, "lease" if held else status, offset, epoch)
    return epoch


def ask(upload):
    """Where to go on; None if the upload is not there."""
    row = insist("get", upload, "SELECT uploaded_bytes, status FROM get_upload(%s)", upload)
    if not row:
        write_down(upload, "not_found", 0)
        return None
    write_down(upload, "asked", row[0])
    return row[0]


def send(upload, source, offset, epoch):
    """Stores the next chunk, and confirms it.  If there is no answer, either repeats the
    call, or asks where to go on.  Returns the offset then; None if there is no upload."""
    data = source[offset:offset + random.randint(1, CHUNK)]
    place = storage.seek(0, os.SEEK_END)
    storage.write(data)
    while True:
        try:
            outcome, now = call("advance", upload,
                "SELECT outcome, uploaded_bytes FROM try_advance_upload(%s, %s, %s, etag => %s, lease_epoch => %s)",
                upload, offset, len(data), str(place), epoch, chunk=(offset, len(data)))
        except Unknown:
            if random.random() < 0.5:
                continue
            return ask(upload)
        write_down(upload, outcome, now or 0, offset, len(data))
        return now if outcome in ("advanced", "replayed", "conflict") else None


def compare(upload, source):
    """Is what the parts name in the storage the file?"""
    status, parts = insist("compare", upload, """
        SELECT (SELECT status FROM get_upload(%s)),
            (SELECT array_agg(ARRAY[etag::bigint, chunk_length] ORDER BY chunk_offset) FROM list_parts(%s))""", upload, upload)
    if status != "complete":
        return False
    data = b""
    for place, length in parts:
        storage.seek(place)
        data += storage.read(length)
    write_down(upload, "whole" if data == source else "broken", len(data))
    return True


def end(upload, source, fate):
    """Ends an upload.  Returns false if the server does not have all of it (any more)."""
    function, status = ("complete_upload", "complete") if fate == "complete" else ("abort_upload", "aborted")
    try:
        ended, now = insist(fate, upload, f"SELECT status, uploaded_bytes FROM {function}(%s)", upload)
    except psycopg2.Error as error:
        if error.pgcode not in ("VB001", "VB006"):
            raise
        write_down(upload, "refused", 0, error.pgcode)
        return False
    assert ended == status, ended
    write_down(upload, ended, now)
    return fate != "complete" or compare(upload, source)


def live(upload, fate):
    """The life of one upload."""
    until = SIZE if fate == "complete" else random.randint(1, SIZE - CHUNK)
    source = random.randbytes(SIZE)
    seen = offset = start(upload, "2 s" if fate == "leave" else "1 hour")
    epoch = get_lease(upload) if "lease" in options else None
    while offset is not None:
        if offset < seen and "forget" in options:
            write_down(upload, "gone", offset)
            fate = "abort"
        elif offset < until:
            seen = max(seen, offset)
            time.sleep(random.uniform(0, 0.3))
            offset = send(upload, source, offset, epoch)
            continue
        if fate == "leave" or end(upload, source, fate):
            return
        offset = ask(upload)


def main():
    random.seed(os.environ["RANDOM_SEED"] + name)
    number = 0
    while not select.select([0], [], [], 0)[0]:
        number += 1
        fate = random.choices(["complete", "abort", "leave"], [8, 1, 1])[0]
        live(f"{name}.{number}.{fate}", fate)


if __name__ == "__main__":
    main()
