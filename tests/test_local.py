"""What the local metering API has beyond the contract, over both stores."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from conftest import Clock
from meterprint import Event, MeteringClient
from meterprint.event import format_timestamp
from meterprint.local.app import create_app
from meterprint.local.live import RateLimit
from meterprint.local.server import Server
from meterprint.local.store import MemoryStore, Store, StoreError
from meterprint.testing import InProcess

COUNT = {"name": "Requests", "event_name": "n", "aggregation": {"type": "count"}, "measurement_unit": "request"}
SUM = {"name": "Bytes", "event_name": "n", "aggregation": {"type": "sum", "key": "bytes"}, "measurement_unit": "byte"}
LAST = {**SUM, "name": "Stored", "aggregation": {"type": "last", "key": "bytes"}}


def created(api: httpx.Client, meter: dict[str, Any]) -> str:
    answer = api.post("/meters", json=meter)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def send(api: httpx.Client, *events: tuple[str, str, dict[str, Any]]) -> None:
    """Send events, each at a time of its own, with the test clock set to that time."""
    for number, (moment, customer_id, metadata) in enumerate(events):
        assert api.post("/local/clock", json={"now": moment}).status_code == 200
        event = {"event_id": f"{moment}-{number}", "customer_id": customer_id, "event_name": "n", "metadata": metadata}
        assert api.post("/events/ingest", json={"events": [event]}).status_code == 200


def read(api: httpx.Client, meter: str, **query: Any) -> dict[str, Any]:
    answer = api.get(f"/local/meters/{meter}/usage", params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, str]:
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), body
    return {detail["pointer"]: detail["reason"] for detail in body.get("details", [])}


# Usage


def test_usage_by_hour_has_a_row_for_each_hour_with_events(api: httpx.Client) -> None:
    meter = created(api, SUM)
    send(
        api,
        ("2026-11-24T09:59:59.999999Z", "cus_ada", {"bytes": 1}),
        ("2026-11-24T10:00:00Z", "cus_bo", {"bytes": 2}),
        ("2026-11-24T10:30:00Z", "cus_ada", {"bytes": 0.5}),
        ("2026-11-25T10:30:00Z", "cus_ada", {"bytes": 4}),
    )
    assert read(api, meter, window="hour")["items"] == [
        {"window_start": f"{start}:00:00.000000Z", "window_end": f"{end}:00:00.000000Z", "quantity": quantity}
        for start, end, quantity in (
            ("2026-11-24T09", "2026-11-24T10", "1"),
            ("2026-11-24T10", "2026-11-24T11", "2.5"),
            ("2026-11-25T10", "2026-11-25T11", "4"),
        )
    ]
    days = read(api, meter, window="day", per_customer="true")
    assert [(row["customer_id"], row["quantity"]) for row in days["items"]] == [
        ("cus_ada", "1.5"),
        ("cus_bo", "2"),
        ("cus_ada", "4"),
    ]
    minutes = read(api, meter, window="minute", start="2026-11-24T10:00:00Z", end="2026-11-24T10:30:00Z")
    assert [row["quantity"] for row in minutes["items"]] == ["2"]
    assert (days["quantity"], minutes["quantity"]) == ("7.5", "2")


def test_usage_by_a_metadata_key_tells_values_of_different_types_apart(api: httpx.Client) -> None:
    meter = created(api, COUNT)
    send(api, *[("2026-11-24T10:00:00Z", "cus_ada", pairs) for pairs in ({"k": 1}, {"k": True}, {"k": "1"}, {}, {})])
    items = read(api, meter, group_by="k")["items"]
    assert sorted(items, key=str) == [
        {"group": "1", "quantity": "1"},
        {"group": 1, "quantity": "1"},
        {"group": None, "quantity": "2"},
        {"group": True, "quantity": "1"},
    ]


@pytest.mark.parametrize(
    ("day", "hours"),
    [("2026-03-29", 23), ("2026-10-25", 25), ("2026-10-26", 24)],
    ids=["the clock is set forward", "the clock is set back", "an ordinary day"],
)
def test_a_day_of_a_time_zone_is_as_long_as_it_is_there(api: httpx.Client, day: str, hours: int) -> None:
    meter = created(api, COUNT)
    start = datetime.fromisoformat(f"{day}T00:00:00+0{1 if day != '2026-10-25' else 2}:00").astimezone(UTC)
    send(api, *[(format_timestamp(start + timedelta(hours=n)), "cus_ada", {}) for n in range(-1, hours + 1)])
    rows = read(api, meter, window="day", timezone="Europe/Stockholm")["items"]
    assert [row["quantity"] for row in rows] == ["1", str(hours), "1"]
    assert rows[1]["window_start"] == format_timestamp(start)
    assert rows[1]["window_end"] == format_timestamp(start + timedelta(hours=hours)) == rows[2]["window_start"]


def test_the_last_of_two_customers_at_one_moment_is_the_one_that_arrived_last(api: httpx.Client) -> None:
    meter = created(api, LAST)
    same = "2026-11-24T10:00:00Z"
    send(api, (same, "cus_bo", {"bytes": 1}), (same, "cus_ada", {"bytes": 2}), (same, "cus_bo", {"bytes": 3}))
    for query in ({}, {"window": "hour"}, {"window": "minute"}, {"group_by": "none"}, {"end": "2026-11-24T10:00:01Z"}):
        assert read(api, meter, **query)["quantity"] == "3"
    assert [row["quantity"] for row in read(api, meter, per_customer="true")["items"]] == ["2", "3"]


def test_one_number_is_one_group_however_it_is_written(api: httpx.Client) -> None:
    meter = created(api, COUNT)
    send(api, *[("2026-11-24T10:00:00Z", "cus_ada", {"k": value}) for value in (1, 1.0, -0.0, 0)])
    assert sorted(row["quantity"] for row in read(api, meter, group_by="k")["items"]) == ["2", "2"]


def test_an_hour_ends_where_the_clock_is_set_back_by_half_an_hour(api: httpx.Client) -> None:
    meter = created(api, COUNT)  # on Lord Howe Island, 02:00 at +11:00 became 01:30 at +10:30, at 15:00 in UTC
    send(api, *[(f"2026-04-04T{time}:00Z", "cus_ada", {}) for time in ("14:10", "14:50", "15:10", "15:40")])
    rows = read(api, meter, window="hour", timezone="Australia/Lord_Howe")["items"]
    assert [(row["window_start"][11:16], row["window_end"][11:16], row["quantity"]) for row in rows] == [
        ("14:00", "15:00", "2"),
        ("15:00", "15:30", "1"),
        ("15:30", "16:30", "1"),
    ]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"window": "week"}, "/window"),
        ({"timezone": "Mars/Olympus"}, "/timezone"),
        ({"timezone": "../etc/passwd"}, "/timezone"),
        ({"per_customer": "yes"}, "/per_customer"),
        ({"start": "yesterday"}, "/start"),
        ({"customer": "cus_ada"}, "/customer"),
    ],
)
def test_a_question_that_cannot_be_answered_names_the_parameter(
    api: httpx.Client, query: dict[str, str], pointer: str
) -> None:
    meter = created(api, SUM)
    assert list(refused(api.get(f"/local/meters/{meter}/usage", params=query), 400, "INVALID_QUERY_PARAMS")) == [
        pointer
    ]


def test_a_meter_is_previewed_before_it_is_created(api: httpx.Client) -> None:
    send(
        api,
        ("2026-11-24T10:00:00Z", "cus_ada", {"bytes": 5, "ok": True}),
        ("2026-11-24T10:00:00Z", "cus_bo", {"bytes": 7, "ok": True}),
        ("2026-11-24T10:00:00Z", "cus_bo", {"bytes": 9, "ok": False}),
    )
    rule = {"conjunction": "and", "clauses": [{"key": "ok", "operator": "equals", "value": True}]}
    preview = api.post("/local/meters/preview", json={**SUM, "filter": rule}).json()
    meter = created(api, {**SUM, "filter": rule})
    assert preview == {**read(api, meter), "meter_id": None, "named_count": 3, "matching_count": 2}
    assert preview["quantity"] == "12"
    assert api.get("/meters").json()["items"][0]["id"] == meter
    assert list(refused(api.post("/local/meters/preview", json={**SUM, "filter": 1}), 422, "INVALID_REQUEST_BODY"))


# Invoices


def price(meter: str, **values: Any) -> dict[str, Any]:
    return {"meter_id": meter, "price_per_unit": "2", **values}


def test_an_invoice_is_previewed_over_what_was_used(api: httpx.Client) -> None:
    requests, size = created(api, COUNT), created(api, SUM)
    send(api, *[("2026-11-24T10:00:00Z", customer, {"bytes": 100}) for customer in ("cus_ada", "cus_ada", "cus_bo")])
    body = {
        "customer_id": "cus_ada",
        "prices": [
            price(requests, free_threshold=1),
            {
                "meter_id": size,
                "mode": "graduated",
                "tiers": [{"up_to": "150", "price_per_unit": "1"}, {"price_per_unit": "0.5", "flat_fee": 3}],
            },
        ],
    }
    assert api.post("/local/invoice-preview", json=body).json() == {
        "customer_id": "cus_ada",
        "currency": "USD",
        "total_price": 180,
        "amount": "1.80 USD",
        "lines": [
            {
                "meter_id": requests,
                "name": "Requests",
                "measurement_unit": "request",
                "consumed_units": "2",
                "chargeable_units": "1",
                "total_price": 2,
                "amount": "0.02 USD",
                "explanation": "2 - 1 free = 1 x 2 cents = 0.02 USD",
            },
            {
                "meter_id": size,
                "name": "Bytes",
                "measurement_unit": "byte",
                "consumed_units": "200",
                "chargeable_units": "200",
                "total_price": 178,
                "amount": "1.78 USD",
                "explanation": "150 x 1 cent + 50 x 0.5 cents + 3 cents flat fee = 1.78 USD",
            },
        ],
    }
    quiet = api.post("/local/invoice-preview", json={**body, "start": "2026-11-25T00:00:00Z"}).json()
    assert quiet["total_price"] == 0


def test_an_invoice_of_given_quantities_needs_no_customer(api: httpx.Client) -> None:
    meter = created(api, COUNT)
    body = {"prices": [price(meter, quantity="2500", package_size=1000, currency="EUR")]}
    answer = api.post("/local/invoice-preview", json=body).json()
    assert (answer["customer_id"], answer["amount"]) == (None, "0.06 EUR")


@pytest.mark.parametrize(
    ("changes", "pointer", "reason"),
    [
        ({"prices": []}, "/prices", "not a list of 1 to 100 prices"),
        ({"prices": [{"price_per_unit": 1}]}, "/prices/0/meter_id", "missing"),
        ({"prices": [{"meter_id": 5}]}, "/prices/0/meter_id", "is not a non-empty string"),
        ({"extra": 1}, "/extra", "unknown field"),
        ({"customer_id": None}, "/customer_id", "missing: an invoice is for one customer"),
        ({"start": "2026"}, "/start", "is not an RFC 3339 time"),
        ({"price_per_unit": 0.1}, "/prices/0/price_per_unit", "write it as a string"),
        ({"price_per_unit": True}, "/prices/0/price_per_unit", "true is not a decimal number"),
        ({"price_per_unit": "cheap"}, "/prices/0/price_per_unit", '"cheap" is not a decimal number'),
        ({"price_per_unit": "123456"}, "/prices/0/price_per_unit", "more than 5 integer digits"),
        ({"price_per_unit": None}, "/prices/0/price_per_unit", "missing: give it, or tiers"),
        ({"free_threshold": "-1"}, "/prices/0/free_threshold", "-1 is not a finite number of at least 0"),
        ({"price_per_unit": "1_000"}, "/prices/0/price_per_unit", "is not a decimal number: write it like 0.25"),
        ({"price_per_unit": "1e3"}, "/prices/0/price_per_unit", "is not a decimal number: write it like 0.25"),
        ({"currency": "A1B"}, "/prices/0/currency", "is not an ISO 4217 code"),
        ({"currency": "kronor"}, "/prices/0/currency", "is not an ISO 4217 code"),
        ({"currency": 5}, "/prices/0/currency", "is not a non-empty string"),
        ({"mode": "volume"}, "/prices/0/mode", "there are no tiers to charge"),
        ({"tiers": {}}, "/prices/0/tiers", "not a list of 1 to 100 tiers"),
        ({"tiers": [{"up_to": 5}]}, "/prices/0/tiers/0/price_per_unit", "missing"),
        ({"quantity": "-5"}, "/prices/0/quantity", "-5 is not a finite number of at least 0"),
    ],
)
def test_a_bad_invoice_request_names_the_field(
    api: httpx.Client, changes: dict[str, Any], pointer: str, reason: str
) -> None:
    meter = created(api, COUNT)
    body: dict[str, Any] = {"customer_id": "cus_ada", "prices": [price(meter)]}
    for key, value in changes.items():
        place = body if key in {*body, "start", "extra"} else body["prices"][0]
        place[key] = value
    answer = api.post("/local/invoice-preview", json=body)
    is_time = "start" in changes
    code = "INVALID_TIMESTAMP" if is_time else "INVALID_REQUEST_BODY"
    details = refused(answer, 400 if is_time else 422, code)
    assert reason in details[pointer]


def test_an_invoice_is_in_one_currency_and_of_meters_that_exist(api: httpx.Client) -> None:
    meter = created(api, COUNT)
    mixed = [price(meter, currency="SEK", quantity=1), price(meter, quantity=1)]
    assert (
        "more than one currency: SEK, USD"
        in refused(api.post("/local/invoice-preview", json={"prices": mixed}), 422, "INVALID_REQUEST_BODY")["/prices"]
    )
    refused(api.post("/local/invoice-preview", json={"prices": [price("none", quantity=1)]}), 404, "NOT_FOUND")


# The test clock, and a month played in a moment


def test_a_month_is_played_and_its_usage_history_read(api: httpx.Client) -> None:
    requests, size = created(api, COUNT), created(api, SUM)
    subscription = {
        "customer_id": "cus_ada",
        "start": "2026-01-31T00:00:00Z",
        "prices": [price(requests, free_threshold=1), price(size, price_per_unit="0.01", currency="EUR")],
    }
    kept = api.put("/local/subscriptions/sub_1", json=subscription)
    assert kept.status_code == 200
    assert kept.json()["prices"][0] == {
        "meter_id": requests,
        "price_per_unit": "2",
        "free_threshold": 1,
        "currency": "USD",
    }
    send(
        api,
        ("2026-01-30T23:59:59Z", "cus_ada", {"bytes": 1000}),
        ("2026-01-31T00:00:00Z", "cus_ada", {"bytes": 50}),
        ("2026-02-27T23:59:59Z", "cus_ada", {"bytes": 100}),
        ("2026-02-28T00:00:00Z", "cus_ada", {"bytes": 250}),
        ("2026-02-28T00:00:00Z", "cus_bo", {"bytes": 250}),
        ("2026-03-15T00:00:00Z", "cus_ada", {}),
    )
    path = "/subscriptions/sub_1/usage-history"
    newest, first = api.get(path).json()["items"]
    assert (first["start_date"], first["end_date"]) == ("2026-01-31T00:00:00.000000Z", "2026-02-28T00:00:00.000000Z")
    assert (newest["start_date"], newest["end_date"]) == ("2026-02-28T00:00:00.000000Z", "2026-03-31T00:00:00.000000Z")
    assert first["meters"] == [
        {
            "id": requests,
            "name": "Requests",
            "free_threshold": 1,
            "price_per_unit": "2",
            "currency": "USD",
            "total_price": 2,
            "consumed_units": "2",
            "chargeable_units": "1",
        },
        {
            "id": size,
            "name": "Bytes",
            "free_threshold": 0,
            "price_per_unit": "0.01",
            "currency": "EUR",
            "total_price": 2,
            "consumed_units": "150",
            "chargeable_units": "150",
        },
    ]
    assert [meter["id"] for meter in api.get(path, params={"meter_id": size}).json()["items"][0]["meters"]] == [size]
    assert api.get(path, params={"page_size": 1, "page_number": 1}).json()["items"] == [first]
    assert api.get(path, params={"start_date": "2026-02-01T00:00:00Z"}).json()["items"] == [newest]
    assert api.get(path, params={"end_date": "2026-02-01T00:00:00Z"}).json()["items"] == [first]
    refused(api.get("/subscriptions/none/usage-history"), 404, "NOT_FOUND")
    refused(api.get(path, params={"meter_id": "none"}), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"customer_id": ""}, "/customer_id"),
        ({"customer_id": None}, "/customer_id"),
        ({"start": None}, "/start"),
        (
            {"prices": [{"meter_id": "METER", "price_per_unit": "1", "free_threshold": "0.5"}]},
            "/prices/0/free_threshold",
        ),
        ({"prices": [{"meter_id": "METER", "tiers": []}]}, "/prices/0/tiers"),
        ({"start": "9999-12-31T23:59:59Z"}, "/start"),
        ({"more": 1}, "/more"),
    ],
)
def test_a_subscription_that_cannot_be_billed_is_refused(
    api: httpx.Client, changes: dict[str, Any], pointer: str
) -> None:
    meter = created(api, COUNT)
    body = {"customer_id": "cus_ada", "start": "2026-01-31T00:00:00Z", "prices": [price(meter)]} | changes
    text = json.dumps(body).replace("METER", meter)
    answer = api.put("/local/subscriptions/s", content=text, headers={"Content-Type": "application/json"})
    assert answer.status_code in {400, 422}
    assert [detail["pointer"] for detail in answer.json()["details"]] == [pointer]


def test_the_test_clock_stands_until_it_is_moved_and_belongs_to_one_key(api: httpx.Client, clock: Clock) -> None:
    real = format_timestamp(clock.now)
    assert api.get("/local/clock").json() == {"now": real, "frozen": False}
    assert api.post("/local/clock", json={"advance": 90}).json() == {
        "now": format_timestamp(clock.now + timedelta(seconds=90)),
        "frozen": True,
    }
    clock.advance(1000)
    assert api.post("/local/clock", json={"now": "2030-01-01T00:00:00Z"}).json()["frozen"]
    event = {"event_id": "e", "customer_id": "c", "event_name": "n"}
    api.post("/events/ingest", json={"events": [event]})
    assert api.get("/events/e").json()["timestamp"] == "2030-01-01T00:00:00.000000Z"
    assert created(api, COUNT)
    assert api.get("/meters").json()["items"][0]["created_at"] == "2030-01-01T00:00:00.000000Z"
    stale = {**event, "event_id": "f", "timestamp": real}
    refused(api.post("/events/ingest", json={"events": [stale]}), 400, "INVALID_TIMESTAMP")
    other = {"Authorization": "Bearer other"}
    assert api.post("/events/ingest", json={"events": [{**event, "timestamp": real}]}, headers=other).status_code == 200
    assert api.post("/local/clock", json={"now": None}).json() == {"now": format_timestamp(clock.now), "frozen": False}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, ""),
        ({"now": None, "advance": 1}, ""),
        ({"now": "soon"}, "/now"),
        ({"now": "1969-12-31T23:59:59Z"}, "/now"),
        ({"now": "2200-01-01T00:00:01Z"}, "/now"),
        ({"advance": -1}, "/advance"),
        ({"advance": "1"}, "/advance"),
        ({"advance": True}, "/advance"),
        ({"advance": 1e18}, "/advance"),
        ({"set": 1}, "/set"),
        ([], ""),
    ],
)
def test_a_clock_that_cannot_be_set_so_is_left(api: httpx.Client, body: Any, pointer: str) -> None:
    answer = api.post("/local/clock", json=body)
    assert answer.status_code in {400, 422}
    assert [detail["pointer"] for detail in answer.json()["details"]] == [pointer]
    assert not api.get("/local/clock").json()["frozen"]


def test_a_clock_near_the_end_of_time_is_not_moved_beyond(api: httpx.Client) -> None:
    api.post("/local/clock", json={"now": "2199-12-31T23:00:00Z"})
    assert refused(api.post("/local/clock", json={"advance": 7200}), 422, "INVALID_REQUEST_BODY") == {
        "/advance": "leads beyond the year 2200"
    }


# Rejections and faults


def test_refused_requests_are_kept_with_their_reasons_newest_first(api: httpx.Client, clock: Clock) -> None:
    api.post("/events/ingest", json={"events": [{"event_id": "a"}, {"event_id": "b"}]})
    api.get("/events/none")
    newest, oldest = api.get("/local/rejections").json()["items"]
    assert (newest["method"], newest["path"], newest["status"], newest["code"]) == (
        "GET",
        "/events/none",
        404,
        "NOT_FOUND",
    )
    assert (oldest["event_count"], oldest["at"]) == (2, format_timestamp(clock.now))
    assert {detail["pointer"] for detail in oldest["details"]} >= {"/events/0/customer_id", "/events/1/event_name"}
    other = api.get("/local/rejections", headers={"Authorization": "Bearer other"})
    assert other.json() == {"items": []}
    for number in range(150):
        api.get(f"/events/{number}")
    items = api.get("/local/rejections").json()["items"]
    assert (len(items), items[0]["path"]) == (100, "/events/149")


EVENT = {"events": [{"event_id": "e", "customer_id": "c", "event_name": "n"}]}


@pytest.mark.parametrize(
    ("kind", "code"), [("500", "INTERNAL_SERVER_ERROR"), ("503", "INTERNAL_SERVER_ERROR"), ("429", "TOO_MANY_REQUESTS")]
)
def test_the_next_requests_fail_as_asked_and_then_no_more(api: httpx.Client, kind: str, code: str) -> None:
    asked = api.post("/local/faults", json={"kind": kind, "times": 2, "retry_after": 7})
    assert asked.json() == {"pending": [{"kind": kind, "times": 2, "retry_after": 7, "seconds": 30}]}
    for _ in range(2):
        answer = api.post("/events/ingest", json=EVENT)
        refused(answer, int(kind), code)
        assert answer.headers.get("Retry-After") == (None if kind == "500" else "7")
    assert api.get("/local/faults").json() == {"pending": []}
    assert api.post("/events/ingest", json=EVENT).json()["ingested_count"] == 1


def test_a_connection_is_broken_before_or_after_the_events_are_stored(api: httpx.Client) -> None:
    for kind, stored in (("drop_before", 0), ("drop_after", 1)):
        api.post("/local/faults", json={"kind": kind})
        with pytest.raises(httpx.RemoteProtocolError):
            api.post("/events/ingest", json=EVENT)
        assert len(api.get("/events").json()["items"]) == stored
    assert api.post("/events/ingest", json=EVENT).json() == {"ingested_count": 0, "duplicate_count": 1}


def test_a_hang_gives_no_answer_where_nobody_can_wait(api: httpx.Client) -> None:
    api.post("/local/faults", json={"kind": "hang"})
    with pytest.raises(httpx.ReadTimeout):
        api.post("/events/ingest", json=EVENT)


def test_faults_of_a_kind_are_cleared_and_a_reset_clears_all(api: httpx.Client, clock: Clock) -> None:
    for kind in ("500", "503", "500"):
        api.post("/local/faults", json={"kind": kind})
    assert [
        fault["kind"] for fault in api.post("/local/faults", json={"kind": "500", "times": 0}).json()["pending"]
    ] == ["503"]
    api.post("/local/clock", json={"advance": 5})
    api.get("/local/nowhere")
    assert api.post("/local/reset").status_code == 204
    assert api.get("/local/faults").json() == {"pending": []}
    assert api.get("/local/rejections").json() == {"items": []}
    assert api.get("/local/clock").json() == {"now": format_timestamp(clock.now), "frozen": False}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/kind"),
        ({"kind": "418"}, "/kind"),
        ({"kind": "500", "times": 1.5}, "/times"),
        ({"kind": "500", "times": 1001}, "/times"),
        ({"kind": "429", "retry_after": "1"}, "/retry_after"),
        ({"kind": "hang", "seconds": -1}, "/seconds"),
    ],
)
def test_a_fault_that_cannot_be_is_refused(api: httpx.Client, body: Any, pointer: str) -> None:
    assert list(refused(api.post("/local/faults", json=body), 422, "INVALID_REQUEST_BODY")) == [pointer]


# Over a real connection: the stream, faults, limits


@contextmanager
def listening(url: str, key: str = "local") -> Iterator[Iterator[tuple[str, Any]]]:
    headers = {"Authorization": f"Bearer {key}"}
    with (
        httpx.Client(base_url=url, timeout=10, headers=headers) as client,
        client.stream("GET", "/local/stream") as answer,
    ):
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        yield messages(answer.iter_lines())


def messages(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    kind = ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        if name == "data":
            yield kind, json.loads(value)


def test_listeners_are_told_what_happens_as_it_happens() -> None:
    with Server(create_app(MemoryStore())) as server, listening(server.url) as told:
        assert next(told)[0] == "hello"
        headers = {"Authorization": "Bearer local"}
        with httpx.Client(base_url=server.url, headers=headers) as api:
            event = EVENT["events"][0]
            many = [{**event, "event_id": f"e{n}", "metadata": {"n": n}} for n in range(30)]
            api.post("/events/ingest", json={"events": many})
            kind, stored = next(told)
            assert (kind, stored["count"]) == ("stored", 30)
            assert [e["event_id"] for e in stored["events"]] == [f"e{n}" for n in range(10, 30)]
            assert stored["events"][0] == api.get("/events/e10").json()
            api.post("/events/ingest", json={"events": [many[3], {**event, "event_id": "fresh"}]})
            kind, stored = next(told)
            assert (kind, [e["event_id"] for e in stored["events"]]) == ("stored", ["fresh"])
            kind, again = next(told)
            assert (kind, again["count"], again["event_ids"]) == ("duplicate", 1, ["e3"])
            api.post("/events/ingest", json={"events": []})
            kind, refusal = next(told)
            assert (kind, refusal) == ("refused", api.get("/local/rejections").json()["items"][0])
            created(api, COUNT)
            assert next(told)[0] == "meters"
            answer = api.post("/events/ingest", json={"events": [{**event, "event_id": "odd", "event_name": "other"}]})
            assert next(told)[1]["warnings"] == answer.json()["warnings"] != []
            api.post("/local/clock", json={"now": "2030-01-01T00:00:00Z"})
            assert next(told) == (
                "clock",
                {"at": "2030-01-01T00:00:00.000000Z", "now": "2030-01-01T00:00:00.000000Z", "frozen": True},
            )
            api.post("/events/ingest", json=EVENT, headers={"Authorization": "Bearer other"})
            api.post("/local/reset")
            assert next(told)[0] == "reset"


def test_a_server_stops_while_somebody_listens() -> None:
    server = Server(create_app(MemoryStore()))
    with server, listening(server.url) as told:
        assert next(told)[0] == "hello"
        closing = threading.Thread(target=server.__exit__)
        closing.start()
        assert list(told) == []
        closing.join(5)
        assert not closing.is_alive()


def test_faults_reach_a_client_over_the_network_and_its_retries_get_past_them() -> None:
    waits: list[float] = []
    with (
        Server(create_app(MemoryStore())) as server,
        httpx.Client(base_url=server.url, headers={"Authorization": "Bearer k"}) as api,
    ):
        for kind in ("drop_after", "503", "drop_before", "429"):
            api.post("/local/faults", json={"kind": kind, "retry_after": 3})
        with MeteringClient(server.url, "k", retries=4, sleep=waits.append) as client:
            result = client.ingest([Event("e", "cus_ada", "n")])
        assert (result.ingested_count, result.duplicate_count) == (0, 1)
        assert waits[1] == waits[3] == 3
        api.post("/local/faults", json={"kind": "hang", "seconds": 0.2})
        start = time.monotonic()
        assert api.get("/events").status_code == 503
        assert time.monotonic() - start >= 0.2


def test_the_rate_limit_of_the_hosted_api_is_held_to_and_told() -> None:
    now = [0.0]
    limit = RateLimit(2, 3, lambda: now[0])
    passed, headers = limit.take("one")
    assert passed
    assert headers == {"X-RateLimit-Limit": "2", "X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "1"}
    assert limit.take("one")[0]
    passed, headers = limit.take("one")
    assert (passed, headers["Retry-After"], headers["X-RateLimit-Remaining"]) == (False, "1", "0")
    assert limit.take("two")[0]
    now[0] = 1.0
    assert limit.take("one")[0]
    passed, headers = limit.take("one")
    assert (passed, headers["Retry-After"], headers["X-RateLimit-Limit"]) == (False, "59", "3")
    now[0] = 60.0
    assert limit.take("one")[0]


def test_tier0_answers_429_beyond_its_burst_and_leaves_local_paths_alone() -> None:
    transport = InProcess(create_app(MemoryStore(), rate_limit="tier0"))
    with httpx.Client(transport=transport, base_url="http://api.test", headers={"Authorization": "Bearer k"}) as api:
        answers = [api.get("/events") for _ in range(41)]
        assert [answer.status_code for answer in answers] == [200] * 40 + [429]
        assert refused(answers[-1], 429, "TOO_MANY_REQUESTS") == {}
        assert int(answers[-1].headers["Retry-After"]) >= 1
        assert int(answers[0].headers["X-RateLimit-Remaining"]) == 39
        assert api.get("/local/clock").status_code == 200


class Broken(MemoryStore):
    def add_events(self, ledger: str, records: Any) -> Any:
        raise StoreError("the disk is full: free some space")


def test_a_store_that_cannot_store_answers_503_and_says_why() -> None:
    store: Store = Broken()
    with httpx.Client(transport=InProcess(create_app(store)), base_url="http://api.test") as api:
        answer = api.post("/events/ingest", json=EVENT, headers={"Authorization": "Bearer k"})
    refused(answer, 503, "INTERNAL_SERVER_ERROR")
    assert answer.json()["message"] == "the disk is full: free some space. Nothing of this request was stored"
