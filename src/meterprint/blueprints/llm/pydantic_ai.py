"""Pydantic AI's capability: `Agent("openai:gpt-5.4", capabilities=[PydanticAICapability(meter)])`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .callers import Callers
from .wrap import LLMMeter

_Base: Any = import_module("pydantic_ai.capabilities").AbstractCapability

_NAMES = {"google": "gemini", "google-gla": "gemini", "google-vertex": "gemini", "google-cloud": "gemini"}


class PydanticAICapability(_Base):  # type: ignore[misc]  # checked alike with and without the framework
    """Records one `llm.usage` event for each answer of a model in the runs of an agent: every step is billed.

    A stream that is broken off is not told of: to bill those too, give the agent's provider a client that
    `LLMMeter.wrap` returned, instead of this.

    Args:
        meter: The meter. Its customer is asked for in the context of the run.
    """

    def __init__(self, meter: LLMMeter) -> None:
        self._callers = Callers(meter)

    async def after_model_request(self, ctx: Any, *, request_context: Any, response: Any) -> Any:
        """Record an answer."""
        usage = None if getattr(response.usage, "unmeasured_requests", 0) else response.usage
        provider = str(response.provider_name or "")
        self._callers.end(
            None,
            {"id": response.provider_response_id, "model": response.model_name, "usage": usage},
            provider=_NAMES.get(provider, provider),
            said=sum(len(getattr(part, "content", None) or "") for part in response.parts),
        )
        return response
