"""Meter three providers with one meter: their answers leave the same event."""

from anthropic import Anthropic
from google import genai
from openai import OpenAI

from meterprint import Recorder
from meterprint.blueprints.llm import LLMMeter

QUESTION = "Why is the sky blue?"

with Recorder.from_env() as recorder, OpenAI() as openai, Anthropic() as anthropic, genai.Client() as gemini:
    meter = LLMMeter(recorder, customer_id="cus_ada")

    response = meter.wrap(openai).responses.create(model="gpt-5.4-mini", input=QUESTION)
    print("OpenAI:", response.output_text)
    #> OpenAI: This is the stand-in's answer to: Why is the sky blue?

    message = meter.wrap(anthropic).messages.create(
        model="claude-sonnet-5-5", max_tokens=200, messages=[{"role": "user", "content": QUESTION}]
    )
    print("Anthropic:", "".join(block.text for block in message.content if block.type == "text"))
    #> Anthropic: This is the stand-in's answer to: Why is the sky blue?

    answer = meter.wrap(gemini).models.generate_content(model="gemini-3.8-flash", contents=QUESTION)
    print("Gemini:", answer.text)
    #> Gemini: This is the stand-in's answer to: Why is the sky blue?
