"""The providers' SDKs with answers from memory, and what meters them, for benchmarks/llm.py."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import chain, count, repeat
from typing import Any, ClassVar, Protocol

from meterprint import AsyncMeteringClient, AsyncRecorder, MeteringClient, Recorder
from meterprint.blueprints.llm import LLMMeter

PROMPT = "All work and no play. " * 250  # 1,375 tokens
TALK: Any = [{"role": "system", "content": PROMPT}, {"role": "user", "content": "Why is the sky blue?"}]
CHAT: Any = {"model": "gpt-5.4-mini", "messages": TALK}
LLAMA: Any = {"model": "openai/gpt-oss-120b", "messages": TALK}
CLAUDE: Any = {"model": "claude-sonnet-5-5", "max_tokens": 1_000, "system": PROMPT, "messages": TALK[1:]}
FLASH: Any = {
    "model": "gemini-3.8-flash",
    "contents": TALK[1]["content"],
    "config": {"system_instruction": PROMPT},
}
_WORDS = {"X-Standin": "words=200"}  # of each answer: 1 kB
_ID = re.compile(rb'"(?:id|responseId)":\s*"([^"]{8,})"')


class Replay:
    """Answers each request as the stand-ins answered the first one like it, but at once, and with an id of its own.

    Args:
        package: httpx or httpx2, whichever the SDK uses.
        origin: The address of the stand-ins.
        chunks: How many chunks a stream has: those in its middle are one, over and over, and none is made ahead.
    """

    def __init__(self, package: str, origin: str, chunks: int) -> None:
        self._package: Any = import_module(package)
        self._origin = origin
        self._chunks = chunks
        self._numbers = count()
        self._answers: dict[tuple[str, bytes], tuple[str, bytes, bytes]] = {}

    def client(self) -> Any:
        """An HTTP client that asks it."""
        return self._package.Client(transport=self._package.MockTransport(self._answer))

    def async_client(self) -> Any:
        """The same for asyncio."""
        return self._package.AsyncClient(transport=self._package.MockTransport(self._async_answer))

    def _answer(self, request: Any) -> Any:
        headers, pieces = self._pieces(request)
        return self._package.Response(200, headers=headers, content=pieces)

    def _async_answer(self, request: Any) -> Any:
        headers, pieces = self._pieces(request)
        return self._package.Response(200, headers=headers, content=_later(pieces))

    def _pieces(self, request: Any) -> tuple[dict[str, str], Iterator[bytes]]:
        key = request.url.path, request.content
        kind, body, name = self._answers.get(key) or self._learn(key, request)
        new_name = b"%s%08d" % (name[:-8], next(self._numbers))
        if kind.startswith("text/event-stream"):
            return {"content-type": kind}, (event.replace(name, new_name) for event in self._stream(body))
        body = body.replace(name, new_name)
        return {"content-type": kind, "content-length": str(len(body))}, iter((body,))

    def _learn(self, key: tuple[str, bytes], request: Any) -> tuple[str, bytes, bytes]:
        """What the stand-ins answer: its type, its bytes, and the id in them."""
        kept = {name: value for name, value in request.headers.items() if name not in {"host", "accept-encoding"}}
        answer = self._package.request(request.method, self._origin + key[0], content=key[1], headers=kept)
        answer.raise_for_status()
        found = _ID.search(answer.content)
        assert found, "every answer has an id"
        self._answers[key] = answer.headers["content-type"], answer.content, found[1]
        return self._answers[key]

    def _stream(self, body: bytes) -> Iterator[bytes]:
        events = [event + b"\n\n" for event in body.split(b"\n\n") if event]
        middle = len(events) // 2
        begin, end = events[:middle], events[-3:]
        return chain(begin, repeat(events[middle], self._chunks - len(begin) - len(end)), end)


async def _later(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@dataclass(frozen=True)
class SDK:
    """A provider's SDK.

    Attributes:
        package: Its package, and the HTTP client's.
        kind: The class of the client.
        path: The base URL's, as the stand-ins have it.
    """

    package: tuple[str, str]
    kind: str
    path: str

    def client(self, origin: str, chunks: int) -> Any:
        """A client whose answers come from memory."""
        package, http = self.package
        replay = Replay(http, origin, chunks)
        url = f"http://memory{self.path}"
        module: Any = import_module(package)
        if package == "google.genai":
            options = module.types.HttpOptions(base_url=url, httpx_client=replay.client(), headers=_WORDS)
            return module.Client(api_key="k", http_options=options)
        connections = replay.async_client() if self.kind.startswith("Async") else replay.client()
        return getattr(module, self.kind)(
            api_key="k", base_url=url, http_client=connections, default_headers=_WORDS, max_retries=0
        )


OPENAI = SDK(("openai", "httpx2"), "OpenAI", "/standins/openai/v1")
ASYNC_OPENAI = SDK(("openai", "httpx2"), "AsyncOpenAI", "/standins/openai/v1")
ANTHROPIC = SDK(("anthropic", "httpx2"), "Anthropic", "/standins/anthropic")
ASYNC_ANTHROPIC = SDK(("anthropic", "httpx2"), "AsyncAnthropic", "/standins/anthropic")
GEMINI = SDK(("google.genai", "httpx2"), "Client", "/standins/gemini")
GROQ = SDK(("groq", "httpx"), "Groq", "/standins/groq")


@dataclass(frozen=True)
class Case:
    """A way of asking a model.

    Attributes:
        sdk: The SDK.
        ask: Makes the call; what it gives is awaited if the SDK's client is asynchronous, and used up if it streams.
        peers: Which of METERS know it, beside ours.
    """

    sdk: SDK
    ask: Callable[[Any], Any]
    peers: tuple[str, ...] = ("lago",)

    @property
    def is_async(self) -> bool:
        """Whether its client is asynchronous."""
        return self.sdk.kind.startswith("Async")


CALLS = {
    "openai chat": Case(OPENAI, lambda client: client.chat.completions.create(**CHAT)),
    "openai chat, async": Case(ASYNC_OPENAI, lambda client: client.chat.completions.create(**CHAT)),
    "openai responses": Case(OPENAI, lambda client: client.responses.create(model="gpt-5.4", input=TALK)),
    "openai responses, async": Case(ASYNC_OPENAI, lambda client: client.responses.create(model="gpt-5.4", input=TALK)),
    "anthropic messages": Case(ANTHROPIC, lambda client: client.messages.create(**CLAUDE)),
    "anthropic messages, async": Case(ASYNC_ANTHROPIC, lambda client: client.messages.create(**CLAUDE)),
    "gemini generate_content": Case(GEMINI, lambda client: client.models.generate_content(**FLASH)),
    "groq chat": Case(GROQ, lambda client: client.chat.completions.create(**LLAMA), ()),
}
_ASKED = {"include_usage": True}
STREAMS = {
    "openai chat": Case(OPENAI, lambda client: client.chat.completions.create(**CHAT, stream=True)),
    "openai chat, usage asked for": Case(
        OPENAI, lambda client: client.chat.completions.create(**CHAT, stream=True, stream_options=_ASKED)
    ),
    "anthropic messages": Case(ANTHROPIC, lambda client: client.messages.create(**CLAUDE, stream=True)),
}
# The same as bytes, which pass without being made into objects: a long stream is then through in seconds.
BYTES = {
    "openai chat": Case(
        OPENAI, lambda client: client.chat.completions.with_streaming_response.create(**CHAT, stream=True)
    ),
    "anthropic messages": Case(
        ANTHROPIC, lambda client: client.messages.with_streaming_response.create(**CLAUDE, stream=True)
    ),
}


class Meter(Protocol):
    """What meters a client, with its defaults.

    Attributes:
        package: What it is called on PyPI.
    """

    package: ClassVar[str]

    def __init__(self, url: str, *, is_async: bool) -> None:
        """Make it, pointed at the sink."""

    def wrap(self, client: Any) -> Any:
        """The client, metered; it may be the same one."""

    async def flush(self) -> None:
        """Deliver what was recorded."""

    async def close(self) -> int:
        """Deliver the rest, and end; gives how many events were delivered, -1 if that is not known."""
        ...


class _Meterprint(Meter):
    package = "meterprint"

    def __init__(self, url: str, *, is_async: bool) -> None:
        self._recorder = (
            AsyncRecorder(AsyncMeteringClient(url, "bench")) if is_async else Recorder(MeteringClient(url, "bench"))
        )
        self._meter = LLMMeter(self._recorder, customer_id="cus_ada")

    def wrap(self, client: Any) -> Any:
        return self._meter.wrap(client)

    async def flush(self) -> None:
        done = self._recorder.flush()
        assert done if isinstance(done, bool) else await done, "the sink takes all"

    async def close(self) -> int:
        await self.flush()
        if isinstance(self._recorder, Recorder):
            self._recorder.close()
        else:
            await self._recorder.aclose()
        return self._recorder.stats.delivered


class _Lago(Meter):
    package = "lago-agent-sdk"

    def __init__(self, url: str, *, is_async: bool) -> None:
        lago: Any = import_module("lago_agent_sdk")
        self._sdk = lago.LagoSDK("benchmark", api_url=url + "/api/v1", default_subscription_id="cus_ada")

    def wrap(self, client: Any) -> Any:
        return self._sdk.wrap(client)

    async def flush(self) -> None:
        self._sdk.flush()

    async def close(self) -> int:
        self._sdk.shutdown()  # flushes
        return -1


METERS: dict[str, type[Meter]] = {"meterprint": _Meterprint, "lago": _Lago}
