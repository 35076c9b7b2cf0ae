"""A throw-away PostgreSQL server on a private socket."""

import os
import signal
import subprocess
import time

import psycopg2


def wait_for(condition, what, seconds=60):
    """Returns the condition's result as soon as it is true."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} seconds for {what}")
        time.sleep(0.01)


class Server:
    def __init__(self, folder):
        self.folder = folder
        self.data = f"{folder}/data"
        self.log = f"{folder}/server.log"
        self.process = None
        subprocess.run(["initdb", "--pgdata", self.data, "--username", "postgres",
                        "--auth", "trust", "--encoding", "UTF8"],
                       check=True, stdout=subprocess.DEVNULL)

    def dsn(self, user="postgres"):
        return f"host={self.folder} dbname=postgres user={user}"

    def start(self):
        """Starts the server; returns once it answers, so after any recovery."""
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                ["postgres", "-D", self.data, "-k", self.folder, "-c", "listen_addresses=",
                 "-c", "shared_preload_libraries=vali_blob",
                 "-c", "vali_blob.sweep_interval=1s"],
                stdout=log, stderr=log)
        wait_for(self.answers, "the server to start")

    def answers(self):
        if self.process.poll() is not None:
            raise RuntimeError("the server did not start:\n" + self.log_text())
        try:
            psycopg2.connect(self.dsn()).close()
            return True
        except psycopg2.OperationalError:
            return False

    def kill(self):
        """SIGKILL to every process of the server, the postmaster first."""
        self.process.send_signal(signal.SIGSTOP)  # it starts no more of them
        processes = [self.process.pid, *self.children()]
        for pid in processes:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it went with the postmaster
        self.process.wait()
        wait_for(lambda: not any(map(is_running, processes)), "the server to die")
        return len(processes)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait()

    def children(self):
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
                if process_state(pid)[1:] == [str(self.process.pid)]]

    def log_text(self):
        with open(self.log) as log:
            return log.read()


def process_state(pid):
    """The state and the parent of a process, or nothing."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[:2]
    except OSError:
        return []


def is_running(pid):
    return process_state(pid)[:1] not in ([], ["Z"])
