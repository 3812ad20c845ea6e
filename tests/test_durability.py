"""What was acknowledged stays, once: the server is killed, its disk is full, its file is damaged or taken."""

import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest

from commands import CLEAN, METERPRINT, running
from meterprint.event import format_timestamp
from meterprint.local.app import create_app
from meterprint.local.server import Server
from meterprint.local.sqlite import SQLiteStore

ROUNDS = 100
SENDERS = 3
HEADERS = {"Authorization": "Bearer test-key"}
JSON = {**HEADERS, "Content-Type": "application/json"}
COUNT = {"name": "Calls", "event_name": "call", "aggregation": {"type": "count"}, "measurement_unit": "call"}
SUM = {
    "name": "Tokens",
    "event_name": "call",
    "aggregation": {"type": "sum", "key": "tokens"},
    "measurement_unit": "token",
}


# A process that has imported everything starts a server in milliseconds: it forks, and says how the child ended.
NURSERY = """
import os, signal, sys
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from meterprint import Event
from meterprint.local.app import create_app
from meterprint.local.server import Server
from meterprint.local.sqlite import SQLiteStore
from meterprint.local.store import MemoryStore, Record

def serve(path):
    with Server(create_app(SQLiteStore(path))) as server:
        print(server.url, flush=True)
        signal.pause()

def catch_up(path):
    store = SQLiteStore(path)
    print("open", flush=True)
    for batch in count():
        now = datetime.now(UTC)
        events = [Event(Event.new_id(), f"cus_{n % 3}", "call", now, {"tokens": n % 7}) for n in range(1000)]
        store.add_events("one", [Record.of(event) for event in events])
        while store.catch_up(20):
            pass

with Server(create_app(MemoryStore())):
    pass
for line in sys.stdin:
    job, path = line.split()
    child = os.fork()
    if not child:
        print(os.getpid(), flush=True)
        {"serve": serve, "catch_up": catch_up}[job](Path(path))
    _, status = os.waitpid(child, 0)
    print("ended", os.waitstatus_to_exitcode(status), flush=True)
"""


class Nursery:
    """Starts children of a process that has imported everything, and kills them."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def start(self, job: str, path: Path) -> int:
        """The number of a process that begins to do this."""
        assert self._process.stdin
        self._process.stdin.write(f"{job} {path}\n")
        self._process.stdin.flush()
        return int(self.line())

    def kill(self, child: int) -> None:
        os.kill(child, signal.SIGKILL)
        while not (line := self.line()).startswith("ended"):
            assert line
        assert line == "ended -9"


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    words = [sys.executable, "-c", NURSERY]
    with subprocess.Popen(words, env=CLEAN, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Nursery(process)
        process.kill()


# Killed while it takes events


class Batch(NamedTuple):
    """Events that are sent together, under ids that say which batch they belong to and how many it has."""

    name: str
    size: int
    body: bytes


@dataclass
class Address:
    """Where the server answers now: None while it does not."""

    url: str | None = None
    changed: threading.Condition = field(default_factory=threading.Condition)

    def set(self, url: str | None) -> None:
        with self.changed:
            self.url = url
            self.changed.notify_all()

    def wait_for_another(self, old: str | None) -> str:
        with self.changed:
            self.changed.wait_for(lambda: self.url not in (None, old))
            assert self.url
            return self.url


class Sender(threading.Thread):
    """Posts batches as clients do: what was not answered is sent again with the same ids, or given up."""

    def __init__(self, number: int, address: Address, start: datetime) -> None:
        super().__init__(daemon=True)
        self.address = address
        self.stopping = False
        self.answered: dict[str, Batch] = {}
        self.sent: set[str] = set()
        self.unanswered = 0
        self.wrong: list[str] = []
        self._random = random.Random(number)
        self._number = number
        self._moments = (start + timedelta(seconds=10 * number, microseconds=n) for n in range(10_000_000))

    def run(self) -> None:
        url = self.address.wait_for_another(None)
        batch = self._new()
        with httpx.Client(headers=JSON, timeout=20, verify=False) as client:
            while not self.stopping:
                try:
                    answer = client.post(f"{url}/events/ingest", content=batch.body)
                except httpx.TransportError:
                    self.unanswered += 1
                    url = self.address.wait_for_another(url)
                    batch = batch if self._random.random() < 0.6 else self._new()
                    continue
                self._take(batch, answer)
                batch = self._next()

    def _take(self, batch: Batch, answer: httpx.Response) -> None:
        counts = answer.json() if answer.status_code == 200 else {}
        found = counts.get("ingested_count"), counts.get("duplicate_count")
        known = batch.name in self.answered
        if found != (0, batch.size) and (known or found != (batch.size, 0)):
            self.wrong.append(f"{batch.name}, {batch.size} events, known: {known}: {answer.text}")
        self.answered[batch.name] = batch

    def _next(self) -> Batch:
        """A new batch; now and then one that was answered already, as after a lost answer."""
        if self._random.random() < 0.1:
            return self._random.choice(list(self.answered.values()))
        return self._new()

    def _new(self) -> Batch:
        size = self._random.randint(1, 50)
        name = f"{self._number}-{len(self.sent)}-{size}"
        self.sent.add(name)
        events = [
            {
                "event_id": f"{name}-{n}",
                "customer_id": f"cus_{n % 4}",
                "event_name": "call",
                "timestamp": format_timestamp(next(self._moments)),
                "metadata": {"tokens": n},
            }
            for n in range(size)
        ]
        return Batch(name, size, json.dumps({"events": events}).encode())


def stored(url: str) -> list[dict[str, Any]]:
    """All events, by GET /events; no two have the same time, so that pages can be asked for by time."""
    events: list[dict[str, Any]] = []
    query: dict[str, Any] = {"page_size": 100}
    with httpx.Client(base_url=url, headers=HEADERS, verify=False) as client:
        while items := client.get("/events", params=query).json()["items"]:
            events += items
            query["end"] = items[-1]["timestamp"]
    return events


def ask(method: str, url: str, **options: Any) -> httpx.Response:
    """One request. Without `verify`, it need not read the system's certificates first."""
    return httpx.request(method, url, headers=HEADERS, timeout=30, verify=False, **options)


def health(url: str) -> int:
    count: int = ask("GET", f"{url}/local/health").json()["events_stored"]
    return count


def create_meters(url: str) -> list[str]:
    ids: list[str] = []
    for meter in (COUNT, SUM):
        answer = ask("POST", f"{url}/meters", json=meter)
        assert answer.status_code == 201, answer.text
        ids.append(answer.json()["id"])
    return ids


def usage(url: str, meter_id: str, **query: Any) -> dict[str, Any]:
    answer = ask("GET", f"{url}/local/meters/{meter_id}/usage", params=query)
    assert answer.status_code == 200, answer.text
    reading: dict[str, Any] = answer.json()
    return reading


def test_a_server_that_is_killed_100_times_loses_halves_and_doubles_nothing(nursery: Nursery, tmp_path: Path) -> None:
    path, address, moments = tmp_path / "ledger.db", Address(), random.Random(1)
    senders = [Sender(number, address, datetime.now(UTC)) for number in range(SENDERS)]
    meters: list[str] = []
    for sender in senders:
        sender.start()
    for _ in range(ROUNDS):
        child = nursery.start("serve", path)
        url = nursery.line()
        meters = meters or create_meters(url)
        answered = sum(batch.size for sender in senders for batch in sender.answered.values())
        assert health(url) >= answered
        address.set(url)
        time.sleep(moments.uniform(0, 0.06))
        usage(url, moments.choice(meters))  # its totals are brought up to date, under load
        time.sleep(moments.uniform(0, 0.06))
        nursery.kill(child)
        address.set(None)
    child = nursery.start("serve", path)
    url = nursery.line()
    for sender in senders:
        sender.stopping = True
    address.set(url)
    for sender in senders:
        sender.join(20)
        assert not sender.is_alive()
        assert sender.wrong == []
        assert sender.answered
    assert sum(sender.unanswered for sender in senders) > ROUNDS  # it was under load when it was killed
    hold_all_that_was_answered(events := stored(url), senders)
    meters_read(url, meters, events)
    nursery.kill(child)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def hold_all_that_was_answered(events: list[dict[str, Any]], senders: list[Sender]) -> None:
    ids = [event["event_id"] for event in events]
    assert len(set(ids)) == len(ids)
    found = Counter(event_id.rpartition("-")[0] for event_id in ids)
    halves = {name: count for name, count in found.items() if count != int(name.rpartition("-")[2])}
    assert halves == {}
    for sender in senders:
        assert sender.answered.keys() <= found.keys()
    assert found.keys() <= {name for sender in senders for name in sender.sent}
    changed = [event for event in events if event["metadata"]["tokens"] != int(event["event_id"].rpartition("-")[2])]
    assert changed == []


def meters_read(url: str, meters: list[str], events: list[dict[str, Any]]) -> None:
    tokens: defaultdict[str, int] = defaultdict(int)
    for event in events:
        tokens[event["customer_id"]] += event["metadata"]["tokens"]
    calls = Counter(event["customer_id"] for event in events)
    for meter_id, expected in zip(meters, (calls, tokens), strict=True):
        reading = usage(url, meter_id, window="hour")
        assert reading["quantity"] == str(sum(expected.values()))
        assert {one["customer_id"]: int(one["quantity"]) for one in reading["customers"]} == dict(expected)
        assert sum(int(item["quantity"]) for item in reading["items"]) == sum(expected.values())


# Killed while it brings totals up to date


def totals_hold_the_events(path: Path) -> list[tuple[int, int]]:
    """Hold the totals to what SQLite itself counts; returns how far each meter's totals are, and the last event."""
    hour, day = 3_600_000_000, 86_400_000_000
    with closing(sqlite3.connect(path)) as db:
        (head,) = db.execute("SELECT ifnull(max(arrival), 0) FROM events").fetchone()
        meters = db.execute("SELECT number, json_extract(definition, '$.name'), totalled FROM meters").fetchall()
        for number, name, totalled in meters:
            amount = "count(*)" if name == "Calls" else "sum(json_extract(metadata, '$.tokens'))"
            for span in (hour, day):
                counted = db.execute(
                    f"SELECT customer_id, timestamp / {span} * {span} AS start, {amount} FROM events"
                    " WHERE arrival <= ? GROUP BY customer_id, start ORDER BY customer_id, start",
                    (totalled,),
                ).fetchall()
                totals = db.execute(
                    "SELECT customer_id, start, CAST(quantity AS INTEGER) FROM totals WHERE meter = ? AND span = ?"
                    " ORDER BY customer_id, start",
                    (number, span),
                ).fetchall()
                assert totals == counted
        return [(totalled, head) for _, _, totalled in meters]


def test_totals_that_were_being_written_when_it_was_killed_count_each_event_once(
    nursery: Nursery, tmp_path: Path
) -> None:
    path, moments = tmp_path / "ledger.db", random.Random(2)
    with closing(SQLiteStore(path)) as store, Server(create_app(store)) as server:
        create_meters(server.url)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE ledgers SET name = 'one'")
    places: list[tuple[int, int]] = []
    for _ in range(30):
        child = nursery.start("catch_up", path)
        assert nursery.line() == "open"
        time.sleep(moments.uniform(0, 0.08))
        nursery.kill(child)
        places += totals_hold_the_events(path)
    assert any(0 < totalled < head for totalled, head in places)  # otherwise it was never killed in the middle
    with closing(SQLiteStore(path)) as store:
        while store.catch_up():
            pass
    assert all(totalled == head for totalled, head in totals_hold_the_events(path))


# Killed while it starts


def test_a_file_whose_first_start_was_killed_is_taken_by_the_next(nursery: Nursery, tmp_path: Path) -> None:
    moments = random.Random(3)
    for number in range(20):
        path = tmp_path / f"{number}.db"
        child = nursery.start("serve", path)
        time.sleep(moments.uniform(0, 0.02))
        nursery.kill(child)
        with closing(SQLiteStore(path)) as store:
            assert store.count_events() == 0


OLD = """
CREATE TABLE events (arrival INTEGER PRIMARY KEY, ledger TEXT NOT NULL, event_id TEXT NOT NULL,
    customer_id TEXT NOT NULL, event_name TEXT NOT NULL, timestamp INTEGER NOT NULL, metadata TEXT NOT NULL,
    UNIQUE (ledger, event_id));
CREATE INDEX events_by_time ON events (ledger, timestamp);
CREATE TABLE meters (created INTEGER PRIMARY KEY, ledger TEXT NOT NULL, id TEXT NOT NULL UNIQUE,
    definition TEXT NOT NULL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL, archived INTEGER NOT NULL);
WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 20000)
INSERT INTO events SELECT n, 'one', 'e' || n, 'cus_ada', 'call', 1795559400000000 + n, '{"tokens":1}' FROM n;
PRAGMA user_version = 1;
"""


def test_a_file_of_an_older_version_is_whole_when_its_upgrade_was_killed(nursery: Nursery, tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    with closing(sqlite3.connect(old)) as db:
        db.executescript(OLD)
    versions: set[int] = set()
    for number in range(15):
        path = tmp_path / f"{number}.db"
        shutil.copy(old, path)
        child = nursery.start("serve", path)
        time.sleep(number * 0.006)
        nursery.kill(child)
        with closing(sqlite3.connect(path)) as db:
            versions.update(db.execute("PRAGMA user_version").fetchone())
            assert db.execute("SELECT count(*), count(DISTINCT event_id) FROM events").fetchone() == (20_000, 20_000)
        with closing(SQLiteStore(path)) as store:
            assert store.count_events() == 20_000
    assert 1 in versions  # otherwise it was never killed before its end


# A disk that takes no more


def event(event_id: str, **metadata: Any) -> dict[str, Any]:
    return {"event_id": event_id, "customer_id": "cus_ada", "event_name": "call", "metadata": metadata}


def ingest(url: str, *events: dict[str, Any]) -> httpx.Response:
    return ask("POST", f"{url}/events/ingest", json={"events": events})


def large_batch(number: int) -> list[dict[str, Any]]:
    return [event(f"large-{number}-{n}", tokens=1, text="x" * 400) for n in range(1_000)]


def refused_for_want_of_space(answer: httpx.Response) -> None:
    body = answer.json()
    assert (answer.status_code, body["code"]) == (503, "INTERNAL_SERVER_ERROR"), answer.text
    assert "the disk is full: free some space, then send the request again" in body["message"]
    assert "Nothing of this request was stored" in body["message"]


@contextmanager
def full(store: SQLiteStore) -> Iterator[None]:
    """Let the database not grow."""
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count={pages}")
    yield
    store._db.execute("PRAGMA max_page_count=1000000")


def test_a_full_disk_refuses_events_by_name_and_takes_them_once_there_is_room(tmp_path: Path) -> None:
    with closing(SQLiteStore(tmp_path / "ledger.db")) as store, Server(create_app(store)) as server:
        url = server.url
        calls, tokens = create_meters(url)
        assert ingest(url, event("first", tokens=2)).status_code == 200
        with full(store):
            for number in range(3):
                refused_for_want_of_space(ingest(url, *large_batch(number)))
            assert [one["event_id"] for one in stored(url)] == ["first"]
            assert health(url) == 1
        assert ingest(url, *large_batch(0)).json() == {"ingested_count": 1_000, "duplicate_count": 0}
        assert usage(url, calls)["quantity"] == "1001"
        assert usage(url, tokens)["quantity"] == "1002"


def test_meters_can_be_read_while_the_disk_is_full(tmp_path: Path) -> None:
    with closing(SQLiteStore(tmp_path / "ledger.db")) as store, Server(create_app(store)) as server:
        url = server.url
        calls, _ = create_meters(url)
        # Each customer has totals of its own: too many for the page that may be there still.
        events = [{**event(f"e{n}"), "customer_id": f"cus_{n}"} for n in range(500)]
        assert ingest(url, *events).status_code == 200
        with full(store):
            assert usage(url, calls)["quantity"] == "500"
            assert len(usage(url, calls, window="hour", per_customer="true")["items"]) == 500
        assert usage(url, calls)["quantity"] == "500"


def test_a_file_that_the_system_lets_grow_no_further_refuses_events_and_keeps_what_it_has(tmp_path: Path) -> None:
    """As with a quota: the write itself fails, not only SQLite's own limit."""
    with running("serve", "--port", "0", "--db", "ledger.db", cwd=tmp_path) as (process, url):
        calls, _ = create_meters(url)
        assert ingest(url, event("first")).status_code == 200
        size = max(path.stat().st_size for path in tmp_path.iterdir())
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size + 100_000, resource.RLIM_INFINITY))
        for number in range(2):
            answer = ingest(url, *large_batch(number))
            assert (answer.status_code, answer.json()["code"]) == (503, "INTERNAL_SERVER_ERROR")
            assert re.search(r"disk .*: .*, then send the request again", answer.json()["message"]), answer.text
        assert [one["event_id"] for one in stored(url)] == ["first"]
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert ingest(url, *large_batch(0)).json() == {"ingested_count": 1_000, "duplicate_count": 0}
        assert usage(url, calls)["quantity"] == "1001"


# A file that is taken, or damaged


def refused_start(folder: Path, name: str) -> str:
    """What a server says that cannot start on this file."""
    words = [METERPRINT, "serve", "--port", "0", "--db", name]
    done = subprocess.run(words, check=False, cwd=folder, env=CLEAN, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


def test_a_second_server_on_the_same_file_ends_with_a_message_and_the_first_goes_on(tmp_path: Path) -> None:
    with running("serve", "--port", "0", "--db", "ledger.db", cwd=tmp_path) as (_, url):
        assert ingest(url, event("first")).status_code == 200
        said = refused_start(tmp_path, "ledger.db")
        assert said == "error: ledger.db is in use by another process: end that one, or name another file with --db\n"
        assert ingest(url, event("second")).json() == {"ingested_count": 1, "duplicate_count": 0}
        assert health(url) == 2


def filled(path: Path) -> None:
    with closing(SQLiteStore(path)) as store, Server(create_app(store)) as server:
        assert ingest(server.url, *large_batch(0)).status_code == 200


def overwrite(path: Path, start: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(data)


def set_version(path: Path, version: int) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {version}")


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_text("not a database, but long enough to be read as one\n" * 100),
        lambda path: overwrite(path, 100, b"\xff" * 3_000),
        lambda path: overwrite(path, 0, bytes(4_096)),
        lambda path: os.truncate(path, 5_000),
        lambda path: os.truncate(path, 50),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: set_version(path, 99),
        lambda path: set_version(path, -1),
    ],
    ids=["text", "first page", "zeros", "cut", "cut within the header", "folder", "newer", "no version of ours"],
)
def test_a_file_that_cannot_be_used_ends_the_start_with_a_message_that_names_it(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    filled(path := tmp_path / "ledger.db")
    damage(path)
    said = refused_start(tmp_path, "ledger.db")
    assert re.fullmatch(r"error: ledger\.db .*name another file( with --db)?\n", said)


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE users (name TEXT)")
    before = path.read_bytes()
    said = refused_start(tmp_path, "app.db")
    assert re.fullmatch(r"error: app\.db .*name another file( with --db)?\n", said)
    assert path.read_bytes() == before


def test_damage_that_shows_only_later_is_answered_by_name(tmp_path: Path) -> None:
    filled(path := tmp_path / "ledger.db")
    overwrite(path, 4_096 * 30, b"\xff" * 4_096 * 50)
    with closing(SQLiteStore(path)) as store, Server(create_app(store)) as server:
        for _ in range(2):
            answer = ask("GET", f"{server.url}/events?page_size=100&page_number=5")
            assert (answer.status_code, answer.json()["code"]) == (503, "INTERNAL_SERVER_ERROR")
            assert "the database file is damaged: stop the server, and move the file away" in answer.json()["message"]
        assert ask("GET", f"{server.url}/meters").status_code == 200


# Started and stopped


def test_a_start_takes_until_its_first_answer(
    tmp_path: Path, record_testsuite_property: Callable[[str, object], None]
) -> None:
    start = time.perf_counter()
    with running("serve", "--port", "0", "--db", "ledger.db", cwd=tmp_path) as (_, url):
        assert health(url) == 0
        record_testsuite_property("seconds until the first answer", round(time.perf_counter() - start, 3))


def ended_cleanly(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_it_stops_cleanly_while_a_dashboard_and_clients_are_connected(tmp_path: Path, number: signal.Signals) -> None:
    with (
        running("serve", "--port", "0", "--db", "ledger.db", cwd=tmp_path) as (process, url),
        httpx.Client(base_url=url, headers=HEADERS) as client,
        client.stream("GET", "/local/stream") as stream,
    ):
        lines = stream.iter_lines()
        assert next(lines) == "event: hello"
        assert client.post("/events/ingest", json={"events": [event("first")]}).status_code == 200
        process.send_signal(number)
        ended_cleanly(process)
        assert "event: stored" in list(lines)
    with closing(SQLiteStore(tmp_path / "ledger.db")) as store:
        assert store.count_events() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.db"]  # the journal is within it


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_it_stops_cleanly_as_soon_as_it_has_shown_its_address(tmp_path: Path, number: signal.Signals) -> None:
    for _ in range(3):
        with running("serve", "--port", "0", "--db", "ledger.db", cwd=tmp_path) as (process, _):
            process.send_signal(number)
            ended_cleanly(process)


def await_its_answer(url: str) -> None:
    with suppress(httpx.TransportError):
        ingest(url, event("first"))


def test_it_stops_cleanly_while_a_request_hangs(tmp_path: Path) -> None:
    with running("serve", "--port", "0", "--db", "ledger.db", cwd=tmp_path) as (process, url):
        assert ask("POST", f"{url}/local/faults", json={"kind": "hang", "seconds": 60}).status_code == 200
        waiting = threading.Thread(target=await_its_answer, args=[url])
        waiting.start()
        while ask("GET", f"{url}/local/faults").json()["pending"]:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        ended_cleanly(process)
        waiting.join()


def test_it_stops_cleanly_while_bodies_and_headers_are_on_their_way(tmp_path: Path) -> None:
    with (
        running("serve", "--port", "0", "--db", "ledger.db", cwd=tmp_path) as (process, url),
        socket.create_connection(("127.0.0.1", urlsplit(url).port or 0)) as body,
        socket.create_connection(("127.0.0.1", urlsplit(url).port or 0)) as headers,
    ):
        body.sendall(
            b"POST /events/ingest HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer k\r\n"
            b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        headers.sendall(b"GET /local/health HTTP/1.1\r\nHost: loc")
        assert health(url) == 0
        process.send_signal(signal.SIGINT)
        ended_cleanly(process)


# Memory


def memory(process: subprocess.Popen[str]) -> int:
    """Bytes of memory that the process has in use."""
    (kilobytes,) = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    return int(kilobytes) * 1024


def test_memory_grows_by_no_more_than_the_cached_file_while_events_come(tmp_path: Path) -> None:
    """SQLite keeps up to 200 MB of the file in memory: what grows beyond the file was kept by mistake."""
    with (
        running("serve", "--port", "0", "--db", "ledger.db", cwd=tmp_path) as (process, url),
        httpx.Client(base_url=url, headers=HEADERS, timeout=30, verify=False) as client,
    ):
        create_meters(url)
        used: list[int] = []
        for number in range(200):
            events = [event(f"{number}-{n}", tokens=n, model="small", region="eu-north-1") for n in range(1_000)]
            assert client.post("/events/ingest", json={"events": events}).status_code == 200
            if number in (49, 199):
                used.append(memory(process) - sum(path.stat().st_size for path in tmp_path.iterdir()))
        assert health(url) == 200_000
    assert used[1] - used[0] < 30_000_000


def test_memory_stays_the_same_while_the_same_events_come_again(tmp_path: Path) -> None:
    with (
        running("serve", "--port", "0", "--db", "ledger.db", cwd=tmp_path) as (process, url),
        httpx.Client(base_url=url, headers=HEADERS, timeout=30, verify=False) as client,
    ):
        body = json.dumps({"events": large_batch(0)}).encode()
        wrong = json.dumps({"events": [event(f"e{n}", tokens=None) for n in range(200)]}).encode()
        used: list[int] = []
        for number in range(130):
            assert client.post("/events/ingest", content=body, headers=JSON).status_code == 200
            assert client.post("/events/ingest", content=wrong, headers=JSON).status_code == 400
            if number in (104, 129):  # the latest 100 refusals are kept
                used.append(memory(process))
    assert used[1] - used[0] < 10_000_000
