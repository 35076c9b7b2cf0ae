"""Sessions on several servers: the hash of the upload_id says on which.

Each server is a database with vali_blob and a vali_blob.node of its own.  The hash chooses one
of BUCKETS, and the list of buckets names its server, so that another server can take over
some of them.  BUCKETS never changes.  In SQL, the bucket of a session is
get_byte(decode(md5(upload_id::text), 'hex'), 0) % 64.

Listings are in the order of id, the newest first by it.  The ids of a server count its own
sessions, so bring the sequence of one that is added later up to the others', or its sessions
come last: SELECT setval(pg_get_serial_sequence('upload_session', 'id'), N), where N is the
highest id of the others, divided by 1024.
"""

import hashlib
import heapq
import uuid

BUCKETS = 64


class Shards:
    def __init__(self, servers, buckets=None):
        """servers: connections of psycopg2, in autocommit mode; buckets: the number of the
        server of each bucket."""
        self.servers = servers
        self.buckets = buckets or [bucket % len(servers) for bucket in range(BUCKETS)]

    def server(self, upload_id):
        return self.servers[self.buckets[hashlib.md5(upload_id.encode()).digest()[0] % BUCKETS]]

    def call(self, function, upload_id, **arguments):
        """Calls a function that concerns one session."""
        return query(self.server(upload_id), function, upload_id=upload_id, **arguments)

    def start(self, path, upload_id=None, **arguments):
        return self.call("start_upload", upload_id or str(uuid.uuid4()), path=path, **arguments)

    def list(self, max_rows=100, **arguments):
        """The newest sessions of all servers; the next page begins after_id of the last one."""
        lists = [query(server, "list_uploads", max_rows=max_rows, **arguments) for server in self.servers]
        newest = heapq.merge(*lists, key=lambda row: row.id, reverse=True)
        return [row for row, _ in zip(newest, range(max_rows))]


def query(server, function, **arguments):
    named = ", ".join(f"{name} => %({name})s" for name in arguments)
    with server.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {function}({named})", arguments)
        return cursor.fetchall()
