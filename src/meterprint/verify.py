"""Whether a metering API bills a blueprint's sample usage as the blueprint says. It prints nothing.

The meters of a local metering API are read by its own addition. A hosted one has no such reading: there the events of
each meter are listed page by page, which applies its filter, and added up here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from .apply import standings
from .blueprint import Blueprint
from .client import MeteringClient
from .errors import APIError, ConfigurationError, ValidationError
from .event import MAX_EVENTS, Event, MetadataValue, shown, utc_now
from .meter import Meter
from .pricing import Invoice, InvoiceLine, invoice, money

Tell: TypeAlias = Callable[[str], None]

WAIT = 60.0  # seconds for events to become visible
LONGEST_PAUSE = 65.0  # seconds: a limit per minute may ask for one
# Below those of the hosted tier 0, 40 requests in a second and 240 in a minute: others may use the same key.
_LIMITS = ((20, 1.0), (220, 60.0))
_LIVE_MODE = "live.dodopayments.com"
_TEST_MODES = ("test.dodopayments.com", "127.0.0.1", "::1", "localhost")
_APART = timedelta(milliseconds=1)


class Pace:
    """Waits before a request that would pass a rate limit; `MeteringClient` takes it as `pace`.

    Args:
        clock: What time it is, in seconds.
        sleep: How to wait.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._times: deque[float] = deque(maxlen=max(count for count, _ in _LIMITS))

    def __call__(self) -> None:
        """Wait until a request may be sent, and count it."""
        ends = [self._times[-count] + seconds for count, seconds in _LIMITS if len(self._times) >= count]
        if (pause := max(ends, default=0.0) - self._clock()) > 0:
            self._sleep(pause)
        self._times.append(self._clock())


@dataclass(frozen=True, slots=True)
class Reading:
    """What one meter must read of the sample usage, and what it read.

    Attributes:
        meter: As the metering API has it.
        expected: By the definition.
        measured: By the metering API.
        causes: If they differ, what that may come from.
    """

    meter: Meter
    expected: Decimal
    measured: Decimal
    causes: tuple[str, ...] = ()

    @property
    def is_right(self) -> bool:
        """Whether it read what it must."""
        return self.expected == self.measured


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a verification.

    Attributes:
        sent: The events that were sent.
        readings: One for each meter.
        expected: The invoice that the definition makes of the sample usage.
        measured: The invoice for what was read; None if a meter reads less than nothing.
    """

    sent: tuple[Event, ...]
    readings: tuple[Reading, ...]
    expected: Invoice
    measured: Invoice | None

    @property
    def is_right(self) -> bool:
        """Whether every meter and the invoice are as defined."""
        return not self.wrong and self.measured == self.expected

    @property
    def wrong(self) -> list[Reading]:
        """The meters that read something else."""
        return [reading for reading in self.readings if not reading.is_right]

    @property
    def lines(self) -> list[tuple[InvoiceLine, InvoiceLine | None]]:
        """Each line of the invoice, as expected and as measured."""
        measured = self.measured.lines if self.measured else [None] * len(self.expected.lines)
        return list(zip(self.expected.lines, measured, strict=True))


def is_live(url: str) -> bool:
    """Whether this is the address of a live mode that is known as one."""
    return urlsplit(url).hostname == _LIVE_MODE


def may_bill(url: str) -> bool:
    """Whether usage that is sent to this address may reach an invoice: any host that is not known for tests alone."""
    host = urlsplit(url).hostname or ""
    return host not in _TEST_MODES and not host.endswith((".test", ".localhost"))


def faults(blueprint: Blueprint) -> list[str]:
    """Where a definition disagrees with itself: no metering API can bill what it says. Empty if nowhere."""
    events = list(blueprint.sample_events("cus_ada"))
    found = [] if events else ["there are no samples"]
    for event in events:
        try:
            blueprint.check(event)
        except ValidationError as error:
            found.append(f"a sample of {event.event_name} is none of its events: {error}")
    for meter in blueprint.meters:
        read, wanted = meter.measure(events), blueprint.quantities.get(meter.name)
        if read != wanted:
            said = "nothing" if wanted is None else f"{wanted:,f}"
            found.append(f"quantities says {said} of {meter.name!r}, which reads {read:,f} of the samples")
    names = {meter.name for meter in blueprint.meters}
    found += [f"{name!r} is none of its meters" for name in {*blueprint.quantities, *_priced(blueprint)} - names]
    total = invoice(blueprint.prices, blueprint.quantities).total
    if total != blueprint.invoice_total:
        found.append(f"invoice_total says {blueprint.invoice_total}, the prices make {total} of its quantities")
    return list(dict.fromkeys(found))


def _priced(blueprint: Blueprint) -> list[str]:
    return [price.meter for price in blueprint.prices]


def _say_nothing(text: str) -> None:
    pass


def verify(
    client: MeteringClient,
    blueprint: Blueprint,
    customer_id: str,
    *,
    is_local: bool,
    wait: float = WAIT,
    tell: Tell = _say_nothing,
    sleep: Callable[[float], None] = time.sleep,
) -> Verdict:
    """Send the sample usage of a blueprint, read it back, and compare it with the definition.

    Args:
        client: Of the metering API; where that has a rate limit, one with a `Pace`.
        blueprint: What to send, and what to expect.
        customer_id: Whose usage it becomes; one that has none yet.
        is_local: Whether the metering API has the local additions.
        wait: Seconds that events may take to become visible.
        tell: Told what is being done.
        sleep: How to wait; for tests.

    Raises:
        ConfigurationError: The definition disagrees with itself, a meter is not there, or the customer has usage.
        APIError: The metering API refused something.
        UnreachableError: It did not answer.
    """
    if found := faults(blueprint):
        raise ConfigurationError(f"the definition of {blueprint.slug} disagrees with itself:\n  " + "\n  ".join(found))
    meters = _meters(client, blueprint)
    if next(client.events(customer_id=customer_id), None):
        raise ConfigurationError(f"{customer_id} has usage already: give a customer that has none, or leave it out")
    sent = sample_events(blueprint, customer_id, client.now() if is_local else utc_now())
    _send(client, sent, tell)
    if is_local:
        quantities = _read_usage(client, meters, customer_id)
        stored = None
    else:
        stored = _visible(client, sent, wait, tell, sleep)
        quantities = _read_events(client, meters, customer_id, tell)
    if any(quantities[name] != blueprint.quantities[name] for name in quantities) and stored is None:
        stored = _listed(client, tell, "looking for the cause", customer_id=customer_id)
    return compare(blueprint, meters, quantities, sent, stored or [])


def sample_events(blueprint: Blueprint, customer_id: str, now: datetime) -> list[Event]:
    """The sample usage up to now, a millisecond apart: so the last of them is the same for everybody."""
    events = list(blueprint.sample_events(customer_id))
    return [replace(event, timestamp=now - (len(events) - index) * _APART) for index, event in enumerate(events)]


def compare(
    blueprint: Blueprint,
    meters: Sequence[Meter],
    quantities: Mapping[str, Decimal],
    sent: Sequence[Event],
    stored: Sequence[Event],
) -> Verdict:
    """What was read beside what the definition says.

    Args:
        blueprint: The definition.
        meters: As the metering API has them.
        quantities: What each of them read, by name.
        sent: The events that were sent.
        stored: The events that the metering API lists; looked at only where something differs.
    """
    readings = [Reading(meter, blueprint.quantities[meter.name], quantities[meter.name]) for meter in meters]
    try:
        measured = invoice(blueprint.prices, quantities)
    except ValidationError:
        measured = None
    return Verdict(
        tuple(sent),
        tuple(
            reading if reading.is_right else replace(reading, causes=tuple(_causes(reading, sent, stored)))
            for reading in readings
        ),
        invoice(blueprint.prices, blueprint.quantities),
        measured,
    )


def total_of(bill: Invoice | None) -> str:
    """The total of an invoice as people write it."""
    return money(bill.total, bill.lines[0].price.currency) if bill and bill.lines else "none"


def _causes(reading: Reading, sent: Sequence[Event], stored: Sequence[Event]) -> Iterator[str]:
    meter, there = reading.meter, {event.event_id: event for event in stored}
    counted = [event for event in sent if meter.matches(event)]
    lost = [event for event in counted if event.event_id not in there]
    changed = [
        change for event in sent if event.event_id in there and (change := _change(event, there[event.event_id]))
    ]
    strange = len(there.keys() - {event.event_id for event in sent})
    if lost:
        yield (
            f"{len(lost):,} of the {len(counted):,} events that it counts are not there, "
            f"{lost[0].event_id} for one: lost, or still on their way"
        )
    if changed:
        yield f"{len(changed):,} events came back otherwise than they were sent: {changed[0]}"
    if strange:
        yield f"{strange:,} events of the customer are there that were not sent: does something else bill it?"
    if not (lost or changed or strange):
        yield (
            f"every event is there as it was sent, and by the definition they make {meter.measure(sent):,f}: "
            f"the meter there adds up or filters otherwise (GET /meters/{meter.id} shows its definition)"
        )


def _change(event: Event, other: Event) -> str | None:
    """How the metadata of an event came back, if not as they were sent."""
    for key in (*event.metadata, *other.metadata):
        before, after = event.metadata.get(key), other.metadata.get(key)
        if before != after or isinstance(before, bool) != isinstance(after, bool):
            return f"{key} was {_word(before)} and is {_word(after)}"
    return None


def _word(value: MetadataValue | None) -> str:
    return "missing" if value is None else shown(value)


def _meters(client: MeteringClient, blueprint: Blueprint) -> list[Meter]:
    found = standings(client, blueprint.meters)
    if missing := [standing.meter.name for standing in found if standing.state != "there"]:
        raise ConfigurationError(
            f"{len(missing)} of {len(found)} meters are not there or not in use ({', '.join(missing)}): "
            f"`meterprint apply` creates them, or says what stands in the way"
        )
    return [standing.found for standing in found if standing.found]


def _send(client: MeteringClient, events: Sequence[Event], tell: Tell) -> None:
    for start in range(0, len(events), MAX_EVENTS):
        tell(f"sending events: {start:,} of {len(events):,}")
        _send_batch(client, events[start : start + MAX_EVENTS])


def _send_batch(client: MeteringClient, events: Sequence[Event]) -> None:
    try:
        client.ingest(events)
    except APIError as error:
        if error.status != 413 or len(events) == 1:
            raise
        half = len(events) // 2
        _send_batch(client, events[:half])
        _send_batch(client, events[half:])


def _read_usage(client: MeteringClient, meters: Sequence[Meter], customer_id: str) -> dict[str, Decimal]:
    return {meter.name: client.usage(meter.id or "", customer_id=customer_id) for meter in meters}


def _read_events(client: MeteringClient, meters: Sequence[Meter], customer_id: str, tell: Tell) -> dict[str, Decimal]:
    """Each meter's quantity, by the events that the metering API lists for it. The contract has them newest first."""
    return {
        meter.name: meter.aggregation.of(
            reversed(_listed(client, tell, f"reading {meter.name}", customer_id=customer_id, meter_id=meter.id))
        )
        for meter in meters
    }


def _listed(client: MeteringClient, tell: Tell, what: str, **query: Any) -> list[Event]:
    events: list[Event] = []
    for event in client.events(**query):
        if len(events) % 100 == 0:
            tell(f"{what}: {len(events):,} events")
        events.append(event)
    return events


def _visible(
    client: MeteringClient, sent: Sequence[Event], wait: float, tell: Tell, sleep: Callable[[float], None]
) -> list[Event]:
    """The customer's events: all that were sent, or those that there are when waiting has had its time."""
    pause, waited = 1.0, 0.0
    while True:
        stored = _listed(client, tell, "reading back", customer_id=sent[0].customer_id)
        if len(stored) >= len(sent) or waited + pause > wait:
            return stored
        tell(f"waiting until all are visible: {len(stored):,} of {len(sent):,} events")
        sleep(pause)
        waited += pause
        pause = min(pause * 2, 10.0)
