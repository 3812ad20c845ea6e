"""Record events; they are delivered in the background."""

from meterprint import Recorder

with Recorder.from_env() as recorder:  # one for the process
    for status_code in (200, 404):
        recorder.record(
            "api.request",
            customer_id="cus_ada",
            metadata={
                "endpoint": "/v1/orders/{order_id}",
                "method": "GET",
                "status_code": status_code,
                "duration_ms": 12.5,
                "request_bytes": 0,
                "response_bytes": 2048,
            },
        )

print(f"{recorder.stats.delivered} delivered, {recorder.stats.buffered} left")
#> 2 delivered, 0 left
