"""What a meter reads, worked out by ClickHouse in SQL: it shares no code with the local metering API.

Numbers are Decimal256 with 12 decimals, so that a sum must be equal to the last digit. Where they are too large or too
small for that (`exact=False`), they are Float64, and each sum comes with the difference that floats are allowed.

A window is a stretch of time in which the clock shows the same minute, the same hour at the same offset from UTC, or
the same date. It is found in a grid of minutes, and not by toStartOfHour, which is wrong for the rest of a day in
which a clock has moved by half an hour.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from importlib import import_module
from itertools import chain
from typing import Any, NamedTuple

from meterprint.event import MetadataValue
from meterprint.local.store import Record, Selection
from meterprint.local.usage import Question
from meterprint.meter import Clause, Condition, Meter

_FLOAT_ERROR = Decimal("1e-9")  # of what a sum of floats adds up, signs aside
_MINUTES_AROUND = 3 * 1440  # before the first event and after the last: no window ends further away
_TABLE = """
CREATE TABLE events (
    arrival UInt64,
    event_id String,
    customer_id String,
    event_name String,
    micros Int64,
    kinds Map(String, String),
    texts Map(String, String),
    at DateTime64(6, 'UTC') ALIAS fromUnixTimestamp64Micro(micros, 'UTC')
) ENGINE = Memory
"""
# What the clock shows: a window ends where this changes.
_SHOWN = {
    "minute": "toUnixTimestamp({moment})",
    "hour": "(toHour({moment}, {zone}), timeZoneOffset(toTimeZone({moment}, {zone})))",
    "day": "toDate({moment}, {zone})",
}
_COMPARISONS = {
    "greater_than": ">",
    "greater_than_or_equals": ">=",
    "less_than": "<",
    "less_than_or_equals": "<=",
}


class Group(NamedTuple):
    """A metadata value that readings are grouped by: `kind` is text, number, bool or none."""

    kind: str
    value: str | Decimal


class Place(NamedTuple):
    """Where a quantity belongs; None where the question does not ask for it. Times in seconds since 1970."""

    window: tuple[int, int] | None = None
    customer_id: str | None = None
    group: Group | None = None


class Quantity(NamedTuple):
    """A quantity, and how far another one may be from it."""

    value: Decimal
    slack: Decimal = Decimal(0)

    def agrees(self, other: Decimal | None) -> bool:
        """Whether another quantity is the same one."""
        return other is not None and abs(self.value - other) <= self.slack


class Expected(NamedTuple):
    """What a meter reads."""

    quantity: Quantity
    customers: dict[str, Quantity]
    items: dict[Place, Quantity]
    named_count: int
    matching_count: int


def group_of(value: MetadataValue | None) -> Group:
    """The group of a metadata value: 1 and 1.0 are one number, true and "1" are not."""
    if value is None:
        return Group("none", "")
    kind, text = _kind_and_text(value)
    return Group(kind, Decimal(text) if kind == "number" else text)


class ClickHouse:
    """ClickHouse within this process, with one table of events.

    Args:
        exact: Whether all numbers have at most 12 decimals and 60 digits before them.
    """

    def __init__(self, *, exact: bool = True) -> None:
        session: Any = import_module("chdb.session")
        self._session = session.Session()
        self._run("SET precise_float_parsing = 1, max_threads = 1")
        self.clear(exact=exact)

    def clear(self, *, exact: bool) -> None:
        """Begin anew, without events."""
        self._exact = exact
        self._arrived = 0
        self._first, self._last = 2**62, 0
        self._run("DROP TABLE IF EXISTS events")
        self._run(_TABLE)

    def close(self) -> None:
        """Release what is held."""
        self._session.close()

    def add(self, records: Sequence[Record]) -> None:
        """Let events arrive. Of those with one id, the first counts."""
        rows = "\n".join(json.dumps(self._row(number, record)) for number, record in enumerate(records, self._arrived))
        self._run(f"INSERT INTO events FORMAT JSONEachRow\n{rows}")
        self._arrived += len(records)
        self._first = min(self._first, *(record.timestamp for record in records))
        self._last = max(self._last, *(record.timestamp for record in records))

    def _row(self, arrival: int, record: Record) -> dict[str, Any]:
        pairs = {key: _kind_and_text(value) for key, value in record.metadata.items()}
        return {
            "arrival": arrival,
            "event_id": record.event_id,
            "customer_id": record.customer_id,
            "event_name": record.event_name,
            "micros": record.timestamp,
            "kinds": {key: kind for key, (kind, _) in pairs.items()},
            "texts": {key: text for key, (_, text) in pairs.items()},
        }

    def read(self, meter: Meter, question: Question) -> Expected:
        """What the meter reads."""
        named, takes = self._named(meter, question.selection), self._filter(meter)
        measured = f"SELECT *, at, 1 AS one FROM ({named}) WHERE {takes} AND {_measurable(meter)}"
        quantity, slack = self._aggregate(meter)
        ((value, off),) = self._rows(f"SELECT {quantity}, {slack} FROM ({measured})")
        customers = self._rows(f"SELECT customer_id, {quantity}, {slack} FROM ({measured}) GROUP BY customer_id")
        counts = self._rows(f"SELECT count(), countIf({takes}) FROM ({named})")
        ((named_count, matching_count),) = ((int(count) for count in row) for row in counts)
        return Expected(
            _quantity(value, off),
            {customer_id: _quantity(value, off) for customer_id, value, off in customers},
            self._items(measured, f"{quantity}, {slack}", question),
            named_count,
            matching_count,
        )

    def strange_windows(self, question: Question) -> list[list[Any]]:
        """Windows that toStartOfInterval would begin elsewhere."""
        unit, zone = (question.window or "").upper(), quoted(question.zone.key)
        begins = "toStartOfInterval({moment}, INTERVAL 1 {unit}, {zone})"
        first, last = (begins.format(moment=m, unit=unit, zone=zone) for m in ("start", "subtractSeconds(end, 1)"))
        known = f"SELECT * FROM ({self._windows(question)}) WHERE end > start"
        return self._rows(f"SELECT start, end FROM ({known}) WHERE {first} != start OR {last} != start")

    def _items(self, measured: str, quantities: str, question: Question) -> dict[Place, Quantity]:
        keys: dict[str, list[str]] = {}
        source = f"({measured}) AS e"
        if question.window:
            source += f" ASOF JOIN ({self._windows(question)}) AS w ON e.one = w.one AND e.at >= w.start"
            keys["window"] = ["toUnixTimestamp(start)", "toUnixTimestamp(end)"]
        if question.per_customer:
            keys["customer"] = ["customer_id"]
        if question.group_by is not None:
            keys["group"] = self._group(question.group_by)
        if not keys:
            return {}
        chosen = ", ".join(chain.from_iterable(keys.values()))
        rows = self._rows(f"SELECT {chosen}, {quantities} FROM {source} GROUP BY {chosen}")
        return {_place(keys, row): _quantity(*row[-2:]) for row in rows}

    def _named(self, meter: Meter, selection: Selection) -> str:
        """The stored events of the meter's name in a selection."""
        conditions = [f"event_name = {quoted(meter.event_name)}"]
        if selection.customer_id is not None:
            conditions.append(f"customer_id = {quoted(selection.customer_id)}")
        if selection.start is not None:
            conditions.append(f"micros >= {selection.start}")
        if selection.end is not None:
            conditions.append(f"micros < {selection.end}")
        stored = "SELECT *, at FROM events ORDER BY arrival LIMIT 1 BY event_id"
        return f"SELECT *, at FROM ({stored}) WHERE {' AND '.join(conditions)}"

    def _filter(self, meter: Meter) -> str:
        return self._clause(meter.filter) if meter.filter else "true"

    def _clause(self, clause: Clause) -> str:
        if isinstance(clause, Condition):
            return self._condition(clause)
        join = {"and": " AND ", "or": " OR "}[clause.conjunction]
        return f"({join.join(map(self._clause, clause.clauses))})"

    def _condition(self, condition: Condition) -> str:
        kind, text = _kind_and_text(condition.value)
        key, operator = quoted(condition.key), condition.operator
        same_kind = f"kinds[{key}] = '{kind}'"
        if kind == "number":
            actual, value = self._number(key), f"{self._to_number}({quoted(text)}{self._scale})"
        else:
            actual, value = f"texts[{key}]", quoted(text)
        if operator == "equals":
            return f"({same_kind} AND {actual} = {value})"
        if operator == "not_equals":
            return f"(mapContains(kinds, {key}) AND NOT ({same_kind} AND {actual} = {value}))"
        if operator == "contains":
            return f"({same_kind} AND position({actual}, {value}) > 0)"
        if operator == "does_not_contain":
            return f"({same_kind} AND position({actual}, {value}) = 0)"
        return f"({same_kind} AND {actual} {_COMPARISONS[operator]} {value})"

    def _aggregate(self, meter: Meter) -> tuple[str, str]:
        """The quantity, and how far it may be from an exact one, as SQL."""
        if meter.aggregation.type == "count":
            return "toString(count())", "'0'"
        number = self._number(quoted(meter.aggregation.key or ""))
        if meter.aggregation.type == "sum":
            return f"toString(sum({number}))", "'0'" if self._exact else f"toString(sum(abs({number})))"
        if meter.aggregation.type == "max":
            return f"toString(max({number}))", "'0'"
        return f"toString(argMax({number}, (micros, arrival)))", "'0'"

    def _group(self, name: str) -> list[str]:
        key = quoted(name)
        kind = f"if(mapContains(kinds, {key}), kinds[{key}], 'none')"
        return [kind, f"if(kinds[{key}] = 'number', toString({self._number(key)}), texts[{key}])"]

    @property
    def _to_number(self) -> str:
        return "toDecimal256" if self._exact else "toFloat64"

    @property
    def _scale(self) -> str:
        return ", 12" if self._exact else ""

    def _number(self, key: str) -> str:
        """The number under a key; 0 where there is none, and for -0."""
        return f"({self._to_number}OrZero(texts[{key}]{self._scale}) + 0)"

    def _windows(self, question: Question) -> str:
        """Where windows begin and end."""
        first = self._first // 60_000_000 - _MINUTES_AROUND
        count = self._last // 60_000_000 + _MINUTES_AROUND - first
        zone = quoted(question.zone.key)
        shown, before = (
            _SHOWN[question.window or ""].format(moment=moment, zone=zone) for moment in ("moment", "moment - 60")
        )
        minutes = f"SELECT toDateTime(60 * ({first} + number), 'UTC') AS moment FROM numbers({count})"
        frame = "OVER (ORDER BY moment ROWS BETWEEN CURRENT ROW AND 1 FOLLOWING)"
        return (
            f"SELECT 1 AS one, moment AS start, leadInFrame(moment) {frame} AS end"
            f" FROM ({minutes}) WHERE {shown} != {before}"
        )

    def _rows(self, query: str) -> list[list[Any]]:
        return [json.loads(line) for line in self._run(query).splitlines()]

    def _run(self, query: str) -> str:
        return str(self._session.query(query, "JSONCompactEachRow"))


def quoted(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _kind_and_text(value: MetadataValue) -> tuple[str, str]:
    if isinstance(value, str):
        return "text", value
    return "bool" if isinstance(value, bool) else "number", json.dumps(value)


def _measurable(meter: Meter) -> str:
    key = meter.aggregation.key
    return "true" if key is None else f"kinds[{quoted(key)}] = 'number'"


def _quantity(value: str, off: str) -> Quantity:
    return Quantity(Decimal(value), Decimal(off) * _FLOAT_ERROR)


def _place(keys: Mapping[str, Sequence[str]], row: Iterable[Any]) -> Place:
    cells = iter(row)
    window = (int(next(cells)), int(next(cells))) if "window" in keys else None
    customer_id = next(cells) if "customer" in keys else None
    group = None
    if "group" in keys:
        kind, text = next(cells), next(cells)
        group = Group(kind, Decimal(text) if kind == "number" else text)
    return Place(window, customer_id, group)
