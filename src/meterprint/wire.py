"""The hot path of delivery: an event as the text that is sent, at a few microseconds each.

It states no rule of its own: what `is_plain` is not sure of goes through `Event`, which knows them all.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any, TypeAlias

from .event import MAX_KEY_LENGTH, MAX_METADATA_PAIRS, MAX_VALUE_LENGTH, Event, time_ordered_id

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_AFTER_ID = b',"customer_id":'  # cannot stand within an id: a quote in a JSON string is escaped


# A checked event, in the form that costs least to make: nanoseconds since 1970; what makes its id unique; event_name;
# customer_id; metadata, not shared with the caller; event_id, or None for one that follows from the first two.
Stamped: TypeAlias = tuple[int, int, str, str, Mapping[str, Any], str | None]


def is_plain(  # noqa: C901, PLR0911  # in one piece: it runs for each event
    event_name: Any, customer_id: Any, metadata: dict[Any, Any]
) -> bool:
    """Whether these surely make an event, metadata a dict; False means only that `Event` must decide."""
    try:
        if not (is_identifier(event_name) and is_identifier(customer_id) and len(metadata) <= MAX_METADATA_PAIRS):
            return False
        for key, value in metadata.items():
            if type(key) is not str or not key.isascii() or not 0 < len(key) <= MAX_KEY_LENGTH:
                return False
            kind = type(value)
            if kind is str:
                if len(value) > MAX_VALUE_LENGTH or not value.isascii():
                    return False
            elif kind is float:
                if value - value != 0.0:  # NaN and the infinities
                    return False
            elif kind is int:
                if value.bit_length() > 64:
                    return False
            elif kind is not bool:
                return False
    except (TypeError, AttributeError):
        return False
    return True


def is_identifier(value: Any) -> bool:
    """Whether this is surely a text that may identify something."""
    return type(value) is str and value[:1] > " " and value.isascii()


def stamped(event: Event, number: int) -> Stamped:
    """An `Event` in the form of this module."""
    nanoseconds = (event.timestamp - _EPOCH) // _MICROSECOND * 1000
    return nanoseconds, number, event.event_name, event.customer_id, event.metadata, event.event_id


def line_of(event: Stamped) -> bytes:
    """The JSON object of an event, on one line: what `Event.to_wire` gives, as bytes."""
    nanoseconds, number, name, customer_id, metadata, event_id = event
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return (
        f'{{"event_id":{_quoted(event_id or time_ordered_id(nanoseconds, number))}'
        f',"customer_id":{_quoted(customer_id)},"event_name":{_quoted(name)}'
        f',"timestamp":"{_second(seconds)}.{rest // 1000:06d}Z","metadata":{_encode(metadata)}}}'
    ).encode()


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def line_from_wire(event: Mapping[str, Any]) -> bytes:
    """The line of an event that was read and changed."""
    return _encode(event).encode()


def without_repeats(lines: Iterable[bytes]) -> list[bytes]:
    """The lines, each event id once: a request that repeats one is refused whole."""
    return list({line.partition(_AFTER_ID)[0]: line for line in lines}.values())


def body_of(lines: Iterable[bytes]) -> bytes:
    """The body of `POST /events/ingest`."""
    return b'{"events":[' + b",".join(lines) + b"]}"
