"""Prices over readings: previews of invoices, and what subscriptions used and owe."""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count, takewhile
from typing import Any

from ..errors import APIError, Problem, ValidationError
from ..event import format_timestamp, micros, parse_timestamp, shown
from ..meter import Meter
from ..pricing import InvoiceLine, Price, Tier, decimal_of, money
from . import usage
from .answers import find_meter
from .requests import fields_of, moment, page_of
from .store import Selection, Store

_MAX_PRICES = 100
_DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?")
# What a clock may show and a subscription begin at: a year more or less is still a date.
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
_TIER_FIELDS = ("up_to", "price_per_unit", "flat_fee")
_PRICE_FIELDS = ("price_per_unit", "free_threshold", "currency", "tiers", "mode", "package_size")


def invoice_preview(store: Store, ledger: str, body: Any) -> dict[str, Any]:
    """What a customer's usage would cost.

    Raises:
        ValidationError: A field is wrong.
        APIError: There is no such meter.
    """
    fields = fields_of(body, ("customer_id", "start", "end", "prices"), required=("prices",))
    items = _prices_in(fields["prices"], (*_PRICE_FIELDS, "quantity"))
    customer_id = _text_in(fields, "customer_id")
    start, end = (None if time is None else micros(time) for time in (time_in(fields, n) for n in ("start", "end")))
    if customer_id is None and any(item.get("quantity") is None for item in items):
        reason = "missing: an invoice is for one customer. Give it, or a quantity with each price"
        raise ValidationError([Problem("/customer_id", reason)])
    selection = Selection(customer_id, None, start, end)
    meters = [find_meter(store, ledger, item["meter_id"]).meter for item in items]

    def read(meter: Meter) -> Decimal:
        return usage.read(store, ledger, meter, usage.Question(selection)).quantity

    lines = [
        _charged(read, meter, item, f"/prices/{index}")
        for index, (meter, item) in enumerate(zip(meters, items, strict=True))
    ]
    currencies = sorted({line.price.currency for line in lines})
    if len(currencies) > 1:
        raise ValidationError([Problem("/prices", f"more than one currency: {', '.join(currencies)}")])
    total = sum(line.total for line in lines)
    return {
        "customer_id": customer_id,
        "currency": currencies[0],
        "total_price": total,
        "amount": money(total, currencies[0]),
        "lines": [_line(line, meter) for line, meter in zip(lines, meters, strict=True)],
    }


def _charged(read: Callable[[Meter], Decimal], meter: Meter, item: Mapping[str, Any], pointer: str) -> InvoiceLine:
    price = _price(meter, item, pointer)
    quantity = _amount_in(item, "quantity", pointer)
    if quantity is None:
        quantity = read(meter)
    try:
        return price.charge(quantity)
    except ValidationError as error:
        reason = error.problems[0].reason
        raise ValidationError([Problem(f"{pointer}/quantity", reason)]) from None


def _line(line: InvoiceLine, meter: Meter) -> dict[str, Any]:
    return {
        "meter_id": meter.id,
        "name": meter.name,
        "measurement_unit": meter.measurement_unit,
        "consumed_units": f"{line.consumed:f}",
        "chargeable_units": f"{line.chargeable:f}",
        "total_price": line.total,
        "amount": money(line.total, line.price.currency),
        "explanation": line.explanation,
    }


def put_subscription(store: Store, ledger: str, subscription_id: str, body: Any) -> dict[str, Any]:
    """Keep whom a subscription bills, from when on, and at which prices.

    Raises:
        ValidationError: A field is wrong.
        APIError: There is no such meter.
    """
    names = ("customer_id", "start", "prices")
    fields = fields_of(body, names, required=names)
    start = bounded(time_in(fields, "start"), "/start")
    items = _prices_in(fields["prices"], ("price_per_unit", "free_threshold", "currency"))
    prices = [
        _kept(_price(find_meter(store, ledger, item["meter_id"]).meter, item, f"/prices/{index}"), item, index)
        for index, item in enumerate(items)
    ]
    if not (customer_id := _text_in(fields, "customer_id")) or not start:
        raise ValidationError([Problem("/customer_id" if start else "/start", "null: give it")])
    definition = {"customer_id": customer_id, "start": format_timestamp(start), "prices": prices}
    store.put_subscription(ledger, subscription_id, definition)
    return definition


def _kept(price: Price, item: Mapping[str, Any], index: int) -> dict[str, Any]:
    if price.free_threshold != price.free_threshold.to_integral_value():
        reason = f"{price.free_threshold} is not a whole number, which usage history needs"
        raise ValidationError([Problem(f"/prices/{index}/free_threshold", reason)])
    return {
        "meter_id": item["meter_id"],
        "price_per_unit": f"{price.price_per_unit:f}",
        "free_threshold": int(price.free_threshold),
        "currency": price.currency,
    }


def usage_history(
    store: Store, ledger: str, subscription_id: str, query: Mapping[str, str], now: datetime
) -> list[dict[str, Any]]:
    """What a subscription used and owes in each month from its start on, newest first.

    Raises:
        ValidationError: A parameter is wrong.
        APIError: There is no such subscription, or no such meter.
    """
    if not (definition := store.subscription(ledger, subscription_id)):
        reason = f"no subscription with the id {shown(subscription_id)}: PUT /local/subscriptions/{{id}} makes one"
        raise APIError(404, "NOT_FOUND", reason)
    earliest, latest = moment(query, "start_date"), moment(query, "end_date")
    if "meter_id" in query:
        find_meter(store, ledger, query["meter_id"])
    begin = parse_timestamp(definition["start"])
    starts = takewhile(lambda start: start <= now, (_months_later(begin, number) for number in count()))
    periods = [(start, _months_later(begin, number + 1)) for number, start in enumerate(starts)]
    chosen = [
        period
        for period in reversed(periods)
        if (earliest is None or period[0] >= earliest) and (latest is None or period[0] <= latest)
    ]
    return [_period(store, ledger, definition, period, query.get("meter_id")) for period in page_of(chosen, query)]


def _period(
    store: Store, ledger: str, definition: Mapping[str, Any], period: tuple[datetime, datetime], meter_id: str | None
) -> dict[str, Any]:
    start, end = period
    selection = Selection(definition["customer_id"], None, micros(start), micros(end))
    used = [
        _used(store, ledger, item, selection)
        for item in definition["prices"]
        if meter_id is None or item["meter_id"] == meter_id
    ]
    return {"start_date": format_timestamp(start), "end_date": format_timestamp(end), "meters": used}


def _used(store: Store, ledger: str, item: Mapping[str, Any], selection: Selection) -> dict[str, Any]:
    meter = find_meter(store, ledger, item["meter_id"]).meter
    quantity = usage.read(store, ledger, meter, usage.Question(selection)).quantity
    line = _price(meter, item, "").charge(max(quantity, Decimal(0)))
    return {
        "id": meter.id,
        "name": meter.name,
        "free_threshold": item["free_threshold"],
        "price_per_unit": item["price_per_unit"],
        "currency": item["currency"],
        "total_price": line.total,
        "consumed_units": f"{quantity:f}",
        "chargeable_units": f"{line.chargeable:f}",
    }


def _months_later(start: datetime, months: int) -> datetime:
    """The same day of a later month, or its last day where it is shorter."""
    years, month = divmod(start.month - 1 + months, 12)
    year = start.year + years
    return start.replace(year=year, month=month + 1, day=min(start.day, monthrange(year, month + 1)[1]))


def _prices_in(items: Any, known: Sequence[str]) -> list[Mapping[str, Any]]:
    if not isinstance(items, list) or not 1 <= len(items) <= _MAX_PRICES:
        raise ValidationError([Problem("/prices", f"not a list of 1 to {_MAX_PRICES} prices")])
    for index, item in enumerate(items):
        try:
            fields_of(item, ("meter_id", *known), required=("meter_id",))
            _text_in(item, "meter_id", needed=True)
        except ValidationError as error:
            raise error.under(f"/prices/{index}") from None
    return items


def _price(meter: Meter, item: Mapping[str, Any], pointer: str) -> Price:
    """The price in a JSON object."""
    try:
        amounts = {name: _amount_in(item, name, "") for name in ("price_per_unit", "free_threshold", "package_size")}
        words = {name: _text_in(item, name) for name in ("currency", "mode")}
        given = {name: value for name, value in {**amounts, **words}.items() if value is not None}
        return Price(meter.name, tiers=_tiers_in(item), **given)  # type: ignore[arg-type]  # checked by name
    except ValidationError as error:
        raise error.under(pointer) from None


def _tiers_in(item: Mapping[str, Any]) -> tuple[Tier, ...]:
    tiers = item.get("tiers")
    if tiers is None:
        return ()
    if not isinstance(tiers, list) or not 1 <= len(tiers) <= _MAX_PRICES:
        raise ValidationError([Problem("/tiers", f"not a list of 1 to {_MAX_PRICES} tiers")])
    return tuple(_tier(tier, f"/tiers/{index}") for index, tier in enumerate(tiers))


def _tier(tier: Any, pointer: str) -> Tier:
    try:
        fields_of(tier, _TIER_FIELDS, required=("price_per_unit",))
    except ValidationError as error:
        raise error.under(pointer) from None
    up_to, price, fee = (_amount_in(tier, name, pointer) for name in _TIER_FIELDS)
    if price is None:
        raise ValidationError([Problem(f"{pointer}/price_per_unit", "null: give it")])
    return Tier(up_to, price, fee or Decimal(0))


def _amount_in(item: Mapping[str, Any], name: str, pointer: str) -> Decimal | None:
    value = item.get(name)
    if value is None:
        return None
    if isinstance(value, float):
        reason = f"{value} is a number with decimals, which JSON readers do not keep exactly: write it as a string"
        raise ValidationError([Problem(f"{pointer}/{name}", reason)])
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValidationError([Problem(f"{pointer}/{name}", f"{shown(value)} is not a decimal number")])
    if isinstance(value, str) and not _DECIMAL.fullmatch(value):
        raise ValidationError(
            [Problem(f"{pointer}/{name}", f"{shown(value)} is not a decimal number: write it like 0.25")]
        )
    try:
        return decimal_of(value)
    except ValidationError as error:
        raise ValidationError([Problem(f"{pointer}/{name}", error.problems[0].reason)]) from None


def _text_in(item: Mapping[str, Any], name: str, *, needed: bool = False) -> str | None:
    value = item.get(name)
    if value is None and not needed:
        return None
    if not isinstance(value, str) or not value.strip():
        raise ValidationError([Problem(f"/{name}", f"{shown(value)} is not a non-empty string")])
    return value


def bounded(time: datetime | None, pointer: str) -> datetime | None:
    """A time, held to the years in which dates can be worked with.

    Raises:
        ValidationError: It lies outside of them.
    """
    if time is None or EARLIEST <= time <= LATEST:
        return time
    reason = f"{format_timestamp(time)} is not between {EARLIEST.year} and {LATEST.year}"
    raise ValidationError([Problem(pointer, reason, "INVALID_TIMESTAMP")])


def time_in(body: Mapping[str, Any], name: str) -> datetime | None:
    """The time in a field of a JSON object, or None.

    Raises:
        ValidationError: It is no time.
    """
    try:
        return None if body.get(name) is None else parse_timestamp(body[name])
    except ValueError as error:
        raise ValidationError([Problem(f"/{name}", str(error), "INVALID_TIMESTAMP")]) from None
