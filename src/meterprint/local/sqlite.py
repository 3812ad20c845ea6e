"""A store in one SQLite file: what was acknowledged survives a killed process, and readings stay fast.

An ingest only writes its rows. What readings need, each meter's totals by customer, hour and day, follows in idle
moments (`catch_up`), or at the latest when a meter is read.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache, reduce
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from ..errors import ConfigurationError
from ..event import MetadataValue, format_timestamp, parse_timestamp
from ..meter import Amount, Meter, remembered
from .store import HOUR, LENGTHS, Record, Selection, Span, StoredMeter, StoreError, Total

_SCHEMA_VERSION = 2
# A rowid in the order of arrival, and the id before the ledger in the unique index: the layout that takes the most
# events per second (benchmarks/ingest.py).
_SCHEMA = """
CREATE TABLE ledgers (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE events (
    arrival INTEGER PRIMARY KEY,
    ledger INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    customer_id TEXT NOT NULL,
    event_name TEXT NOT NULL,
    timestamp INTEGER NOT NULL,  -- microseconds since 1970
    metadata TEXT NOT NULL,
    UNIQUE (event_id, ledger)
);
CREATE INDEX events_by_time ON events (ledger, timestamp);
CREATE TABLE meters (
    number INTEGER PRIMARY KEY,
    ledger INTEGER NOT NULL,
    id TEXT NOT NULL UNIQUE,
    definition TEXT NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    archived INTEGER NOT NULL,
    totalled INTEGER NOT NULL DEFAULT 0  -- the last arrival that its totals hold
);
CREATE TABLE totals (
    meter INTEGER NOT NULL,
    span INTEGER NOT NULL,  -- microseconds: an hour, or a day
    customer_id TEXT NOT NULL,
    start INTEGER NOT NULL,
    quantity TEXT NOT NULL,
    at INTEGER NOT NULL,
    arrival INTEGER NOT NULL,
    PRIMARY KEY (meter, span, start, customer_id)  -- by time: new totals stand together
) WITHOUT ROWID;
CREATE TABLE subscriptions (
    ledger INTEGER NOT NULL,
    id TEXT NOT NULL,
    definition TEXT NOT NULL,
    PRIMARY KEY (ledger, id)
);
"""
# What turns a file of an older version into one of the next.
_MIGRATIONS = {
    1: f"""
DROP INDEX events_by_time;
ALTER TABLE events RENAME TO old_events;
ALTER TABLE meters RENAME TO old_meters;
{_SCHEMA}
INSERT INTO ledgers (name) SELECT ledger FROM old_events UNION SELECT ledger FROM old_meters;
INSERT INTO events SELECT arrival, ledgers.id, event_id, customer_id, event_name, timestamp, metadata
    FROM old_events JOIN ledgers ON ledgers.name = old_events.ledger ORDER BY arrival;
INSERT INTO meters SELECT created, ledgers.id, old_meters.id, definition, created_at, updated_at, archived, 0
    FROM old_meters JOIN ledgers ON ledgers.name = old_meters.ledger;
DROP TABLE old_events;
DROP TABLE old_meters;
"""
}
_COLUMNS = "event_id, customer_id, event_name, timestamp, metadata"
_read_metadata = msgspec.json.Decoder(dict[str, str | bool | int | float]).decode
_Row: TypeAlias = tuple[int, str, str, int, Mapping[str, MetadataValue]]  # arrival, name, customer, time, metadata
_stored_columns = itemgetter(slice(0, 5))
_ADVICE = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space, then send the request again",
    sqlite3.SQLITE_IOERR: "the disk cannot be used: check its space, quota and health, then send the request again",
    sqlite3.SQLITE_BUSY: "another program is using the database: end it, then send the request again",
    sqlite3.SQLITE_CORRUPT: "the database file is damaged: stop the server, and move the file away or restore a copy",
    sqlite3.SQLITE_NOTADB: "the file is no database: stop the server, and move the file away or restore a copy",
    sqlite3.SQLITE_READONLY: "the database file may not be written: check its permissions",
}


@dataclass(slots=True)
class _Metered:
    """A meter, its number in the file, and the last arrival that its totals hold."""

    number: int
    stored: StoredMeter
    totalled: int


class SQLiteStore:
    """A `Store` in one SQLite file, which no second process may open meanwhile.

    WAL mode with `synchronous=NORMAL`: a killed process loses nothing that was acknowledged; a power cut may lose
    the last moments, but never half a request.

    Args:
        path: The file; it and its folder are made when missing, and an older version's is brought up to date.

    Raises:
        ConfigurationError: The file cannot be opened, is in use, is no database, or was made by a newer version.
    """

    def __init__(self, path: Path) -> None:
        self._ids: dict[str, int] = {}
        self._count: int | None = None  # of all events, once it was asked for
        self._behind: set[int] = set()  # ledgers whose totals may lack events
        self._metered: dict[int, list[_Metered]] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                path, check_same_thread=False, isolation_level=None, timeout=1, cached_statements=32
            )
            try:
                self._prepare(path)
            except BaseException:
                self._db.close()
                raise
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(_cannot_open(path, error)) from error

    def _prepare(self, path: Path) -> None:
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > _SCHEMA_VERSION:
            raise ConfigurationError(f"{path} was made by a newer version: update meterprint, or name another file")
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if version < 0 or (version == 0 and tables) or (version > 0 and "events" not in tables):
            raise ConfigurationError(f"{path} is a database of another program: name another file with --db")
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "cache_size=-200000", "wal_autocheckpoint=10000"):
            self._db.execute(f"PRAGMA {pragma}")
        if version == 0:
            self._upgrade(_SCHEMA)
        for old in range(version or _SCHEMA_VERSION, _SCHEMA_VERSION):
            self._upgrade(_MIGRATIONS[old])
        self._ids.update(self._db.execute("SELECT name, id FROM ledgers"))
        self._behind.update(self._ids.values())

    def _upgrade(self, script: str) -> None:
        self._db.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version={_SCHEMA_VERSION}; COMMIT;")

    def add_events(self, ledger: str, records: Sequence[Record]) -> Sequence[str]:
        number = self._ledger(ledger)
        self._behind.add(number)
        with self._transaction():
            (head,) = self._db.execute("SELECT max(arrival) FROM events").fetchone()
            values = tuple(chain.from_iterable(map(_stored_columns, records)))
            fresh = self._db.execute(_insert(len(records), number), values).rowcount
            new: set[str] = set()
            if fresh < len(records):
                rows = self._db.execute("SELECT event_id FROM events WHERE arrival > ?", (head or 0,))
                new.update(event_id for (event_id,) in rows)
        if self._count is not None:
            self._count += fresh
        return [record.event_id for record in records if record.event_id not in new] if fresh < len(records) else ()

    def record(self, ledger: str, event_id: str) -> Record | None:
        query = f"SELECT {_COLUMNS} FROM events WHERE event_id = ? AND ledger = ?"
        return next((_record(row) for row in self._rows(query, event_id, self._ids.get(ledger))), None)

    def records(self, ledger: str, selection: Selection, *, newest_first: bool = False) -> Iterator[Record]:
        conditions: dict[str, Any] = {
            "ledger = ?": self._ids.get(ledger, -1),
            "customer_id = ?": selection.customer_id,
            "event_name = ?": selection.event_name,
            "timestamp >= ?": selection.start,
            "timestamp < ?": selection.end,
        }
        given = {condition: value for condition, value in conditions.items() if value is not None}
        order = "timestamp DESC, event_id" if newest_first else "arrival"
        query = f"SELECT {_COLUMNS} FROM events WHERE {' AND '.join(given)} ORDER BY {order}"
        return map(_record, self._rows(query, *given.values()))

    def totals(
        self, ledger: str, meter_id: str, span: Span, selection: Selection, *, whole: bool = False
    ) -> Iterable[Total] | None:
        number = self._ids.get(ledger, -1)
        try:
            while self._add_to_totals(number, 20_000):
                pass
        except StoreError:
            return None  # the disk is full, maybe: the events can still be read
        one = next(one for one in self._of(number) if one.stored.meter.id == meter_id)
        return self._totals(one, span, selection, whole)

    def _totals(self, one: _Metered, span: Span, selection: Selection, whole: bool) -> Iterator[Total]:
        conditions: dict[str, Any] = {"meter = ?": one.number, "span = ?": LENGTHS[span]}
        if selection.customer_id is None:
            conditions |= {"start >= ?": selection.start, "start < ?": selection.end}
        else:
            starts = self._starts(one.number, span, selection)
            conditions |= {
                "start IN (SELECT value FROM json_each(?))": starts,
                "customer_id = ?": selection.customer_id,
            }
        given = {condition: value for condition, value in conditions.items() if value is not None}
        aggregation = one.stored.meter.aggregation
        columns, group = "customer_id, start, quantity, at, arrival", ""
        if whole:
            # SQLite takes a bare column from the row that has max(at): with one min or max, not with two.
            quantity = "quantity" if aggregation.type == "last" else "group_concat(quantity)"
            columns, group = f"customer_id, start, {quantity}, max(at), arrival", "GROUP BY customer_id"
        query = f"SELECT {columns} FROM totals WHERE {' AND '.join(given)} {group}"
        for customer_id, start, quantities, at, arrival in self._rows(query, *given.values()):
            amounts = (Amount(Decimal(quantity), at, arrival) for quantity in quantities.split(","))
            yield Total(customer_id, start, reduce(aggregation.merged, amounts))

    def _starts(self, meter: int, span: Span, selection: Selection) -> str:
        """Where spans begin, as JSON: of one customer they are looked up one by one, not found among all others."""
        length = LENGTHS[span]
        found = f"FROM totals WHERE meter = {meter} AND span = {length}"  # two queries: SQLite looks each up at once
        query = f"SELECT ifnull((SELECT min(start) {found}), 0), ifnull((SELECT max(start) {found}), -1)"
        ((first, last),) = self._rows(query)
        if selection.start is not None:
            first = max(first, -(-selection.start // length) * length)
        if selection.end is not None:
            last = min(last, selection.end - 1)
        return json.dumps(list(range(first, last + 1, length)))

    def catch_up(self, limit: int = 1_000) -> bool:
        return any(self._add_to_totals(ledger, limit) for ledger in tuple(self._behind))

    def _add_to_totals(self, ledger: int, limit: int) -> bool:
        """Add the next events to the totals of those meters that lack the most. Whether some lack more."""
        metered = self._of(ledger)
        ((head,),) = self._rows("SELECT ifnull(max(arrival), 0) FROM events")
        low = min((one.totalled for one in metered), default=head)
        if low >= head:
            self._behind.discard(ledger)
            return False
        behind = [one for one in metered if one.totalled == low]
        high = min([low + limit, head, *(one.totalled for one in metered if one.totalled > low)])
        # Not by an index: for each part, the planner would go through all events of the ledger.
        columns = "arrival, event_name, customer_id, timestamp, metadata"
        query = f"SELECT {columns} FROM events NOT INDEXED WHERE arrival > ? AND arrival <= ?"
        rows: list[_Row] = [
            (arrival, name, customer_id, timestamp, _read_metadata(text))
            for arrival, name, customer_id, timestamp, text in self._rows(
                f"{query} AND ledger = ? ORDER BY arrival", low, high, ledger
            )
        ]
        with self._transaction():
            for one in behind:
                hours = _by_hour(one.stored.meter, rows)
                self._merge(one, "hour", hours)
                self._merge(one, "day", _by_day(one.stored.meter, hours))
                self._db.execute("UPDATE meters SET totalled = ? WHERE number = ?", (high, one.number))
        for one in behind:
            one.totalled = high
        return True

    def _merge(self, one: _Metered, span: Span, added: Mapping[tuple[str, int], Amount]) -> None:
        merged = one.stored.meter.aggregation.merged
        key = f"meter = {one.number} AND span = {LENGTHS[span]} AND customer_id = ? AND start = ?"
        rows: list[tuple[str, int, str, int, int]] = []
        for place, amount in added.items():
            found = self._db.execute(f"SELECT quantity, at, arrival FROM totals WHERE {key}", place).fetchone()
            whole = merged(Amount(Decimal(found[0]), *found[1:]), amount) if found else amount
            rows.append((*place, str(whole.quantity), whole.at, whole.arrival))
        values = f"{one.number}, {LENGTHS[span]}, ?, ?, ?, ?, ?"
        self._db.executemany(f"INSERT OR REPLACE INTO totals VALUES ({values})", rows)

    def count_events(self) -> int:
        if self._count is None:
            ((count,),) = self._rows("SELECT count(*) FROM events")
            self._count = int(count)
        return self._count

    def put_meter(self, ledger: str, stored: StoredMeter) -> None:
        meter, number = stored.meter, self._ledger(ledger)
        times = (format_timestamp(stored.created_at), format_timestamp(stored.updated_at))
        with self._transaction():
            self._db.execute(
                "INSERT INTO meters (ledger, id, definition, created_at, updated_at, archived)"
                " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET definition = excluded.definition,"
                " updated_at = excluded.updated_at, archived = excluded.archived",
                (number, meter.id, json.dumps(meter.to_wire()), *times, stored.archived),
            )
        self._metered.pop(number, None)

    def meters(self, ledger: str) -> Sequence[StoredMeter]:
        return [one.stored for one in self._of(self._ids.get(ledger, -1))]

    def _of(self, ledger: int) -> list[_Metered]:
        if ledger not in self._metered:
            query = "SELECT number, id, definition, created_at, updated_at, archived, totalled FROM meters"
            self._metered[ledger] = [
                _Metered(number, _meter(*columns), totalled)
                for number, *columns, totalled in self._rows(f"{query} WHERE ledger = ? ORDER BY number", ledger)
            ]
        return self._metered[ledger]

    def put_subscription(self, ledger: str, subscription_id: str, definition: Mapping[str, Any]) -> None:
        values = (self._ledger(ledger), subscription_id, json.dumps(definition))
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO subscriptions VALUES (?, ?, ?)", values)

    def subscription(self, ledger: str, subscription_id: str) -> Mapping[str, Any] | None:
        query = "SELECT definition FROM subscriptions WHERE ledger = ? AND id = ?"
        return next((json.loads(text) for (text,) in self._rows(query, self._ids.get(ledger), subscription_id)), None)

    def reset(self, ledger: str) -> None:
        number = self._ids.get(ledger, -1)
        with self._transaction():
            self._db.execute(
                "DELETE FROM totals WHERE meter IN (SELECT number FROM meters WHERE ledger = ?)", (number,)
            )
            for table in ("events", "meters", "subscriptions"):
                self._db.execute(f"DELETE FROM {table} WHERE ledger = ?", (number,))
            # The next event takes the first number that is free again: no total may count as beyond it.
            self._db.execute("UPDATE meters SET totalled = min(totalled, (SELECT ifnull(max(arrival), 0) FROM events))")
        self._metered.clear()
        self._count = None

    def close(self) -> None:
        self._db.close()

    def _ledger(self, name: str) -> int:
        """The number of a ledger, which is made when missing."""
        if name not in self._ids:
            with self._transaction():
                self._db.execute("INSERT INTO ledgers (name) VALUES (?) ON CONFLICT DO NOTHING", (name,))
            ((self._ids[name],),) = self._rows("SELECT id FROM ledgers WHERE name = ?", name)
        return self._ids[name]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _errors_named():
            self._db.execute("BEGIN IMMEDIATE")
            with self._db:
                yield

    def _rows(self, query: str, *values: Any) -> Iterator[Any]:
        with _errors_named():
            yield from self._db.execute(query, values)


@contextmanager
def _errors_named() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        advice = _ADVICE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "the database cannot be used")
        raise StoreError(f"{advice} ({error})") from error


def _cannot_open(path: Path, error: Exception) -> str:
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
        return f"{path} is in use by another process: end that one, or name another file with --db"
    return f"{path} cannot be used as a database ({error}): name another file with --db"


@lru_cache(maxsize=32)
def _insert(rows: int, ledger: int) -> str:
    """One statement for all rows: it costs less than one for each."""
    values = ",".join([f"({ledger},?,?,?,?,?)"] * rows)
    return f"INSERT INTO events (ledger, {_COLUMNS}) VALUES {values} ON CONFLICT DO NOTHING"


def _by_hour(meter: Meter, rows: Iterable[_Row]) -> dict[tuple[str, int], Amount]:
    """What a meter reads of some rows, by customer and hour."""
    read, merged, takes = meter.aggregation.amount, meter.aggregation.merged, remembered(meter)
    is_last = meter.aggregation.type == "last"
    found: dict[tuple[str, int], Amount] = {}
    for arrival, name, customer_id, timestamp, metadata in rows:
        if name != meter.event_name or not takes(metadata) or not (amount := read(metadata, timestamp)):
            continue
        if is_last:
            amount = amount._replace(arrival=arrival)
        place = customer_id, timestamp // HOUR * HOUR
        earlier = found.get(place)
        found[place] = merged(earlier, amount) if earlier else amount
    return found


def _by_day(meter: Meter, hours: Mapping[tuple[str, int], Amount]) -> dict[tuple[str, int], Amount]:
    """The same by day."""
    day = LENGTHS["day"]
    found: dict[tuple[str, int], Amount] = {}
    for (customer_id, start), amount in hours.items():
        place = customer_id, start // day * day
        earlier = found.get(place)
        found[place] = meter.aggregation.merged(earlier, amount) if earlier else amount
    return found


def _record(row: tuple[str, str, str, int, str]) -> Record:
    event_id, customer_id, event_name, timestamp, text = row
    return Record(event_id, customer_id, event_name, timestamp, text, _read_metadata(text))


def _meter(meter_id: str, definition: str, created_at: str, updated_at: str, archived: int) -> StoredMeter:
    meter = replace(Meter.from_wire(json.loads(definition)), id=meter_id)
    return StoredMeter(meter, parse_timestamp(created_at), parse_timestamp(updated_at), bool(archived))
