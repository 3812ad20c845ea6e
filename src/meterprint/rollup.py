"""Rollup: many countable events of a customer as one, for cost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from .errors import ConfigurationError, Problem, ValidationError
from .event import MAX_METADATA_PAIRS, Event, MetadataValue, parse_timestamp, shown
from .meter import Aggregation, Condition, Filter, Meter
from .wire import Stamped, line_of, stamped

COUNT = "count"
SUFFIX = ".rollup"
LONGEST = 1800.0  # half of the hour after which the metering API refuses an event: as much is left for delivery


@dataclass(frozen=True, slots=True)
class Rollup:
    """Sums events of a customer into one for each window of time and group of metadata.

    The sum is an event named `<event_name>.rollup`, stamped with the start of its window. Its metadata are the keys of
    `by`, `count` (how many events it stands for), and the sum of every other number. Its id follows from recorder,
    window, customer and group, so that sending it again bills nothing twice.

    What it gives up: single events; text and booleans outside of `by`; `max` and `last`, which have no sum; and times
    finer than the window. An event that lacks a key of `by` is sent as it is.

    Attributes:
        every: The window in seconds, at most 1800.
        by: The metadata keys whose values make a group. Keep them of low cardinality.

    Raises:
        ConfigurationError: One of these cannot be used.
    """

    every: float = 60.0
    by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.every, (int, float)) or not 0 < self.every <= LONGEST:
            raise ConfigurationError(f"every={self.every!r}: give a window of more than 0 and at most 1800 seconds")
        if isinstance(self.by, str) or not all(isinstance(key, str) and key for key in self.by):
            raise ConfigurationError(f"by={self.by!r}: give a tuple of metadata keys, for example by=('endpoint',)")
        if COUNT in self.by:
            raise ConfigurationError(f"by={self.by!r}: {COUNT!r} is what the rollup itself counts")
        object.__setattr__(self, "by", tuple(self.by))

    def meter(self, meter: Meter) -> Meter:
        """The meter that reads of rolled up events what `meter` reads of single ones.

        Raises:
            ValidationError: No sum can tell: a `max`, a `last`, or a condition on a key that is not in `by`.
        """
        kind, key = meter.aggregation.type, meter.aggregation.key
        if kind not in ("count", "sum"):
            raise ValidationError([Problem("/aggregation/type", f"{kind} has no sum: roll up other events only")])
        if key in self.by:
            raise ValidationError([Problem("/aggregation/key", f"{shown(key)} is in by: no sum of it is kept")])
        if others := sorted(_keys(meter.filter) - set(self.by)):
            raise ValidationError(
                [Problem("/filter", f"{', '.join(others)} is not in by: add it, or drop the condition")]
            )
        return replace(
            meter, id=None, event_name=meter.event_name + SUFFIX, aggregation=Aggregation("sum", key or COUNT)
        )

    def takes(self, metadata: Mapping[str, Any]) -> bool:
        """Whether an event with these metadata is summed up; any other is sent as it is."""
        return COUNT not in metadata and len(metadata) < MAX_METADATA_PAIRS and all(key in metadata for key in self.by)

    def window(self, nanoseconds: int) -> int:
        """The start of the window that a time is in, in nanoseconds since 1970."""
        return nanoseconds - nanoseconds % self.length

    @property
    def length(self) -> int:
        """The window in nanoseconds."""
        return round(self.every * 1e9)


class Window:
    """The sums of one window, for one recorder.

    Args:
        rollup: The rule.
        start: The start of the window, in nanoseconds since 1970.
        source: What tells this window from those of other recorders, and from others of its own.
    """

    def __init__(self, rollup: Rollup, start: int, source: str) -> None:
        self.rollup, self.start, self.source = rollup, start, source
        self.events = 0
        self._groups: dict[tuple[Any, ...], _Group] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def add(self, event: Stamped) -> None:
        """Sum up an event."""
        _, _, name, customer_id, metadata, _ = event
        values = tuple([metadata[key] for key in self.rollup.by])
        key = (name, customer_id, values, tuple(map(type, values)))  # 1, 1.0 and True are equal, and differ
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group()
        self.events += 1
        group.add(metadata, self.rollup.by)

    def lines(self) -> list[bytes]:
        """The rolled up events, as they are sent."""
        return [self._line(key, group) for key, group in self._groups.items()]

    def _line(self, key: tuple[Any, ...], group: _Group) -> bytes:
        name, customer_id, values, _ = key
        parts = json.dumps([name, customer_id, *values])
        event_id = Event.id_for("rollup", self.source, str(self.start), parts)
        metadata = {**dict(zip(self.rollup.by, values, strict=True)), COUNT: group.count, **group.totals()}
        return line_of((self.start, 0, name + SUFFIX, customer_id, metadata, event_id))

    def header(self) -> bytes:
        """The first line of a journal: what it takes to sum the others up again, under the same ids."""
        rule = {"every": self.rollup.every, "by": self.rollup.by, "start": self.start, "source": self.source}
        return json.dumps(rule).encode()

    @classmethod
    def from_journal(cls, lines: Iterable[bytes]) -> Window:
        """The window of a process that died, from its journal.

        Raises:
            ValueError: The journal has no header.
        """
        header, *events = lines
        rule = json.loads(header)
        window = cls(Rollup(rule["every"], tuple(rule["by"])), rule["start"], rule["source"])
        for line in events:
            window.add(_read(json.loads(line)))
        return window


class _Group:
    """How many events, and the sums of their numbers: Decimal for fractions, as the metering API adds them."""

    __slots__ = ("_sums", "count")

    def __init__(self) -> None:
        self.count = 0
        self._sums: dict[str, int | Decimal] = {}

    def add(self, metadata: Mapping[str, MetadataValue], by: tuple[str, ...]) -> None:
        self.count += 1
        sums = self._sums
        for key, value in metadata.items():
            if isinstance(value, bool) or key in by:
                continue
            if isinstance(value, int):
                sums[key] = sums.get(key, 0) + int(value)
            elif isinstance(value, float):
                sums[key] = sums.get(key, 0) + Decimal(repr(float(value)))

    def totals(self) -> dict[str, int | float]:
        return {key: value if isinstance(value, int) else float(value) for key, value in self._sums.items()}


def _keys(clause: Filter | Condition | None) -> set[str]:
    if clause is None:
        return set()
    if isinstance(clause, Condition):
        return {clause.key}
    return {key for part in clause.clauses for key in _keys(part)}


def _read(data: Mapping[str, Any]) -> Stamped:
    event = Event(
        data["event_id"], data["customer_id"], data["event_name"], parse_timestamp(data["timestamp"]), data["metadata"]
    )
    return stamped(event, 0)
