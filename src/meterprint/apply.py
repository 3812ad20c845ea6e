"""The meters of a blueprint, and those that a metering API has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from .client import MeteringClient
from .errors import MeterprintError
from .meter import Meter

State = Literal["missing", "there", "archived", "different"]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one meter of a blueprint stands in a metering API.

    Attributes:
        meter: As the blueprint defines it.
        state: Not there; there and in use; there, but archived; or another of its name is there, which measures
            something else.
        found: The meter that is there, with its id.
    """

    meter: Meter
    state: State
    found: Meter | None = None


def measures_alike(one: Meter, other: Meter) -> bool:
    """Whether two meters read the same of the same events: the parts that never change after their creation."""
    return (one.event_name, one.aggregation, one.filter) == (other.event_name, other.aggregation, other.filter)


def standings(client: MeteringClient, meters: Iterable[Meter]) -> list[Standing]:
    """Where each of these meters stands in the metering API of a client."""
    active, archived = list(client.meters()), list(client.meters(archived=True))
    return [_standing(meter, active, archived) for meter in meters]


def _standing(meter: Meter, active: Sequence[Meter], archived: Sequence[Meter]) -> Standing:
    named = [other for other in active if other.name == meter.name]
    if found := _alike(meter, named):
        return Standing(meter, "there", found)
    if named:
        return Standing(meter, "different", named[0])
    if found := _alike(meter, [other for other in archived if other.name == meter.name]):
        return Standing(meter, "archived", found)
    return Standing(meter, "missing")


def _alike(meter: Meter, others: Iterable[Meter]) -> Meter | None:
    return next((other for other in others if measures_alike(meter, other)), None)


def create(client: MeteringClient, meter: Meter) -> Meter:
    """Create a meter, and hold the answer to what was asked for.

    Raises:
        MeterprintError: The metering API made another meter of it.
    """
    created = client.create_meter(meter)
    if not measures_alike(meter, created):
        raise MeterprintError(
            f"the metering API made another meter of {meter.name!r} than it was asked for: {created.to_wire()}. "
            f"Archive it (DELETE /meters/{created.id}): it would bill something else"
        )
    return created


def differences(meter: Meter, other: Meter) -> list[str]:
    """What a meter that is there measures otherwise than it is defined, in words."""
    pairs = {
        "event name": (meter.event_name, other.event_name),
        "aggregation": (meter.aggregation.to_wire(), other.aggregation.to_wire()),
        "filter": (meter.filter and meter.filter.to_wire(), other.filter and other.filter.to_wire()),
    }
    return [f"its {name} is {theirs}, not {ours}" for name, (ours, theirs) in pairs.items() if ours != theirs]
