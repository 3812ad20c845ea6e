"""Reads the body of an ingest that is surely right, in a fifth of the time.

It states no rule of its own beyond the limits of `event`: whatever it is not sure of, it leaves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from ..event import (
    MAX_EVENTS,
    MAX_KEY_LENGTH,
    MAX_METADATA_PAIRS,
    MAX_VALUE_LENGTH,
    NEWEST,
    OLDEST,
    micros,
)
from .store import Record

_IDENTIFIERS = ("event_id", "customer_id", "event_name")
_Identifier = Annotated[str, Meta(min_length=1)]
_Key = Annotated[str, Meta(min_length=1, max_length=MAX_KEY_LENGTH)]
_Value = Annotated[str, Meta(max_length=MAX_VALUE_LENGTH)] | bool | int | float


class _Event(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    event_id: _Identifier
    customer_id: _Identifier
    event_name: _Identifier
    timestamp: Annotated[datetime, Meta(tz=True)] | None = None
    metadata: Annotated[dict[_Key, _Value], Meta(max_length=MAX_METADATA_PAIRS)] | None = None


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    events: Annotated[list[_Event], Meta(min_length=1, max_length=MAX_EVENTS)]


# Beyond it, a number may be larger than the contract takes.
_LONG = 300
# msgspec takes more for a time than RFC 3339 has, and rounds what is finer than a microsecond.
_STRICT_TIME = re.compile(rb'"timestamp"\s*:\s*"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)"')
_decode = msgspec.json.Decoder(_Body).decode
_encode = msgspec.json.Encoder().encode


def read(body: bytes, now: datetime) -> Sequence[Record] | None:
    """The events of a body, or None if they must be read with every rule in mind."""
    if b"\\" in body:
        return None
    try:
        events = _decode(body).events
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    times = body.count(b'"timestamp"')
    if times != len(_STRICT_TIME.findall(body)):
        return None
    ids, customers, names = ([getattr(event, name) for event in events] for name in _IDENTIFIERS)
    metadata = [event.metadata or {} for event in events]
    texts = [_encode(pairs).decode() for pairs in metadata]
    default = micros(now)
    # Exact until the year 2255.
    moments = [int(e.timestamp.timestamp() * 1e6 + 0.5) if e.timestamp else default for e in events]
    # Of a body without backslashes, two for each string: it shows a key that stands twice.
    quotes = 2 + 12 * len(events) + 4 * times + 2 * sum(e.metadata is not None for e in events)
    is_sure = (
        quotes + "".join(texts).count('"') == body.count(b'"')
        and micros(now - OLDEST) <= min(moments)
        and max(moments) <= micros(now + NEWEST)
        and max(map(len, texts)) <= _LONG
        and len(distinct := set(ids)) == len(ids)
        and not any(map(str.isspace, distinct.union(customers, names)))
    )
    if not is_sure:
        return None
    rows = zip(ids, customers, names, moments, texts, metadata, strict=True)
    return [tuple.__new__(Record, row) for row in rows]  # twice as fast as Record(*row)
