#!/usr/bin/env bash
# Meter a conversation with Anthropic: what is written to the prompt cache, and what is read from it.
set -euo pipefail

missing=""
for name in METERING_API_URL METERING_API_KEY; do
  [ -n "${!name:-}" ] || missing="${missing:+$missing and }$name"
done
if [ -n "$missing" ]; then
  echo "$missing not set: \`meterprint up\` starts a local metering API and prints both" >&2
  exit 1
fi
: "${ANTHROPIC_API_KEY:?not set: make a key at https://console.anthropic.com/settings/keys}"
anthropic=${ANTHROPIC_BASE_URL:-https://api.anthropic.com}

answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

# post URL HEADER [OPTION...] sends its input; the body of what comes back is then in $answer, the status in $outcome.
# The key goes in by --header @, and the input by --data @, so that no list of processes shows them.
post() {
  local url=$1 header=$2
  : > "$answer" # without an answer, nothing of an earlier one is left
  outcome=$(curl --silent "${@:3}" --header "Content-Type: application/json" --data @- \
    --header @<(printf '%s\n' "$header") \
    --output "$answer" --write-out "%{http_code} %{errormsg}" "$url") || true
  [ "${outcome%% *}" = 200 ]
}
said() { echo "${outcome% } $(tr '\n' ' ' < "$answer")"; }

# The first value of a name in $answer. The model cannot forge one: within its words, JSON has \ before each quote.
number() { { grep -oE "\"$1\" *: *[0-9]+" "$answer" || echo 0; } | sed -E 's/.*[^0-9]//; q'; }
text() { { grep -oE "\"$1\" *: *\"([^\"\\]|\\\\.)*\"" "$answer" || true; } | sed -E 's/^[^:]*: *"(.*)"$/\1/; q'; }

# Prints a text of JSON's: its escapes are those of printf, but for \" and \/.
say() { printf '%b\n' "$(sed -E 's,\\(["/]),\1,g' <<<"$1")"; }

# Long enough for every model's cache: most take prompts from 1,024 tokens, some from 4,096.
guide=$(printf 'Answer in one short sentence that a child understands. %.0s' {1..500})

ask() {
  post "${anthropic%/}/v1/messages" "X-Api-Key: $ANTHROPIC_API_KEY" \
    --max-time 120 --header "Anthropic-Version: 2023-06-01" <<JSON
{
  "model": "claude-sonnet-5-5",
  "max_tokens": 200,
  "system": [{"type": "text", "text": "$guide", "cache_control": {"type": "ephemeral"}}],
  "messages": [$messages]
}
JSON
}

# Each token once: Anthropic's input is without what its cache read and wrote, its output has the thinking.
event() {
  local id input output cached written thinking estimated=false
  id=$(text id)
  input=$(number input_tokens) output=$(number output_tokens) thinking=$(number thinking_tokens)
  cached=$(number cache_read_input_tokens) written=$(number cache_creation_input_tokens)
  grep -q '"input_tokens"' "$answer" || estimated=true # an answer without its usage
  cat <<JSON
{
  "event_id": "anthropic:${id:-$(uuidgen 2>/dev/null || cat /proc/sys/kernel/random/uuid)}",
  "customer_id": "cus_ada",
  "event_name": "llm.usage",
  "timestamp": "$(date -u +%Y-%m-%dT%H:%M:%SZ)",
  "metadata": {
    "provider": "anthropic",
    "model": "$(text model)",
    "operation": "chat",
    "input_tokens": $input,
    "cached_input_tokens": $cached,
    "cache_write_tokens": $written,
    "output_tokens": $((output - thinking)),
    "reasoning_tokens": $thinking,
    "total_tokens": $((input + cached + written + output)),
    "estimated": $estimated
  }
}
JSON
}

# The event's id is the answer's, the same on every try: each id is billed once. --retry covers timeouts, 408, 429, 500
# and 502 to 504, and obeys Retry-After; --retry-all-errors adds network errors.
meter() {
  post "${METERING_API_URL%/}/events/ingest" "Authorization: Bearer $METERING_API_KEY" \
    --max-time 10 --retry 3 --retry-all-errors --retry-max-time 60 <<<"{\"events\": [$1]}" &&
    grep -q '"ingested_count"' "$answer"
}

messages="" status=0
for question in "Why is the sky blue?" "Why is the sunset red?"; do
  messages+="${messages:+, }{\"role\": \"user\", \"content\": \"$question\"}"
  if ! ask; then
    echo "Anthropic: $(said)" >&2 # a call that failed is not billed
    exit 1
  fi
  say "$(text text)"
  messages+=", {\"role\": \"assistant\", \"content\": \"$(text text)\"}"
  used=$(event)
  if ! meter "$used"; then
    echo "not metered: $(said): $used" >&2
    status=1
  fi
done
exit "$status"
