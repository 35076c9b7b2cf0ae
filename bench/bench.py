"""The benchmark: what a chunk costs in vali_blob, and in what it replaces."""

import argparse
import dataclasses
import json
import os
import re
import sys
import time

import report
from servers import CLIENTS, Postgres, Redis, logged_latencies, percentile, wait_for

CHUNK = 8 * 1024 * 1024
BEGIN = time.monotonic()


@dataclasses.dataclass
class Sessions:
    """A table of sessions that advance in step: a chunk each, then the next."""
    database: str
    count: int
    table: str = "vali_blob.upload_session"
    calls: int = 0      # made so far by each client
    confirmed: int = 0  # bytes


@dataclasses.dataclass
class Contestant:
    script: str
    sessions: Sessions
    options: str = ""
    chunks_per_call: int = 1
    busy: int = 0  # of the sessions, spread evenly; 0: all


def make_contestants(count):
    """All by their names; what has no table here is not PostgreSQL's, or has
    nothing to write."""
    chunks = Sessions("contestants", count)
    original = Sessions("contestants", count, "original.upload_session")
    return {
        "select_1": None,
        "vali_blob": Contestant("vali_blob.sql", chunks),
        "vali_blob_sql": Contestant("vali_blob.sql", chunks, "-c vali_blob.row_access=sql"),
        "by_hand": Contestant(
            "by_hand.sql", Sessions("contestants", count, "by_hand.upload_session")),
        "by_function": Contestant(
            "by_function.sql", Sessions("contestants", count, "by_function.upload_session")),
        "original": Contestant("original.sql", original),
        "original_transaction": Contestant("original_transaction.sql", original),
        "redis": None,
        "vali_blob_batch": Contestant(
            "vali_blob_batch.sql", Sessions("batches", count), chunks_per_call=100),
    }


def calls_for(rate, seconds):
    """How many calls keep each client busy for so long."""
    return max(10, int(rate * seconds / CLIENTS))


def progress(*words):
    print(f"{time.monotonic() - BEGIN:5.0f} s:", *words, file=sys.stderr, flush=True)


class Benchmark:
    def __init__(self, options, folder, postgres, redis):
        self.options = options
        self.folder = folder
        self.postgres = postgres
        self.redis = redis
        self.contestants = make_contestants(options.sessions)

    # --- sessions and chunks -------------------------------------------------

    def create(self, sessions, stale=0):
        """Makes a database with sessions, and some whose deadline is over."""
        database, count = sessions.database, sessions.count
        progress(f"Making {count + stale:,} sessions in the database {database}")
        self.postgres.sql("postgres", f"CREATE DATABASE {database}")
        self.postgres.script(database, "sessions.sql")
        self.postgres.sql(
            database,
            f"SELECT make_sessions(1, {count}, now() + '51 hours')",
            f"SELECT make_sessions({count + 1}, {count + stale}, now() - interval '1 hour')",
            "VACUUM ANALYZE")

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
        """Every call must have advanced a session."""
        confirmed = int(self.postgres.sql(
            sessions.database, f"SELECT sum(uploaded_bytes) FROM {sessions.table}"))
        if confirmed != sessions.confirmed:
            raise SystemExit(f"{sessions.table}: {confirmed / CHUNK} chunks have advanced"
                             f" instead of {sessions.confirmed / CHUNK}")

    # --- throughput, WAL and HOT ---------------------------------------------

    def create_contestants(self):
        self.create(self.contestants["vali_blob"].sessions)
        self.create(self.contestants["vali_blob_batch"].sessions)
        self.postgres.script("contestants", "contestants.sql")
        for database in "contestants", "batches":
            self.postgres.sql(database, "CREATE EXTENSION pg_walinspect", "VACUUM ANALYZE")

    def touch_every_page(self):
        """After a checkpoint, the first change of a page writes an image of it
        to the WAL; here nearly all of that is over before anything is measured."""
        progress("A chunk for every session")
        self.postgres.sql("postgres", "CHECKPOINT")
        for contestant in filter(None, self.contestants.values()):
            if contestant.sessions.calls == 0:
                self.advance(contestant,
                             contestant.sessions.count // CLIENTS // contestant.chunks_per_call)

    def rounds(self, durable):
        """Lets all contestants run, in rounds; each round begins with another
        one."""
        names = list(self.contestants)
        rounds = {name: [{"rate": 1000}] for name in names}
        for number in range(self.options.rounds + 1):
            progress("Durable" if durable else "Relaxed", "chunks:",
                     f"round {number} of {self.options.rounds}" if number > 0 else "warming up")
            seconds = self.options.seconds if number > 0 else 1
            for name in names[number:] + names[:number]:
                rate = rounds[name][-1]["rate"]
                rounds[name].append(self.run_round(name, rate, seconds, durable))
        return {name: figures[2:] for name, figures in rounds.items()}

    def run_round(self, name, rate, seconds, durable):
        """A round of one contestant: its chunks per second, and more."""
        if name == "redis":
            return {"rate": self.redis.chunks_per_second(calls_for(rate, seconds), durable)}
        if name == "select_1":
            return {"rate": self.postgres.pgbench("contestants", "select_1.sql",
                                                  calls_for(rate, seconds), durable=durable)}
        contestant = self.contestants[name]
        calls = calls_for(rate / contestant.chunks_per_call, seconds)
        before = self.counters(contestant)
        rate = self.advance(contestant, calls, durable=durable)
        wal = self.wal_since(before, contestant, calls)
        self.check(contestant.sessions)
        return {"rate": rate, **wal}

    def counters(self, contestant):
        sessions = contestant.sessions
        return json.loads(self.postgres.sql(
            sessions.database,
            f"""SELECT json_build_object('lsn', pg_current_wal_insert_lsn(),
                    'updates', n_tup_upd, 'hot', n_tup_hot_upd)
                FROM pg_stat_user_tables WHERE relid = '{sessions.table}'::regclass"""))

    def wal_since(self, before, contestant, calls):
        """What a chunk has written to the WAL, in bytes, with the images of
        pages that it was the first to touch apart, and how many of the updates
        were HOT."""
        chunks = calls * CLIENTS * contestant.chunks_per_call

        def complete_counters():
            counters = self.counters(contestant)
            return counters if counters["updates"] - before["updates"] >= chunks else None

        after = wait_for(complete_counters, f"statistics of {chunks} updates")
        # pg_walinspect reads only what is on disk; this commit sees to it.
        self.postgres.sql("postgres", "SELECT pg_logical_emit_message(true, 'bench', '')")
        start, end = f"'{before['lsn']}'", f"'{after['lsn']}'"
        total, images, records = json.loads(self.postgres.sql(
            contestant.sessions.database,
            f"""SELECT json_build_array({end}::pg_lsn - {start}::pg_lsn, sum(fpi_size),
                    json_object_agg("resource_manager/record_type", record_size))
                FROM pg_get_wal_stats({start}, {end}, true) WHERE combined_size > 0"""))
        return {
            "bytes": (total - images) / chunks,
            "images": images / chunks,
            "records": {record: size / chunks for record, size in records.items()},
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

    # --- size and memory -----------------------------------------------------

    def sizes(self, counts):
        """Microseconds for a chunk in tables of different size: with as many
        busy sessions in each, then with all of them busy."""
        tables = [Sessions(f"sessions_{count}", count) for count in counts]
        for sessions in tables:
            self.create(sessions)
        few = self.costs([Contestant("vali_blob.sql", sessions, busy=min(counts))
                          for sessions in tables])
        for sessions in tables:
            self.check(sessions)
            self.postgres.sql(sessions.database,
                              f"UPDATE {sessions.table} SET uploaded_bytes = 0 WHERE uploaded_bytes > 0")
            sessions.calls = sessions.confirmed = 0
        all = self.costs([Contestant("vali_blob.sql", sessions) for sessions in tables])
        for sessions in tables:
            self.check(sessions)
        return [{"sessions": count, "few": few[count], "all": all[count]} for count in counts]

    def costs(self, contestants):
        costs = {contestant.sessions.count: [] for contestant in contestants}
        rate = min(self.advance(contestant, 2000) for contestant in contestants)
        for number in range(self.options.rounds):
            progress(f"Tables of different size: round {number + 1} of {self.options.rounds}")
            for contestant in contestants:
                calls = calls_for(rate, self.options.seconds / 2)
                costs[contestant.sessions.count].append(1e6 / self.advance(contestant, calls))
        return costs

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

    # --- all of it -----------------------------------------------------------

    def machine(self):
        with open("/proc/cpuinfo") as cpuinfo, open("/proc/meminfo") as meminfo:
            processor = re.search(r"model name\s*: (.*)", cpuinfo.read())
            memory = re.search(r"MemTotal:\s*(\d+)", meminfo.read())
        return {
            "cores": os.cpu_count(),
            "processor": processor[1] if processor else os.uname().machine,
            "memory": int(memory[1]) * 1024,
            "kernel": os.uname().release,
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
                   "machine": self.machine()}
        self.create_contestants()
        self.touch_every_page()
        results["durable"] = self.rounds(durable=True)
        results["relaxed"] = self.rounds(durable=False)
        results["sweep"] = self.sweep(50_000 if quick else 1_000_000)
        results["sizes"] = self.sizes([10_000, 100_000 if quick else 1_000_000]
                                      + ([10_000_000] if long else []))
        results["memory"] = self.memory(10_000, 100_000 if quick else 1_000_000)
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
    options.seconds = options.seconds or (1 if options.quick else 4)
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
