"""The story of one upload: everything goes wrong, and nothing is lost."""

import hashlib
import json
import multiprocessing
import os
import sys
import tempfile
import time
from contextlib import closing
from datetime import datetime, timedelta, timezone

import psycopg2
from psycopg2.extras import Json

import client
from client import CHUNK, call, connect
from parts import fence_a_writer, send_parallel_parts
from screen import Bar, BrokenPromise, megabytes, note, promise, scene, title
from server import Server, wait_for

SIZE = 256 * 1024 * 1024
OWNER = "alice"
SHORT_TTL = timedelta(seconds=2)

processes = multiprocessing.get_context("spawn")


# --- the client, as a process that can be killed -----------------------------

def client_process(dsn, upload, source, destination, pipe):
    """Uploads; after each step it tells where it is and waits to be let on."""
    def progress(event, offset):
        pipe.send((event, offset))
        pipe.recv()

    client.run(dsn, upload, source, destination, progress)


class Client:
    def __init__(self, story):
        self.story = story
        self.pipe, end = processes.Pipe()
        self.process = processes.Process(
            target=client_process,
            args=(story.dsn, story.upload, story.source, story.destination, end))
        self.process.start()
        end.close()
        self.offset = 0

    def step(self):
        """Waits for the client's next word."""
        event, self.offset = self.pipe.recv()
        self.story.bar.show(self.offset)
        return event

    def go(self):
        self.pipe.send("go")

    def resume(self):
        """Waits for the client to be back; returns the byte where it goes on."""
        while self.step() != "resumed":
            self.go()
        return self.offset

    def send_until(self, offset):
        """Lets the client go on, up to an offset; there it waits."""
        while self.offset < offset:
            self.go()
            self.step()

    def send_half_a_chunk(self):
        """Lets the client go on; returns in the middle of a chunk: some of its
        bytes are in the destination, and not yet confirmed."""
        self.go()
        wait_for(lambda: os.path.getsize(self.story.destination) > self.offset,
                 "the client to write")

    def kill(self):
        self.process.kill()
        self.process.join()


def racer(dsn, upload, offset, length, barrier, outcomes):
    """Confirms a chunk at the same moment as another racer."""
    db = connect(dsn)
    barrier.wait()
    [result] = call(db, "try_advance_upload", **upload, chunk_offset=offset, chunk_length=length)
    outcomes.put((length, result.outcome))


# --- the story ---------------------------------------------------------------

class Story:
    def __init__(self, server, folder):
        self.server = server
        self.source = f"{folder}/source.bin"
        self.destination = f"{folder}/destination.bin"
        self.bar = Bar(SIZE)
        self.dsn = server.dsn("uploader")
        self.upload = None

    def tell(self):
        self.create_extension()
        self.make_source()
        self.start_uploads()
        self.kill_the_client()
        writer = self.new_client_goes_on()
        self.send_a_chunk_twice()
        self.send_at_a_wrong_offset()
        self.race()
        self.kill_the_server(writer)
        self.finish(writer)
        send_parallel_parts(self, f"{self.destination}.parallel")
        fence_a_writer(self)
        self.sweep()

    def session(self):
        [session] = call(self.db, "get_upload", **self.upload)
        return session

    def create_extension(self):
        with closing(connect(self.server.dsn())) as admin, admin.cursor() as cursor:
            cursor.execute("CREATE EXTENSION vali_blob")
            cursor.execute("CREATE ROLE uploader LOGIN")
            cursor.execute("SELECT grant_upload_access('uploader')")
            cursor.execute("SHOW server_version")
            version = cursor.fetchone().server_version.split()[0]
            note(f"on a throw-away PostgreSQL {version}; all calls are made by an ordinary role")
        self.db = connect(self.dsn)

    def make_source(self):
        scene(f"A file of {megabytes(SIZE)} of random bytes")
        digest = hashlib.sha256()
        with open(self.source, "wb") as file:
            for _ in range(SIZE // CHUNK):
                block = os.urandom(CHUNK)
                digest.update(block)
                file.write(block)
        open(self.destination, "wb").close()
        self.digest = digest.hexdigest()
        note(f"SHA-256 {self.digest}")

    def start_uploads(self):
        scene("start_upload: two uploads begin")
        [session] = call(self.db, "start_upload", path="videos/lecture.mp4", total_size=SIZE,
                         content_type="video/mp4", metadata=Json({"title": "Lecture 1"}),
                         owner=OWNER)
        self.upload = {"upload_id": session.upload_id, "owner": OWNER}
        promise(f"upload {session.upload_id} is {session.status}, "
                f"{megabytes(session.uploaded_bytes)} of {megabytes(session.total_size)}",
                (session.status, session.uploaded_bytes, session.total_size)
                == ("pending", 0, SIZE))

        self.provider_data = {"multipart_id": "mp-" + os.urandom(6).hex()}
        [session] = call(self.db, "start_upload", path="videos/forgotten.mp4", total_size=SIZE,
                         owner="bob", ttl=SHORT_TTL,
                         provider_data=Json(self.provider_data))
        self.forgotten = {"upload_id": session.upload_id, "owner": "bob"}
        note("a second one may be idle for 2 seconds; nobody will care for it any more")

    def kill_the_client(self):
        scene(f"A client sends chunks of {megabytes(CHUNK)}, and is killed (SIGKILL)")
        victim = Client(self)
        victim.resume()
        victim.send_until(SIZE // 4)
        victim.send_half_a_chunk()
        victim.kill()
        wait_for(self.alone, "the killed client's connection to end")
        session = self.session()
        promise(f"the database knows: {session.status}, "
                f"{megabytes(session.uploaded_bytes)} confirmed",
                session.status == "in_progress" and session.uploaded_bytes >= victim.offset)
        size = os.path.getsize(self.destination)
        promise("no byte is confirmed that is not in the destination",
                size >= session.uploaded_bytes, f"{size} bytes are there")
        os.truncate(self.destination, session.uploaded_bytes)
        note(f"the {megabytes(size - session.uploaded_bytes)} beyond them are thrown away")

    def alone(self):
        with self.db.cursor() as cursor:
            cursor.execute("SELECT FROM pg_stat_activity WHERE usename = current_user "
                           "AND pid <> pg_backend_pid()")
            return cursor.rowcount == 0

    def new_client_goes_on(self):
        scene("A new client process goes on")
        confirmed = self.session().uploaded_bytes
        writer = Client(self)
        resumed = writer.resume()
        writer.send_until(SIZE * 3 // 8)
        promise(f"it went on at the confirmed byte, {megabytes(resumed)}", resumed == confirmed,
                f"{resumed}, not {confirmed}")
        return writer

    def send_a_chunk_twice(self):
        scene("The last chunk is sent once more, as after a lost answer")
        before = self.session()
        [result] = call(self.db, "advance_upload", **self.upload,
                        chunk_offset=before.uploaded_bytes - CHUNK, chunk_length=CHUNK)
        promise(f"{result.outcome}: still {megabytes(result.uploaded_bytes)}",
                result.outcome == "replayed")
        promise("nothing has changed", self.session() == before)

    def send_at_a_wrong_offset(self):
        scene("A chunk comes at a wrong offset")
        before = self.session()
        wrong = before.uploaded_bytes + CHUNK
        error = self.refusal(self.upload, wrong)
        promise("refused with VB002, for an HTTP server to answer 409",
                error.pgcode == "VB002", error)
        note(error.diag.message_primary)
        note(error.diag.message_detail)
        promise("the detail tells a program where to go on",
                json.loads(error.diag.message_detail)
                == {"expected_offset": before.uploaded_bytes, "provided_offset": wrong})
        promise("nothing has changed", self.session() == before)

    def refusal(self, upload, offset):
        try:
            result = call(self.db, "advance_upload", **upload,
                          chunk_offset=offset, chunk_length=CHUNK)
        except psycopg2.Error as error:
            return error
        raise BrokenPromise(f"a chunk is refused: {result}")

    def race(self):
        scene("Two writers race for one offset, four times")
        for lengths in [(CHUNK, CHUNK), (CHUNK, CHUNK // 2)] * 2:
            offset = self.session().uploaded_bytes
            self.write(offset, max(lengths))
            barrier, outcomes = processes.Barrier(2), processes.Queue()
            racers = [processes.Process(target=racer, args=(self.dsn, self.upload, offset,
                                                            length, barrier, outcomes))
                      for length in lengths]
            for process in racers:
                process.start()
            results = [outcomes.get(timeout=60) for _ in racers]
            for process in racers:
                process.join()
            won = [length for length, outcome in results if outcome == "advanced"]
            lost = [outcome for _, outcome in results if outcome != "advanced"]
            told = ", ".join(f"{megabytes(length)} {outcome}" for length, outcome in results)
            promise(f"at {megabytes(offset)}: {told}",
                    len(won) == 1 and lost[0] in ("replayed", "conflict"))
            promise("the winner's bytes count, once",
                    self.session().uploaded_bytes == offset + won[0])

    def write(self, offset, length):
        with open(self.source, "rb") as source, open(self.destination, "r+b") as destination:
            source.seek(offset)
            client.write_durably(destination, offset, source.read(length))

    def kill_the_server(self, writer):
        scene("The client goes on, and the database server is killed (SIGKILL)")
        behind = writer.offset
        writer.go()
        writer.step()
        promise(f"its chunk at {megabytes(behind)} has come already: it goes on "
                f"at {megabytes(writer.offset)}",
                writer.offset == self.session().uploaded_bytes > behind + CHUNK)
        writer.send_until(SIZE * 5 // 8)
        writer.send_half_a_chunk()
        told = writer.offset
        killed = self.server.kill()
        note(f"{killed} processes killed, the postmaster first; {megabytes(told)} were confirmed")
        begin = time.monotonic()
        self.server.start()
        self.db = connect(self.dsn)
        promise(f"it was a crash, and the server is back after {time.monotonic() - begin:.1f} s",
                "automatic recovery in progress" in self.server.log_text())
        confirmed = self.session().uploaded_bytes
        promise(f"no confirmed byte is lost: {megabytes(confirmed)}",
                told <= confirmed <= told + CHUNK, f"{confirmed} bytes, the client knew of {told}")
        resumed = writer.resume()
        promise("the same client is connected again and goes on at the confirmed byte",
                resumed == confirmed, f"{resumed}, not {confirmed}")

    def finish(self, writer):
        scene("The rest arrives")
        writer.send_until(SIZE)
        writer.go()
        writer.process.join()
        promise("the client has ended well", writer.process.exitcode == 0)
        session = self.session()
        promise(f"all {megabytes(session.uploaded_bytes)} are confirmed; not complete yet, "
                "for the file is to be checked first",
                (session.status, session.uploaded_bytes) == ("in_progress", SIZE))

        scene("The file is checked, and the upload completed")
        with open(self.destination, "rb") as file:
            digest = hashlib.sha256()
            while block := file.read(CHUNK):
                digest.update(block)
        note(f"source       {self.digest}")
        note(f"destination  {digest.hexdigest()}")
        promise("SHA-256 of source and destination agree", digest.hexdigest() == self.digest)
        complete = {**self.upload, "result": Json({"sha256": self.digest})}
        [session] = call(self.db, "complete_upload", **complete)
        promise(f"complete_upload: {session.status}", session.status == "complete")
        [again] = call(self.db, "complete_upload", **complete)
        promise("asked once more, it gives the same answer", again == session)

    def sweep(self):
        scene("The forgotten upload")
        def expired():
            [session] = call(self.db, "get_upload", **self.forgotten)
            return session if session.status == "expired" else None

        session = wait_for(expired, "the upload to expire")
        idle = datetime.now(timezone.utc) - session.created_at
        promise(f"idle for {idle.total_seconds():.1f} seconds, it is {session.status}",
                idle >= SHORT_TTL)
        error = self.refusal(self.forgotten, 0)
        promise("a chunk is refused with VB004, for an HTTP server to answer 410",
                error.pgcode == "VB004", error)

        wait_for(self.is_swept, "the background worker to sweep")
        with closing(connect(self.server.dsn())) as monitor:
            [status] = call(monitor, "sweeper_status")
        promise("the background worker has swept it, nobody had to ask",
                (status.running, status.last_error) == (True, None), status)
        claimed = call(self.db, "claim_reclaims")
        promise("what it left in storage comes out of the reclaim queue",
                [(row.upload_id, row.reason, row.provider_data) for row in claimed]
                == [(session.upload_id, "expired", self.provider_data)], claimed)
        note(json.dumps(claimed[0].provider_data))
        promise("a second claim gets nothing, for the first one is at work",
                call(self.db, "claim_reclaims") == [])
        [finished] = call(self.db, "finish_reclaim", id=claimed[0].id)
        with self.db.cursor() as cursor:
            cursor.execute("SELECT FROM upload_reclaim")
            promise("finish_reclaim: the queue is empty",
                    finished.finish_reclaim and cursor.rowcount == 0)

    def is_swept(self):
        """Readers show an overdue upload as expired; a sweep writes it down."""
        with self.db.cursor() as cursor:
            cursor.execute("SELECT status FROM upload_session WHERE upload_id = %(upload_id)s",
                           self.forgotten)
            return cursor.fetchone().status == "expired"


def main():
    begin = time.monotonic()
    title("vali_blob: one upload, start to finish")
    with tempfile.TemporaryDirectory(prefix="demo.") as folder:
        server = Server(folder)
        try:
            server.start()
            Story(server, folder).tell()
        except BrokenPromise as broken:
            sys.exit(f"\nA promise was not kept: {broken}")
        finally:
            server.stop()
            for process in processes.active_children():
                process.kill()
    title(f"\n{promise.kept} promises kept in {time.monotonic() - begin:.0f} seconds.")


if __name__ == "__main__":
    main()
