"""What the benchmarks share: options, and a table for each measure."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable

Rows = dict[str, dict[str, float]]


def main(measures: dict[str, Callable[[int], Rows]], description: str, rounds: int) -> None:
    """Take the measures that the command line names, and print a table of each, or all as JSON."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measures", nargs="*", help=f"{', '.join(measures)}; all by default")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    unknown = set(options.measures) - set(measures)
    if unknown or options.rounds < 1:
        parser.error(f"measures are {', '.join(measures)}, and rounds at least 1; got {', '.join(unknown)}")
    os.chdir(tempfile.gettempdir())
    results = {}
    for name in options.measures or measures:
        results[name] = measures[name](options.rounds)
        if not options.json:
            table(name, measures[name].__doc__ or "", results[name])
    if options.json:
        print(json.dumps(results))


def table(name: str, title: str, rows: Rows) -> None:
    print(f"\n{name}: {title}\n", flush=True)
    columns = list(next(iter(rows.values())))
    width = max(map(len, rows))
    print("| " + " " * width + " | " + " | ".join(columns) + " |")
    print("|" + "-" * (width + 2) + "|" + "|".join("-" * (len(c) + 2) for c in columns) + "|")
    for row, values in rows.items():
        print(f"| {row:{width}} | " + " | ".join(f"{values[c]:{len(c)}.3g}" for c in columns) + " |", flush=True)
