"""LiteLLM's callback: `litellm.callbacks = [LiteLLMCallback(meter)]`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from .callers import Callers
from .wrap import LLMMeter

_Base: Any = import_module("litellm.integrations.custom_logger").CustomLogger

# Their streams bring the usage without being asked; of others, LiteLLM counts the tokens itself.
_STREAM_USAGE = ("anthropic", "bedrock", "cohere", "gemini", "groq", "mistral", "vertex_ai")
_NAMES = {"vertex_ai": "gemini"}
_OPERATIONS = {"embedding": "embedding", "image": "image", "transcription": "audio", "responses": "responses"}


class LiteLLMCallback(_Base):  # type: ignore[misc]  # checked alike with and without the framework
    """Records one `llm.usage` event for each answer that LiteLLM brings; what its cache answers is not billed.

    A stream is marked `estimated` where the provider was not asked for its usage, as LiteLLM does not where OpenAI's
    shape is spoken elsewhere: pass `stream_options={"include_usage": True}`.

    Args:
        meter: The meter. Its customer is asked for when a call begins, in the context of the caller.
    """

    def __init__(self, meter: LLMMeter) -> None:
        super().__init__()
        self._callers = Callers(meter)

    def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:
        """Remember who calls."""
        self._callers.begin(kwargs.get("litellm_call_id"))

    def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Record an answer."""
        self._record(kwargs, response_obj)

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Record an answer."""
        self._record(kwargs, response_obj)

    def log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Forget a call that failed."""
        self._callers.forget(kwargs.get("litellm_call_id"))

    async def async_log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Forget a call that failed."""
        self._callers.forget(kwargs.get("litellm_call_id"))

    def _record(self, kwargs: Mapping[str, Any], response: Any) -> None:
        call = kwargs.get("litellm_call_id")
        if kwargs.get("cache_hit"):
            self._callers.forget(call)
            return
        provider = str(kwargs.get("custom_llm_provider") or "")
        answer = {
            "id": getattr(response, "id", None) or call,
            "model": getattr(response, "model", None) or kwargs.get("model"),
            "usage": getattr(response, "usage", None),
        }
        name = type(response).__name__.lower()
        self._callers.end(
            call,
            answer,
            provider=_NAMES.get(provider, provider),
            operation=next((operation for part, operation in _OPERATIONS.items() if part in name), "chat"),
            is_whole=_is_counted(kwargs, provider),
        )


def _is_counted(kwargs: Mapping[str, Any], provider: str) -> bool:
    """Whether the provider itself counted the tokens."""
    if not kwargs.get("stream") or provider in _STREAM_USAGE:
        return True
    options = (kwargs.get("optional_params") or {}).get("stream_options") or kwargs.get("stream_options")
    if options:
        return bool(options.get("include_usage"))
    address = str((kwargs.get("litellm_params") or {}).get("api_base") or "")
    return provider == "openai" and (not address or "openai.com" in address)  # there, LiteLLM asks of itself
