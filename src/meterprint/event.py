"""An event: one thing that a customer did, with the limits that the metering contract sets."""

from __future__ import annotations

import hashlib
import math
import os
import re
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, TypeAlias

from .errors import Problem, ValidationError

MetadataValue: TypeAlias = str | int | float | bool

# The limits of the contract (POST /events/ingest).
MAX_EVENTS = 1_000
MAX_BODY_BYTES = 5 * 1024 * 1024
MAX_METADATA_PAIRS = 50
MAX_KEY_LENGTH = 100
MAX_VALUE_LENGTH = 500
OLDEST = timedelta(hours=1)
NEWEST = timedelta(minutes=5)
MOST_NAMED = 20  # unknown fields of one object that an error names

_IDENTIFIERS = ("event_id", "customer_id", "event_name")
_FIELDS = (*_IDENTIFIERS, "timestamp", "metadata")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?")
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "meterprint")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def utc_now() -> datetime:
    """The current time, with its UTC offset."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that a customer did. Checked when made: an `Event` that exists can be sent.

    Attributes:
        event_id: The idempotency key: the metering API counts each id once. Derive it from what
            happened (`Event.id_for`), or take a new one (`Event.new_id`) and keep it for every retry.
        customer_id: Who is billed.
        event_name: What happened, for example `api.request`. A meter matches on it.
        timestamp: When it happened, with a UTC offset; now, if not given.
        metadata: At most 50 pairs; keys of at most 100 characters; values are strings of at most
            500 characters, finite numbers or booleans.

    Raises:
        ValidationError: A value breaks one of these limits; each is named.
    """

    event_id: str
    customer_id: str
    event_name: str
    timestamp: datetime = field(default_factory=utc_now)
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict[str, MetadataValue])

    def __post_init__(self) -> None:
        if problems := self._problems():
            raise ValidationError(problems)
        object.__setattr__(self, "timestamp", self.timestamp.astimezone(UTC))
        object.__setattr__(self, "metadata", dict(self.metadata))

    def _problems(self) -> list[Problem]:
        problems = [
            Problem(f"/{name}", reason) for name in _IDENTIFIERS if (reason := _identifier_fault(getattr(self, name)))
        ]
        if reason := _timestamp_fault(self.timestamp):
            problems.append(Problem("/timestamp", reason, "INVALID_TIMESTAMP"))
        return problems + _metadata_problems(self.metadata)

    @staticmethod
    def id_for(*parts: str) -> str:
        """The event id of something that has a natural key.

        The same parts give the same id (UUIDv5, RFC 9562), in every process and on every retry.

        Args:
            *parts: What names the thing, from wide to narrow: `Event.id_for("openai", response.id)`.

        Raises:
            ValueError: No part, or one that is empty: different things would share an id.
        """
        if not parts or not all(parts):
            raise ValueError(f"id_for{parts!r}: give at least one part, and none empty")
        name = "\x1f".join([f"{len(part)}:{part}" for part in parts])
        # As str(uuid.uuid5(_NAMESPACE, name)), in half the time: this is within a customer's call.
        text = hashlib.sha1(_NAMESPACE.bytes + name.encode(), usedforsecurity=False).hexdigest()
        return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{'89ab'[int(text[16], 16) & 3]}{text[17:20]}-{text[20:32]}"

    @staticmethod
    def new_id() -> str:
        """A new event id, for something without a natural key. Keep it for every retry.

        Time-ordered (UUIDv7, RFC 9562 section 5.7): stores index these several times faster than random ids.
        """
        return time_ordered_id(time.time_ns(), int.from_bytes(os.urandom(10)))

    @classmethod
    def from_wire(cls, data: object, *, now: datetime | None = None, strict: bool = True) -> Event:
        """An event from its JSON object.

        Args:
            data: The decoded JSON value.
            now: The timestamp of an event that has none.
            strict: Refuse unknown fields: a misspelt `metadata` would bill nothing. Off when
                reading what an API stored, which carries more fields.

        Raises:
            ValidationError: `data` is not a valid event.
        """
        if not isinstance(data, dict):
            raise ValidationError([Problem("", f"an event is a JSON object, not {shown(data)}")])
        unknown = islice((key for key in data if strict and key not in _FIELDS), MOST_NAMED)
        faults = [Problem(f"/{key}", unknown_field(key, _FIELDS)) for key in unknown]
        faults += [Problem(f"/{name}", "missing: every event has one") for name in _IDENTIFIERS if name not in data]
        values: dict[str, Any] = {name: data.get(name, "missing") for name in _IDENTIFIERS}
        values["metadata"] = {} if data.get("metadata") is None else data["metadata"]
        values["timestamp"] = now or utc_now()
        if data.get("timestamp") is not None:
            try:
                values["timestamp"] = parse_timestamp(data["timestamp"])
            except ValueError as error:
                faults.append(Problem("/timestamp", str(error), "INVALID_TIMESTAMP"))
        try:
            event = cls(**values)
        except ValidationError as error:
            raise ValidationError([*faults, *error.problems]) from None
        if faults:
            raise ValidationError(faults)
        return event

    def age_problem(self, now: datetime) -> Problem | None:
        """What is wrong with the age: the contract takes at most 1 hour old and 5 minutes ahead."""
        return age_problem(self.timestamp, now)

    def to_wire(self) -> dict[str, Any]:
        """The JSON object of this event, as `POST /events/ingest` takes it."""
        return {
            "event_id": self.event_id,
            "customer_id": self.customer_id,
            "event_name": self.event_name,
            "timestamp": format_timestamp(self.timestamp),
            "metadata": dict(self.metadata),
        }


def time_ordered_id(nanoseconds: int, number: int) -> str:
    """A UUIDv7 (RFC 9562 section 5.7) of a time since 1970, and the lowest 74 bits of a number."""
    high = nanoseconds // 1_000_000 << 16 | 0x7000 | number >> 62 & 0xFFF
    text = f"{high:016x}{0x2 << 62 | number & (1 << 62) - 1:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def check_batch(events: Sequence[Event]) -> None:
    """Hold a batch to the limits of one request: 1 to 1,000 events, no event id twice.

    Raises:
        ValidationError: The batch is empty, too long, or repeats an id.
    """
    if not events:
        raise ValidationError([Problem("/events", "no events: send between 1 and 1,000 in a request")])
    if len(events) > MAX_EVENTS:
        reason = f"{len(events):,} events: send at most {MAX_EVENTS:,} in a request"
        raise ValidationError([Problem("/events", reason, "TOO_MANY_EVENTS")])
    first: dict[str, int] = {}
    problems = [
        Problem(
            f"/events/{index}/event_id",
            f"{shown(event.event_id)} is also the id of event {first[event.event_id]}: give each event its own",
            "DUPLICATE_EVENT_ID",
        )
        for index, event in enumerate(events)
        if first.setdefault(event.event_id, index) != index
    ]
    if problems:
        raise ValidationError(problems)


def age_problem(moment: datetime, now: datetime) -> Problem | None:
    """What is wrong with a time: the contract takes at most 1 hour old and 5 minutes ahead."""
    if -NEWEST <= now - moment <= OLDEST:
        return None
    side = "older than 1 hour" if moment < now else "more than 5 minutes ahead"
    reason = f"{format_timestamp(moment)} is {side} (now: {format_timestamp(now)}): check the clock"
    return Problem("/timestamp", reason, "INVALID_TIMESTAMP")


def parse_timestamp(value: object) -> datetime:
    """A time from its RFC 3339 text.

    Raises:
        ValueError: Not RFC 3339, no such time, or without a UTC offset.
    """
    if not isinstance(value, str) or not (match := _RFC3339.fullmatch(value)):
        raise ValueError(f"{shown(value)} is not an RFC 3339 time: write it like 2026-11-24T09:30:00Z")
    try:
        time = datetime.fromisoformat(value.upper())
        if match[2]:
            return time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{shown(value)} is no time on the calendar") from None
    raise ValueError(_timestamp_fault(time))


def format_timestamp(value: datetime) -> str:
    """A time as RFC 3339 text in UTC, to the microsecond: `2026-11-24T09:30:00.000000Z`."""
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def micros(value: datetime) -> int:
    """A time as microseconds since 1970."""
    return (value - _EPOCH) // _MICROSECOND


def from_micros(value: int) -> datetime:
    """The time that is so many microseconds after 1970, in UTC."""
    return _EPOCH + value * _MICROSECOND


def value_fault(value: object) -> str | None:
    """Why `value` may not stand in metadata or in a filter, or None if it may."""
    if isinstance(value, str):
        if len(value) > MAX_VALUE_LENGTH:
            return f"{len(value)} characters: at most {MAX_VALUE_LENGTH} are allowed"
        return _text_fault(value)
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is not a finite number: leave the key out instead"
    if isinstance(value, int) and value.bit_length() > 1023:
        return "the number is too large: JSON readers take at most 1.8e308"
    if isinstance(value, (int, float)):
        return None
    return f"{shown(value)} is not a string, number or boolean: flatten it into keys of their own, or leave it out"


def _identifier_fault(value: object) -> str | None:
    if not isinstance(value, str) or not value.strip():
        return f"{shown(value)} is not a non-empty string"
    return _text_fault(value)


def _text_fault(value: str) -> str | None:
    if value.isascii():
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        return f"{value!a} holds half of a surrogate pair, which is no text in UTF-8"
    return None


def _timestamp_fault(value: object) -> str | None:
    if not isinstance(value, datetime):
        return f"{shown(value)} is not a datetime"
    if value.utcoffset() is None:
        text = value.isoformat()
        return f"{text} has no UTC offset: write {text}Z, or in Python datetime.now(UTC)"
    return None


def _metadata_problems(metadata: object) -> list[Problem]:
    if not isinstance(metadata, Mapping):
        return [Problem("/metadata", f"{shown(metadata)} is not an object of keys and values", "INVALID_METADATA")]
    if len(metadata) > MAX_METADATA_PAIRS:
        too_many = f"{len(metadata)} keys: at most {MAX_METADATA_PAIRS} are allowed"
        return [Problem("/metadata", too_many, "INVALID_METADATA")]
    faults: list[tuple[str, str]] = []
    for key, value in metadata.items():
        if not isinstance(key, str) or not key:
            faults.append(("", f"the key {shown(key)} is not a non-empty string"))
        elif len(key) > MAX_KEY_LENGTH:
            faults.append(("", f"the key {shown(key)} has {len(key)} characters: at most {MAX_KEY_LENGTH} are allowed"))
        elif reason := _text_fault(key) or value_fault(value):
            faults.append(("/" + key.replace("~", "~0").replace("/", "~1"), reason))
    return [Problem(f"/metadata{pointer}", reason, "INVALID_METADATA") for pointer, reason in faults]


def unknown_field(key: object, known: Iterable[str]) -> str:
    """What to say of a field that nobody knows."""
    return f"unknown field {shown(key)}: the fields are {', '.join(known)}"


def shown(value: object) -> str:
    """A value as an error message shows it: as JSON writes it, at most 60 characters."""
    names = {None: "null", True: "true", False: "false"}
    text = names[value] if value is None or isinstance(value, bool) else ascii(value)
    if isinstance(value, str):
        text = f'"{text[1:-1]}"'
    return text if len(text) <= 60 else text[:57] + "..."
