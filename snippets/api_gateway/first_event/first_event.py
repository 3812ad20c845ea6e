"""Meter one API request."""

from meterprint import Event, MeteringClient

event = Event(
    event_id=Event.new_id(),  # keep it for every retry: each id is billed once
    customer_id="cus_ada",
    event_name="api.request",
    metadata={
        "endpoint": "/v1/orders/{order_id}",
        "method": "GET",
        "status_code": 200,
        "duration_ms": 12.5,
        "request_bytes": 0,
        "response_bytes": 2048,
    },
)

with MeteringClient.from_env() as metering:
    result = metering.ingest([event])

print(f"{result.ingested_count} event ingested")
#> 1 event ingested
