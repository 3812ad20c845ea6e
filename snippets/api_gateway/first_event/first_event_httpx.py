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
url, key = os.environ.get("METERING_API_URL"), os.environ.get("METERING_API_KEY")
if not url or not key:
    raise SystemExit("set METERING_API_URL and METERING_API_KEY: `meterprint up` prints both")

headers = {"Authorization": f"Bearer {key}"}
failure = "no answer"
for attempt in range(4):
    time.sleep(random.uniform(0, 2**attempt - 1))
    try:
        response = httpx.post(f"{url.rstrip('/')}/events/ingest", json={"events": [event]}, headers=headers, timeout=10)
    except httpx.TransportError as error:
        failure = f"no answer: {error}"
        continue
    if response.is_success:
        print(f"{response.json()['ingested_count']} event ingested")
        #> 1 event ingested
        break
    failure = f"{response.status_code} {response.text}"
    if response.status_code not in (408, 425, 429) and response.status_code < 500:
        raise SystemExit(f"not metered: {failure}")
else:
    raise SystemExit(f"not metered: {failure}")
