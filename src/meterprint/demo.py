"""An hour of believable usage, derived from the blueprints: what `meterprint demo` plays."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from .blueprint import Blueprint, Field, Sample
from .client import MeteringClient
from .event import Event, MetadataValue, format_timestamp

# The metering API takes events of the last hour: what is left of it is for the time that playing takes.
HOUR = timedelta(minutes=55)
EVENTS = 5_000
CUSTOMERS: Mapping[str, int] = {  # and how much of the usage is theirs, in percent
    "cus_ada": 40,
    "cus_bo": 25,
    "cus_cleo": 15,
    "cus_dag": 10,
    "cus_eve": 7,
    "cus_finn": 3,
}

_MINUTES = HOUR // timedelta(minutes=1)
_SLOTS = 165  # requests with usage: below 240 a minute, the hosted limit that a local metering API can have too
_BURSTS = 3
_REPEATS = (0.2, 0.45, 0.7, 0.95)  # when a batch is sent again, as parts of the hour
_REPEATED = 25


@dataclass(frozen=True, slots=True)
class Draft:
    """An event to be, without its id and date.

    Attributes:
        at: Seconds into the hour.
        customer_id: Who did it.
        event_name: What it was.
        metadata: Its metadata.
    """

    at: float
    customer_id: str
    event_name: str
    metadata: Mapping[str, MetadataValue]

    def event(self, start: datetime) -> Event:
        """The event, in the hour that begins then."""
        moment = start + timedelta(seconds=self.at)
        return Event(Event.new_id(), self.customer_id, self.event_name, moment, self.metadata)


@dataclass(frozen=True, slots=True)
class Step:
    """One request.

    Attributes:
        at: Seconds into the hour.
        drafts: The events to send; none, to send some of those before again.
        mistake: What is done to the last of them on the wire, so that the request is refused; None for usage.
    """

    at: float
    drafts: tuple[Draft, ...] = ()
    mistake: Callable[[dict[str, Any]], None] | None = None


@dataclass(slots=True)
class Tally:
    """What has been sent so far.

    Attributes:
        sent: Events.
        stored: Events that were new.
        duplicates: Events whose ids were known.
        refused: The error code of each request that was refused.
    """

    sent: int = 0
    stored: int = 0
    duplicates: int = 0
    refused: list[str] = field(default_factory=list[str])


def hour(blueprints: Sequence[Blueprint], seed: int) -> list[Step]:
    """The requests of an hour, in their order; the same for the same seed."""
    rng = random.Random(seed)  # noqa: S311  # usage, not a secret
    bursts = {(rng.choice(list(CUSTOMERS)), rng.randrange(_MINUTES)) for _ in range(_BURSTS)}
    drafts = [
        draft
        for blueprint in blueprints
        for customer_id, share in CUSTOMERS.items()
        for draft in _usage(blueprint, customer_id, round(EVENTS / len(blueprints) * share / 100), bursts, rng)
    ]
    drafts.sort(key=lambda draft: draft.at)
    seconds = HOUR.total_seconds()
    steps = [Step(at=_end(slot), drafts=tuple(own)) for slot, own in _by_slot(drafts)]
    steps += [Step(part * seconds) for part in _REPEATS]
    for number, mistake in enumerate(_MISTAKES, start=1):
        part = number / (len(_MISTAKES) + 1)
        steps.append(Step(part * seconds, tuple(rng.sample(drafts, 3)), mistake))
    return sorted(steps, key=lambda step: step.at)


def play(
    client: MeteringClient,
    steps: Sequence[Step],
    now: datetime,
    seconds: float,
    tally: Tally,
    *,
    tell: Callable[[float], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Send the requests of an hour that ends now.

    Args:
        client: Of a local metering API.
        steps: What to send.
        now: The end of the hour.
        seconds: How long it may take.
        tally: What was sent is added to it, whatever ends the play.
        tell: Told how much is done, from 0 to 1.
        clock: What time it is, in seconds; for tests.
        sleep: How to wait; for tests.
    """
    start, begun = now - HOUR, clock()
    before: list[Event] = []
    for number, step in enumerate(steps, start=1):
        pause = begun + step.at / HOUR.total_seconds() * seconds - clock()
        if pause > 0:
            sleep(pause)
        if step.mistake:
            _blunder(client, [draft.event(start) for draft in step.drafts], step.mistake, tally)
        else:
            events = [draft.event(start) for draft in step.drafts] or before[:_REPEATED]
            _send(client, events, tally)
            before = events
        tell(number / len(steps))


def _send(client: MeteringClient, events: Sequence[Event], tally: Tally) -> None:
    result = client.ingest(events)
    tally.sent += len(events)
    tally.stored += result.ingested_count
    tally.duplicates += result.duplicate_count


def _blunder(
    client: MeteringClient, events: Sequence[Event], mistake: Callable[[dict[str, Any]], None], tally: Tally
) -> None:
    items = [event.to_wire() for event in events]
    mistake(items[-1])
    answer = client.ingest_once(json.dumps({"events": items}).encode())
    tally.sent += len(items)
    if answer.result:
        tally.stored += answer.result.ingested_count
    else:
        tally.refused.append(answer.code or "no answer")


def _stale(item: dict[str, Any]) -> None:
    """The clock of a machine that is in another time zone, and does not say so."""
    item["timestamp"] = format_timestamp(datetime.fromisoformat(item["timestamp"]) - timedelta(hours=2))


def _null(item: dict[str, Any]) -> None:
    """A value that was not known when the event was sent."""
    item["metadata"][next(iter(item["metadata"]), "plan")] = None


def _misspelt(item: dict[str, Any]) -> None:
    item["customerId"] = item.pop("customer_id")


def _nested(item: dict[str, Any]) -> None:
    """Metadata as another system has them."""
    item["metadata"] = {"data": item["metadata"]}


_MISTAKES = (_stale, _null, _misspelt, _nested)


def _usage(
    blueprint: Blueprint, customer_id: str, count: int, bursts: set[tuple[str, int]], rng: random.Random
) -> Iterator[Draft]:
    """The usage of one customer, who has a taste of his own and is awake at times of his own."""
    shift = rng.uniform(-0.15, 0.15)
    minutes = range(_MINUTES)
    busy = [_curve(minute / _MINUTES + shift) * (8 if (customer_id, minute) in bursts else 1) for minute in minutes]
    taste = [sample.times * rng.uniform(0.5, 1.5) for sample in blueprint.samples]
    fields = {kind.name: {field.name: field for field in kind.fields} for kind in blueprint.events}
    for minute, sample in zip(
        rng.choices(minutes, busy, k=count), rng.choices(blueprint.samples, taste, k=count), strict=True
    ):
        metadata = _varied(sample, fields[sample.event_name], rng)
        yield Draft((minute + rng.random()) * 60, customer_id, sample.event_name, metadata)


def _curve(part: float) -> float:
    """How busy it is: the hour is a day, with its night, and a dip at noon."""
    day = math.sin(math.pi * min(max(part, 0.0), 1.0)) ** 2
    return 0.1 + day * (1 - 0.4 * math.exp(-(((part - 0.5) / 0.08) ** 2)))


def _varied(sample: Sample, fields: Mapping[str, Field], rng: random.Random) -> dict[str, MetadataValue]:
    """The metadata of a sample in another size. Quantities grow together: so parts still make their total."""
    size = rng.lognormvariate(0, 0.6)
    return {
        key: _scaled(value, rng.lognormvariate(0, 0.6) if fields[key].measured else size) if fields[key].unit else value
        for key, value in sample.metadata.items()
    }


def _scaled(value: MetadataValue, factor: float) -> MetadataValue:
    if isinstance(value, (bool, str)) or not value:
        return value
    return max(round(value * factor), 1) if isinstance(value, int) else round(value * factor, 3)


def _by_slot(drafts: Iterable[Draft]) -> Iterator[tuple[int, list[Draft]]]:
    slots: dict[int, list[Draft]] = {}
    for draft in drafts:
        slots.setdefault(int(draft.at / HOUR.total_seconds() * _SLOTS), []).append(draft)
    yield from slots.items()


def _end(slot: int) -> float:
    return (slot + 1) / _SLOTS * HOUR.total_seconds()
