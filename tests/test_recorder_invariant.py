"""Whatever goes wrong: every recorded event is delivered once, dead with a reason, or still kept.

Both recorders are driven through random faults, ends and new beginnings, with and without a spool.
"""

import asyncio
import json
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any, ClassVar

import httpx
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from conftest import die
from meterprint import AsyncMeteringClient, AsyncRecorder, Event, MeteringClient, Recorder
from meterprint.event import age_problem, parse_timestamp
from meterprint.spool import dead_letter_files

HOUR = 3600.0
FAULTS = ["ok", "500", "429", "401", "html", "cut before", "cut after", "conflict"]


@dataclass
class Server:
    """The metering API by a script: one fault for each request, then well. It counts an event each time it is new."""

    clock: Callable[[], float]
    faults: list[str] = field(default_factory=list)
    skew: float = 0.0  # its clock, ahead of the recorder's
    pointers: bool = True
    stored: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        with self.lock:
            fault = self.faults.pop(0) if self.faults else "ok"
            events = json.loads(request.content)["events"]
            assert 1 <= len(events) <= 1000
            assert len({event["event_id"] for event in events}) == len(events), "an id twice in a request"
            return self._failure(fault) or self._answer(events, fault)

    def _failure(self, fault: str) -> httpx.Response | None:
        if fault == "cut before":
            raise httpx.ConnectError("cut")
        if fault == "html":
            return httpx.Response(200, text="<h1>Log in</h1>")
        if fault in ("500", "429", "401"):
            headers = {"Retry-After": "0"} if fault == "429" else {}
            return httpx.Response(int(fault), json={"code": "C", "message": "m"}, headers=headers)
        return None

    def _answer(self, events: list[dict[str, Any]], fault: str) -> httpx.Response:
        now = datetime.fromtimestamp(self.clock() + self.skew, UTC)
        headers = {"Date": format_datetime(now, usegmt=True)}
        details = [
            {"pointer": f"/events/{index}/{what}", "reason": "refused"}
            for index, event in enumerate(events)
            for what, bad in {
                "metadata/poison": "poison" in event["metadata"],
                "timestamp": age_problem(parse_timestamp(event["timestamp"]), now) is not None,
            }.items()
            if bad
        ]
        if details:
            code = "INVALID_TIMESTAMP" if details[0]["pointer"].endswith("timestamp") else "INVALID_METADATA"
            body = {"code": code, "message": "refused", "details": details if self.pointers else []}
            return httpx.Response(400, json=body, headers=headers)
        known = [event for event in events if event["event_id"] in self.stored]
        if fault == "conflict" and known:
            return httpx.Response(409, json={"code": "CONFLICT", "message": "known"}, headers=headers)
        for event in events:
            self.stored.setdefault(event["event_id"], 0)
            self.stored[event["event_id"]] += event not in known
        if fault == "cut after":
            raise httpx.ReadError("cut")
        counts = {"ingested_count": len(events) - len(known), "duplicate_count": len(known)}
        return httpx.Response(200, json=counts, headers=headers)


class Threads:
    """A `Recorder`, driven."""

    def __init__(self, server: Server, options: dict[str, Any]) -> None:
        client = MeteringClient("http://api.test", "k", transport=httpx.MockTransport(server))
        self.recorder = Recorder(client, **options)

    def flush(self, seconds: float) -> bool:
        return self.recorder.flush(seconds)

    def close(self) -> None:
        self.recorder.close()

    def kill(self) -> None:
        die(self.recorder)


class Tasks(Threads):
    """An `AsyncRecorder`, driven in a loop of its own."""

    def __init__(self, server: Server, options: dict[str, Any]) -> None:
        client = AsyncMeteringClient("http://api.test", "k", transport=httpx.MockTransport(server))
        self.loop = asyncio.new_event_loop()
        self.recorder: Any = AsyncRecorder(client, **{**options, "full": "spill" if "spool" in options else "drop"})

    def flush(self, seconds: float) -> bool:
        return bool(self.loop.run_until_complete(self.recorder.flush(seconds)))

    def close(self) -> None:
        self.loop.run_until_complete(self.recorder.aclose())
        self.loop.close()

    def kill(self) -> None:
        self.recorder._closed = self.recorder._retired = True
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()
        if self.recorder._spool:
            self.recorder._spool.abandon()


class Deliveries(RuleBasedStateMachine):
    """Records, fails, ends, is killed, begins again."""

    driver: ClassVar[type[Threads]] = Threads
    with_spool: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.now = datetime(2026, 11, 24, 9, 30, tzinfo=UTC).timestamp()
        self.server = Server(lambda: self.now)
        self.folder = tempfile.TemporaryDirectory()
        self.recorded: set[str] = set()
        self.poisoned: set[str] = set()
        self.dead: set[str] = set()
        self.lost: set[str] = set()  # with the memory of a process that had no spool
        self.driven = self.begin()

    def begin(self) -> Threads:
        options: dict[str, Any] = {
            "clock": lambda: int(self.now * 1e9),
            "backoff": lambda attempt: 0.0,
            "interval": 1000,
            "shutdown_timeout": 0.3,
            "max_buffered": 1_000_000,
            "on_dead": lambda letter: self.dead.add(letter.event_id),
        }
        if self.with_spool:
            options["spool"] = Path(self.folder.name, "spool")
        return self.driver(self.server, options)

    def record(self, count: int, **metadata: Any) -> set[str]:
        made: set[str] = set()
        for _ in range(count):
            event_id = f"e{len(self.recorded)}"
            self.recorded.add(event_id)
            made.add(event_id)
            moment = datetime.fromtimestamp(self.now, UTC)
            self.driven.recorder.record(Event(event_id, "cus_ada", "api.request", moment, metadata))
        return made

    @rule(count=st.sampled_from([1, 3, 700, 1500]))
    def records(self, count: int) -> None:
        self.record(count)

    @rule()
    def records_poison(self) -> None:
        self.poisoned |= self.record(1, poison=True)

    @precondition(lambda self: self.recorded)
    @rule(data=st.data())
    def records_again(self, data: st.DataObject) -> None:
        event_id = f"e{data.draw(st.integers(0, len(self.recorded) - 1))}"
        if event_id not in self.dead | self.lost | self.poisoned:
            moment = datetime.fromtimestamp(self.now, UTC)
            self.driven.recorder.record(Event(event_id, "cus_ada", "api.request", moment))

    @rule(faults=st.lists(st.sampled_from(FAULTS), min_size=1, max_size=4))
    def the_server_will_fail(self, faults: list[str]) -> None:
        self.server.faults += faults

    @rule(skew=st.sampled_from([0.0, 0.0, -600.0, 600.0]), pointers=st.booleans())
    def the_clocks_part(self, skew: float, pointers: bool) -> None:
        self.server.skew, self.server.pointers = skew, pointers

    @rule(seconds=st.sampled_from([1.0, 60.0, 2 * HOUR]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def flushes(self) -> None:
        self.driven.flush(0.3)

    @rule()
    def ends_and_begins_again(self) -> None:
        self.driven.close()
        self.begin_anew()

    @rule()
    def is_killed_and_begins_again(self) -> None:
        self.driven.kill()
        self.begin_anew()

    def begin_anew(self) -> None:
        if not self.with_spool:
            self.lost |= self.recorded - set(self.server.stored) - self.dead
        self.driven = self.begin()

    @invariant()
    def nothing_is_counted_twice(self) -> None:
        assert set(self.server.stored.values()) <= {1}

    @invariant()
    def what_is_dead_is_dead_for_a_reason(self) -> None:
        if self.with_spool:
            dead = set(self.dead)  # first: another thread may bury one meanwhile
            letters = [x for _, found in dead_letter_files(Path(self.folder.name, "spool")) for x in found]
            assert dead <= {letter.event_id for letter in letters}
            assert all(letter.reason for letter in letters)

    def teardown(self) -> None:
        """With a server that is well, everything arrives that is not dead."""
        self.server.faults, self.server.skew = [], 0.0
        try:
            assert self.driven.flush(20)
            kept = self.recorded - self.lost
            assert kept - self.dead <= set(self.server.stored)
            assert self.poisoned - self.lost <= self.dead
            assert not self.poisoned & set(self.server.stored)
            stats = self.driven.recorder.stats
            assert stats.buffered == 0
            assert stats.recorded == stats.delivered + stats.duplicates + stats.dead + stats.dropped
        finally:
            self.driven.close()
            self.folder.cleanup()


SETTINGS = settings(
    max_examples=30, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def machine(driver: type[Threads], *, with_spool: bool) -> Any:
    kind: Any = type("Case", (Deliveries,), {"driver": driver, "with_spool": with_spool})
    kind.TestCase.settings = SETTINGS
    return kind.TestCase


TestThreads = machine(Threads, with_spool=False)
TestThreadsWithSpool = machine(Threads, with_spool=True)
TestTasks = machine(Tasks, with_spool=False)
TestTasksWithSpool = machine(Tasks, with_spool=True)
