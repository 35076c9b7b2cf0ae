"""The tables: the numbers as Markdown, and the goals beside them."""

from statistics import median

from servers import CLIENTS

LABELS = {
    "select_1": "`SELECT 1`, which costs a round trip",
    "vali_blob": "**vali_blob**: `try_advance_upload`",
    "vali_blob_sql": "the same with `vali_blob.row_access = sql`",
    "by_hand": "hand-written `UPDATE … RETURNING`",
    "by_function": "PL/pgSQL function",
    "original": "`SELECT`, then `UPDATE`, as an ORM does it",
    "original_transaction": "the same in a transaction",
    "redis": "Redis: `GET`, then `SET` with `EX`",
    "vali_blob_batch": "`advance_uploads`, 100 chunks a call",
}

# How many times as fast as a contestant vali_blob is to be
GOALS = {"by_hand": 1.2, "by_function": 1.6, "original": 2.0, "original_transaction": 2.5}
DURABLE_GOALS = {**GOALS, "redis": 1.0}
BATCH_GOAL = 5
WAL_GOAL = 230
HOT_GOAL = 0.99
SIZE_GOAL = 1.3
SWEEP_GOAL = 1.5


def spread(values, form):
    """The median of the values, their minimum and maximum."""
    return f"{median(values):{form}} ({min(values):{form}} – {max(values):{form}})"


def ratios(numerators, denominators):
    """Of each round, so that what slows a whole round cancels out."""
    return [a / b for a, b in zip(numerators, denominators)]


def verdict(met):
    return "yes" if met else "**no**"


def table(heads, *rows):
    print(" | ".join(["", *heads, ""]).strip())
    print("|---|" + "---:|" * (len(heads) - 1))
    for row in rows:
        print(" | ".join(["", *map(str, row), ""]).strip())
    print()


def print_machine(results):
    machine = results["machine"]
    print(f"`{results['command']}` took {results['minutes']:.0f} minutes on {machine['cores']} cores"
          f" ({machine['processor']}) with {machine['memory'] / 2**30:.0f} GB, Linux {machine['kernel']},"
          f" PostgreSQL {machine['postgres']}, Redis {machine['redis']},"
          f" a disk with {machine['fsyncs']:,.0f} fdatasync a second."
          " Figures are medians (minimum – maximum); ratios are taken round by round.\n")


def rates_of(rounds):
    return {name: [figures["rate"] for figures in rounds[name]] for name in LABELS}


def print_throughput(title, rounds, sessions, goals):
    print(f"### Chunks per second, {title}\n")
    rates = rates_of(rounds)
    rows = []
    for name in LABELS:
        if name == "vali_blob_batch":
            continue
        ratio, goal = ratios(rates["vali_blob"], rates[name]), goals.get(name)
        rows.append([LABELS[name], spread(rates[name], ",.0f"),
                     "" if name == "vali_blob" else spread(ratio, ".2f"),
                     f"≥ {goal}" if goal else "", verdict(median(ratio) >= goal) if goal else ""])
    table([f"{CLIENTS} clients, {sessions:,} sessions", "chunks/s", "vali_blob is so many times as fast", "goal", "met"],
          *rows)
    batch = ratios(rates["vali_blob_batch"], rates["vali_blob"])
    table(["many chunks in a call", "chunks/s", "so many times as fast as single calls", "goal", "met"],
          [LABELS["vali_blob_batch"], spread(rates["vali_blob_batch"], ",.0f"), spread(batch, ".2f"),
           f"≥ {BATCH_GOAL}", verdict(median(batch) >= BATCH_GOAL)])


# What a chunk's WAL records are for
WAL_PARTS = {
    "row version": ("Heap/HOT_UPDATE", "Heap/UPDATE"),
    "row lock": ("Heap/LOCK",),
    "commit": ("Transaction/COMMIT",),
    "pruning": ("Heap2/PRUNE", "Heap2/PRUNE_ON_ACCESS"),
}


def print_wal(results):
    print("### WAL of a chunk, and HOT updates\n")
    rows = []
    for name in LABELS:
        rounds = results["durable"][name] + results["relaxed"][name]
        if "bytes" not in rounds[0]:
            continue
        size = [figures["bytes"] for figures in rounds]
        hot = [figures["hot"] for figures in rounds]
        parts = [median(sum(figures["records"].get(record, 0) for record in records)
                        for figures in rounds) for records in WAL_PARTS.values()]
        met = median(size) <= WAL_GOAL and median(hot) > HOT_GOAL
        rows.append([LABELS[name], spread(size, ".0f"), *(f"{part:.0f}" for part in parts),
                     spread(hot, ".1%"),
                     *([f"≤ {WAL_GOAL}, > {HOT_GOAL:.0%}", verdict(met)] if name == "vali_blob" else ["", ""])])
    table(["", "bytes", *WAL_PARTS, "HOT", "goal", "met"], *rows)
    print("Images of pages touched for the first time since a checkpoint are not counted. What is"
          " missing from the sum: index entries, alignment, the headers of WAL pages, autovacuum.\n")


def print_sweep(sweep):
    print(f"### While {sweep['stale']:,} stale sessions are swept\n")
    normal = median(p99 for _, p99 in sweep["before"])
    rows = []
    for phase in "before", "during", "after":
        p50, p99 = zip(*sweep[phase])
        ratio, is_judged = median(p99) / normal, phase == "during"
        rows.append([phase, spread(p50, ".2f"), spread(p99, ".2f"), f"{ratio:.2f}",
                     f"≤ {SWEEP_GOAL}" if is_judged else "",
                     verdict(ratio <= SWEEP_GOAL) if is_judged else ""])
    table([f"durable chunks, {CLIENTS} clients", "p50, ms", "p99, ms", "p99 / before", "goal", "met"], *rows)
    print(f"The sweep took {sweep['seconds']:.0f} s,"
          f" {sweep['stale'] / sweep['seconds']:,.0f} sessions a second.\n")


def print_sizes(sizes):
    print("### Cost of a chunk in tables of different size\n")
    print("In microseconds, one client, relaxed.\n")
    smallest, *others = sizes
    rows = [[f"{smallest['sessions']:,}", spread(smallest["few"], ".0f"), "", spread(smallest["all"], ".0f"),
             "", "", ""]]
    for size in others:
        few, all = ratios(size["few"], smallest["few"]), ratios(size["all"], smallest["all"])
        rows.append([f"{size['sessions']:,}", spread(size["few"], ".0f"), spread(few, ".2f"),
                     spread(size["all"], ".0f"), spread(all, ".2f"), f"≤ {SIZE_GOAL}",
                     f"{verdict(median(few) <= SIZE_GOAL)}, {verdict(median(all) <= SIZE_GOAL)}"])
    table(["sessions", f"{smallest['sessions']:,} of them busy", "ratio", "all of them busy", "ratio",
           "goal", "met"], *rows)


def print_memory(memory):
    print("### Memory of one backend\n")
    first, last = memory[0], memory[-1]
    rows = [[f"{at['calls']:,}", *(f"{at[key] / 1024:,.0f}" for key in ("contexts", "own", "peak")), "", ""]
            for at in memory]
    rows[-1][-2:] = ["does not grow", verdict(last["contexts"] <= first["contexts"])]
    table(["calls", "memory contexts, kB", "own resident memory, kB",
           "peak, with the shared memory it has seen, kB", "goal", "met"], *rows)


def print_report(results):
    sessions = results["sessions"]
    print_machine(results)
    print_throughput("durable (`synchronous_commit = on`, `appendfsync always`)",
                     results["durable"], sessions, DURABLE_GOALS)
    print_throughput("relaxed (`synchronous_commit = off`, `appendfsync everysec`)",
                     results["relaxed"], sessions, GOALS)
    print_wal(results)
    print_sweep(results["sweep"])
    print_sizes(results["sizes"])
    print_memory(results["memory"])
