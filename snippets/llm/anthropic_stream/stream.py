"""Meter a streamed message of Anthropic."""

import sys

from anthropic import Anthropic

from meterprint import Recorder
from meterprint.blueprints.llm import LLMMeter

with Recorder.from_env() as recorder, Anthropic() as plain:
    client = LLMMeter(recorder).wrap(plain, customer_id="cus_ada")
    with client.messages.stream(
        model="claude-sonnet-5-5",
        max_tokens=200,
        messages=[{"role": "user", "content": "Why is the sky blue?"}],
    ) as stream:
        for text in stream.text_stream:
            sys.stdout.write(text)
            sys.stdout.flush()
    sys.stdout.write("\n")
