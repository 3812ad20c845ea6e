"""The hot path: it sends what `Event` would, and is sure only of what `Event` takes."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterprint import Event, ValidationError
from meterprint.wire import body_of, is_plain, line_of, stamped, without_repeats

texts = st.text(max_size=20) | st.text(st.characters(max_codepoint=127), min_size=1, max_size=20)
values = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.just("x" * 501) | st.lists(st.integers())
metadata = st.dictionaries(texts | st.just("k" * 101), values, max_size=5)


@given(texts, texts, metadata)
def test_what_is_plain_makes_an_event(name: str, customer_id: str, data: dict[str, Any]) -> None:
    if is_plain(name, customer_id, data):
        Event("e1", customer_id, name, metadata=data)


@pytest.mark.parametrize(
    ("name", "customer_id", "data"),
    [
        ("", "c", {}),
        ("n", " ", {}),
        ("n", None, {}),
        (3, "c", {}),
        ("n", "c", {"": 1}),
        ("n", "c", {1: 1}),
        ("n", "c", {"k" * 101: 1}),
        ("n", "c", {"k": "x" * 501}),
        ("n", "c", {"k": float("nan")}),
        ("n", "c", {"k": float("inf")}),
        ("n", "c", {"k": 1 << 1024}),
        ("n", "c", {"k": None}),
        ("n", "c", {"k": []}),
        ("n", "c", {"k": "\ud800"}),
        ("n", "c", {f"k{number}": 1 for number in range(51)}),
    ],
)
def test_what_breaks_a_rule_is_not_plain(name: Any, customer_id: Any, data: Any) -> None:
    assert not is_plain(name, customer_id, data)
    with pytest.raises(ValidationError):
        Event("e1", customer_id, name, metadata=data)


def test_the_usual_event_is_plain() -> None:
    assert is_plain("api.request", "cus_ada", {"endpoint": "/a", "n": 1, "f": 0.5, "b": True})


good_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
moments = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
good_values = (
    st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | good_text
)


@given(good_text, good_text, good_text, moments, st.dictionaries(good_text, good_values, max_size=5))
def test_a_line_is_the_event_on_the_wire(
    event_id: str, customer_id: str, name: str, moment: datetime, data: dict[str, Any]
) -> None:
    event = Event(event_id, customer_id, name, moment, data)
    line = line_of(stamped(event, 0))
    assert json.loads(line) == event.to_wire()
    assert b"\n" not in line
    assert json.loads(body_of([line, line])) == {"events": [event.to_wire()] * 2}


@given(st.lists(st.tuples(st.sampled_from(['a"b', "c,d", '","customer_id":', "\\"]), good_text)))
def test_of_lines_with_one_id_one_is_left(pairs: list[tuple[str, str]]) -> None:
    lines = [line_of(stamped(Event(event_id, customer, "n"), 0)) for event_id, customer in pairs]
    left = [json.loads(line)["event_id"] for line in without_repeats(lines)]
    assert left == list(dict.fromkeys(event_id for event_id, _ in pairs))


def test_ids_follow_from_time_and_number_and_order_by_time() -> None:
    lines = [json.loads(line_of((n * 10**6, 2**74 - 1 - n, "n", "c", {}, None)))["event_id"] for n in range(1, 2000)]
    assert lines == sorted(lines)
    assert len(set(lines)) == len(lines)
    assert {line[14] for line in lines} == {"7"}
    assert {line[19] for line in lines} <= set("89ab")
