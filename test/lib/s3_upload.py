"""Uploads a file to an S3 server in parts: eight processes send them in random
order, and are killed again and again, while vali_blob keeps what is confirmed.

    s3_upload.py ENDPOINT CONNECTION_STRING FILE

Prints how many processes were killed, and whether the object is the file."""

import hashlib
import multiprocessing
import os
import random
import sys
import time

import boto3
import psycopg2

PART = 5 * 1024 * 1024
WRITERS = 8
KILLS = 20


def storage(endpoint):
    return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1",
                        aws_access_key_id="S3RVER", aws_secret_access_key="S3RVER")


def query(database, statement, *arguments):
    with database, database.cursor() as cursor:
        cursor.execute(statement, arguments)
        return cursor.fetchall()


def missing_parts(database):
    """The numbers of the parts that are still to be sent."""
    ranges = query(database, "SELECT chunk_offset, chunk_length FROM missing_ranges('s3')")
    return [1 + offset // PART for begin, length in ranges
            for offset in range(begin, begin + length, PART)]


def write(endpoint, connection, file, share):
    """A process that sends what is missing of its share, in random order: bytes
    first, then the confirmation.  Nobody else sends the same, as vali_blob sees no
    bytes: s3rver takes what a process that is killed has sent of a part for the
    part."""
    database, s3 = psycopg2.connect(connection), storage(endpoint)
    [(multipart, size)] = query(
        database, "SELECT provider_data->>'multipart_id', total_size FROM get_upload('s3')")
    while numbers := [number for number in missing_parts(database) if number % WRITERS == share]:
        number = random.choice(numbers)
        offset = (number - 1) * PART
        file.seek(offset)
        data = file.read(min(PART, size - offset))
        part = s3.upload_part(Bucket="bucket", Key="file", UploadId=multipart, PartNumber=number, Body=data)
        [(outcome,)] = query(
            database,
            "SELECT outcome FROM advance_upload('s3', %s, %s, part_number => %s, etag => %s, checksum => %s)",
            offset, len(data), number, part["ETag"], hashlib.sha256(data).digest())
        assert outcome in ("advanced", "replayed"), outcome


def start_writer(endpoint, connection, name, share):
    def body():
        with open(name, "rb") as file:
            write(endpoint, connection, file, share)

    writer = multiprocessing.get_context("fork").Process(target=body)
    writer.start()
    return writer


def main():
    endpoint, connection, name = sys.argv[1:]
    database, s3 = psycopg2.connect(connection), storage(endpoint)
    s3.create_bucket(Bucket="bucket")
    multipart = s3.create_multipart_upload(Bucket="bucket", Key="file")["UploadId"]
    query(database,
          "SELECT upload_id FROM start_upload('file', %s, bucket => 'bucket', upload_id => 's3', any_order => true,"
          " provider_data => jsonb_build_object('multipart_id', %s::text))", os.path.getsize(name), multipart)

    writers = [start_writer(*sys.argv[1:], share) for share in range(WRITERS)]
    killed = 0
    while missing_parts(database):
        # one that has work is killed once a further part is confirmed
        [(confirmed,)] = query(database, "SELECT count(*) FROM list_parts('s3')")
        while missing_parts(database) and query(database, "SELECT count(*) FROM list_parts('s3')") == [(confirmed,)]:
            time.sleep(0.005)
        alive = [share for share in range(WRITERS) if writers[share].is_alive()]
        if killed < KILLS and alive:
            share = random.choice(alive)
            writers[share].kill()
            writers[share].join()
            killed += 1
            writers[share] = start_writer(*sys.argv[1:], share)
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0, writer.exitcode

    parts = query(database, "SELECT part_number, etag FROM list_parts('s3')")
    done = s3.complete_multipart_upload(
        Bucket="bucket", Key="file", UploadId=multipart,
        MultipartUpload={"Parts": [{"PartNumber": number, "ETag": etag} for number, etag in parts]})
    query(database, "SELECT status FROM complete_upload('s3', jsonb_build_object('etag', %s::text))", done["ETag"])
    stored = s3.get_object(Bucket="bucket", Key="file")["Body"].read()
    with open(name, "rb") as file:
        print(f"{killed} killed, {len(parts)} parts, the object is",
              "the file" if stored == file.read() else "something else")


if __name__ == "__main__":
    main()
