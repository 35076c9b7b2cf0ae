"""The tables: the numbers as Markdown, and the goals beside them."""

import contextlib
import dataclasses
import io
from statistics import median

from servers import CLIENTS

LABELS = {
    "select_1": "`SELECT 1`, which costs a round trip",
    "floor": "`pg_logical_emit_message`, the smallest transaction that writes WAL",
    "vali_blob": "**vali_blob**: `try_advance_upload`",
    "vali_blob_sql": "the same with `vali_blob.row_access = sql`",
    "by_hand": "hand-written `UPDATE … RETURNING`",
    "by_function": "PL/pgSQL function",
    "original": "`SELECT`, then `UPDATE`, as an ORM does it",
    "original_transaction": "the same in a transaction",
    "redis": "Redis: `GET`, then `SET` with `EX`",
    "vali_blob_batch": "`advance_uploads`, 100 chunks a call",
}
LIFE_LABELS = {
    "vali_blob": "**vali_blob**",
    "vali_blob_sql": "the same with `vali_blob.row_access = sql`",
    "by_hand": "hand-written `INSERT` and `UPDATE`s",
    "original": "`SELECT`s and `UPDATE`s, as an ORM does it",
    "redis": "Redis: `SET`, `GET`s and `SET`s, `GET`, `DEL`",
}
READER_LABELS = {
    "get_upload": "**vali_blob**: `get_upload`",
    "select": "`SELECT` by `upload_id`",
}
PART_LABELS = {
    "no_part": "chunks that leave no part",
    "part": "chunks that leave a part",
    "any_order": "chunks in any order, which leave a part",
}
NOTIFY_LABELS = {
    "off": "`vali_blob.notify = off`",
    "lifecycle": "`lifecycle`",
    "progress": "`progress`, at most once a second",
}
LEASE_LABELS = {
    "acquire": "`acquire_upload_lease`",
    "renew": "`renew_upload_lease`",
    "release": "`release_upload_lease`",
}
LIMIT_LABELS = {
    "none": "no limits in the database",
    "others": "an owner without limits, where 1,000 others have some",
    "limited": "an owner with limits and 10,000 live sessions",
}
ROUTER_LABELS = {
    "vali_blob.sql": "a chunk, {kind}, {clients}",
    "vali_blob_batch.sql": "100 chunks in a call, {kind}, {clients}",
    "conflict_outcome.sql": "a conflict as an outcome (`try_advance_upload`), {clients}",
    "conflict_raised.sql": "a conflict that is raised (`advance_upload`), {clients}",
}
KEY_LABELS = {
    "foreign_keys": "with foreign keys from `owner` and to `upload_id`",
    "no_foreign_keys": "without",
}


def spread(values, form):
    """The median of the values, their minimum and maximum."""
    return f"{median(values):{form}} ({min(values):{form}} – {max(values):{form}})"


def ratios(numerators, denominators):
    """Of each round, so that what slows a whole round cancels out."""
    return [a / b for a, b in zip(numerators, denominators)]


def table(heads, *rows):
    print(" | ".join(["", *heads, ""]).strip())
    print("|---|" + "---:|" * (len(heads) - 1))
    for row in rows:
        print(" | ".join(["", *map(str, row), ""]).strip())
    print()


def rates_of(rounds):
    return {name: [figures["rate"] for figures in all_figures]
            for name, all_figures in rounds.items()}


def wal_rounds(results, name):
    """The rounds of a contestant that say what it wrote to the WAL."""
    return [figures for figures in results["durable"][name] + results["relaxed"][name]
            if "bytes" in figures]


@dataclasses.dataclass
class Goal:
    what: str
    values: list
    limit: float
    at_most: bool = False
    form: str = ".2f"

    def row(self):
        middle = median(self.values)
        met = middle <= self.limit if self.at_most else middle >= self.limit
        limit = f"≤ {self.limit:,}" if self.at_most else f"≥ {self.limit:,}"
        return [self.what, spread(self.values, self.form), limit, "yes" if met else "**no**"]


# How many times as fast as these vali_blob is to be.  Durable figures end at the
# disk, which costs everybody the same, so few goals are set there.
DURABLE_GOALS = {
    "by_hand": ("a hand-written `UPDATE … RETURNING`", 1.2),
    "redis": ("Redis", 1.0),
}
RELAXED_GOALS = {
    "floor": ("the smallest transaction that writes WAL", 0.6),
    "by_hand": ("a hand-written `UPDATE … RETURNING`", 1.2),
    "by_function": ("a PL/pgSQL function", 1.6),
    "original": ("`SELECT`, then `UPDATE`", 2.0),
    "original_transaction": ("`SELECT`, then `UPDATE`, in a transaction", 2.5),
    "redis": ("Redis", 1.0),
}
# The same of lives with so many chunks
LIFE_GOALS = {
    1: {"by_hand": ("hand-written SQL", 1.1), "original": ("what an ORM does", 1.2)},
    8: {"by_hand": ("hand-written SQL", 1.3), "original": ("what an ORM does", 2.0)},
}
DURABLE_LIFE_GOALS = {"redis": ("Redis", 1.0)}


def throughput_goals(what, rounds, limits):
    rates = rates_of(rounds)
    for name, (contestant, limit) in limits.items():
        yield Goal(f"{what}, against {contestant}", ratios(rates["vali_blob"], rates[name]), limit)


def batch_goal(results, kind):
    rates = rates_of(results[kind])
    return Goal(f"{kind} chunks in calls of 100, against single calls",
                ratios(rates["vali_blob_batch"], rates["vali_blob"]), 5)


def life_goals(lives):
    what = of_chunks(lives["chunks"])
    yield from throughput_goals(f"durable lives {what}", lives["durable"], DURABLE_LIFE_GOALS)
    yield from throughput_goals(f"relaxed lives {what}", lives["relaxed"], LIFE_GOALS[lives["chunks"]])
    wal = wal_rounds(lives, "vali_blob")
    if lives["chunks"] == 1:
        yield Goal(f"bytes of WAL a life {what}", [figures["bytes"] for figures in wal], 1150, True, ",.0f")
    yield Goal(f"share of updates by lives {what} that are not HOT",
               [1 - figures["hot"] for figures in wal], 0, True, ".6f")


def part_goals(parts):
    yield Goal(f"cost of a chunk that leaves part {parts['many']:,}, against the first ones",
               ratios(parts["last"], parts["first"]), 1.2, True)
    yield Goal(f"bytes of WAL a chunk that leaves part {parts['half']:,}, against ETags in a JSON document",
               [parts["wal"] / parts["json_wal"]], 0.1, True, ".3f")
    for function, times in parts["times"].items():
        yield Goal(f"milliseconds for `{function}` of {parts['many']:,} parts", times, 20, True, ".1f")


def lease_goals(leases):
    for name, label in LEASE_LABELS.items():
        yield Goal(f"cost of {label}, against a chunk", ratios(leases[name], leases["chunk"]), 1.2, True)


def limit_goals(limits):
    yield Goal("cost of a start where others have limits, against one where nobody has any",
               ratios(limits["others"], limits["none"]), 1.05, True)
    yield Goal(f"milliseconds for a start of an owner with limits, 10,000 live sessions and {limits['ended']:,} ended",
               limits["limited"], 2, True)


def goals(results):
    """What is to be so many times something else, and other limits."""
    yield from throughput_goals("durable chunks", results["durable"], DURABLE_GOALS)
    yield batch_goal(results, "durable")
    yield from throughput_goals("relaxed chunks", results["relaxed"], RELAXED_GOALS)
    yield batch_goal(results, "relaxed")
    keys = rates_of(results["foreign_keys"])
    yield Goal("relaxed chunks of a table with foreign keys, against one without",
               ratios(keys["foreign_keys"], keys["no_foreign_keys"]), 0.95)
    parts = rates_of(results["parts"])
    for name in "part", "any_order":
        yield Goal(f"cost of {PART_LABELS[name]}, against those that leave none",
                   ratios(parts["no_part"], parts[name]), 1.6, True)
    yield from part_goals(results["many_parts"])
    yield from lease_goals(results["leases"])
    yield from limit_goals(results["limits"])
    reads = rates_of(results["readers"])
    yield Goal("`get_upload`, against a `SELECT` by `upload_id`",
               ratios(reads["get_upload"], reads["select"]), 0.95)
    wal = wal_rounds(results, "vali_blob")
    yield Goal("bytes of WAL a chunk", [figures["bytes"] for figures in wal], 210, True, ".0f")
    yield Goal("share of updates by chunks that are not HOT",
               [1 - figures["hot"] for figures in wal], 0.01, True, ".4f")
    for lives in results["lives"]:
        yield from life_goals(lives)
    listings = results["listings"]
    for what, times in listings["times"].items():
        if what.startswith("newest"):
            yield Goal(f"milliseconds for the {what}, {listings['sessions']:,} sessions in all", times, 10, True)
    smallest, *others = results["sizes"]
    for size in others:
        yield Goal(f"cost of a chunk among {size['sessions']:,} sessions, {smallest['sessions']:,} of them busy,"
                   f" against {smallest['sessions']:,}",
                   ratios(size["few"], smallest["few"]), 1.2, True)
    sweep = results["sweep"]
    normal = median(p99 for _, p99 in sweep["before"])
    yield Goal(f"p99 of latency while {sweep['stale']:,} sessions are swept, against no sweep",
               [p99 / normal for _, p99 in sweep["during"]], 1.5, True)
    first, *_, last = results["memory"]
    yield Goal(f"resident memory of a backend after {last['calls']:,} calls, against {first['calls']:,}",
               [last["own"] / first["own"]], 1.01, True)


def print_goals(results):
    table(["what is measured", "median (range)", "goal", "met"], *(goal.row() for goal in goals(results)))


def print_machine(results):
    machine = results["machine"]
    at = f"At commit {results['commit']}, " if results["commit"] else ""
    print(f"{at}`{results['command']}` took {results['minutes']:.0f} minutes on {machine['cores']} cores"
          f" ({machine['processor']}) with {machine['memory'] / 2**30:.0f} GB, Linux {machine['kernel']},"
          f" PostgreSQL {machine['postgres']}, Redis {machine['redis']},"
          f" a disk with {machine['fsyncs']:,.0f} fdatasync a second."
          " Figures are medians (minimum – maximum). Ratios are taken round by round, those of the sweep"
          " against the median before it.\n")


def print_throughput(title, rounds, sessions):
    print(f"### Chunks per second, {title}\n")
    table([f"{CLIENTS} clients, {sessions:,} sessions", "chunks/s", "vali_blob is so many times as fast"],
          *throughput_rows(LABELS, rounds, ours=("vali_blob", "vali_blob_batch")))


def throughput_rows(labels, rounds, ours):
    """What each does, and how many times the first of ours does that."""
    rates = rates_of(rounds)
    return [[label, spread(rates[name], ",.0f"),
             "" if name in ours else spread(ratios(rates[ours[0]], rates[name]), ".2f")]
            for name, label in labels.items()]


def of_clients(count):
    return "1 client" if count == 1 else f"{count} clients"


def of_chunks(count):
    return "of 1 chunk" if count == 1 else f"of {count} chunks"


def print_lives(results):
    for lives in results["lives"]:
        print(f"### Lives {of_chunks(lives['chunks'])}: start, advance, complete\n")
        durable, relaxed = (throughput_rows(LIFE_LABELS, lives[kind], ours=("vali_blob",))
                            for kind in ("durable", "relaxed"))
        table([f"{CLIENTS} clients, {results['sessions']:,} sessions before", "durable lives/s",
               "vali_blob is so many times as fast", "relaxed lives/s", "vali_blob is so many times as fast"],
              *(left + right[1:] for left, right in zip(durable, relaxed)))


# What a WAL record is for, by the beginning of its name
WAL_PARTS = {
    "row version": ("Heap/HOT_UPDATE", "Heap/UPDATE"),
    "row lock": ("Heap/LOCK",),
    "commit": ("Transaction/COMMIT",),
    "pruning": ("Heap2/PRUNE",),
}
LIFE_WAL_PARTS = {"new row": ("Heap/INSERT",), "index entries": ("Btree/",), **WAL_PARTS}


def print_wal_table(labels, results, parts):
    rows = []
    for name, label in labels.items():
        rounds = wal_rounds(results, name)
        if rounds:
            sizes = [median(sum(size for record, size in figures["records"].items() if record.startswith(part))
                            for figures in rounds) for part in parts.values()]
            rows.append([label, spread([figures["bytes"] for figures in rounds], ",.0f"),
                         *(f"{size:,.0f}" for size in sizes),
                         spread([figures["hot"] for figures in rounds], ".1%")])
    table(["", "bytes", *parts, "HOT"], *rows)


def print_wal(results):
    print("### WAL of a chunk, and HOT updates\n")
    print_wal_table(LABELS, results, WAL_PARTS)
    for lives in results["lives"]:
        print(f"### WAL of a life {of_chunks(lives['chunks'])}, and HOT updates\n")
        print_wal_table(LIFE_LABELS, lives, LIFE_WAL_PARTS)
    print("Images of pages touched for the first time since a checkpoint are not counted. What is"
          " missing from the sums: index entries of chunks, alignment, the headers of WAL pages,"
          " autovacuum.\n")


def print_readers(rounds, sessions):
    print("### Reading a session\n")
    table([f"{CLIENTS} clients, {sessions:,} sessions", "sessions/s", "vali_blob is so many times as fast"],
          *throughput_rows(READER_LABELS, rounds, ours=("get_upload",)))


def print_foreign_keys(rounds, sessions):
    print("### Foreign keys of an application\n")
    table([f"relaxed chunks, {CLIENTS} clients, {sessions:,} sessions", "chunks/s",
           "with them so many times as fast"],
          *throughput_rows(KEY_LABELS, rounds, ours=("foreign_keys",)))


def print_parts(rounds, parts, sessions):
    print("### Parts\n")
    table([f"relaxed, {CLIENTS} clients, {sessions:,} sessions", "chunks/s", "without so many times as fast"],
          *throughput_rows(PART_LABELS, rounds, ours=("no_part",)))
    table(["one client, one session", ""],
          ["microseconds for a chunk, first parts", spread(parts["first"], ",.0f")],
          [f"... from part {parts['many']:,} on", spread(parts["last"], ",.0f")],
          [f"bytes of WAL a chunk, from part {parts['half']:,} on", f"{parts['wal']:,.0f}"],
          ["... with the ETags in a JSON document of the session", f"{parts['json_wal']:,.0f}"],
          *([f"milliseconds for `{function}` of {parts['many']:,}", spread(times, ".1f")]
            for function, times in parts["times"].items()))


def print_leases(leases):
    print("### Leases\n")
    table([f"{CLIENTS} clients, relaxed", "ms", "times a chunk"],
          ["a chunk with a `lease_epoch`", spread(leases["chunk"], ".3f"), ""],
          *([label, spread(leases[name], ".3f"), spread(ratios(leases[name], leases["chunk"]), ".2f")]
            for name, label in LEASE_LABELS.items()))


def print_limits(limits):
    print("### Starts and limits\n")
    table([f"one client, relaxed; {limits['ended']:,} sessions of the last owner have ended", "ms", "times the first"],
          *([label, spread(limits[name], ".3f"), spread(ratios(limits[name], limits["none"]), ".2f")]
            for name, label in LIMIT_LABELS.items()))


def print_notify(notify):
    print("### Lives of 8 chunks, and notifications\n")
    rows = {kind: [[label, spread(rates[name], ",.0f"), spread(ratios(rates["off"], rates[name]), ".2f")]
                   for name, label in NOTIFY_LABELS.items()]
            for kind, rates in ((kind, rates_of(rounds)) for kind, rounds in notify.items())}
    table([f"{CLIENTS} clients", "durable lives/s", "without so many times as fast", "relaxed lives/s",
           "without so many times as fast"],
          *(left + right[1:] for left, right in zip(rows["durable"], rows["relaxed"])))


def print_listings(listings):
    print(f"### Listings of {listings['sessions']:,} sessions\n")
    table(["one client", "ms"],
          *([what, spread(times, ".2f")] for what, times in listings["times"].items()))


def print_statistics(statistics):
    print("### Asking for `upload_stats`\n")
    table(["one session", "live", "ms, first time", "pages", "ms, again", "pages"],
          *([f"{of['sessions']:,} sessions", f"{of['live']:,}", f"{of['first'][0]:,.0f}", f"{of['first'][1]:,}",
             spread([ms for ms, _ in of["again"]], ",.1f"), f"{median(pages for _, pages in of['again']):,.0f}"]
            for of in statistics))


def print_big_arguments(calls):
    print("### Big arguments\n")
    rows = []
    for call in calls:
        times, memory = zip(*call["runs"])
        rows.append([call["what"], spread(times, ",.0f"), f"{max(memory) / 2**20:,.0f}"])
    table(["a call in a new backend", "ms", "peak of its own resident memory, MB"], *rows)


def print_sweep(sweep):
    print(f"### While {sweep['stale']:,} stale sessions are swept\n")
    normal = median(p99 for _, p99 in sweep["before"])
    rows = []
    for phase in "before", "during", "after":
        p50, p99 = zip(*sweep[phase])
        rows.append([phase, spread(p50, ".2f"), spread(p99, ".2f"), f"{median(p99) / normal:.2f}"])
    table([f"durable chunks, {CLIENTS} clients", "p50, ms", "p99, ms", "p99 / before"], *rows)
    print(f"The sweep took {sweep['seconds']:,.0f} s,"
          f" {sweep['stale'] / sweep['seconds']:,.0f} sessions a second.\n")


def print_sizes(sizes):
    print("### Cost of a chunk in tables of different size\n")
    print(f"One over the relaxed throughput of {CLIENTS} clients, in microseconds.\n")
    smallest = sizes[0]
    rows = [[f"{size['sessions']:,}",
             spread(size["few"], ".1f"), spread(ratios(size["few"], smallest["few"]), ".2f"),
             spread(size["all"], ".1f"), spread(ratios(size["all"], smallest["all"]), ".2f")]
            for size in sizes]
    table(["sessions", f"{smallest['sessions']:,} of them busy", "ratio", "all of them busy", "ratio"], *rows)


def print_partitions(costs):
    print("### Cost of a chunk in hash partitions\n")
    print(f"One over the relaxed throughput of {CLIENTS} clients, in microseconds.\n")
    table(["sessions", "plain table", f"{costs['partitions']} partitions", "ratio"],
          [f"{costs['sessions']:,}", spread(costs["plain"], ".1f"), spread(costs["partitioned"], ".1f"),
           spread(ratios(costs["partitioned"], costs["plain"]), ".2f")])


def print_memory(memory):
    print("### Memory of one backend\n")
    table(["calls", "memory contexts, kB", "own resident memory, kB",
           "peak, with the shared memory it has seen, kB"],
          *([f"{at['calls']:,}", *(f"{at[key] / 1024:,.0f}" for key in ("contexts", "own", "peak"))]
            for at in memory))


def print_router(router):
    if router is None:
        return
    print("### Through a router\n")
    table(["three shards and the router on one server", "direct calls/s", "through the router", "ratio"],
          *([ROUTER_LABELS[of["script"]].format(kind="durable" if of["durable"] else "relaxed",
                                                clients=of_clients(of["clients"])),
             spread(of["direct"], ",.0f"), spread(of["router"], ",.0f"),
             spread(ratios(of["router"], of["direct"]), ".3f")] for of in router))
    outcome, raised = (of for of in router if of["script"].startswith("conflict_"))
    print("After an error PL/Proxy drops its connection to the shard, so that the next call starts a process there: a"
          " conflict that is raised costs"
          f" {median(ratios(outcome['router'], raised['router'])):.1f} times one that is an outcome, and directly"
          f" {median(ratios(outcome['direct'], raised['direct'])):.1f} times.\n")


def print_report(results):
    sessions = results["sessions"]
    print_machine(results)
    print_goals(results)
    print_throughput("durable (`synchronous_commit = on`, `appendfsync always`)",
                     results["durable"], sessions)
    print_throughput("relaxed (`synchronous_commit = off`, `appendfsync everysec`)",
                     results["relaxed"], sessions)
    print_lives(results)
    print_wal(results)
    print_readers(results["readers"], sessions)
    print_foreign_keys(results["foreign_keys"], sessions)
    print_parts(results["parts"], results["many_parts"], sessions)
    print_leases(results["leases"])
    print_limits(results["limits"])
    print_notify(results["notify"])
    print_sweep(results["sweep"])
    print_sizes(results["sizes"])
    print_partitions(results["partitions"])
    print_listings(results["listings"])
    print_statistics(results["statistics"])
    print_big_arguments(results["big_arguments"])
    print_memory(results["memory"])
    print_router(results["router"])


def markdown(results):
    """What bench/run prints"""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        print_report(results)
    return printed.getvalue()


def summary(results):
    """The figures of README.md"""
    def times(rounds, name):
        rates = rates_of(rounds)
        return f"{median(ratios(rates['vali_blob'], rates[name])):.2f}"

    durable, relaxed = results["durable"], results["relaxed"]
    wal = median(figures["bytes"] for figures in wal_rounds(results, "vali_blob"))
    *_, lives = results["lives"]
    return (
        f"On one machine, in one run, with {CLIENTS} clients: a chunk is {times(durable, 'by_hand')} times as fast"
        " as a hand-written `UPDATE ... RETURNING` where every chunk is on disk before it is acknowledged, and"
        f" {times(relaxed, 'by_hand')} times with `synchronous_commit = off`; it writes {wal:.0f} bytes of WAL and no"
        f" index; against Redis it is {times(durable, 'redis')} and {times(relaxed, 'redis')} times as fast."
        f" A whole upload of {lives['chunks']} chunks, from start to completion, is"
        f" {times(lives['durable'], 'by_hand')} and {times(lives['relaxed'], 'by_hand')} times as fast as"
        f" hand-written SQL, {times(lives['durable'], 'original')} and {times(lives['relaxed'], 'original')} times as"
        " the `SELECT`, then `UPDATE` of an ORM on its own schema, and"
        f" {times(lives['durable'], 'redis')} and {times(lives['relaxed'], 'redis')} times as Redis."
        " [doc/benchmark.md](doc/benchmark.md) has all figures, goals and reasons."
        f" `{results['command']}` measures them again in {results['minutes']:.0f} minutes, on servers of its own.")
