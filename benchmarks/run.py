"""Measure what working on this project takes, and show the table that the README shows."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import ingest
import readings
from rich.console import Console

from meterprint import MeteringClient
from meterprint.local.app import create_app
from meterprint.local.server import Server
from meterprint.local.sqlite import SQLiteStore
from meterprint.snippets import find_recipes, find_root, program_environment, run

ROOT = find_root()
RESULTS = Path(__file__).with_name("results")
console = Console(stderr=True)


def snippet_matrix() -> None:
    """Every program of every recipe, one after the other."""
    for recipe in find_recipes(ROOT):
        for program in recipe.programs:
            store = SQLiteStore(Path(tempfile.mkdtemp(), "m.db"))
            with Server(create_app(store)) as api, MeteringClient(api.url, "bench") as client:
                outcome = run(program, recipe, client, program_environment(api.url, "bench"))
            store.close()
            if outcome.status:
                raise SystemExit(f"{program.path.name} failed: {outcome.errors}")


def site() -> None:
    """The site, in both languages."""
    words = [sys.executable, str(ROOT / "scripts" / "build_site.py")]
    subprocess.run(words, check=True, capture_output=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})


def seconds(work: Callable[[], None], runs: int) -> str:
    """The median duration of some runs."""
    durations: list[float] = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        durations.append(time.perf_counter() - start)
    return f"{statistics.median(durations):.1f} s"


def main() -> None:
    """Measure, and print a Markdown table with what `make bench-ingest` and `make bench-readings` have written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="how often to measure each (default: 3)")
    options = parser.parse_args()
    programs = sum(len(recipe.programs) for recipe in find_recipes(ROOT))
    rows = ingest.readme_rows(ingest.Report.read(RESULTS / "ingest.json"))
    rows += readings.readme_rows(readings.Report.read(RESULTS / "readings.json"))
    with console.status("snippets ..."):
        rows.append((f"all {programs} programs of all recipes, one by one", seconds(snippet_matrix, options.runs)))
    with console.status("site ..."):
        rows.append(("the site, both languages", seconds(site, options.runs)))
    print("| What | Median |\n| --- | --: |")
    for what, figure in rows:
        print(f"| {what} | {figure} |")


if __name__ == "__main__":
    main()
