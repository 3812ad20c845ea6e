"""Meter a chat completion of OpenRouter, asked with OpenAI's SDK."""

import os

from openai import OpenAI

from meterprint import Recorder
from meterprint.blueprints.llm import LLMMeter

ADDRESS = os.environ.get("OPENROUTER_BASE_URL", "https://openrouter.ai/api/v1")

with Recorder.from_env() as recorder, OpenAI(base_url=ADDRESS, api_key=os.environ["OPENROUTER_API_KEY"]) as plain:
    # openrouter.ai is known by its address; behind a gateway of your own, say who answers.
    client = LLMMeter(recorder).wrap(plain, customer_id="cus_ada", provider="openrouter")
    completion = client.chat.completions.create(
        model="anthropic/claude-sonnet-5",
        messages=[{"role": "user", "content": "Why is the sky blue?"}],
    )
    print(completion.choices[0].message.content)
    #> This is the stand-in's answer to: Why is the sky blue?
