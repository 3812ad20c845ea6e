"""Test that your own code bills what it should."""

from decimal import Decimal

from meterprint import Event, MeteringClient
from meterprint.blueprints.api_gateway import BLUEPRINT
from meterprint.testing import MeteringAPI


def create_order(customer_id: str, order_id: str) -> None:
    """Your code: one order, billed once however often it is tried."""
    event = Event(
        event_id=Event.id_for("order", order_id),
        customer_id=customer_id,
        event_name="api.request",
        metadata={
            "endpoint": "/v1/orders",
            "method": "POST",
            "status_code": 201,
            "duration_ms": 8.5,
            "request_bytes": 256,
            "response_bytes": 512,
        },
    )
    with MeteringClient.from_env() as metering:
        metering.ingest([event])


def test_an_order_is_billed_once(metering_api: MeteringAPI) -> None:
    create_order("cus_ada", order_id="8")
    create_order("cus_ada", order_id="8")  # a retry

    (event,) = metering_api.events
    BLUEPRINT.check(event)
    requests = next(meter for meter in BLUEPRINT.meters if meter.name == "API requests")
    assert metering_api.usage(requests, customer_id="cus_ada") == Decimal(1)
