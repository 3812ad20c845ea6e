"""Measure how long a reading of a meter takes, by how many events are stored: of one customer, and of all 1,000.

The events lie within 30 days. Each store is filled and its totals are brought up to date, then `meterprint serve` is
asked over HTTP: for all time, and from the 1st at 07:13 to the 30th at 07:13, which no total begins or ends at.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlencode

from delivery import BLUE, GREY, MEGABYTE, ORANGE, STYLE, machine, number
from rich.console import Console
from served import BATCH, CUSTOMERS, LEDGER, Connection, Memory, Served, load, metadata, meters

from meterprint.blueprints.api_gateway import REQUEST
from meterprint.event import format_timestamp, micros, time_ordered_id
from meterprint.local.sqlite import SQLiteStore
from meterprint.local.store import Record, StoredMeter

SIZES = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
START = datetime(2026, 10, 1, tzinfo=UTC)
DAYS = 30
MINUTES = timedelta(hours=7, minutes=13)
ALL_TIME: dict[str, str] = {}
ODD_EDGES = {
    "start": format_timestamp(START + MINUTES),
    "end": format_timestamp(START + timedelta(days=DAYS - 1) + MINUTES),
}
METERS = ("API requests", "Response bytes")  # a count, and the sum of a number; both with a filter


@dataclass(frozen=True)
class Asked:
    """One question."""

    name: str
    grouped: bool
    period: dict[str, str]

    def query(self, turn: int) -> str:
        """The query, of another customer at each turn."""
        who = {"per_customer": "true"} if self.grouped else {"customer_id": f"cus_{turn * 37 % CUSTOMERS}"}
        return urlencode({**who, **self.period})


QUESTIONS = (
    Asked("one customer, all time", grouped=False, period=ALL_TIME),
    Asked("one customer, odd edges", grouped=False, period=ODD_EDGES),
    Asked("1,000 customers, all time", grouped=True, period=ALL_TIME),
    Asked("1,000 customers, odd edges", grouped=True, period=ODD_EDGES),
)


@dataclass(frozen=True)
class Result:
    """What was measured with one number of events.

    Attributes:
        events: How many are stored.
        store_seconds: To store them, in batches of 1,000, without HTTP.
        catch_up_seconds: To bring the totals of both meters up to date.
        longest_step_ms: Of those steps, between which the server answers requests.
        bytes: The size of the file.
        readings_ms: Medians over HTTP, by question.
        first_ms: The first reading of a meter that is created when all events are there.
        memory: What the server held in the end, and at most.
        load: Of the machine, just before.
    """

    events: int
    store_seconds: float
    catch_up_seconds: float
    longest_step_ms: float
    bytes: int
    readings_ms: dict[str, float]
    first_ms: float
    memory: Memory
    load: float


@dataclass(frozen=True)
class Report:
    """Everything that was measured."""

    machine: dict[str, Any]
    repeats: int
    results: list[Result]

    @classmethod
    def read(cls, path: Path) -> Report:
        """A report that was written."""
        values = json.loads(path.read_text(encoding="utf-8"))
        results = [Result(**{**result, "memory": Memory(**result["memory"])}) for result in values.pop("results")]
        return cls(**values, results=results)


def records(count: int) -> Iterator[list[Record]]:
    """Batches of events, in the order of their times."""
    random, first = Random(count), micros(START)
    step = DAYS * 86_400_000_000 / count
    for batch in range(0, count, BATCH):
        made: list[Record] = []
        for place, pairs in enumerate(metadata(random, BATCH), batch):
            moment = first + int(place * step)
            event_id = time_ordered_id(moment * 1000, random.getrandbits(74))
            text = json.dumps(pairs, separators=(",", ":"))
            made.append(Record(event_id, f"cus_{random.randrange(CUSTOMERS)}", REQUEST.name, moment, text, pairs))
        yield made


def fill(store: SQLiteStore, count: int) -> float:
    """Store both meters and the events; the seconds that the events take, without making them."""
    for meter in meters(*METERS):
        store.put_meter(LEDGER, StoredMeter(replace(meter, id=f"mtr_{meter.name.split()[0]}"), START, START))
    seconds = 0.0
    for batch in records(count):
        start = time.perf_counter()
        store.add_events(LEDGER, batch)
        seconds += time.perf_counter() - start
    return seconds


def catch_up(store: SQLiteStore) -> list[float]:
    """Bring all totals up to date; the seconds of each step."""
    steps: list[float] = []
    more = True
    while more:
        start = time.perf_counter()
        more = store.catch_up()
        steps.append(time.perf_counter() - start)
    return steps


def median_ms(connection: Connection, asked: Asked, repeats: int) -> float:
    """The median time of a reading of both meters, with others of the same kind before it."""
    times: list[float] = []
    for turn in range(repeats):
        for name in METERS:
            start = time.perf_counter()
            answer = connection.ask("GET", f"/local/meters/mtr_{name.split()[0]}/usage?{asked.query(turn)}")
            times.append((time.perf_counter() - start) * 1000)
            if len(answer["customers"]) != (CUSTOMERS if asked.grouped else 1):
                raise SystemExit(f"{asked.name}: {len(answer['customers'])} customers in the answer")
    return statistics.median(times)


def first_ms(connection: Connection) -> float:
    """The first reading of a new meter, whose totals are still to be made."""
    (meter,) = meters("Premium requests")
    meter_id = connection.create(meter)
    start = time.perf_counter()
    connection.ask("GET", f"/local/meters/{meter_id}/usage")
    return (time.perf_counter() - start) * 1000


def measure(path: Path, count: int, repeats: int) -> Result:
    """Everything with one number of events."""
    busy = load()
    store = SQLiteStore(path)
    seconds = fill(store, count)
    steps = catch_up(store)
    store.close()
    with Served(path) as server, server.connection() as connection:
        readings = {asked.name: median_ms(connection, asked, repeats) for asked in QUESTIONS}
        memory = server.memory()
        size = path.stat().st_size
        first = first_ms(connection)
    return Result(count, seconds, sum(steps), max(steps) * 1000, size, readings, first, memory, busy)


def measured(sizes: Sequence[int], repeats: int) -> Iterator[Result]:
    """Everything with each number of events, with what is done on stderr."""
    console = Console(stderr=True)
    for size in sizes:
        console.print(f"{size:,} events ...")
        with TemporaryDirectory() as folder:
            yield measure(Path(folder, "ledger.db"), size, repeats)


def merged(known: Iterable[Result], new: Iterable[Result]) -> list[Result]:
    """The new results, and those known of other numbers of events."""
    return [result for _, result in sorted({result.events: result for result in (*known, *new)}.items())]


def markdown(report: Report) -> str:
    """The table, and what must be known to read it."""
    heads = ["Events", *(asked.name for asked in QUESTIONS), "new meter", "totals", "longest step", "file", "memory"]
    lines = [heads, ["--:"] * len(heads)]
    for result in report.results:
        readings = [f"{number(result.readings_ms[asked.name])} ms" for asked in QUESTIONS]
        lines.append(
            [
                f"{result.events:,}",
                *readings,
                f"{result.first_ms / 1000:.1f} s",
                f"{result.events / result.catch_up_seconds:,.0f}/s",
                f"{result.longest_step_ms:.0f} ms",
                f"{result.bytes / MEGABYTE:,.0f} MB",
                f"{result.memory.most / MEGABYTE:,.0f} MB",
            ]
        )
    return "\n".join([*(f"| {' | '.join(cells)} |" for cells in lines), "", notes(report)])


def notes(report: Report) -> str:
    """What must be known to read the table."""
    return f"""\
Medians of {2 * report.repeats} readings over HTTP, of a count and a sum, both with a filter.
new meter: the first reading of a meter that is created over all these events.
totals: events a second that the totals of two meters take up in idle moments; longest step: how long a request may \
wait for that.
Load before a measurement: at most {max(result.load for result in report.results):.1f}."""


def readme_rows(report: Report) -> list[tuple[str, str]]:
    """What of it stands in the README."""
    return [
        (
            f"a reading over {result.events:,} events: one customer; 1,000 customers",
            "; ".join(f"{number(result.readings_ms[QUESTIONS[index].name])} ms" for index in (0, 2)),
        )
        for result in report.results
        if result.events in (1_000_000, 10_000_000)
    ]


LANGUAGES: dict[str, dict[str, str]] = {
    "en": {},
    "sv": {
        "all time": "utan tidsgräns",
        "from 07:13 to 07:13": "från 07:13 till 07:13",
        "stored events": "lagrade händelser",
        "ms for a reading; less is better": "ms för en avläsning; mindre är bättre",
        "one customer": "en kund",
        "1,000 customers": "1 000 kunder",
        ",": "\u00a0",
    },
}


def plot(report: Report, path: Path, language: str) -> None:
    """The time of a reading over the number of events."""

    def say(text: str) -> str:
        return LANGUAGES[language].get(text, text)

    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("agg")
    pyplot: Any = import_module("matplotlib.pyplot")
    with matplotlib.rc_context(STYLE):
        canvas, panel = pyplot.subplots(figsize=(8, 3.8), layout="constrained")
        for asked in QUESTIONS:
            draw(panel, report, asked, say)
        panel.set_xscale("log")
        panel.set_yscale("log")
        sizes = [result.events for result in report.results]
        panel.set_xticks(sizes, [f"{size:,}".replace(",", say(",")) for size in sizes])
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        panel.minorticks_off()
        panel.tick_params(which="both", length=0)
        panel.grid(axis="y")
        panel.set_xlabel(say("stored events"))
        panel.set_title(say("ms for a reading; less is better"), loc="left", fontsize=11, pad=12)
        panel.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, labelcolor=GREY)
        canvas.savefig(path, transparent=True, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)
        pyplot.close(canvas)


def draw(panel: Any, report: Report, asked: Asked, say: Callable[[str], str]) -> None:
    """One line of the plot."""
    who = say("1,000 customers" if asked.grouped else "one customer")
    when = say("from 07:13 to 07:13" if asked.period else "all time")
    panel.plot(
        [result.events for result in report.results],
        [result.readings_ms[asked.name] for result in report.results],
        color=ORANGE if asked.grouped else BLUE,
        linestyle="--" if asked.period else "-",
        marker="D" if asked.grouped else "o",
        markersize=5,
        label=f"{who}, {when}",
    )


def main() -> None:
    """Measure everything, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", type=int, metavar="EVENTS", help="how many are stored")
    parser.add_argument("--repeats", type=int, default=25, help="of each question, for each meter (default: 25)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all figures")
    parser.add_argument("--read", type=Path, metavar="FILE", help="take what --sizes does not name from here")
    parser.add_argument("--docs", type=Path, metavar="FOLDER", help="where en/assets and sv/assets get the plot")
    options = parser.parse_args()
    known = Report.read(options.read).results if options.read else []
    sizes = options.sizes or (() if known else SIZES)
    report = Report(machine(), options.repeats, merged(known, measured(sizes, options.repeats)))
    if options.json:
        options.json.write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")
    for language in LANGUAGES if options.docs else ():
        plot(report, options.docs / language / "assets" / "readings.svg", language)
    print(markdown(report))


if __name__ == "__main__":
    main()
