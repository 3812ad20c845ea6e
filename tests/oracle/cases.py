"""Events, meters and questions at random, with all that makes aggregation hard; the same for the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from typing import get_args
from zoneinfo import ZoneInfo

from meterprint import Aggregation, Condition, Event, Filter, Meter
from meterprint.event import MetadataValue, micros
from meterprint.local.store import Record, Selection
from meterprint.local.usage import Question
from meterprint.meter import AggregationType, Clause, Operator

CUSTOMERS = ("cus_ada", "cus_bo", "cus_\u00e5sa", "CUS_ADA", "cus_'\\")
NAMES = ("api.request", "api.request", "api.request", "api.requests", "API.REQUEST")
TEXTS = ("", "pro", "Pro", "free", "5", "1", "true", "/v1/\u00e5", "a'b\\c", "100%_", "\U0001f4c8")
KEYS = ("n", "m", "tier", "n'\\")
COMMON = (0, 1, 1.0, -1, 5, 0.1, 0.2, 0.3, -0.5)
# At most 12 decimals and 60 digits before them, and what floats have beyond that.
HARD = (-0.0, 1e-12, 1e-07, 10**20, -(10**50), 2**53 + 1, 1e21, 1e22, 123456789.123456)
WILD = (-0.0, 1e300, -1e300, 5e-324, 1e-300, 2**53, 0.1, 1e16)


@dataclass(frozen=True)
class Around:
    """A place, and a day on which its clock does something."""

    zone: str
    day: str
    what: str


PLACES = (
    Around("UTC", "2026-06-01", "nothing"),
    Around("Europe/Stockholm", "2026-03-29", "an hour forward"),
    Around("Europe/Stockholm", "2026-10-25", "an hour back"),
    Around("America/New_York", "2026-03-08", "an hour forward"),
    Around("America/New_York", "2026-11-01", "an hour back"),
    Around("Australia/Lord_Howe", "2026-10-04", "half an hour forward"),
    Around("Australia/Lord_Howe", "2026-04-05", "half an hour back"),
    Around("Asia/Kathmandu", "2026-06-01", "nothing, 5:45 ahead"),
    Around("America/Sao_Paulo", "2018-11-04", "no midnight"),
    Around("Africa/Cairo", "2026-10-30", "from midnight into the day before"),
    Around("America/Havana", "2026-11-01", "midnight twice"),
    Around("Antarctica/Troll", "2026-03-29", "two hours forward"),
    Around("Pacific/Apia", "2011-12-30", "no such day"),
)


class Maker:
    """Makes what a case needs.

    Args:
        seed: Of the random numbers.
        around: Where and when.
        exact: Keep to numbers that 12 decimals hold; else to floats of any size.
    """

    def __init__(self, seed: str, around: Around, *, exact: bool = True) -> None:
        self.random = Random(f"{seed} {around} {exact}")
        self._zones = (ZoneInfo(around.zone), ZoneInfo(around.zone), ZoneInfo("UTC"))
        self._exact = exact
        self._day = datetime.fromisoformat(around.day).replace(tzinfo=UTC)
        self._shared = [self._any_moment() for _ in range(50)]
        self._numbers = count()

    def records(self, size: int) -> list[Record]:
        """Events in the order of their arrival, mostly that of their times."""
        moments = sorted(self._moment() for _ in range(size))
        for _ in range(size // 5):  # these arrive late
            moments.append(moments.pop(self.random.randrange(size)))
        return [self._record(f"e{next(self._numbers)}", moment) for moment in moments]

    def again(self, records: Sequence[Record]) -> list[Record]:
        """Events with ids that arrived before, and contents of their own."""
        return [self._record(known.event_id, self._moment()) for known in self.random.sample(records, 20)]

    def meters(self, size: int) -> list[Meter]:
        """Meters of all aggregations, most with a filter."""
        kinds = get_args(AggregationType)
        return [self._meter(kinds[number % len(kinds)], f"mtr_{number}") for number in range(size)]

    def question(self) -> Question:
        """What a meter may be asked."""
        choose = self.random.choice
        start, end = (self._edge() if self._chance(0.5) else None for _ in range(2))
        if start and end and start > end and self._chance(0.9):
            start, end = end, start
        return Question(
            Selection(choose(CUSTOMERS) if self._chance(0.3) else None, None, start, end),
            choose((None, "minute", "hour", "day", "hour", "day")),
            choose(self._zones),
            self._chance(0.4),
            choose(KEYS) if self._chance(0.3) else None,
        )

    def _chance(self, part: float) -> bool:
        return self.random.random() < part

    def _any_moment(self) -> int:
        return micros(self._day) + self.random.randrange(-2 * 86_400_000_000, 3 * 86_400_000_000)

    def _edge(self) -> int:
        """A quarter of an hour that begins, or the microsecond before or after."""
        quarters = timedelta(minutes=15 * self.random.randrange(-4 * 48, 4 * 72))
        return micros(self._day + quarters) + self.random.choice((-1, 0, 0, 0, 1))

    def _moment(self) -> int:
        """Any, or at the edge of a window, or one that others share."""
        kind = self.random.random()
        return self._any_moment() if kind < 0.5 else self._edge() if kind < 0.8 else self.random.choice(self._shared)

    def _record(self, event_id: str, moment: int) -> Record:
        choose = self.random.choice
        metadata = {key: self._value(key) for key in KEYS if self._chance(0.85)}
        event = Event(event_id, choose(CUSTOMERS), choose(NAMES), metadata=metadata)
        return Record.of(event)._replace(timestamp=moment)

    def _value(self, key: str) -> MetadataValue:
        kind = self.random.random()
        numbers = 0.3 if key == "tier" else 0.8
        if kind < numbers:
            return self._number()
        return self.random.choice(TEXTS) if kind < 0.95 else self._chance(0.5)

    def _number(self) -> int | float:
        kind = self.random.random()
        if kind < 0.4:
            return self.random.choice(COMMON)
        if kind < 0.6:
            return self.random.choice(HARD if self._exact else WILD)
        if kind < 0.8:
            return self.random.randrange(-(10**6), 10**6)
        number = self.random.uniform(-1000, 1000)
        return (
            round(number, self.random.randrange(10)) if self._exact else number * 10.0 ** self.random.randrange(-9, 9)
        )

    def _meter(self, kind: AggregationType, meter_id: str) -> Meter:
        aggregation = Aggregation(kind, None if kind == "count" else self.random.choice(KEYS[:3]))
        rules = self._filter(self.random.randint(1, 4)) if self._chance(0.7) else None
        return Meter("M", self.random.choice(NAMES), aggregation, "x", rules, id=meter_id)

    def _filter(self, levels: int) -> Filter:
        clauses: list[Clause] = [
            self._filter(levels - 1) if levels > 1 else self._condition() for _ in range(self.random.randint(1, 3))
        ]
        return Filter(self.random.choice(("and", "or")), tuple(clauses))

    def _condition(self) -> Condition:
        key, operator = self.random.choice(KEYS), self.random.choice(get_args(Operator))
        value = self._value(key)
        if "contain" in operator:
            value = self.random.choice(("", "r", "Pro", "/", "\u00e5", "'", "\\", "%"))
        elif "than" in operator and isinstance(value, bool):
            value = self.random.choice(COMMON)
        return Condition(key, operator, value)
