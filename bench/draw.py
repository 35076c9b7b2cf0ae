"""The picture: chunks and whole uploads of all contestants, as SVG."""

from statistics import median

from report import LABELS, LIFE_LABELS, of_chunks, rates_of
from servers import CLIENTS

CHUNKS_SHOWN = ["vali_blob", "by_hand", "by_function", "original", "original_transaction", "redis"]
LIVES_SHOWN = ["vali_blob", "by_hand", "original", "redis"]
COLUMNS = {
    "durable": "on disk before it is acknowledged",
    "relaxed": "a crash may lose the last moments",
}
WIDTH, MARGIN, LEFT, RANGE_END, ROW = 800, 20, 310, 60, 26
COLUMN = (WIDTH - LEFT) // len(COLUMNS)

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.page { fill: #ffffff; stroke: #d1d9e0 }
.title { font-weight: 600 }
.small { font-size: 12px; fill: #59636e }
.ours { fill: #2f81f7 }
.other { fill: #9aa4af }
.range { stroke: #59636e; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .page { fill: #0d1117; stroke: #3d444d }
  .small { fill: #9198a1 }
  .other { fill: #656c76 }
  .range { stroke: #b7bdc8 }
}"""


def text(x, y, words, **attributes):
    attributes = "".join(f' {name.replace("_", "-").strip("-")}="{value}"'
                         for name, value in attributes.items())
    return f'<text x="{x:.0f}" y="{y:.0f}"{attributes}>{words}</text>'


def bars(left, top, shown, rates):
    """A bar for each contestant, with a line from the slowest to the fastest
    round."""
    scale = (COLUMN - RANGE_END) / max(max(rates[name]) for name in shown)
    for number, name in enumerate(shown):
        y = top + number * ROW
        middle, low, high = median(rates[name]), min(rates[name]), max(rates[name])
        look = "ours" if name == "vali_blob" else "other"
        yield f'<rect class="{look}" x="{left}" y="{y}" width="{middle * scale:.0f}" height="18" rx="2"/>'
        yield (f'<line class="range" x1="{left + low * scale:.0f}" x2="{left + high * scale:.0f}"'
               f' y1="{y + 9}" y2="{y + 9}"/>')
        yield text(left + high * scale + 6, y + 14, f"{middle:,.0f}", _class="small")


def panel(top, title, shown, labels, rounds):
    """The contestants, and beside them their durable and their relaxed rates, each
    column in a scale of its own."""
    yield text(MARGIN, top, title, _class="title")
    for number, name in enumerate(shown):
        label = labels[name].replace("*", "").replace("`", "")
        yield text(LEFT - 10, top + 26 + number * ROW, label, text_anchor="end")
    for number, (kind, heading) in enumerate(COLUMNS.items()):
        left = LEFT + number * COLUMN
        yield text(left, top, heading, _class="small")
        yield from bars(left, top + 12, shown, rates_of(rounds[kind]))


def draw(results):
    panels = [("Chunks per second", CHUNKS_SHOWN, LABELS, results)]
    for lives in results["lives"]:
        title = f"Uploads {of_chunks(lives['chunks'])} per second"
        panels.append((title, LIVES_SHOWN, LIFE_LABELS, lives))
    heights = [40 + len(shown) * ROW for _, shown, _, _ in panels]
    height = sum(heights) + 2 * MARGIN + 24
    machine = results["machine"]
    yield (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
           f' width="{WIDTH}" height="{height}" role="img">')
    yield "<title>Chunks and uploads per second</title>"
    yield f"<style>{STYLE}\n</style>"
    yield f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>'
    for number, contents in enumerate(panels):
        yield from panel(MARGIN + 18 + sum(heights[:number]), *contents)
    yield text(MARGIN, height - MARGIN,
               f"{CLIENTS} clients, {results['sessions']:,} sessions, {machine['cores']} cores,"
               f" PostgreSQL {machine['postgres'].split()[0]}, Redis {machine['redis']};"
               " medians, lines from the slowest to the fastest round", _class="small")
    yield "</svg>"
