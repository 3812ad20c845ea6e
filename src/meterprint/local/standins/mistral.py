"""Mistral: OpenAI's shape, with the usage of a stream in the chunk that ends it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from starlette.routing import BaseRoute

from .openai import DONE, Completion, OpenAI, deltas, finish_reason, totals
from .prompt import Counts
from .serving import Call, RefusedError, data


class Mistral(OpenAI):
    """Mistral."""

    name = "mistral"
    dimensions = 1024
    embeds_with_id = True
    models: ClassVar[Sequence[str]] = ("mistral-small-latest", "magistral-medium-latest", "mistral-embed")

    def routes(self) -> list[BaseRoute]:
        """Its endpoints."""
        return self.shared_routes()

    def error(self, refused: RefusedError, request_id: str) -> dict[str, Any]:
        """A refusal in Mistral's shape."""
        kind = {401: "unauthorized", 429: "rate_limited"}.get(refused.status, "invalid_request_error")
        return {"object": "error", "message": refused.message, "type": kind, "param": None, "code": str(refused.status)}

    def new_id(self) -> str:
        """The id of a completion."""
        return uuid.uuid4().hex

    def usage(self, counts: Counts) -> dict[str, Any]:
        """The usage of a completion: it does not tell reasoning apart."""
        return totals(counts) | {"prompt_tokens_details": {"cached_tokens": counts.cached}}

    def events(self, call: Call, done: Completion) -> Iterator[bytes]:
        """A completion as a stream."""
        for index, said in enumerate(done.answers):
            for delta in deltas(said):
                yield data(done.chunk([{"index": index, "delta": delta, "finish_reason": None}]))
            ended = done.chunk([{"index": index, "delta": {"content": ""}, "finish_reason": finish_reason(said)}])
            is_last = index + 1 == len(done.answers)
            yield data(call.with_usage(ended, self.usage(done.counts)) if is_last else ended)
        yield DONE

    def card(self, model: str) -> dict[str, Any]:
        """What is said of a model."""
        return super().card(model) | {"type": "base", "capabilities": {"completion_chat": True}}
