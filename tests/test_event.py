"""Events: every limit of the contract, at its border."""

import re
import time
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterprint import Event, Problem, ValidationError
from meterprint.event import MAX_EVENTS, check_batch, format_timestamp, parse_timestamp

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
ids = texts.filter(str.strip)
values = st.one_of(
    texts, st.booleans(), st.integers(-(10**15), 10**15), st.floats(allow_nan=False, allow_infinity=False)
)
times = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))


def event(**values: Any) -> Event:
    return Event(**{"event_id": "e", "customer_id": "cus_ada", "event_name": "api.request", "timestamp": NOW, **values})


def problems(**values: Any) -> list[Problem]:
    with pytest.raises(ValidationError) as caught:
        event(**values)
    return list(caught.value.problems)


@pytest.mark.parametrize(
    "metadata",
    [
        {f"key_{number}": number for number in range(50)},
        {"k" * 100: 1},
        {"k": "v" * 500},
        {"k": ""},
        {"k": True, "l": 0, "m": -1.5, "n": 2**63},
        {},
    ],
    ids=["50 keys", "100 characters of key", "500 characters of value", "an empty string", "numbers", "nothing"],
)
def test_metadata_up_to_the_limit_is_taken(metadata: dict[str, Any]) -> None:
    assert event(metadata=metadata).metadata == metadata


@pytest.mark.parametrize(
    ("metadata", "pointer", "reason"),
    [
        ({f"key_{n}": n for n in range(51)}, "/metadata", "51 keys: at most 50 are allowed"),
        ({"k" * 101: 1}, "/metadata", "has 101 characters: at most 100 are allowed"),
        ({"": 1}, "/metadata", 'the key "" is not a non-empty string'),
        ({1: 1}, "/metadata", "the key 1 is not a non-empty string"),
        ({"k": "v" * 501}, "/metadata/k", "501 characters: at most 500 are allowed"),
        ({"k": None}, "/metadata/k", "null is not a string, number or boolean"),
        ({"k": [1]}, "/metadata/k", "[1] is not a string, number or boolean: flatten it"),
        ({"k": {"a": 1}}, "/metadata/k", "is not a string, number or boolean: flatten it"),
        ({"k": float("nan")}, "/metadata/k", "nan is not a finite number: leave the key out"),
        ({"k": float("inf")}, "/metadata/k", "inf is not a finite number"),
        ({"k": -float("inf")}, "/metadata/k", "-inf is not a finite number"),
        ({"k": 10**400}, "/metadata/k", "the number is too large"),
        ({"k": "\ud800"}, "/metadata/k", "surrogate"),
        ({"a/b~c": None}, "/metadata/a~1b~0c", "null"),
        ([("k", 1)], "/metadata", "is not an object of keys and values"),
        (None, "/metadata", "null is not an object of keys and values"),
    ],
)
def test_metadata_beyond_the_limit_is_refused_by_name(metadata: Any, pointer: str, reason: str) -> None:
    (problem,) = problems(metadata=metadata)
    assert (problem.pointer, problem.code) == (pointer, "INVALID_METADATA")
    assert reason in problem.reason


@pytest.mark.parametrize("name", ["event_id", "customer_id", "event_name"])
@pytest.mark.parametrize("value", ["", "  ", None, 7, "\udfff"])
def test_an_identifier_is_text_that_says_something(name: str, value: Any) -> None:
    (problem,) = problems(**{name: value})
    assert (problem.pointer, problem.code) == (f"/{name}", "INVALID_REQUEST_BODY")


def test_a_naive_timestamp_is_refused_with_the_fix() -> None:
    (problem,) = problems(timestamp=datetime(2026, 11, 24, 9, 30))
    assert (problem.pointer, problem.code) == ("/timestamp", "INVALID_TIMESTAMP")
    assert problem.reason == (
        "2026-11-24T09:30:00 has no UTC offset: write 2026-11-24T09:30:00Z, or in Python datetime.now(UTC)"
    )


def test_a_timestamp_that_is_no_datetime_is_refused() -> None:
    (problem,) = problems(timestamp="2026-11-24T09:30:00Z")
    assert problem.reason == '"2026-11-24T09:30:00Z" is not a datetime'


def test_all_problems_are_named_at_once() -> None:
    found = problems(event_id="", timestamp=None, metadata={"a": None, "b": [1]})
    assert [problem.pointer for problem in found] == ["/event_id", "/timestamp", "/metadata/a", "/metadata/b"]


def test_the_timestamp_is_now_and_in_utc() -> None:
    assert abs(Event("e", "c", "n").timestamp - datetime.now(UTC)) < timedelta(seconds=5)
    local = NOW.astimezone(timezone(timedelta(hours=2)))
    assert event(timestamp=local).timestamp.tzinfo is UTC
    assert event(timestamp=local).timestamp == NOW


def test_an_event_keeps_its_metadata_when_the_caller_changes_theirs() -> None:
    metadata = {"k": 1}
    made = event(metadata=metadata)
    metadata["k"] = 2
    assert made.metadata == {"k": 1}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-11-24T09:30:00Z", NOW),
        ("2026-11-24t09:30:00z", NOW),
        ("2026-11-24T10:30:00+01:00", NOW),
        ("2026-11-24T09:30:00.123456789Z", NOW.replace(microsecond=123456)),
        ("2028-02-29T00:00:00Z", datetime(2028, 2, 29, tzinfo=UTC)),
    ],
)
def test_rfc_3339_is_understood(text: str, meant: datetime) -> None:
    assert parse_timestamp(text) == meant


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2026-11-24T09:30:00", "has no UTC offset: write 2026-11-24T09:30:00Z"),
        ("2026-11-24", "is not an RFC 3339 time: write it like"),
        ("20261124T093000Z", "is not an RFC 3339 time"),
        ("2026-W48-2T09:30:00Z", "is not an RFC 3339 time"),
        ("2026-11-24 09:30:00Z", "is not an RFC 3339 time"),
        ("2027-02-29T00:00:00Z", "is no time on the calendar"),
        ("2026-11-24T24:30:00Z", "is no time on the calendar"),
        ("0001-01-01T00:00:00+10:00", "is no time on the calendar"),
        ("9999-12-31T23:59:59-10:00", "is no time on the calendar"),
        (1764000000, "is not an RFC 3339 time"),
        (None, "is not an RFC 3339 time"),
        ("x" * 1000, "..."),
    ],
)
def test_any_other_time_is_refused_with_an_example(text: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        parse_timestamp(text)
    assert len(str(caught.value)) < 200


@given(times)
def test_a_time_survives_the_wire(moment: datetime) -> None:
    assert parse_timestamp(format_timestamp(moment)) == moment


@given(ids, ids, ids, times, st.dictionaries(texts, values, max_size=8))
def test_an_event_survives_the_wire(event_id: str, customer: str, name: str, moment: datetime, metadata: Any) -> None:
    made = Event(event_id, customer, name, moment, metadata)
    assert Event.from_wire(made.to_wire()) == made


@pytest.mark.parametrize(
    ("data", "pointer", "reason"),
    [
        ([], "", "an event is a JSON object, not []"),
        ({"customer_id": "c", "event_name": "n"}, "/event_id", "missing"),
        ({"event_id": "e", "customer_id": "c", "event_name": "n", "meta": {}}, "/meta", "unknown field"),
        ({"event_id": "e", "customer_id": 1, "event_name": "n"}, "/customer_id", "1 is not a non-empty string"),
        ({"event_id": "e", "customer_id": "c", "event_name": "n", "metadata": []}, "/metadata", "not an object"),
    ],
)
def test_what_is_no_event_is_refused_by_name(data: Any, pointer: str, reason: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Event.from_wire(data)
    (problem,) = caught.value.problems
    assert problem.pointer == pointer
    assert reason in problem.reason


def test_an_event_without_timestamp_or_metadata_gets_them() -> None:
    data = {"event_id": "e", "customer_id": "c", "event_name": "n", "timestamp": None, "metadata": None}
    assert Event.from_wire(data, now=NOW) == Event("e", "c", "n", NOW)


def test_what_an_api_stores_besides_is_passed_over_only_when_reading() -> None:
    data = event().to_wire() | {"business_id": "bus_1"}
    assert Event.from_wire(data, strict=False) == event()
    with pytest.raises(ValidationError, match="/business_id: unknown field"):
        Event.from_wire(data)


def test_id_for_is_the_same_in_every_process() -> None:
    assert Event.id_for("openai", "resp_1") == "e3671243-3829-5138-af06-e9a77337620a"


def test_id_for_keeps_different_things_apart() -> None:
    assert len({Event.id_for("ab", "c"), Event.id_for("a", "bc"), Event.id_for("abc"), Event.id_for("c", "ab")}) == 4


@given(st.lists(texts, min_size=1, max_size=4), st.lists(texts, min_size=1, max_size=4))
def test_id_for_is_equal_only_for_equal_parts(one: list[str], other: list[str]) -> None:
    assert (Event.id_for(*one) == Event.id_for(*other)) is (one == other)


@pytest.mark.parametrize("parts", [(), ("",), ("order", "")])
def test_id_for_refuses_parts_that_name_nothing(parts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="at least one part, and none empty"):
        Event.id_for(*parts)


def test_new_ids_are_unique_ordered_by_time_and_of_version_7() -> None:
    made = [Event.new_id() for _ in range(10_000)]
    assert len(set(made)) == 10_000
    parsed = uuid.UUID(made[0])
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert abs((parsed.int >> 80) / 1000 - time.time()) < 5
    first = Event.new_id()
    time.sleep(0.002)
    assert first < Event.new_id()


def test_a_batch_holds_1_to_1000_events() -> None:
    many = [event(event_id=f"e{number}") for number in range(MAX_EVENTS + 1)]
    check_batch(many[:1])
    check_batch(many[:MAX_EVENTS])
    with pytest.raises(ValidationError, match="no events: send between 1 and 1,000"):
        check_batch([])
    with pytest.raises(ValidationError, match="1,001 events: send at most 1,000") as caught:
        check_batch(many)
    assert caught.value.code == "TOO_MANY_EVENTS"


def test_an_id_that_stands_twice_in_a_batch_is_named_with_both_places() -> None:
    with pytest.raises(ValidationError) as caught:
        check_batch([event(event_id=name) for name in "abcab"])
    assert [problem.pointer for problem in caught.value.problems] == ["/events/3/event_id", "/events/4/event_id"]
    assert caught.value.problems[0].reason == '"a" is also the id of event 0: give each event its own'
    assert caught.value.code == "DUPLICATE_EVENT_ID"


MICROSECOND = timedelta(microseconds=1)


@pytest.mark.parametrize("age", [timedelta(hours=1), timedelta(0), -timedelta(minutes=5)])
def test_an_event_of_the_last_hour_or_the_next_5_minutes_is_of_age(age: timedelta) -> None:
    assert event(timestamp=NOW - age).age_problem(NOW) is None


@pytest.mark.parametrize(
    ("age", "reason"),
    [
        (timedelta(hours=1) + MICROSECOND, "is older than 1 hour (now: 2026-11-24T09:30:00.000000Z): check the clock"),
        (-timedelta(minutes=5) - MICROSECOND, "is more than 5 minutes ahead (now: 2026-11-24T09:30:00.000000Z)"),
    ],
)
def test_an_event_outside_of_that_window_is_not(age: timedelta, reason: str) -> None:
    problem = event(timestamp=NOW - age).age_problem(NOW)
    assert problem
    assert (problem.pointer, problem.code) == ("/timestamp", "INVALID_TIMESTAMP")
    assert reason in problem.reason
