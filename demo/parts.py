"""Two more uploads: one in parallel parts, one whose writer is fenced."""

import hashlib
import multiprocessing
import os
import signal
from datetime import timedelta

import client
from client import CHUNK, call, connect
from screen import megabytes, promise, scene
from server import wait_for

PARTS = 8
SENDERS = 4
LEASE = timedelta(seconds=2)

processes = multiprocessing.get_context("spawn")


def read_part(path, number):
    with open(path, "rb") as file:
        file.seek((number - 1) * CHUNK)
        return file.read(CHUNK)


# --- parts, from several processes at once ------------------------------------

def send_part(db, upload, source, destination, number):
    """Writes a part where it belongs, and confirms it; returns the outcome."""
    data = read_part(source, number)
    with open(destination, "r+b") as file:
        client.write_durably(file, (number - 1) * CHUNK, data)
    [result] = call(db, "advance_upload", **upload, chunk_offset=(number - 1) * CHUNK,
                    chunk_length=CHUNK, part_number=number,
                    etag=hashlib.sha256(data).hexdigest())
    return result.outcome


def sender_process(dsn, upload, source, destination, numbers, outcomes):
    db = connect(dsn)
    for number in numbers:
        outcomes.put((number, send_part(db, upload, source, destination, number)))


def send_parallel_parts(story, destination):
    scene(f"Another upload comes in {PARTS} parts, from {SENDERS} processes, in any order")
    open(destination, "wb").close()
    [session] = call(story.db, "start_upload", path="videos/parallel.mp4",
                     total_size=PARTS * CHUNK, owner=story.upload["owner"], any_order=True)
    upload = {"upload_id": session.upload_id, "owner": story.upload["owner"]}

    held_back = PARTS // 2
    numbers = [number for number in range(PARTS, 0, -1) if number != held_back]
    outcomes = processes.Queue()
    senders = [processes.Process(target=sender_process,
                                 args=(story.dsn, upload, story.source, destination,
                                       numbers[sender::SENDERS], outcomes))
               for sender in range(SENDERS)]
    for process in senders:
        process.start()
    came = [outcomes.get(timeout=60) for _ in numbers]
    for process in senders:
        process.join()
    promise(f"parts {', '.join(str(number) for number, _ in came)} are confirmed",
            all(outcome == "advanced" for _, outcome in came), came)
    missing = call(story.db, "missing_ranges", **upload)
    promise(f"missing_ranges tells what is left: {megabytes(CHUNK)} at {megabytes(missing[0].chunk_offset)}",
            [tuple(row) for row in missing] == [((held_back - 1) * CHUNK, CHUNK)], missing)
    send_part(story.db, upload, story.source, destination, held_back)
    manifest = call(story.db, "list_parts", **upload)
    digests = [hashlib.sha256(read_part(destination, number)).hexdigest()
               for number in range(1, PARTS + 1)]
    promise("list_parts has the parts in order, each with its ETag",
            [(row.part_number, row.etag) for row in manifest]
            == list(enumerate(digests, start=1)), manifest)
    [session] = call(story.db, "complete_upload", **upload)
    whole = hashlib.sha256(b"".join(read_part(story.source, number)
                                    for number in range(1, PARTS + 1)))
    with open(destination, "rb") as file:
        promise("the file is whole, and the upload complete",
                hashlib.sha256(file.read()).digest() == whole.digest()
                and session.status == "complete")


# --- a writer that has lost its lease ------------------------------------------

def holder_process(dsn, upload, pipe):
    """Gets the lease; when it is let on, it confirms a chunk with that."""
    db = connect(dsn)
    [lease] = call(db, "acquire_upload_lease", **upload, holder="server 1", duration=LEASE)
    pipe.send(lease.epoch)
    pipe.recv()
    [result] = call(db, "try_advance_upload", **upload, chunk_offset=0, chunk_length=CHUNK,
                    lease_epoch=lease.epoch)
    pipe.send(result.outcome)


def fence_a_writer(story):
    scene("A server has the lease of an upload, and stops (SIGSTOP)")
    [session] = call(story.db, "start_upload", path="videos/fenced.mp4", total_size=2 * CHUNK,
                     owner=story.upload["owner"])
    upload = {"upload_id": session.upload_id, "owner": story.upload["owner"]}
    pipe, end = processes.Pipe()
    first = processes.Process(target=holder_process, args=(story.dsn, upload, end))
    first.start()
    epoch = pipe.recv()
    os.kill(first.pid, signal.SIGSTOP)

    def acquire():
        [lease] = call(story.db, "acquire_upload_lease", **upload, holder="server 2")
        return lease

    lease = acquire()
    promise(f"another one does not get it: {lease.holder} holds epoch {epoch}",
            (lease.held, lease.holder) == (False, "server 1"), lease)
    wait_for(lambda: acquire().held, "the lease to run out")
    lease = acquire()  # held already: the same epoch, and renewed
    promise(f"once it has run out, it does: epoch {lease.epoch}",
            lease.epoch == epoch + 1, lease)
    [result] = call(story.db, "advance_upload", **upload, chunk_offset=0,
                    chunk_length=CHUNK // 2, lease_epoch=lease.epoch)
    promise(f"its chunk counts: {megabytes(result.uploaded_bytes)}",
            result.outcome == "advanced", result)

    os.kill(first.pid, signal.SIGCONT)
    pipe.send("go")
    outcome = pipe.recv()
    first.join()
    promise(f"the first one wakes up, and is {outcome}: its chunk does not count",
            outcome == "fenced")
    [session] = call(story.db, "get_upload", **upload)
    promise(f"still {megabytes(session.uploaded_bytes)}",
            session.uploaded_bytes == CHUNK // 2, session)
