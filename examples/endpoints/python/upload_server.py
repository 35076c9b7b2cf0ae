"""An upload endpoint with psycopg 3, see README.md: upload_server.py PORT FOLDER CONNECTION_STRING"""

import contextlib
import errno
import http.server
import pathlib
import re
import socket
import sys
import threading
import uuid
import psycopg
import uploads
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


class Answer(Exception):
    """The arguments are a status and a text."""


def demand(condition, *answer):
    if not condition:
        raise Answer(*answer)


def explain(error):
    """Returns the status and the text for whatever has gone wrong."""
    if isinstance(error, Answer):
        return error.args
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return 507, "the storage is full"
    if isinstance(error, FileNotFoundError):  # another process has just completed, or freed, the upload
        return 503, "try again later"
    if isinstance(error, psycopg.OperationalError) and not error.sqlstate:  # the connection is lost, or there is none
        return 503, "try again later"
    if isinstance(error, (psycopg.DataError, UnicodeEncodeError)):  # the driver itself refuses NUL, without a SQLSTATE
        return 400, str(error).partition("\n")[0]
    state = getattr(error, "sqlstate", None) or "XX000"
    status = ANSWERS.get(state) or ANSWERS.get(state[:2], 500)
    return status, "internal error" if status == 500 else str(error).partition("\n")[0]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # with HTTP/0.9, what is not HTTP would have an answer without a status
    timeout = 60  # seconds that a client may be silent

    def handle_request(self):
        """Answers a request; whatever goes wrong has its answer, too."""
        self.owner, upload_id = self.headers.get("X-Remote-User", ""), self.path[len("/uploads/"):]
        method = self.headers.get("X-HTTP-Method-Override", self.command)
        try:
            self.left = PIECE  # as long as it is not known where the request ends
            demand(not self.headers.defects, 400, "the headers cannot be parsed")
            demand("Transfer-Encoding" not in self.headers, 411, "Transfer-Encoding is not supported")
            demand(len(self.headers.get_all("Content-Length", ["0"])) == 1, 400, "there are several Content-Lengths")
            self.left = self.number("Content-Length", "0")
            demand(method != "OPTIONS", 204, "")
            demand(self.headers["Tus-Resumable"] == "1.0.0", 412, "Tus-Resumable is not 1.0.0")
            demand(re.fullmatch(f"/uploads(/{UUID})?", self.path), 404, "no such upload")
            demand(method in (("HEAD", "PATCH", "DELETE") if upload_id else ("POST",)), 405, "no such method here")
            reply = getattr(self, method.lower())(*filter(None, [upload_id]))
        except Exception as error:
            reply = explain(error)
            if not isinstance(error, Answer):
                self.log_error("%s", error)
        with contextlib.suppress(OSError):  # the client may have gone
            self.answer(*reply)

    do_OPTIONS = do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_request

    def send_error(self, code, *texts):
        """Answers what http.server itself refuses.  An unknown method or version is the client's error."""
        super().send_error({501: 405, 505: 400}.get(code, code), *texts)

    def answer(self, status, text="", headers={}):
        self.send_response(status)
        retry = {"Retry-After": 1} if status in (423, 503) else {}
        close = {"Connection": "close"} if self.left else {}  # the rest is not another request
        length = {} if status == 204 else {"Content-Length": len(text.encode())}
        for header in {**TUS, **retry, **close, **length, **headers}.items():
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(text.encode() if self.command != "HEAD" else b"")
        if self.left:
            self.connection.shutdown(socket.SHUT_WR)
            for _ in self.receive(min(self.left, PIECE)):  # or the client may not see the answer
                pass

    def number(self, header, default=""):
        demand(re.fullmatch("[0-9]{1,18}", self.headers.get(header, default)), 400, f"{header} is not a number of bytes")
        return int(self.headers.get(header, default))

    def find(self, upload_id):
        """Returns the session and its folder.  For a client an upload is done once all bytes are
        confirmed: so what a process that was killed has left undone is done before it hears that."""
        rows = uploads.query(uploads.GET, upload_id, self.owner)
        demand(rows, 404, "no such upload")
        demand(rows[0].status not in ("aborted", "expired"), 410, f"the upload is {rows[0].status}")
        home = uploads.folder / rows[0].provider_data["folder"]
        if rows[0].uploaded_bytes == rows[0].total_size and rows[0].status != "complete":
            uploads.complete(rows[0], home)
        return rows[0], home

    def head(self, upload_id):
        upload, _ = self.find(upload_id)
        return 200, "", {"Upload-Offset": upload.uploaded_bytes, "Upload-Length": upload.total_size,
                     "Cache-Control": "no-store", **({"Upload-Expires": upload.until} if upload.until else {})}

    def post(self):
        """Starts an upload.  With an Idempotency-Key, a UUID, the client may repeat that."""
        key = self.headers["Idempotency-Key"]
        demand(key is None or re.fullmatch(UUID, key), 400, "Idempotency-Key is not a UUID")
        [upload] = uploads.query(uploads.START, self.headers.get("Upload-Metadata", ""), self.number("Upload-Length"),
                                 Jsonb({"folder": str(uuid.uuid4())}), self.owner, key, key is not None)
        if upload.status in ("pending", "in_progress"):
            (uploads.folder / upload.provider_data["folder"]).mkdir(exist_ok=True)
            uploads.sync(uploads.folder)
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
        with uploads.written(attempt) as file:
            for data in self.receive(length):
                file.write(data)
            stored = file.tell()
        # the file stays if this call fails: its answer may be lost, and the bytes confirmed
        [row] = uploads.query("SELECT * FROM try_advance_upload(%s, %s, %s, etag => %s, owner => %s)",
                              upload_id, offset, stored, attempt.name, self.owner)
        # replaced: this file counts from now on; replayed: it may, if a driver has repeated the call
        if row.outcome not in ("advanced", "replaced", "replayed") or row.status == "complete":
            attempt.unlink(missing_ok=True)
        demand(row.outcome == "advanced", ANSWERS.get(row.outcome), row.outcome)
        demand(stored == length, 400, "the body is incomplete")
        return stored

    def receive(self, length):
        """Yields so many bytes, or what comes of them before the connection breaks."""
        end = self.left - length
        while self.left > end:
            data = b""
            with contextlib.suppress(ConnectionError, TimeoutError):
                data = self.rfile.read1(min(self.left - end, 65536))
            if not data:
                return
            self.left -= len(data)
            yield data

    def delete(self, upload_id):
        """Forgets the upload, complete or not; its folder is in the reclaim queue then."""
        found = uploads.query("SELECT delete_upload(%s, %s, reclaim_complete => true) AS found", upload_id, self.owner)[0].found
        return (204,) if found else (404, "no such upload")


if __name__ == "__main__":
    uploads.folder = pathlib.Path(sys.argv[2])
    uploads.pool = ConnectionPool(sys.argv[3], timeout=5, kwargs={"autocommit": True, "row_factory": namedtuple_row})
    threading.Thread(target=uploads.reclaim, daemon=True).start()
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
