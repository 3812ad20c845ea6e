"""What an answer used, from any provider's object or JSON."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from ...errors import Problem, ValidationError
from ...event import MAX_VALUE_LENGTH, Event, MetadataValue, shown
from .counters import Buckets, buckets_of, is_google

logger = logging.getLogger("meterprint")

UNKNOWN = "unknown"

# What is looked for on an answer; each name is also tried in camelCase.
_FIELDS = (
    "id",
    "response_id",
    "model",
    "model_version",
    "object",
    "type",
    "usage",
    "usage_metadata",
    "x_groq",
    "response",
    "interaction",
    "message",
    "meta",
)
_INSIDE = ("response", "interaction", "message")  # what an event of a stream carries
_PACKAGES = {"mistralai": "mistral", "google": "gemini"}
_OPERATIONS = {"response": "responses", "list": "embedding", "text_completion": "completion"}
_KINDS = {"embed": "embedding", "image": "image", "transcription": "audio"}
_COUNTERS = re.compile("(input|prompt|output|completion|total)_?[tT]okens?|prompt_?[tT]oken_?[cC]ount")

# Ollama draws the number from a thousand: such an id comes back, and names no answer.
_NO_ID = re.compile(r"(chat)?cmpl-\d{1,3}")


@dataclass(frozen=True, slots=True)
class Usage:
    """What one answer used: five numbers of tokens that never overlap.

    Attributes:
        provider: Who answered.
        model: The model, as the answer names it.
        operation: chat, responses, completion, embedding, image or audio.
        response_id: The provider's id of the answer; empty if it has none.
        input_tokens: Input that was neither read from a cache nor written to one.
        cached_input_tokens: Input that was read from a cache.
        cache_write_tokens: Input that was written to a cache.
        output_tokens: Output without the reasoning.
        reasoning_tokens: What the model thought before it answered.
        estimated: Whether some of the numbers are an estimate, not the provider's count.
    """

    provider: str
    model: str
    operation: str = "chat"
    response_id: str = ""
    input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False

    @property
    def total_tokens(self) -> int:
        """The sum of the five."""
        return (
            self.input_tokens
            + self.cached_input_tokens
            + self.cache_write_tokens
            + self.output_tokens
            + self.reasoning_tokens
        )

    def event_id(self) -> str:
        """The idempotency key: the same for the same answer; a new one if the answer has no id."""
        if not self.response_id or _NO_ID.fullmatch(self.response_id):
            return Event.new_id()
        return Event.id_for(self.provider, self.response_id)

    def metadata(self) -> dict[str, MetadataValue]:
        """The metadata of its `llm.usage` event."""
        return {
            "provider": self.provider,
            "model": self.model,
            "operation": self.operation,
            "input_tokens": self.input_tokens,
            "cached_input_tokens": self.cached_input_tokens,
            "cache_write_tokens": self.cache_write_tokens,
            "output_tokens": self.output_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "total_tokens": self.total_tokens,
            "estimated": self.estimated,
        }


def usage_of(response: object, *, provider: str = "") -> Usage:
    """What an answer used, for those who track by hand.

    Numbers that are missing, negative or no numbers count as 0; then, and where there is no usage at all, a warning
    with the answer's id is logged, and the usage is marked `estimated`.

    Args:
        response: The answer: an object of a provider's SDK; its JSON as text, bytes or a mapping; its usage alone; or
            the event of a stream that has the usage.
        provider: Who answered, where the answer does not say so: what speaks OpenAI's shape counts as "openai".

    Raises:
        ValidationError: It is no answer of a provider.
    """
    provider = provider or _package(response)
    usage, faults = read(fields_of(response), provider=provider, operation=_operation(response))
    warn(usage, faults)
    return usage


def warn(usage: Usage, faults: list[str]) -> None:
    """Log what was wrong with a usage, once for the answer."""
    if faults:
        reasons = "; ".join(faults)
        logger.warning(
            "%s response %s: %s: its event is marked estimated", usage.provider, usage.response_id or UNKNOWN, reasons
        )


def read(fields: Mapping[str, Any], *, provider: str = "", operation: str = "") -> tuple[Usage, list[str]]:
    """The usage in the fields of an answer, and what is wrong with it."""
    faults: list[str] = []
    outer, fields = fields, answer_in(fields)
    counters = counters_in(fields)
    if counters is None and outer is not fields:
        counters = counters_in(outer)
    provider = provider or _provider_of(fields, counters or {})
    model = _text(_first(fields, "model", "model_version")) or UNKNOWN
    buckets = Buckets()
    if counters is None:
        faults.append("it has no usage")
    else:
        buckets = buckets_of(counters, faults, hides_reasoning=provider == "gemini" or "gemini" in model)
    found = Usage(
        _text(provider),
        model,
        operation or _OPERATIONS.get(str(fields.get("object")), "chat"),
        _text(_first(fields, "id", "response_id")),
        *buckets,
        estimated=bool(faults),
    )
    return found, faults


def counters_in(fields: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The counters of an answer, or None if it has none."""
    if isinstance(usage := fields.get("usage"), dict):
        return usage
    if (found := _mapping(_first(fields, "usage", "usage_metadata"))) is not None:
        return found
    found = _mapping(_inside(fields, "x_groq", "usage"))
    return _mapping(_inside(fields, "meta", "billed_units")) if found is None else found


def fields_of(response: object) -> Mapping[str, Any]:
    """The fields of an answer that say what it used.

    Raises:
        ValidationError: It is no answer of a provider.
    """
    if isinstance(response, (str, bytes, bytearray)):
        response = _parsed(response)
    fields = response if isinstance(response, Mapping) else dict(_attributes(response))
    if not any(name in fields or _camel(name) in fields for name in _FIELDS):
        if counters := _bare_counters(response):
            return {"usage": counters}
        raise _no_answer(response)
    return fields


def _parsed(text: str | bytes | bytearray) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise _no_answer(text) from None


def _no_answer(response: object) -> ValidationError:
    hint = "give the object that the provider's SDK returned, or its JSON"
    return ValidationError([Problem("", f"{shown(response)} is no answer of a provider: {hint}")])


def _attributes(response: object) -> Iterator[tuple[str, Any]]:
    for name in _FIELDS:
        if (value := getattr(response, name, None)) is not None and not callable(value):
            yield name, value


def _bare_counters(response: object) -> Mapping[str, Any] | None:
    """What is a usage itself, without an answer around it."""
    counters = _mapping(response)
    return counters if counters and any(_COUNTERS.fullmatch(str(name)) for name in counters) else None


def answer_in(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The answer that an event of a stream carries, or what was given."""
    for name in _INSIDE:
        inner = fields.get(name)
        if inner is not None and not isinstance(inner, str):
            inner = inner if isinstance(inner, Mapping) else dict(_attributes(inner))
            if inner.get("id") is not None:
                return inner
    return fields


def _mapping(value: object) -> Mapping[str, Any] | None:
    if isinstance(value, (dict, Mapping)):
        return value
    if value is None or isinstance(value, (str, bytes, int, float, list, tuple)):
        return None
    dump: Any = getattr(value, "model_dump", None)
    counters: Any = dump(warnings=False) if callable(dump) else getattr(value, "__dict__", None)
    return counters if isinstance(counters, Mapping) else None


def _first(fields: Mapping[str, Any], *names: str) -> Any:
    for name in names:
        if (value := fields.get(name)) is not None or (value := fields.get(_camel(name))) is not None:
            return value
    return None


def _inside(fields: Mapping[str, Any], outer: str, inner: str) -> Any:
    found = fields.get(outer)
    return found.get(inner) if isinstance(found, Mapping) else getattr(found, inner, None)


@cache
def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.title, others))


def _provider_of(fields: Mapping[str, Any], counters: Mapping[str, Any]) -> str:
    if is_google(counters):
        return "gemini"
    if fields.get("type") == "message":
        return "anthropic"
    return "groq" if fields.get("x_groq") is not None else "openai"


def _package(response: object) -> str:
    """The provider whose SDK an object is from; empty if it is from none."""
    package = type(response).__module__.partition(".")[0]
    hidden = getattr(response, "_hidden_params", None)  # LiteLLM's
    if isinstance(hidden, Mapping) and hidden.get("custom_llm_provider"):
        return str(hidden["custom_llm_provider"])
    is_sdk = package in {"openai", "anthropic", "groq", "mistralai", "google"}
    return _PACKAGES.get(package, package) if is_sdk else ""


def _operation(response: object) -> str:
    """The operation by the name of an SDK's class, where that says it."""
    name = type(response).__name__.lower()
    return next((operation for part, operation in _KINDS.items() if part in name), "")


def _text(value: object) -> str:
    """A text that metadata may hold."""
    if not isinstance(value, str):
        return ""
    value = value[:MAX_VALUE_LENGTH]
    return value if value.isascii() else value.encode("utf-8", "replace").decode()
