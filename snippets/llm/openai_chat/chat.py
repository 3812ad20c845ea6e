"""Meter a chat completion of OpenAI."""

from openai import OpenAI

from meterprint import Recorder
from meterprint.blueprints.llm import LLMMeter

with Recorder.from_env() as recorder, OpenAI() as plain:
    meter = LLMMeter(recorder, metadata={"feature": "support_chat"})
    client = meter.wrap(plain, customer_id="cus_ada")  # an OpenAI client, like the plain one
    completion = client.chat.completions.create(
        model="gpt-5.4-mini",
        messages=[{"role": "user", "content": "Why is the sky blue?"}],
    )
    print(completion.choices[0].message.content)
    #> This is the stand-in's answer to: Why is the sky blue?
