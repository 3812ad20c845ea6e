"""Meter a stream that is left early: what was received is billed, and marked as an estimate."""

from openai import OpenAI

from meterprint import Recorder
from meterprint.blueprints.llm import LLMMeter

with Recorder.from_env() as recorder, OpenAI() as plain:
    client = LLMMeter(recorder).wrap(plain, customer_id="cus_ada")
    said = ""
    with client.chat.completions.create(  # its end closes the stream: the model stops, and the event is recorded
        model="gpt-5.4-mini",
        messages=[{"role": "user", "content": "Why is the sky blue?"}],
        stream=True,
    ) as stream:
        for chunk in stream:
            said += chunk.choices[0].delta.content or ""
            if len(said) > 25:  # the usage would come with the last chunk, which is never read
                break
    print(f"{said.strip()} ...")
    #> This is the stand-in's answer ...
