"""The fast reader of an ingest's body agrees with the rules, or leaves the body to them."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meterprint import Event, ValidationError
from meterprint.blueprints.api_gateway import REQUEST
from meterprint.local import fast, ingest
from meterprint.local.requests import decoded
from meterprint.local.store import Record

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


def by_the_rules(body: bytes) -> list[Record] | None:
    try:
        return [Record.of(event) for event in ingest._events(decoded(body), NOW)]
    except ValidationError:
        return None


def alike(records: Any) -> Any:
    """Records without the text, in which a number may be written in another way; and the kinds of their values."""
    return records and [(*record[:4], record[5], [type(v) for v in record.metadata.values()]) for record in records]


def agrees(body: bytes) -> bool:
    """Whether the fast reader took the body; if it did, it must have been right."""
    found = fast.read(body, NOW)
    if found is None:
        return False
    assert alike(found) == alike(by_the_rules(body))
    assert all(json.loads(record.text) == record.metadata for record in found)
    return True


def body(*events: Any, **changes: Any) -> bytes:
    one = {"event_id": "e1", "customer_id": "cus_ada", "event_name": "n", **changes}
    return json.dumps({"events": events or [one]}, ensure_ascii=False).encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_an_ordinary_body_is_read_fast(separators: tuple[str, str]) -> None:
    events = [Event(f"e{n}", "cus_ada", REQUEST.name, NOW, REQUEST.sample()) for n in range(1000)]
    text = json.dumps({"events": [event.to_wire() for event in events]}, separators=separators)
    assert agrees(text.encode())
    assert alike(fast.read(text.encode(), NOW)) == alike([Record.of(event) for event in events])


texts = st.one_of(
    st.sampled_from(
        ["", " ", "\t", "\u00a0", "a", "å", "\U0001f600", "\ud800", '"', "\\", "\x00", "x" * 500, "x" * 501]
    ),
    st.text(max_size=5),
)
numbers = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([2**63, -(2**63) - 1, 2**64, 10**300, 2**1022, 2**1023, 10**400, 1e308, -0.0, 5e-324]),
)
moments = st.one_of(
    st.none(),
    st.sampled_from(
        [
            "2026-11-24T09:30:00Z",
            "2026-11-24t09:30:00z",
            "2026-11-24 09:30:00Z",
            "2026-11-24T09:30:00",
            "2026-11-24T09:30Z",
            "2026-11-24T09:30:00.1234567Z",
            "2026-11-24T09:30:00.9999999Z",
            "2026-11-24T09:30:60Z",
            "2026-11-24T24:00:00Z",
            "2026-11-24T10:30:00+01:00",
            "2026-11-24T10:30:00+0100",
            "2026-11-24T10:30:00+01",
            "2026-11-24T09:30:00-00:00",
            "2026-11-24T09:30:00,5Z",
            "2026-02-30T09:30:00Z",
            "0001-01-01T00:00:00+23:59",
            "1795512600",
            "",
        ]
    ),
    st.builds(
        lambda seconds, micro, offset: (
            (NOW + timedelta(seconds=seconds, microseconds=micro))
            .astimezone(timezone(timedelta(minutes=offset)))
            .isoformat()
        ),
        st.sampled_from([-3601, -3600, -3599, 0, 299, 300, 301]),
        st.sampled_from([-1, 0, 1, 999_999]),
        st.sampled_from([-720, -1, 0, 60, 330]),
    ),
    numbers,
)
metadata = st.one_of(
    st.none(),
    st.dictionaries(texts, st.one_of(texts, numbers, st.booleans(), st.none(), st.just([1]), st.just({})), max_size=3),
    st.sampled_from([{"x" * 100: 1}, {"x" * 101: 1}, {f"k{n}": n for n in range(50)}, {f"k{n}": n for n in range(51)}]),
    st.just([]),
    texts,
)
fields = st.fixed_dictionaries(
    {"event_id": texts, "customer_id": texts, "event_name": texts},
    optional={"timestamp": moments, "metadata": metadata, "extra": st.just(1)},
)


@given(st.lists(fields, max_size=3))
def test_whatever_the_fast_reader_takes_it_reads_by_the_rules(events: list[Any]) -> None:
    agrees(body(*events))


@given(fields)
def test_one_field_that_is_odd_is_read_by_the_rules(odd: dict[str, Any]) -> None:
    for key, value in odd.items():
        agrees(body(**{key: value}))


@given(st.binary(max_size=5), st.integers(0, 200))
@example(b"\xff", 20)
@example(b"", 30)
def test_a_body_that_is_cut_or_spoiled_is_read_by_the_rules(junk: bytes, place: int) -> None:
    good = body(timestamp="2026-11-24T09:30:00Z", metadata={"tokens": 12, "model": "m", "ok": True})
    agrees(good[:place] + junk + good[place + len(junk) :])
    agrees(good[:place])


@pytest.mark.parametrize(
    "text",
    [
        '{"events":[{"event_id":"e","customer_id":"c","event_name":"n","event_name":"m"}]}',
        '{"events":[{"event_id":"e","customer_id":"c","event_name":"n","metadata":{"k":1,"k":2}}]}',
        '{"events":[{"event_id":"e","customer_id":"c","event_name":"n","metadata":{"k":1},"metadata":{"k":1}}]}',
        '{"events":[],"events":[{"event_id":"e","customer_id":"c","event_name":"n"}]}',
        '{"events":[{"event_id":"e","customer_id":"c","event_name":"n","timestamp":null,"timestamp":null}]}',
        '{"events":[{"event_id":"e","customer_id":"c","event_name":"n","metadata":{"k":NaN}}]}',
        '{"events":[{"event_id":"e","customer_id":"c","event_name":"n"},{"event_id":"e","customer_id":"c","event_name":"n"}]}',
        "[" * 100_000,
        '{"events":' * 100_000,
    ],
)
def test_keys_that_stand_twice_and_the_like_are_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        ingest.read(text.encode(), NOW)
