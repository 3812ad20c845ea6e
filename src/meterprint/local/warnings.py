"""Accepted is not billed: what an event lacks to be counted, said when it is ingested."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..event import Event, shown
from ..meter import Condition, Filter, Meter
from .store import StoredMeter


def warnings_for(events: Iterable[Event], meters: Sequence[StoredMeter]) -> list[dict[str, str]]:
    """One warning for each event that no meter will bill, or that a meter cannot read.

    Args:
        events: What was stored.
        meters: All meters of the ledger, archived ones too.

    Returns:
        `event_id`, `code` and `message` of each: `no_matching_meter`, `meter_archived`, `missing_key` or `not_numeric`.
    """
    if not meters:
        return []  # nobody has begun to meter: a warning for each event would say nothing
    keys = sorted({key for stored in meters for key in _keys(stored.meter)})
    known: dict[Any, tuple[str, str] | None] = {}
    warnings: list[dict[str, str]] = []
    for event in events:
        # Events that agree in what the meters look at share their warning: it is worked out once.
        values = tuple([event.metadata.get(key) for key in keys])
        likeness = (event.event_name, values, tuple(map(type, values)))
        if likeness not in known:
            known[likeness] = _warning(event, meters)
        if warning := known[likeness]:
            warnings.append({"event_id": event.event_id, "code": warning[0], "message": warning[1]})
    return warnings


def _keys(meter: Meter) -> Iterator[str]:
    if meter.aggregation.key:
        yield meter.aggregation.key
    clauses: list[Filter | Condition] = [meter.filter] if meter.filter else []
    while clauses:
        clause = clauses.pop()
        if isinstance(clause, Condition):
            yield clause.key
        else:
            clauses += clause.clauses


def _warning(event: Event, meters: Sequence[StoredMeter]) -> tuple[str, str] | None:
    named = [stored for stored in meters if stored.meter.event_name == event.event_name]
    matching = [stored for stored in named if stored.meter.matches(event)]
    active = [stored.meter for stored in matching if not stored.archived]
    if not named:
        names = ", ".join(sorted({shown(stored.meter.event_name) for stored in meters}))
        return "no_matching_meter", f"no meter counts {shown(event.event_name)}: the meters count {names}"
    if not matching:
        return "no_matching_meter", f"no filter of the meters of {shown(event.event_name)} takes these metadata"
    if not active:
        return (
            "meter_archived",
            f"only archived meters count it: unarchive {shown(matching[0].meter.name)}, or make another",
        )
    return next((fault for meter in active if (fault := _unreadable(event, meter))), None)


def _unreadable(event: Event, meter: Meter) -> tuple[str, str] | None:
    key = meter.aggregation.key
    if key is None:
        return None
    if key not in event.metadata:
        return "missing_key", f"the meter {shown(meter.name)} reads {shown(key)}, which the event lacks"
    value = event.metadata[key]
    if isinstance(value, (str, bool)):
        return "not_numeric", f"the meter {shown(meter.name)} reads {shown(key)}, and {shown(value)} is no number"
    return None
