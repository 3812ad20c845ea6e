"""Meter an answer of Gemini."""

from google import genai

from meterprint import Recorder
from meterprint.blueprints.llm import LLMMeter

with Recorder.from_env() as recorder, genai.Client() as plain:
    client = LLMMeter(recorder).wrap(plain, customer_id="cus_ada")
    response = client.models.generate_content(model="gemini-3.8-flash", contents="Why is the sky blue?")
    print(response.text)
    #> This is the stand-in's answer to: Why is the sky blue?
