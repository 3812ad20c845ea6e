"""Meter a chat completion of Groq."""

from groq import Groq

from meterprint import Recorder
from meterprint.blueprints.llm import LLMMeter

with Recorder.from_env() as recorder, Groq() as plain:
    client = LLMMeter(recorder).wrap(plain, customer_id="cus_ada")
    completion = client.chat.completions.create(
        model="openai/gpt-oss-120b",
        messages=[{"role": "user", "content": "Why is the sky blue?"}],
    )
    print(completion.choices[0].message.content)
    #> This is the stand-in's answer to: Why is the sky blue?
