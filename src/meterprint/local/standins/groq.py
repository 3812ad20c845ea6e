"""Groq: OpenAI's shape, with the usage of a stream in `x_groq`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from starlette.routing import BaseRoute

from .answer import Answer
from .openai import DONE, Completion, OpenAI, deltas, finish_reason, streamed, totals, wants_usage
from .prompt import Counts, thought
from .serving import Call, RefusedError, data

_SECONDS = 0.001  # of a token


class Groq(OpenAI):
    """Groq."""

    name = "groq"
    prefix = "/openai/v1"
    models: ClassVar[Sequence[str]] = ("llama-3.3-70b-versatile", "openai/gpt-oss-120b")

    def routes(self) -> list[BaseRoute]:
        """Its endpoints."""
        return self.shared_routes()

    def error(self, refused: RefusedError, request_id: str) -> dict[str, Any]:
        """A refusal in Groq's shape."""
        kind, code = {
            401: ("invalid_request_error", "invalid_api_key"),
            429: ("requests", "rate_limit_exceeded"),
        }.get(refused.status, ("invalid_request_error" if refused.status < 500 else "internal_server_error", None))
        return {"error": {"message": refused.message, "type": kind} | ({"code": code} if code else {})}

    def usage(self, counts: Counts) -> dict[str, Any]:
        """The usage of a completion: details only of what there is."""
        spent = {"prompt_time": counts.prompt * _SECONDS, "completion_time": counts.completion * _SECONDS}
        usage = {"queue_time": 0.0, **totals(counts), **spent, "total_time": sum(spent.values())}
        if counts.cached:
            usage["prompt_tokens_details"] = {"cached_tokens": counts.cached}
        if counts.reasoning:
            usage["completion_tokens_details"] = {"reasoning_tokens": counts.reasoning}
        return usage

    def message(self, said: Answer, thinking: int) -> dict[str, Any]:
        """The message of a choice, with what was thought."""
        message = super().message(said, thinking)
        kept = {key: message[key] for key in ("role", "content", "tool_calls") if key in message}
        return kept | ({"reasoning": thought(thinking)} if thinking else {})

    def whole_answer(self, call: Call, done: Completion) -> dict[str, Any]:
        """A completion in one piece."""
        return super().whole_answer(call, done) | {"x_groq": {"id": _id()}, "service_tier": "on_demand"}

    def events(self, call: Call, done: Completion) -> Iterator[bytes]:
        """A completion as a stream."""
        mine: dict[str, Any] = {"id": _id()}
        *chunks, last = self._chunks(done)
        first, *others = chunks
        yield data(first | {"x_groq": mine})
        yield from map(data, others)
        yield data(last | {"x_groq": call.with_usage(mine, self.usage(done.counts))})
        usage = call.with_usage(done.chunk([]), self.usage(done.counts))
        if wants_usage(call) and "usage" in usage:
            yield data(usage)
        yield DONE

    def _chunks(self, done: Completion) -> Iterator[dict[str, Any]]:
        for index, said in enumerate(done.answers):
            for delta in _thinking_deltas(said, done.thinking):
                yield done.chunk([streamed(index, delta)])
            yield done.chunk([streamed(index, {}, finish_reason(said))])


def _id() -> str:
    return f"req_{uuid.uuid4().hex[:26]}"


def _thinking_deltas(said: Answer, thinking: int) -> Iterator[dict[str, Any]]:
    begun, *others = deltas(said)
    begun.pop("refusal", None)
    yield begun
    if thinking:
        yield {"reasoning": thought(thinking)}
    yield from others
