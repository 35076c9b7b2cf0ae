"""An upload endpoint with psycopg 3, see README.md: upload_server.py PORT FOLDER CONNECTION_STRING"""

import contextlib
import http.server
import os
import pathlib
import re
import shutil
import sys
import threading
import time
import uuid
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

PIECE = 4 * 1024 * 1024  # of what a client sends at a time, less than that is lost with a process
UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
TUS = {"Tus-Resumable": "1.0.0", "Tus-Version": "1.0.0", "Tus-Extension": "creation,termination,expiration"}
ANSWERS = {  # to outcomes, SQLSTATEs and classes of these; tus wants 409 for all but the current offset
    "replayed": 409, "replaced": 409, "conflict": 409, "too_large": 413, "fenced": 423, "locked": 423,
    "ended": 410, "expired": 410, "not_found": 404, "VB001": 404, "VB003": 410, "VB004": 410, "VB009": 413,
    "23505": 409, "55P03": 423, "22": 400, "08": 503, "0A": 503, "25": 503, "40": 503, "53": 503, "57": 503}
GET = """SELECT *, to_char(expires_at AT TIME ZONE 'GMT', 'Dy, DD Mon YYYY HH24:MI:SS "GMT"') AS until FROM get_upload(%s, %s)"""
START = """SELECT session.* FROM (
               SELECT jsonb_object_agg(split_part(pair, ' ', 1), convert_from(decode(split_part(pair, ' ', 2), 'base64'), 'UTF8')) AS pairs
               FROM regexp_split_to_table(%s, ' *, *') AS pair WHERE pair <> '') AS metadata,
           start_upload(coalesce(pairs->>'filename', 'unnamed'), %s, content_type => pairs->>'filetype', metadata => pairs,
                        provider_data => %s, owner => %s, upload_id => %s, or_resume => %s) AS session"""


class Answer(Exception):
    """The arguments are a status and a text."""


def demand(condition, *answer):
    if not condition:
        raise Answer(*answer)


def query(statement, *arguments):
    """Runs a statement in a transaction of its own.  No connection is held while bytes move."""
    with pool.connection() as connection:
        return connection.execute(statement, arguments).fetchall()


def sync(path):
    """Returns once a file, or the names in a folder, would survive a crash."""
    os.fsync(descriptor := os.open(path, os.O_RDONLY))
    os.close(descriptor)


def complete(upload, home):
    """Makes one file of all pieces, then completes.  Two processes may do so at the same time."""
    if not (home / "file").exists():
        whole = home / str(uuid.uuid4())
        with open(whole, "wb") as file:
            for part in query("SELECT etag FROM list_parts(%s, %s, 2147483647)", upload.upload_id, upload.owner):
                file.write((home / part.etag).read_bytes())
        sync(whole)
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


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds that a client may be silent

    def handle_request(self):
        """Answers a request; whatever goes wrong has its answer, too."""
        self.left, self.owner, upload_id = 0, self.headers.get("X-Remote-User", ""), self.path[len("/uploads/"):]
        method = self.headers.get("X-HTTP-Method-Override", self.command)
        try:
            self.left = self.number("Content-Length", "0")
            demand(method != "OPTIONS", 204, "")
            demand(self.headers["Tus-Resumable"] == "1.0.0", 412, "Tus-Resumable is not 1.0.0")
            demand(re.fullmatch(f"/uploads(/{UUID})?", self.path), 404, "no such upload")
            demand(method in (("HEAD", "PATCH", "DELETE") if upload_id else ("POST",)), 405, "no such method here")
            reply = getattr(self, method.lower())(*filter(None, [upload_id]))
        except Answer as answer:
            reply = answer.args
        except Exception as error:  # no SQLSTATE: the connection is lost; no file: another process has completed the upload
            state = "40001" if isinstance(error, FileNotFoundError) else getattr(error, "sqlstate", "XX000") or "08000"
            status = ANSWERS.get(state) or ANSWERS.get(state[:2], 500)
            reply = status, "internal error" if status == 500 else str(error).partition("\n")[0]
            self.log_error("%s", error)
        with contextlib.suppress(OSError):  # the client may have gone
            self.answer(*reply)

    do_OPTIONS = do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_request

    def answer(self, status, text="", headers={}):
        self.send_response(status)
        retry = {"Retry-After": 1} if status in (423, 503) else {}
        close = {"Connection": "close"} if self.left else {}  # the rest is not another request
        length = {} if status == 204 else {"Content-Length": len(text.encode())}
        for header in {**TUS, **retry, **close, **length, **headers}.items():
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(text.encode() if self.command != "HEAD" else b"")
        self.receive(min(self.left, PIECE), lambda data: None)  # or the client may not see the answer

    def number(self, header, default=""):
        demand(re.fullmatch("[0-9]{1,18}", self.headers.get(header, default)), 400, f"{header} is not a number of bytes")
        return int(self.headers.get(header, default))

    def find(self, upload_id):
        """Returns the session and its folder.  For a client an upload is done once all bytes are
        confirmed: so what a process that was killed has left undone is done before it hears that."""
        rows = query(GET, upload_id, self.owner)
        demand(rows, 404, "no such upload")
        demand(rows[0].status not in ("aborted", "expired"), 410, f"the upload is {rows[0].status}")
        home = folder / rows[0].provider_data["folder"]
        if rows[0].uploaded_bytes == rows[0].total_size and rows[0].status != "complete":
            complete(rows[0], home)
        return rows[0], home

    def head(self, upload_id):
        upload, _ = self.find(upload_id)
        return 200, "", {"Upload-Offset": upload.uploaded_bytes, "Upload-Length": upload.total_size,
                     "Cache-Control": "no-store", **({"Upload-Expires": upload.until} if upload.until else {})}

    def post(self):
        """Starts an upload.  With an Idempotency-Key, a UUID, the client may repeat that."""
        key = self.headers["Idempotency-Key"]
        demand(key is None or re.fullmatch(UUID, key), 400, "Idempotency-Key is not a UUID")
        [upload] = query(START, self.headers.get("Upload-Metadata", ""), self.number("Upload-Length"),
                         Jsonb({"folder": str(uuid.uuid4())}), self.owner, key, key is not None)
        if upload.status in ("pending", "in_progress"):
            (folder / upload.provider_data["folder"]).mkdir(exist_ok=True)
            sync(folder)
        return 201, "", {"Location": f"/uploads/{upload.upload_id}", **self.head(upload.upload_id)[2]}

    def patch(self, upload_id):
        demand(self.headers["Content-Type"] == "application/offset+octet-stream", 415, "Content-Type is wrong")
        demand("Content-Length" in self.headers, 411, "Content-Length is missing")
        offset, (upload, home) = self.number("Upload-Offset"), self.find(upload_id)
        demand(offset == upload.uploaded_bytes, 409, f"the upload is at {upload.uploaded_bytes}")
        demand(offset + self.left <= upload.total_size, 413, f"the upload has {upload.total_size} bytes")
        while self.left:
            offset += self.piece(upload_id, home / str(uuid.uuid4()), offset, min(self.left, PIECE))
        return 204, "", self.head(upload_id)[2]

    def piece(self, upload_id, attempt, offset, length):
        """Stores a piece, or what comes of it before the connection breaks, then confirms it."""
        with open(attempt, "wb") as file:
            stored = self.receive(length, file.write)
            file.flush()
            os.fsync(file.fileno())
        sync(attempt.parent)
        [row] = query("SELECT * FROM try_advance_upload(%s, %s, %s, etag => %s, owner => %s)",
                      upload_id, offset, stored, attempt.name, self.owner)
        # replaced: this file counts from now on; replayed: it may, if a driver has repeated the call
        if row.outcome not in ("advanced", "replaced", "replayed") or row.status == "complete":
            attempt.unlink(missing_ok=True)
        demand(row.outcome == "advanced", ANSWERS.get(row.outcome), row.outcome)
        demand(stored == length, 400, "the body is incomplete")
        return stored

    def receive(self, length, write):
        """Reads so many bytes, or what comes before the connection breaks; returns how many."""
        before = self.left
        with contextlib.suppress(ConnectionError, TimeoutError):
            while before - self.left < length and (data := self.rfile.read1(min(length - before + self.left, 65536))):
                write(data)
                self.left -= len(data)
        return before - self.left

    def delete(self, upload_id):
        """Forgets the upload, complete or not; its folder is in the reclaim queue then."""
        found = query("SELECT delete_upload(%s, %s, reclaim_complete => true) AS found", upload_id, self.owner)[0].found
        return (204,) if found else (404, "no such upload")


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[2])
    pool = ConnectionPool(sys.argv[3], timeout=5, kwargs={"autocommit": True, "row_factory": namedtuple_row})
    threading.Thread(target=reclaim, daemon=True).start()
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
