#!/usr/bin/env bash
# Play a month by the test clock, and see its invoice.
set -euo pipefail

call() { # path, body
  curl --silent --show-error --fail-with-body --max-time 10 \
    --header @<(printf 'Authorization: Bearer %s\n' "$METERING_API_KEY") \
    --header "Content-Type: application/json" --data "$2" "${METERING_API_URL%/}$1"
}

meter=$(call /meters '{"name": "Runs", "event_name": "job.run", "measurement_unit": "run",
  "aggregation": {"type": "count"}}' | sed -nE 's/.*"id" *: *"(mtr_[^"]*)".*/\1/p')

for day in $(seq -w 1 31); do
  noon="2027-01-${day}T12:00:00Z"
  call /local/clock '{"now": "'"$noon"'"}' > /dev/null
  call /events/ingest '{"events": [{"event_id": "run-'"$noon"'", "customer_id": "cus_bo",
    "event_name": "job.run", "timestamp": "'"$noon"'"}]}' > /dev/null
done

invoice=$(call /local/invoice-preview '{"customer_id": "cus_bo",
  "start": "2027-01-01T00:00:00Z", "end": "2027-02-01T00:00:00Z",
  "prices": [{"meter_id": "'"$meter"'", "price_per_unit": 50, "free_threshold": 10}]}')
call /local/clock '{"now": null}' > /dev/null # back to the real time
sed -nE 's/.*"explanation" *: *"([^"]*)".*/\1/p' <<< "$invoice"
