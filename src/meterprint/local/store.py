"""Where the local metering API keeps events and meters: in memory, or in one SQLite file."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from ..errors import ConfigurationError
from ..event import Event, format_timestamp, parse_timestamp
from ..meter import Meter

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SCHEMA_VERSION = 1
# A rowid in the order of arrival, and one index for the order of listings: the layout that takes the
# most events per second (benchmarks/ingest.py).
_SCHEMA = """
CREATE TABLE events (
    arrival INTEGER PRIMARY KEY,
    ledger TEXT NOT NULL,
    event_id TEXT NOT NULL,
    customer_id TEXT NOT NULL,
    event_name TEXT NOT NULL,
    timestamp INTEGER NOT NULL,  -- microseconds since 1970
    metadata TEXT NOT NULL,
    UNIQUE (ledger, event_id)
);
CREATE INDEX events_by_time ON events (ledger, timestamp);
CREATE TABLE meters (
    created INTEGER PRIMARY KEY,
    ledger TEXT NOT NULL,
    id TEXT NOT NULL UNIQUE,
    definition TEXT NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    archived INTEGER NOT NULL
);
"""
_COLUMNS = "event_id, customer_id, event_name, timestamp, metadata"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events of a ledger: None takes all. `start` is inclusive, `end` exclusive."""

    customer_id: str | None = None
    event_name: str | None = None
    start: datetime | None = None
    end: datetime | None = None

    def takes(self, event: Event) -> bool:
        """Whether the event is one of them."""
        return (
            (self.customer_id is None or event.customer_id == self.customer_id)
            and (self.event_name is None or event.event_name == self.event_name)
            and (self.start is None or event.timestamp >= self.start)
            and (self.end is None or event.timestamp < self.end)
        )


@dataclass(frozen=True, slots=True)
class StoredMeter:
    """A meter with its id, and what a store knows of it besides."""

    meter: Meter
    created_at: datetime
    updated_at: datetime
    archived: bool = False


class Store(Protocol):
    """Ledgers of events and meters; one ledger never sees another."""

    def add_events(self, ledger: str, events: Sequence[Event]) -> int:
        """Store those whose id is new, all at once; returns how many that were."""
        ...

    def event(self, ledger: str, event_id: str) -> Event | None:
        """The event with this id."""
        ...

    def events(self, ledger: str, selection: Selection, *, by_arrival: bool = False) -> Iterator[Event]:
        """Those selected: newest first, then by event id; or in the order of arrival."""
        ...

    def count_events(self) -> int:
        """How many events there are in all ledgers."""
        ...

    def put_meter(self, ledger: str, stored: StoredMeter) -> None:
        """Store a meter, or replace the one with its id."""
        ...

    def meters(self, ledger: str) -> list[StoredMeter]:
        """All meters, archived ones too, in the order of their creation."""
        ...

    def reset(self, ledger: str) -> None:
        """Empty a ledger."""
        ...

    def close(self) -> None:
        """Release what is held."""
        ...


@dataclass(slots=True)
class _Ledger:
    events: dict[str, Event] = field(default_factory=dict[str, Event])
    meters: dict[str, StoredMeter] = field(default_factory=dict[str, StoredMeter])


class MemoryStore:
    """A `Store` that ends with its process."""

    def __init__(self) -> None:
        self._ledgers: defaultdict[str, _Ledger] = defaultdict(_Ledger)

    def add_events(self, ledger: str, events: Sequence[Event]) -> int:
        stored = self._ledgers[ledger].events
        fresh: dict[str, Event] = {}
        for event in events:
            if event.event_id not in stored:
                fresh.setdefault(event.event_id, event)
        stored.update(fresh)
        return len(fresh)

    def event(self, ledger: str, event_id: str) -> Event | None:
        return self._ledgers[ledger].events.get(event_id)

    def events(self, ledger: str, selection: Selection, *, by_arrival: bool = False) -> Iterator[Event]:
        chosen = [event for event in self._ledgers[ledger].events.values() if selection.takes(event)]
        if not by_arrival:
            chosen.sort(key=lambda event: (_EPOCH - event.timestamp, event.event_id))
        return iter(chosen)

    def count_events(self) -> int:
        return sum(len(ledger.events) for ledger in self._ledgers.values())

    def put_meter(self, ledger: str, stored: StoredMeter) -> None:
        self._ledgers[ledger].meters[stored.meter.id or ""] = stored

    def meters(self, ledger: str) -> list[StoredMeter]:
        return list(self._ledgers[ledger].meters.values())

    def reset(self, ledger: str) -> None:
        self._ledgers.pop(ledger, None)

    def close(self) -> None:
        self._ledgers.clear()


class SQLiteStore:
    """A `Store` in one SQLite file, in WAL mode: what was acknowledged survives a killed process.

    Args:
        path: The file; it and its folder are made when missing.

    Raises:
        ConfigurationError: The file cannot be opened, is no database, or was made by a newer version.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            try:
                self._prepare(path)
            except BaseException:
                self._db.close()
                raise
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(f"{path} cannot be used as a database ({error}): name another file") from error

    def _prepare(self, path: Path) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "cache_size=-200000", "wal_autocheckpoint=10000"):
            self._db.execute(f"PRAGMA {pragma}")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={_SCHEMA_VERSION}; COMMIT;")
        elif version != _SCHEMA_VERSION:
            raise ConfigurationError(f"{path} was made by a newer version: update meterprint, or name another file")

    def add_events(self, ledger: str, events: Sequence[Event]) -> int:
        rows = [
            (ledger, e.event_id, e.customer_id, e.event_name, _micros(e.timestamp), _json(e.metadata)) for e in events
        ]
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            return self._db.executemany(
                f"INSERT INTO events (ledger, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", rows
            ).rowcount

    def event(self, ledger: str, event_id: str) -> Event | None:
        query = f"SELECT {_COLUMNS} FROM events WHERE ledger = ? AND event_id = ?"
        row = self._db.execute(query, (ledger, event_id)).fetchone()
        return row and _event(row)

    def events(self, ledger: str, selection: Selection, *, by_arrival: bool = False) -> Iterator[Event]:
        conditions: dict[str, Any] = {
            "ledger = ?": ledger,
            "customer_id = ?": selection.customer_id,
            "event_name = ?": selection.event_name,
            "timestamp >= ?": selection.start and _micros(selection.start),
            "timestamp < ?": selection.end and _micros(selection.end),
        }
        given = {condition: value for condition, value in conditions.items() if value is not None}
        order = "arrival" if by_arrival else "timestamp DESC, event_id"
        query = f"SELECT {_COLUMNS} FROM events WHERE {' AND '.join(given)} ORDER BY {order}"
        return map(_event, self._db.execute(query, tuple(given.values())))

    def count_events(self) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM events").fetchone()
        return int(count)

    def put_meter(self, ledger: str, stored: StoredMeter) -> None:
        meter = stored.meter
        times = (format_timestamp(stored.created_at), format_timestamp(stored.updated_at))
        self._db.execute(
            "INSERT INTO meters (ledger, id, definition, created_at, updated_at, archived) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET definition = excluded.definition, updated_at = excluded.updated_at,"
            " archived = excluded.archived",
            (ledger, meter.id, _json(meter.to_wire()), *times, stored.archived),
        )

    def meters(self, ledger: str) -> list[StoredMeter]:
        query = "SELECT id, definition, created_at, updated_at, archived FROM meters WHERE ledger = ? ORDER BY created"
        return [
            StoredMeter(
                replace(Meter.from_wire(json.loads(definition)), id=meter_id),
                parse_timestamp(created_at),
                parse_timestamp(updated_at),
                bool(archived),
            )
            for meter_id, definition, created_at, updated_at, archived in self._db.execute(query, (ledger,))
        ]

    def reset(self, ledger: str) -> None:
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM events WHERE ledger = ?", (ledger,))
            self._db.execute("DELETE FROM meters WHERE ledger = ?", (ledger,))

    def close(self) -> None:
        self._db.close()


def _micros(value: datetime) -> int:
    return (value - _EPOCH) // _MICROSECOND


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _event(row: tuple[str, str, str, int, str]) -> Event:
    event_id, customer_id, event_name, timestamp, metadata = row
    return Event(event_id, customer_id, event_name, _EPOCH + timestamp * _MICROSECOND, json.loads(metadata))
