"""A wrapped client is typed as the SDK's own. Only the type checkers read this file."""

from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import assert_type

from anthropic import Anthropic, AsyncAnthropic
from anthropic import Stream as AnthropicStream
from anthropic.types import Message, RawMessageStreamEvent
from google import genai
from google.genai.types import GenerateContentResponse
from groq import AsyncGroq, Groq
from mistralai.client import Mistral
from mistralai.client.models import ChatCompletionResponse
from openai import AsyncOpenAI, AsyncStream, AzureOpenAI, OpenAI, Stream
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageParam
from openai.types.responses import Response

from meterprint import AsyncRecorder, Recorder
from meterprint.blueprints.llm import LLMMeter, Usage, usage_of

ASK: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
CUSTOMER: ContextVar[str] = ContextVar("customer")


def wrapped(recorder: Recorder) -> None:
    meter = LLMMeter(recorder, customer_id=CUSTOMER, metadata={"plan": "pro"})
    client = meter.wrap(OpenAI())
    assert_type(client, OpenAI)
    assert_type(client.with_options(timeout=5), OpenAI)
    assert_type(client.chat.completions.create(model="m", messages=ASK), ChatCompletion)
    assert_type(client.chat.completions.create(model="m", messages=ASK, stream=True), Stream[ChatCompletionChunk])
    assert_type(client.responses.create(model="m", input="Hello"), Response)
    assert_type(client.embeddings.create(model="m", input="Hello"), CreateEmbeddingResponse)
    assert_type(meter.wrap(AzureOpenAI(), customer_id=lambda: "cus_ada"), AzureOpenAI)
    claude = meter.wrap(Anthropic(), customer_id="cus_ada")
    assert_type(claude, Anthropic)
    assert_type(claude.messages.create(model="m", max_tokens=9, messages=[]), Message)
    assert_type(
        claude.messages.create(model="m", max_tokens=9, messages=[], stream=True),
        AnthropicStream[RawMessageStreamEvent],
    )
    gemini = meter.wrap(genai.Client())
    assert_type(gemini, genai.Client)
    assert_type(gemini.models.generate_content(model="m", contents="Hello"), GenerateContentResponse)
    assert_type(meter.wrap(Groq(), metadata=lambda: {"feature": "search"}), Groq)
    mistral = meter.wrap(Mistral(), provider="mistral")
    assert_type(mistral, Mistral)
    assert_type(mistral.chat.complete(model="m", messages=[]), ChatCompletionResponse)


async def wrapped_async(recorder: AsyncRecorder) -> None:
    meter = LLMMeter(recorder, customer_id="cus_ada")
    client = meter.wrap(AsyncOpenAI())
    assert_type(client, AsyncOpenAI)
    stream = await client.chat.completions.create(model="m", messages=ASK, stream=True)
    assert_type(stream, AsyncStream[ChatCompletionChunk])
    assert_type(meter.wrap(AsyncAnthropic()), AsyncAnthropic)
    assert_type(meter.wrap(AsyncGroq()), AsyncGroq)
    gemini = meter.wrap(genai.Client())
    chunks = await gemini.aio.models.generate_content_stream(model="m", contents="Hello")
    assert_type(chunks, AsyncIterator[GenerateContentResponse])


def by_hand(answer: ChatCompletion) -> None:
    usage = usage_of(answer)
    assert_type(usage, Usage)
    assert_type(usage.output_tokens, int)


def wrong(meter: LLMMeter) -> None:
    meter.wrap(OpenAI(), customer_id=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
