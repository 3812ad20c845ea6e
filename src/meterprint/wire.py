"""The hot path of delivery: an event as the text that is sent, at a few microseconds each.

It states no rule of its own: what `is_plain` is not sure of goes through `Event`, which knows them all.
"""

from __future__ import annotations

import json
import json.encoder
import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any, TypeAlias

from .event import MAX_KEY_LENGTH, MAX_METADATA_PAIRS, MAX_VALUE_LENGTH, Event, micros, time_ordered_id


def _encoder() -> Callable[[Mapping[str, Any]], str]:
    """`json.JSONEncoder.encode`, with its inner encoder made once and not for each text: a fifth of a line's time.

    The inner encoder is not documented: where it is not what it was, the documented way does the same.
    """
    documented = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
    probe = {"text": 'a"\u00f6', "number": 1, "fraction": 0.5, "truth": True, "nested": {"a": "b"}}
    try:
        inner: Any = vars(json.encoder)["c_make_encoder"](None, None, _quoted, None, ":", ",", False, False, False)
        if "".join(inner(probe, 0)) == documented(probe):
            return lambda data: "".join(inner(data, 0))
    except Exception:  # noqa: BLE001  # whatever changed, there is another way
        return documented
    return documented


_encode = _encoder()
_AFTER_ID = b',"customer_id":'  # cannot stand within an id: a quote in a JSON string is escaped


# A checked event, in the form that costs least to make: nanoseconds since 1970; what makes its id unique; event_name;
# customer_id; metadata, not shared with the caller; event_id, or None for one that follows from the first two.
Stamped: TypeAlias = tuple[int, int, str, str, Mapping[str, Any], str | None]


_MOST_SETS_OF_KEYS = 1000
_plain_keys: set[tuple[str, ...]] = set()


def is_plain(  # noqa: C901, PLR0911  # in one piece: it runs for each event
    event_name: Any, customer_id: Any, metadata: dict[Any, Any]
) -> bool:
    """Whether these surely make an event, metadata a dict; False means only that `Event` must decide."""
    if not (is_identifier(event_name) and is_identifier(customer_id)):
        return False
    keys = tuple(metadata)
    if keys not in _plain_keys and not _learn(keys):
        return False
    for value in metadata.values():
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
    return True


def _learn(keys: tuple[Any, ...]) -> bool:
    """Whether the keys are surely those of metadata. An application has few sets of them: they are looked at once."""
    is_good = len(keys) <= MAX_METADATA_PAIRS and all(
        type(key) is str and key.isascii() and 0 < len(key) <= MAX_KEY_LENGTH for key in keys
    )
    if is_good and len(_plain_keys) < _MOST_SETS_OF_KEYS:
        _plain_keys.add(keys)
    return is_good


def is_identifier(value: Any) -> bool:
    """Whether this is surely a text that may identify something."""
    return type(value) is str and value[:1] > " " and value.isascii()


def stamped(event: Event, number: int) -> Stamped:
    """An `Event` in the form of this module."""
    nanoseconds = micros(event.timestamp) * 1000
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
