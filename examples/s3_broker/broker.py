"""A broker for uploads by browsers into S3, see README.md: broker.py PORT BUCKET S3_ENDPOINT CONNECTION_STRING"""

import contextlib
import http.server
import json
import re
import sys
import threading
import time
import uuid

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

PART = 5 * 1024 * 1024  # S3 wants that much of each part but the last, and has 10000 at most
UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
ANSWERS = {  # to outcomes, SQLSTATEs and classes of these
    "conflict": 409, "too_large": 413, "fenced": 423, "locked": 423, "ended": 410, "expired": 410, "not_found": 404, "VB001": 404,
    "VB003": 410, "VB004": 410, "VB006": 409, "VB009": 413, "23505": 409, "55P03": 423,
    "22": 400, "08": 503, "0A": 503, "25": 503, "40": 503, "53": 503, "57": 503}


class Answer(Exception):
    """The arguments are a status and a text."""


def demand(condition, status, text):
    if not condition:
        raise Answer(status, text)


def query(statement, *arguments):
    with pool.connection() as connection:
        return connection.execute(statement, arguments).fetchall()


def of_s3(data):
    """What S3 calls an upload, from provider_data."""
    return {"Bucket": bucket, "Key": data["key"], "UploadId": data["multipart_id"]}


def find(upload_id, owner):
    found = query("SELECT * FROM get_upload(%s, %s)", upload_id, owner)
    demand(found, 404, "no such upload")
    demand(found[0].status not in ("aborted", "expired"), 410, f"the upload is {found[0].status}")
    return found[0]


def state(upload):
    """What is left, as numbers of parts."""
    ranges = query("SELECT * FROM missing_ranges(%s, %s, 10000)", upload.upload_id, upload.owner)
    missing = [n for row in ranges for n in range(row.chunk_offset // PART + 1, (row.chunk_offset + row.chunk_length - 1) // PART + 2)]
    return {"id": upload.upload_id, "status": upload.status, "size": upload.total_size, "part_size": PART,
            "confirmed": upload.uploaded_bytes, "missing": missing}


def length_of(upload, number):
    """How long a part is: as long as all others, but for the last one."""
    demand(type(number) is int and 0 < number <= -(-upload.total_size // PART), 400, "there is no part of that number")
    return min(PART, upload.total_size - (number - 1) * PART)


def sign(upload, numbers):
    """Signs parts.  S3 refuses a body of another length than the one that is signed."""
    demand(isinstance(numbers, list) and 0 < len(numbers) <= 100, 400, "parts is not a list of 1 to 100 numbers")
    return [s3.generate_presigned_url("upload_part", ExpiresIn=900, Params={
        **of_s3(upload.provider_data), "PartNumber": number, "ContentLength": length_of(upload, number)}) for number in numbers]


def confirm(upload, number, etag, checksum):
    """Confirms a part with the ETag that S3 has given the browser, and its SHA-256 if it knows that."""
    demand(isinstance(etag, str) and re.fullmatch('"[0-9a-f-]{1,100}"', etag), 400, "etag is not what S3 gives")
    demand(isinstance(checksum, str) and re.fullmatch("([0-9a-f]{64})?", checksum), 400, "sha256 is not 64 digits")
    [row] = query("SELECT * FROM try_advance_upload(%s, %s, %s, owner => %s, part_number => %s, etag => %s, checksum => %s)",
                  upload.upload_id, (number - 1) * PART, length_of(upload, number), upload.owner, number, etag, bytes.fromhex(checksum) or None)
    demand(row.outcome in ("advanced", "replayed", "replaced"), ANSWERS.get(row.outcome, 500), row.outcome)
    return {"outcome": row.outcome, "confirmed": row.uploaded_bytes, "ready": row.ready}


def complete(upload):
    """Has S3 put the parts together, then completes."""
    if upload.status == "complete":
        return upload.result
    demand(upload.uploaded_bytes == upload.total_size, 409, "parts are missing")
    parts = query("SELECT part_number, etag FROM list_parts(%s, %s, 10000)", upload.upload_id, upload.owner)
    try:
        etag = s3.complete_multipart_upload(**of_s3(upload.provider_data), MultipartUpload={
            "Parts": [{"PartNumber": part.part_number, "ETag": part.etag} for part in parts]})["ETag"]
    except s3.exceptions.NoSuchUpload:  # an earlier call has come so far, and its answer was lost
        etag = s3.head_object(Bucket=bucket, Key=upload.provider_data["key"])["ETag"]
    result = Jsonb({"key": upload.provider_data["key"], "etag": etag})
    return query("SELECT result FROM complete_upload(%s, %s, %s)", upload.upload_id, result, upload.owner)[0].result


def reclaim():
    """Frees what ended uploads have left in the bucket, for ever: parts, or the object."""
    while True:
        try:
            for row in query("SELECT * FROM claim_reclaims(10)"):
                try:
                    with contextlib.suppress(s3.exceptions.NoSuchUpload):
                        s3.abort_multipart_upload(**of_s3(row.provider_data))
                    # there is an object, too, if the upload was deleted when, or while, S3 had completed it
                    s3.delete_object(Bucket=bucket, Key=row.provider_data["key"])
                    query("SELECT finish_reclaim(%s)", row.id)
                except (BotoCoreError, ClientError, KeyError) as error:
                    query("SELECT fail_reclaim(%s, %s)", row.id, repr(error))
        except Exception as error:
            print("reclaim:", error, file=sys.stderr)
        time.sleep(1)


class Handler(http.server.BaseHTTPRequestHandler):
    timeout = 60  # seconds that a client may be silent

    def handle_request(self):
        """Answers a request; whatever goes wrong has its answer, too."""
        self.owner = self.headers.get("X-Remote-User", "")
        try:
            reply = self.route(self.body())
        except Answer as answer:
            reply = answer.args[0], {"error": answer.args[1]}
        except ClientError as error:  # S3 refuses, as with an ETag that is not the part's
            reply = 409 if error.response["ResponseMetadata"]["HTTPStatusCode"] < 500 else 503, {"error": error.response["Error"]["Code"]}
        except Exception as error:  # without SQLSTATE the connection is lost
            state = "08000" if isinstance(error, BotoCoreError) else getattr(error, "sqlstate", "XX000") or "08000"
            status = ANSWERS.get(state) or ANSWERS.get(state[:2], 500)
            reply = status, {"error": "internal error" if status == 500 else str(error).partition("\n")[0]}
            self.log_error("%r", error)
        text = json.dumps(reply[1]).encode()
        self.send_response(reply[0])
        self.send_header("Content-Length", len(text))
        if reply[0] in (423, 503):
            self.send_header("Retry-After", 1)
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_request

    def body(self):
        """The JSON object that a client sends, if it sends something."""
        length = re.fullmatch("[0-9]{1,5}", self.headers.get("Content-Length", "0"))
        demand(length, 413, "that is too large, or Content-Length is wrong")
        try:
            return dict(json.loads(self.rfile.read(int(length[0])) or b"{}"))
        except (TypeError, ValueError):
            raise Answer(400, "that is not a JSON object")

    def route(self, body):
        found = re.fullmatch(f"/uploads(?:/({UUID})(/sign|/complete|/parts/([0-9]{{1,5}}))?)?", self.path)
        demand(found, 404, "there is no such resource")
        upload_id, action, number = found.groups()
        if self.command == "POST" and upload_id is None:
            return self.start(body)
        demand(upload_id, 405, "no such method here")
        if self.command == "DELETE" and action is None:
            return 200 if query("SELECT delete_upload(%s, %s, reclaim_complete => true) AS found", upload_id, self.owner)[0].found else 404, {}
        upload = find(upload_id, self.owner)
        if self.command == "GET" and action is None:
            return 200, state(upload)
        if self.command == "POST" and action == "/sign":
            return 200, {"urls": sign(upload, body.get("parts"))}
        if self.command == "PUT" and number is not None:
            return 200, confirm(upload, int(number), body.get("etag"), body.get("sha256") or "")
        demand(self.command == "POST" and action == "/complete", 405, "no such method here")
        return 200, complete(upload)

    def start(self, body):
        """Starts an upload.  The browser chooses the id, a UUID, and may repeat the call."""
        upload_id, name, size = body.get("id"), body.get("name"), body.get("size")
        demand(isinstance(upload_id, str) and re.fullmatch(UUID, upload_id), 400, "id is not a UUID")
        demand(isinstance(name, str) and re.fullmatch("[^\0]+", name), 400, "name is missing")
        demand(type(size) is int and 0 < size <= 10000 * PART, 400, f"size is not from 1 to {10000 * PART}")
        kind = body.get("type", "application/octet-stream")
        demand(isinstance(kind, str) and re.fullmatch("[ -~]{1,256}", kind), 400, "type is not a MIME type")
        key, data = f"uploads/{uuid.uuid4()}", None  # the storage never sees an id of the browser's
        made = {"key": key, "multipart_id": s3.create_multipart_upload(Bucket=bucket, Key=key, ContentType=kind)["UploadId"]}
        try:
            data = query(
                """SELECT provider_data FROM start_upload(%s, %s, content_type => %s, provider_data => %s, owner => %s,
                       bucket => %s, upload_id => %s, any_order => true, max_age => '7 days', or_resume => true)""",
                name, size, kind, Jsonb(made), self.owner, bucket, upload_id)[0].provider_data
        finally:
            if data != made:  # it was refused, or an earlier call has come through
                s3.abort_multipart_upload(**of_s3(made))
        return 201, state(find(upload_id, self.owner))


if __name__ == "__main__":
    bucket = sys.argv[2]
    # keys and region come from the environment; only this signature covers the length
    s3 = boto3.client("s3", endpoint_url=sys.argv[3], config=Config(signature_version="s3v4", connect_timeout=5))
    pool = ConnectionPool(sys.argv[4], timeout=5, kwargs={"autocommit": True, "row_factory": namedtuple_row})
    threading.Thread(target=reclaim, daemon=True).start()
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
