"""Accepted is not billed: what an event lacks to be counted, said when it is ingested."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from ..event import MetadataValue, shown
from ..meter import Meter, likeness
from .store import Record, StoredMeter


def warnings_for(events: Iterable[Record], meters: Sequence[StoredMeter]) -> list[dict[str, str]]:
    """One warning for each event that no meter will bill, or that a meter cannot read.

    Args:
        events: What was stored.
        meters: All meters of the ledger, archived ones too.

    Returns:
        `event_id`, `code` and `message` of each: `no_matching_meter`, `meter_archived`, `missing_key` or `not_numeric`.
    """
    if not meters:
        return []  # nobody has begun to meter: a warning for each event would say nothing
    filters = sorted({key for stored in meters if stored.meter.filter for key in stored.meter.filter.keys})
    read = sorted({stored.meter.aggregation.key for stored in meters if stored.meter.aggregation.key})
    known: dict[Hashable, tuple[str, str] | None] = {}
    warnings: list[dict[str, str]] = []
    for event in events:
        # Events that agree in what the meters look at share their warning: it is worked out once.
        metadata = event.metadata
        alike = event.event_name, likeness(metadata, filters), tuple([_kind(metadata.get(key)) for key in read])
        if alike not in known:
            known[alike] = _warning(event, meters)
        if warning := known[alike]:
            warnings.append({"event_id": event.event_id, "code": warning[0], "message": warning[1]})
    return warnings


def _kind(value: MetadataValue | None) -> Hashable:
    """What matters of a value that a meter reads: one number is as good as another."""
    return (type(value), value) if isinstance(value, (str, bool)) else value is None


def _warning(event: Record, meters: Sequence[StoredMeter]) -> tuple[str, str] | None:
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


def _unreadable(event: Record, meter: Meter) -> tuple[str, str] | None:
    key = meter.aggregation.key
    if key is None:
        return None
    if key not in event.metadata:
        return "missing_key", f"the meter {shown(meter.name)} reads {shown(key)}, which the event lacks"
    value = event.metadata[key]
    if isinstance(value, (str, bool)):
        return "not_numeric", f"the meter {shown(meter.name)} reads {shown(key)}, and {shown(value)} is no number"
    return None
