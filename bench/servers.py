"""The throw-away servers, and what puts load on them."""

import glob
import json
import os
import re
import subprocess
import time

HERE = os.path.dirname(os.path.abspath(__file__))
CLIENTS = 8


def run(*command, **options):
    """Runs a command to its good end; returns what it printed."""
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, **options)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} has failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def wait_for(condition, what, seconds=60):
    """Waits until something is so, and returns it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        time.sleep(0.05)
    raise SystemExit(f"waited {seconds} s for {what}")


def percentile(sorted_values, part):
    return sorted_values[int(part * (len(sorted_values) - 1))]


class Postgres:
    """A cluster as a sane administrator sets it up for a small server.  No
    checkpoint comes of itself, and WAL segments are used again, as on a server
    that has run for a while."""

    settings = {
        "listen_addresses": "",
        "shared_buffers": "1GB",
        "max_wal_size": "64GB",
        "min_wal_size": "4GB",
        "checkpoint_timeout": "1d",
        "shared_preload_libraries": "vali_blob",
        "vali_blob.sweep": "off",
    }

    def __init__(self, folder):
        self.folder = folder
        self.data = f"{folder}/postgres"
        self.log = f"{folder}/postgres.log"

    def __enter__(self):
        os.environ.update(PGHOST=self.folder, PGUSER="postgres", PGDATA=self.data)
        run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale")
        with open(f"{self.data}/postgresql.auto.conf", "a") as conf:
            for name, value in {**self.settings, "unix_socket_directories": self.folder}.items():
                conf.write(f"{name} = '{value}'\n")
        # Not pg_ctl's output: the server would keep that open.
        with open(self.log, "w") as log:
            subprocess.run(["pg_ctl", "start", "--silent", "--wait"],
                           stdout=log, stderr=log, check=True)
        self.sql("postgres", "CREATE ROLE upload_server LOGIN",
                 "ALTER ROLE upload_server SET search_path = vali_blob, public")
        return self

    def __exit__(self, *_):
        run("pg_ctl", "stop", "--silent", "--mode=immediate")

    @staticmethod
    def psql_command(database, *arguments):
        return ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align",
                "--set=ON_ERROR_STOP=1", f"--dbname={database}", *arguments]

    def psql(self, database, *arguments):
        return run(*self.psql_command(database, *arguments)).strip()

    def sql(self, database, *commands):
        """Runs commands, a transaction each; returns what they print."""
        return self.psql(database, *(f"--command={command}" for command in commands))

    def script(self, database, name, **variables):
        self.psql(database, *(f"--set={variable}={value}" for variable, value in variables.items()),
                  f"--file={HERE}/{name}")

    def watch(self, database, command):
        """Runs a command in a new backend; returns what it prints, and the most
        memory of its own that the backend had, in bytes."""
        peak = 0
        psql = self.psql_command(database, "--command=SELECT pg_backend_pid()", f"--command={command}")
        with subprocess.Popen(psql, text=True, stdout=subprocess.PIPE) as process:
            backend = process.stdout.readline().strip()
            while process.poll() is None:
                peak = max(peak, own_memory(backend))
                time.sleep(0.001)
            printed = process.stdout.read().strip()
        if process.returncode != 0:
            raise SystemExit(f"{command} has failed")
        return printed, peak

    def setting(self, name):
        return self.sql("postgres", f"SHOW {name}")

    def pgbench(self, *arguments, **options):
        """Lets each client make a number of calls; returns calls per second."""
        output = self.run_pgbench(*arguments, **options)
        return float(re.search(r"tps = ([\d.]+) \(without", output)[1])

    def statement_latencies(self, *arguments, **options):
        """Lets each client run a script a number of times; returns the latency of each
        of its statements, in milliseconds."""
        output = self.run_pgbench(*arguments, **options)
        return [float(latency) for latency in re.findall(r"^ +([\d.]+) .*SELECT", output, re.M)]

    @staticmethod
    def run_pgbench(database, script, calls, clients=CLIENTS, user="upload_server",
                    durable=False, options="", log=None, **variables):
        commit = "on" if durable else "off"
        return run(
            "pgbench", "--no-vacuum", "--protocol=prepared", "--report-per-command", f"--file={HERE}/{script}",
            f"--transactions={calls}", f"--client={clients}", f"--jobs={min(clients, 2)}",
            f"--username={user}", *(["--log", f"--log-prefix={log}"] if log else []),
            *(f"--define={name}={value}" for name, value in variables.items()), database,
            env={**os.environ, "PGOPTIONS": f"-c synchronous_commit={commit} {options}"})


def own_memory(process):
    """The resident memory that it shares with no other, in bytes; 0 if it has
    ended."""
    try:
        with open(f"/proc/{process}/status") as status:
            return 1024 * int(re.search(r"RssAnon:\s*(\d+)", status.read())[1])
    except (OSError, TypeError):
        return 0


def logged_calls(prefix):
    """The fields of each call that pgbench has logged; the logs are removed."""
    calls = []
    for name in glob.glob(f"{prefix}.*"):
        with open(name) as log:
            calls += [line.split() for line in log]
        os.remove(name)
    return calls


def logged_latencies(prefix):
    """The latencies that pgbench has logged, in milliseconds, sorted."""
    return sorted(int(call[2]) / 1000 for call in logged_calls(prefix))


def logged_rate(prefix, skipped):
    """Calls per second that pgbench has logged, from when every client had made as
    many calls as are to be skipped, until one has made its last."""
    ends = {}
    for client, _, _, _, seconds, microseconds, *_ in logged_calls(prefix):
        ends.setdefault(client, []).append(int(seconds) + int(microseconds) / 1e6)
    begin = max(times[skipped - 1] for times in ends.values())
    end = min(times[-1] for times in ends.values())
    if end <= begin:  # in a short round one may have ended before another has begun
        end = max(times[-1] for times in ends.values())
    return sum(begin < time <= end for times in ends.values() for time in times) / (end - begin)


class Redis:
    """A Redis that keeps what it is told, as a session store must."""

    def __init__(self, folder, sessions):
        self.folder = f"{folder}/redis"
        self.socket = f"{folder}/redis.sock"
        self.sessions = sessions

    def __enter__(self):
        os.mkdir(self.folder)
        server = f"{self.folder}/redis-server"
        os.symlink("/usr/bin/redis-check-rdb", server)
        with open(f"{self.folder}/log", "w") as log:
            self.process = subprocess.Popen(
                [server, "--port", "0", "--unixsocket", self.socket, "--dir", self.folder,
                 "--appendonly", "yes", "--save", "", "--auto-aof-rewrite-percentage", "0"],
                stdout=log, stderr=log)
        wait_for(lambda: os.path.exists(self.socket), "Redis to listen")
        self.fill()
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def cli(self, *arguments, **options):
        return run("redis-cli", "-s", self.socket, *arguments, **options).strip()

    def version(self):
        return re.search(r"redis_version:(\S+)", self.cli("info", "server"))[1]

    def value(self):
        """A session as JSON, of 300 bytes."""
        session = {
            "uploadId": "4000000000000050000", "owner": "user-1234", "path": "videos/2025/holiday.mp4",
            "totalSize": 1 << 50, "uploadedBytes": 8388608, "status": "in_progress",
            "contentType": "video/mp4", "multipartId": "", "createdAt": "2025-06-01T12:00:00Z",
        }
        missing = 300 - len(json.dumps(session, separators=(",", ":")))
        session["multipartId"] = "m" * missing
        return json.dumps(session, separators=(",", ":"))

    def fill(self):
        """Makes the sessions."""
        value = self.value().replace('"', '\\"')
        self.cli("--pipe", input="".join(f'SET upload:{i:012} "{value}" EX 172800\n'
                                         for i in range(self.sessions)))

    def rate(self, calls, durable, life=0):
        """Lets each client make a number of calls, a GET and a SET; returns
        calls per second.  Or lives of uploads with so many chunks each."""
        self.cli("config", "set", "appendfsync", "always" if durable else "everysec")
        return float(run(os.environ["REDIS_CLIENT"], self.socket, str(CLIENTS), str(calls),
                         str(self.sessions), self.value(), str(life)))
