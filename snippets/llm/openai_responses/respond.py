"""Meter OpenAI's Responses API: what the model thinks is counted apart from what it says."""

from openai import OpenAI

from meterprint import Recorder
from meterprint.blueprints.llm import LLMMeter

with Recorder.from_env() as recorder, OpenAI() as plain:
    client = LLMMeter(recorder).wrap(plain, customer_id="cus_ada")
    response = client.responses.create(
        model="gpt-6-sol",
        input="Why is the sky blue?",
        reasoning={"effort": "high"},  # more reasoning tokens, which cost as much as those of the answer
    )
    print(response.output_text)
    #> This is the stand-in's answer to: Why is the sky blue?
