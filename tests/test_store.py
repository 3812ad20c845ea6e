"""Both stores and a plain model, side by side: the same answers, whatever is asked."""

import sqlite3
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from meterprint import Aggregation, ConfigurationError, Event, Meter
from meterprint.local.store import MemoryStore, Selection, SQLiteStore, Store, StoredMeter

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
LEDGERS = ["one", "two"]
METER = Meter("M", "n", Aggregation("count"), "x", id="mtr_1")

ledgers = st.sampled_from(LEDGERS)
names = st.sampled_from(["a", "b", "å/%_"])
moments = st.integers(-3, 3).map(lambda number: NOW + timedelta(microseconds=number))
metadata = st.dictionaries(st.sampled_from("kl"), st.one_of(st.integers(), st.booleans(), st.just(0.1), names))
events = st.builds(Event, st.sampled_from([f"id{n}" for n in range(12)]), names, names, moments, metadata)
batches = st.lists(events, max_size=6, unique_by=lambda event: event.event_id)
selections = st.builds(
    Selection, st.none() | names, st.none() | names, start=st.none() | moments, end=st.none() | moments
)


class Model:
    """What a store does, said as plainly as possible."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Event]] = []
        self.meters: list[tuple[str, StoredMeter]] = []

    def add(self, ledger: str, batch: list[Event]) -> int:
        known = {event.event_id for owner, event in self.events if owner == ledger}
        fresh = [(ledger, event) for event in batch if event.event_id not in known]
        self.events += fresh
        return len(fresh)

    def select(self, ledger: str, wanted: Selection, by_arrival: bool) -> list[Event]:
        found = [event for owner, event in self.events if owner == ledger]
        if wanted.customer_id is not None:
            found = [event for event in found if event.customer_id == wanted.customer_id]
        if wanted.event_name is not None:
            found = [event for event in found if event.event_name == wanted.event_name]
        if wanted.start is not None:
            found = [event for event in found if event.timestamp >= wanted.start]
        if wanted.end is not None:
            found = [event for event in found if event.timestamp < wanted.end]
        if by_arrival:
            return found
        by_id = sorted(found, key=lambda event: event.event_id)
        return sorted(by_id, key=lambda event: event.timestamp, reverse=True)


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
    def add(self, ledger: str, batch: list[Event]) -> None:
        assert self.same(lambda store: store.add_events(ledger, batch)) == self.model.add(ledger, batch)

    @rule(ledger=ledgers, wanted=selections, by_arrival=st.booleans())
    def select(self, ledger: str, wanted: Selection, by_arrival: bool) -> None:
        found = self.same(lambda store: list(store.events(ledger, wanted, by_arrival=by_arrival)))
        assert found == self.model.select(ledger, wanted, by_arrival)

    @rule(ledger=ledgers, event_id=st.sampled_from(["id0", "id1", "none"]))
    def one(self, ledger: str, event_id: str) -> None:
        found = self.same(lambda store: store.event(ledger, event_id))
        expected = [event for owner, event in self.model.events if (owner, event.event_id) == (ledger, event_id)]
        assert found == (expected[0] if expected else None)

    @rule(ledger=ledgers, number=st.integers(0, 3), archived=st.booleans())
    def put_meter(self, ledger: str, number: int, archived: bool) -> None:
        key = f"mtr_{ledger}_{number}"
        stored = StoredMeter(replace(METER, id=key, name=str(archived)), NOW, NOW + timedelta(days=number), archived)
        for store in (self.memory, self.sqlite):
            store.put_meter(ledger, stored)
        places = [index for index, (_, other) in enumerate(self.model.meters) if other.meter.id == key]
        if places:
            self.model.meters[places[0]] = (ledger, stored)
        else:
            self.model.meters.append((ledger, stored))

    @rule(ledger=ledgers)
    def meters(self, ledger: str) -> None:
        found = self.same(lambda store: store.meters(ledger))
        assert found == [stored for owner, stored in self.model.meters if owner == ledger]
        expected_ids = [stored.meter.id for owner, stored in self.model.meters if owner == ledger]
        assert [stored.meter.id for stored in found] == expected_ids

    @rule(ledger=ledgers)
    def reset(self, ledger: str) -> None:
        for store in (self.memory, self.sqlite):
            store.reset(ledger)
        self.model.events = [(owner, event) for owner, event in self.model.events if owner != ledger]
        self.model.meters = [(owner, stored) for owner, stored in self.model.meters if owner != ledger]

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


def event(event_id: str) -> Event:
    return Event(event_id, "cus_ada", "n", NOW)


def test_a_batch_that_breaks_in_the_middle_leaves_nothing(store: Store) -> None:
    broken = [event("e1"), object(), event("e2")]
    with pytest.raises(AttributeError):
        store.add_events("one", broken)  # type: ignore[arg-type]
    assert list(store.events("one", Selection())) == []
    assert store.add_events("one", [event("e1")]) == 1


def test_an_error_of_the_database_leaves_nothing_and_the_store_usable(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "ledger.db")
    other = sqlite3.connect(tmp_path / "ledger.db")
    other.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON events WHEN new.event_id = 'e2'"
        " BEGIN SELECT raise(ABORT, 'on purpose'); END"
    )
    with pytest.raises(sqlite3.IntegrityError, match="on purpose"):
        store.add_events("one", [event("e1"), event("e2")])
    assert list(store.events("one", Selection())) == []
    other.execute("DROP TRIGGER refuse")
    assert store.add_events("one", [event("e1"), event("e2")]) == 2
    other.close()
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
