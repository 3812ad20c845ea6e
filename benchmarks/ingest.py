"""Measure how many events `meterprint serve` takes in a second, beside SQLite alone with the same rows and disk.

SQLite gets the rows in its fastest layout: numbered by arrival, with a unique index of the ids. The server gets them as
JSON over loopback, validates every field, and answers for duplicates.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from delivery import MEGABYTE, machine
from rich.console import Console
from served import BATCH, CUSTOMERS, Connection, Memory, Served, load, metadata, meters

from meterprint import Event
from meterprint.blueprints.api_gateway import REQUEST
from meterprint.event import micros, utc_now

IDS: dict[str, Callable[[], str]] = {"random": lambda: str(uuid.uuid4()), "time-ordered": Event.new_id}
RAW = "SQLite alone, executemany"
TABLE = """
CREATE TABLE events (
    arrival INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL UNIQUE,
    customer_id TEXT NOT NULL,
    event_name TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    metadata TEXT NOT NULL
)
"""
PRAGMAS = (
    "locking_mode=EXCLUSIVE",
    "journal_mode=WAL",
    "synchronous=NORMAL",
    "cache_size=-200000",
    "wal_autocheckpoint=10000",
)


@dataclass(frozen=True)
class Way:
    """One way for the events into the server."""

    with_meters: bool
    connections: int

    @property
    def name(self) -> str:
        """What it is called in the table."""
        plural = "s" if self.connections > 1 else ""
        return (
            f"`meterprint serve`, {'four meters' if self.with_meters else 'no meters'}, "
            f"{self.connections} connection{plural}"
        )


WAYS = [Way(with_meters, connections) for with_meters in (False, True) for connections in (1, 2)]


@dataclass(frozen=True)
class Result:
    """What was measured once.

    Attributes:
        ids: Which event ids: a key of IDS.
        way: RAW, or the name of a Way.
        run: Which of the runs.
        events_per_second: Until the last event is stored, and acknowledged.
        start_ms: From the start of the process to the first answer; 0 without a server.
        memory: What the server held before the first event, and the most until after the last.
        load: Of the machine, just before.
    """

    ids: str
    way: str
    run: int
    events_per_second: float
    start_ms: float
    memory: Memory
    load: float


@dataclass(frozen=True)
class Report:
    """Everything that was measured."""

    machine: dict[str, Any]
    events: int
    runs: int
    results: list[Result]

    @classmethod
    def read(cls, path: Path) -> Report:
        """A report that was written."""
        values = json.loads(path.read_text(encoding="utf-8"))
        results = [Result(**{**result, "memory": Memory(**result["memory"])}) for result in values.pop("results")]
        return cls(**values, results=results)

    def of(self, ids: str, way: str) -> list[Result]:
        """The runs of one way."""
        return [result for result in self.results if (result.ids, result.way) == (ids, way)]

    def rate(self, ids: str, way: str) -> float:
        """Events per second, the median."""
        return statistics.median(result.events_per_second for result in self.of(ids, way))

    def ratio(self, ids: str, way: str) -> float:
        """The rate as a part of SQLite's in the same run, the median."""
        pairs = zip(self.of(ids, way), self.of(ids, RAW), strict=True)
        return statistics.median(ours.events_per_second / raw.events_per_second for ours, raw in pairs)


class Work:
    """The events of one run: as rows, and as bodies of requests; in batches of 1,000."""

    def __init__(self, new_id: Callable[[], str], count: int, seed: int) -> None:
        random, now = Random(seed), utc_now()
        self.rows: list[list[tuple[str, str, str, int, str]]] = []
        self.bodies: list[bytes] = []
        for first in range(0, count, BATCH):
            events = [
                Event(
                    new_id(),
                    f"cus_{random.randrange(CUSTOMERS)}",
                    REQUEST.name,
                    now + timedelta(microseconds=first + number),
                    pairs,
                )
                for number, pairs in enumerate(metadata(random, BATCH))
            ]
            self.rows.append([_row(event) for event in events])
            self.bodies.append(json.dumps({"events": [event.to_wire() for event in events]}).encode())


def _row(event: Event) -> tuple[str, str, str, int, str]:
    text = json.dumps(event.metadata, separators=(",", ":"))
    return event.event_id, event.customer_id, event.event_name, micros(event.timestamp), text


def alone(path: Path, work: Work) -> float:
    """Seconds that SQLite alone takes for the rows, in transactions of 1,000."""
    db = sqlite3.connect(path, isolation_level=None)
    for pragma in PRAGMAS:
        db.execute(f"PRAGMA {pragma}")
    db.execute(TABLE)
    start = time.perf_counter()
    for rows in work.rows:
        db.execute("BEGIN IMMEDIATE")
        db.executemany(
            "INSERT INTO events (event_id, customer_id, event_name, timestamp, metadata)"
            " VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            rows,
        )
        db.execute("COMMIT")
    seconds = time.perf_counter() - start
    db.close()
    return seconds


def sent(server: Served, bodies: Sequence[bytes], connections: int) -> float:
    """Seconds until the last body is answered, each connection sending one after the other."""
    shares = [bodies[number::connections] for number in range(connections)]
    opened = [server.connection() for _ in shares]
    for connection in opened:
        connection.ask("GET", "/local/health")
    with ThreadPoolExecutor(connections) as threads:
        start = time.perf_counter()
        counts = list(threads.map(_send, opened, shares))
        seconds = time.perf_counter() - start
    for connection in opened:
        connection.close()
    if sum(counts) != len(bodies) * BATCH:
        raise SystemExit(f"{sum(counts)} events are acknowledged as new, of {len(bodies) * BATCH}")
    return seconds


def _send(connection: Connection, bodies: Sequence[bytes]) -> int:
    return sum(connection.ask("POST", "/events/ingest", body)["ingested_count"] for body in bodies)


def served(path: Path, work: Work, way: Way) -> tuple[float, float, Memory]:
    """Seconds for the events, milliseconds to the first answer, and memory before and at most."""
    with Served(path) as server:
        with server.connection() as connection:
            for meter in meters() if way.with_meters else ():
                connection.create(meter)
        before = server.memory().now
        seconds = sent(server, work.bodies, way.connections)
        return seconds, server.start_ms, Memory(before, server.memory().most)


def measure(count: int, runs: int, progress: Callable[[str], None]) -> Iterator[Result]:
    """Each way in turn, with the same events, each on a new file."""
    for run in range(runs):
        for ids, new_id in IDS.items():
            work = Work(new_id, count, run)
            progress(f"run {run + 1} of {runs}, {ids} ids")
            with TemporaryDirectory() as folder:
                busy = load()
                yield Result(ids, RAW, run, count / alone(Path(folder, "raw.db"), work), 0, Memory(0, 0), busy)
                for number, way in enumerate(WAYS):
                    busy = load()
                    seconds, start_ms, memory = served(Path(folder, f"{number}.db"), work, way)
                    yield Result(ids, way.name, run, count / seconds, start_ms, memory, busy)


def markdown(report: Report) -> str:
    """The table, and what must be known to read it."""
    lines = ["| Events a second | " + " | ".join(f"{ids} ids" for ids in IDS) + " |", "| --- | --: | --: |"]
    for way in [RAW, *(way.name for way in WAYS)]:
        cells = [f"{report.rate(ids, way):,.0f}" + _part(report, ids, way) for ids in IDS]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", notes(report)])


def notes(report: Report) -> str:
    """What must be known to read the table."""
    served = [result for result in report.results if result.way != RAW]
    start = statistics.median(result.start_ms for result in served)
    before = statistics.median(result.memory.now for result in served) / MEGABYTE
    most = max(result.memory.most for result in served) / MEGABYTE
    return f"""\
Medians of {report.runs} runs of {report.events:,} events in requests of {BATCH:,}; in brackets: of SQLite alone in \
the same run.
The server: first answer {start:.0f} ms after its start; {before:.0f} MB before the first event, at most {most:.0f} MB.
Load before a measurement: at most {max(result.load for result in report.results):.1f}."""


def _part(report: Report, ids: str, way: str) -> str:
    return "" if way == RAW else f" ({report.ratio(ids, way):.0%})"


def readme_rows(report: Report) -> list[tuple[str, str]]:
    """What of it stands in the README."""
    return [
        (f"{way}, {ids} ids", f"{report.rate(ids, way):,.0f} events/s{_part(report, ids, way)}")
        for ids in IDS
        for way in (RAW, *(way.name for way in WAYS if way.connections == 1))
    ]


def main() -> None:
    """Measure everything, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000, help="how many in each run (default: 200000)")
    parser.add_argument("--runs", type=int, default=3, help="how often to measure each (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all figures")
    options = parser.parse_args()
    console = Console(stderr=True)
    results = list(measure(options.events, options.runs, console.print))
    report = Report(machine(), options.events, options.runs, results)
    if options.json:
        options.json.write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")
    print(markdown(report))


if __name__ == "__main__":
    main()
