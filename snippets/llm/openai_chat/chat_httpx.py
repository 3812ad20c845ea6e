"""Meter a chat completion of OpenAI with plain HTTP."""

import json
import os
import random
import time
from datetime import UTC, datetime

import httpx

url, key = os.environ.get("METERING_API_URL"), os.environ.get("METERING_API_KEY")
if not url or not key:
    raise SystemExit("set METERING_API_URL and METERING_API_KEY: `meterprint up` prints both")

provider = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1")
answer = httpx.post(
    f"{provider.rstrip('/')}/chat/completions",
    headers={"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"},
    json={"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "Why is the sky blue?"}]},
    timeout=60,
)
completion = answer.raise_for_status().json()  # a call that failed is not billed
print(completion["choices"][0]["message"]["content"])
#> This is the stand-in's answer to: Why is the sky blue?

# OpenAI's prompt includes what its cache read and wrote, its completion the reasoning: each token is billed once.
usage = completion["usage"]
prompt, said = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
cached, written = prompt.get("cached_tokens") or 0, prompt.get("cache_write_tokens") or 0
reasoning = said.get("reasoning_tokens") or 0
event = {
    "event_id": f"openai:{completion['id']}",  # the same on every try: each id is billed once
    "customer_id": "cus_ada",
    "event_name": "llm.usage",
    "timestamp": datetime.now(UTC).isoformat(),
    "metadata": {
        "provider": "openai",
        "model": completion["model"],
        "operation": "chat",
        "input_tokens": usage["prompt_tokens"] - cached - written,
        "cached_input_tokens": cached,
        "cache_write_tokens": written,
        "output_tokens": usage["completion_tokens"] - reasoning,
        "reasoning_tokens": reasoning,
        "total_tokens": usage["prompt_tokens"] + usage["completion_tokens"],
        "estimated": False,
        "feature": "support_chat",
    },
}
failure = "no answer"
for attempt in range(4):
    time.sleep(random.uniform(0, 2**attempt - 1))
    try:
        response = httpx.post(
            f"{url.rstrip('/')}/events/ingest",
            headers={"Authorization": f"Bearer {key}"},
            json={"events": [event]},
            timeout=10,
        )
    except httpx.TransportError as error:
        failure = f"no answer: {error}"
        continue
    if response.is_success:
        break
    failure = f"{response.status_code} {response.text}"
    if response.status_code not in (408, 425, 429) and response.status_code < 500:
        raise SystemExit(f"not metered: {failure}: {json.dumps(event)}")
else:
    raise SystemExit(f"not metered: {failure}: {json.dumps(event)}")
