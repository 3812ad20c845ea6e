"""What every meter reads, beside what ClickHouse reads of the same events. `make oracle` runs it, not `make test`.

SEED in the environment gives other events, meters and questions. A difference is shown with the fewest events found.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from meterprint import Aggregation, Condition, Filter, Meter
from meterprint.event import MetadataValue, parse_timestamp
from meterprint.local import usage
from meterprint.local.sqlite import SQLiteStore
from meterprint.local.store import MemoryStore, Record, Selection, Store, StoredMeter
from meterprint.local.usage import Question
from meterprint.meter import Amount
from oracle.cases import PLACES, Around, Maker
from oracle.clickhouse import ClickHouse, Expected, Place, group_of

SEED = os.environ.get("SEED") or "1"
LEDGER, OTHER = "one", "two"
MOST_TRIES = 300  # to leave events out
NOW = datetime(2026, 11, 24, tzinfo=ZoneInfo("UTC"))

Reader = Callable[[Store, Meter, Question], dict[str, Any]]


@pytest.fixture(scope="session")
def clickhouse() -> Iterator[ClickHouse]:
    opened = ClickHouse()
    yield opened
    opened.close()


def reading(store: Store, meter: Meter, question: Question) -> dict[str, Any]:
    """What the metering API answers."""
    answer = usage.answer(meter, usage.read(store, LEDGER, meter, question), question)
    named, matching = usage.matching(store, LEDGER, meter, question.selection)
    return {**answer, "named_count": named, "matching_count": matching}


def preview(store: Store, meter: Meter, question: Question) -> dict[str, Any]:
    """What it answers before the meter is created: from the events alone."""
    return reading(store, replace(meter, id=None), question)


def seconds(text: str) -> int:
    return int(parse_timestamp(text).timestamp())


def place_of(item: dict[str, Any]) -> Place:
    window = (seconds(item["window_start"]), seconds(item["window_end"])) if "window_start" in item else None
    return Place(window, item.get("customer_id"), group_of(item["group"]) if "group" in item else None)


def differences(expected: Expected, answer: dict[str, Any]) -> list[str]:
    """Where an answer is not what is expected."""
    customers = {item["customer_id"]: Decimal(item["quantity"]) for item in answer["customers"]}
    items = {place_of(item): Decimal(item["quantity"]) for item in answer["items"]}
    pairs: list[tuple[Any, Any, Any]] = [("in all", expected.quantity, Decimal(answer["quantity"]))]
    pairs += [(key, expected.customers.get(key), customers.get(key)) for key in customers | expected.customers]
    pairs += [(place, expected.items.get(place), items.get(place)) for place in items | expected.items]
    found = [
        f"{what}: {theirs} expected, not {own}" for what, theirs, own in pairs if not (theirs and theirs.agrees(own))
    ]
    if len(items) < len(answer["items"]):
        found.append("two items for one place")
    if list(customers) != sorted(customers):
        found.append("customers out of order")
    counts = (answer["named_count"], answer["matching_count"])
    if counts != (expected.named_count, expected.matching_count):
        found.append(f"{expected.named_count} named, {expected.matching_count} matching expected, not {counts}")
    return found


class Case:
    """Events that arrive in ClickHouse and in both stores, and meters that are created meanwhile."""

    def __init__(self, clickhouse: ClickHouse, folder: Path, around: Around, *, exact: bool = True) -> None:
        self.clickhouse, self.exact = clickhouse, exact
        self.maker = Maker(SEED, around, exact=exact)
        self.stores: dict[str, Store] = {"memory": MemoryStore(), "sqlite": SQLiteStore(folder / "ledger.db")}
        self.meters: list[Meter] = []
        self.sent: list[Record] = []
        clickhouse.clear(exact=exact)

    def close(self) -> None:
        for store in self.stores.values():
            store.close()

    def grow(self, meters: int, events: int) -> None:
        """Create meters; then new events arrive, and some ids again."""
        for meter in self.maker.meters(meters):
            self.meters.append(replace(meter, id=f"mtr_{len(self.meters)}"))
            for store in self.stores.values():
                store.put_meter(LEDGER, StoredMeter(self.meters[-1], NOW, NOW))
        self.send(self.maker.records(events))
        self.send(self.maker.again(self.sent))

    def send(self, records: Sequence[Record]) -> None:
        choose = self.maker.random.choice
        self.clickhouse.add(records)
        self.sent += records
        for store in self.stores.values():
            store.add_events(OTHER, records[::-1])
            store.add_events(LEDGER, records)
        for _ in range(choose((0, 1, 2))):
            self.stores["sqlite"].catch_up(choose((1, 7, 100, 1000, 5000)))

    def questions(self, count: int) -> Iterator[tuple[Meter, Question]]:
        """Meters, and what they are asked."""
        return ((self.maker.random.choice(self.meters), self.maker.question()) for _ in range(count))

    def compare(self, meter: Meter, question: Question, *readers: Reader) -> None:
        """Let both stores answer one question."""
        expected = self.clickhouse.read(meter, question)
        for (kind, store), read in product(self.stores.items(), readers):
            if found := differences(expected, read(store, meter, question)):
                pytest.fail("\n".join([f"{kind}, SEED={SEED}", *found[:5], *self.shown(kind, meter, question, read)]))

    def shown(self, kind: str, meter: Meter, question: Question, read: Reader) -> list[str]:
        """A question, and the fewest events found over which its answers differ."""

        def differs(records: Sequence[Record]) -> bool:
            self.clickhouse.clear(exact=self.exact)
            self.clickhouse.add(records)
            with anew(kind, meter, records) as store:
                return bool(differences(self.clickhouse.read(meter, question), read(store, meter, question)))

        events = fewest(self.sent, differs)
        return [json.dumps(meter.to_wire()), repr(question), f"{len(events)} events show it:", *map(repr, events[:5])]


@contextmanager
def anew(kind: str, meter: Meter, records: Sequence[Record]) -> Iterator[Store]:
    """A new store with one meter and some events."""
    with TemporaryDirectory() as folder:
        store = MemoryStore() if kind == "memory" else SQLiteStore(Path(folder, "ledger.db"))
        store.put_meter(LEDGER, StoredMeter(meter, NOW, NOW))
        for record in records:  # one by one, as an id may come again
            store.add_events(LEDGER, [record])
        yield store
        store.close()


def fewest(records: Sequence[Record], differs: Callable[[Sequence[Record]], bool]) -> Sequence[Record]:
    """As few of the events as still differ: halves are left out, then quarters, and so on, for as long as it pays."""
    size, tries = len(records) // 2, 0
    while size and tries < MOST_TRIES:
        index = 0
        while index < len(records):
            rest = [*records[:index], *records[index + size :]]
            tries += 1
            if rest and differs(rest):
                records = rest
            else:
                index += size
        size //= 2
    return records


@pytest.fixture
def case(clickhouse: ClickHouse, tmp_path: Path) -> Iterator[Case]:
    made = Case(clickhouse, tmp_path, Around("Europe/Stockholm", "2026-10-25", "an hour back"))
    made.grow(meters=24, events=2000)
    yield made
    made.close()


@pytest.mark.parametrize("exact", [True, False], ids=["decimals", "floats"])
@pytest.mark.parametrize("around", PLACES, ids=lambda around: f"{around.zone}: {around.what}")
def test_a_meter_reads_what_clickhouse_reads(
    clickhouse: ClickHouse, tmp_path: Path, around: Around, exact: bool
) -> None:
    with closing(Case(clickhouse, tmp_path, around, exact=exact)) as case:
        for _ in range(3):
            case.grow(meters=4, events=1000)
            for meter, question in case.questions(20):
                case.compare(meter, question, reading, preview)


@pytest.mark.parametrize(
    "around", [place for place in PLACES if "half" not in place.what], ids=lambda place: place.zone
)
def test_clickhouse_has_the_same_windows_where_no_clock_moves_by_half_an_hour(
    clickhouse: ClickHouse, around: Around
) -> None:
    clickhouse.clear(exact=True)
    clickhouse.add(Maker(SEED, around).records(100))
    for window in ("minute", "hour", "day"):
        assert clickhouse.strange_windows(Question(Selection(), window, ZoneInfo(around.zone))) == []


# The oracle checked: a reading that is broken on purpose must not agree with it.


class LastToArrive(Aggregation):
    def merged(self, amount: Amount, later: Amount) -> Amount:
        return later if self.type == "last" else super().merged(amount, later)


class Floats(Aggregation):
    def merged(self, amount: Amount, later: Amount) -> Amount:
        if self.type != "sum":
            return super().merged(amount, later)
        return Amount(Decimal(repr(float(amount.quantity) + float(later.quantity))))


class ReadsText(Aggregation):
    def amount(self, metadata: Mapping[str, MetadataValue], at: int) -> Amount | None:
        value = metadata.get(self.key or "")
        if self.key and isinstance(value, str) and value.isdigit():
            return Amount(Decimal(value), at)
        return super().amount(metadata, at)


class TakesMissing(Condition):
    def matches(self, metadata: Mapping[str, MetadataValue]) -> bool:
        return super().matches(metadata) or ("not" in self.operator and self.key not in metadata)


def lax(rules: Filter) -> Filter:
    clauses = [
        lax(clause) if isinstance(clause, Filter) else TakesMissing(clause.key, clause.operator, clause.value)
        for clause in rules.clauses
    ]
    return Filter(rules.conjunction, tuple(clauses))


def with_aggregation(kind: type[Aggregation]) -> Reader:
    def read(store: Store, meter: Meter, question: Question) -> dict[str, Any]:
        aggregation = kind(meter.aggregation.type, meter.aggregation.key)
        return preview(store, replace(meter, aggregation=aggregation), question)

    return read


def with_lax_filter(store: Store, meter: Meter, question: Question) -> dict[str, Any]:
    return preview(store, replace(meter, filter=meter.filter and lax(meter.filter)), question)


def with_days_of_utc(store: Store, meter: Meter, question: Question) -> dict[str, Any]:
    return reading(store, meter, replace(question, zone=ZoneInfo("UTC")))


def with_the_end(store: Store, meter: Meter, question: Question) -> dict[str, Any]:
    end = question.selection.end
    selection = replace(question.selection, end=None if end is None else end + 1)
    return reading(store, meter, replace(question, selection=selection))


def with_those_resent(store: Store, meter: Meter, question: Question) -> dict[str, Any]:
    again = [record._replace(event_id=f"{record.event_id} again") for record in store.records(OTHER, Selection())]
    store.add_events(LEDGER, again[:20])
    return reading(store, meter, question)


def with_no_totals(store: Store, meter: Meter, question: Question) -> dict[str, Any]:
    assert isinstance(store, SQLiteStore)
    store._db.execute("DELETE FROM totals")
    return reading(store, meter, question)


@pytest.mark.parametrize(
    "read",
    [
        with_aggregation(LastToArrive),
        with_aggregation(Floats),
        with_aggregation(ReadsText),
        with_lax_filter,
        with_days_of_utc,
        with_the_end,
        with_those_resent,
        with_no_totals,
    ],
    ids=[
        "last by arrival",
        "sums of floats",
        "text read as a number",
        "a negative operator that takes a missing key",
        "days of UTC",
        "the end included",
        "events that count again",
        "totals that are lost",
    ],
)
def test_the_oracle_notices(case: Case, read: Reader) -> None:
    noticed = (
        differences(case.clickhouse.read(meter, question), read(case.stores["sqlite"], meter, question))
        for meter, question in case.questions(200)
    )
    assert any(noticed)


def test_a_difference_is_shown_with_the_fewest_events(case: Case) -> None:
    def compare_many(read: Reader) -> None:
        for meter, question in case.questions(200):
            case.compare(meter, question, read)

    with pytest.raises(pytest.fail.Exception, match="\n[1-3] events show it:\nRecord"):
        compare_many(with_aggregation(LastToArrive))
