#!/usr/bin/env python3
"""Draws the main comparison from the numbers of bench/run --json:

    bench/draw.py results.json > doc/benchmark.svg
"""

import json
import sys
from statistics import median

from report import LABELS, rates_of
from servers import CLIENTS

SHOWN = ["vali_blob", "by_hand", "by_function", "original", "original_transaction", "redis"]
WIDTH, MARGIN, LEFT, RIGHT, ROW = 800, 20, 320, 90, 30

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


def bars(top, title, rates):
    """A bar for each contestant, with a line from the slowest to the fastest
    round."""
    scale = (WIDTH - LEFT - RIGHT) / max(max(rates[name]) for name in SHOWN)
    yield text(MARGIN, top, title, _class="title")
    for number, name in enumerate(SHOWN):
        y = top + 14 + number * ROW
        middle, low, high = median(rates[name]), min(rates[name]), max(rates[name])
        label = LABELS[name].replace("*", "").replace("`", "")
        look = "ours" if name == "vali_blob" else "other"
        yield text(LEFT - 10, y + 15, label, text_anchor="end")
        yield f'<rect class="{look}" x="{LEFT}" y="{y}" width="{middle * scale:.0f}" height="20" rx="2"/>'
        yield (f'<line class="range" x1="{LEFT + low * scale:.0f}" x2="{LEFT + high * scale:.0f}"'
               f' y1="{y + 10}" y2="{y + 10}"/>')
        yield text(LEFT + high * scale + 8, y + 15, f"{middle:,.0f}", _class="small")


def draw(results):
    panel = 44 + len(SHOWN) * ROW
    height = 2 * panel + 2 * MARGIN + 24
    machine = results["machine"]
    yield (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
           f' width="{WIDTH}" height="{height}" role="img">')
    yield "<title>Chunks per second</title>"
    yield f"<style>{STYLE}\n</style>"
    yield f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>'
    yield from bars(MARGIN + 18, "Chunks per second, each on disk before it is acknowledged",
                    rates_of(results["durable"]))
    yield from bars(MARGIN + 18 + panel, "Chunks per second, a crash may lose the last moments",
                    rates_of(results["relaxed"]))
    yield text(MARGIN, height - MARGIN,
               f"{CLIENTS} clients, {results['sessions']:,} sessions, {machine['cores']} cores,"
               f" PostgreSQL {machine['postgres'].split()[0]}, Redis {machine['redis']};"
               " medians, lines from the slowest to the fastest round", _class="small")
    yield "</svg>"


def main():
    with open(sys.argv[1]) as file:
        print("\n".join(draw(json.load(file))))


if __name__ == "__main__":
    main()
