"""What the local metering API keeps, by ledger: events, meters, subscriptions. Here in memory, `sqlite` in a file."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

from ..event import Event, MetadataValue, from_micros, micros
from ..meter import Amount, Meter

Span = Literal["hour", "day"]
HOUR = 3_600_000_000  # microseconds
LENGTHS: Mapping[Span, int] = {"hour": HOUR, "day": 24 * HOUR}


class StoreError(Exception):
    """The store cannot do what was asked. Nothing of it was done; the message says what to do."""


class Record(NamedTuple):
    """An event that was checked, as it is kept.

    Attributes:
        event_id: Its id.
        customer_id: Who is billed.
        event_name: What happened.
        timestamp: When, in microseconds since 1970.
        text: The metadata as JSON.
        metadata: The metadata.
    """

    event_id: str
    customer_id: str
    event_name: str
    timestamp: int
    text: str
    metadata: Mapping[str, MetadataValue]

    @classmethod
    def of(cls, event: Event) -> Record:
        """The record of an event."""
        text = json.dumps(event.metadata, separators=(",", ":"))
        return cls(event.event_id, event.customer_id, event.event_name, micros(event.timestamp), text, event.metadata)

    def event(self) -> Event:
        """The event of this record."""
        return Event(self.event_id, self.customer_id, self.event_name, from_micros(self.timestamp), dict(self.metadata))


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events of a ledger: None takes all. `start` is inclusive, `end` exclusive, in microseconds since 1970."""

    customer_id: str | None = None
    event_name: str | None = None
    start: int | None = None
    end: int | None = None

    def takes(self, record: Record) -> bool:
        """Whether the event is one of them."""
        return (
            (self.customer_id is None or record.customer_id == self.customer_id)
            and (self.event_name is None or record.event_name == self.event_name)
            and (self.start is None or record.timestamp >= self.start)
            and (self.end is None or record.timestamp < self.end)
        )


@dataclass(frozen=True, slots=True)
class StoredMeter:
    """A meter with its id, and what a store knows of it besides."""

    meter: Meter
    created_at: datetime
    updated_at: datetime
    archived: bool = False


class Total(NamedTuple):
    """What a meter reads of a customer in the hour or day (UTC) that begins at `start`, in microseconds since 1970."""

    customer_id: str
    start: int
    amount: Amount


class Store(Protocol):
    """Ledgers of events, meters and subscriptions; one ledger never sees another.

    Every method may raise `StoreError`.
    """

    def add_events(self, ledger: str, records: Sequence[Record]) -> Sequence[str]:
        """Store those whose id is new, at least one given, all at once; returns the ids that were known already."""
        ...

    def record(self, ledger: str, event_id: str) -> Record | None:
        """The event with this id."""
        ...

    def records(self, ledger: str, selection: Selection, *, newest_first: bool = False) -> Iterator[Record]:
        """Those selected: in the order of arrival; or newest first, then by event id."""
        ...

    def totals(
        self, ledger: str, meter_id: str, span: Span, selection: Selection, *, whole: bool = False
    ) -> Iterable[Total] | None:
        """What a meter reads by customer, and unless `whole`, by each hour or day that begins within the selection.

        None where the store keeps no totals: they must be worked out from the events.
        """
        ...

    def catch_up(self, limit: int = 1_000) -> bool:
        """Add up to `limit` events to the totals, before a reading has to wait for it. Whether there are more."""
        ...

    def count_events(self) -> int:
        """How many events there are in all ledgers."""
        ...

    def put_meter(self, ledger: str, stored: StoredMeter) -> None:
        """Store a meter, or replace the one with its id."""
        ...

    def meters(self, ledger: str) -> Sequence[StoredMeter]:
        """All meters, archived ones too, in the order of their creation."""
        ...

    def put_subscription(self, ledger: str, subscription_id: str, definition: Mapping[str, Any]) -> None:
        """Store a subscription, or replace the one with its id."""
        ...

    def subscription(self, ledger: str, subscription_id: str) -> Mapping[str, Any] | None:
        """The subscription with this id."""
        ...

    def reset(self, ledger: str) -> None:
        """Empty a ledger."""
        ...

    def close(self) -> None:
        """Release what is held."""
        ...


@dataclass(slots=True)
class _Ledger:
    records: dict[str, Record] = field(default_factory=dict[str, Record])
    meters: dict[str, StoredMeter] = field(default_factory=dict[str, StoredMeter])
    subscriptions: dict[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])


class MemoryStore:
    """A `Store` that ends with its process."""

    def __init__(self) -> None:
        self._ledgers: defaultdict[str, _Ledger] = defaultdict(_Ledger)

    def add_events(self, ledger: str, records: Sequence[Record]) -> Sequence[str]:
        stored = self._ledgers[ledger].records
        return [record.event_id for record in records if stored.setdefault(record.event_id, record) is not record]

    def record(self, ledger: str, event_id: str) -> Record | None:
        return self._ledgers[ledger].records.get(event_id)

    def records(self, ledger: str, selection: Selection, *, newest_first: bool = False) -> Iterator[Record]:
        chosen = [record for record in self._ledgers[ledger].records.values() if selection.takes(record)]
        if newest_first:
            chosen.sort(key=lambda record: (-record.timestamp, record.event_id))
        return iter(chosen)

    def totals(
        self, ledger: str, meter_id: str, span: Span, selection: Selection, *, whole: bool = False
    ) -> Iterable[Total] | None:
        return None

    def catch_up(self, limit: int = 1_000) -> bool:
        return False

    def count_events(self) -> int:
        return sum(len(ledger.records) for ledger in self._ledgers.values())

    def put_meter(self, ledger: str, stored: StoredMeter) -> None:
        self._ledgers[ledger].meters[stored.meter.id or ""] = stored

    def meters(self, ledger: str) -> Sequence[StoredMeter]:
        return list(self._ledgers[ledger].meters.values())

    def put_subscription(self, ledger: str, subscription_id: str, definition: Mapping[str, Any]) -> None:
        self._ledgers[ledger].subscriptions[subscription_id] = definition

    def subscription(self, ledger: str, subscription_id: str) -> Mapping[str, Any] | None:
        return self._ledgers[ledger].subscriptions.get(subscription_id)

    def reset(self, ledger: str) -> None:
        self._ledgers.pop(ledger, None)

    def close(self) -> None:
        self._ledgers.clear()
