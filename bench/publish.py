#!/usr/bin/env python3
"""Writes the numbers of bench/run --json into the documentation:

    bench/publish.py results.json

All of them, so that they are of one run: the figures of doc/benchmark.md, those
of README.md, and the picture.
"""

import json
import pathlib
import re
import sys
import textwrap

import draw
import report

ROOT = pathlib.Path(__file__).resolve().parent.parent


def with_section(name, heading, contents):
    """A file with other contents of a section; a picture at its beginning stays."""
    text = (ROOT / name).read_text()
    parts = re.split(rf"(^## {heading}\n\n(?:!\[[^\n]*\n\n)?)(.*?)(?=^## |\Z)", text, flags=re.M | re.S)
    if len(parts) != 4:
        raise SystemExit(f"{name} has no section {heading}, or several")
    before, begin, _, after = parts
    return f"{before}{begin}{contents.strip()}\n" + (f"\n{after}" if after else "")


def main():
    with open(sys.argv[1]) as file:
        results = json.load(file)
    summary = textwrap.fill(report.summary(results), 115, break_long_words=False, break_on_hyphens=False)
    files = {
        "README.md": with_section("README.md", "Performance", summary),
        "doc/benchmark.md": with_section("doc/benchmark.md", "Figures", report.markdown(results)),
        "doc/benchmark.svg": "\n".join([*draw.draw(results), ""]),
    }
    for name, text in files.items():
        (ROOT / name).write_text(text)


if __name__ == "__main__":
    main()
