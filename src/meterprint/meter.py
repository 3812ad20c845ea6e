"""A meter: which events it matches, and what they add up to."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal
from operator import ge, gt, le, lt
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar, get_args

from .errors import Problem, ValidationError
from .event import Event, MetadataValue, micros, shown, unknown_field, value_fault

T = TypeVar("T")
AggregationType = Literal["count", "sum", "max", "last"]
Conjunction = Literal["and", "or"]
Operator = Literal[
    "equals",
    "not_equals",
    "greater_than",
    "greater_than_or_equals",
    "less_than",
    "less_than_or_equals",
    "contains",
    "does_not_contain",
]
Clause: TypeAlias = "Condition | Filter"

# The limits of the contract (meters): the root and three levels below it, 1 to 10 clauses each.
MAX_FILTER_LEVELS = 4
MAX_CLAUSES = 10

# Wide enough for the sum of any finite floats, which end at 308 and 324 digits: exact, whatever their order.
_EXACT = Context(prec=700)
_MOST_REMEMBERED = 10_000


class Measurable(Protocol):
    """What a meter looks at: an `Event`, or what a store keeps of one."""

    @property
    def event_name(self) -> str:
        """Its name."""
        ...

    @property
    def metadata(self) -> Mapping[str, MetadataValue]:
        """Its metadata."""
        ...


class Amount(NamedTuple):
    """What some events add up to.

    Attributes:
        quantity: The number.
        at: The latest time that a value was read at, in microseconds since 1970.
        arrival: Which arrived last of those at that time, where amounts may be merged in any order.
    """

    quantity: Decimal
    at: int = 0
    arrival: int = 0


_ONE = Amount(Decimal(1))


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison with one metadata value.

    A missing key never matches, negative operators included. Nothing is converted: the string "5"
    and the number 5 are different. Order operators compare numbers with numbers and strings with
    strings; `contains` and `does_not_contain` take strings. Strings are compared case-sensitively.

    Attributes:
        key: The metadata key, without a `metadata.` prefix.
        operator: The comparison.
        value: What the metadata value is compared with.

    Raises:
        ValidationError: An unknown operator, or a value that it cannot take.
    """

    key: str
    operator: Operator
    value: MetadataValue

    def __post_init__(self) -> None:
        _require_text(self.key, "/key")
        _require_choice(self.operator, get_args(Operator), "/operator", "operator")
        if reason := value_fault(self.value) or self._value_fault():
            raise ValidationError([Problem("/value", reason)])

    def _value_fault(self) -> str | None:
        if "contain" in self.operator and not isinstance(self.value, str):
            return f"{shown(self.value)} is not a string, which {self.operator} needs"
        if "than" in self.operator and isinstance(self.value, bool):
            return f"{shown(self.value)} has no order: use equals or not_equals"
        return None

    def matches(self, metadata: Mapping[str, MetadataValue]) -> bool:
        """Whether the metadata of an event fulfils this condition."""
        if self.key not in metadata:
            return False
        actual, value = metadata[self.key], self.value
        alike = _kind(actual) is _kind(value)
        if self.operator == "equals":
            return alike and actual == value
        if self.operator == "not_equals":
            return not alike or actual != value
        if not alike:
            return False
        return _compare(self.operator, actual, value)

    def to_wire(self) -> dict[str, Any]:
        """The JSON object of this condition."""
        return {"key": self.key, "operator": self.operator, "value": self.value}


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions, or filters, joined by `and` or `or`.

    Attributes:
        conjunction: Whether every clause must match (`and`) or one is enough (`or`).
        clauses: 1 to 10 of them, all conditions or all filters; at most three levels of filters
            below the root.

    Raises:
        ValidationError: One of these limits is broken.
    """

    conjunction: Conjunction
    clauses: tuple[Clause, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "clauses", tuple(self.clauses))
        _require_choice(self.conjunction, get_args(Conjunction), "/conjunction", "conjunction")
        if not 1 <= len(self.clauses) <= MAX_CLAUSES:
            reason = f"{len(self.clauses)} clauses: give between 1 and {MAX_CLAUSES}"
            raise ValidationError([Problem("/clauses", reason)])
        if len({type(clause) for clause in self.clauses}) > 1:
            reason = "conditions and filters mixed: make every clause a condition, or every one a filter"
            raise ValidationError([Problem("/clauses", reason)])
        if self.levels > MAX_FILTER_LEVELS:
            raise ValidationError([_too_deep("/clauses")])

    @property
    def levels(self) -> int:
        """How many levels of filters there are: 1 for a filter of conditions."""
        return 1 + max(clause.levels if isinstance(clause, Filter) else 0 for clause in self.clauses)

    @property
    def keys(self) -> frozenset[str]:
        """The metadata keys that it looks at."""
        return frozenset().union(
            *(clause.keys if isinstance(clause, Filter) else {clause.key} for clause in self.clauses)
        )

    def matches(self, metadata: Mapping[str, MetadataValue]) -> bool:
        """Whether the metadata of an event passes this filter."""
        join = all if self.conjunction == "and" else any
        return join(clause.matches(metadata) for clause in self.clauses)

    def to_wire(self) -> dict[str, Any]:
        """The JSON object of this filter."""
        return {"conjunction": self.conjunction, "clauses": [clause.to_wire() for clause in self.clauses]}


@dataclass(frozen=True, slots=True)
class Aggregation:
    """How a meter turns its events into one quantity.

    Attributes:
        type: `count` the events; `sum` a number over them; its `max`; or its `last` value by
            timestamp (ties: the one that arrived last).
        key: The metadata key of the number; none for `count`. Only numbers take part: a numeric string is
            passed over.

    Raises:
        ValidationError: An unknown type, or a key missing where one is needed.
    """

    type: AggregationType
    key: str | None = None

    def __post_init__(self) -> None:
        _require_choice(self.type, get_args(AggregationType), "/type", "aggregation")
        if self.type != "count":
            _require_text(self.key, "/key", f"{self.type} needs the metadata key of the number it reads")
        elif self.key is not None:
            _require_text(self.key, "/key")

    def of(self, events: Iterable[Event]) -> Decimal:
        """The quantity of events that are given in the order of their arrival; 0 for none."""
        total: Amount | None = None
        for event in events:
            if amount := self.amount(event.metadata, micros(event.timestamp)):
                total = self.merged(total, amount) if total else amount
        return total.quantity if total else Decimal(0)

    def amount(self, metadata: Mapping[str, MetadataValue], at: int) -> Amount | None:
        """What one event adds, or None if it has no number to read.

        Args:
            metadata: The event's metadata.
            at: Its time, in microseconds since 1970.
        """
        if self.type == "count":
            return _ONE
        value = metadata.get(self.key or "")
        return Amount(Decimal(repr(value)), at) if _kind(value) is float else None

    def merged(self, amount: Amount, later: Amount) -> Amount:
        """Two amounts as one.

        Args:
            amount: The one whose events arrived first.
            later: The other.
        """
        if self.type in ("count", "sum"):
            return Amount(_EXACT.add(amount.quantity, later.quantity))
        if self.type == "max":
            return later if later.quantity > amount.quantity else amount
        return later if (later.at, later.arrival) >= (amount.at, amount.arrival) else amount

    def to_wire(self) -> dict[str, Any]:
        """The JSON object of this aggregation."""
        return {"type": self.type, "key": self.key}


@dataclass(frozen=True, slots=True)
class Meter:
    """Which events count, and what they add up to.

    Attributes:
        name: What people call it; on the invoice too.
        event_name: The name of the events that it matches, exactly.
        aggregation: How they add up.
        measurement_unit: The unit of the quantity, for example `request`.
        filter: Which of them count, by their metadata; None for all.
        description: What it is for.
        id: The id that the metering API gave it; not part of what makes two meters equal.

    Raises:
        ValidationError: A name or unit is empty.
    """

    name: str
    event_name: str
    aggregation: Aggregation
    measurement_unit: str
    filter: Filter | None = None
    description: str | None = None
    id: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name in ("name", "event_name", "measurement_unit"):
            _require_text(getattr(self, name), f"/{name}")
        if not isinstance(self.description, (str, type(None))):
            raise ValidationError([Problem("/description", f"{shown(self.description)} is not a string")])

    def matches(self, event: Measurable) -> bool:
        """Whether this meter counts the event."""
        return event.event_name == self.event_name and (self.filter is None or self.filter.matches(event.metadata))

    def measure(self, events: Iterable[Event]) -> Decimal:
        """The quantity of the events that match, given in the order of their arrival; 0 for none."""
        return self.aggregation.of(event for event in events if self.matches(event))

    def to_wire(self) -> dict[str, Any]:
        """The JSON object of this meter, as `POST /meters` takes it."""
        return {
            "name": self.name,
            "event_name": self.event_name,
            "aggregation": self.aggregation.to_wire(),
            "measurement_unit": self.measurement_unit,
            "filter": self.filter and self.filter.to_wire(),
            "description": self.description,
        }

    @classmethod
    def from_wire(cls, data: object, *, strict: bool = True) -> Meter:
        """A meter from its JSON object.

        Args:
            data: The decoded JSON value.
            strict: Refuse unknown fields; off when reading what an API stored, which carries more.

        Raises:
            ValidationError: `data` is not a valid meter; the pointer leads to the value.
        """
        known = ("name", "event_name", "aggregation", "measurement_unit", "filter", "description")
        values = _object(data, known, "", required=known[:4], strict=strict)
        aggregation = _object(values["aggregation"], ("type", "key"), "/aggregation", required=("type",), strict=strict)
        rules = values["filter"]
        return cls(
            **{name: values[name] for name in ("name", "event_name", "measurement_unit", "description")},
            aggregation=_built(Aggregation, aggregation, "/aggregation"),
            filter=None if rules is None else _filter(rules, "/filter", 1, strict),
            id=data.get("id") if isinstance(data, dict) and not strict else None,
        )


def likeness(metadata: Mapping[str, MetadataValue], keys: Sequence[str]) -> Hashable:
    """What two events share that are alike in these metadata keys: for a filter on them they are the same."""
    values = tuple([metadata.get(key) for key in keys])
    return values, tuple(map(type, values))  # True and 1 are equal


def remembered(meter: Meter) -> Callable[[Mapping[str, MetadataValue]], bool]:
    """The test of a meter's filter, worked out once for events that are alike."""
    rules = meter.filter
    if rules is None:
        return lambda _: True
    keys, known = sorted(rules.keys), dict[Hashable, bool]()

    def takes(metadata: Mapping[str, MetadataValue]) -> bool:
        alike = likeness(metadata, keys)
        if (answer := known.get(alike)) is None:
            if len(known) == _MOST_REMEMBERED:
                known.clear()
            answer = known[alike] = rules.matches(metadata)
        return answer

    return takes


def _filter(data: object, pointer: str, level: int, strict: bool) -> Filter:
    if level > MAX_FILTER_LEVELS:
        raise ValidationError([_too_deep(pointer)])
    known = ("conjunction", "clauses")
    values = _object(data, known, pointer, required=known, strict=strict)
    if not isinstance(values["clauses"], list):
        raise ValidationError([Problem(f"{pointer}/clauses", f"{shown(values['clauses'])} is not a list")])
    clauses = [
        _clause(clause, f"{pointer}/clauses/{index}", level, strict) for index, clause in enumerate(values["clauses"])
    ]
    return _built(Filter, {**values, "clauses": clauses}, pointer)


def _clause(data: object, pointer: str, level: int, strict: bool) -> Clause:
    if isinstance(data, dict) and ("clauses" in data or "conjunction" in data):
        return _filter(data, pointer, level + 1, strict)
    known = ("key", "operator", "value")
    return _built(Condition, _object(data, known, pointer, required=known, strict=strict), pointer)


def _built(build: Callable[..., T], values: Mapping[str, Any], pointer: str) -> T:
    try:
        return build(**values)
    except ValidationError as error:
        raise error.under(pointer) from None


def _object(
    data: object, known: tuple[str, ...], pointer: str, *, required: tuple[str, ...], strict: bool
) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ValidationError([Problem(pointer, f"{shown(data)} is not a JSON object")])
    faults = [Problem(f"{pointer}/{key}", unknown_field(key, known)) for key in data if strict and key not in known]
    faults += [Problem(f"{pointer}/{name}", "missing") for name in required if name not in data]
    if faults:
        raise ValidationError(faults)
    return {name: data.get(name) for name in known}


def _compare(operator: Operator, actual: Any, value: Any) -> bool:
    if isinstance(value, str) and "contain" in operator:
        return (value in actual) is (operator == "contains")
    compare = {
        "greater_than": gt,
        "greater_than_or_equals": ge,
        "less_than": lt,
        "less_than_or_equals": le,
    }[operator]
    return bool(compare(actual, value))


def _kind(value: object) -> type | None:
    """The kind of a value on the wire: `str`, `bool`, or `float` for every number. A bool is no number."""
    if isinstance(value, bool):
        return bool
    return float if isinstance(value, (int, float)) else str if isinstance(value, str) else None


def _require_text(value: object, pointer: str, reason: str = "") -> None:
    if not isinstance(value, str) or not value.strip():
        raise ValidationError([Problem(pointer, reason or f"{shown(value)} is not a non-empty string")])


def _require_choice(value: object, choices: tuple[str, ...], pointer: str, what: str) -> None:
    if value not in choices:
        raise ValidationError([Problem(pointer, f"unknown {what} {shown(value)}: use one of {', '.join(choices)}")])


def _too_deep(pointer: str) -> Problem:
    levels = MAX_FILTER_LEVELS - 1
    return Problem(pointer, f"filters nested too deep: at most {levels} levels are allowed below the root")
