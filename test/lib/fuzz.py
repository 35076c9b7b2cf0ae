"""Calls every function of the extension with hostile values, while other sessions change
its tables, and cancel and end what runs.

    fuzz.py SECONDS SEED

Each round of some seconds has a database of its own, and a seed of its own, SEED + 0, 1,
2, ...: it decides the database, which kind of commands runs beside the calls, and the
calls.  So a round that has failed is run again by its seed, as the first one; how its
sessions meet differs.  Functions, arguments, types and settings are those that the
catalog has, so that new ones are called without anybody adding them here.

There are three kinds of rounds.  In "calm" ones nothing but functions of the extension
runs.  In "harmless" ones, commands run beside them that lose no rows.  In "destroying"
ones, tables are emptied and dropped.

Looked for are crashes, errors of class XX, SQLSTATEs that hostile values must not lead
to, broken invariants of the tables, sessions that go back, memory that grows, a sweeper
that is gone, and calls that never end; after ENOUGH_SCRIPTS, also functions that have
never returned, as then nothing of the above says anything about them.  The output is TAP.

Servers are initdb's and postgres' of the PATH, in the TMPDIR.
"""

import collections
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import psycopg2
import psycopg2.extras

ROUND = 5  # seconds
PATIENCE = 60  # seconds, until something that ought to end never does
CALLERS = 5
LEDGERS = 2
CHANGERS = 2
ENOUGH_SCRIPTS = 50_000  # for each function to be called with success
WORKER = "vali_blob worker"
SETTINGS = """
    fsync = off
    listen_addresses = ''
    max_prepared_transactions = 10
    max_worker_processes = 12
    shared_preload_libraries = 'vali_blob'
    vali_blob.sweep_interval = 1s
    vali_blob.sweep_batch_size = 3
    deadlock_timeout = 50ms
    autovacuum_naptime = 1s
    wal_level = logical
    track_functions = all
    track_commit_timestamp = on
    logging_collector = on
    log_line_prefix = '@@ %a | %b | '
    log_directory = log
    log_filename = server
    log_rotation_size = 0
    log_rotation_age = 0
    log_error_verbosity = verbose
    restart_after_crash = on
"""

# What values, and what other sessions do, may lead to: anything of these classes, and
# these SQLSTATEs
VALUE_CLASSES = ("22", "VB")
VALUE_SQLSTATES = {
    "0A000",  # row_access = direct, PREPARE TRANSACTION after NOTIFY
    "25006",  # read-only
    "23505",  # but no other constraint: the functions check what the tables would refuse
    "25P02",  # after another error
    "27000",  # a row was changed by the statement that calls, or by its trigger
    "40001",
    "40P01",
    "42501",  # of the client role
    "54000",
    "54001",  # jsonb that is nested too deep
    "55P03",
    "57014",
    "57P01",  # terminated
}
# ... and those of commands that change the catalog
CATALOG_CLASSES = ("23", "2B", "3F", "42", "55", "0A", "25")

# Where PostgreSQL itself raises XX000, as a command meets one that changes or drops the
# same object: the start of the message, and the reason.
DDL_MEETS_DDL = {
    "tuple concurrently updated": "two commands change one row of a catalog",
    "tuple concurrently deleted": "one command changes a row of a catalog, another deletes it",
    "could not open relation with OID": "dropped between the look-up of its name and its lock",
    "could not find tuple for": "dropped while a command changes it",
    "cache lookup failed for": "dropped while a command looks at it",
    "relation deleted while still in use": "dropped while CLUSTER or REINDEX works on it",
    "role is not": "dropped while a command grants to it",
}
# The same, where a query meets a command that drops what the query has named, before
# any function of the extension runs, or after it.
DDL_MEETS_QUERY = {
    "could not open relation with OID": "a plan, or the planner, opens a table that is gone",
    "cache lookup failed for function": "a query was parsed before its function was dropped",
    "cache lookup failed for type": "so was the type of its result",
    "cache lookup failed for attribute": "or a column of its result",
}
# Where any query gets it, those of our functions too: the planner has no lock for which
# DROP STATISTICS waits.  This is the place, as LOCATION names it.
PLANNER_MEETS_DDL = "get_relation_statistics,"
# The functions of PostgreSQL that raise these, so that the log has the stack: of the
# parser, the planner and the executor, and what our own code may call
BACKTRACES = """
    relation_open index_open TupleDescInitEntry ConstructTupleDescriptor RelationGetIndexList RelationIdGetRelation
    func_get_detail LookupTypeNameExtended typeidType typeidTypeRelid typeOrDomainTypeRelid get_rte_attribute_is_dropped
    build_coercion_expression add_function_cost get_function_rows inline_set_returning_function simplify_function
    eval_const_expressions_mutator init_sql_fcache ExecInitAgg initialize_peragg has_subclass pg_type_aclmask
    FunctionIsVisible TypeIsVisible RelationIsVisible format_type_extended generate_function_name generate_relation_name
    generate_operator_name pg_column_size lookup_type_cache load_typcache_tupdesc get_rel_name get_attname
    get_atttypetypmodcoll get_attgenerated getBaseTypeAndTypmod getTypeInputInfo getTypeOutputInfo getTypeBinaryInputInfo
    getTypeBinaryOutputInfo get_type_io_data get_type_category_preferred get_typlenbyval get_typlenbyvalalign
    get_typdefault load_domaintype_info func_parallel func_strict func_volatile get_func_leakproof get_func_nargs
    get_func_prokind get_func_retset get_func_rettype get_func_signature get_func_variadictype get_func_support
    get_rel_persistence fmgr_info_cxt_security fmgr_security_definer get_func_result_name internal_get_result_type
    get_call_result_type""".split()
SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src")
DDL_APPLICATION = "fuzz changer"
# Functions of the extension that are such commands
DDL_FUNCTIONS = ("grant_upload_access", "revoke_upload_access")
DDL_CONTEXT = re.compile('SQL statement "(GRANT|REVOKE) ')


# --- values ---------------------------------------------------------------------

IDS = [f"u{i}" for i in range(10)]
OWNERS = ["ann", "bob", "żółw"]
PARTS = [f"part {i}" for i in range(20)]  # partial, with all their bytes, for concatenate_uploads

# Values by the name of an argument, as a client would pass them.  Arguments that are
# not here, new ones for example, get those of their type.
LIKELY = {
    "path": ["'dir/file'", "'dir/other'"],
    "path_prefix": ["'dir/'", "NULL"],
    "total_size": ["100", "50", "0", "NULL"],
    "size_limit": ["100", "NULL"],
    "chunk_length": ["10", "50", "0", "100"],
    "upload_id": [f"'{name}'" for name in IDS],
    "owner": ["NULL", "NULL"] + [f"'{name}'" for name in OWNERS],
    "ttl": ["NULL", "'1 hour'", "'0'", "'1 microsecond'", "'200 milliseconds'"],
    "max_age": ["NULL", "'1 hour'", "'300 milliseconds'"],
    "idle_for": ["NULL", "'0'", "'1 second'"],
    "duration": ["'1 second'", "'1 minute'", "'1 microsecond'"],
    "holder": ["'server 1'", "'server 2'"],
    "epoch": ["1", "2", "3"],
    "lease_epoch": ["NULL", "NULL", "NULL", "1", "2"],
    "part_number": ["NULL", "1", "2", "3"],
    "etag": ["NULL", "'e1'"],
    "id": [str(i) for i in range(1, 40)],
    "max_rows": ["1", "5", "100"],
    "lease": ["'0'", "'1 second'", "'5 minutes'"],
    "role": ["'fuzz_client'", "'fuzz_owner'"],
}

BIG = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 400) AS i)"
TEXTS = [
    "''", "' '", "'null'", "'it''s'", "'\"quoted\"'", r"E'\\'", "'%s%n$1@.upload_session'", "'a%_b'",
    r"E'a\nb\tc\x01'", "'ünïcödé'", "'日本語'", "'🙂'", r"U&'\FFFF\200B'", "repeat('x', 128)", "repeat('x', 129)",
    "repeat('é', 128)", "repeat('é', 129)", "repeat('x', 256)", "repeat('x', 1024)", "repeat('x', 1025)",
    "repeat('x', 2048)", "repeat('x', 2049)", "repeat('x', 1000000)", "fuzz.noise(90)", "fuzz.noise(400)",
    "'''; DROP SCHEMA fuzz CASCADE; --'"]
BIGINTS = ["0", "1", "-1", "10", "2147483648", "9007199254740993", "4611686018427387904", "9223372036854775806",
           "9223372036854775807", "-9223372036854775808"]
INTEGERS = ["0", "1", "-1", "2", "65536", "2147483647", "-2147483648"]
INTERVALS = [
    "'0'", "'1 microsecond'", "'-1 microsecond'", "'-1 day'", "'-178000000 years'", "'178000000 years'",
    "'1 month -30 days'", "'-1 month 31 days'", "'1 day -24:00'", "'2147483647 days'", "'-2147483648 days'",
    "'9223372036854775 seconds'", "'-9223372036854775 seconds'", "'1 month -1 microsecond'", "'290000 years'"]
JSONS = [
    "'null'", "'[]'", "'{}'", "'[{\"a\": 1}]'", "'1'", "'\"text\"'", "'true'", "'{\"\": \"\"}'", "'{\"a\": null}'",
    "'{\"a\": {\"b\": [1, null]}}'", r"""'{"\u0000": 1}'""", r"""'{"a": "\u0000"}'""", "'{\"a\": 1, \"a\": 2}'",
    r"""'{"\ud83d\ude42": "\ud83d"}'""", "'{\"offset\": 1e400, \"n\": -0.0}'",
    "(repeat('{\"a\":', 3000) || '1' || repeat('}', 3000))", "(repeat('[', 20000) || repeat(']', 20000))",
    "(SELECT json_object_agg('k' || i, md5(i::text)) FROM generate_series(1, 2000) AS i)::text",
    "('{\"long\": \"' || repeat('x', 500000) || '\"}')"]
BYTES = [r"'\x'", r"'\x00'", "decode(repeat('ab', 64), 'hex')", "decode(repeat('ab', 65), 'hex')",
         "decode(repeat('00', 500000), 'hex')"]
NAMES = ["'fuzz_client'", "'fuzz_owner'", "'public'", "'PUBLIC'", "'nobody\"s'", "''", "'pg_monitor'", "current_user",
         "repeat('x', 100)"]

HOSTILE = {
    "text": TEXTS, "bigint": BIGINTS, "integer": INTEGERS, "interval": INTERVALS, "jsonb": JSONS, "bytea": BYTES,
    "boolean": ["true", "false"], "name": NAMES}


class Values:
    """Makes expressions in SQL for arguments."""

    def __init__(self, rng, enums, has_infinite_intervals):
        self.rng = rng
        self.enums = enums
        self.intervals = INTERVALS + (["'infinity'", "'-infinity'"] if has_infinite_intervals else [])

    def hostile(self, kind):
        if self.rng.random() < 0.1:
            return f"NULL::{kind}"
        if kind.endswith("[]"):
            return self.hostile_array(kind)
        if kind in self.enums:
            values = [f"'{label}'" for label in self.enums[kind]]
        elif kind == "interval":
            values = self.intervals
        else:
            values = HOSTILE[kind]  # a new type needs values
        value = self.rng.choice(values)
        return f"({value})::{kind}"

    def hostile_array(self, kind):
        def some(least, most):
            return ", ".join(self.hostile(kind[:-2]) for _ in range(self.rng.randint(least, most)))

        return self.rng.choice([
            lambda: f"'{{}}'::{kind}",
            lambda: f"ARRAY[{some(1, 4)}]",
            lambda: f"ARRAY[{some(1, 4)}]",
            lambda: f"ARRAY[ARRAY[{some(2, 2)}], ARRAY[{some(2, 2)}]]",
            lambda: f"array_fill({some(1, 1)}, ARRAY[3], ARRAY[-5])",
            lambda: f"array_fill({some(1, 1)}, ARRAY[1, 1, 1, 1, 2, 1])",
            lambda: f"array_fill(NULL::{kind[:-2]}, ARRAY[3])",
            lambda: f"array_fill({self.rng.choice(['1', 'NULL'])}::text::{kind[:-2]}, ARRAY[3000])"
                    if kind != "bytea[]" else "array_fill('\\x01'::bytea, ARRAY[3000])",
        ])()

    def likely(self, name, kind):
        """Returns a value as a client would pass it, if the argument is a known one."""
        if kind.endswith("[]"):
            if name == "upload_ids" and self.rng.random() < 0.1:
                return f"ARRAY['{self.rng.choice(PARTS)}']::{kind}"
            # all arrays of a call are as long
            values = [self.likely(name[:-1] if name.endswith("s") else name, kind[:-2]) for _ in range(3)]
            return f"ARRAY[{', '.join(values)}]"
        if name == "chunk_offset":
            value = self.rng.choice(["0", "10", "50", f"fuzz.confirmed('{self.rng.choice(IDS)}')"])
        elif name in LIKELY:
            value = self.rng.choice(LIKELY[name])
        elif kind == "jsonb":
            value = self.rng.choice(["NULL", "'{\"a\": 1}'", "'{\"b\": {\"c\": \"d\"}}'"])
        elif kind == "boolean":
            value = self.rng.choice(["true", "false", "false"])
        else:
            return self.hostile(kind)
        return f"{value}::{kind}"


class Function:
    """A function of the extension."""

    # Sessions must be started and go on for the others to have something to do.
    WEIGHTS = {"start_upload": 8, "advance_upload": 3, "try_advance_upload": 4, "advance_uploads": 3,
               "abort_upload": 0.7, "delete_upload": 0.5, "start_sweeper": 0.1}

    def __init__(self, schema, name, names, kinds, defaults, is_set, is_composite):
        self.schema = schema
        self.name = name
        self.arguments = list(zip(names, kinds))
        self.required = len(kinds) - defaults
        self.is_set = is_set
        self.is_composite = is_composite
        self.weight = self.WEIGHTS.get(name, 1)

    def choose(self, values):
        """Returns names and values of some arguments."""
        rng = values.rng
        care = rng.choice([1, 1, 1, 0.9, 0.7, 0])
        chosen = []
        for number, (name, kind) in enumerate(self.arguments):
            if number >= self.required and rng.random() < 0.6:
                continue
            value = values.likely(name, kind) if rng.random() < care else values.hostile(kind)
            chosen.append((name, kind, value))
        return chosen

    def call(self, chosen):
        return f"{self.schema}.{self.name}({', '.join(f'{name} => {value}' for name, _, value in chosen)})"


def read_functions(connection, schema):
    """Returns what can be called, from the catalog."""
    return [Function(schema, *row) for row in rows(connection, """
        SELECT p.proname, coalesce(p.proargnames[:p.pronargs], '{}'),
            ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY AS a (t, n) ORDER BY n),
            p.pronargdefaults, p.proretset, t.typtype = 'c'
        FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'vali_blob'
            JOIN pg_proc p ON p.oid = d.objid JOIN pg_type t ON t.oid = p.prorettype
        WHERE d.classid = 'pg_proc'::regclass AND d.deptype = 'e' ORDER BY p.oid""")]


# --- calls ----------------------------------------------------------------------


def quote(text):
    return "$fuzz$" + text + "$fuzz$"


class Scripts:
    """Makes scripts, lists of commands, that call functions in all the ways there are."""

    def __init__(self, rng, functions, values):
        self.rng = rng
        self.functions = functions
        self.weights = [function.weight for function in functions]
        self.values = values
        self.prepared = 0

    def function(self):
        return self.rng.choices(self.functions, self.weights)[0]

    def call(self):
        function = self.function()
        return function.call(function.choose(self.values))

    def query(self):
        """Returns a query that calls a function."""
        call = self.call()
        return self.rng.choice([
            f"SELECT * FROM {call}",
            f"SELECT * FROM {call}",
            f"SELECT {call}",
            f"SELECT to_jsonb(f) FROM {call} AS f",
            f"SELECT f.* FROM generate_series(1, 3) AS n, LATERAL {call} AS f LIMIT 2",
            f"SELECT count(*) FROM generate_series(1, 2) AS n WHERE EXISTS (SELECT FROM {call})",
            f"SELECT s.upload_id, {call} FROM {self.functions[0].schema}.upload_session AS s LIMIT 3",
            f"SELECT * FROM {call} AS f, {self.call()} AS g",
        ])

    def script(self):
        return self.rng.choice([
            self.plain, self.plain, self.plain, self.expanded, self.statements, self.prepare, self.block, self.cursor,
            self.trigger, self.transaction, self.transaction, self.two_phase, self.other_commands])()

    def plain(self):
        return [self.query()]

    def expanded(self):
        function = self.function()
        star = ".*" if function.is_composite else ""
        return [f"SELECT ({function.call(function.choose(self.values))}){star}"]

    def statements(self):
        """Several commands in one message are one transaction."""
        return ["; ".join(self.query() for _ in range(3))]

    def prepare(self):
        """A statement with parameters, often enough for a generic plan"""
        self.prepared += 1
        function = self.function()
        chosen = function.choose(self.values)
        name = f"p{self.prepared}"
        markers = [(argument, kind, f"${n}") for n, (argument, kind, _) in enumerate(chosen, 1)]
        kinds = f"({', '.join(kind for _, kind, _ in chosen)})" if chosen else ""
        script = [f"PREPARE {name}{kinds} AS SELECT * FROM {function.call(markers)}"]
        for _ in range(self.rng.choice([1, 7])):
            given = [value if self.rng.random() < 0.7 else self.values.likely(argument, kind)
                     for argument, kind, value in chosen]
            given = [value if "SELECT" not in value else "NULL" for value in given]
            script.append(f"EXECUTE {name}" + (f"({', '.join(given)})" if given else ""))
        return script + [f"DEALLOCATE {name}"]

    def block(self):
        """Subtransactions, whose errors are caught unless they must not happen"""
        body = "".join(f"""
            BEGIN
                PERFORM * FROM {self.call()};
                {self.rng.choice(["", "", "RAISE division_by_zero;"])}
            EXCEPTION WHEN OTHERS THEN
                IF SQLSTATE LIKE 'XX%' THEN RAISE; END IF;
                {self.rng.choice(["", f"PERFORM * FROM {self.call()};"])}
            END;""" for _ in range(3))
        return [f"DO {quote(f'BEGIN FOR iteration IN 1 .. 2 LOOP {body} END LOOP; END')}"]

    def cursor(self):
        hold = self.rng.choice(["", "WITH HOLD"])
        scroll = self.rng.choice(["", "SCROLL"])
        return ["BEGIN", f"DECLARE c {scroll} CURSOR {hold} FOR {self.query()}", "FETCH 1 FROM c",
                f"SAVEPOINT a; {self.query()}", "ROLLBACK TO a", "FETCH 2 FROM c",
                self.rng.choice(["CLOSE c", "MOVE ALL IN c", "SELECT"]), self.rng.choice(["COMMIT", "ROLLBACK"]),
                "CLOSE ALL"]

    def trigger(self):
        """Triggers run what is inserted: before the row, after it, or at the end."""
        table = self.rng.choice(["before_row", "after_row", "at_the_end"])
        return [f"INSERT INTO fuzz.{table} VALUES ({quote(self.query())}), ({quote(self.query())})"]

    def transaction(self):
        level = self.rng.choice(["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
        mode = self.rng.choice(["READ WRITE", "READ WRITE", "READ WRITE", "READ ONLY"])
        script = [f"BEGIN ISOLATION LEVEL {level} {mode}"]
        for _ in range(self.rng.randint(1, 4)):
            script += ["SAVEPOINT a", self.query(), self.rng.choice(["RELEASE a", "ROLLBACK TO a", "SELECT"])]
        return script + [self.rng.choice(["COMMIT", "COMMIT", "ROLLBACK", "COMMIT AND CHAIN"]), "ROLLBACK"]

    def two_phase(self):
        name = f"'{threading.get_ident()}'"
        return ["BEGIN", self.query(), f"PREPARE TRANSACTION {name}", self.query(),
                f"{self.rng.choice(['COMMIT', 'ROLLBACK'])} PREPARED {name}"]

    def other_commands(self):
        query = self.query()
        return self.rng.choice([
            [f"EXPLAIN (ANALYZE, VERBOSE) {query}"],
            [f"COPY ({query}) TO STDOUT"],
            ["BEGIN", f"CREATE TEMP TABLE t ON COMMIT DROP AS SELECT f FROM ({query}) AS f", "COMMIT"],
            ["LISTEN vali_blob", query, "UNLISTEN *"],
            [f"WITH w AS MATERIALIZED ({query}), v AS ({self.query()}) SELECT * FROM w, v"],
            ["BEGIN", f"LOCK TABLE {self.functions[0].schema}.upload_session IN SHARE MODE", query, "ROLLBACK"],
            ["DISCARD ALL", query],
        ])


# --- sessions -------------------------------------------------------------------


def connect(database, application):
    connection = psycopg2.connect(dbname=database, application_name=application)
    connection.autocommit = True
    return connection


def rows(connection, command):
    with connection.cursor() as cursor:
        cursor.execute(command)
        return cursor.fetchall() if cursor.description else []


def show_activity(connection):
    return "".join("\n" + " | ".join(map(str, row)) for row in rows(connection, """
        SELECT pid, backend_type, application_name, state, wait_event, left(query, 500) FROM pg_stat_activity
        WHERE datname IS NOT NULL OR backend_type ~ 'vali_blob'"""))


class Session(threading.Thread):
    """One of those that run in a round, until it is over."""

    def __init__(self, fuzz, number):
        super().__init__(daemon=True)
        self.fuzz = fuzz
        self.number = number
        self.rng = random.Random(f"{fuzz.seed} {type(self).__name__} {number}")
        self.connection = None
        self.count = 0

    def run(self):
        try:
            while not self.fuzz.is_over.is_set():
                try:
                    if self.connection is None or self.connection.closed:
                        self.connection = connect(self.fuzz.database, self.application)
                        self.begin()
                    self.step()
                    self.count += 1
                except psycopg2.Error as error:
                    self.failed(error)
        except Exception as error:  # a defect of this program
            self.fuzz.problem(f"{type(self).__name__} ended: {error!r}")
            raise
        finally:
            if self.connection is not None:
                self.connection.close()

    def begin(self):
        """Prepares a new connection."""

    def failed(self, error):
        """Judges an error; one without a SQLSTATE is a connection that is gone, which the
        log explains."""
        self.reset()

    def reset(self):
        try:
            rows(self.connection, "ROLLBACK")
        except (psycopg2.Error, AttributeError):
            time.sleep(0.02)  # it may be gone, or not be there yet


class Caller(Session):
    """Calls functions."""

    application = "fuzz caller"

    def begin(self):
        self.scripts_left = self.rng.randint(20, 80)
        self.scripts = Scripts(self.rng, self.fuzz.functions, self.fuzz.values(self.rng))
        # what waits for a lock is allowed to, for a while; what does not end is not
        setup = ["SET lock_timeout = '2s'", f"SET statement_timeout = '{PATIENCE}s'"]
        for name, values in self.fuzz.settings.items():
            if self.rng.random() < 0.3:
                setup.append(f"SET {name} = '{self.rng.choice(values)}'")
        # With debug5, PostgreSQL lets a query be canceled in the middle of the rollback of a
        # subtransaction; the session ends with an internal error at its next ROLLBACK.
        for setting in ("work_mem = 64", "plan_cache_mode = force_custom_plan", "search_path = ''", "row_security = off",
                        "enable_indexscan = off", "default_transaction_isolation = 'serializable'",
                        "client_min_messages = debug4", "TimeZone = 'Asia/Kathmandu'", self.fuzz.parallel):
            if self.rng.random() < 0.1:
                setup.append(f"SET {setting}")
        setup.append(f"SET SESSION AUTHORIZATION {self.rng.choice(['DEFAULT', 'DEFAULT', 'fuzz_client', 'fuzz_owner'])}")
        for command in setup:
            rows(self.connection, command)

    def step(self):
        self.scripts_left -= 1
        if self.scripts_left == 0:
            self.connection.close()
            return
        for command in self.scripts.script():
            try:
                self.run_command(command)
            except psycopg2.Error as error:
                self.judge(error, command)
                if error.pgcode is None:
                    raise
        self.reset()

    def run_command(self, command):
        if command.startswith("COPY"):
            with self.connection.cursor() as cursor, open(os.devnull, "w", encoding="utf8") as nowhere:
                cursor.copy_expert(command, nowhere)
        else:
            rows(self.connection, command)

    def judge(self, error, command):
        code = error.pgcode
        self.fuzz.seen[code] = self.fuzz.seen.get(code, 0) + 1
        if "statement timeout" in str(error):
            self.fuzz.problem(f"does not end: {show_activity(connect('postgres', 'fuzz'))}\n  {command[:2000]}")
        # the log has more about what is of class XX
        if code is None or code in VALUE_SQLSTATES or code.startswith(VALUE_CLASSES + ("XX",)):
            return
        if self.fuzz.kind != "calm" and code.startswith(CATALOG_CLASSES):
            return
        if code == "42704" and str(error).startswith("role "):
            return
        if code in self.EXPECTED_OF and command.split()[0] in self.EXPECTED_OF[code]:
            return
        self.fuzz.problem(f"SQLSTATE {code}: {str(error).strip()[:500]}\n  {command[:2000]}")

    # What comes of the ways to call, not of the functions
    EXPECTED_OF = {
        "34000": ("FETCH", "MOVE", "CLOSE"),  # the cursor's transaction has failed
        "25P01": ("SAVEPOINT", "ROLLBACK", "RELEASE", "DECLARE", "COMMIT", "LOCK"),
        "3B001": ("ROLLBACK", "RELEASE"),
        "26000": ("EXECUTE", "DEALLOCATE"),
        "42704": ("COMMIT", "ROLLBACK"),
        "42710": ("PREPARE",),
        "55000": ("FETCH", "MOVE", "PREPARE", "COMMIT", "ROLLBACK"),
        "42P11": ("DECLARE",),
        "42P03": ("DECLARE",),
        "42P07": ("CREATE",),
        "42701": ("CREATE",),
        "42P16": ("CREATE",),
    }


class Bookkeeper(Session):
    """Confirms chunks of uploads that nobody else calls, and records in the same
    transaction which chunks were "advanced"."""

    application = "fuzz bookkeeper"

    def begin(self):
        rows(self.connection, f"SET vali_blob.row_access = {self.rng.choice(['auto', 'sql'])}")
        rows(self.connection, f"SET SESSION AUTHORIZATION {self.rng.choice(['DEFAULT', 'fuzz_client', 'fuzz_owner'])}")

    def chunk(self):
        name = self.rng.choice(self.fuzz.ledger_ids)
        offset = rows(self.connection, f"SELECT fuzz.confirmed('{name}')")[0][0]
        if name.endswith("any"):
            offset = self.rng.randint(0, 3000)
        elif self.rng.random() < 0.2:
            offset = max(0, offset - self.rng.randint(0, 20))
        return name, offset, self.rng.randint(0, 10)

    def statement(self):
        schema = self.fuzz.schema
        if self.rng.random() < 0.6:
            name, offset, length = self.chunk()
            return (f"INSERT INTO fuzz.ledger SELECT '{name}', {offset}, {length} "
                    f"FROM {schema}.try_advance_upload('{name}', {offset}, {length}) WHERE outcome = 'advanced'")
        chunks = [self.chunk() for _ in range(self.rng.randint(1, 4))]
        arrays = (f"ARRAY{[c[0] for c in chunks]}, ARRAY{[c[1] for c in chunks]}::bigint[], "
                  f"ARRAY{[c[2] for c in chunks]}::bigint[]")
        return (f"INSERT INTO fuzz.ledger SELECT a.id, a.o, a.l FROM unnest({arrays}) WITH ORDINALITY AS a (id, o, l, n) "
                f"JOIN {schema}.advance_uploads({arrays}) WITH ORDINALITY AS r USING (ordinality) WHERE outcome = 'advanced'"
                ).replace("AS a (id, o, l, n)", "AS a (id, o, l, ordinality)")

    def step(self):
        form = self.rng.random()
        if form < 0.5:
            rows(self.connection, self.statement())
            return
        level = self.rng.choice(["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
        if form < 0.7:
            body = "".join(f"BEGIN {self.statement()}; {self.rng.choice(['', 'RAISE division_by_zero;'])} "
                           "EXCEPTION WHEN division_by_zero THEN NULL; END; " for _ in range(2))
            rows(self.connection, f"DO {quote(f'BEGIN {body} END')}")
            return
        rows(self.connection, f"BEGIN ISOLATION LEVEL {level}")
        for _ in range(self.rng.randint(1, 3)):
            rows(self.connection, "SAVEPOINT a")
            rows(self.connection, self.statement())
            if self.rng.random() < 0.3:
                rows(self.connection, "ROLLBACK TO a")
        rows(self.connection, self.rng.choice(["COMMIT", "COMMIT", "ROLLBACK"]))


class Watcher(Session):
    """Looks whether what is committed only goes forward.  One status is given another name,
    and back, by those who change the catalog."""

    application = "fuzz watcher"
    LIVE = ("pending", "in_progress")

    def __init__(self, fuzz, number):
        super().__init__(fuzz, number)
        self.known = {}

    def step(self):
        time.sleep(0.02)
        for name, *key, status, confirmed, size in rows(self.connection, f"""
                SELECT upload_id, id, created_at, replace(status::text, 'away', 'aborted'), uploaded_bytes, total_size
                FROM {self.fuzz.schema}.upload_session"""):
            before = self.known.get(tuple(key))
            now = (status, confirmed, size)
            self.known[tuple(key)] = now
            if before is not None and self.fuzz.kind != "destroying" and (
                    (before[0] not in self.LIVE and before[0] != status)
                    or (before[0] == "in_progress" and status == "pending")
                    or confirmed < before[1] or (before[2] is not None and before[2] != size)):
                self.fuzz.problem(f"upload \"{name}\" has gone from {before} to {now}")


class Disturber(Session):
    """Cancels and ends what runs, the worker too."""

    application = "fuzz disturber"

    def step(self):
        time.sleep(self.rng.random() * 0.1)
        how = self.rng.choice(["pg_cancel_backend", "pg_cancel_backend", "pg_terminate_backend"])
        rows(self.connection, f"""
            SELECT {how}(pid) FROM pg_stat_activity
            WHERE application_name IN ('fuzz caller', 'fuzz bookkeeper', '{WORKER}') AND datname = current_database()
                AND state IS DISTINCT FROM 'idle'
            ORDER BY random() LIMIT 1""")


# --- what changes the catalog -----------------------------------------------------

# {s}: the schema, {t}: a table of the extension, {i}: an index of it, {n}: a small number,
# {setting}: a setting of the extension and a value.  A list is run in one transaction.
HARMLESS = [
    "ALTER TABLE {t} ADD COLUMN IF NOT EXISTS own{n} text DEFAULT 'x'",
    "ALTER TABLE {t} ADD COLUMN IF NOT EXISTS own{n} bigint DEFAULT random()",
    "ALTER TABLE {t} DROP COLUMN IF EXISTS own{n}",
    "ALTER TABLE {t} DROP COLUMN IF EXISTS own{n}",
    "ALTER TABLE {s}.upload_session ADD COLUMN IF NOT EXISTS own{n} text GENERATED ALWAYS AS (path || upload_id) STORED",
    "ALTER TABLE {s}.upload_session ADD COLUMN IF NOT EXISTS own{n} fuzz.domain DEFAULT 'd'",
    "CREATE INDEX IF NOT EXISTS own{n} ON {s}.upload_session (uploaded_bytes, status)",
    "CREATE INDEX IF NOT EXISTS own{n} ON {s}.upload_session (fuzz.same(path))",
    "CREATE INDEX IF NOT EXISTS own{n} ON {s}.upload_session (upload_id) WHERE status = 'pending'",
    "CREATE UNIQUE INDEX IF NOT EXISTS own{n} ON {s}.upload_session (upload_id, uploaded_bytes)",
    "CREATE INDEX IF NOT EXISTS own{n} ON {s}.upload_part (etag)",
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS own{n} ON {s}.upload_session USING gin (metadata)",
    "CREATE INDEX IF NOT EXISTS own{n} ON {s}.upload_session USING brin (updated_at)",
    "DROP INDEX IF EXISTS {s}.own{n}",
    "DROP INDEX IF EXISTS {s}.own{n}",
    "DROP INDEX CONCURRENTLY IF EXISTS {s}.own{n}",
    "REINDEX TABLE {t}",
    "REINDEX TABLE CONCURRENTLY {t}",
    "REINDEX INDEX CONCURRENTLY {i}",
    "VACUUM FULL {t}",
    "VACUUM (FREEZE, ANALYZE) {t}",
    "ANALYZE {t}",
    "CLUSTER {s}.upload_session USING upload_session_pkey",
    "ALTER TABLE {t} SET (fillfactor = {n}0, autovacuum_enabled = off)",
    "ALTER TABLE {t} RESET (fillfactor)",
    "ALTER TABLE {t} SET UNLOGGED",
    "ALTER TABLE {t} SET LOGGED",
    "ALTER TABLE {t} REPLICA IDENTITY FULL",
    "ALTER TABLE {t} REPLICA IDENTITY NOTHING",
    "ALTER TABLE {t} REPLICA IDENTITY DEFAULT",
    "CREATE PUBLICATION own{n} FOR TABLE {t}",
    "DROP PUBLICATION IF EXISTS own{n}",
    "ALTER TABLE {t} ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE {t} DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE {t} FORCE ROW LEVEL SECURITY",
    "ALTER TABLE {t} NO FORCE ROW LEVEL SECURITY",
    "CREATE POLICY own{n} ON {t} USING (true)",
    "CREATE POLICY own{n} ON {t} AS RESTRICTIVE USING (owner IS NULL OR owner <> 'bob')",
    "DROP POLICY IF EXISTS own{n} ON {t}",
    "CREATE OR REPLACE TRIGGER own{n} BEFORE INSERT OR UPDATE ON {t} FOR EACH ROW EXECUTE FUNCTION fuzz.pass()",
    "CREATE OR REPLACE TRIGGER own{n} AFTER UPDATE OR DELETE ON {t} FOR EACH ROW EXECUTE FUNCTION fuzz.look()",
    "CREATE OR REPLACE TRIGGER own{n} BEFORE UPDATE ON {t} FOR EACH ROW EXECUTE FUNCTION fuzz.suppress()",
    "CREATE OR REPLACE TRIGGER own{n} AFTER UPDATE ON {t} REFERENCING NEW TABLE AS changed EXECUTE FUNCTION fuzz.pass()",
    "DROP TRIGGER IF EXISTS own{n} ON {t}",
    "DROP TRIGGER IF EXISTS own{n} ON {t}",
    "ALTER TABLE {t} DISABLE TRIGGER USER",
    "ALTER TABLE {t} ENABLE TRIGGER USER",
    "CREATE OR REPLACE RULE own{n} AS ON UPDATE TO {t} DO ALSO INSERT INTO fuzz.audit VALUES ('update')",
    "CREATE OR REPLACE RULE own{n} AS ON DELETE TO {t} DO ALSO NOTIFY own",
    "DROP RULE IF EXISTS own{n} ON {t}",
    "DROP RULE IF EXISTS own{n} ON {t}",
    "ALTER TABLE {s}.upload_session ADD CONSTRAINT own{n} CHECK (uploaded_bytes < 100000) NOT VALID",
    "ALTER TABLE {s}.upload_session ADD CONSTRAINT own{n} CHECK (fuzz.same(path) <> 'dir/other') NOT VALID",
    "ALTER TABLE {t} DROP CONSTRAINT IF EXISTS own{n}",
    "ALTER TABLE {t} DROP CONSTRAINT IF EXISTS own{n}",
    "CREATE TABLE IF NOT EXISTS fuzz.own{n} (upload_id varchar(128) REFERENCES {s}.upload_session ON DELETE CASCADE)",
    "CREATE TABLE IF NOT EXISTS fuzz.own{n} () INHERITS ({s}.upload_session)",
    "DROP TABLE IF EXISTS fuzz.own{n}",
    "DROP TABLE IF EXISTS fuzz.own{n}",
    "CREATE STATISTICS IF NOT EXISTS {s}.own{n} ON status, owner FROM {s}.upload_session",
    "DROP STATISTICS IF EXISTS {s}.own{n}",
    "ALTER TABLE {s}.upload_session ALTER content_type TYPE text",
    "ALTER TABLE {s}.upload_session ALTER path TYPE text COLLATE \"C\"",
    "ALTER TABLE {s}.upload_session ALTER path TYPE varchar(4000) COLLATE \"C\"",
    "ALTER TABLE {s}.upload_session ALTER upload_id TYPE text COLLATE \"C\"",
    "ALTER TABLE {s}.upload_session ALTER id SET GENERATED ALWAYS",
    "ALTER TABLE {s}.upload_session ALTER id SET GENERATED BY DEFAULT",
    "ALTER TABLE {s}.upload_session ALTER metadata DROP NOT NULL",
    "ALTER TABLE {s}.upload_session ALTER created_at SET DEFAULT now()",
    "ALTER TABLE {s}.upload_session ALTER bucket SET DEFAULT fuzz.same('b')",
    "ALTER TABLE {s}.upload_session ALTER bucket DROP DEFAULT",
    "ALTER TABLE {s}.upload_session ALTER metadata SET STORAGE EXTERNAL, ALTER path SET STATISTICS 10",
    "REVOKE ALL ON {t} FROM fuzz_client",
    "GRANT SELECT, UPDATE (uploaded_bytes, status) ON {t} TO fuzz_client",
    "SELECT {s}.grant_upload_access('fuzz_client')",
    "SELECT {s}.revoke_upload_access('fuzz_client')",
    "ALTER TABLE {t} OWNER TO fuzz_owner",
    "ALTER TABLE {t} OWNER TO CURRENT_USER",
    "GRANT fuzz_owner TO fuzz_client",
    "REVOKE fuzz_owner FROM fuzz_client",
    "ALTER ROLE fuzz_client BYPASSRLS",
    "ALTER ROLE fuzz_client NOBYPASSRLS",
    "ALTER ROLE fuzz_client IN DATABASE {database} SET {setting}",
    "ALTER ROLE fuzz_client IN DATABASE {database} RESET ALL",
    "ALTER DATABASE {database} SET {setting}",
    "ALTER DATABASE {database} RESET ALL",
    "ALTER TYPE {s}.chunk_outcome ADD VALUE IF NOT EXISTS 'own{n}'",
    "ALTER TYPE {s}.upload_status ADD VALUE IF NOT EXISTS 'own{n}'",
    "ALTER TYPE {s}.chunk_result ADD ATTRIBUTE own{n} text",
    "ALTER TYPE {s}.chunk_result DROP ATTRIBUTE IF EXISTS own{n}",
    "ALTER TYPE {s}.upload_lease ADD ATTRIBUTE own{n} text",
    "ALTER TYPE {s}.upload_lease DROP ATTRIBUTE IF EXISTS own{n}",
    "ALTER EXTENSION vali_blob UPDATE",
    "ALTER EXTENSION vali_blob DROP TABLE {t}",
    "ALTER EXTENSION vali_blob ADD TABLE {t}",
    ["LOCK TABLE {t}"],
    ["LOCK TABLE {t} IN SHARE ROW EXCLUSIVE MODE", "ANALYZE {t}"],
    ["ALTER TABLE {t} ADD COLUMN own{n} text", "ALTER TABLE {t} DROP COLUMN own{n}"],
]

# What is done and then undone, in two transactions
OUT_AND_BACK = [
    ("ALTER TABLE {t} RENAME TO away", "ALTER TABLE {s}.away RENAME TO {table}"),
    ("ALTER TABLE {t} SET SCHEMA fuzz", "ALTER TABLE fuzz.{table} SET SCHEMA {s}"),
    ("ALTER SCHEMA {s} RENAME TO away", "ALTER SCHEMA away RENAME TO {s}"),
    ("ALTER TABLE {s}.upload_session RENAME uploaded_bytes TO away", "ALTER TABLE {s}.upload_session RENAME away TO uploaded_bytes"),
    ("ALTER TABLE {s}.upload_session RENAME provider_data TO away", "ALTER TABLE {s}.upload_session RENAME away TO provider_data"),
    ("ALTER TABLE {s}.upload_session ALTER uploaded_bytes TYPE numeric", "ALTER TABLE {s}.upload_session ALTER uploaded_bytes TYPE bigint"),
    ("ALTER TABLE {s}.upload_session ALTER metadata DROP DEFAULT, ALTER metadata TYPE text",
     "ALTER TABLE {s}.upload_session ALTER metadata TYPE jsonb USING metadata::jsonb, ALTER metadata SET DEFAULT '{{}}'"),
    ("ALTER TYPE {s}.upload_status RENAME TO away", "ALTER TYPE {s}.away RENAME TO upload_status"),
    ("ALTER TYPE {s}.upload_status RENAME VALUE 'aborted' TO 'away'", "ALTER TYPE {s}.upload_status RENAME VALUE 'away' TO 'aborted'"),
    ("ALTER TYPE {s}.chunk_result RENAME ATTRIBUTE outcome TO away", "ALTER TYPE {s}.chunk_result RENAME ATTRIBUTE away TO outcome"),
    ("REVOKE USAGE ON SCHEMA {s} FROM fuzz_client, fuzz_owner, PUBLIC", "GRANT USAGE ON SCHEMA {s} TO PUBLIC"),
]

DESTROYING = [
    "TRUNCATE {t}",
    "TRUNCATE {t} RESTART IDENTITY CASCADE",
    "DELETE FROM {t}",
    "UPDATE {s}.upload_session SET upload_id = upload_id || 'x', status = 'expired' WHERE random() < 0.3",
    "UPDATE {s}.upload_session SET uploaded_bytes = 0, status = 'pending', owner = 'bob' WHERE random() < 0.3",
    "DROP EXTENSION vali_blob CASCADE",
    "CREATE EXTENSION IF NOT EXISTS vali_blob SCHEMA {s}",
    "CREATE EXTENSION IF NOT EXISTS vali_blob SCHEMA {s} VERSION '1.0'",
    "CREATE EXTENSION IF NOT EXISTS vali_blob SCHEMA {s}",
    "CREATE EXTENSION IF NOT EXISTS vali_blob SCHEMA fuzz",
    ["DROP EXTENSION vali_blob CASCADE", "CREATE EXTENSION vali_blob SCHEMA {s}"],
    ["DROP EXTENSION IF EXISTS vali_blob CASCADE", "CREATE EXTENSION vali_blob SCHEMA {s} VERSION '1.0'"],
    ["ALTER EXTENSION vali_blob DROP TABLE {t}", "DROP TABLE {t} CASCADE"],
    ["ALTER EXTENSION vali_blob DROP TYPE {s}.upload_lease", "DROP TYPE {s}.upload_lease CASCADE"],
    ["ALTER EXTENSION vali_blob DROP FUNCTION {s}.sweep_uploads", "DROP FUNCTION {s}.sweep_uploads"],
    "ALTER FUNCTION {s}.get_upload RENAME TO get_one",
    "ALTER TABLE {s}.upload_session DROP CONSTRAINT IF EXISTS upload_session_pkey CASCADE",
    "ALTER TABLE {s}.upload_session ADD CONSTRAINT upload_session_pkey PRIMARY KEY (upload_id)",
    "ALTER TABLE {s}.upload_part DROP CONSTRAINT IF EXISTS upload_part_pkey",
    "DROP INDEX {i}",
    "ALTER TABLE {s}.upload_session DROP CONSTRAINT IF EXISTS upload_session_complete_check",
    "ALTER TABLE {t} DROP COLUMN owner",
    "ALTER TABLE {s}.upload_session DROP COLUMN provider_data",
    "ALTER TABLE {s}.upload_session DROP COLUMN IF EXISTS lease_epoch",
    "ALTER TABLE {s}.upload_part DROP COLUMN IF EXISTS etag",
    "ALTER TABLE {s}.upload_session ALTER uploaded_bytes DROP NOT NULL, ALTER status DROP NOT NULL",
    "UPDATE {s}.upload_session SET uploaded_bytes = NULL, status = NULL WHERE random() < 0.2",
    "CREATE VIEW {t} AS SELECT 1 AS upload_id",
    ["ALTER TABLE {t} RENAME TO own{n}", "CREATE VIEW {t} AS SELECT * FROM {s}.own{n}"],
    ["ALTER TABLE {t} RENAME TO own{n}", "CREATE TABLE {t} (LIKE {s}.own{n} INCLUDING ALL)"],
    ["ALTER TABLE {s}.upload_session RENAME TO plain{n}",
     "CREATE TABLE {s}.upload_session (LIKE {s}.plain{n} INCLUDING ALL) PARTITION BY HASH (upload_id)",
     "CREATE TABLE {s}.p{n}0 PARTITION OF {s}.upload_session FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
     "CREATE TABLE {s}.p{n}1 PARTITION OF {s}.upload_session FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
     "INSERT INTO {s}.upload_session SELECT * FROM {s}.plain{n}"],
]


class Changer(Session):
    """Changes tables and the rest of the catalog."""

    application = DDL_APPLICATION

    def begin(self):
        rows(self.connection, "SET lock_timeout = '500ms'; SET client_min_messages = error")
        # names of columns that two of them change would be mixed up
        self.choices = HARMLESS + (OUT_AND_BACK * 2 if self.number == 0 else [])
        if self.fuzz.kind == "destroying":
            self.choices = self.choices + DESTROYING * 2

    def step(self):
        time.sleep(self.rng.random() * 0.04)
        table = self.rng.choice(self.fuzz.tables)
        name, values = self.rng.choice(list(self.fuzz.settings.items()))
        words = {
            "s": self.fuzz.schema, "t": f"{self.fuzz.schema}.{table}", "table": table, "n": self.rng.randint(1, 4),
            "i": f"{self.fuzz.schema}.{self.rng.choice(self.fuzz.indexes)}", "database": self.fuzz.database,
            "setting": f"{name} = '{self.rng.choice(values)}'"}
        chosen = self.rng.choice(self.choices)
        if isinstance(chosen, tuple):
            rows(self.connection, chosen[0].format(**words))
            time.sleep(self.rng.random() * 0.1)
            self.undo(chosen[1].format(**words))
            return
        commands = [chosen] if isinstance(chosen, str) else chosen
        if isinstance(chosen, str) and self.rng.random() < 0.7:
            rows(self.connection, chosen.format(**words))
            return
        rows(self.connection, "BEGIN")
        for command in commands:
            rows(self.connection, command.format(**words))
            time.sleep(self.rng.random() * 0.02)
        rows(self.connection, self.rng.choice(["COMMIT", "COMMIT", "ROLLBACK"]))

    def undo(self, command):
        """Tries until it succeeds, as long as that makes sense."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                rows(self.connection, command)
                return
            except psycopg2.Error:
                if self.fuzz.kind == "destroying" or time.monotonic() > deadline:
                    raise


# --- what must hold when all is quiet ---------------------------------------------

INVARIANTS = {
    "more bytes than the size or the limit": """
        SELECT upload_id FROM {s}.upload_session
        WHERE uploaded_bytes < 0 OR uploaded_bytes > total_size OR uploaded_bytes > size_limit""",
    "complete without all bytes": """
        SELECT upload_id FROM {s}.upload_session
        WHERE status = 'complete' AND uploaded_bytes IS DISTINCT FROM total_size""",
    "pending with bytes": """
        SELECT upload_id FROM {s}.upload_session WHERE status = 'pending' AND uploaded_bytes > 0""",
    "bytes that are not those of the parts": """
        SELECT upload_id FROM {s}.upload_session s WHERE any_order AND uploaded_bytes <>
            (SELECT coalesce(sum(chunk_length), 0) FROM {s}.upload_part p WHERE p.upload_id = s.upload_id)""",
    "parts that overlap": """
        SELECT upload_id FROM (
            SELECT p.upload_id, chunk_offset + chunk_length > lead(chunk_offset) OVER w AS meets
            FROM {s}.upload_part p JOIN {s}.upload_session USING (upload_id) WHERE any_order
            WINDOW w AS (PARTITION BY p.upload_id ORDER BY chunk_offset)) x WHERE meets""",
    "parts beyond the end": """
        SELECT upload_id FROM {s}.upload_part JOIN {s}.upload_session USING (upload_id)
        WHERE chunk_offset + chunk_length > CASE WHEN any_order THEN coalesce(total_size, size_limit) ELSE uploaded_bytes END""",
    "parts of a session that an older library would change": """
        SELECT DISTINCT upload_id FROM {s}.upload_part JOIN {s}.upload_session USING (upload_id) WHERE rules_version IS NULL""",
    "live sessions that do not count, or others that do": """
        WITH live AS (
            SELECT s.owner, s.upload_id, coalesce(s.total_size, s.size_limit, 0), s.expires_at
            FROM {s}.upload_session s JOIN {s}.upload_quota q USING (owner)
            WHERE q.counted AND s.status IN ('pending', 'in_progress')
                -- as the manual says, one whose start was not committed when its owner's were counted has no
                -- row until they are counted again; in the row of the owner, xmin is who has counted last
                AND NOT (s.created_at < pg_xact_commit_timestamp(q.xmin) + interval '1 second'
                    AND NOT EXISTS (SELECT FROM {s}.upload_live l WHERE l.upload_id = s.upload_id))),
        recorded AS (
            SELECT l.owner, l.upload_id, l.bytes, l.expires_at
            FROM {s}.upload_live l JOIN {s}.upload_quota q USING (owner) WHERE q.counted)
        (TABLE live EXCEPT TABLE recorded) UNION ALL (TABLE recorded EXCEPT TABLE live)""",
    "chunks that count twice": """
        SELECT upload_id, chunk_offset FROM (
            SELECT *, chunk_offset + chunk_length > lead(chunk_offset) OVER w AS meets
            FROM fuzz.ledger WHERE chunk_length > 0 WINDOW w AS (PARTITION BY upload_id ORDER BY chunk_offset)) x
        WHERE meets""",
    "bytes that are not those of the chunks": """
        SELECT upload_id, uploaded_bytes FROM {s}.upload_session s WHERE upload_id LIKE 'ledger%' AND uploaded_bytes <>
            (SELECT coalesce(sum(chunk_length), 0) FROM fuzz.ledger l WHERE l.upload_id = s.upload_id)""",
}

# Where nobody finishes or drops rows of the queue
QUEUE_INVARIANT = {
    "storage that nobody will free": """
        SELECT upload_id, count(*) FROM {s}.upload_session s
        WHERE status IN ('aborted', 'expired') AND concatenated_from IS NULL AND NOT partial
            AND (provider_data <> '{{}}' OR EXISTS (SELECT FROM {s}.upload_part p WHERE p.upload_id = s.upload_id))
        GROUP BY upload_id
        HAVING count(*) > (SELECT count(*) FROM {s}.upload_reclaim r WHERE r.upload_id = s.upload_id)"""}

HELPERS = r"""
CREATE SCHEMA fuzz;
CREATE DOMAIN fuzz.domain AS text CHECK (VALUE <> 'no') NOT NULL;
CREATE FUNCTION fuzz.noise(n integer) RETURNS text LANGUAGE sql STABLE AS
    $$SELECT string_agg(md5(i::text), '') FROM generate_series(1, n) AS i$$;
CREATE FUNCTION fuzz.confirmed(name text) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    RETURN coalesce((SELECT max(uploaded_bytes) FROM {s}.upload_session WHERE upload_id = name), 0);
EXCEPTION WHEN undefined_table OR undefined_column OR invalid_schema_name OR feature_not_supported THEN
    RETURN 0;
END $$;
CREATE FUNCTION fuzz.same(value text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN value; END';
CREATE FUNCTION fuzz.pass() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE FUNCTION fuzz.suppress() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN IF random() < 0.5 THEN RETURN NULL; END IF; RETURN NEW; END';
CREATE FUNCTION fuzz.look() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM {s}.get_upload(OLD.upload_id), {s}.list_uploads(max_rows => 2);
    PERFORM {s}.try_advance_upload('u1', 0, 10, nowait => true);
    RETURN NULL;
END $$;
CREATE FUNCTION fuzz.run() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN EXECUTE NEW.command; RETURN NEW; END';
CREATE TABLE fuzz.before_row (command text);
CREATE TABLE fuzz.after_row (command text);
CREATE TABLE fuzz.at_the_end (command text);
CREATE TRIGGER run BEFORE INSERT ON fuzz.before_row FOR EACH ROW EXECUTE FUNCTION fuzz.run();
CREATE TRIGGER run AFTER INSERT ON fuzz.after_row FOR EACH ROW EXECUTE FUNCTION fuzz.run();
CREATE CONSTRAINT TRIGGER run AFTER INSERT ON fuzz.at_the_end DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION fuzz.run();
CREATE TABLE fuzz.audit (what text);
CREATE TABLE fuzz.ledger (upload_id text, chunk_offset bigint, chunk_length bigint);
GRANT USAGE ON SCHEMA fuzz TO PUBLIC;
GRANT ALL ON ALL TABLES IN SCHEMA fuzz TO PUBLIC;
"""


# --- a round ------------------------------------------------------------------------


class Round:
    """One database, all that happens in it, and what is to be said about it"""

    def __init__(self, server, seed):
        self.server = server
        self.seed = seed
        self.database = f"fuzz_{seed}"
        self.rng = random.Random(seed)
        self.kind = self.rng.choice(["calm", "calm", "harmless", "harmless", "harmless", "destroying", "destroying"])
        self.schema = self.rng.choice(["public", "public", '"Odd schema"'])
        self.starts_with_1_0 = self.kind != "calm" and self.rng.random() < 0.25
        self.has_policies = self.rng.random() < 0.3
        self.has_other_owner = self.rng.random() < 0.4
        self.keeps_queue = self.rng.random() < 0.5
        self.is_over = threading.Event()
        self.problems = []
        self.seen = {}
        self.calls = 0
        self.returned = collections.Counter()  # calls without an error, by function

    def problem(self, what):
        self.problems.append(what)

    def values(self, rng):
        return Values(rng, self.enums, self.server.version >= 170000)

    def run(self):
        with_postgres = connect("postgres", "fuzz")
        rows(with_postgres, f"CREATE DATABASE {self.database} TEMPLATE template0")
        connection = connect(self.database, "fuzz")
        self.set_up(connection)
        sessions = [cls(self, number) for cls, count in (
            (Caller, CALLERS), (Bookkeeper, LEDGERS if self.kind != "destroying" else 0), (Watcher, 1), (Disturber, 1),
            (Changer, CHANGERS if self.kind != "calm" else 0)) for number in range(count)]
        self.run_sessions(sessions)
        try:
            self.check(connect(self.database, "fuzz"))
            self.count_returned(connect(self.database, "fuzz"))
            self.drop_database()
        except psycopg2.Error as error:
            self.problem(f"the round does not end: {error}")
        self.calls = sum(thread.count for thread in sessions if isinstance(thread, Caller))
        self.problems += self.server.read_log(self)

    def set_up(self, connection):
        rows(connection, f"SET client_min_messages = error; CREATE SCHEMA IF NOT EXISTS {self.schema}")
        rows(connection, f"CREATE EXTENSION vali_blob SCHEMA {self.schema}" + (" VERSION '1.0'" if self.starts_with_1_0 else ""))
        rows(connection, HELPERS.replace("{s}", self.schema))
        rows(connection, f"GRANT USAGE, CREATE ON SCHEMA {self.schema} TO PUBLIC")
        for role in ("fuzz_client", "fuzz_owner"):
            rows(connection, f"SELECT {self.schema}.grant_upload_access('{role}')")
        self.read_catalog(connection)
        for table in self.tables:
            if self.has_other_owner:
                rows(connection, f"ALTER TABLE {self.schema}.{table} OWNER TO fuzz_owner")
        if self.has_policies:
            rows(connection, f"""ALTER TABLE {self.schema}.upload_session ENABLE ROW LEVEL SECURITY;
                CREATE POLICY visible ON {self.schema}.upload_session USING (upload_id <> 'u1')""")
        self.ledger_ids = ["ledger 1", "ledger 2"]
        for name in self.ledger_ids:
            rows(connection, f"SELECT {self.schema}.start_upload('file', ttl => '0', upload_id => '{name}')")
        if not self.starts_with_1_0:
            self.ledger_ids.append("ledger any")
            rows(connection, f"SELECT {self.schema}.start_upload('file', ttl => '0', upload_id => 'ledger any', any_order => true)")
            rows(connection, f"SELECT {self.schema}.set_upload_quota('ann', 3, 1000, 100)")
            for name in PARTS:
                rows(connection, f"SELECT {self.schema}.start_upload('file', 0, ttl => '0', upload_id => '{name}', partial => true)")

    def read_catalog(self, connection):
        # the names of types are qualified, for callers with an empty search_path, too
        rows(connection, "SET search_path = ''")
        of_extension = """FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'vali_blob'
            AND d.deptype = 'e' """
        self.functions = [function for function in read_functions(connection, self.schema)
                          if not (self.keeps_queue and function.name in ("finish_reclaim", "delete_upload"))]
        self.returned.update({function.name: 0 for function in self.functions})
        self.tables = [name for name, in rows(connection, f"""
            SELECT relname {of_extension} JOIN pg_class c ON c.oid = d.objid AND d.classid = 'pg_class'::regclass
            WHERE relkind = 'r' ORDER BY c.oid""")]
        self.indexes = [name for name, in rows(connection, f"""
            SELECT c.relname {of_extension} JOIN pg_index i ON i.indrelid = d.objid JOIN pg_class c ON c.oid = i.indexrelid
            ORDER BY c.oid""")]
        self.enums = {}
        for kind, label in rows(connection, "SELECT format_type(enumtypid, NULL), enumlabel FROM pg_enum ORDER BY enumsortorder"):
            self.enums.setdefault(kind, []).append(label)
        self.settings = {name: labels or (["on", "off"] if kind == "bool" else [least, most, start, "0"])
                         for name, kind, least, most, labels, start in rows(connection, """
            SELECT name, vartype, min_val, max_val, enumvals, reset_val FROM pg_settings
            WHERE name LIKE 'vali_blob.%' AND name NOT IN ('vali_blob.sweep', 'vali_blob.sweep_interval') ORDER BY name""")
                         if not (self.keeps_queue and name == "vali_blob.reclaim_retention")}
        # 0 for the idle time is no value
        self.settings["vali_blob.session_ttl"] = ["-1", "1", "2147483647"]
        self.parallel = ("debug_parallel_query" if self.server.version >= 160000 else "force_parallel_mode") + " = on"

    def run_sessions(self, sessions):
        connection = connect(self.database, "fuzz")
        over = time.monotonic() + ROUND
        for thread in sessions:
            thread.start()
        try:
            while any(thread.is_alive() for thread in sessions) and time.monotonic() < over + 2 * PATIENCE:
                if time.monotonic() > over:
                    self.is_over.set()
                self.end_prepared(connection, "1 second")
                time.sleep(0.1)
        finally:
            self.is_over.set()
        for thread in sessions:
            if thread.is_alive():
                activity = show_activity(connect("postgres", "fuzz"))
                self.problem(f"{type(thread).__name__} does not end: {activity}")

    def check(self, connection):
        """Checks what must hold now that all sessions have ended."""
        self.wait_until_quiet(connection)
        self.wait_for(connection, "the launcher is gone",
                      "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'vali_blob launcher'")
        if self.kind == "destroying":
            return
        rows(connection, f"SET client_min_messages = error; ALTER DATABASE {self.database} SET vali_blob.sweep = off")
        if self.starts_with_1_0:
            # a table that is logged, as upload_part is, cannot reference one that is not
            rows(connection, f"ALTER TABLE {self.schema}.upload_session SET LOGGED")
        rows(connection, "ALTER EXTENSION vali_blob UPDATE")
        for what, query in {**INVARIANTS, **(QUEUE_INVARIANT if self.keeps_queue and self.kind == "calm" else {})}.items():
            found = rows(connection, query.format(s=self.schema))
            if found:
                self.problem(f"{what}: {found[:5]}")
        if self.kind == "calm":
            self.check_memory(connect(self.database, "fuzz"))

    def count_returned(self, connection):
        for name, times in rows(connection, "SELECT funcname, calls FROM pg_stat_user_functions"):
            if name in self.returned:  # and not a helper, or one that was renamed
                self.returned[name] += times

    def end_prepared(self, connection, age):
        """Rolls back transactions that were prepared, and whose session has ended since: what
        they have locked, others wait for."""
        for prepared, in rows(connection, f"""SELECT gid FROM pg_prepared_xacts
                WHERE database = current_database() AND prepared <= clock_timestamp() - interval '{age}'"""):
            try:
                rows(connection, f"ROLLBACK PREPARED '{prepared}'")
            except psycopg2.Error as error:
                # its own session ends it at the same time
                if error.pgcode not in ("42704", "55000"):
                    raise

    def wait_until_quiet(self, connection):
        self.end_prepared(connection, "0")
        self.wait_for(connection, "sessions that do not end", """
            SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
                AND pid <> pg_backend_pid() AND application_name LIKE 'fuzz %')""")

    def wait_for(self, connection, what, query):
        deadline = time.monotonic() + PATIENCE
        while not rows(connection, query):
            if time.monotonic() > deadline:
                self.problem(f"{what}: {show_activity(connection)}")
                return
            time.sleep(0.05)

    def check_memory(self, connection):
        """Calls the same functions again and again, in which memory must not grow."""
        scripts = Scripts(self.rng, [f for f in self.functions if f.name not in DDL_FUNCTIONS], self.values(self.rng))
        calls = "".join(f"BEGIN PERFORM * FROM {scripts.call()}; EXCEPTION WHEN OTHERS THEN NULL; END; " for _ in range(30))
        loop = f"DO {quote(f'BEGIN FOR iteration IN 1 .. 10 LOOP {calls} END LOOP; END')}"
        used = []
        for _ in range(6):
            rows(connection, loop)
            used.append(rows(connection, """SELECT sum(used_bytes)::bigint FROM pg_backend_memory_contexts
                WHERE name !~ 'Portal|Expr|Exec|Message'""")[0][0])
        # at least this much in each turn
        growth = min(after - before for before, after in zip(used[1:], used[2:]))
        if growth > 4000:
            self.problem(f"memory grows with calls, by {growth} bytes each time: {used}\n  {calls}")

    def drop_database(self):
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                rows(connect("postgres", "fuzz"), f"DROP DATABASE {self.database} (FORCE)")
                return
            except psycopg2.errors.ObjectInUse:
                if time.monotonic() > deadline:
                    raise


# --- the server ------------------------------------------------------------------


class Server:
    """A PostgreSQL with the extension's worker"""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="fuzz")
        self.data = os.path.join(self.folder, "data")
        self.log = os.path.join(self.data, "log", "server")
        os.environ.update(PGHOST=self.folder, PGUSER="postgres", PGOPTIONS="", PGCLIENTENCODING="UTF8")
        subprocess.run(["initdb", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync", "--username=postgres",
                        self.data], check=True, stdout=subprocess.DEVNULL, stderr=sys.stderr)
        with open(os.path.join(self.data, "postgresql.conf"), "a", encoding="utf8") as file:
            file.write(SETTINGS + f"backtrace_functions = '{','.join(BACKTRACES)}'\nunix_socket_directories = '{self.folder}'\n")

    def start(self):
        self.stderr = open(os.path.join(self.folder, "stderr"), "w+", encoding="utf8")
        self.process = subprocess.Popen(["postgres", "-D", self.data], stdout=self.stderr, stderr=self.stderr)
        self.wait()
        connection = connect("postgres", "fuzz")
        self.version = connection.server_version
        rows(connection, "CREATE ROLE fuzz_client LOGIN; CREATE ROLE fuzz_owner LOGIN")
        connection.close()

    def wait(self):
        deadline = time.monotonic() + PATIENCE
        while subprocess.run(["pg_isready", "--quiet"]).returncode != 0:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stderr.seek(0)
                sys.exit("the server does not start: " + self.stderr.read())
            time.sleep(0.1)

    def stop(self):
        subprocess.run(["pg_ctl", "stop", "--silent", "--mode=immediate", "-D", self.data], check=True, stderr=sys.stderr)
        self.process.wait()
        subprocess.run(["rm", "-rf", self.folder], check=True)

    def read_log(self, fuzz):
        """Returns what is wrong in the log since it was read, and empties it."""
        with open(self.log, "r+", encoding="utf8", errors="replace") as file:
            text = file.read()
            file.truncate(0)
        problems = re.findall("^(?:TRAP: .*|.*: runtime error: .*)$", text, re.MULTILINE)
        entry = {}
        for line in text.split("\n@@ "):
            application, backend, label, rest = LOG_LINE.fullmatch(line).groups() if LOG_LINE.fullmatch(line) else (None,) * 4
            if label in ("DETAIL", "HINT", "CONTEXT", "LOCATION", "BACKTRACE", "STATEMENT", "QUERY"):
                entry[label] = rest
                continue
            problems += judge_entry(entry, fuzz)
            entry = {"application": application, "backend": backend, "severity": label, "message": rest or line}
        return problems + judge_entry(entry, fuzz)


LOG_LINE = re.compile(r"(?:@@ )?([^|]*) \| ([^|]*) \| ([A-Z0-9]+):  (.*)", re.DOTALL)


def judge_entry(entry, fuzz):
    """Returns what is wrong with an entry of the log, in a list, or nothing."""
    message = entry.get("message", "")
    if entry.get("severity") == "PANIC" or "was terminated by signal" in message or (
            entry.get("severity") in ("ERROR", "FATAL") and message.startswith("XX") and not is_tolerated(entry, fuzz)):
        return ["\n".join(f"{key}: {value[:3000]}" for key, value in entry.items() if value is not None)]
    return []


def our_functions():
    """Returns the functions of the extension's source, as LOCATION names them.  PostgreSQL
    has files of the same names, a catalog.c for example, with other functions."""
    found = set()
    for file in (name for name in os.listdir(SOURCE) if name.endswith((".c", ".h"))):
        with open(os.path.join(SOURCE, file), encoding="utf8") as source:
            found.update(f"{name}, {file}" for name in re.findall(r"^(\w+)\(", source.read(), re.MULTILINE))
    return found


def is_tolerated(entry, fuzz):
    """Is an error of class XX one of commands that have met?"""
    message = entry["message"][len("XX000: "):]
    location = entry.get("LOCATION", "")
    # whatever is gone, and whoever calls: our own code must not have looked for it in vain
    if location.rpartition(":")[0] in OUR_FUNCTIONS:
        return False
    if entry["application"] == DDL_APPLICATION or DDL_CONTEXT.search(entry.get("CONTEXT", "")):
        return message.startswith(tuple(DDL_MEETS_DDL))
    if location.startswith(PLANNER_MEETS_DDL):
        return fuzz.kind != "calm"
    if location.startswith("internal_get_result_type,"):
        return fuzz.kind == "destroying"  # the function that runs was dropped
    # the functions whose stack the log does not have differ with the version, and only
    # rounds that drop what is called get to them
    stack = entry.get("BACKTRACE", "" if fuzz.kind == "destroying" else "vali_blob.so")
    return fuzz.kind != "calm" and "vali_blob.so" not in stack and message.startswith(tuple(DDL_MEETS_QUERY))


OUR_FUNCTIONS = our_functions()


def check_sweeper(server):
    """Waits for the worker to expire a session in a new database."""
    fuzz = Round(server, 0)
    rows(connect("postgres", "fuzz"), "CREATE DATABASE swept")
    connection = connect("swept", "fuzz")
    rows(connection, "CREATE EXTENSION vali_blob; SELECT start_upload('file', ttl => '1 microsecond')")
    fuzz.wait_for(connection, "the sweeper does not sweep", "SELECT 1 FROM upload_session WHERE status = 'expired'")
    return fuzz.problems


def report(number, title, problems):
    print(f"{'not ok' if problems else 'ok'} {number} - {title}", flush=True)
    for problem in problems[:10]:
        print("\n".join("  " + line for line in problem.split("\n")), flush=True)
    if len(problems) > 10:
        print(f"  ... and {len(problems) - 10} more")


def main():
    # what we read is not looked at, and may be nested too deep for Python
    psycopg2.extras.register_default_json(loads=str, globally=True)
    psycopg2.extras.register_default_jsonb(loads=str, globally=True)
    seconds, seed = (int(argument) for argument in sys.argv[1:])
    server = Server()
    begin = time.monotonic()
    number = failed = calls = 0
    returned = collections.Counter()
    server.start()
    try:
        while number == 0 or time.monotonic() - begin < seconds:
            fuzz = Round(server, seed + number)
            number += 1
            try:
                fuzz.run()
            except psycopg2.OperationalError as error:  # the log tells why
                server.wait()
                fuzz.problems += [str(error)] + server.read_log(fuzz)
            calls += fuzz.calls
            returned.update(fuzz.returned)
            report(number, f"a {fuzz.kind} round of seed {fuzz.seed}, {fuzz.calls} scripts, {len(fuzz.seen)} SQLSTATEs", fuzz.problems)
            failed += fuzz.problems != []
        problems = check_sweeper(server) + ([] if calls else ["nothing was called"])
        report(number + 1, "the sweeper goes on", problems)
        failed += problems != []
        count = number + 1
        if calls >= ENOUGH_SCRIPTS:
            never = [f"{name} has never returned" for name, times in returned.items() if times == 0]
            rarest = min(returned, key=returned.get)
            count += 1
            report(count, f"all functions have returned, {rarest} least often, {returned[rarest]} times", never)
            failed += never != []
    finally:
        server.stop()
    print(f"1..{count}")
    sys.exit(failed > 0)


def quieten():
    """Keeps libpq and psycopg2 from writing about every connection that ends."""
    sys.stderr = os.fdopen(os.dup(2), "w", encoding="utf8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.unraisablehook = sys.excepthook = lambda *_: None


if __name__ == "__main__":
    quieten()
    try:
        main()
    except Exception:  # the hook would not show it
        traceback.print_exc()
        sys.exit(2)
