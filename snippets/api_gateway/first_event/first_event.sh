#!/usr/bin/env bash
# Meter one API request.
set -euo pipefail

missing=""
for name in METERING_API_URL METERING_API_KEY; do
  [ -n "${!name:-}" ] || missing="${missing:+$missing and }$name"
done
if [ -n "$missing" ]; then
  echo "$missing not set: \`meterprint up\` starts a local metering API and prints both" >&2
  exit 1
fi

# Made once, the same on every try: each id is billed once.
event_id=$(uuidgen 2>/dev/null || cat /proc/sys/kernel/random/uuid)

answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

# --retry covers timeouts, 408, 429, 500 and 502 to 504, and obeys Retry-After; --retry-all-errors adds network errors
# (with --fail, also 400 and 401). The key goes in by --header @, so that no list of processes shows it.
outcome=$(curl --silent --max-time 10 --retry 3 --retry-all-errors --retry-max-time 60 \
  --header @<(printf 'Authorization: Bearer %s\n' "$METERING_API_KEY") --header "Content-Type: application/json" \
  --output "$answer" --write-out "%{http_code} %{errormsg}" \
  --data '{"events": [{
    "event_id": "'"$event_id"'",
    "customer_id": "cus_ada",
    "event_name": "api.request",
    "timestamp": "'"$(date -u +%Y-%m-%dT%H:%M:%SZ)"'",
    "metadata": {
      "endpoint": "/v1/orders/{order_id}",
      "method": "GET",
      "status_code": 200,
      "duration_ms": 12.5,
      "request_bytes": 0,
      "response_bytes": 2048
    }
  }]}' \
  "${METERING_API_URL%/}/events/ingest") || true

count=$(sed -nE 's/.*"ingested_count" *: *([0-9]+).*/\1/p' "$answer")
if [ "${outcome%% *}" != 200 ] || [ -z "$count" ]; then
  echo "not metered: ${outcome% } $(tr '\n' ' ' < "$answer")" >&2
  exit 1
fi
echo "$count event ingested"
