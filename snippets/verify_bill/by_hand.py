"""Read a meter by hand: its events, page by page."""

import os

import httpx

from meterprint import MeteringClient
from meterprint.blueprints.api_gateway import BLUEPRINT

with MeteringClient.from_env() as metering:
    _, _, _, response_bytes = metering.ensure_meters(BLUEPRINT.meters)
    metering.ingest(list(BLUEPRINT.sample_events("cus_ada"))[-250:])

api = httpx.Client(
    base_url=os.environ["METERING_API_URL"],
    headers={"Authorization": f"Bearer {os.environ['METERING_API_KEY']}"},
)
query = {"customer_id": "cus_ada", "meter_id": response_bytes.id, "page_size": 100}
read, number = [], 0  # the first page is 0
while True:
    answer = api.get("/events", params={**query, "page_number": number})
    page = answer.raise_for_status().json()["items"]
    read += [event["metadata"]["response_bytes"] for event in page]
    number += 1
    if len(page) < 100:
        break
print(f"{len(read)} events on {number} pages: {sum(read):,} bytes")
#> 125 events on 2 pages: 2,000,081,920 bytes
