"""What a log of provider responses used, what it costs, and where naive counting differs. It neither reads nor prints.

A line of the log is one JSON object: a response as the provider sent it, or a wrapper around one, whose keys are

- `response`: the response, as an object or as its JSON in a text;
- `customer_id`: who pays, a text; it may also stand in a response without a wrapper;
- `provider`: who answered, a text, where the response does not say so.

All others are passed over. A response counts once, whatever is repeated, where it has an id. A line that cannot be
read is named, and is in no sum.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NoReturn
from uuid import UUID

from .blueprint import Blueprint
from .blueprints.llm.definition import BLUEPRINT, BUCKETS
from .blueprints.llm.naive import REPEATED, WAYS, Way, miscounts, tokens_in
from .blueprints.llm.usage import Usage, answer_in, counters_in, fields_of, read
from .errors import ConfigurationError, ValidationError
from .event import shown
from .meter import Meter, remembered
from .pricing import Invoice, invoice

MOST_NAMED = 20  # lines of each kind that a report names

_PIECES = ("message_start", "message_delta")  # of Anthropic's streams: what they count is in both


@dataclass(frozen=True, slots=True)
class Difference:
    """What a naive way makes of the log.

    Attributes:
        way: The way.
        responses: How many responses it counts wrong.
        right: Their tokens.
        counted: Their tokens, in this way.
        total: What all customers together would pay, in minor units (cents).
    """

    way: Way
    responses: int
    right: int
    counted: int
    total: int


@dataclass(frozen=True, slots=True)
class Unread:
    """A line that is in no sum.

    Attributes:
        line: Its number, from 1.
        reason: Why.
    """

    line: int
    reason: str


@dataclass(slots=True)
class Lines:
    """How many lines were of which kind; blank ones are not counted.

    Attributes:
        total: All lines.
        responses: Those that were counted.
        repeated: Those whose response was counted before.
        without_id: Those counted whose response has no id that would show a repetition.
        errors: The errors of providers, which have no usage.
        unread: Those that could not be read.
        first_repeated: The numbers of the first of the repeated.
        first_unread: The first of those that could not be read.
    """

    total: int = 0
    responses: int = 0
    repeated: int = 0
    without_id: int = 0
    errors: int = 0
    unread: int = 0
    first_repeated: list[int] = field(default_factory=list[int])
    first_unread: list[Unread] = field(default_factory=list[Unread])


@dataclass(frozen=True, slots=True)
class Report:
    """What an audit found.

    Attributes:
        lines: How many lines were of which kind.
        models: The number of responses, as `responses`, and the tokens in each bucket, by provider and model.
        customers: The same by customer; "" for those of whom no line says who pays.
        bills: What each customer would pay, the log being one billing period.
        total: The sum of the bills, in minor units (cents).
        currency: Their currency.
        differences: Where naive counting differs; ways that count everything right are left out.
    """

    lines: Lines
    models: Mapping[tuple[str, str], Counter[str]]
    customers: Mapping[str, Counter[str]]
    bills: Mapping[str, Invoice]
    total: int
    currency: str
    differences: tuple[Difference, ...]


def audit(lines: Iterable[bytes], blueprint: Blueprint = BLUEPRINT) -> Report:
    """Add up a log.

    Memory is held for the ids of the responses (some 150 bytes each), the models and the customers.

    Args:
        lines: The log, line by line, in UTF-8.
        blueprint: Whose meters and prices make the bill: one with the buckets of the LLM blueprint in its event.

    Raises:
        ConfigurationError: The blueprint cannot price tokens.
    """
    sums = _Sums(blueprint)
    for number, line in enumerate(lines, 1):
        if text := line.strip(b"\xef\xbb\xbf \t\r\n" if number == 1 else None):
            sums.add(number, text)
    return sums.report()


class _UnreadError(Exception):
    """A line cannot be read; the message says why."""


class _ProviderError(Exception):
    """A line is the error of a provider."""


class _Meters:
    """The meters of a blueprint that are priced, for one response at a time."""

    def __init__(self, blueprint: Blueprint) -> None:
        names = {kind.name for kind in blueprint.events if {field.name for field in kind.fields}.issuperset(BUCKETS)}
        priced = {price.meter for price in blueprint.prices}
        meters = [meter for meter in blueprint.meters if meter.event_name in names and meter.name in priced]
        if not meters or not all(map(_is_of_tokens, meters)):
            raise ConfigurationError(
                f"{blueprint.slug} cannot price a log of tokens: give it an event with {', '.join(BUCKETS)}, and "
                "prices for counts of it and sums of these; `meterprint new NAME --from llm` begins with all of it"
            )
        keys = (None if meter.aggregation.type == "count" else meter.aggregation.key for meter in meters)
        self._meters = [(meter.name, key, remembered(meter)) for meter, key in zip(meters, keys, strict=True)]

    def read(self, usage: Usage) -> dict[str, int]:
        """What a response adds, by meter."""
        metadata = usage.metadata()
        return {name: int(metadata[key]) if key else 1 for name, key, takes in self._meters if takes(metadata)}


def _is_of_tokens(meter: Meter) -> bool:
    how = meter.aggregation
    return how.type == "count" or (how.type == "sum" and how.key in (*BUCKETS, "total_tokens"))


@dataclass(slots=True)
class _Miscount:
    """What a naive way has counted wrong so far, and by customer what its meters read too much."""

    responses: int = 0
    right: int = 0
    counted: int = 0
    surplus: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter[str]))


class _Sums:
    """All that is added up."""

    def __init__(self, blueprint: Blueprint) -> None:
        self._meters = _Meters(blueprint)
        self._prices = blueprint.prices
        self._lines = Lines()
        self._models = defaultdict[tuple[str, str], Counter[str]](Counter)
        self._customers = defaultdict[str, Counter[str]](Counter)
        self._quantities = defaultdict[str, Counter[str]](Counter)
        self._miscounts = defaultdict[Way, _Miscount](_Miscount)
        self._seen: dict[bytes, int] = {}

    def add(self, number: int, line: bytes) -> None:
        """Take a line."""
        self._lines.total += 1
        try:
            customer, usage, counters = _response(line)
            is_new = self._is_new(customer, usage)
        except _ProviderError:
            self._lines.errors += 1
        except _UnreadError as error:
            self._lines.unread += 1
            _name(self._lines.first_unread, Unread(number, str(error)))
        else:
            if is_new:
                self._count(customer, usage, counters)
                return
            self._lines.repeated += 1
            _name(self._lines.first_repeated, number)
            self._miscount(REPEATED, customer, usage, {}, 0)

    def _is_new(self, customer: str, usage: Usage) -> bool:
        """Whether a response was not counted before."""
        event_id = usage.event_id()
        if event_id != usage.event_id():  # a new one each time, for want of the provider's
            self._lines.without_id += 1
            return True
        key, said = UUID(event_id).bytes, hash((customer, usage))
        if (before := self._seen.get(key)) is None:
            self._seen[key] = said
        elif before != said:
            name = shown(usage.response_id)
            raise _UnreadError(f"its id {name} came before with other numbers, or for another customer")
        return before is None

    def _count(self, customer: str, usage: Usage, counters: Mapping[str, Any]) -> None:
        tokens = {"responses": 1} | {name: getattr(usage, name) for name in BUCKETS}
        self._lines.responses += 1
        self._models[usage.provider, usage.model].update(tokens)
        self._customers[customer].update(tokens)
        quantities = self._meters.read(usage)
        self._quantities[customer].update(quantities)
        for way, naive in miscounts(usage, counters):
            self._miscount(way, customer, naive, quantities, tokens_in(usage, way.buckets))

    def _miscount(self, way: Way, customer: str, naive: Usage, right: Mapping[str, int], tokens: int) -> None:
        """Take what a naive way makes of a response, of which the meters should read this, and count these tokens."""
        miscount = self._miscounts[way]
        miscount.responses += 1
        miscount.right += tokens
        miscount.counted += tokens_in(naive, way.buckets)
        surplus = miscount.surplus[customer]
        surplus.update(self._meters.read(naive))
        surplus.subtract(right)

    def report(self) -> Report:
        """What it comes to."""
        bills = {customer: self._bill(quantities) for customer, quantities in self._quantities.items()}
        total = sum(bill.total for bill in bills.values())
        differences = [
            Difference(way, found.responses, found.right, found.counted, total + self._excess(found, bills))
            for way in WAYS
            if (found := self._miscounts.get(way))
        ]
        currency = self._prices[0].currency
        return Report(self._lines, self._models, self._customers, bills, total, currency, tuple(differences))

    def _excess(self, miscount: _Miscount, bills: Mapping[str, Invoice]) -> int:
        """How much more all customers together would pay, in minor units."""
        changed = {customer: self._quantities[customer] + more for customer, more in miscount.surplus.items()}
        return sum(self._bill(quantities).total - bills[customer].total for customer, quantities in changed.items())

    def _bill(self, quantities: Mapping[str, int]) -> Invoice:
        return invoice(self._prices, {meter: Decimal(quantity) for meter, quantity in quantities.items()})


def _name(named: list[Any], item: object) -> None:
    if len(named) < MOST_NAMED:
        named.append(item)


def _response(line: bytes) -> tuple[str, Usage, Mapping[str, Any]]:
    """The customer, the usage and the counters of a line.

    Raises:
        _UnreadError: It has none, or wrong ones.
        _ProviderError: It is the error of a provider.
    """
    outer = fields = _object(line, "")
    provider = ""
    if outer.get("response") is not None:
        provider, fields = _text(outer, "provider"), _object(outer["response"], "response: ")
    fields, counters = _counted(fields)
    if _is_piece(fields):
        raise _UnreadError("a piece of a stream, not its end: log the response that the SDK makes of all pieces")
    usage, faults = read(fields, provider=provider)
    if faults:
        raise _UnreadError("; ".join(faults))
    return _text(outer, "customer_id"), usage, counters


def _object(value: object, place: str) -> Mapping[str, Any]:
    """A JSON object, or the one in a text."""
    if isinstance(value, (bytes, str)):
        value = _parsed(value, place)
    if not isinstance(value, dict):
        raise _UnreadError(f"{place}JSON, but no object")
    return value


def _parsed(text: bytes | str, place: str) -> object:
    try:
        return json.loads(text if isinstance(text, str) else text.decode(), parse_constant=_refused)
    except json.JSONDecodeError as error:
        raise _UnreadError(f"{place}no JSON: {error.msg} (character {error.pos + 1})") from None
    except UnicodeDecodeError:
        raise _UnreadError(f"{place}no UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise _UnreadError(f"{place}no JSON: {error}") from None


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of it")


def _text(fields: Mapping[str, Any], key: str) -> str:
    value = fields.get(key)
    if not isinstance(value, (str, type(None))):
        raise _UnreadError(f"{key} is {shown(value)}, not a text")
    return value or ""


def _counted(fields: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """A response, and its counters."""
    try:
        answer = fields_of(fields)
        counters = counters_in(answer_in(answer))
        counters = counters_in(answer) if counters is None else counters
    except ValidationError:
        answer, counters = fields, None
    if counters is not None:
        return answer, counters
    if fields.get("error"):
        raise _ProviderError
    raise _UnreadError("it has no usage" if "id" in fields or "model" in fields else "no response of a provider")


def _is_piece(fields: Mapping[str, Any]) -> bool:
    """Whether these are counts of a part of a response, which come again later."""
    if fields.get("type") in _PIECES:
        return True
    found = fields.get("candidates")
    candidates = [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []
    return bool(candidates) and not any(item.get("finishReason") or item.get("finish_reason") for item in candidates)
