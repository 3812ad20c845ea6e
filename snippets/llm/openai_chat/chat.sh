#!/usr/bin/env bash
# Meter a chat completion of OpenAI.
set -euo pipefail

missing=""
for name in METERING_API_URL METERING_API_KEY; do
  [ -n "${!name:-}" ] || missing="${missing:+$missing and }$name"
done
if [ -n "$missing" ]; then
  echo "$missing not set: \`meterprint up\` starts a local metering API and prints both" >&2
  exit 1
fi
: "${OPENAI_API_KEY:?not set: make a key at https://platform.openai.com/api-keys}"
openai=${OPENAI_BASE_URL:-https://api.openai.com/v1}

answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

# post URL KEY [OPTION...] sends its input; the body of what comes back is then in $answer, the status in $outcome.
# The key goes in by --header @, and the input by --data @, so that no list of processes shows them.
post() {
  local url=$1 key=$2
  : > "$answer" # without an answer, nothing of an earlier one is left
  outcome=$(curl --silent "${@:3}" --header "Content-Type: application/json" --data @- \
    --header @<(printf 'Authorization: Bearer %s\n' "$key") \
    --output "$answer" --write-out "%{http_code} %{errormsg}" "$url") || true
  [ "${outcome%% *}" = 200 ]
}
said() { echo "${outcome% } $(tr '\n' ' ' < "$answer")"; }

# The first value of a name in $answer. The model cannot forge one: within its words, JSON has \ before each quote.
number() { { grep -oE "\"$1\" *: *[0-9]+" "$answer" || echo 0; } | sed -E 's/.*[^0-9]//; q'; }
text() { { grep -oE "\"$1\" *: *\"([^\"\\]|\\\\.)*\"" "$answer" || true; } | sed -E 's/^[^:]*: *"(.*)"$/\1/; q'; }

# Prints a text of JSON's: its escapes are those of printf, but for \" and \/.
say() { printf '%b\n' "$(sed -E 's,\\(["/]),\1,g' <<<"$1")"; }

if ! post "${openai%/}/chat/completions" "$OPENAI_API_KEY" --max-time 120 <<'JSON'; then
{"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}
JSON
  echo "OpenAI: $(said)" >&2 # a call that failed is not billed
  exit 1
fi
say "$(text content)"

# OpenAI's prompt includes what its cache read and wrote, its completion the reasoning: each token is counted once.
prompt=$(number prompt_tokens) completion=$(number completion_tokens)
cached=$(number cached_tokens) written=$(number cache_write_tokens) reasoning=$(number reasoning_tokens)
id=$(text id) estimated=false
grep -q '"prompt_tokens"' "$answer" || estimated=true # an answer without its usage
event=$(
  cat <<JSON
{
  "event_id": "openai:${id:-$(uuidgen 2>/dev/null || cat /proc/sys/kernel/random/uuid)}",
  "customer_id": "cus_ada",
  "event_name": "llm.usage",
  "timestamp": "$(date -u +%Y-%m-%dT%H:%M:%SZ)",
  "metadata": {
    "provider": "openai",
    "model": "$(text model)",
    "operation": "chat",
    "input_tokens": $((prompt - cached - written)),
    "cached_input_tokens": $cached,
    "cache_write_tokens": $written,
    "output_tokens": $((completion - reasoning)),
    "reasoning_tokens": $reasoning,
    "total_tokens": $((prompt + completion)),
    "estimated": $estimated,
    "feature": "support_chat"
  }
}
JSON
)

# The event's id is the answer's, the same on every try: each id is billed once. --retry covers timeouts, 408, 429, 500
# and 502 to 504, and obeys Retry-After; --retry-all-errors adds network errors.
post "${METERING_API_URL%/}/events/ingest" "$METERING_API_KEY" \
  --max-time 10 --retry 3 --retry-all-errors --retry-max-time 60 <<<"{\"events\": [$event]}" || true
if [ "${outcome%% *}" != 200 ] || ! grep -q '"ingested_count"' "$answer"; then
  echo "not metered: $(said): $event" >&2
  exit 1
fi
