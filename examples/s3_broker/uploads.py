"""The uploads of the broker: their sessions in PostgreSQL, their bytes in S3."""

import contextlib
import re
import sys
import time
import uuid

import boto3
import psycopg
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


def connect(name, endpoint, database):
    """Says where all that follows takes place.  Keys and region come from the environment."""
    global bucket, s3, pool
    bucket = name
    # only this signature covers the length
    s3 = boto3.client("s3", endpoint_url=endpoint, config=Config(signature_version="s3v4", connect_timeout=5))
    pool = ConnectionPool(database, timeout=5, kwargs={"autocommit": True, "row_factory": namedtuple_row})


def sqlstate(error):
    """The SQLSTATE of an error, or what fits if it is not the database's."""
    lost = isinstance(error, (psycopg.OperationalError, BotoCoreError))
    refused = isinstance(error, (psycopg.DataError, UnicodeEncodeError))  # no text of the database has such characters
    return getattr(error, "sqlstate", None) or ("08000" if lost else "22000" if refused else "XX000")


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


def start(owner, body):
    """Starts an upload.  The browser chooses the id, a UUID, and may repeat the call."""
    upload_id, name, size = body.get("id"), body.get("name"), body.get("size")
    demand(isinstance(upload_id, str) and re.fullmatch(UUID, upload_id), 400, "id is not a UUID")
    demand(isinstance(name, str) and re.fullmatch("[^\0\ud800-\udfff]+", name), 400, "name is missing, or no text")
    demand(type(size) is int and 0 < size <= 10000 * PART, 400, f"size is not from 1 to {10000 * PART}")
    kind = body.get("type", "application/octet-stream")
    demand(isinstance(kind, str) and re.fullmatch("[ -~]{1,256}", kind), 400, "type is not a MIME type")
    key = f"uploads/{uuid.uuid4()}"  # the storage never sees an id of the browser's
    made = {"key": key, "multipart_id": s3.create_multipart_upload(Bucket=bucket, Key=key, ContentType=kind)["UploadId"]}
    try:
        data = query(
            """SELECT provider_data FROM start_upload(%s, %s, content_type => %s, provider_data => %s, owner => %s,
                   bucket => %s, upload_id => %s, any_order => true, max_age => '7 days', or_resume => true)""",
            name, size, kind, Jsonb(made), owner, bucket, upload_id)[0].provider_data
    except Exception as error:
        if sqlstate(error)[:2] not in ("08", "57", "XX"):  # with these it may be committed, and the answer lost
            s3.abort_multipart_upload(**of_s3(made))
        raise
    if data != made:  # an earlier call has come through
        s3.abort_multipart_upload(**of_s3(made))
    return state(find(upload_id, owner))


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
                except (BotoCoreError, ClientError, KeyError, TypeError) as error:
                    query("SELECT fail_reclaim(%s, %s)", row.id, repr(error))
        except Exception as error:
            print("reclaim:", error, file=sys.stderr)
        time.sleep(1)
