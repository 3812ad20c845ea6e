"""OpenRouter: OpenAI's shape, with what a call costs."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from starlette.routing import BaseRoute

from .openai import DONE, Completion, OpenAI, deltas, finish_reason, streamed
from .prompt import Counts
from .serving import Call, RefusedError, data

_PRICE = (1, 2)  # of a prompt token and of a completion token, in millionths


class OpenRouter(OpenAI):
    """OpenRouter."""

    name = "openrouter"
    models: ClassVar[Sequence[str]] = ("openai/gpt-4o-mini", "anthropic/claude-sonnet-5-5", "deepseek/deepseek-r1")

    def routes(self) -> list[BaseRoute]:
        """Its endpoints."""
        return self.shared_routes()

    def error(self, refused: RefusedError, request_id: str) -> dict[str, Any]:
        """A refusal in OpenRouter's shape."""
        return {"error": {"message": refused.message, "code": refused.status}}

    def new_id(self) -> str:
        """The id of a completion."""
        return f"gen-{uuid.uuid4().hex}"

    def usage(self, counts: Counts) -> dict[str, Any]:
        """The usage of a completion, with its cost in credits."""
        cost = (counts.prompt * _PRICE[0] + counts.completion * _PRICE[1]) / 1_000_000
        details = {"upstream_inference_cost": None}
        return super().usage(counts) | {"cost": cost, "is_byok": False, "cost_details": details}

    def whole_answer(self, call: Call, done: Completion) -> dict[str, Any]:
        """A completion in one piece."""
        return super().whole_answer(call, done) | {"provider": "Stand-in"}

    def events(self, call: Call, done: Completion) -> Iterator[bytes]:
        """A completion as a stream: always with usage, in a last chunk that has a choice."""
        yield b": OPENROUTER PROCESSING\n\n"
        for index, said in enumerate(done.answers):
            for delta in deltas(said):
                yield data(done.chunk([_choice(index, delta)], provider="Stand-in"))
            yield data(done.chunk([_choice(index, {}, finish_reason(said))], provider="Stand-in"))
        last = done.chunk([_choice(0, {"role": "assistant", "content": ""})], provider="Stand-in")
        yield data(call.with_usage(last, self.usage(done.counts)))
        yield DONE


def _choice(index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return streamed(index, delta, finish) | {"native_finish_reason": finish}
