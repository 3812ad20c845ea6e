"""Meter an answer that no SDK brought: plain HTTP, a queue, a log, a batch."""

import os

import httpx

from meterprint import Recorder
from meterprint.blueprints.llm import LLMMeter, usage_of

BASE_URL = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1")

with Recorder.from_env() as recorder:
    meter = LLMMeter(recorder, metadata={"feature": "support_chat"})
    response = httpx.post(
        f"{BASE_URL}/chat/completions",
        headers={"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"},
        json={"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "Why is the sky blue?"}]},
        timeout=60,
    )
    answer = response.raise_for_status().json()
    meter.record(answer, customer_id="cus_ada", provider="openai")  # the answer's id is the key: again is not billed
    print(answer["choices"][0]["message"]["content"])
    #> This is the stand-in's answer to: Why is the sky blue?

    usage = usage_of(answer)  # the same numbers, for a budget or a log
    print(f"{usage.input_tokens} in, {usage.output_tokens} out, {usage.reasoning_tokens} of reasoning")
    #> 5 in, 14 out, 64 of reasoning
