"""Measure side by side, in one run, and show the table that the README shows."""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from meterprint import Event, MeteringClient
from meterprint.blueprints.api_gateway import REQUEST
from meterprint.local.app import create_app
from meterprint.local.server import Server
from meterprint.local.store import SQLiteStore
from meterprint.snippets import find_recipes, find_root, program_environment, run

ROOT = find_root()
BATCH = 1_000
console = Console(stderr=True)


def batches(count: int) -> list[list[Event]]:
    """Batches of events with time-ordered ids."""
    metadata = REQUEST.sample()
    return [
        [Event(Event.new_id(), f"cus_{n % 100}", REQUEST.name, metadata=metadata) for n in range(BATCH)]
        for _ in range(count // BATCH)
    ]


def raw_executemany(path: Path, work: list[list[Event]]) -> float:
    """Seconds that SQLite alone needs for the rows, in transactions of 1,000."""
    store = SQLiteStore(path)
    store.close()
    rows = [
        [
            ("l", e.event_id, e.customer_id, e.event_name, int(e.timestamp.timestamp() * 1e6), json.dumps(e.metadata))
            for e in batch
        ]
        for batch in work
    ]
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous=NORMAL")
    start = time.perf_counter()
    for batch in rows:
        db.execute("BEGIN IMMEDIATE")
        db.executemany(
            "INSERT INTO events (ledger, event_id, customer_id, event_name, timestamp, metadata)"
            " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            batch,
        )
        db.execute("COMMIT")
    seconds = time.perf_counter() - start
    db.close()
    return seconds


def over_loopback(path: Path, work: list[list[Event]]) -> float:
    """Seconds until the last batch is acknowledged by `meterprint serve`, sent one after the other."""
    words = [sys.executable, "-m", "meterprint.cli", "serve", "--port", "0", "--db", str(path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        url = next(line.partition("=")[2].strip() for line in process.stdout if "METERING_API_URL=" in line)
        with MeteringClient(url, "bench") as client:
            start = time.perf_counter()
            for batch in work:
                client.ingest(batch)
            seconds = time.perf_counter() - start
        process.terminate()
    return seconds


def ingest(count: int, runs: int) -> list[tuple[str, str]]:
    """Events per second, ours beside SQLite's own, in turn."""
    raw: list[float] = []
    ours: list[float] = []
    for _ in range(runs):
        work = batches(count)
        with tempfile.TemporaryDirectory() as folder:
            raw.append(count / raw_executemany(Path(folder, "raw.db"), work))
            ours.append(count / over_loopback(Path(folder, "ours.db"), work))
    ratios = [a / b for a, b in zip(ours, raw, strict=True)]
    return [
        (f"SQLite alone, executemany, {count:,} events", f"{statistics.median(raw):,.0f} events/s"),
        (f"`meterprint serve` over loopback, {count:,} events", f"{statistics.median(ours):,.0f} events/s"),
        ("the second as a part of the first", f"{statistics.median(ratios):.0%}"),
    ]


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
    """Measure everything, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000, help="how many events to ingest (default: 100000)")
    parser.add_argument("--runs", type=int, default=3, help="how often to measure each (default: 3)")
    options = parser.parse_args()
    programs = sum(len(recipe.programs) for recipe in find_recipes(ROOT))
    rows: list[tuple[str, str]] = []
    with console.status("ingest ..."):
        rows += ingest(options.events, options.runs)
    with console.status("snippets ..."):
        rows.append((f"all {programs} programs of all recipes, one by one", seconds(snippet_matrix, options.runs)))
    with console.status("site ..."):
        rows.append(("the site, both languages", seconds(site, options.runs)))
    print("| What | Median |\n| --- | --: |")
    for what, figure in rows:
        print(f"| {what} | {figure} |")


if __name__ == "__main__":
    main()
