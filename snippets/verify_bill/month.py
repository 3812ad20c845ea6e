"""Play a month by the test clock, and see its invoice."""

import os
from datetime import UTC, datetime, timedelta

import httpx

from meterprint import Event, MeteringClient
from meterprint.blueprints.api_gateway import BLUEPRINT, REQUEST

api = httpx.Client(
    base_url=os.environ["METERING_API_URL"],
    headers={"Authorization": f"Bearer {os.environ['METERING_API_KEY']}"},
)
start, end = datetime(2027, 1, 1, tzinfo=UTC), datetime(2027, 2, 1, tzinfo=UTC)


def set_clock(now: datetime | None) -> None:
    api.post("/local/clock", json={"now": now and now.isoformat()}).raise_for_status()


with MeteringClient.from_env() as metering:
    requests, *_ = metering.ensure_meters(BLUEPRINT.meters)
    for day in range(31):
        noon = start + timedelta(days=day, hours=12)
        set_clock(noon)  # events of this time are on time
        metering.ingest([Event(Event.new_id(), "cus_ada", REQUEST.name, noon, REQUEST.sample()) for _ in range(100)])

price = {"meter_id": requests.id, "price_per_unit": "0.2", "free_threshold": 1000}
period = {"start": start.isoformat(), "end": end.isoformat()}
answer = api.post("/local/invoice-preview", json={"customer_id": "cus_ada", **period, "prices": [price]})
for line in answer.raise_for_status().json()["lines"]:
    print(f"{line['name']}: {line['explanation']}")
    #> API requests: 3,100 - 1,000 free = 2,100 x 0.2 cents = 4.20 USD
set_clock(None)  # back to the real time
