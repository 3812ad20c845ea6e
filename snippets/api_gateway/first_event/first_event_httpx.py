"""Meter one API request with plain HTTP."""

import os
import random
import time
import uuid
from datetime import UTC, datetime

import httpx

event = {
    "event_id": str(uuid.uuid4()),  # the same on every try: each id is billed once
    "customer_id": "cus_ada",
    "event_name": "api.request",
    "timestamp": datetime.now(UTC).isoformat(),
    "metadata": {
        "endpoint": "/v1/orders/{order_id}",
        "method": "GET",
        "status_code": 200,
        "duration_ms": 12.5,
        "request_bytes": 0,
        "response_bytes": 2048,
    },
}
url = f"{os.environ['METERING_API_URL']}/events/ingest"
headers = {"Authorization": f"Bearer {os.environ['METERING_API_KEY']}"}

response = None
for attempt in range(4):
    if attempt:
        time.sleep(random.uniform(0, 2**attempt))
    try:
        response = httpx.post(url, json={"events": [event]}, headers=headers, timeout=10)
    except httpx.TransportError:
        continue
    if response.status_code != 429 and response.status_code < 500:
        break

if response is None or response.is_error:
    raise SystemExit(f"not metered: {response.text if response else 'no answer'}")
print(f"{response.json()['ingested_count']} event ingested")
# > 1 event ingested
