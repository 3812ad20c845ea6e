"""LangChain's callback: `ChatOpenAI(callbacks=[LangChainCallback(meter)])`, or in the config of any call."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from .callers import Callers
from .wrap import LLMMeter

_Base: Any = import_module("langchain_core.callbacks").BaseCallbackHandler

_NAMES = {"google_genai": "gemini", "google_vertexai": "gemini", "mistralai": "mistral", "azure_openai": "azure"}


class LangChainCallback(_Base):  # type: ignore[misc]  # checked alike with and without the framework
    """Records one `llm.usage` event for each answer of a model, within chains and agents too.

    A stream that is broken off is billed for what was received, and marked `estimated`. What LangChain's cache
    answers has the id of the first answer, and is billed once.

    Args:
        meter: The meter. Its customer is asked for when a model is called, in the context of the caller.
    """

    run_inline = True

    def __init__(self, meter: LLMMeter) -> None:
        super().__init__()
        self._callers = Callers(meter)

    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: Any, **kwargs: Any) -> None:
        """Remember who calls."""
        self._callers.begin(run_id, sum(len(str(message.content)) for some in messages for message in some))

    def on_llm_start(self, serialized: Any, prompts: Any, *, run_id: Any, **kwargs: Any) -> None:
        """Remember who calls."""
        self._callers.begin(run_id, sum(map(len, prompts)))

    def on_llm_end(self, response: Any, *, run_id: Any, **kwargs: Any) -> None:
        """Record an answer."""
        self._record(response, run_id, is_whole=True)

    def on_llm_error(self, error: BaseException, *, run_id: Any, **kwargs: Any) -> None:
        """Record what was received of an answer that failed."""
        received = kwargs.get("response")
        if received and any(generation.text for some in received.generations for generation in some):
            self._record(received, run_id, is_whole=False)
        else:
            self._callers.forget(run_id)

    def _record(self, response: Any, run_id: Any, *, is_whole: bool) -> None:
        for generations in response.generations:
            if generations:  # the choices of one answer, each with the usage of all
                answer, provider = _answer(generations[0], response.llm_output or {}, str(run_id))
                said = sum(len(generation.text) for generation in generations)
                self._callers.end(run_id, answer, provider=provider, said=said, is_whole=is_whole)


def _answer(generation: Any, output: Mapping[str, Any], run_id: str) -> tuple[dict[str, Any], str]:
    """An answer's id, model and usage, and who gave it."""
    message = getattr(generation, "message", None)
    told = {**output, **(getattr(message, "response_metadata", None) or {})}
    answer = {
        "id": told.get("id") or run_id,
        "model": told.get("model_name") or told.get("model"),
        "usage": getattr(message, "usage_metadata", None) or told.get("token_usage") or None,
    }
    provider = str(told.get("model_provider") or "")
    return answer, _NAMES.get(provider, provider)
