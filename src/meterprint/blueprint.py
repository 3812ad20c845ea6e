"""A blueprint as data: its events, meters and prices, and usage whose bill is known.

The tables on the pages, the meters that are created, and the check of every event that a snippet
sends are derived from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from .errors import Problem, ValidationError
from .event import Event, MetadataValue, shown
from .meter import Meter
from .pricing import Price

FieldType = Literal["string", "integer", "number", "boolean"]

_PYTHON_TYPES: Mapping[FieldType, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


@dataclass(frozen=True, slots=True)
class Field:
    """One metadata key of an event.

    Attributes:
        name: The key on the wire, in snake_case, with its unit in the name.
        type: The type of its value.
        meaning: What it says, in one sentence.
        example: A value.
        unit: The unit of a number.
        required: Whether every event has it.
        measured: Whether its value differs from run to run (a duration), so that no ledger can hold it.
    """

    name: str
    type: FieldType
    meaning: str
    example: MetadataValue
    unit: str = ""
    required: bool = True
    measured: bool = False

    def fault(self, value: MetadataValue) -> str | None:
        """Why this value may not stand here, or None if it may."""
        types = _PYTHON_TYPES[self.type]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            return f"{shown(value)} is not of type {self.type}"
        return None


@dataclass(frozen=True, slots=True)
class EventType:
    """One kind of event of a blueprint.

    Attributes:
        name: The event name on the wire.
        meaning: When it is sent.
        fields: Its metadata.
    """

    name: str
    meaning: str
    fields: tuple[Field, ...]

    def sample(self, **values: MetadataValue) -> dict[str, MetadataValue]:
        """The metadata of an example event: the example of each required field, with `values` in its place."""
        return {field.name: field.example for field in self.fields if field.required} | values

    def problems(self, event: Event) -> list[Problem]:
        """Where an event departs from this definition."""
        known = {field.name: field for field in self.fields}
        missing = [name for name, field in known.items() if field.required and name not in event.metadata]
        problems = [Problem(f"/metadata/{name}", f"missing: every {self.name} has it") for name in missing]
        for key, value in event.metadata.items():
            field = known.get(key)
            reason = field.fault(value) if field else f"not a field of {self.name}: {', '.join(known)}"
            if reason:
                problems.append(Problem(f"/metadata/{key}", reason, "INVALID_METADATA"))
        return problems


@dataclass(frozen=True, slots=True)
class Sample:
    """A number of equal events, as part of a blueprint's sample usage.

    Attributes:
        event_name: The name of the events.
        metadata: The metadata of each.
        times: How many there are.
    """

    event_name: str
    metadata: Mapping[str, MetadataValue]
    times: int = 1


@dataclass(frozen=True, slots=True)
class Blueprint:
    """Everything that a kind of usage-based billing needs, as data.

    Attributes:
        slug: Its name in addresses, folders and commands.
        title: Its name for people.
        summary: What it meters, in one sentence.
        events: What to send.
        meters: What to create.
        prices: An example price for each meter that is billed.
        samples: The usage of one example customer in one billing period.
        quantities: What each meter must read of the samples, by name.
        invoice_total: What the samples must cost, in minor units (cents).
    """

    slug: str
    title: str
    summary: str
    events: tuple[EventType, ...]
    meters: tuple[Meter, ...]
    prices: tuple[Price, ...]
    samples: tuple[Sample, ...]
    quantities: Mapping[str, Decimal]
    invoice_total: int

    def check(self, event: Event) -> None:
        """Hold an event to the definition.

        Raises:
            ValidationError: An unknown event name; a metadata key that is missing, unknown or of the wrong type.
        """
        kinds = {kind.name: kind for kind in self.events}
        kind = kinds.get(event.event_name)
        reason = f"{shown(event.event_name)} is not an event of {self.slug}: {', '.join(kinds)}"
        problems = kind.problems(event) if kind else [Problem("/event_name", reason)]
        if problems:
            raise ValidationError(problems)

    def sample_events(self, customer_id: str) -> Iterator[Event]:
        """The sample usage as events of a customer, stamped now, each with an id of its own."""
        for sample in self.samples:
            for _ in range(sample.times):
                yield Event(Event.new_id(), customer_id, sample.event_name, metadata=sample.metadata)
