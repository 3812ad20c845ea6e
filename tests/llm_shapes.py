"""Every way in which an SDK asks a model, and what each must leave."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import anthropic
import groq
import openai
from google import genai
from mistralai.client import Mistral
from pydantic import BaseModel

Buckets: TypeAlias = tuple[int, int, int, int, int]  # input, cached, written, output, reasoning
How: TypeAlias = Literal["value", "stream", "with", "raw", "raw with"]

LONG = "All work and no play. " * 250  # 5,500 characters: 1,375 tokens
SKY = "Why is the sky blue?"  # 5 tokens
SAID = f"This is the stand-in's answer to: {SKY}"  # 54 characters: 14 tokens
TALK: Any = [
    {"role": "system", "content": LONG},
    {"role": "user", "content": "Hello!"},
    {"role": "assistant", "content": "Good morning."},
    {"role": "user", "content": SKY},
]
# 5,539 characters are 1,385 tokens; of what came before the last answer, whole blocks of 128 are read from a cache.
THOUGHT: Buckets = (105, 1280, 0, 14, 64)
UNTOLD: Buckets = (105, 1280, 0, 78, 0)  # Mistral does not tell the reasoning apart
ARGUMENTS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": ARGUMENTS}}
TOOL_TOKENS = -(-len(json.dumps(TOOL, separators=(",", ":")) + SKY) // 4)
CALL_TOKENS = 7  # weather{"city":"example"}


class Planet(BaseModel):
    """What is to be parsed. Its example, {"name": "example", "moons": 1}, is 8 tokens."""

    name: str
    moons: int


@dataclass(frozen=True)
class Shape:
    """A way of asking.

    Attributes:
        client: Whose client it is, in `CLIENTS`.
        name: Its name.
        ask: Makes the call on a client; the second argument ends the names of Mistral's asynchronous methods.
        buckets: What it must leave; None if it must leave no event.
        how: How its result is used up.
        operation: What the event must name.
        has_id: Whether the answer has an id.
    """

    client: str
    name: str
    ask: Callable[[Any, str], Any]
    buckets: Buckets | None
    how: How = "value"
    operation: str = "chat"
    has_id: bool = True

    def __str__(self) -> str:
        return f"{self.client} {self.name}"


@dataclass(frozen=True)
class Client:
    """How a client is made and wrapped.

    Attributes:
        sync: Makes the synchronous one, at the address of the stand-ins.
        asynchronous: Makes the other.
        provider: What the event must name.
        options: What `wrap` takes beside.
    """

    sync: Callable[[str], Any]
    asynchronous: Callable[[str], Any]
    provider: str
    options: dict[str, Any]


def _of(kind: Any, other: Any, path: str, named: str, **options: Any) -> Client:
    def make(kind: Any) -> Callable[[str], Any]:
        return lambda url: kind(api_key="k", base_url=f"{url}{path}", max_retries=2)

    return Client(make(kind), make(other), named, options)


def _gemini(url: str) -> genai.Client:
    return genai.Client(api_key="k", http_options={"base_url": f"{url}/gemini"})


def _mistral(url: str) -> Mistral:
    return Mistral(api_key="k", server_url=f"{url}/mistral")


CLIENTS = {
    "openai": _of(openai.OpenAI, openai.AsyncOpenAI, "/openai/v1", "openai"),
    "anthropic": _of(anthropic.Anthropic, anthropic.AsyncAnthropic, "/anthropic", "anthropic"),
    "gemini": Client(_gemini, _gemini, "gemini", {}),
    "groq": _of(groq.Groq, groq.AsyncGroq, "/groq", "groq"),
    "mistral": Client(_mistral, _mistral, "mistral", {}),
    "openrouter": _of(openai.OpenAI, openai.AsyncOpenAI, "/openrouter/v1", "openrouter", provider="openrouter"),
    "groq by openai": _of(openai.OpenAI, openai.AsyncOpenAI, "/groq/openai/v1", "groq", provider="groq"),
    "mistral by openai": _of(openai.OpenAI, openai.AsyncOpenAI, "/mistral/v1", "mistral", provider="mistral"),
}

CHAT: Any = {"model": "gpt-5.4-mini", "messages": TALK}
STREAM: Any = {**CHAT, "stream": True}
ASKING: Any = {**STREAM, "stream_options": {"include_usage": True}}
RESPOND: Any = {"model": "gpt-5.4", "input": TALK}
WRITTEN: Any = {"model": "gpt-6-sol", "input": [TALK[0], TALK[3]]}
MARKED: Any = {"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}
CLAUDE: Any = {"model": "claude-sonnet-5-5", "max_tokens": 100, "system": [MARKED], "messages": TALK[1:]}
CLAUDE_FIRST: Any = {**CLAUDE, "messages": [TALK[3]]}
CLAUDE_THINKS: Any = {**CLAUDE, "max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1024}}
LLAMA: Any = {"model": "openai/gpt-oss-120b", "messages": TALK}
MAGISTRAL: Any = {"model": "magistral-medium-latest", "messages": TALK}
ROUTED: Any = {"model": "deepseek/deepseek-r1", "messages": TALK}
CONTENTS: Any = [
    {"role": "user", "parts": [{"text": "Hello!"}]},
    {"role": "model", "parts": [{"text": "Good morning."}]},
    {"role": "user", "parts": [{"text": SKY}]},
]
FLASH: Any = {"model": "gemini-3.8-flash", "contents": CONTENTS, "config": {"system_instruction": LONG}}
SEARCH: Any = {"model": "gemini-2.0-flash", "contents": SKY, "config": {"tools": [{"google_search": {}}]}}
SEARCHED: Buckets = (42, 0, 0, 14, 0)  # 10 of the prompt, which has the tool in it, and 32 of what was found
READ: Buckets = (10, 1375, 0, 14, 0)  # Anthropic's, up to the mark


def _gemini_chat(client: Any) -> Any:
    return client.chats.create(model="gemini-3.8-flash", config={"system_instruction": LONG}, history=CONTENTS[:2])


def _in_mistral(client: Any, name: str, suffix: str, **options: Any) -> Any:
    return getattr(client.chat, name + suffix)(**MAGISTRAL, **options)


SHAPES: list[Shape] = [
    Shape("openai", "chat.completions.create", lambda c, _: c.chat.completions.create(**CHAT), THOUGHT),
    Shape("openai", "create(stream=True)", lambda c, _: c.chat.completions.create(**STREAM), THOUGHT, "stream"),
    Shape(
        "openai",
        "create(stream=True, include_usage)",
        lambda c, _: c.chat.completions.create(**ASKING),
        THOUGHT,
        "stream",
    ),
    Shape("openai", "with create(stream=True)", lambda c, _: c.chat.completions.create(**STREAM), THOUGHT, "with"),
    Shape("openai", "with chat.completions.stream", lambda c, _: c.chat.completions.stream(**CHAT), THOUGHT, "with"),
    Shape(
        "openai",
        "chat.completions.parse",
        lambda c, _: c.chat.completions.parse(**CHAT, response_format=Planet),
        (105, 1280, 0, 8, 64),
    ),
    Shape(
        "openai",
        "with_raw_response.create",
        lambda c, _: c.chat.completions.with_raw_response.create(**CHAT),
        THOUGHT,
        "raw",
    ),
    Shape(
        "openai",
        "with_raw_response.create(stream=True)",
        lambda c, _: c.chat.completions.with_raw_response.create(**STREAM),
        THOUGHT,
        "raw",
    ),
    Shape(
        "openai",
        "with_streaming_response.create",
        lambda c, _: c.chat.completions.with_streaming_response.create(**CHAT),
        THOUGHT,
        "raw with",
    ),
    Shape(
        "openai",
        "with_options(...).create",
        lambda c, _: c.with_options(timeout=9).chat.completions.create(**CHAT),
        THOUGHT,
    ),
    Shape(
        "openai",
        "create(stream=True, n=2)",
        lambda c, _: c.chat.completions.create(**STREAM, n=2),
        (105, 1280, 0, 29, 128),
        "stream",
    ),
    Shape(
        "openai",
        "create(tools=[...])",
        lambda c, _: c.chat.completions.create(model="gpt-4o", messages=TALK[3:], tools=[TOOL]),
        (TOOL_TOKENS, 0, 0, CALL_TOKENS, 0),
    ),
    Shape(
        "openai",
        "embeddings.create",
        lambda c, _: c.embeddings.create(model="text-embedding-3-small", input=[SKY, "Hello!"]),
        (7, 0, 0, 0, 0),
        operation="embedding",
        has_id=False,
    ),
    Shape("openai", "responses.create", lambda c, _: c.responses.create(**RESPOND), THOUGHT, operation="responses"),
    Shape(
        "openai",
        "responses.create, cache written",
        lambda c, _: c.responses.create(**WRITTEN),
        (100, 0, 1280, 14, 64),
        operation="responses",
    ),
    Shape(
        "openai",
        "responses.create(stream=True)",
        lambda c, _: c.responses.create(**RESPOND, stream=True),
        THOUGHT,
        "stream",
        operation="responses",
    ),
    Shape(
        "openai",
        "with responses.create(stream=True)",
        lambda c, _: c.responses.create(**RESPOND, stream=True),
        THOUGHT,
        "with",
        operation="responses",
    ),
    Shape(
        "openai",
        "with responses.stream",
        lambda c, _: c.responses.stream(**RESPOND),
        THOUGHT,
        "with",
        operation="responses",
    ),
    Shape(
        "openai",
        "responses.parse",
        lambda c, _: c.responses.parse(**RESPOND, text_format=Planet),
        (105, 1280, 0, 8, 64),
        operation="responses",
    ),
    Shape(
        "openai",
        "responses.with_raw_response.create",
        lambda c, _: c.responses.with_raw_response.create(**RESPOND),
        THOUGHT,
        "raw",
        operation="responses",
    ),
    Shape("openai", "models.retrieve", lambda c, _: c.models.retrieve("gpt-4o"), None),
    Shape("anthropic", "messages.create", lambda c, _: c.messages.create(**CLAUDE), READ),
    Shape(
        "anthropic",
        "messages.create, cache written",
        lambda c, _: c.messages.create(**CLAUDE_FIRST),
        (5, 0, 1375, 14, 0),
    ),
    Shape(
        "anthropic",
        "messages.create(thinking=...)",
        lambda c, _: c.messages.create(**CLAUDE_THINKS),
        (10, 1375, 0, 14, 64),
    ),
    Shape(
        "anthropic",
        "messages.create(stream=True)",
        lambda c, _: c.messages.create(**CLAUDE, stream=True),
        READ,
        "stream",
    ),
    Shape(
        "anthropic",
        "with messages.create(stream=True)",
        lambda c, _: c.messages.create(**CLAUDE, stream=True),
        READ,
        "with",
    ),
    Shape("anthropic", "with messages.stream", lambda c, _: c.messages.stream(**CLAUDE), READ, "with"),
    Shape(
        "anthropic",
        "with messages.stream(thinking=...)",
        lambda c, _: c.messages.stream(**CLAUDE_THINKS),
        (10, 1375, 0, 14, 64),
        "with",
    ),
    Shape(
        "anthropic",
        "messages.parse",
        lambda c, _: c.messages.parse(**CLAUDE, output_format=Planet),
        (10, 1375, 0, 8, 0),
    ),
    Shape(
        "anthropic", "with_raw_response.create", lambda c, _: c.messages.with_raw_response.create(**CLAUDE), READ, "raw"
    ),
    Shape(
        "anthropic",
        "with_streaming_response.create",
        lambda c, _: c.messages.with_streaming_response.create(**CLAUDE),
        READ,
        "raw with",
    ),
    Shape(
        "anthropic", "with_options(...).create", lambda c, _: c.with_options(timeout=9).messages.create(**CLAUDE), READ
    ),
    Shape("anthropic", "beta.messages.create", lambda c, _: c.beta.messages.create(**CLAUDE), READ),
    Shape(
        "anthropic",
        "messages.count_tokens",
        lambda c, _: c.messages.count_tokens(model="claude-sonnet-5-5", messages=TALK[1:]),
        None,
    ),
    Shape("gemini", "models.generate_content", lambda c, _: c.models.generate_content(**FLASH), THOUGHT),
    Shape(
        "gemini",
        "models.generate_content_stream",
        lambda c, _: c.models.generate_content_stream(**FLASH),
        THOUGHT,
        "stream",
    ),
    Shape(
        "gemini", "generate_content(tools=[google_search])", lambda c, _: c.models.generate_content(**SEARCH), SEARCHED
    ),
    Shape("gemini", "chats.create().send_message", lambda c, _: _gemini_chat(c).send_message(SKY), THOUGHT),
    Shape(
        "gemini",
        "chats.create().send_message_stream",
        lambda c, _: _gemini_chat(c).send_message_stream(SKY),
        THOUGHT,
        "stream",
    ),
    Shape(
        "gemini",
        "models.embed_content",
        lambda c, _: c.models.embed_content(model="gemini-embedding-001", contents=[SKY, "Hello!"]),
        (7, 0, 0, 0, 0),
        operation="embedding",
        has_id=False,
    ),
    Shape(
        "gemini",
        "models.count_tokens",
        lambda c, _: c.models.count_tokens(model="gemini-3.8-flash", contents=SKY),
        None,
    ),
    Shape("groq", "chat.completions.create", lambda c, _: c.chat.completions.create(**LLAMA), THOUGHT),
    Shape(
        "groq", "create(stream=True)", lambda c, _: c.chat.completions.create(**LLAMA, stream=True), THOUGHT, "stream"
    ),
    Shape(
        "groq",
        "with create(stream=True)",
        lambda c, _: c.chat.completions.create(**LLAMA, stream=True),
        THOUGHT,
        "with",
    ),
    Shape(
        "groq",
        "with_raw_response.create",
        lambda c, _: c.chat.completions.with_raw_response.create(**LLAMA),
        THOUGHT,
        "raw",
    ),
    Shape(
        "groq",
        "with_streaming_response.create",
        lambda c, _: c.chat.completions.with_streaming_response.create(**LLAMA),
        THOUGHT,
        "raw with",
    ),
    Shape(
        "groq",
        "with_options(...).create",
        lambda c, _: c.with_options(timeout=9).chat.completions.create(**LLAMA),
        THOUGHT,
    ),
    Shape("mistral", "chat.complete", lambda c, suffix: _in_mistral(c, "complete", suffix), UNTOLD),
    Shape("mistral", "chat.stream", lambda c, suffix: _in_mistral(c, "stream", suffix), UNTOLD, "stream"),
    Shape("mistral", "with chat.stream", lambda c, suffix: _in_mistral(c, "stream", suffix), UNTOLD, "with"),
    Shape(
        "mistral",
        "embeddings.create",
        lambda c, suffix: getattr(c.embeddings, f"create{suffix}")(model="mistral-embed", inputs=[SKY]),
        (5, 0, 0, 0, 0),
        operation="embedding",
    ),
]


def _by_openai(client: str, body: Any, buckets: Buckets) -> list[Shape]:
    """The ways of asking another provider by OpenAI's SDK."""
    asking = {**body, "stream": True, "stream_options": {"include_usage": True}}
    return [
        Shape(client, "chat.completions.create", lambda c, _: c.chat.completions.create(**body), buckets),
        Shape(
            client,
            "create(stream=True)",
            lambda c, _: c.chat.completions.create(**body, stream=True),
            buckets,
            "stream",
        ),
        Shape(
            client,
            "create(stream=True, include_usage)",
            lambda c, _: c.chat.completions.create(**asking),
            buckets,
            "stream",
        ),
    ]


SHAPES += _by_openai("openrouter", ROUTED, THOUGHT)
SHAPES += _by_openai("groq by openai", LLAMA, THOUGHT)
SHAPES += _by_openai("mistral by openai", MAGISTRAL, UNTOLD)


async def used_up(result: Any, how: How) -> Any:
    """All that a call gives."""
    async with AsyncExitStack() as stack:
        result = await _awaited(result)
        if how in {"with", "raw with"}:
            is_sync = hasattr(result, "__enter__")
            result = stack.enter_context(result) if is_sync else await stack.enter_async_context(result)
        if how in {"raw", "raw with"}:
            result = await _awaited(result.parse())
        if hasattr(result, "__aiter__"):
            return [item async for item in result]
        return list(result) if hasattr(result, "__next__") else result


async def _awaited(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


async def closed(client: Any) -> None:
    """Close a client, whichever it is."""
    if isinstance(client, Mistral):
        ends: Any = client
        await ends.__aexit__(None, None, None)
        ends.__exit__(None, None, None)
        return
    if isinstance(client, genai.Client):
        await client.aio.aclose()
    await _awaited(client.close())


_OF_THE_MOMENT = {"id", "created", "created_at", "completed_at", "item_id", "call_id", "response_id", "request_id"}
_OF_THE_MOMENT |= {"sdk_http_response", "tool_call_id"}


def shown(value: Any) -> Any:
    """What a caller sees of a result: types and what was set, without ids and times."""
    if isinstance(value, list):
        return [shown(item) for item in value]
    if isinstance(value, dict):
        return {key: shown(item) for key, item in value.items() if key not in _OF_THE_MOMENT}
    if isinstance(value, BaseModel):
        return type(value), shown(value.model_dump(exclude_unset=True, warnings=False))
    return value
