"""What the benchmarks share: options, and a table for each measure."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable

Rows = dict[str, dict[str, float]]


class SkipError(Exception):
    """Why a measure cannot be taken here."""


def main(measures: dict[str, Callable[..., Rows]], description: str, rounds: int) -> None:
    """Take the measures that the command line names, and print a table of each, or all as JSON.

    A measure takes the number of rounds; the one called `peer` also what the option --peer says, None without it.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measures", nargs="*", help=f"{', '.join(measures)}; all by default")
    parser.add_argument("--rounds", type=int, default=rounds)
    if "peer" in measures:
        parser.add_argument("--peer", metavar="PYTHON", type=os.path.abspath, help="an interpreter that has the peer")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    unknown = set(options.measures) - set(measures)
    if unknown or options.rounds < 1:
        parser.error(f"measures are {', '.join(measures)}, and rounds at least 1; got {', '.join(unknown)}")
    os.chdir(tempfile.gettempdir())
    results = {}
    for name in options.measures or measures:
        more = [options.peer] if name == "peer" else []
        try:
            results[name] = measures[name](options.rounds, *more)
        except SkipError as reason:
            print(f"{name}: skipped, as {reason}", file=sys.stderr)
            continue
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
