"""Send few events for many calls."""

from meterprint import MeteringClient, Recorder, Rollup
from meterprint.blueprints.api_gateway import BLUEPRINT

rollup = Rollup(every=60, by=("endpoint", "method", "status_code"))

with MeteringClient.from_env() as metering:
    meters = metering.ensure_meters([rollup.meter(meter) for meter in BLUEPRINT.meters])

    with Recorder.from_env(rollup=rollup) as recorder:
        for _ in range(10_000):
            recorder.record(
                "api.request",
                customer_id="cus_ada",
                metadata={
                    "endpoint": "/v1/orders/{order_id}",
                    "method": "GET",
                    "status_code": 200,
                    "duration_ms": 12.5,
                    "request_bytes": 0,
                    "response_bytes": 2048,
                },
            )

    few = recorder.stats.delivered <= 2  # two where a minute ended meanwhile
    print(recorder.stats.recorded, "calls, at most 2 events:", few)
    #> 10000 calls, at most 2 events: True
    for meter in meters:
        print(f"{meter.name}: {metering.usage(meter.id or '')}")
        #> API requests: 10000
        #> Orders created: 0
        #> Premium requests: 0
        #> Response bytes: 20480000
