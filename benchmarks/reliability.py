"""What becomes of 1,000 events when something goes wrong, with our client and with others.

A scenario is a pair: an act, which the child process plays, and what the parent and the sink do to it.
`tests/test_reliability.py` plays them for our client, briefly; this program plays them for all, and shows a table.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import logging
import multiprocessing
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from clients import CLIENTS, Client, metadata, version_of

from meterprint import AsyncRecorder, MeteringClient, Recorder
from meterprint.spool import dead_letter_files

if TYPE_CHECKING:
    from sink import App

EVENTS = 1000
LIMIT = 60.0  # seconds that a child may take
FOR_ITS_END = 12.0  # of these, for its end
MEMORY, SPOOL = "meterprint", "meterprint, spool"
OURS = (MEMORY, SPOOL)
WITHOUT_IDS = ("opentelemetry",)  # nobody can tell a repeated event from a new one
OLDER_SPOOL = Path(__file__).parent.parent / "tests" / "data" / "spool-format-1"
OLDER_NOW = datetime(2026, 1, 5, 12, 30, tzinfo=UTC)  # its events are of the 17 minutes from 12:00 on
OLDER_ROLLUP = 0x0E04F4C7EAED5140B99C74439511D16D  # the id of what its journal sums up
DISK = 64 * 1024  # bytes
OWN_MOUNTS = ("unshare", "--mount", "--map-root-user")  # what is mounted within is gone with the process


# The child's side.


class Ours(Client):
    """Our client, with options of a scenario's."""

    package = "meterprint"
    defaults = ""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    def start(self, url: str) -> None:
        """Make the recorder as `from_env` does."""
        self.recorder = Recorder(MeteringClient(url, "benchmark", timeout=5.0), **self._options)

    def record(self, number: int) -> None:
        """Record an event of this number."""
        record(self.recorder, number, self.poison)

    def finish(self) -> None:
        """End the recorder."""
        self.recorder.close()


def record(recorder: Recorder | AsyncRecorder, number: int, poison: int | None = None) -> None:
    """Record an event of this number."""
    recorder.record(
        "api.request",
        customer_id=f"cus_{number % 100}",
        metadata=metadata(number, poison),
        event_id=f"e{number}",
    )


@dataclass(frozen=True)
class Task:
    """What a child is to do.

    Attributes:
        client: The name of the client.
        url: Where its metering API is.
        first: The number of the first event.
        count: How many events to record.
        own: How many the parent of a forked child records too.
        rate: How many in a second, at most; 0 for no bound.
        poison: The number of the event that the sink refuses.
        clock_offset: Seconds that the recorder's clock is ahead.
        mount: Whether the child may mount a small disk.
        options: Those of the recorder.
    """

    client: str
    url: str
    first: int = 0
    count: int = EVENTS
    own: int = 0
    rate: float = 0.0
    poison: int | None = None
    clock_offset: float = 0.0
    mount: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def numbers(self) -> range:
        """The numbers of the events to record."""
        return range(self.first, self.first + self.count)

    def own_numbers(self) -> tuple[range, range]:
        """Those of a forked child's parent, for before the fork and for after it."""
        start, half = self.first + self.count, self.own // 2
        return range(start, start + half), range(start + half, start + self.own)

    def recorder_options(self) -> dict[str, Any]:
        """The options of the recorder, with a clock if it is not the machine's."""
        if not self.clock_offset:
            return self.options
        ahead = int(self.clock_offset * 1e9)
        return {**self.options, "clock": lambda: time.time_ns() + ahead}

    def start(self) -> Client:
        """Make the client."""
        if self.client in OURS:
            return self.start_ours()
        client = CLIENTS[self.client]()
        type(client).poison = self.poison
        client.start(self.url)
        return client

    def start_ours(self) -> Ours:
        """Make our client."""
        client = Ours(self.recorder_options())
        type(client).poison = self.poison
        client.start(self.url)
        return client

    def record(self, client: Client, numbers: Iterable[int] | None = None) -> None:
        """Record events at the rate."""
        for number in paced(self.numbers() if numbers is None else numbers, self.rate):
            take(client, number)


ACTS: dict[str, Callable[[Task], None]] = {}


def act(function: Callable[[Task], None]) -> Callable[[Task], None]:
    """Something that a child can be told to do, by its name."""
    ACTS[function.__name__] = function
    return function


def say(word: object) -> None:
    """A line for the parent; one write, so that it is whole whatever happens next."""
    os.write(1, f"{word}\n".encode())


def paced(numbers: Iterable[int], rate: float) -> Iterator[int]:
    """The numbers, no faster than the rate."""
    start = time.monotonic()
    for index, number in enumerate(numbers):
        if rate and (wait := start + index / rate - time.monotonic()) > 0:
            time.sleep(wait)
        yield number


def take(client: Client, number: int) -> None:
    """Record an event; where another's client raises, the application goes on."""
    try:
        client.record(number)
    except Exception:
        if isinstance(client, Ours):
            raise


def finish(client: Client) -> None:
    """End a client."""
    try:
        client.finish()
    except Exception:
        if isinstance(client, Ours):
            raise


def be_told() -> None:
    """Wait for the parent."""
    say("recorded")
    sys.stdin.read()


@act
def end(task: Task) -> None:
    """Record, and let the script end."""
    task.record(task.start())
    say("recorded")


@act
def stay(task: Task) -> None:
    """Record, go on until told, and end as the vendor documents it."""
    client = task.start()
    task.record(client)
    be_told()
    finish(client)


@act
def exit_within_with(task: Task) -> None:
    """Leave `with` by sys.exit."""
    client = task.start_ours()
    with client.recorder:
        task.record(client)
        sys.exit(3)


@act
def fail(task: Task) -> None:
    """Let an exception end the script."""
    task.record(task.start())
    raise RuntimeError("on purpose")


def leave(number: int, frame: object) -> None:
    """An application's handler of SIGTERM."""
    sys.exit(0)


@act
def handle_before(task: Task) -> None:
    """Have a handler of SIGTERM before there is a client."""
    signal.signal(signal.SIGTERM, leave)
    stay(task)


@act
def handle_after(task: Task) -> None:
    """Have a handler of SIGTERM after there is a client."""
    client = task.start()
    signal.signal(signal.SIGTERM, leave)
    task.record(client)
    be_told()


@act
def pour(task: Task) -> None:
    """Record without end, and say the number of each event whose record returned."""
    say("begun")
    client = task.start()
    for number in paced(itertools.count(task.first), task.rate):
        take(client, number)
        say(number)


@act
def fork(task: Task) -> None:
    """Make the client, fork, and use it on both sides."""
    client = task.start()
    before, after = task.own_numbers()
    task.record(client, before)
    child = os.fork()
    if child:
        task.record(client, after)
        os.waitpid(child, 0)
    else:
        task.record(client)


@act
def multiprocess(task: Task) -> None:
    """Make the client, and use it here and in a process of multiprocessing's."""
    client = task.start()
    before, after = task.own_numbers()
    task.record(client, before)
    process = multiprocessing.get_context("fork").Process(target=task.record, args=(client,))
    process.start()
    task.record(client, after)
    process.join()


@act
def manage(task: Task) -> None:
    """Fork four workers that share the client, and replace one that is killed."""
    client = task.start()
    lanes = itertools.count()
    workers = {start_worker(task, client, next(lanes)) for _ in range(4)}
    while workers:
        worker, status = os.wait()
        workers.remove(worker)
        if os.WIFSIGNALED(status):
            workers.add(start_worker(task, client, next(lanes)))


def start_worker(task: Task, client: Client, lane: int) -> int:
    """Fork a worker, which says its number and those of its events, and ends well."""
    worker = os.fork()
    if worker:
        return worker
    say(f"worker {lane} {os.getpid()}")
    for number in paced(range(lane * EVENTS, lane * EVENTS + task.count), task.rate):
        take(client, number)
        say(number)
    sys.exit()


@act
def fill_disk(task: Task) -> None:
    """Have a spool on a small disk."""
    path = task.options["spool"]
    Path(path).mkdir()
    if task.mount:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", path], check=True)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (DISK, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    stay(task)


@act
def overfill(task: Task) -> None:
    """Record more than memory holds, and say how long a record took at most, and what was dropped."""
    client = task.start_ours()
    slowest = 0.0
    for number in task.numbers():
        start = time.monotonic()
        client.record(number)
        slowest = max(slowest, time.monotonic() - start)
    say(f"slowest {slowest}")
    say(f"dropped {client.recorder.stats.dropped}")
    be_told()
    client.finish()


async def record_in_loop(task: Task, recorder: AsyncRecorder) -> None:
    """Record one half, let the loop run, and record the other."""
    for number in task.numbers():
        record(recorder, number)
        if number == task.count // 2:
            await asyncio.sleep(0.01)
    say("recorded")


def async_recorder(task: Task) -> AsyncRecorder:
    """A recorder by asyncio, from the environment."""
    os.environ.update(METERING_API_URL=task.url, METERING_API_KEY="benchmark")
    return AsyncRecorder.from_env(**task.recorder_options())


@act
def end_loop(task: Task) -> None:
    """Let the event loop end under a recorder that is in use."""

    async def main() -> None:
        await record_in_loop(task, await AsyncExitStack().enter_async_context(async_recorder(task)))

    asyncio.run(main())
    gc.collect()  # as it comes whenever the script does anything more


@act
def end_loop_unused(task: Task) -> None:
    """Let the event loop end under a recorder that nobody entered, and that no variable holds any more."""

    async def main() -> None:
        await record_in_loop(task, async_recorder(task))

    asyncio.run(main())


@act
def stay_in_loop(task: Task) -> None:
    """Stay in the event loop."""

    async def main() -> None:
        async with async_recorder(task) as recorder:
            await record_in_loop(task, recorder)
            await asyncio.sleep(LIMIT)

    asyncio.run(main())


@act
def cancel_main(task: Task) -> None:
    """Cancel the main task."""

    async def main() -> None:
        async with async_recorder(task) as recorder:
            await record_in_loop(task, recorder)
            current = asyncio.current_task()
            assert current
            current.cancel()
            await asyncio.sleep(LIMIT)

    asyncio.run(main())


def play_act(name: str, client: str, url: str, rest: str) -> None:
    """Be the child."""
    if client in OURS:
        logging.basicConfig(format="%(levelname)s %(message)s")
    else:
        logging.disable()
    ACTS[name](Task(client, url, **json.loads(rest)))


# The parent's side.


@dataclass(frozen=True)
class Scale:
    """How long the longer scenarios take.

    Attributes:
        outage: Seconds of 500s.
        steady: Seconds at 10 events/s.
        burst: Seconds at 1,000 events/s.
        rounds: How often a child is killed.
    """

    outage: float = 20.0
    steady: int = 20
    burst: int = 5
    rounds: int = 20


BRIEF = Scale(outage=3.0, steady=5, burst=2, rounds=5)


@dataclass(frozen=True)
class Outcome:
    """What became of the events.

    Attributes:
        recorded: How many should be delivered.
        delivered: How many of these are.
        repeated: How many arrived once more.
        dead: Dead letters.
        kept: Events that are still in the spool.
        requests: Requests to the sink.
        seconds: How long it took.
        statuses: Those of the children that ended of themselves.
        moments: When each request came.
        notes: What a scenario measured besides.
        log: What the children logged.
    """

    recorded: int
    delivered: int
    repeated: int
    dead: int
    kept: int
    requests: int
    seconds: float
    statuses: list[int]
    moments: list[float]
    notes: dict[str, float]
    log: str

    def shown(self, client: str) -> dict[str, float]:
        """What the JSON file says of it."""
        names = ("delivered", "repeated", "dead", "kept", "requests")
        twice = {"twice": self.twice(client)} if self.twice(client) else {}
        numbers = {"recorded": self.asked, **{name: getattr(self, name) for name in names}}
        return {**numbers, **twice, "seconds": round(self.seconds, 1)}

    @property
    def asked(self) -> int:
        """How many the application recorded, those that a full buffer dropped included."""
        return self.recorded + int(self.notes.get("dropped", 0))

    def twice(self, client: str) -> int:
        """How many are stored twice."""
        return self.repeated if client in WITHOUT_IDS else 0

    def cell(self, client: str) -> str:
        """What the table says of it."""
        of = "" if self.asked == EVENTS else f" of {self.asked}"
        more = f" +{twice} twice" if (twice := self.twice(client)) else ""
        return f"{self.delivered}{of}{more}"


class Child:
    """A process that plays an act, in a group of its own."""

    def __init__(self, words: list[str], log: Any) -> None:
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
        self.started = time.monotonic()
        self.said: list[str] = []
        self._watch = threading.Timer(LIMIT, self.kill)
        self._watch.daemon = True
        self._watch.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def is_running(self) -> bool:
        """Whether it lives."""
        return self._process.poll() is None

    def lines(self) -> Iterator[str]:
        """What it says, as it does so."""
        assert self._process.stdout
        for line in self._process.stdout:
            self.said.append(line.strip())
            yield self.said[-1]

    def wait_for(self, word: str) -> None:
        """Wait until it says a word, or ends."""
        if word not in self.said:
            any(line == word for line in self.lines())

    def numbers(self) -> set[int]:
        """The numbers that it said."""
        return {int(line) for line in self.said if line.isdigit()}

    def kill(self) -> None:
        """Kill it and what it forked."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send a signal to it alone."""
        self._process.send_signal(number)

    def end(self) -> int:
        """Tell it to end, and wait until it and what it forked are gone."""
        if self._process.stdin:
            self._process.stdin.close()
        for _ in self.lines():
            pass
        status = self._process.wait()
        self._watch.cancel()
        if self._process.stdout:
            self._process.stdout.close()
        return status


class Stage:
    """Where a scenario is played: a sink, a folder, and the children.

    Args:
        client: The name of the client that the children use.
        scale: How long the longer scenarios take.
        folder: For spool and log.
    """

    def __init__(self, client: str, scale: Scale, folder: Path) -> None:
        from sink import Sink  # the children do without

        self.client, self.scale = client, scale
        self.spool = folder / "spool"
        self.expected: set[int] = set()
        self.statuses: list[int] = []
        self.notes: dict[str, float] = {}
        self._log = folder / "log"
        self._sink = Sink()
        self._children: list[Child] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self._sink)
        self._errors = self._stack.enter_context(self._log.open("w"))
        self._stack.callback(self._end_all)
        self._started = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _end_all(self) -> None:
        for child in self._children:
            child.kill()
            child.end()

    @property
    def app(self) -> App:
        """The sink's application."""
        return self._sink.app

    @property
    def has_spool(self) -> bool:
        """Whether the client has a spool."""
        return self.client == SPOOL

    def set(self, **mode: Any) -> None:
        """What the sink does from now on."""
        from sink import Mode, Run

        self.app.mode, self.app.run = Mode(**mode), Run()

    def start(self, name: str, *, words: Iterable[str] = (), url: str = "", **task: Any) -> Child:
        """Start a child; the events that it is told to record are expected."""
        options = {**({"spool": str(self.spool)} if self.has_spool else {}), **task.pop("options", {})}
        made = Task(self.client, url or self._sink.url, options=options, **task)
        self.expected.update(*made.own_numbers(), () if name in _COUNT_THEMSELVES else made.numbers())
        rest = json.dumps({**task, "options": options})
        python = [*words, sys.executable, __file__, "child", name, made.client, made.url, rest]
        child = Child(python, self._errors)
        self._children.append(child)
        return child

    def end(self, child: Child) -> None:
        """Wait for the end of a child; an end that was no kill is noted."""
        self._children.remove(child)
        self.statuses.append(child.end())

    def kill(self, child: Child) -> None:
        """Kill a child; what it said it recorded is expected."""
        child.kill()
        self._children.remove(child)
        child.end()
        self.expected |= child.numbers()

    def play(self, name: str, **task: Any) -> None:
        """Start a child and wait for its end."""
        self.end(self.start(name, **task))

    def see_it_through(self, child: Child) -> None:
        """Wait until all is stored, for as long as it may take, and let the child end."""
        child.wait_for("recorded")
        until = child.started + LIMIT - FOR_ITS_END
        while child.is_running() and not self.expected <= self.app.counts.numbers and time.monotonic() < until:
            time.sleep(0.01)
        self.end(child)

    def stay(self, **task: Any) -> None:
        """Start a child that stays until all is stored."""
        self.see_it_through(self.start("stay", **task))

    def kept(self) -> int:
        """How many events are in the spool."""
        return sum(path.read_bytes().count(b"\n") for path in self.spool.glob("*.jsonl"))

    def outcome(self) -> Outcome:
        """What became of the events."""
        counts, log = self.app.counts, self._log.read_text()
        return Outcome(
            recorded=len(self.expected),
            delivered=sum(number in counts.numbers for number in self.expected),
            repeated=counts.repeated,
            dead=log.count(" is a dead letter: "),
            kept=self.kept(),
            requests=counts.requests,
            seconds=time.monotonic() - self._started,
            statuses=self.statuses,
            moments=self.app.run.moments,
            notes=self.notes,
            log=log,
        )


_COUNT_THEMSELVES = ("manage", "pour")  # acts that say which events they recorded


@dataclass(frozen=True)
class Scenario:
    """A row of the table.

    Attributes:
        title: What it says.
        play: What the parent and the sink do.
        clients: Whom it concerns; None for everyone.
    """

    title: str
    play: Callable[[Stage], None]
    clients: tuple[str, ...] | None = None

    def concerns(self, client: str) -> bool:
        """Whether a client plays it."""
        return self.clients is None or client in self.clients


SCENARIOS: dict[str, Scenario] = {}


def scenario(clients: tuple[str, ...] | None = None) -> Callable[[Callable[[Stage], None]], None]:
    """A scenario, by the name of its function; the docstring is its title."""

    def add(play: Callable[[Stage], None]) -> None:
        title = (play.__doc__ or "").removesuffix(".")
        SCENARIOS[play.__name__] = Scenario(title, play, clients)

    return add


def run(name: str, client: str, scale: Scale) -> Outcome:
    """Play a scenario."""
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder, Stage(client, scale, Path(folder)) as stage:
        SCENARIOS[name].play(stage)
        return stage.outcome()


# The ends of a process.


@scenario()
def script_ends(stage: Stage) -> None:
    """The script ends without a flush."""
    stage.play("end")


@scenario(OURS)
def sys_exit(stage: Stage) -> None:
    """`sys.exit` within `with`."""
    stage.play("exit_within_with")


@scenario(OURS)
def exception(stage: Stage) -> None:
    """An exception ends the script."""
    stage.play("fail")


def terminate(stage: Stage, name: str) -> None:
    """SIGTERM as soon as all is recorded."""
    child = stage.start(name)
    child.wait_for("recorded")
    child.signal(signal.SIGTERM)
    stage.end(child)


@scenario()
def sigterm(stage: Stage) -> None:
    """SIGTERM."""
    terminate(stage, "stay")


@scenario(OURS)
def sigterm_handled_before(stage: Stage) -> None:
    """SIGTERM, the application's handler was there before the client."""
    terminate(stage, "handle_before")


@scenario(OURS)
def sigterm_handled_after(stage: Stage) -> None:
    """SIGTERM, the application's handler came after the client."""
    terminate(stage, "handle_after")


@scenario(OURS)
def sigterm_under_load(stage: Stage) -> None:
    """SIGTERM while it records."""
    for start in range(stage.scale.rounds):
        child = stage.start("pour", first=start * 1_000_000)
        child.wait_for(str(start * 1_000_000 + 500))
        time.sleep(random.uniform(0, 0.2))
        child.signal(signal.SIGTERM)
        stage.end(child)
        stage.expected |= child.numbers()


@scenario(OURS)
def no_api_at_the_end(stage: Stage) -> None:
    """No metering API, and the process ends within 2 s."""
    with nobody() as url:
        child = stage.start("end", url=url, options={"shutdown_timeout": 2})
        child.wait_for("recorded")
        start = time.monotonic()
        stage.end(child)
    stage.notes.update(end=time.monotonic() - start, kept=stage.kept())
    if stage.has_spool:
        stage.stay(count=0)


@contextmanager
def nobody() -> Iterator[str]:
    """A URL whose port is taken, and where nobody listens: connections are refused."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@scenario(OURS)
def loop_ends(stage: Stage) -> None:
    """Asyncio: the loop ends without `aclose`."""
    stage.play("end_loop")


@scenario(OURS)
def loop_ends_unused(stage: Stage) -> None:
    """Asyncio: the loop ends, and nobody entered the recorder."""
    stage.play("end_loop_unused")


@scenario(OURS)
def loop_sigterm(stage: Stage) -> None:
    """Asyncio: SIGTERM."""
    terminate(stage, "stay_in_loop")


@scenario(OURS)
def loop_cancelled(stage: Stage) -> None:
    """Asyncio: the main task is cancelled."""
    stage.play("cancel_main")


# Several processes.


@scenario()
def forked(stage: Stage) -> None:
    """Made before `os.fork`, used in the child."""
    stage.play("fork")


@scenario(OURS)
def forked_both(stage: Stage) -> None:
    """Made before `os.fork`, used on both sides."""
    stage.play("fork", own=EVENTS)


@scenario(OURS)
def multiprocessed(stage: Stage) -> None:
    """Made before `multiprocessing`, used in the child."""
    stage.play("multiprocess")


@scenario(OURS)
def multiprocessed_both(stage: Stage) -> None:
    """Made before `multiprocessing`, used on both sides."""
    stage.play("multiprocess", own=EVENTS)


@scenario((SPOOL,))
def workers(stage: Stage) -> None:
    """4 forked workers, one of them killed and replaced."""
    child = stage.start("manage", count=EVENTS // 4, rate=500)
    victim = said = 0
    for line in child.lines():
        if line.startswith("worker 0 "):
            victim = int(line.split()[2])
        said += line.isdigit() and int(line) < EVENTS
        if victim and said == 50:
            os.kill(victim, signal.SIGKILL)
            victim = 0
    stage.end(child)
    stage.expected |= child.numbers()


@scenario()
def killed(stage: Stage) -> None:
    """`kill -9` in a loop under load."""
    kill_in_a_loop(stage)


@scenario((SPOOL,))
def killed_together(stage: Stage) -> None:
    """`kill -9` in a loop, 3 processes at once that share the spool."""
    kill_in_a_loop(stage, together=3, with_outages=True)


def kill_in_a_loop(stage: Stage, together: int = 1, *, with_outages: bool = False) -> None:
    """Kill children at random moments, and let a last one end well; with outages, every second time nobody answers."""
    starts = (start * 1_000_000 for start in itertools.count())
    for turn in range(stage.scale.rounds):
        stage.set(fail_seconds=LIMIT if with_outages and turn % 2 else 0)
        children = [stage.start("pour", first=next(starts), rate=2000) for _ in range(together)]
        for child in children:
            child.wait_for("begun")
        time.sleep(random.uniform(0, 0.6))
        for child in children:
            stage.kill(child)
    stage.set()
    stage.stay(first=next(starts), count=100)


# The metering API.


@scenario()
def outage(stage: Stage) -> None:
    """20 s of status 500."""
    stage.set(fail_seconds=stage.scale.outage)
    stage.stay()


@scenario()
def retry_after(stage: Stage) -> None:
    """Status 429 with `Retry-After: 2`, three times."""
    stage.set(retry_after=2, times=3)
    stage.stay()


@scenario()
def cut(stage: Stage) -> None:
    """The connection is cut after the metering API stored the events, twice."""
    stage.set(cut_after_commit=2)
    stage.stay()


@scenario()
def hang(stage: Stage) -> None:
    """The metering API hangs for 30 s."""
    stage.set(hang_seconds=30)
    stage.stay()


@scenario()
def rate_limit_steady(stage: Stage) -> None:
    """Rate limit, 10 events/s."""
    stage.set(rate_limit=True)
    stage.stay(count=10 * stage.scale.steady, rate=10)


@scenario()
def rate_limit_burst(stage: Stage) -> None:
    """Rate limit, 1,000 events/s."""
    stage.set(rate_limit=True)
    stage.stay(count=1000 * stage.scale.burst, rate=1000)


@scenario()
def poison(stage: Stage) -> None:
    """One event that the metering API refuses."""
    refuse_one(stage, pointers=False)


@scenario(OURS)
def poison_pointed_to(stage: Stage) -> None:
    """One event that the metering API refuses, and points to."""
    refuse_one(stage, pointers=True)


def refuse_one(stage: Stage, *, pointers: bool) -> None:
    """Refuse the event in the middle: all others are expected."""
    stage.set(poison=True, pointers=pointers)
    child = stage.start("stay", poison=EVENTS // 2)
    stage.expected.discard(EVENTS // 2)
    stage.see_it_through(child)


# The machine.


@scenario(OURS)
def clock_fast(stage: Stage) -> None:
    """A clock that is 10 minutes fast."""
    stage.set(clock_offset=-600)
    stage.stay()


@scenario(OURS)
def clock_slow(stage: Stage) -> None:
    """A clock that is 10 minutes slow."""
    stage.set(clock_offset=600)
    stage.stay()


@scenario((SPOOL,))
def disk_full(stage: Stage) -> None:
    """A full disk."""
    mount = may_mount()
    stage.see_it_through(stage.start("fill_disk", words=OWN_MOUNTS if mount else (), mount=mount))


def may_mount() -> bool:
    """Whether a process may have mounts of its own."""
    with tempfile.TemporaryDirectory() as folder, suppress(OSError):
        words = [*OWN_MOUNTS, "mount", "-t", "tmpfs", "tmpfs", folder]
        return subprocess.run(words, check=False, capture_output=True).returncode == 0
    return False


@scenario(OURS)
def buffer_full(stage: Stage) -> None:
    """2,000 events while nobody answers, and room for 500."""
    stage.set(fail_seconds=LIMIT)
    child = stage.start("overfill", count=2 * EVENTS, options={"max_buffered": 500})
    child.wait_for("recorded")
    stage.notes.update((name, float(value)) for name, value in (line.split() for line in child.said[:2]))
    stage.set()
    if not stage.has_spool:
        stage.expected = set(range(2 * EVENTS - int(stage.notes["dropped"])))
    stage.see_it_through(child)


@scenario((SPOOL,))
def older_spool(stage: Stage) -> None:
    """A spool of format 1, as every later version must deliver it."""
    shutil.copytree(OLDER_SPOOL, stage.spool)
    ahead = OLDER_NOW.timestamp() - time.time()
    stage.set(clock_offset=ahead)
    stage.expected = {*range(EVENTS), OLDER_ROLLUP}
    stage.stay(count=0, clock_offset=ahead)
    stage.notes["dead_letters"] = sum(len(letters) for _, letters in dead_letter_files(stage.spool))


# The program.


def installed() -> dict[str, str]:
    """The clients that can play, and their versions."""
    versions: dict[str, str] = {}
    for name in (*OURS, *sorted(set(CLIENTS) - set(OURS))):
        with suppress(PackageNotFoundError):
            versions[name] = version_of(name)
    return versions


def table(results: dict[str, dict[str, Outcome]], clients: Iterable[str]) -> str:
    """The Markdown table."""
    lines = [f"| | {' | '.join(clients)} |", f"| --- |{' --: |' * len(list(clients))}"]
    for name, outcomes in results.items():
        cells = [outcomes[client].cell(client) if client in outcomes else "-" for client in clients]
        lines.append(f"| {SCENARIOS[name].title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(outcomes: dict[str, Outcome]) -> dict[str, dict[str, float]]:
    """A row, for the JSON file."""
    return {client: outcome.shown(client) for client, outcome in outcomes.items()}


def play_all(names: list[str], clients: list[str]) -> dict[str, dict[str, Outcome]]:
    """Play scenarios, and say how each went."""
    results: dict[str, dict[str, Outcome]] = {name: {} for name in names}
    for name, client in itertools.product(names, clients):
        if SCENARIOS[name].concerns(client):
            outcome = results[name][client] = run(name, client, Scale())
            print(f"{name}, {client}: {outcome.shown(client)}", file=sys.stderr, flush=True)
    return results


def main() -> None:
    """Play scenarios for clients, and show what became of the events."""
    if sys.argv[1:2] == ["child"]:
        play_act(*sys.argv[2:])
        return
    versions = installed()
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--only", nargs="+", choices=versions, default=list(versions), metavar="CLIENT")
    parser.add_argument("--scenario", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and the versions there")
    options = parser.parse_args()
    results = play_all(options.scenario, options.only)
    print(table(results, options.only))
    if options.json:
        used = {client: versions[client] for client in options.only}
        report = {"versions": used, "scenarios": {SCENARIOS[name].title: shown(results[name]) for name in results}}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
