"""The body of an ingest, checked: every rule of the contract, and every bad event named.

`Event` states the rules. Where msgspec is there, `fast` reads what is surely right, several times faster; what it is
not sure of is read here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import islice
from typing import Any

from ..errors import Problem, ValidationError
from ..event import MAX_EVENTS, MOST_NAMED, Event, check_batch
from .requests import decoded
from .store import Record

_read_fast: Callable[[bytes, datetime], Sequence[Record] | None] | None = None
with suppress(ImportError):  # where there is no msgspec, as in a page
    from .fast import read as _read_fast


def read(body: bytes, now: datetime) -> Sequence[Record]:
    """The events of a body of `POST /events/ingest`.

    Args:
        body: The JSON text.
        now: The time of events that have none, and what their age is held to.

    Raises:
        ValidationError: The body breaks a rule; each bad event is named.
    """
    if _read_fast and (records := _read_fast(body, now)):
        return records
    return [Record.of(event) for event in _events(decoded(body), now)]


def _events(body: Any, now: datetime) -> list[Event]:
    items = body.get("events") if isinstance(body, dict) else None
    if not isinstance(items, list):
        raise ValidationError([Problem("/events", 'the body has the form {"events": [...]}')])
    if unknown := list(islice((key for key in body if key != "events"), MOST_NAMED)):
        raise ValidationError([Problem(f"/{key}", "unknown field: the only one is events") for key in unknown])
    if len(items) > MAX_EVENTS:
        check_batch(items)
    events: list[Event] = []
    problems: list[Problem] = []
    for index, item in enumerate(items):
        try:
            events.append(_event(item, now))
        except ValidationError as error:
            problems += error.under(f"/events/{index}").problems
    if problems:
        raise ValidationError(problems)
    check_batch(events)
    return events


def _event(item: Any, now: datetime) -> Event:
    event = Event.from_wire(item, now=now)
    if problem := event.age_problem(now):
        raise ValidationError([problem])
    return event
