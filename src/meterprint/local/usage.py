"""What a meter reads: in all, by customer, by window of time, by metadata value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ..event import MetadataValue, format_timestamp, from_micros, micros, shown
from ..meter import Amount, Meter, remembered
from .requests import bad_query, choice, selection_of
from .store import HOUR, LENGTHS, Selection, Span, Store

PARAMETERS = ("customer_id", "start", "end", "window", "timezone", "per_customer", "group_by")
_DAY = LENGTHS["day"]
_BOOLEANS = {"true": True, "false": False}
_WINDOWS = {name: name for name in ("minute", "hour", "day")}
_NONE = Amount(Decimal(0))
_QUARTER = HOUR // 4  # the finest step of any zone's offset today


@dataclass(frozen=True, slots=True)
class Question:
    """How a reading is asked for.

    Attributes:
        selection: Whose events, and of what time.
        window: `minute`, `hour` or `day` for a quantity of each; None for one quantity.
        zone: Where the days begin.
        per_customer: Whether the items are by customer.
        group_by: The metadata key whose values the items are by.
    """

    selection: Selection
    window: str | None = None
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    per_customer: bool = False
    group_by: str | None = None

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Question:
        """The question that query parameters ask.

        Raises:
            ValidationError: A parameter has no such value.
        """
        try:
            zone = ZoneInfo(query.get("timezone", "UTC"))
        except (ZoneInfoNotFoundError, ValueError, OSError):
            reason = f"{shown(query['timezone'])} is no time zone: write it like Europe/Stockholm"
            raise bad_query("timezone", reason) from None
        return cls(
            selection_of(query),
            choice(query, "window", _WINDOWS, None),
            zone,
            choice(query, "per_customer", _BOOLEANS, default=False),
            query.get("group_by"),
        )


class Place(NamedTuple):
    """Where an amount belongs: a window that begins at `start`, a customer, a metadata value; None for all."""

    start: int | None
    customer_id: str | None
    group: MetadataValue | None
    kind: str  # of the group's value: True and 1 are equal


class _Piece(NamedTuple):
    """An amount of one customer."""

    customer_id: str
    start: int
    group: MetadataValue | None
    amount: Amount


class Reading(NamedTuple):
    """What a meter reads."""

    quantity: Decimal
    customers: Mapping[str, Decimal]
    items: Mapping[Place, Decimal]


def read(store: Store, ledger: str, meter: Meter, question: Question) -> Reading:
    """What a meter reads; one without an id is read from the events alone."""
    window, merged = _windows(question), meter.aggregation.merged
    is_finer = bool(window) or question.group_by is not None
    whole: dict[None, Amount] = {}
    customers: dict[str, Amount] = {}
    items: dict[Place, Amount] = {}

    def add(found: dict[Any, Amount], key: Any, amount: Amount) -> None:
        earlier = found.get(key)
        found[key] = merged(earlier, amount) if earlier else amount

    for customer_id, start, group, amount in _pieces(store, ledger, meter, question):
        add(customers, customer_id, amount)
        if is_finer:
            who = customer_id if question.per_customer else None
            add(items, Place(window(start) if window else None, who, group, _kind(group)), amount)
    for customer_id, amount in customers.items():  # few, where there are many pieces
        add(whole, None, amount)
        if question.per_customer and not is_finer:
            items[Place(None, customer_id, None, _kind(None))] = amount
    return Reading(
        whole.get(None, _NONE).quantity,
        {customer_id: amount.quantity for customer_id, amount in sorted(customers.items())},
        {place: amount.quantity for place, amount in sorted(items.items(), key=_order)},
    )


def _kind(group: MetadataValue | None) -> str:
    """What tells true from 1; one number is like another."""
    is_number = isinstance(group, (int, float)) and not isinstance(group, bool)
    return "number" if is_number else type(group).__name__


def answer(meter: Meter, reading: Reading, question: Question) -> dict[str, Any]:
    """A reading as the JSON object that answers for it."""
    return {
        "meter_id": meter.id,
        "name": meter.name,
        "measurement_unit": meter.measurement_unit,
        "quantity": f"{reading.quantity:f}",
        "customers": [
            {"customer_id": customer_id, "quantity": f"{quantity:f}"}
            for customer_id, quantity in reading.customers.items()
        ],
        "items": [_item(place, quantity, question) for place, quantity in reading.items.items()],
    }


def _item(place: Place, quantity: Decimal, question: Question) -> dict[str, Any]:
    item: dict[str, Any] = {}
    if place.start is not None:
        end = _next(place.start, question)
        item |= {"window_start": _text(place.start), "window_end": _text(end)}
    if question.per_customer:
        item["customer_id"] = place.customer_id
    if question.group_by is not None:
        item["group"] = place.group
    return {**item, "quantity": f"{quantity:f}"}


def _text(moment: int) -> str:
    return format_timestamp(from_micros(moment))


def _order(item: tuple[Place, Amount]) -> tuple[Any, ...]:
    place = item[0]
    return place.start or 0, place.customer_id or "", place.kind, str(place.group)


def _windows(question: Question) -> Callable[[int], int] | None:
    """The start of the window that a time lies in."""
    if question.window is None:
        return None
    length = {"minute": 60_000_000, "hour": HOUR, "day": _DAY}[question.window]
    if question.zone.key == "UTC" or question.window == "minute":
        return lambda moment: moment // length * length
    known: dict[int, int] = {}

    def start(moment: int) -> int:
        quarter = moment // _QUARTER
        if quarter not in known:
            known[quarter] = _local_start(from_micros(moment), question)
        return known[quarter]

    return start


def _local_start(moment: datetime, question: Question) -> int:
    if question.window == "day":
        return micros(_midnight(moment.astimezone(question.zone), question.zone))
    return _hour_edge(micros(moment), -_QUARTER, question.zone) + _QUARTER


def _midnight(day: datetime, zone: ZoneInfo) -> datetime:
    """The first moment of a day: where the clock skips midnight, the moment after; where it comes twice, the first."""
    start = day.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=zone, fold=0)
    return start.astimezone(UTC)


def _hour_edge(moment: int, step: int, zone: ZoneInfo) -> int:
    """The next quarter, going by `step`, that is in another hour of the wall clock, or at another offset from UTC."""
    quarter = moment // _QUARTER * _QUARTER
    hour = _hour(quarter, zone)
    while _hour(quarter, zone) == hour:
        quarter += step
    return quarter


def _hour(moment: int, zone: ZoneInfo) -> tuple[int, timedelta | None]:
    local = from_micros(moment).astimezone(zone)
    return local.hour, local.utcoffset()


def _next(start: int, question: Question) -> int:
    """The end of the window that begins there."""
    if question.window == "minute":
        return start + 60_000_000
    if question.window == "hour":
        return _hour_edge(start, _QUARTER, question.zone)
    local = from_micros(start).astimezone(question.zone).replace(tzinfo=None)
    return micros(_midnight(local + timedelta(days=1), question.zone))


def _pieces(store: Store, ledger: str, meter: Meter, question: Question) -> Iterator[_Piece]:
    span = _span(meter, question)
    if span:
        yield from _totalled(store, ledger, meter, question, span)
    else:
        yield from _counted(store, ledger, meter, question.selection, question.group_by)


def _span(meter: Meter, question: Question) -> Span | None:
    """The longest span whose totals answer a question, if any do."""
    if meter.id is None or question.group_by is not None or question.window == "minute":
        return None
    if question.window is None or (question.window == "day" and question.zone.key == "UTC"):
        return "day"
    return "hour" if _has_whole_hours(question.zone) else None


@cache
def _has_whole_hours(zone: ZoneInfo) -> bool:
    """Whether the hours of a zone are those of UTC, from 2000 on: then totals by hour answer for it."""
    days = (datetime(year, month, 1, tzinfo=zone) for year in range(2000, 2040) for month in range(1, 13))
    return not any((day.utcoffset() or timedelta()) % timedelta(hours=1) for day in days)


def _totalled(store: Store, ledger: str, meter: Meter, question: Question, span: Span) -> Iterator[_Piece]:
    """Whole hours and days from the totals, and what lies before and after them from the events."""
    chosen = question.selection
    kinds: tuple[Span | None, ...] = (None, "hour", "day") if span == "day" else (None, "hour")
    for kind, start, end in _parts(chosen.start, chosen.end, kinds):
        part = replace(chosen, start=start, end=end)
        totals = store.totals(ledger, meter.id or "", kind, part, whole=not question.window) if kind else None
        if totals is None:
            yield from _counted(store, ledger, meter, part, None)
        else:
            yield from (_Piece(total.customer_id, total.start, None, total.amount) for total in totals)


def _parts(
    start: int | None, end: int | None, kinds: Sequence[Span | None]
) -> Iterator[tuple[Span | None, int | None, int | None]]:
    """A stretch of time, cut into what lies before whole spans of the next longer kind, those, and what lies after.

    Args:
        start: Where it begins, or None where it has no beginning.
        end: Where it ends, or None.
        kinds: From events (None) to the longest span.
    """
    kind, *longer = kinds
    if longer and longer[0]:
        length = LENGTHS[longer[0]]
        first = None if start is None else -(-start // length) * length
        last = None if end is None else end // length * length
        if first is None or last is None or first < last:
            if start != first:
                yield kind, start, first
            yield from _parts(first, last, longer)
            if end != last:
                yield kind, last, end
            return
    yield kind, start, end


def _counted(store: Store, ledger: str, meter: Meter, selection: Selection, group_by: str | None) -> Iterator[_Piece]:
    """Event by event, in the order of arrival."""
    takes, read_amount, is_last = remembered(meter), meter.aggregation.amount, meter.aggregation.type == "last"
    for number, record in enumerate(store.records(ledger, replace(selection, event_name=meter.event_name))):
        metadata = record.metadata
        if takes(metadata) and (amount := read_amount(metadata, record.timestamp)):
            group = None if group_by is None else metadata.get(group_by)
            if is_last:
                amount = amount._replace(arrival=number)
            yield _Piece(record.customer_id, record.timestamp, group, amount)


def matching(store: Store, ledger: str, meter: Meter, selection: Selection) -> tuple[int, int]:
    """How many of the selected events have the meter's event name, and how many of those its filter takes."""
    takes, named, matched = remembered(meter), 0, 0
    for record in store.records(ledger, replace(selection, event_name=meter.event_name)):
        named += 1
        matched += takes(record.metadata)
    return named, matched
