"""The local metering API: the contract, over both stores."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from conftest import Clock
from meterprint import Condition, Event, Filter, Meter, ValidationError
from meterprint.event import format_timestamp
from meterprint.local.app import create_app
from meterprint.local.sqlite import SQLiteStore
from meterprint.local.store import MemoryStore
from meterprint.testing import InProcess

METER = {
    "name": "Bytes",
    "event_name": "api.request",
    "aggregation": {"type": "sum", "key": "bytes"},
    "measurement_unit": "byte",
    "filter": {"conjunction": "and", "clauses": [{"key": "ok", "operator": "equals", "value": True}]},
}


def event(event_id: str = "e1", **values: Any) -> dict[str, Any]:
    return {"event_id": event_id, "customer_id": "cus_ada", "event_name": "api.request", **values}


def ingest(api: httpx.Client, *events: Any) -> httpx.Response:
    return api.post("/events/ingest", json={"events": list(events)})


def refused(answer: httpx.Response, status: int, code: str) -> list[tuple[str, str]]:
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), body
    assert body["message"]
    return [(detail["pointer"], detail["reason"]) for detail in body.get("details", [])]


def stored(api: httpx.Client, **query: Any) -> list[str]:
    answer = api.get("/events", params={"page_size": 100, **query})
    assert answer.status_code == 200, answer.text
    return [item["event_id"] for item in answer.json()["items"]]


def created(api: httpx.Client, **values: Any) -> dict[str, Any]:
    answer = api.post("/meters", json={**METER, **values})
    assert answer.status_code == 201, answer.text
    meter: dict[str, Any] = answer.json()
    return meter


# POST /events/ingest


@pytest.mark.parametrize("count", [1, 1000])
def test_1_to_1000_events_are_stored(api: httpx.Client, count: int) -> None:
    answer = ingest(api, *[event(f"e{number}") for number in range(count)])
    assert answer.json() == {"ingested_count": count, "duplicate_count": 0}


def test_an_event_that_was_seen_before_is_ignored(api: httpx.Client) -> None:
    ingest(api, event("e1", metadata={"n": 1}))
    answer = ingest(api, event("e1", metadata={"n": 2}), event("e2"))
    assert (answer.status_code, answer.json()) == (200, {"ingested_count": 1, "duplicate_count": 1})
    assert api.get("/events/e1").json()["metadata"] == {"n": 1}


def test_an_event_without_timestamp_happened_now(api: httpx.Client, clock: Clock) -> None:
    ingest(api, event())
    found = api.get("/events/e1").json()
    assert found == {
        **event(),
        "business_id": found["business_id"],
        "timestamp": format_timestamp(clock.now),
        "metadata": None,
    }


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"events": []}, 422, "INVALID_REQUEST_BODY"),
        ({"events": [event(f"e{n}") for n in range(1001)]}, 400, "TOO_MANY_EVENTS"),
        ({"events": [event("a"), event("a")]}, 400, "DUPLICATE_EVENT_ID"),
        ({"events": [{"event_id": "e"}]}, 422, "INVALID_REQUEST_BODY"),
        ({"events": ["e"]}, 422, "INVALID_REQUEST_BODY"),
        ({"events": {"e": 1}}, 422, "INVALID_REQUEST_BODY"),
        ({}, 422, "INVALID_REQUEST_BODY"),
        ([], 422, "INVALID_REQUEST_BODY"),
        ({"events": [event(timestamp="2026-11-24T09:30:00")]}, 400, "INVALID_TIMESTAMP"),
        ({"events": [event(metadata={"k": [1]})]}, 400, "INVALID_METADATA"),
    ],
)
def test_a_bad_request_is_refused_whole(api: httpx.Client, body: Any, status: int, code: str) -> None:
    refused(api.post("/events/ingest", json=body), status, code)
    assert stored(api) == []


def test_every_bad_event_is_named_and_nothing_is_stored(api: httpx.Client, clock: Clock) -> None:
    old = format_timestamp(clock.now - timedelta(hours=1, microseconds=1))
    details = refused(
        ingest(api, event("a"), event("b", metadata={"k": None}), event(""), event("d", timestamp=old), event("e")),
        400,
        "INVALID_METADATA",
    )
    assert [pointer for pointer, _ in details] == [
        "/events/1/metadata/k",
        "/events/2/event_id",
        "/events/3/timestamp",
    ]
    assert stored(api) == []


@pytest.mark.parametrize(("seconds", "status"), [(-3600, 200), (-3600.001, 400), (300, 200), (300.001, 400)])
def test_events_of_the_last_hour_and_the_next_5_minutes_are_taken(
    api: httpx.Client, clock: Clock, seconds: float, status: int
) -> None:
    moment = format_timestamp(clock.now + timedelta(seconds=seconds))
    assert ingest(api, event(timestamp=moment)).status_code == status


def post(api: httpx.Client, content: bytes, kind: str = "application/json") -> httpx.Response:
    return api.post("/events/ingest", content=content, headers={"Content-Type": kind})


@pytest.mark.parametrize(
    ("content", "kind", "reason"),
    [
        (b'{"events": [', "application/json", "the body is not JSON"),
        (b"\xff\xfe\x00", "application/json", "the body is not JSON"),
        (b"", "application/json", "the body is not JSON"),
        (b"[" * 100_000, "application/json", "nested too deep"),
        (b"{}", "text/plain", 'the content type is "text/plain": send the header `Content-Type: application/json`'),
        (b"{}", "", "send the header"),
    ],
)
def test_what_is_no_json_is_refused(api: httpx.Client, content: bytes, kind: str, reason: str) -> None:
    ((_, found),) = refused(post(api, content, kind), 422, "INVALID_REQUEST_BODY")
    assert reason in found


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_none_is_refused_by_name(api: httpx.Client, literal: str) -> None:
    text = json.dumps({"events": [event(metadata={"k": "HERE"})]}).replace('"HERE"', literal)
    ((pointer, reason),) = refused(post(api, text.encode()), 400, "INVALID_METADATA")
    assert pointer == "/events/0/metadata/k"
    assert "is not a finite number" in reason


def test_a_body_over_5_mib_is_refused_before_it_is_read_whole() -> None:
    app = create_app(MemoryStore())
    read = 0
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b" " * 1024 * 1024, "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"authorization", b"Bearer k"), (b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/events/ingest",
        "headers": headers,
        "query_string": b"",
        "root_path": "",
    }
    asyncio.run(app(scope, receive, send))
    assert read == 6
    assert sent[0]["status"] == 413
    assert json.loads(sent[1]["body"])["code"] == "PAYLOAD_TOO_LARGE"


def test_a_body_of_exactly_5_mib_is_read(api: httpx.Client) -> None:
    body = json.dumps({"events": [event()]}).encode()
    assert post(api, body.ljust(5 * 1024 * 1024)).status_code == 200
    refused(post(api, body.ljust(5 * 1024 * 1024 + 1)), 413, "PAYLOAD_TOO_LARGE")


# Keys


@pytest.mark.parametrize("value", [None, "", "Bearer", "Bearer  ", "Basic abc", "test-key"])
def test_a_request_without_a_key_is_refused(api: httpx.Client, value: str | None) -> None:
    del api.headers["Authorization"]
    headers = {} if value is None else {"Authorization": value}
    for method, path in (("POST", "/events/ingest"), ("GET", "/events"), ("GET", "/meters"), ("POST", "/local/reset")):
        refused(api.request(method, path, headers=headers), 401, "UNAUTHORIZED")


def test_a_ledger_belongs_to_its_key(api: httpx.Client) -> None:
    ingest(api, event())
    meter = created(api)
    other = {"Authorization": "Bearer another"}
    assert api.get("/events", headers=other).json() == {"items": []}
    assert api.get("/meters", headers=other).json() == {"items": []}
    refused(api.get("/events/e1", headers=other), 404, "NOT_FOUND")
    refused(api.get(f"/meters/{meter['id']}", headers=other), 404, "NOT_FOUND")
    assert api.post("/local/reset", headers=other).status_code == 204
    assert stored(api) == ["e1"]


def test_the_key_is_kept_nowhere(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "ledger.db")
    headers = {"Authorization": "Bearer sk-very-secret"}
    with httpx.Client(transport=InProcess(create_app(store)), base_url="http://api.test", headers=headers) as api:
        answers = [ingest(api, event()), api.get("/events"), api.post("/meters", json=METER), api.get("/nowhere")]
    store.close()
    assert all("very-secret" not in answer.text for answer in answers)
    assert all(b"very-secret" not in file.read_bytes() for file in tmp_path.iterdir())


# Accepted is not billed: the warnings of an ingest


def warned(api: httpx.Client, **values: Any) -> list[tuple[str, str]]:
    answer = ingest(api, event(**values)).json()
    assert answer["ingested_count"] == 1
    return [(warning["code"], warning["message"]) for warning in answer.get("warnings", [])]


@pytest.mark.parametrize(
    ("values", "code", "message"),
    [
        (
            {"event_name": "api.requests"},
            "no_matching_meter",
            'no meter counts "api.requests": the meters count "api.request"',
        ),
        (
            {"metadata": {"bytes": 1}},
            "no_matching_meter",
            'no filter of the meters of "api.request" takes these metadata',
        ),
        ({"metadata": {"bytes": 1, "ok": 1}}, "no_matching_meter", "no filter"),
        ({"metadata": {"ok": True}}, "missing_key", 'the meter "Bytes" reads "bytes", which the event lacks'),
        ({"metadata": {"ok": True, "bytes": "1"}}, "not_numeric", '"1" is no number'),
        ({"metadata": {"ok": True, "bytes": True}}, "not_numeric", "true is no number"),
    ],
)
def test_an_event_that_will_not_be_billed_is_warned_of(
    api: httpx.Client, values: dict[str, Any], code: str, message: str
) -> None:
    created(api)
    ((found, text),) = warned(api, **values)
    assert found == code
    assert message in text


def test_an_event_that_is_billed_has_no_warning(api: httpx.Client) -> None:
    assert warned(api, event_id="before any meter") == []
    created(api)
    assert warned(api, metadata={"ok": True, "bytes": 1}) == []


def test_an_event_of_an_archived_meter_is_warned_of(api: httpx.Client) -> None:
    api.delete(f"/meters/{created(api)['id']}")
    assert warned(api, metadata={"ok": True, "bytes": 1})[0][0] == "meter_archived"


def test_each_event_has_its_own_warning(api: httpx.Client) -> None:
    created(api)
    good = {"ok": True, "bytes": 1}
    answer = ingest(api, event("a", metadata={"ok": 1}), event("b", metadata=good), event("c", metadata={"ok": 1}))
    assert [warning["event_id"] for warning in answer.json()["warnings"]] == ["a", "c"]


# GET /events


def test_events_come_newest_first_then_by_id_in_pages(api: httpx.Client, clock: Clock) -> None:
    late = format_timestamp(clock.now + timedelta(seconds=1))
    ingest(api, event("b"), event("a"), event("z", timestamp=late), event("c"))
    assert stored(api) == ["z", "a", "b", "c"]
    assert stored(api, page_size=3) == ["z", "a", "b"]
    assert stored(api, page_size=3, page_number=1) == ["c"]
    assert stored(api, page_size=3, page_number=2) == []


def test_a_page_has_10_events_if_nothing_is_asked(api: httpx.Client) -> None:
    ingest(api, *[event(f"e{number}") for number in range(11)])
    assert len(api.get("/events").json()["items"]) == 10


def test_start_is_inclusive_and_end_exclusive(api: httpx.Client, clock: Clock) -> None:
    times = [format_timestamp(clock.now + timedelta(seconds=number)) for number in range(3)]
    ingest(api, *[event(f"e{number}", timestamp=moment) for number, moment in enumerate(times)])
    assert stored(api, start=times[1]) == ["e2", "e1"]
    assert stored(api, end=times[1]) == ["e0"]
    assert stored(api, start=times[1], end=times[2]) == ["e1"]


def test_events_are_found_by_customer_name_and_meter(api: httpx.Client) -> None:
    ingest(
        api,
        event("counted", metadata={"ok": True}),
        event("not", metadata={"ok": False}),
        {**event("other", metadata={"ok": True}), "event_name": "other"},
        {**event("bo", metadata={"ok": True}), "customer_id": "cus_bo"},
    )
    meter = created(api)["id"]
    assert stored(api, customer_id="cus_bo") == ["bo"]
    assert stored(api, event_name="other") == ["other"]
    assert stored(api, meter_id=meter) == ["bo", "counted"]
    assert stored(api, meter_id=meter, event_name="api.request", customer_id="cus_ada") == ["counted"]
    assert stored(api, meter_id=meter, page_size=1, page_number=1) == ["counted"]


def test_a_meter_and_another_event_name_contradict(api: httpx.Client) -> None:
    query = {"meter_id": created(api)["id"], "event_name": "other"}
    ((pointer, reason),) = refused(api.get("/events", params=query), 400, "INVALID_QUERY_PARAMS")
    assert pointer == "/event_name"
    assert 'the meter counts "api.request"' in reason


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"customer": "x"}, "unknown parameter: the parameters are customer_id, event_name"),
        ({"page_size": "0"}, '"0" is not a whole number from 1 to 100'),
        ({"page_size": "101"}, '"101" is not a whole number from 1 to 100'),
        ({"page_size": "ten"}, '"ten" is not a whole number'),
        ({"page_size": "٣"}, "is not a whole number"),
        ({"page_number": "-1"}, '"-1" is not a whole number from 0'),
        ({"page_number": "9" * 5000}, "is not a whole number from 0"),
        ({"start": "yesterday"}, '"yesterday" is not an RFC 3339 time'),
        ({"end": "2026-11-24T09:30:00"}, "has no UTC offset"),
    ],
)
def test_a_bad_query_is_refused_by_name(api: httpx.Client, query: dict[str, str], reason: str) -> None:
    ((pointer, found),) = refused(api.get("/events", params=query), 400, "INVALID_QUERY_PARAMS")
    assert pointer == f"/{next(iter(query))}"
    assert reason in found


def test_an_unknown_meter_or_event_is_not_found(api: httpx.Client) -> None:
    refused(api.get("/events", params={"meter_id": "mtr_none"}), 404, "NOT_FOUND")
    refused(api.get("/events/none"), 404, "NOT_FOUND")


# Meters


def test_a_meter_is_created_read_and_listed(api: httpx.Client, clock: Clock) -> None:
    meter = created(api, description="for tests")
    assert meter["id"].startswith("mtr_")
    assert meter["created_at"] == meter["updated_at"] == format_timestamp(clock.now)
    assert {key: meter[key] for key in METER} == METER
    assert api.get(f"/meters/{meter['id']}").json() == meter
    second = created(api, name="Second", filter=None)
    assert api.get("/meters").json() == {"items": [meter, second]}
    assert api.get("/meters", params={"page_size": 1, "page_number": 1}).json() == {"items": [second]}


def test_name_unit_and_description_change_and_nothing_else(api: httpx.Client, clock: Clock) -> None:
    meter = created(api)
    clock.advance(60)
    changes = {"name": "New", "measurement_unit": "kB", "description": None}
    changed = api.patch(f"/meters/{meter['id']}", json=changes).json()
    assert changed == {**meter, **changes, "updated_at": format_timestamp(clock.now)}
    assert api.get(f"/meters/{meter['id']}").json() == changed
    details = refused(
        api.patch(f"/meters/{meter['id']}", json={"name": "Newer", "event_name": "x", "filter": None}),
        422,
        "INVALID_REQUEST_BODY",
    )
    assert [pointer for pointer, _ in details] == ["/event_name", "/filter"]
    assert "never changes" in details[0][1]
    refused(api.patch(f"/meters/{meter['id']}", json={"name": ""}), 422, "INVALID_REQUEST_BODY")
    refused(api.patch(f"/meters/{meter['id']}", json=[]), 422, "INVALID_REQUEST_BODY")
    assert api.get(f"/meters/{meter['id']}").json() == changed


def test_a_meter_is_archived_once_and_taken_back(api: httpx.Client) -> None:
    meter = created(api)["id"]
    assert api.delete(f"/meters/{meter}").status_code == 204
    refused(api.delete(f"/meters/{meter}"), 404, "METER_IS_DELETED")
    assert api.get("/meters").json()["items"] == []
    assert [item["id"] for item in api.get("/meters?archived=true").json()["items"]] == [meter]
    answer = api.post(f"/meters/{meter}/unarchive")
    assert (answer.status_code, answer.content) == (200, b"")
    assert [item["id"] for item in api.get("/meters?archived=false").json()["items"]] == [meter]


def test_an_unknown_meter_is_not_found_whatever_is_asked(api: httpx.Client) -> None:
    for method, path in (
        ("GET", "/meters/none"),
        ("PATCH", "/meters/none"),
        ("DELETE", "/meters/none"),
        ("POST", "/meters/none/unarchive"),
        ("GET", "/local/meters/none/usage"),
    ):
        refused(api.request(method, path, json={}), 404, "NOT_FOUND")
    refused(api.get("/meters?archived=perhaps"), 400, "INVALID_QUERY_PARAMS")


# /local


def test_usage_is_read_in_all_by_customer_and_over_time(api: httpx.Client, clock: Clock) -> None:
    late = format_timestamp(clock.now + timedelta(seconds=10))
    ingest(
        api,
        event("1", metadata={"ok": True, "bytes": 0.1}),
        event("2", metadata={"ok": True, "bytes": 0.2}, timestamp=late),
        event("3", metadata={"ok": False, "bytes": 100}),
        {**event("4", metadata={"ok": True, "bytes": 5}), "customer_id": "cus_bo"},
    )
    meter = created(api)["id"]
    path = f"/local/meters/{meter}/usage"
    assert api.get(path).json() == {
        "meter_id": meter,
        "name": "Bytes",
        "measurement_unit": "byte",
        "quantity": "5.3",
        "customers": [{"customer_id": "cus_ada", "quantity": "0.3"}, {"customer_id": "cus_bo", "quantity": "5"}],
        "items": [],
    }
    assert api.get(path, params={"customer_id": "cus_bo"}).json()["quantity"] == "5"
    assert api.get(path, params={"end": late}).json()["quantity"] == "5.1"
    assert api.get(path, params={"customer_id": "nobody"}).json()["customers"] == []
    refused(api.get(path, params={"customer": "cus_bo"}), 400, "INVALID_QUERY_PARAMS")


def test_reset_empties_the_ledger(api: httpx.Client) -> None:
    ingest(api, event())
    created(api)
    assert api.post("/local/reset").status_code == 204
    assert stored(api) == []
    assert api.get("/meters").json()["items"] == []
    assert ingest(api, event()).json()["ingested_count"] == 1


def test_health_needs_no_key(api: httpx.Client) -> None:
    ingest(api, event())
    del api.headers["Authorization"]
    health = api.get("/local/health").json()
    assert (health["status"], health["events_stored"]) == ("ok", 1)
    assert health["uptime_seconds"] >= 0


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nowhere", 404, "NOT_FOUND"), ("PUT", "/events", 405, "METHOD_NOT_ALLOWED")],
)
def test_every_error_has_the_shape_of_an_error(
    api: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    refused(api.request(method, path), status, code)


class Failing(MemoryStore):
    def count_events(self) -> int:
        raise RuntimeError("a bug")


def test_a_bug_is_answered_in_that_shape_too_and_raised_into_the_log() -> None:
    transport = httpx.ASGITransport(create_app(Failing()), raise_app_exceptions=False)

    async def main() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
            return await client.get("/local/health")

    refused(asyncio.run(main()), 500, "INTERNAL_SERVER_ERROR")


# The same rules, the same words: the helper before sending, and the API.


def helper_reasons(build: Any) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        build()
    return [problem.reason for problem in caught.value.problems]


@pytest.mark.parametrize(
    "metadata",
    [
        {"nested": {"a": 1}},
        {"list": [1]},
        {f"key_{number}": 1 for number in range(51)},
        {"k" * 101: 1},
        {"k": "v" * 501},
        {"none": None},
        {"nan": float("nan")},
    ],
    ids=["nested", "list", "51 keys", "long key", "long value", "null", "nan"],
)
def test_bad_metadata_gets_the_same_reason_from_helper_and_api(api: httpx.Client, metadata: dict[str, Any]) -> None:
    reasons = helper_reasons(lambda: Event("e1", "cus_ada", "api.request", metadata=metadata))
    details = refused(post(api, json.dumps({"events": [event(metadata=metadata)]}).encode()), 400, "INVALID_METADATA")
    assert [reason for _, reason in details] == reasons
    assert stored(api) == []


def test_a_naive_timestamp_gets_the_same_reason_from_helper_and_api(api: httpx.Client, clock: Clock) -> None:
    naive = clock.now.replace(tzinfo=None)
    reasons = helper_reasons(lambda: Event("e1", "cus_ada", "api.request", naive))
    details = refused(ingest(api, event(timestamp=naive.isoformat())), 400, "INVALID_TIMESTAMP")
    assert [reason for _, reason in details] == reasons


def test_a_bad_filter_gets_the_same_reason_from_helper_and_api(api: httpx.Client) -> None:
    condition = Condition("ok", "equals", True)

    def deep() -> Filter:
        made = Filter("and", (condition,))
        for _ in range(4):
            made = Filter("and", (made,))
        return made

    data: dict[str, Any] = {"conjunction": "and", "clauses": [condition.to_wire()]}
    for _ in range(4):
        data = {"conjunction": "and", "clauses": [data]}
    unknown: dict[str, Any] = {"key": "ok", "operator": "like", "value": "x"}
    for build, rule in (
        (deep, data),
        (lambda: Condition(**unknown), {"conjunction": "and", "clauses": [unknown]}),
    ):
        details = refused(api.post("/meters", json={**METER, "filter": rule}), 422, "INVALID_REQUEST_BODY")
        assert [reason for _, reason in details] == helper_reasons(build)
        with pytest.raises(ValidationError):
            Meter.from_wire({**METER, "filter": rule})
    assert api.get("/meters").json() == {"items": []}
