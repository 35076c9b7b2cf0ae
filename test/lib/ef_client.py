"""The statements that Entity Framework sends for the table of Vali-Blob's sessions,
with parameters of the types that Npgsql gives them, in binary format, prepared.

    ef_client.py CONNECTION_STRING TABLE

Reads a JSON array of [WHAT, {COLUMN: VALUE}] on standard input: insert, find, update,
delete; find and delete take the key only.  Prints a JSON array of what each has
reported: the command tag, the row that was found (null: none), or the SQLSTATE."""

import datetime
import json
import sys

import psycopg
from psycopg.types.datetime import DatetimeBinaryDumper
from psycopg.types.numeric import Int8BinaryDumper
from psycopg.types.string import StrBinaryDumper, StrBinaryDumperVarchar

VARCHARS = ("UploadId", "Path")
KEY = "UploadId"


class Varchar(str):
    """A property with a greatest length"""


def parameter(column, value):
    if column in VARCHARS and value is not None:
        return Varchar(value)
    if column in ("CreatedAt", "ExpiresAt") and value is not None:
        return datetime.datetime.fromisoformat(value)
    return value


def statement(what, table, columns):
    table = table.replace("%", "%%")
    key = f'"{KEY}" = %b'
    if what == "insert":
        names = ", ".join(f'"{column}"' for column in columns)
        return f"INSERT INTO {table} ({names}) VALUES ({', '.join(['%b'] * len(columns))})"
    if what == "find":
        names = ", ".join(f'v."{column}"' for column in ALL)
        return f"SELECT {names} FROM {table} AS v WHERE v.{key} LIMIT 1"
    if what == "update":
        changes = ", ".join(f'"{column}" = %b' for column in columns if column != KEY)
        return f"UPDATE {table} SET {changes} WHERE {key}"
    return f"DELETE FROM {table} WHERE {key}"


def run(connection, table, what, row):
    columns = sorted(row, key=lambda column: (column == KEY) == (what == "update"))
    query = statement(what, table, columns)
    with connection.cursor() as cursor:
        try:
            cursor.execute(query, [parameter(column, row[column]) for column in columns], prepare=True)
        except psycopg.Error as error:
            return error.sqlstate
        if what != "find":
            return cursor.statusmessage
        found = cursor.fetchone()
        return found and {column: value.isoformat() if isinstance(value, datetime.datetime) else value
                          for column, value in zip(ALL, found)}


ALL = ["UploadId", "BucketOverride", "BytesUploaded", "ContentType", "CreatedAt", "ExpiresAt",
       "IsAborted", "IsComplete", "MetadataJson", "Path", "ProviderDataJson", "TotalSize"]
connection = psycopg.connect(sys.argv[1], autocommit=True)
connection.adapters.register_dumper(int, Int8BinaryDumper)
connection.adapters.register_dumper(str, StrBinaryDumper)
connection.adapters.register_dumper(Varchar, StrBinaryDumperVarchar)
connection.adapters.register_dumper(datetime.datetime, DatetimeBinaryDumper)
print(json.dumps([run(connection, sys.argv[2], *call) for call in json.load(sys.stdin)]))
