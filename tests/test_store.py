"""Both stores and a plain model, side by side: the same answers, whatever is asked."""

import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from meterprint import Aggregation, Condition, ConfigurationError, Event, Filter, Meter
from meterprint.event import micros
from meterprint.local import usage
from meterprint.local.sqlite import SQLiteStore
from meterprint.local.store import MemoryStore, Record, Selection, Store, StoredMeter, StoreError
from meterprint.meter import AggregationType

NOW = datetime(2026, 11, 24, 22, 30, tzinfo=UTC)
LEDGERS = ["one", "two"]

ledgers = st.sampled_from(LEDGERS)
names = st.sampled_from(["a", "b", "\u00e5/%_"])
# Around hours and midnight, to the microsecond.
moments = st.builds(
    lambda hours, micro: NOW.replace(minute=0) + timedelta(hours=hours, microseconds=micro),
    st.integers(-30, 30),
    st.integers(-1, 1),
)
times = st.none() | moments.map(micros)
values = st.one_of(
    st.integers(-3, 3), st.booleans(), st.just(0.1), st.floats(allow_nan=False, allow_infinity=False), names
)
metadata = st.dictionaries(st.sampled_from("kl"), values)
records = st.builds(Event, st.sampled_from([f"id{n}" for n in range(40)]), names, names, moments, metadata).map(
    Record.of
)
batches = st.lists(records, min_size=1, max_size=12, unique_by=lambda record: record.event_id)
selections = st.builds(Selection, st.none() | names, st.none() | names, times, times)
filters = st.none() | st.builds(
    lambda operator, value: Filter("and", (Condition("l", operator, value),)),
    st.sampled_from(["equals", "not_equals"]),
    values,
)
meters = st.builds(
    lambda name, kind, rules: Meter("M", name, Aggregation(kind, None if kind == "count" else "k"), "x", rules),
    names,
    st.sampled_from(get_args(AggregationType)),
    filters,
)


class Model:
    """What a store does, said as plainly as possible."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Record]] = []
        self.meters: list[tuple[str, StoredMeter]] = []
        self.subscriptions: dict[tuple[str, str], Any] = {}

    def add(self, ledger: str, batch: list[Record]) -> list[str]:
        known = {record.event_id for owner, record in self.events if owner == ledger}
        self.events += [(ledger, record) for record in batch if record.event_id not in known]
        return [record.event_id for record in batch if record.event_id in known]

    def select(self, ledger: str, wanted: Selection, newest_first: bool) -> list[Record]:
        found = [record for owner, record in self.events if owner == ledger]
        if wanted.customer_id is not None:
            found = [record for record in found if record.customer_id == wanted.customer_id]
        if wanted.event_name is not None:
            found = [record for record in found if record.event_name == wanted.event_name]
        if wanted.start is not None:
            found = [record for record in found if record.timestamp >= wanted.start]
        if wanted.end is not None:
            found = [record for record in found if record.timestamp < wanted.end]
        if not newest_first:
            return found
        by_id = sorted(found, key=lambda record: record.event_id)
        return sorted(by_id, key=lambda record: record.timestamp, reverse=True)


class Stores(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name, "deep", "ledger.db")
        self.model = Model()
        self.memory: Store = MemoryStore()
        self.sqlite: Store = SQLiteStore(self.path)

    def same(self, ask: Callable[[Store], Any]) -> Any:
        answers = [ask(store) for store in (self.memory, self.sqlite)]
        assert answers[0] == answers[1]
        return answers[0]

    @rule(ledger=ledgers, batch=batches)
    def add(self, ledger: str, batch: list[Record]) -> None:
        assert self.same(lambda store: list(store.add_events(ledger, batch))) == self.model.add(ledger, batch)

    @rule(ledger=ledgers, wanted=selections, newest_first=st.booleans())
    def select(self, ledger: str, wanted: Selection, newest_first: bool) -> None:
        found = self.same(lambda store: [r.event() for r in store.records(ledger, wanted, newest_first=newest_first)])
        assert found == [record.event() for record in self.model.select(ledger, wanted, newest_first)]

    @rule(ledger=ledgers, event_id=st.sampled_from(["id0", "id1", "none"]))
    def one(self, ledger: str, event_id: str) -> None:
        found = self.same(lambda store: (r := store.record(ledger, event_id)) and r.event())
        expected = [
            record.event() for owner, record in self.model.events if (owner, record.event_id) == (ledger, event_id)
        ]
        assert found == (expected[0] if expected else None)

    @rule(ledger=ledgers, number=st.integers(0, 3), archived=st.booleans(), meter=meters)
    def put_meter(self, ledger: str, number: int, archived: bool, meter: Meter) -> None:
        key = f"mtr_{ledger}_{number}"
        known = [stored.meter for owner, stored in self.model.meters if stored.meter.id == key]
        # What a meter counts never changes.
        meter = replace((known or [meter])[0], id=key, name=str(archived))
        stored = StoredMeter(meter, NOW, NOW + timedelta(days=number), archived)
        for store in (self.memory, self.sqlite):
            store.put_meter(ledger, stored)
        places = [index for index, (_, other) in enumerate(self.model.meters) if other.meter.id == key]
        if places:
            self.model.meters[places[0]] = (ledger, stored)
        else:
            self.model.meters.append((ledger, stored))

    @rule(ledger=ledgers)
    def list_meters(self, ledger: str) -> None:
        found = self.same(lambda store: list(store.meters(ledger)))
        assert found == [stored for owner, stored in self.model.meters if owner == ledger]
        expected_ids = [stored.meter.id for owner, stored in self.model.meters if owner == ledger]
        assert [stored.meter.id for stored in found] == expected_ids

    @rule(ledger=ledgers, wanted=selections, window=st.sampled_from([None, "hour", "day"]))
    def read_meters(self, ledger: str, wanted: Selection, window: str | None) -> None:
        question = usage.Question(replace(wanted, event_name=None), window, per_customer=window is not None)
        for owner, stored in self.model.meters:
            if owner != ledger:
                continue
            ask = partial(usage.read, ledger=ledger, meter=stored.meter, question=question)
            reading = self.same(ask)
            counted = [record.event() for record in self.model.select(ledger, question.selection, newest_first=False)]
            assert reading.quantity == stored.meter.measure(counted)
            for customer_id, quantity in reading.customers.items():
                own = [event for event in counted if event.customer_id == customer_id]
                assert quantity == stored.meter.measure(own)

    @rule(limit=st.integers(1, 5))
    def catch_up(self, limit: int) -> None:
        self.sqlite.catch_up(limit)

    @rule(ledger=ledgers, number=st.integers(0, 1), definition=st.dictionaries(names, names))
    def put_subscription(self, ledger: str, number: int, definition: dict[str, str]) -> None:
        for store in (self.memory, self.sqlite):
            store.put_subscription(ledger, str(number), definition)
        self.model.subscriptions[ledger, str(number)] = definition

    @rule(ledger=ledgers, number=st.integers(0, 1))
    def read_subscription(self, ledger: str, number: int) -> None:
        found = self.same(lambda store: store.subscription(ledger, str(number)))
        assert found == self.model.subscriptions.get((ledger, str(number)))

    @rule(ledger=ledgers)
    def reset(self, ledger: str) -> None:
        for store in (self.memory, self.sqlite):
            store.reset(ledger)
        self.model.events = [(owner, record) for owner, record in self.model.events if owner != ledger]
        self.model.meters = [(owner, stored) for owner, stored in self.model.meters if owner != ledger]
        self.model.subscriptions = {key: kept for key, kept in self.model.subscriptions.items() if key[0] != ledger}

    @rule()
    def reopen(self) -> None:
        self.sqlite.close()
        self.sqlite = SQLiteStore(self.path)

    @invariant()
    def counts(self) -> None:
        assert self.same(lambda store: store.count_events()) == len(self.model.events)

    def teardown(self) -> None:
        self.memory.close()
        self.sqlite.close()
        self.folder.cleanup()


TestStores = Stores.TestCase
TestStores.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def record(event_id: str, **changes: Any) -> Record:
    return Record.of(replace(Event(event_id, "cus_ada", "n", NOW), **changes))


def ids(store: Store, ledger: str = "one") -> list[str]:
    return [found.event_id for found in store.records(ledger, Selection())]


def test_an_error_of_the_database_leaves_nothing_and_the_store_usable(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    SQLiteStore(path).close()
    with sqlite3.connect(path) as db:
        db.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON events WHEN new.event_id = 'e2'"
            " BEGIN SELECT raise(ABORT, 'on purpose'); END"
        )
    db.close()
    store = SQLiteStore(path)
    with pytest.raises(StoreError, match="on purpose"):
        store.add_events("one", [record("e1"), record("e2")])
    assert ids(store) == []
    assert list(store.add_events("one", [record("e1"), record("e3")])) == []
    assert ids(store) == ["e1", "e3"]
    store.close()


def test_a_full_disk_is_named_and_leaves_nothing_of_the_request(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "ledger.db")
    store.add_events("one", [record("e0")])
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count={pages + 5}")
    with pytest.raises(StoreError, match="the disk is full: free some space, then send the request again"):
        store.add_events("one", [record(f"e{n}", metadata={"k": "x" * 400}) for n in range(1, 1001)])
    assert ids(store) == ["e0"]
    store._db.execute("PRAGMA max_page_count=1000000")
    assert list(store.add_events("one", [record("e1")])) == []
    store.close()


def test_a_file_that_is_damaged_while_it_is_open_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    store = SQLiteStore(path)
    for batch in range(20):
        store.add_events("one", [record(f"{batch}-{n}") for n in range(1000)])
    store.close()
    with path.open("r+b") as file:
        file.seek(4096 * 10)
        file.write(b"\xff" * 4096 * 200)
    store = SQLiteStore(path)
    with pytest.raises(StoreError, match="the database file is damaged: stop the server, and move the file away"):
        ids(store)
    store.close()


def test_a_second_process_is_refused_the_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    store = SQLiteStore(path)
    store.add_events("one", [record("e1")])
    program = (
        "import sys; from pathlib import Path; from meterprint.local.sqlite import SQLiteStore\n"
        "from meterprint import ConfigurationError\n"
        "try: SQLiteStore(Path(sys.argv[1]))\n"
        "except ConfigurationError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True)
    assert "is in use by another process: end that one, or name another file" in done.stdout
    assert list(store.add_events("one", [record("e2")])) == []
    store.close()


VERSION_1 = """
CREATE TABLE events (arrival INTEGER PRIMARY KEY, ledger TEXT NOT NULL, event_id TEXT NOT NULL,
    customer_id TEXT NOT NULL, event_name TEXT NOT NULL, timestamp INTEGER NOT NULL, metadata TEXT NOT NULL,
    UNIQUE (ledger, event_id));
CREATE INDEX events_by_time ON events (ledger, timestamp);
CREATE TABLE meters (created INTEGER PRIMARY KEY, ledger TEXT NOT NULL, id TEXT NOT NULL UNIQUE,
    definition TEXT NOT NULL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL, archived INTEGER NOT NULL);
INSERT INTO events VALUES (1, 'two', 'e1', 'cus_bo', 'n', 1795559400000000, '{"k":1.5}');
INSERT INTO events VALUES (3, 'one', 'e1', 'cus_ada', 'n', 1795559400000001, '{"k":2}');
INSERT INTO events VALUES (4, 'one', 'e2', 'cus_ada', 'n', 1795559400000000, '{}');
INSERT INTO meters VALUES (1, 'one', 'mtr_1', '{"name":"M","event_name":"n","aggregation":{"type":"sum","key":"k"},
    "measurement_unit":"x","filter":null,"description":null}', '2026-11-24T09:30:00.000000Z',
    '2026-11-24T09:30:00.000000Z', 1);
PRAGMA user_version = 1;
"""


def test_a_file_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with sqlite3.connect(path) as db:
        db.executescript(VERSION_1)
    db.close()
    for _ in range(2):  # the second time, nothing is left to do
        store = SQLiteStore(path)
        assert ids(store) == ["e1", "e2"]
        assert ids(store, "two") == ["e1"]
        (stored,) = store.meters("one")
        assert (stored.meter.name, stored.archived) == ("M", True)
        reading = usage.read(store, "one", stored.meter, usage.Question(Selection()))
        assert reading.customers == {"cus_ada": 2}
        assert list(store.add_events("one", [record("e1")])) == ["e1"]
        store.close()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be read as one\n" * 100)
    with pytest.raises(ConfigurationError, match="notes.txt cannot be used as a database"):
        SQLiteStore(path)


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be used as a database.*name another file"):
        SQLiteStore(tmp_path)


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    SQLiteStore(path).close()
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(ConfigurationError, match="was made by a newer version: update meterprint"):
        SQLiteStore(path)


def test_the_file_is_in_wal_mode(tmp_path: Path) -> None:
    SQLiteStore(tmp_path / "ledger.db").close()
    with sqlite3.connect(tmp_path / "ledger.db") as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()
