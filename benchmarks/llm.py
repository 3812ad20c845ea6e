"""Measure what metering adds to a call of a model, beside the same call without it, and by another's wrapper.

The providers' SDKs get their answers from memory, so that a call takes under a millisecond, and what metering adds
stands out. The calls alternate, one without metering and one with each meter, so that what the machine does meanwhile
falls on all alike. The meters are as they come, and deliver to a sink on loopback meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from array import array
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeAlias

from delivery import cpu_seconds, machine, number, quantile, running_sink
from replay import BYTES, CALLS, METERS, STREAMS, Case, Meter
from rich.console import Console
from served import load
from starlette.applications import Starlette
from starlette.routing import Mount

from meterprint.local.server import Server
from meterprint.local.standins import standins

Kind = Literal["calls", "streams", "memory"]
Figures: TypeAlias = dict[str, dict[str, float]]

ALONE, OURS = "alone", "meterprint"
BLUEPRINT = "meterprint.blueprints.llm"
WARM_UP = 30  # calls of each client
BLOCK, BLOCKS = 100, 4  # calls of one client, for the processor time of its calls and deliveries; how often
STREAMS_OF_EACH = 4
AT_END = 20  # chunks
LENGTHS = (20_000, 200_000)  # chunks of the streams whose memory is compared
IMPORTS = 10
LONGEST = 300  # seconds for a child
CASES: dict[Kind, dict[str, Case]] = {"calls": CALLS, "streams": STREAMS, "memory": BYTES}
PACKAGES = ("openai", "anthropic", "google-genai", "groq", "httpx", "httpx2")
SDKS = ("openai", "anthropic", "groq", "google.genai", "mistralai", "httpx2")


@dataclass(frozen=True)
class Result:
    """What one child measured.

    Attributes:
        kind: "calls" times each call, "streams" the chunks of each stream; "memory" looks at what a stream holds.
        case: A key of CASES[kind].
        run: Which of the runs.
        load: Of the machine, just before.
        figures: What the child measured, without metering and by each meter.
    """

    kind: Kind
    case: str
    run: int
    load: float
    figures: Figures


@dataclass(frozen=True)
class Report:
    """Everything that was measured.

    Attributes:
        versions: Of the packages.
        machine: What it ran on.
        runs: How often each was measured.
        calls: How many calls of each client alternate in a run.
        chunks: How many a stream has.
        imports: Milliseconds of `python -c` with each import.
        loaded: Which SDKs are loaded once the blueprint is.
        results: In the order in which they were measured.
    """

    versions: dict[str, str]
    machine: dict[str, str | int | None]
    runs: int
    calls: int
    chunks: int
    imports: dict[str, list[float]]
    loaded: list[str]
    results: list[Result]

    def of(self, kind: Kind, case: str) -> list[Figures]:
        """What the runs of one case measured."""
        return [result.figures for result in self.results if (result.kind, result.case) == (kind, case)]

    def median(self, kind: Kind, case: str, meter: str, figure: str) -> float:
        """The median of a figure over the runs."""
        return statistics.median(figures[meter][figure] for figures in self.of(kind, case))

    def added(self, kind: Kind, case: str, meter: str, figure: str) -> float:
        """The median over the runs of what a meter adds to a figure in the same run."""
        return statistics.median(figures[meter][figure] - figures[ALONE][figure] for figures in self.of(kind, case))

    def has(self, kind: Kind, case: str, meter: str) -> bool:
        """Whether a meter knows a case."""
        return all(meter in figures for figures in self.of(kind, case))

    def cases(self, kind: Kind) -> list[str]:
        """Those that were measured."""
        return list(dict.fromkeys(result.case for result in self.results if result.kind == kind))

    def import_time(self, name: str) -> float:
        """Milliseconds to import something, without those of Python itself."""
        return statistics.median(self.imports[name]) - statistics.median(self.imports["pass"])


# In the child: one case, without metering and with each meter.


@dataclass
class Bench:
    """The clients of a case: one without metering, and one by each meter.

    Attributes:
        case: The case.
        clients: By what meters them.
        meters: What meters them.
        asked: How many calls ours has made.
    """

    case: Case
    clients: dict[str, Any]
    meters: dict[str, Meter]
    asked: int = 0

    async def ask(self, name: str) -> Any:
        """What a call gives."""
        self.asked += name == OURS
        given = self.case.ask(self.clients[name])
        return await given if self.case.is_async else given

    async def timed(self, name: str) -> int:
        """Nanoseconds of a call."""
        await asyncio.sleep(0)  # what the event loop has to do is done before
        start = time.perf_counter_ns()
        await self.ask(name)
        return time.perf_counter_ns() - start

    async def flush(self) -> None:
        """Deliver all that was recorded."""
        for meter in self.meters.values():
            await meter.flush()

    async def drop_broken(self) -> None:
        """Leave out the meters whose clients give something else than the SDK's."""
        kind = type(await self.ask(ALONE))
        kinds = {name: type(await self.ask(name)) for name in self.meters}
        assert kinds[OURS] is kind, "a wrapped client gives what the SDK's gives"
        self.clients = {name: client for name, client in self.clients.items() if kinds.get(name, kind) is kind}

    async def close(self) -> None:
        """Deliver the rest; each of our calls must have left one event."""
        delivered = {name: await meter.close() for name, meter in self.meters.items()}
        if delivered[OURS] != self.asked:
            raise SystemExit(f"{self.asked} calls were metered by {delivered[OURS]} events")


@asynccontextmanager
async def benched(case: Case, urls: Sequence[str], chunks: int, peers: Sequence[str] = ()) -> AsyncIterator[Bench]:
    """The clients of a case, with answers by the stand-ins and events to the sink of these URLs."""
    providers, sink = urls
    meters = {name: METERS[name](sink, is_async=case.is_async) for name in (OURS, *peers)}
    clients = {name: case.sdk.client(providers, chunks) for name in (ALONE, *meters)}
    clients |= {name: meter.wrap(clients[name]) for name, meter in meters.items()}
    bench = Bench(case, clients, meters)
    yield bench
    await bench.close()


def in_turn(names: Sequence[str], rounds: int) -> Iterator[Sequence[str]]:
    """The names once for each round, another one first each time."""
    for turn in range(rounds):
        first = turn % len(names)
        yield [*names[first:], *names[:first]]


def paired(times: array[int], others: array[int]) -> float:
    """Microseconds: the median of what the times of the same round differ by."""
    return statistics.median(map(int.__sub__, times, others)) / 1000


async def measure_calls(case: Case, count: int, urls: Sequence[str]) -> Figures:
    """How long calls take, and the processor time of each with its delivery."""
    async with benched(case, urls, 0, case.peers) as bench:
        await bench.drop_broken()
        times = await alternating(bench, WARM_UP + count)
        cpu = await processor_times(bench)
    return {
        name: {
            "p50_us": quantile(times[name], 0.5),
            "p99_us": quantile(times[name], 0.99),
            "paired_us": paired(times[name], times[ALONE]),
            "cpu_us": statistics.median(cpu[name]),
            "cpu_paired_us": statistics.median(map(float.__sub__, cpu[name], cpu[ALONE])),
        }
        for name in times
    }


async def alternating(bench: Bench, rounds: int) -> dict[str, array[int]]:
    """Nanoseconds of the calls of some rounds, in each one of every client; the first rounds are not counted."""
    times = {name: array("q") for name in bench.clients}
    for names in in_turn([*times], rounds):
        for name in names:
            times[name].append(await bench.timed(name))
    return {name: each[WARM_UP:] for name, each in times.items()}


async def processor_times(bench: Bench) -> dict[str, list[float]]:
    """Microseconds of processor time for a call and its delivery, in each of some blocks of calls."""
    times: dict[str, list[float]] = {name: [] for name in bench.clients}
    for names in in_turn([*times], BLOCKS):
        for name in names:
            await bench.flush()
            before = cpu_seconds()
            for _ in range(BLOCK):
                await bench.timed(name)
            await bench.flush()
            times[name].append((cpu_seconds() - before) / BLOCK * 1e6)
    return times


async def measure_streams(case: Case, chunks: int, urls: Sequence[str]) -> Figures:
    """How long a caller waits for each chunk of streams that are open at once, and give one each in turn."""
    async with benched(case, urls, chunks, case.peers) as bench:
        times = {name: array("q") for name in bench.clients}
        for names in in_turn([*times], STREAMS_OF_EACH):
            streams = {name: iter(await bench.ask(name)) for name in names}
            take(streams, chunks - AT_END, times)
    return {
        name: {"p50_us": quantile(each, 0.5), "p99_us": quantile(each, 0.99), "paired_us": paired(each, times[ALONE])}
        for name, each in times.items()
    }


def take(streams: dict[str, Iterator[Any]], count: int, times: dict[str, array[int]]) -> None:
    """Take so many chunks of each stream in turn, with the nanoseconds of each, and then the rest."""
    clock = time.perf_counter_ns
    for names in in_turn([*streams], count):
        for name in names:
            start = clock()
            next(streams[name])
            times[name].append(clock() - start)
    for stream in streams.values():
        deque(stream, 0)


async def measure_memory(case: Case, _: int, urls: Sequence[str]) -> Figures:
    """The bytes that a short and a long stream make the process hold: at most, and near their end."""
    figures: Figures = {}
    for chunks in LENGTHS:
        async with benched(case, urls, chunks) as bench:
            for name in bench.clients:
                figures.setdefault(name, {}).update(await held(bench, name, chunks))
    return figures


async def held(bench: Bench, name: str, chunks: int) -> dict[str, float]:
    """The same for one client and length."""
    with await bench.ask(name) as stream:
        next(stream.iter_bytes())  # what is loaded and cached at the first time is not of the stream
    await bench.flush()
    gc.collect()
    tracemalloc.start()
    kept = 0
    with await bench.ask(name) as stream:
        for seen, _ in enumerate(stream.iter_bytes()):
            if seen == chunks - AT_END:
                kept, _ = tracemalloc.get_traced_memory()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {f"kept_{chunks}": kept, f"peak_{chunks}": peak}


def child(kind: Kind, name: str, count: int, urls: Sequence[str]) -> None:
    """Measure one case, and print the figures."""
    print(json.dumps(asyncio.run(MEASURES[kind](CASES[kind][name], count, urls))))


MEASURES = {"calls": measure_calls, "streams": measure_streams, "memory": measure_memory}


# In the parent: the stand-ins, the sink, children, what comes out.


def run_child(kind: Kind, name: str, count: int, urls: Sequence[str]) -> Figures:
    """The figures of one case, measured in a process of its own."""
    words = [sys.executable, __file__, "--child", kind, name, str(count), *urls]
    with tempfile.TemporaryFile("w+") as errors:  # what clients log is not for here
        environment = {**os.environ, "NO_PROXY": "*"}
        done = subprocess.run(
            words, stdout=subprocess.PIPE, stderr=errors, text=True, check=False, timeout=LONGEST, env=environment
        )
        if done.returncode:
            errors.seek(0)
            raise SystemExit(f"{name} failed:\n{errors.read()}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure_all(options: argparse.Namespace, progress: Callable[[str], None]) -> Iterator[Result]:
    """Every case in turn, as often as there are runs; what memory holds, once."""
    counts: dict[Kind, int] = {"calls": options.calls, "streams": options.chunks, "memory": 0}
    with running_providers() as providers, running_sink() as sink:
        for run in range(options.runs):
            for kind, count in counts.items():
                for name in CASES[kind] if kind in options.only and (kind != "memory" or not run) else ():
                    progress(f"run {run + 1} of {options.runs}: {kind}, {name}")
                    busy = load()
                    yield Result(kind, name, run, busy, run_child(kind, name, count, (providers, sink)))


@contextmanager
def running_providers() -> Iterator[str]:
    """The stand-ins on loopback: each child asks them once for each answer; their URL."""
    with Server(Starlette(routes=[Mount("/standins", routes=standins())])) as server:
        yield server.url


def import_times() -> dict[str, list[float]]:
    """Milliseconds of `python -c` with each import, in turn."""
    # As where httpx is installed alone: with these it would load its own command line, and hide what ours costs.
    alone = "import sys; sys.modules['click'] = sys.modules['rich'] = None; "
    names = ("httpx", "meterprint", BLUEPRINT, "openai")
    programs = {"pass": "pass"} | {name: f"{alone}import {name}" for name in names}
    times: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(IMPORTS + 1):  # the first compiles what is not compiled yet
        for name, program in programs.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            if turn:
                times[name].append((time.perf_counter() - start) * 1000)
    return times


def loaded() -> list[str]:
    """Which SDKs are loaded once the blueprint is."""
    program = f"import sys, {BLUEPRINT}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True)
    return sorted(set(SDKS) & set(done.stdout.split()))


def installed() -> dict[str, str]:
    """The versions of the packages.

    Raises:
        SystemExit: One is not installed.
    """
    try:
        return {name: version(name) for name in (*(meter.package for meter in METERS.values()), *PACKAGES)}
    except PackageNotFoundError as error:
        raise SystemExit(f"{error.name} is not installed: run make bench-llm") from None


def markdown(report: Report) -> str:
    """The tables, and what must be known to read them."""
    return "\n".join([*table_of_calls(report), "", *table_of_streams(report), "", notes(report)])


def table_of_calls(report: Report) -> list[str]:
    """What is added to a call."""
    alone = {"p50_us": "p50", "p99_us": "p99", "cpu_us": "CPU"}
    added = {"p50_us": "p50", "paired_us": "paired", "p99_us": "p99", "cpu_paired_us": "CPU"}
    return table(report, "calls", alone, added)


def table_of_streams(report: Report) -> list[str]:
    """What is added to each chunk of a stream."""
    alone = {"p50_us": "p50", "p99_us": "p99"}
    return table(report, "streams", alone, {"p50_us": "p50", "paired_us": "paired", "p99_us": "p99"})


def table(report: Report, kind: Kind, alone: dict[str, str], added: dict[str, str]) -> list[str]:
    """A row for each case: some figures without metering, and what each meter adds to some."""
    heads = [f"alone: {name}" for name in alone.values()]
    heads += [f"{meter}: + {name}" for meter in METERS for name in added.values()]
    lines = ["| " + " | ".join([kind, *heads]) + " |", "| --- |" + " --: |" * len(heads)]
    for case in report.cases(kind):
        cells = [f"{number(report.median(kind, case, ALONE, figure))} µs" for figure in alone]
        for meter in METERS:
            cells += added_cells(report, kind, case, meter, [*added])
        lines.append("| " + " | ".join([case, *cells]) + " |")
    return lines


def added_cells(report: Report, kind: Kind, case: str, meter: str, figures: list[str]) -> list[str]:
    """What a meter adds; nothing for one that does not know the SDK."""
    if not report.has(kind, case, meter):
        return ["broken" if meter in CASES[kind][case].peers else ""] * len(figures)
    return [signed(report.added(kind, case, meter, figure)) for figure in figures]


def signed(microseconds: float) -> str:
    """What is added; noise may make it less than nothing."""
    return f"{'-' if microseconds < 0 else ''}{number(abs(microseconds))} µs"


def notes(report: Report) -> str:
    """What must be known to read the tables, and what fits in none."""
    imports = {name: report.import_time(name) for name in report.imports if name != "pass"}
    most = max(result.load for result in report.results)
    return f"""\
Medians of {report.runs} runs, of {report.calls} calls of each client in turn; of {STREAMS_OF_EACH} streams of each, \
of {report.chunks:,} chunks in turn.
paired: the median of the differences between two in turn. CPU: of {BLOCK * BLOCKS} calls, with their delivery.
broken: the wrapped client gives something else than the SDK's.
{memory(report)}
Import: {", ".join(f"{name} {time:.0f} ms" for name, time in imports.items())}; \
{BLUEPRINT} is {imports[BLUEPRINT] / imports[OURS]:.2f} of {OURS}. SDKs loaded with it: {len(report.loaded)}.
Load before a measurement: at most {most:.1f}."""


def memory(report: Report) -> str:
    """What streams hold at most, in kB."""
    lines = []
    for case in report.cases("memory"):
        peaks = [
            f"{name} " + " and ".join(f"{report.median('memory', case, name, f'peak_{n}') / 1000:.0f}" for n in LENGTHS)
            for name in report.of("memory", case)[0]
        ]
        lines.append(f"{case}: {', '.join(peaks)} kB")
    lengths = " and ".join(f"{length:,}" for length in LENGTHS)
    return f"At most held by streams of {lengths} chunks: {'; '.join(lines)}."


# The program.


def options_of(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=400, help="how many of each client alternate (default: 400)")
    parser.add_argument("--chunks", type=int, default=2_000, help="how many a stream has (default: 2000)")
    parser.add_argument("--runs", type=int, default=3, help="how often to measure each (default: 3)")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="of calls, streams, memory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all figures")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main() -> None:
    """Measure everything, and print Markdown tables."""
    options = options_of(sys.argv[1:])
    if options.child:
        kind, name, count, *urls = options.child
        child(kind, name, int(count), urls)
        return
    versions = installed()
    results = list(measure_all(options, Console(stderr=True).print))
    sizes = options.runs, options.calls, options.chunks
    report = Report(versions, machine(), *sizes, import_times(), loaded(), results)
    if options.json:
        options.json.write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")
    print(markdown(report))


if __name__ == "__main__":
    main()
