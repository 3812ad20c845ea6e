"""Meter embeddings of OpenAI: one event for a call, however many texts it embeds."""

from openai import OpenAI

from meterprint import Recorder
from meterprint.blueprints.llm import LLMMeter

with Recorder.from_env() as recorder, OpenAI() as plain:
    client = LLMMeter(recorder, metadata={"feature": "search"}).wrap(plain, customer_id="cus_ada")
    response = client.embeddings.create(
        model="text-embedding-3-small",
        input=["The sky is blue.", "The sunset is red.", "Grass is green."],
    )
    print(f"{len(response.data)} texts embedded with {response.usage.total_tokens} tokens")
    #> 3 texts embedded with 13 tokens
