"""Measure what events cost the program that records them, client by client, against a sink on loopback."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal
from urllib.request import Request, urlopen

from clients import CLIENTS, Client, metadata, version_of

# The parent imports what it shows things with late: each client runs in a child of this file that has none of it.

Kind = Literal["calls", "small", "large"]
OURS = "meterprint"
MOST_SYNCHRONOUS = 2_000  # events for a client that sends each on its own: all its figures are for one event
TRIES = 100_000  # of the timer
IMPORTS = 15
LONGEST = 900  # seconds for a child
MEGABYTE = 1024 * 1024


@dataclass(frozen=True)
class Result:
    """What one child measured, and what the sink got from it.

    Attributes:
        client: Its name in CLIENTS.
        kind: "calls" times each call, "small" and "large" time the whole.
        run: Which of the runs.
        recorded: How many events were recorded.
        arrived: How many of them the sink got, until the child ended.
        paced: Whether the client was flushed whenever it held as many as it can.
        sink_cpu_seconds: Processor time of the sink.
        figures: What the child measured.
    """

    client: str
    kind: Kind
    run: int
    recorded: int
    arrived: int
    paced: bool
    sink_cpu_seconds: float
    figures: dict[str, float]


@dataclass(frozen=True)
class Report:
    """Everything that was measured.

    Attributes:
        versions: Of the packages.
        machine: What it ran on.
        runs: How often each was measured.
        imports: Milliseconds of `python -c`, of nothing, of httpx and of meterprint.
        results: In the order in which they were measured.
    """

    versions: dict[str, str]
    machine: dict[str, str | int | None]
    runs: int
    imports: dict[str, list[float]]
    results: list[Result]

    def of(self, client: str, kind: Kind) -> list[Result]:
        """The runs of one client."""
        return [result for result in self.results if (result.client, result.kind) == (client, kind)]

    def median(self, client: str, kind: Kind, figure: Callable[[Result], float]) -> float:
        """The median of a figure over the runs."""
        return statistics.median(map(figure, self.of(client, kind)))

    @property
    def clients(self) -> list[str]:
        """Those that were measured, ours first."""
        return sorted({result.client for result in self.results}, key=lambda name: (not is_ours(name), name))

    @property
    def import_times(self) -> dict[str, float]:
        """Milliseconds to import httpx and meterprint, without those of Python itself."""
        medians = {name: statistics.median(times) for name, times in self.imports.items()}
        return {name: medians[name] - medians["pass"] for name in ("httpx", "meterprint")}


def is_ours(name: str) -> bool:
    """Whether a client is Meterprint's."""
    return name.startswith(OURS)


# In the child: one client, one measurement.


def timed(work: Callable[[int], object], count: int) -> array[int]:
    """Nanoseconds of each of some calls, back to back."""
    durations = array("q", bytes(8 * count))
    clock = time.perf_counter_ns
    for number in range(count):
        start = clock()
        work(number)
        durations[number] = clock() - start
    return durations


def quantile(durations: array[int], part: float) -> float:
    """The microseconds that a part of the calls stayed within."""
    return sorted(durations)[math.ceil(len(durations) * part) - 1] / 1000


def timer() -> float:
    """Microseconds that timing takes, whatever is timed."""
    clock = time.perf_counter_ns
    start = clock()
    for _ in range(TRIES):
        clock()
    return (clock() - start) / TRIES / 1000


def arguments(number: int) -> tuple[str, dict[str, Any]]:
    """What is made for each call before it begins, within what is timed."""
    return f"cus_{number % 100}", metadata(number, None)


def forget_peak() -> None:
    """Let the peak begin anew, where the system can: imports may have held more than what is left of them."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory() -> int:
    """The most bytes that this process held."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss knows no new beginning, and includes what the parent held
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def cpu_seconds() -> float:
    """Processor time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure_calls(client: Client, count: int) -> dict[str, float]:
    """How long the caller waits in each call."""
    overhead = {"timer_us": timer(), "arguments_us": quantile(timed(arguments, TRIES), 0.5)}
    durations = timed(client.record, count)
    client.finish()
    return {
        "p50_us": quantile(durations, 0.5),
        "p99_us": quantile(durations, 0.99),
        "max_us": quantile(durations, 1),
        **overhead,
    }


def measure_whole(client: Client, count: int) -> dict[str, float]:
    """What all events cost, from the first record until the end of the last delivery."""
    forget_peak()
    memory, cpu, start = peak_memory(), cpu_seconds(), time.perf_counter()
    record_all(client, count)
    client.finish()
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": cpu_seconds() - cpu,
        "memory_bytes": peak_memory() - memory,
    }


def record_all(client: Client, count: int) -> None:
    """Record events, with a flush before a client would drop some."""
    chunk = client.holds or count
    record = client.record
    for first in range(0, count, chunk):
        if first:
            client.flush()
        for number in range(first, min(first + chunk, count)):
            record(number)


def child(kind: Kind, name: str, count: int, url: str) -> None:
    """Measure, and print the figures."""
    client = CLIENTS[name]()
    client.own_ids = False
    client.start(url)
    print(json.dumps((measure_calls if kind == "calls" else measure_whole)(client, count)))


# In the parent: sinks, children, what comes out.


def control(url: str, mode: dict[str, Any] | None = None) -> dict[str, int]:
    """The sink's counts, after its mode is set if one is given."""
    body = json.dumps(mode).encode() if mode else None
    with urlopen(Request(url + "/control", body)) as answer:
        counts: dict[str, int] = json.load(answer)
    return counts


@contextmanager
def running_sink() -> Iterator[str]:
    """A sink in a process of its own, which only counts; its URL."""
    words = [sys.executable, str(Path(__file__).with_name("sink.py"))]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            url = next(line.partition("=")[2].strip() for line in process.stdout if line.startswith("url="))
            control(url, {"count_only": True})
            yield url
        finally:
            process.terminate()


def run_child(kind: Kind, name: str, count: int, url: str) -> dict[str, float]:
    """The figures of one client, in a process of its own."""
    words = [sys.executable, __file__, "--child", kind, name, str(count), url]
    with tempfile.TemporaryFile("w+") as errors:  # what clients log is not for here
        environment = {**os.environ, "NO_PROXY": "*"}
        done = subprocess.run(
            words, stdout=subprocess.PIPE, stderr=errors, text=True, check=False, timeout=LONGEST, env=environment
        )
        if done.returncode:
            errors.seek(0)
            raise SystemExit(f"{name} failed:\n{errors.read()}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(kind: Kind, name: str, count: int, run: int) -> Result:
    """One measurement: a client and a sink, both new."""
    client = CLIENTS[name]
    count = min(count, MOST_SYNCHRONOUS) if client.synchronous else count
    with running_sink() as url:
        before = control(url)["cpu_ms"]
        figures = run_child(kind, name, count, url)
        counts = control(url)
    paced = kind != "calls" and client.holds is not None and client.holds < count
    return Result(name, kind, run, count, counts["events"], paced, (counts["cpu_ms"] - before) / 1000, figures)


def deliver_all(results: list[Result]) -> list[str]:
    """The clients that are measured with many events: those of which all arrived at full speed, in batches."""
    return [
        name
        for name in dict.fromkeys(result.client for result in results)
        if not CLIENTS[name].synchronous
        and all(result.arrived == result.recorded for result in results if result.client == name)
    ]


def measure_all(names: list[str], counts: dict[Kind, int], runs: int, progress: Progress) -> list[Result]:
    """Every measurement, the clients in turn."""
    results: list[Result] = []
    for kind, count in counts.items():
        chosen = deliver_all([result for result in results if result.kind == "calls"]) if kind == "large" else names
        for run in range(runs):
            for name in chosen:
                progress(f"{kind}, run {run + 1} of {runs}: {name}")
                results.append(measure(kind, name, count, run))
    return results


def import_times(repeats: int) -> dict[str, list[float]]:
    """Milliseconds of `python -c` with each import, in turn."""
    # As where httpx is installed alone: with these it would load its own command line, and hide what ours costs.
    alone = "import sys; sys.modules['click'] = sys.modules['rich'] = None; "
    programs = {"pass": "pass", "httpx": f"{alone}import httpx", "meterprint": f"{alone}import meterprint"}
    times: dict[str, list[float]] = {name: [] for name in programs}
    for program in programs.values():  # compiles what is not compiled yet
        subprocess.run([sys.executable, "-c", program], check=True)
    for _ in range(repeats):
        for name, program in programs.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            times[name].append((time.perf_counter() - start) * 1000)
    return times


def installed(names: list[str]) -> dict[str, str]:
    """The versions of the clients' packages.

    Raises:
        SystemExit: One is not installed.
    """
    try:
        return {CLIENTS[name].package: version_of(name) for name in names}
    except PackageNotFoundError as error:
        raise SystemExit(
            f"{error.name} is not installed: run make bench-delivery, or name others with --only"
        ) from None


# Figures for one event.


def events_per_second(result: Result) -> float:
    """Events delivered a second, of the time on the clock."""
    return result.arrived / result.figures["seconds"]


def cpu_per_event(result: Result) -> float:
    """Microseconds of processor time."""
    return result.figures["cpu_seconds"] / result.recorded * 1e6


def memory(result: Result) -> float:
    """Megabytes."""
    return result.figures["memory_bytes"] / MEGABYTE


def figure(name: str) -> Callable[[Result], float]:
    """What the child called so."""
    return lambda result: result.figures[name]


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def arrived(results: list[Result]) -> str:
    """How many arrived, in the worst of the runs."""
    worst = min(results, key=lambda result: result.arrived)
    share = worst.arrived / worst.recorded
    return f"{worst.arrived:,} of {worst.recorded:,}" + ("" if share == 1 else f" ({share:.0%})")


def whole_cells(report: Report, name: str, kind: Kind) -> list[str]:
    """The cells of a client's row for one number of events."""
    results = report.of(name, kind)
    if not results:
        return ["", "", ""]
    lost = "" if all(result.arrived >= result.recorded for result in results) else f", {arrived(results)}"
    return [
        f"{report.median(name, kind, events_per_second):,.0f}{' *' if results[0].paced else ''}{lost}",
        f"{number(report.median(name, kind, cpu_per_event))} µs",
        f"{report.median(name, kind, memory):.0f} MB",
    ]


def row(report: Report, name: str, kinds: list[Kind]) -> list[str]:
    """The cells of a client's row."""
    calls = [f"{number(report.median(name, 'calls', figure(key)))} µs" for key in ("p50_us", "p99_us", "max_us")]
    whole = [cell for kind in kinds for cell in whole_cells(report, name, kind)]
    return [name, report.versions[CLIENTS[name].package], *calls, arrived(report.of(name, "calls")), *whole]


def headings(counts: dict[Kind, int]) -> list[str]:
    """The heads of the columns."""
    whole = [
        head for kind in counts if kind != "calls" for head in (f"{counts[kind]:,}: events/s", "CPU/event", "memory")
    ]
    return ["Client", "Version", "`record` p50", "p99", "longest", "arrived", *whole]


def markdown(report: Report, counts: dict[Kind, int]) -> str:
    """The table, and what must be known to read it."""
    kinds: list[Kind] = [kind for kind in counts if kind != "calls"]
    rows = [headings(counts), ["---"] * 2 + ["--:"] * (4 + 3 * len(kinds))]
    rows += [row(report, name, kinds) for name in report.clients]
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join([*lines, "", *notes(report)])


def notes(report: Report) -> list[str]:
    """What must be known to read the table."""
    calls = [result for result in report.results if result.kind == "calls"]
    timing, making = (statistics.median(map(figure(key), calls)) for key in ("timer_us", "arguments_us"))
    imports = report.import_times
    return f"""\
Medians of {report.runs} runs. Of each call, the timer takes {timing:.2f} µs, and making the arguments {making:.2f} µs \
with the timer; nothing is subtracted.
arrived: of as many calls back to back, in the worst run.
events/s: until the client has shut down, with what it waits for there.
\\* flushed whenever it held all that it can, so that it drops nothing.
Import: meterprint {imports["meterprint"]:.0f} ms, httpx alone {imports["httpx"]:.0f} ms, \
ratio {imports["meterprint"] / imports["httpx"]:.2f}.""".splitlines()


# The plot. Its colours are from the palette of Okabe and Ito, and show on white and on black.

LANGUAGES: dict[str, dict[str, str]] = {
    "en": {},
    "sv": {
        "99th percentile": "99:e percentilen",
        "* slowed down: else it drops events": "* bromsad: annars tappar den händelser",
        "CPU per event": "CPU per händelse",
        "Delivered": "Levererat",
        "Time in record()": "Tid i record()",
        "median": "median",
        "thousand events/s; more is better": "tusen händelser/s; mer är bättre",
        "µs, logarithmic; less is better": "µs, logaritmisk; mindre är bättre",
    },
}
Say = Callable[[str], str]
GREY, FAINT, BLUE, ORANGE = "#7a7f87", "#7a7f8755", "#2f8fce", "#d98300"
STYLE: dict[str, Any] = {
    "text.color": GREY,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "grid.color": FAINT,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "svg.hashsalt": "meterprint",
}


def plot(report: Report, path: Path, language: str) -> None:
    """Two panels: how long a caller waits, and how much is delivered for what."""

    def say(text: str) -> str:
        return LANGUAGES[language].get(text, text)

    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("agg")
    pyplot: Any = import_module("matplotlib.pyplot")
    names = report.clients[::-1]
    with matplotlib.rc_context(STYLE):
        height = 1.4 + 0.42 * len(names)
        canvas, (left, right) = pyplot.subplots(1, 2, figsize=(10, height), sharey=True, layout="constrained")
        canvas.get_layout_engine().set(wspace=0.08)
        plot_calls(left, report, names, say)
        plot_whole(right, report, names, say)
        left.set_yticks(range(len(names)), names)
        for label in left.get_yticklabels():
            label.set_fontweight("bold" if is_ours(label.get_text()) else "normal")
        for panel in (left, right):
            panel.tick_params(which="both", length=0)
            panel.set_axisbelow(True)
        canvas.savefig(path, transparent=True, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)
        pyplot.close(canvas)


def plot_calls(panel: Any, report: Report, names: list[str], say: Say) -> None:
    """The left panel: from the median to the 99th percentile."""
    middle = [report.median(name, "calls", figure("p50_us")) for name in names]
    high = [report.median(name, "calls", figure("p99_us")) for name in names]
    places = range(len(names))
    panel.hlines(places, middle, high, color=GREY, linewidth=1.5)
    panel.scatter(middle, places, s=45, color=BLUE, label=say("median"), zorder=3)
    panel.scatter(high, places, s=45, color=ORANGE, marker="D", label=say("99th percentile"), zorder=3)
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    panel.grid(axis="x")
    panel.set_xlim(left=10 ** math.floor(math.log10(min(middle))))
    panel.set_xlabel(say("µs, logarithmic; less is better"))
    panel.set_title(say("Time in record()"), loc="left", fontsize=11, pad=24)
    panel.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.01),
        ncols=2,
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        handletextpad=0.2,
    )


def plot_whole(panel: Any, report: Report, names: list[str], say: Say) -> None:
    """The right panel: events per second as bars, with the processor time of each event."""
    rates = [report.median(name, "small", events_per_second) for name in names]
    colours = [BLUE if is_ours(name) else GREY for name in names]
    bars = panel.barh(range(len(names)), rates, height=0.55, color=colours)
    paced = [any(result.paced for result in report.of(name, "small")) for name in names]
    labels = [f"{rate:,.0f}{' *' if slowed else ''}" for rate, slowed in zip(rates, paced, strict=True)]
    panel.bar_label(bars, labels, padding=4, color=GREY)
    panel.set_xlim(0, max(rates) * 1.25)
    panel.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:,g}")
    panel.set_xlabel(say("thousand events/s; more is better"))
    panel.set_title(say("Delivered"), loc="left", fontsize=11, pad=24)
    beside: dict[str, Any] = {"ha": "right", "va": "center", "clip_on": False}
    for place, name in enumerate(names):
        text = f"{number(report.median(name, 'small', cpu_per_event))} µs"
        panel.text(1.2, place, text, transform=panel.get_yaxis_transform(), **beside)
    panel.text(1.2, 1.04, say("CPU per event"), transform=panel.transAxes, **beside)
    if any(paced):
        panel.text(
            0,
            1.04,
            say("* slowed down: else it drops events"),
            transform=panel.transAxes,
            va="center",
        )


# The program.

Progress = Callable[[str], None]


def report_of(options: argparse.Namespace, counts: dict[Kind, int]) -> Report:
    """Measure everything, with what happens on stderr."""
    console: Any = import_module("rich.console").Console(stderr=True)
    names: list[str] = options.only or list(CLIENTS)
    versions = installed(names) | {"httpx": version("httpx")}
    with console.status("...") as status:

        def progress(text: str) -> None:
            status.update(text)
            if not console.is_terminal:
                console.print(text)

        results = measure_all(names, counts, options.runs, progress)
        progress("imports")
        imports = import_times(IMPORTS)
    return Report(versions, machine(), options.runs, imports, results)


def machine() -> dict[str, str | int | None]:
    """What the figures depend on."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
    }


def options_of(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=50_000, help="how many events for each client (default: 50000)")
    parser.add_argument(
        "--large", type=int, default=1_000_000, help="how many for those that drop none; 0 for none (default: 1000000)"
    )
    parser.add_argument("--runs", type=int, default=3, help="how often to measure each (default: 3)")
    parser.add_argument("--only", nargs="+", choices=CLIENTS, metavar="NAME", help=f"of {'; '.join(CLIENTS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all figures")
    parser.add_argument("--docs", type=Path, metavar="FOLDER", help="where en/assets and sv/assets get the plot")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main() -> None:
    """Measure everything, and print a Markdown table."""
    options = options_of(sys.argv[1:])
    if options.child:
        kind, name, count, url = options.child
        child(kind, name, int(count), url)
        return
    counts: dict[Kind, int] = {"calls": options.events, "small": options.events}
    if options.large:
        counts["large"] = options.large
    report = report_of(options, counts)
    if options.json:
        options.json.write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")
    for language in LANGUAGES if options.docs else ():
        plot(report, options.docs / language / "assets" / "delivery.svg", language)
    print(markdown(report, counts))


if __name__ == "__main__":
    main()
