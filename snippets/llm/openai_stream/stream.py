"""Meter a streamed chat completion of OpenAI."""

import sys

from openai import OpenAI

from meterprint import Recorder
from meterprint.blueprints.llm import LLMMeter

with Recorder.from_env() as recorder, OpenAI() as plain:
    client = LLMMeter(recorder).wrap(plain, customer_id="cus_ada")
    with client.chat.completions.create(
        model="gpt-5.4-mini",
        messages=[{"role": "user", "content": "Why is the sky blue?"}],
        stream=True,  # the meter asks OpenAI for the usage too, and takes that chunk out again
    ) as stream:
        for chunk in stream:
            sys.stdout.write(chunk.choices[0].delta.content or "")
            sys.stdout.flush()
    sys.stdout.write("\n")
