"""What a connection pool with two server connections keeps for a client, and what not.

    pool_client.py prepared|set|statements CONNECTION_STRING

Each answer, or SQLSTATE, becomes a line.  "prepared" and "set" let other clients have the
server connection that the client has just used, so that its next call gets the other one."""

import contextlib
import sys

import psycopg

PID = "SELECT pg_backend_pid()"
ADVANCE = "SELECT outcome, pg_backend_pid() FROM try_advance_upload('prepared', %s, 10)"
IS_SHORT = "SELECT expires_at < created_at + interval '2 hours' FROM start_upload('file')"


def tell(client, query, *arguments, **options):
    """Returns the first row, of which it prints the first column."""
    try:
        row = client.execute(query, arguments, **options).fetchone()
        print(row[0])
        return row
    except psycopg.Error as error:
        print(error.sqlstate or error)
        return None


@contextlib.contextmanager
def held(connection, pid):
    """Another client has a server connection, in a transaction."""
    holders = [psycopg.connect(connection), psycopg.connect(connection)]
    for holder, used in [(holder, holder.execute(PID).fetchone()[0]) for holder in holders]:
        if used != pid:
            holder.rollback()
    yield
    for holder in holders:
        holder.close()


def prepared(connection):
    with psycopg.connect(connection, autocommit=True) as client:
        _, pid = tell(client, ADVANCE, 0, prepare=True)
        with held(connection, pid):
            tell(client, ADVANCE, 10, prepare=True)
            tell(client, ADVANCE, 10, prepare=False)


def settings(connection):
    with psycopg.connect(connection, autocommit=True) as client:
        with client.transaction():
            client.execute("SET LOCAL vali_blob.session_ttl = '1h'")
            tell(client, IS_SHORT)
        tell(client, IS_SHORT)
        answer = client.execute(f"SET vali_blob.session_ttl = '1h'; {PID}")
        answer.nextset()
        pid, = answer.fetchone()
        with held(connection, pid):
            tell(client, IS_SHORT)


def statements(connection):
    with psycopg.connect(connection, autocommit=True) as client:
        tell(client, "SELECT status FROM start_upload('file', 20, upload_id => 'statements')")
        tell(client, "SELECT epoch FROM acquire_upload_lease('statements', 'a')")
        tell(client, "SELECT string_agg(outcome::text, ' ') FROM advance_uploads(%s, %s, %s, lease_epochs => %s)",
             ["statements"], [0], [20], [1])
        tell(client, "SELECT status FROM complete_upload('statements')")
    tell(psycopg.connect(connection), "SELECT status FROM get_upload('statements')")


{"prepared": prepared, "set": settings, "statements": statements}[sys.argv[1]](sys.argv[2])
