"""Meter a conversation with Anthropic: what is written to the prompt cache, and what is read from it."""

from anthropic import Anthropic
from anthropic.types import MessageParam, TextBlockParam

from meterprint import Recorder
from meterprint.blueprints.llm import LLMMeter

# Long enough for every model's cache: most take prompts from 1,024 tokens, some from 4,096.
GUIDE: TextBlockParam = {
    "type": "text",
    "text": "Answer in one short sentence that a child understands. " * 500,
    "cache_control": {"type": "ephemeral"},
}
messages: list[MessageParam] = []

with Recorder.from_env() as recorder, Anthropic() as plain:
    client = LLMMeter(recorder).wrap(plain, customer_id="cus_ada")
    for question in ("Why is the sky blue?", "Why is the sunset red?"):
        messages.append({"role": "user", "content": question})
        answer = client.messages.create(model="claude-sonnet-5-5", max_tokens=200, system=[GUIDE], messages=messages)
        messages.append({"role": "assistant", "content": answer.content})
        print("".join(block.text for block in answer.content if block.type == "text"))
        #> This is the stand-in's answer to: Why is the sky blue?
        #> This is the stand-in's answer to: Why is the sunset red?
