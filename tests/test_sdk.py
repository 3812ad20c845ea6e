"""The official Python SDK, validating strictly, against the served API: a second opinion on the wire format."""

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

import dodopayments
import httpx
import pytest
from dodopayments import AsyncDodoPayments, DodoPayments

from meterprint.local.server import Server

NESTED = {
    "conjunction": "and",
    "clauses": [
        {"conjunction": "or", "clauses": [{"key": "method", "operator": "equals", "value": "POST"}]},
        {"conjunction": "and", "clauses": [{"key": "status_code", "operator": "less_than", "value": 500}]},
    ],
}


@pytest.fixture
def sdk(served: Server) -> DodoPayments:
    return DodoPayments(bearer_token=f"key-{uuid4()}", base_url=served.url, _strict_response_validation=True)


def test_meters_are_created_read_listed_archived_and_unarchived(sdk: DodoPayments) -> None:
    made = sdk.meters.create(
        name="Requests",
        event_name="api.request",
        aggregation={"type": "sum", "key": "bytes"},
        measurement_unit="byte",
        description="for tests",
        filter=NESTED,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    )
    assert (made.name, made.event_name, made.measurement_unit) == ("Requests", "api.request", "byte")
    assert (made.aggregation.type, made.aggregation.key, made.description) == ("sum", "bytes", "for tests")
    assert made.filter
    assert made.filter.to_dict() == NESTED
    assert made.created_at.tzinfo is not None
    assert sdk.meters.retrieve(made.id) == made
    assert sdk.meters.list(page_number=0).items == [made]
    sdk.meters.archive(made.id)
    assert sdk.meters.list(page_number=0).items == []
    assert [meter.id for meter in sdk.meters.list(page_number=0, archived=True).items] == [made.id]
    sdk.meters.unarchive(made.id)
    assert [meter.id for meter in sdk.meters.list(page_number=0).items] == [made.id]
    with pytest.raises(dodopayments.NotFoundError):
        sdk.meters.retrieve("mtr_none")


def test_a_meter_is_renamed(sdk: DodoPayments) -> None:
    made = sdk.meters.create(name="A", event_name="n", aggregation={"type": "count"}, measurement_unit="x")
    changed = sdk.meters.update(made.id, name="B", description="more")
    assert (changed.id, changed.name, changed.description, changed.event_name) == (made.id, "B", "more", "n")
    assert sdk.meters.retrieve(made.id) == changed


def test_the_usage_history_of_a_subscription_is_read(sdk: DodoPayments, served: Server) -> None:
    meter = sdk.meters.create(name="A", event_name="n", aggregation={"type": "count"}, measurement_unit="x")
    start = datetime.now(UTC).isoformat()
    price = {"meter_id": meter.id, "price_per_unit": "2.5", "free_threshold": 1}
    body = {"customer_id": "cus_ada", "start": start, "prices": [price]}
    headers = {"Authorization": f"Bearer {sdk.bearer_token}"}
    assert httpx.put(f"{served.url}/local/subscriptions/sub_1", json=body, headers=headers).status_code == 200
    sdk.usage_events.ingest(
        events=[{"event_id": f"e{n}", "customer_id": "cus_ada", "event_name": "n"} for n in range(4)]
    )
    (period,) = sdk.subscriptions.retrieve_usage_history("sub_1", page_number=0).items
    (used,) = period.meters
    assert (used.id, used.consumed_units, used.chargeable_units) == (meter.id, "4", "3")
    assert (used.free_threshold, used.price_per_unit, used.currency, used.total_price) == (1, "2.5", "USD", 8)
    assert sdk.subscriptions.retrieve_usage_history("sub_1", page_number=1).items == []


def test_events_are_ingested_read_and_listed_page_by_page(sdk: DodoPayments) -> None:
    moment = datetime.now(UTC)
    answer = sdk.usage_events.ingest(
        events=[
            {
                "event_id": f"e{number}",
                "customer_id": "cus_ada",
                "event_name": "api.request",
                "timestamp": moment,
                "metadata": {"method": "GET", "bytes": 0.5, "ok": True} if number else None,
            }
            for number in range(15)
        ]
    )
    assert answer.ingested_count == 15
    found = sdk.usage_events.retrieve("e7")
    assert (found.event_id, found.customer_id, found.event_name) == ("e7", "cus_ada", "api.request")
    assert found.timestamp == moment
    assert found.metadata == {"method": "GET", "bytes": 0.5, "ok": True}
    assert sdk.usage_events.retrieve("e0").metadata is None
    pages = [sdk.usage_events.list(page_number=number, page_size=10).items for number in range(3)]
    assert [len(page) for page in pages] == [10, 5, 0]
    assert sorted(event.event_id for page in pages for event in page) == sorted(f"e{number}" for number in range(15))


def test_a_refusal_is_the_sdks_own_error_with_our_code(sdk: DodoPayments) -> None:
    event = {"event_id": "e", "customer_id": "cus_ada", "event_name": "n", "timestamp": "2020-01-01T00:00:00Z"}
    with pytest.raises(dodopayments.BadRequestError) as caught:
        sdk.usage_events.ingest(events=[event])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["code"] == "INVALID_TIMESTAMP"
    assert sdk.usage_events.list(page_number=0).items == []


def test_the_asynchronous_sdk_works_as_well(served: Server) -> None:
    async def main() -> None:
        key = f"key-{uuid4()}"
        async with AsyncDodoPayments(bearer_token=key, base_url=served.url, _strict_response_validation=True) as sdk:
            events = [{"event_id": "e", "customer_id": "cus_ada", "event_name": "n"}]
            assert (await sdk.usage_events.ingest(events=events)).ingested_count == 1  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            assert [event.event_id for event in (await sdk.usage_events.list(page_number=0)).items] == ["e"]

    asyncio.run(main())
