"""The benchmark: what a chunk and a whole upload cost in vali_blob, and in what
it replaces."""

import argparse
import dataclasses
import json
import os
import re
import sys
import time

import report
from servers import CLIENTS, Postgres, Redis, logged_latencies, logged_rate, percentile, wait_for

CHUNK = 8 * 1024 * 1024
CONNECTING_CALLS = 30  # of a client, until the router must have connected it to every shard
BEGIN = time.monotonic()


@dataclasses.dataclass
class Sessions:
    """A table of sessions that advance in step: a chunk each, then the next.  Or
    one that grows: each new session lives its whole life before the next."""
    database: str
    count: int
    table: str = "vali_blob.upload_session"
    calls: int = 0      # made so far by each client
    confirmed: int = 0  # bytes
    lives: int = 0      # of sessions that were new, and now are complete


@dataclasses.dataclass
class Contestant:
    script: str
    sessions: Sessions = None  # that it changes
    options: str = ""
    chunks_per_call: int = 1
    busy: int = 0  # of the sessions, spread evenly; 0: all


REDIS = Contestant("redis_client.c")
BY_SQL = "-c vali_blob.row_access=sql"

# What an upload starts with
METADATA = json.dumps({"filename": "holiday.mp4"})
PROVIDER_DATA = json.dumps({"multipart_id": 32 * "m"})


def chunk_contestants(count):
    chunks = Sessions("contestants", count)
    original = Sessions("contestants", count, "original.upload_session")
    return {
        "select_1": Contestant("select_1.sql"),
        "floor": Contestant("floor.sql"),
        "vali_blob": Contestant("vali_blob.sql", chunks),
        "vali_blob_sql": Contestant("vali_blob.sql", chunks, BY_SQL),
        "by_hand": Contestant(
            "by_hand.sql", Sessions("contestants", count, "by_hand.upload_session")),
        "by_function": Contestant(
            "by_function.sql", Sessions("contestants", count, "by_function.upload_session")),
        "original": Contestant("original.sql", original),
        "original_transaction": Contestant("original_transaction.sql", original),
        "redis": REDIS,
        "vali_blob_batch": Contestant(
            "vali_blob_batch.sql", Sessions("batches", count), chunks_per_call=100),
    }


def life_contestants(count):
    """Each with a table of its own, so that all tables grow alike."""
    return {
        "vali_blob": Contestant("vali_blob_life.sql", Sessions("lives", count)),
        "vali_blob_sql": Contestant("vali_blob_life.sql", Sessions("lives_sql", count), BY_SQL),
        "by_hand": Contestant(
            "by_hand_life.sql", Sessions("lives", count, "by_hand.upload_session")),
        "original": Contestant(
            "original_life.sql", Sessions("lives", count, "original.upload_session")),
        "redis": REDIS,
    }


READERS = {
    "get_upload": Contestant("get_upload.sql"),
    "select": Contestant("select_by_key.sql"),
}


def calls_for(rate, seconds):
    """How many calls keep each client busy for so long."""
    return max(10, int(rate * seconds / CLIENTS))


def progress(*words):
    print(f"{time.monotonic() - BEGIN:5.0f} s:", *words, file=sys.stderr, flush=True)


def commit():
    """Of the sources, as bench/run has noted it; empty if there is no repository."""
    with open("commit") as file:
        return file.read().strip()


class Benchmark:
    def __init__(self, options, folder, postgres, redis):
        self.options = options
        self.folder = folder
        self.postgres = postgres
        self.redis = redis

    # --- sessions and chunks -------------------------------------------------

    def create(self, sessions, stale=0, live_every=1):
        """Makes a database with sessions, of which one in so many is live, and
        some whose deadline is over."""
        database, count = sessions.database, sessions.count
        progress(f"Making {count + stale:,} sessions in the database {database}")
        self.postgres.sql("postgres", f"CREATE DATABASE {database}")
        self.postgres.script(database, "sessions.sql")
        self.postgres.sql(
            database,
            f"SELECT make_sessions(1, {count}, now() + '51 hours', {live_every})",
            f"SELECT make_sessions({count + 1}, {count + stale}, now() - interval '1 hour')",
            "VACUUM ANALYZE")

    def live(self, contestant, lives, chunks, **options):
        """Lets each client take a number of uploads from start to completion;
        returns lives per second."""
        sessions = contestant.sessions
        calls_per_life = chunks + 2
        rate = self.postgres.pgbench(
            sessions.database, contestant.script, lives * calls_per_life,
            options=contestant.options, chunks=chunks, step=0,
            metadata=METADATA, provider_data=PROVIDER_DATA, **options)
        sessions.lives += CLIENTS * lives
        sessions.confirmed += CLIENTS * lives * chunks * CHUNK
        return rate / calls_per_life

    def advance(self, contestant, calls, clients=CLIENTS, **options):
        """Lets each client make a number of calls; returns chunks per second."""
        sessions = contestant.sessions
        busy = contestant.busy or sessions.count
        rate = self.postgres.pgbench(
            sessions.database, contestant.script, calls, clients, options=contestant.options,
            n=sessions.calls, sessions=busy // clients, step=sessions.count // busy, **options)
        sessions.calls += calls
        sessions.confirmed += clients * calls * contestant.chunks_per_call * CHUNK
        return rate * contestant.chunks_per_call

    def check(self, sessions):
        """Every call must have done what it should."""
        confirmed, complete = map(int, self.postgres.sql(
            sessions.database,
            f"""SELECT sum(uploaded_bytes), count(*) FILTER (WHERE status = 'complete')
                FROM {sessions.table}""").split("|"))
        if (confirmed, complete) != (sessions.confirmed, sessions.lives):
            raise SystemExit(
                f"{sessions.table}: {confirmed / CHUNK} chunks have advanced instead of"
                f" {sessions.confirmed / CHUNK}, and {complete} sessions are complete"
                f" instead of {sessions.lives}")

    # --- throughput, WAL and HOT ---------------------------------------------

    def make_chunk_contestants(self):
        contestants = chunk_contestants(self.options.sessions)
        self.create(contestants["vali_blob"].sessions)
        self.create(contestants["vali_blob_batch"].sessions)
        self.postgres.script("contestants", "contestants.sql")
        self.touch_every_page(contestants)
        return contestants

    def make_life_contestants(self):
        contestants = life_contestants(self.options.sessions)
        self.create(contestants["vali_blob"].sessions)
        self.postgres.sql("postgres", "CREATE DATABASE lives_sql TEMPLATE lives")
        self.postgres.script("lives", "contestants.sql")
        return contestants

    def make_key_contestants(self):
        """Chunks of a table that foreign keys lead to and from, and of one
        without."""
        contestants = {database: Contestant("vali_blob.sql", Sessions(database, self.options.sessions))
                       for database in ("foreign_keys", "no_foreign_keys")}
        for contestant in contestants.values():
            self.create(contestant.sessions)
        self.postgres.script("foreign_keys", "foreign_keys.sql")
        self.touch_every_page(contestants)
        return contestants

    def make_part_contestants(self):
        """Chunks that leave no part, that leave one, and that come in any order."""
        contestants = {
            "no_part": Contestant("vali_blob.sql", Sessions("no_parts", self.options.sessions)),
            "part": Contestant("vali_blob_part.sql", Sessions("parts", self.options.sessions)),
            "any_order": Contestant("vali_blob_part.sql", Sessions("any_order", self.options.sessions)),
        }
        for contestant in contestants.values():
            self.create(contestant.sessions)
        self.postgres.sql("any_order", "UPDATE vali_blob.upload_session SET any_order = true, rules_version = 1",
                          "VACUUM FULL ANALYZE")
        self.touch_every_page(contestants)
        return contestants

    def make_notify_contestants(self):
        """Lives with each level of notifications, in one table."""
        lives = Sessions("notifications", self.options.sessions)
        self.create(lives)
        return {level: Contestant("vali_blob_life.sql", lives, f"-c vali_blob.notify={level}")
                for level in ("off", "lifecycle", "progress")}

    def touch_every_page(self, contestants):
        """After a checkpoint, the first change of a page writes an image of it
        to the WAL; here nearly all of that is over before anything is measured."""
        progress("A chunk for every session")
        self.postgres.sql("postgres", "CHECKPOINT")
        for contestant in contestants.values():
            if contestant.sessions and contestant.sessions.calls == 0:
                self.advance(contestant,
                             contestant.sessions.count // CLIENTS // contestant.chunks_per_call)

    def rounds(self, what, contestants, seconds, durable=False, life=0):
        """Lets all contestants run, in rounds; each round begins with another
        one.  Chunks of sessions that are there already, or the lives of new ones
        with so many chunks each."""
        names = list(contestants)
        rounds = {name: [{"rate": 1000 / (life + 1)}] for name in names}
        for number in range(self.options.rounds + 1):
            progress("Durable" if durable else "Relaxed", f"{what}:",
                     f"round {number} of {self.options.rounds}" if number > 0 else "warming up")
            for name in names[number:] + names[:number]:
                rate = rounds[name][-1]["rate"]
                rounds[name].append(self.run_round(
                    contestants[name], rate, seconds if number > 0 else 1, durable, life))
        return {name: figures[2:] for name, figures in rounds.items()}

    def run_round(self, contestant, rate, seconds, durable, life):
        """A round of one contestant: its chunks or lives per second, and more."""
        sessions = contestant.sessions
        calls = calls_for(rate / contestant.chunks_per_call, seconds)
        if contestant is REDIS:
            return {"rate": self.redis.rate(calls, durable, life)}
        if sessions is None:
            return {"rate": self.postgres.pgbench("contestants", contestant.script, calls,
                                                  durable=durable, sessions=self.options.sessions)}
        before = self.counters(sessions)
        if life:
            rate = self.live(contestant, calls, life, durable=durable)
        else:
            rate = self.advance(contestant, calls, durable=durable)
        done = calls * CLIENTS * contestant.chunks_per_call
        wal = self.wal_since(before, sessions, done, updates=done * (life + 1))
        self.check(sessions)
        return {"rate": rate, **wal}

    def counters(self, sessions):
        return json.loads(self.postgres.sql(
            sessions.database,
            f"""SELECT json_build_object('lsn', pg_current_wal_insert_lsn(),
                    'updates', n_tup_upd, 'hot', n_tup_hot_upd)
                FROM pg_stat_user_tables WHERE relid = '{sessions.table}'::regclass"""))

    def wal_since(self, before, sessions, done, updates):
        """What a chunk or a life has written to the WAL, in bytes, with the
        images of pages that it was the first to touch apart, and how many of the
        updates were HOT."""
        def complete_counters():
            counters = self.counters(sessions)
            return counters if counters["updates"] - before["updates"] >= updates else None

        after = wait_for(complete_counters, f"statistics of {updates} updates")
        # pg_walinspect reads only what is on disk; this commit sees to it.
        self.postgres.sql("postgres", "SELECT pg_logical_emit_message(true, 'bench', '')")
        start, end = f"'{before['lsn']}'", f"'{after['lsn']}'"
        total, images, records = json.loads(self.postgres.sql(
            sessions.database,
            f"""SELECT json_build_array({end}::pg_lsn - {start}::pg_lsn, sum(fpi_size),
                    json_object_agg("resource_manager/record_type", record_size))
                FROM pg_get_wal_stats({start}, {end}, true) WHERE combined_size > 0"""))
        return {
            "bytes": (total - images) / done,
            "images": images / done,
            "records": {record: size / done for record, size in records.items()},
            "hot": (after["hot"] - before["hot"]) / (after["updates"] - before["updates"]),
        }

    # --- a sweep -------------------------------------------------------------

    def sweep(self, stale):
        """Latencies of durable chunks before, while and after stale sessions
        are swept, in slices."""
        contestant = Contestant("vali_blob.sql", Sessions("sweep", self.options.sessions))
        self.create(contestant.sessions, stale)
        self.advance(contestant, contestant.sessions.count // CLIENTS)
        rate = self.advance(contestant, 1000, durable=True)
        calls = calls_for(rate, self.options.seconds)

        def slices(go_on):
            figures = []
            while go_on(len(figures)):
                log = f"{self.folder}/latency"
                self.advance(contestant, calls, durable=True, log=log)
                latencies = logged_latencies(log)
                figures.append([percentile(latencies, 0.5), percentile(latencies, 0.99)])
            return figures

        progress("Chunks before the sweep")
        before = slices(lambda done: done < self.options.rounds)
        progress("Chunks during the sweep")
        self.postgres.sql("sweep", "ALTER DATABASE sweep SET vali_blob.sweep = on",
                          "ALTER DATABASE sweep SET vali_blob.sweep_interval = '1s'",
                          "SELECT pg_reload_conf()")
        wait_for(lambda: self.expired() > 0, "the sweep to begin")
        during = slices(lambda _: self.expired() < stale)
        progress("Chunks after the sweep")
        after = slices(lambda done: done < self.options.rounds)
        self.check(contestant.sessions)
        seconds = float(self.postgres.sql(
            "sweep", "SELECT extract(epoch FROM max(updated_at) - min(updated_at))"
                     " FROM vali_blob.upload_session WHERE status = 'expired'"))
        self.postgres.sql("postgres", "DROP DATABASE sweep (FORCE)")
        # The last slice saw the end of the sweep.
        return {"stale": stale, "seconds": seconds,
                "before": before, "during": during[:-1] or during, "after": after}

    def expired(self):
        return int(self.postgres.sql("sweep", "SELECT total_expired FROM vali_blob.sweeper_status()"))

    # --- leases and limits ----------------------------------------------------

    def leases(self):
        """Milliseconds for the calls that a lease takes, and for a chunk between
        them."""
        contestant = Contestant("vali_blob_lease.sql", Sessions("leases", self.options.sessions))
        sessions = contestant.sessions
        self.create(sessions)
        figures = []
        for number in range(self.options.rounds + 1):
            progress(f"Leases: round {number} of {self.options.rounds}")
            calls = calls_for(3000, self.options.seconds)
            figures.append(self.postgres.statement_latencies(
                sessions.database, contestant.script, calls, n=sessions.calls,
                sessions=sessions.count // CLIENTS, step=1))
            sessions.calls += calls
            sessions.confirmed += CLIENTS * calls * CHUNK
            self.check(sessions)
        return dict(zip(("acquire", "chunk", "renew", "release"), zip(*figures[1:])))

    def limits(self, ended):
        """Milliseconds for a start by one client, with and without limits: in a
        database without any, in one with limits of others, and under limits."""
        progress(f"An owner with 10,000 live sessions and {ended:,} that have ended")
        self.create(Sessions("no_limits", self.options.sessions))
        self.create(Sessions("limits", self.options.sessions))
        self.postgres.script("limits", "limits.sql", ended=ended)
        contestants = {"none": ("no_limits", "1"), "others": ("limits", "1"), "limited": ("limits", "limited")}
        figures = {name: [] for name in contestants}
        for number in range(self.options.rounds + 1):
            for name, (database, owner) in contestants.items():
                calls = 100 if name == "limited" else 2000
                figures[name].append(1000 / self.postgres.pgbench(
                    database, "start.sql", calls, clients=1, owner=owner))
        return {"ended": ended, **{name: values[1:] for name, values in figures.items()}}

    # --- a router ------------------------------------------------------------

    def router(self, shards=3):
        """Calls per second directly and through a router, in turns; all databases
        are of one server."""
        if not self.postgres.sql("postgres", "SELECT 1 FROM pg_available_extensions WHERE name = 'plproxy'"):
            progress("PL/Proxy is not there")
            return None
        count = 1000 * CLIENTS
        stored = {"direct": ["direct"], "router": [f"shard_{number}" for number in range(shards)]}
        self.create(Sessions("direct", count))
        for database in [*stored["router"], "router"]:
            self.create(Sessions(database, 0))
        self.postgres.script("router", "router.sql", shards=shards, host=self.folder, sessions=count)
        for database in stored:
            self.postgres.script(database, "raise_conflict.sql")

        measurements = [(script, durable, clients) for durable in (True, False) for clients in (1, CLIENTS)
                        for script in ("vali_blob.sql", "vali_blob_batch.sql")]
        measurements += [(f"conflict_{kind}.sql", False, 1) for kind in ("outcome", "raised")]
        # the rates to begin with: after an error that is raised, a call connects anew
        figures = {measurement: {database: [100 if "raised" in measurement[0] else 1000] for database in stored}
                   for measurement in measurements}
        for number in range(self.options.rounds + 1):
            progress(f"Router: round {number} of {self.options.rounds}")
            for measurement, rates in figures.items():
                for database, written in stored.items():
                    rates[database].append(self.routed(
                        database, written, count, *measurement, rates[database][-1]))
        return [{"script": script, "durable": durable, "clients": clients,
                 **{database: rates[2:] for database, rates in figures[script, durable, clients].items()}}
                for script, durable, clients in measurements]

    def routed(self, database, written, count, script, durable, clients, rate):
        """Calls per second in a database whose sessions are in others, or in itself.
        The sessions begin anew."""
        for of in written:
            # connections of PL/Proxy have this setting of the database
            self.postgres.sql(of, f"ALTER DATABASE {of} SET synchronous_commit = {'on' if durable else 'off'}",
                              "UPDATE vali_blob.upload_session SET uploaded_bytes = 0", "VACUUM vali_blob.upload_session")
        chunks = {"vali_blob.sql": 1, "vali_blob_batch.sql": 100}.get(script, 0)
        contestant = Contestant(script, Sessions(database, count), chunks_per_call=chunks)
        calls = CONNECTING_CALLS + max(10, int(rate * self.options.seconds / clients))
        log = f"{self.folder}/router.log"
        self.advance(contestant, calls, clients, durable=durable, log=log)
        rate = logged_rate(log, CONNECTING_CALLS)
        confirmed = sum(int(self.postgres.sql(of, "SELECT sum(uploaded_bytes) FROM vali_blob.upload_session"))
                        for of in written)
        if confirmed != contestant.sessions.confirmed:
            raise SystemExit(f"{database}: {confirmed} bytes are confirmed instead of {contestant.sessions.confirmed}")
        return rate

    # --- the parts of one session --------------------------------------------

    def many_parts(self, many):
        """What a part costs in a session with many parts, against the first ones
        of another; what it writes to the WAL, against a JSON document with as many
        ETags; and how long it takes to list them."""
        progress(f"A session with {many:,} parts")
        sessions = Sessions("one_session", 1000)
        self.create(sessions)
        self.postgres.script(sessions.database, "milliseconds.sql")
        self.postgres.sql(sessions.database,
                          "UPDATE vali_blob.upload_session SET any_order = true, rules_version = 1 WHERE id > 1")
        calls, half = 500, many // 10
        full, in_json, in_parts = (4000000000000000001 + i for i in (1, 0, 2))

        def send(script, session, first, count):
            return self.postgres.pgbench(sessions.database, script, count, clients=1, id=session, n=first)

        def wal(script, session):
            send(script, session, 0, half)
            before = self.counters(sessions)
            send(script, session, half, 100)
            return self.wal_since(before, sessions, 100, updates=100)["bytes"]

        send("parts_of_one.sql", full, 0, many)
        first, last = [], []
        for number in range(self.options.rounds):
            first.append(1e6 / send("parts_of_one.sql", 4000000000000000010 + number, 0, calls))
            last.append(1e6 / send("parts_of_one.sql", full, many + number * calls, calls))
        return {
            "many": many, "first": first, "last": last,
            "half": half, "wal": wal("parts_of_one.sql", in_parts), "json_wal": wal("parts_in_json.sql", in_json),
            "times": {function: json.loads(self.postgres.sql(
                          sessions.database,
                          f"SELECT milliseconds($$SELECT count(*) FROM vali_blob.{function}('{full}', max_rows => {many})$$,"
                          f" {self.options.rounds})"))
                      for function in ("list_parts", "missing_ranges")},
        }

    # --- size and memory -----------------------------------------------------

    def sizes(self, tables):
        """Microseconds for a chunk in tables of different size: with as many
        busy sessions in each, then with all of them busy."""
        counts = [sessions.count for sessions in tables]
        for sessions in tables:
            self.create(sessions)
        few = self.costs([Contestant("vali_blob.sql", sessions, busy=min(counts))
                          for sessions in tables])
        for sessions in tables:
            self.check(sessions)
            self.postgres.sql(sessions.database,
                              f"UPDATE {sessions.table} SET uploaded_bytes = 0 WHERE uploaded_bytes > 0")
            sessions.calls = sessions.confirmed = 0
        every = self.costs([Contestant("vali_blob.sql", sessions) for sessions in tables])
        for sessions in tables:
            self.check(sessions)
        return [{"sessions": count, "few": few[count], "all": every[count]} for count in counts]

    def costs(self, contestants):
        costs = {contestant.sessions.count: [] for contestant in contestants}
        rate = min(self.advance(contestant, 2000) for contestant in contestants)
        for number in range(self.options.rounds):
            progress(f"Tables of different size: round {number + 1} of {self.options.rounds}")
            for contestant in contestants:
                calls = calls_for(rate, self.options.seconds / 2)
                costs[contestant.sessions.count].append(1e6 / self.advance(contestant, calls))
        return costs

    def partitions(self, plain, count):
        """Microseconds for a chunk in a plain table, and in one of the same sessions with
        hash partitions."""
        progress(f"Making {count} partitions of {plain.count:,} sessions")
        partitioned = dataclasses.replace(plain, database="partitions")
        self.postgres.sql("postgres", f"CREATE DATABASE partitions TEMPLATE {plain.database}")
        self.postgres.script("partitions", "partitions.sql")
        self.postgres.sql("partitions", f"CALL make_partitions({count})", "VACUUM ANALYZE")
        tables = {"plain": Contestant("vali_blob.sql", plain), "partitioned": Contestant("vali_blob.sql", partitioned)}
        costs = {name: [] for name in tables}
        rate = min(self.advance(table, 500) for table in tables.values())
        for number in range(self.options.rounds):
            progress(f"Partitions: round {number + 1} of {self.options.rounds}")
            for name, table in tables.items():
                costs[name].append(1e6 / self.advance(table, calls_for(rate, self.options.seconds / 2)))
        for table in tables.values():
            self.check(table.sessions)
        self.postgres.sql("postgres", "DROP DATABASE partitions (FORCE)")
        return {"sessions": plain.count, "partitions": count, **costs}

    def memory(self, early, late):
        """What one backend uses after some calls, and after many."""
        contestant = Contestant("memory.sql", Sessions("memory", 10_000))
        self.create(contestant.sessions)
        progress(f"Memory of {late:,} calls")
        self.postgres.sql("memory", "CREATE TABLE memory (calls bigint, contexts bigint, status text)")
        # Only a superuser may see these figures.
        self.advance(contestant, late, clients=1, user="postgres", made=0, early=early, late=late)
        self.check(contestant.sessions)
        return json.loads(self.postgres.sql("memory", r"""
            SELECT json_agg(json_build_object('calls', calls, 'contexts', contexts,
                'own', 1024 * substring(status, 'RssAnon:\s*(\d+)')::bigint,
                'peak', 1024 * substring(status, 'VmHWM:\s*(\d+)')::bigint) ORDER BY calls)
            FROM memory"""))

    # --- listings and big arguments ------------------------------------------

    def listings(self, sessions):
        """Milliseconds for what reads many of the sessions: a fifth of them has
        one owner, and 200 old ones have another."""
        progress(f"Listings of {sessions.count:,} sessions")
        self.postgres.sql(
            sessions.database,
            f"UPDATE {sessions.table} SET owner = 'many' WHERE id % 5 = 0",
            f"UPDATE {sessions.table} SET owner = 'few' WHERE id % 5 = 1 AND id <= 1000",
            "VACUUM ANALYZE")
        queries = {
            f"newest 100 of an owner of {sessions.count // 5:,}":
                "vali_blob.list_uploads(owner => 'many')",
            "newest 100 of an owner of 200 old ones": "vali_blob.list_uploads(owner => 'few')",
            "newest 100 of 200 below a path":
                "vali_blob.list_uploads(path_prefix => 'videos/2025/user-17/')",
            f"newest 100 of {sessions.count:,} below a path":
                "vali_blob.list_uploads(path_prefix => 'videos/')",
        }
        self.postgres.script(sessions.database, "milliseconds.sql")
        return {"sessions": sessions.count,
                "times": {what: json.loads(self.postgres.sql(
                              sessions.database,
                              f"SELECT milliseconds($$SELECT * FROM {query}$$, {self.options.rounds})"))
                          for what, query in queries.items()}}

    def statistics(self, count, live):
        """What it costs one session to ask for upload_stats, the first time and
        then again, while some sessions are live and all others have ended."""
        sessions = Sessions(f"statistics_{count}", count)
        self.create(sessions, live_every=count // live)
        self.postgres.script(sessions.database, "upload_stats.sql")
        progress(f"upload_stats of {count:,} sessions")
        first, *again = json.loads(self.postgres.sql(
            sessions.database, f"SELECT ask_stats({self.options.rounds + 1})"))
        self.postgres.sql("postgres", f"DROP DATABASE {sessions.database}")
        return {"sessions": count, "live": live, "first": first, "again": again}

    def big_arguments(self, sessions, megabytes, lengths):
        """What a call with a big argument takes: time and memory of a backend."""
        database, times = sessions.database, 3
        self.postgres.script(database, "big_arguments.sql")
        figures = []

        def measure(what, query, before=None):
            progress("Big arguments:", what)
            runs = []
            for run in range(times):
                if before:
                    self.postgres.sql(database, before)
                call = query.format(id=4000000000000000001 + len(figures) * times + run)
                milliseconds, memory = self.postgres.watch(
                    database, f"SELECT milliseconds($${call}$$, 1)->0")
                runs.append([float(milliseconds), memory])
            figures.append({"what": what, "runs": runs})

        for size in megabytes:
            self.postgres.sql(database, f"SELECT make_object({size})")
            measure(f"`merge_upload_data` of {size} MB",
                    "SELECT upload_id FROM object, vali_blob.merge_upload_data('{id}', object.value)")
            measure(f"hand-written `metadata || …` of {size} MB",
                    "UPDATE vali_blob.upload_session SET metadata = metadata || object.value,"
                    " updated_at = now() FROM object WHERE upload_id = '{id}'")
        for length in lengths:
            measure(f"`advance_uploads` of {length:,} chunks",
                    "SELECT count(*) FROM chunks, vali_blob.advance_uploads(ids, offsets, lengths)",
                    before=f"SELECT make_chunks({length})")
            sessions.confirmed += times * length * CHUNK
        self.check(sessions)
        return figures

    # --- all of it -----------------------------------------------------------

    def machine(self):
        with open("/proc/cpuinfo") as cpuinfo, open("/proc/meminfo") as meminfo:
            processor = re.search(r"model name\s*: (.*)", cpuinfo.read())
            memory = re.search(r"MemTotal:\s*(\d+)", meminfo.read())
        return {
            "cores": os.cpu_count(),
            "processor": processor[1] if processor else os.uname().machine,
            "memory": int(memory[1]) * 1024,
            "kernel": os.uname().release.split("-")[0],
            "postgres": self.postgres.sql("postgres", "SHOW server_version"),
            "redis": self.redis.version(),
            "fsyncs": self.fsyncs(),
        }

    def fsyncs(self, seconds=2):
        """How many times a second one writer can bring a block to the disk."""
        file = os.open(f"{self.folder}/fsync", os.O_CREAT | os.O_RDWR)
        begin, count = time.monotonic(), 0
        while time.monotonic() < begin + seconds:
            os.pwrite(file, bytes([count % 256]) * 8192, 0)
            os.fdatasync(file)
            count += 1
        os.close(file)
        return count / seconds

    def run(self):
        quick, long = self.options.quick, self.options.long
        results = {"command": self.options.command, "sessions": self.options.sessions,
                   "commit": commit(), "machine": self.machine()}
        seconds = self.options.seconds
        chunks = self.make_chunk_contestants()
        results["durable"] = self.rounds("chunks", chunks, seconds, durable=True)
        results["relaxed"] = self.rounds("chunks", chunks, seconds)
        results["readers"] = self.rounds("reads", READERS, seconds / 2)
        lives = self.make_life_contestants()
        results["lives"] = [
            {"chunks": count,
             "durable": self.rounds(f"lives of {count}", lives, seconds / 2, durable=True, life=count),
             "relaxed": self.rounds(f"lives of {count}", lives, seconds / 2, life=count)}
            for count in (1, 8)]
        keys = self.make_key_contestants()
        results["foreign_keys"] = self.rounds("chunks and foreign keys", keys, seconds / 2)
        parts = self.make_part_contestants()
        results["parts"] = self.rounds("chunks and parts", parts, seconds / 2)
        results["many_parts"] = self.many_parts(10_000)
        results["leases"] = self.leases()
        results["limits"] = self.limits(100_000 if quick else 1_000_000)
        notify = self.make_notify_contestants()
        results["notify"] = {
            kind: self.rounds("notifications", notify, seconds / 2, durable=kind == "durable", life=8)
            for kind in ("durable", "relaxed")}
        results["sweep"] = self.sweep(50_000 if quick else 1_000_000)
        tables = [Sessions(f"sessions_{count}", count)
                  for count in [10_000, 100_000 if quick else 1_000_000] + ([10_000_000] if long else [])]
        results["sizes"] = self.sizes(tables)
        results["listings"] = self.listings(tables[1])
        results["partitions"] = self.partitions(tables[-1], 16)
        results["statistics"] = [self.statistics(sessions.count, sessions.count // 100) for sessions in tables[1:]]
        results["big_arguments"] = self.big_arguments(
            tables[1], [1, 10 if quick else 100],
            [1_000, 10_000, 100_000] if quick else [10_000, 100_000, 1_000_000])
        results["memory"] = self.memory(10_000, 100_000 if quick else 1_000_000)
        results["router"] = self.router()
        results["minutes"] = (time.monotonic() - BEGIN) / 60
        return results


def parse_options():
    """bench/run explains and checks them."""
    parser = argparse.ArgumentParser(prog="bench/run", add_help=False)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float)
    options = parser.parse_args()
    options.command = " ".join(["bench/run", *sys.argv[1:]])
    options.sessions = 20_000 if options.quick else 100_000
    options.rounds = options.rounds or (2 if options.quick else 7)
    options.seconds = options.seconds or (1 if options.quick else 3)
    return options


def main():
    options = parse_options()
    folder = os.environ["TMPDIR"]
    with Postgres(folder) as postgres, Redis(folder, options.sessions) as redis:
        results = Benchmark(options, folder, postgres, redis).run()
    try:
        report.print_report(results)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    # The file of --json, or /dev/null; both are open since before this was
    # another user's process.
    with open(3, "w") as file:
        if os.fstat(3).st_size > 0:
            file.truncate(0)
        json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
