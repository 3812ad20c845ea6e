"""How users' code types. Only the type checkers read this file."""

from decimal import Decimal
from typing import assert_type

from meterprint import AsyncMeteringClient, Condition, Event, Filter, IngestResult, Meter, MeteringClient
from meterprint.testing import MeteringAPI


def send(client: MeteringClient, event: Event, meter: Meter) -> None:
    assert_type(client.ingest([event]), IngestResult)
    assert_type(client.ensure_meters([meter]), list[Meter])
    assert_type(client.usage("mtr_1", customer_id="cus_ada"), Decimal)
    assert_type(
        [stored.metadata["bytes"] for stored in client.events(customer_id="cus_ada")], list[str | int | float | bool]
    )
    with MeteringClient.from_env(timeout=5.0) as opened:
        assert_type(opened, MeteringClient)


async def send_async(client: AsyncMeteringClient, event: Event) -> None:
    assert_type(await client.ingest([event]), IngestResult)
    async for stored in client.events():
        assert_type(stored, Event)


def rules() -> Filter:
    return Filter("and", (Condition("status_code", "less_than", 500), Condition("method", "equals", "GET")))


def wrong() -> None:
    Condition("a", "like", "b")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test(metering_api: MeteringAPI, meter: Meter) -> None:
    assert_type(metering_api.usage(meter), Decimal)
    assert_type(metering_api.events, list[Event])
