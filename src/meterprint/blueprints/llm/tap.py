"""One call of a model: who pays, what is asked, and the event that its answer leaves."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from ...errors import MeterprintError
from ...event import MetadataValue
from ...recorder import AsyncRecorder, Recorder
from .answer import Answer, Request, StreamedAnswer, WholeAnswer
from .definition import USAGE
from .search import model_in, parsed
from .usage import UNKNOWN, Usage, warn

Customer: TypeAlias = str | Callable[[], str] | ContextVar[str]
Metadata: TypeAlias = Mapping[str, MetadataValue] | Callable[[], Mapping[str, MetadataValue]]

logger = logging.getLogger("meterprint")

_ADDRESSES = {
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral",
    "openrouter.ai": "openrouter",
    "api.together.xyz": "together",
    "api.together.ai": "together",
    "api.deepseek.com": "deepseek",
    "api.x.ai": "xai",
    "api.fireworks.ai": "fireworks",
    "api.cerebras.ai": "cerebras",
    "openai.azure.com": "azure",
    "generativelanguage.googleapis.com": "gemini",
}
_OPERATIONS = {
    "chat/completions": "chat",
    "agents/completions": "chat",
    "completions": "completion",
    "responses": "responses",
    "responses/compact": "responses",
    "interactions": "chat",
    "conversations": "chat",
    "messages": "chat",
    "embeddings": "embedding",
    "images/generations": "image",
    "images/edits": "image",
    "images/variations": "image",
    "audio/speech": "audio",
    "audio/transcriptions": "audio",
    "audio/translations": "audio",
    "generateContent": "chat",
    "streamGenerateContent": "chat",
    "rawPredict": "chat",
    "streamRawPredict": "chat",
    "embedContent": "embedding",
    "batchEmbedContents": "embedding",
}
_STREAMS_USAGE = ("groq", "mistral")  # without being asked
_LOOK = re.compile(r"/responses/[^/]+$")
_ASK = b'{"stream_options":{"include_usage":true},'


class Caller(NamedTuple):
    """Who made a call.

    Attributes:
        customer_id: Who pays; empty if that is not known.
        metadata: What its event has beside what is measured.
    """

    customer_id: str
    metadata: Mapping[str, MetadataValue]


class Tap:
    """Where the calls of one client are metered.

    Args:
        recorder: Takes the events.
        customer_id: Who pays: a value, or where it is when a call is made.
        metadata: What the events have beside what is measured.
        provider: Who answers; empty to tell by the address.
        sdk: Who answers at an address that is not known.
    """

    def __init__(
        self,
        recorder: Recorder | AsyncRecorder,
        customer_id: Customer,
        metadata: Metadata,
        provider: str = "",
        sdk: str = "",
    ) -> None:
        self._customer = customer_id
        self._metadata = metadata
        self._provider = provider
        self._sdk = sdk
        self.recorder = recorder
        self.may_ask = True  # for the usage of a stream, until the provider refuses that

    def begin(self, request: Any, *, is_stream: bool) -> Call | None:
        """A call that is to be made; None if it is none of a model."""
        try:
            path = request.url.path
            operation = _operation(request.method, path)
            if not operation:
                return None
            provider = self._provider or _provider_at(request.url.host) or self._sdk
            call = Call(self, request, provider, operation)
            if is_stream:
                call.prepare(path)
        except Exception:
            logger.exception("a call is not metered")
            return None
        return call

    def caller(self) -> Caller:
        """Who calls now."""
        return Caller(self._who(), self._extra())

    def _who(self) -> str:
        try:
            if isinstance(self._customer, str):
                return self._customer
            found = self._customer.get("") if isinstance(self._customer, ContextVar) else self._customer()
        except Exception:
            logger.exception("the customer of a call could not be told")
            return ""
        return found if isinstance(found, str) else ""

    def _extra(self) -> Mapping[str, MetadataValue]:
        if isinstance(self._metadata, (dict, Mapping)):  # of which the first costs less to tell
            return self._metadata
        try:
            return dict(self._metadata())
        except Exception:
            logger.exception("the metadata of a call could not be told")
            return {}

    def record(self, usage: Usage, customer_id: str, metadata: Mapping[str, MetadataValue]) -> None:
        """Record the event of an answer. Without a customer it becomes a dead letter, which can be mended."""
        if not customer_id:
            logger.warning(
                "%s response %s: no customer is known: its event is a dead letter",
                usage.provider,
                usage.response_id or UNKNOWN,
            )
        measured = {**metadata, **usage.metadata()}
        self.recorder.record(USAGE.name, customer_id=customer_id, metadata=measured, event_id=usage.event_id())


class Call:
    """A call from its request to its event.

    Attributes:
        request: What is sent.
        original: What the caller gave.
        asks_usage: Whether the usage of a stream is asked for, which the caller did not.
    """

    __slots__ = (
        "_caller",
        "_is_over",
        "_operation",
        "_provider",
        "_tap",
        "asks_usage",
        "original",
        "request",
    )

    def __init__(self, tap: Tap, request: Any, provider: str, operation: str) -> None:
        self.request = self.original = request
        self.asks_usage = False
        self._tap = tap
        self._provider = provider
        self._operation = operation
        self._caller = tap.caller()
        self._is_over = False

    def prepare(self, path: str) -> None:
        """See to it that a stream can be read, and has its usage."""
        headers = self.request.headers
        if path.endswith("/completions") and self._provider not in _STREAMS_USAGE and self._tap.may_ask:
            content = _asking(self.request.content)
            if content and not any(name.startswith("x-amz-") for name in headers):  # a signed body stays as it is
                self.request = _with_content(self.request, content)
                self.asks_usage = True
                return
        accepted = headers.get("accept-encoding", "")
        if "br" in accepted or "zstd" in accepted:
            headers["accept-encoding"] = "gzip, deflate"

    @property
    def recorder(self) -> object:
        """What takes its event."""
        return self._tap.recorder

    def may_be_refused(self, status: int) -> bool:
        """Whether an answer may say that the provider does not know how to give the usage of a stream."""
        return self.asks_usage and status in {400, 422}

    def is_refused(self, content: bytes) -> bool:
        """Whether it says so; the provider is then not asked again."""
        is_it = b"stream_options" in content or b"include_usage" in content
        if is_it:
            self._tap.may_ask = self.asks_usage = False
        return is_it

    def answer(self, content_type: str) -> Answer:
        """What sees the answer."""
        if content_type.startswith("text/event-stream"):
            return StreamedAnswer(self._operation, hides_usage=self.asks_usage)
        return WholeAnswer()

    def leave(self) -> None:
        """Record nothing."""
        self._is_over = True

    def finish(self, answer: Answer, *, is_whole: bool) -> None:
        """Record the event, once."""
        if self._is_over:
            return
        self._is_over = True
        response_id = UNKNOWN
        try:
            is_look = self.original.method == "GET"
            request = Request(self._provider, self._operation, self._content, is_look)
            reading = answer.read(request, is_whole=is_whole)
            if not reading:
                return
            usage, faults = reading
            response_id = usage.response_id or response_id
            if usage.model == UNKNOWN:
                usage = replace(usage, model=model_in(self.original.url.path, self._content()))
            warn(usage, faults)
            self._tap.record(usage, *self._caller)
        except MeterprintError as error:
            logger.error(  # noqa: TRY400  # a closed recorder says all in its message, at every call
                "%s response %s was not metered: %s", self._provider, response_id, error
            )
        except Exception:
            logger.exception("%s response %s was not metered", self._provider, response_id)

    def _content(self) -> bytes:
        try:
            content: bytes = self.original.content
        except Exception:  # noqa: BLE001  # httpx and httpx2 have each their own, for a body that is a stream
            return b""
        return content


@lru_cache(1024)
def _operation(method: str, path: str) -> str:
    """What a request asks of a model; empty if it asks nothing."""
    if method == "GET":
        return "responses" if _LOOK.search(path) else ""
    *_, last_but_one, last = f"//{path.replace(':', '/')}".split("/")
    is_message_of_thread = last == "messages" and "/threads/" in path
    if method != "POST" or is_message_of_thread:
        return ""
    return _OPERATIONS.get(f"{last_but_one}/{last}") or _OPERATIONS.get(last, "")


@lru_cache(1024)
def _provider_at(host: str) -> str:
    """Who answers at an address; empty if that is not known."""
    return next((name for end, name in _ADDRESSES.items() if host == end or host.endswith(f".{end}")), "")


def _asking(content: bytes) -> bytes:
    """The body of a request for a stream so that it asks for the usage; empty if it does, or is for no stream."""
    body = parsed(content)
    options = body.get("stream_options") or {}
    if body.get("stream") is not True or not isinstance(options, Mapping) or options.get("include_usage") is True:
        return b""
    if "stream_options" not in body:
        return _ASK + content.lstrip()[1:]
    asking = {**body, "stream_options": {**options, "include_usage": True}}
    return json.dumps(asking, ensure_ascii=False, separators=(",", ":")).encode()


def _with_content(request: Any, content: bytes) -> Any:
    headers = request.headers.copy()
    headers["content-length"] = str(len(content))
    headers["accept-encoding"] = "identity"  # so that the usage can be taken out
    return type(request)(request.method, request.url, headers=headers, content=content, extensions=request.extensions)
