"""Reading the counters of each provider into five buckets that never overlap."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from ...event import shown

# A name in snake_case, and what it counts; or the names inside of it.
_Names: TypeAlias = Mapping[str, "str | _Names"]

_MOST = 10**12  # tokens in one answer: more is no count
_CAPITAL = re.compile(r"(?<=[a-z0-9])[A-Z]")

_INPUT_DETAILS: _Names = {
    "cached_tokens": "cached",
    "cache_read_tokens": "cached",
    "cache_read": "cached",
    "cache_write_tokens": "written",
    "cache_creation_tokens": "written",
    "cache_creation": "written",
    "ephemeral_5m_input_tokens": "written for 5 minutes",  # LangChain has the sum of these two nowhere
    "ephemeral_1h_input_tokens": "written for an hour",
}
_OUTPUT_DETAILS: _Names = {
    "reasoning_tokens": "reasoning",
    "thinking_tokens": "reasoning",
    "reasoning": "reasoning",
}
_NAMES: _Names = {
    "prompt_tokens": "input",
    "input_tokens": "input",
    "tokens": "input",
    "completion_tokens": "output",
    "output_tokens": "output",
    "total_tokens": "total",
    "prompt_cache_hit_tokens": "cached",  # DeepSeek
    "cached_tokens": "cached",
    "cached_input_tokens": "cached",
    "cache_read_tokens": "cached",
    "cache_read_input_tokens": "cached",
    "cache_write_tokens": "written",
    "cache_write_input_tokens": "written",
    "cache_creation_input_tokens": "written",
    "reasoning_tokens": "reasoning",
    "prompt_tokens_details": _INPUT_DETAILS,
    "input_tokens_details": _INPUT_DETAILS,
    "input_token_details": _INPUT_DETAILS,
    "completion_tokens_details": _OUTPUT_DETAILS,
    "output_tokens_details": _OUTPUT_DETAILS,
    "output_token_details": _OUTPUT_DETAILS,
    "details": _OUTPUT_DETAILS,
}
_GOOGLE_NAMES: _Names = {
    "prompt_token_count": "input",
    "total_input_tokens": "input",
    "cached_content_token_count": "cached",
    "total_cached_tokens": "cached",
    "tool_use_prompt_token_count": "tools",
    "total_tool_use_tokens": "tools",
    "candidates_token_count": "output",
    "response_token_count": "output",
    "total_output_tokens": "output",
    "thoughts_token_count": "reasoning",
    "total_thought_tokens": "reasoning",
}
_GOOGLE = frozenset({"prompt_token_count", "total_input_tokens", "candidates_token_count", "total_output_tokens"})
_BESIDE_INPUT = frozenset({"cache_read_input_tokens", "cache_creation_input_tokens"})


class Buckets(NamedTuple):
    """Tokens of one answer; no token is in two of them."""

    input: int = 0
    cached: int = 0
    written: int = 0
    output: int = 0
    reasoning: int = 0


def buckets_of(usage: Mapping[str, Any], faults: list[str], *, hides_reasoning: bool = False) -> Buckets:
    """The buckets of what a provider reports as usage.

    Args:
        usage: What it reports, as a mapping.
        faults: Takes what is wrong with it.
        hides_reasoning: Whether a total above the sum of its parts says what the model thought.
    """
    usage = {_snake(key): value for key, value in usage.items() if isinstance(key, str)}
    if "billed_units" in usage and isinstance(billed := usage["billed_units"], Mapping):  # Cohere
        return _openai(billed, faults, hides_reasoning=False)
    if not _GOOGLE.isdisjoint(usage):
        return _google(usage, faults)
    if not _BESIDE_INPUT.isdisjoint(usage) and "prompt_tokens" not in usage:
        return _anthropic(usage, faults)
    if usage.get("type") == "duration":  # of audio: there are no tokens
        return Buckets()
    return _openai(usage, faults, hides_reasoning=hides_reasoning)


def is_google(usage: Mapping[str, Any]) -> bool:
    """Whether counters have the names that Google gives them."""
    return any(_snake(str(name)) in _GOOGLE for name in usage)


def _openai(usage: Mapping[str, Any], faults: list[str], *, hides_reasoning: bool) -> Buckets:
    """The input has what was read and written in it, and the output the reasoning."""
    counts = _counted(usage, _NAMES, faults)
    prompt, spoken, reasoning = counts.get("input", 0), counts.get("output", 0), counts.get("reasoning", 0)
    surplus = counts.get("total", 0) - prompt - spoken
    if surplus > 0 and (surplus == reasoning or (hides_reasoning and not reasoning)):
        spoken, reasoning = spoken + surplus, surplus  # xAI and Gemini count the reasoning beside the output
    written = counts.get("written for 5 minutes", 0) + counts.get("written for an hour", 0)
    written, rest = _within(prompt, max(written, counts.get("written", 0)), "input written to a cache", faults)
    cached, fresh = _within(rest, counts.get("cached", 0), "cached input", faults)
    reasoning, said = _within(spoken, reasoning, "reasoning", faults)
    return Buckets(fresh, cached, written, said, reasoning)


def _anthropic(usage: Mapping[str, Any], faults: list[str]) -> Buckets:
    """The input has neither what was read nor what was written in it; the output has the reasoning."""
    counts = _counted(usage, _NAMES, faults)
    reasoning, said = _within(counts.get("output", 0), counts.get("reasoning", 0), "reasoning", faults)
    return Buckets(counts.get("input", 0), counts.get("cached", 0), counts.get("written", 0), said, reasoning)


def _google(usage: Mapping[str, Any], faults: list[str]) -> Buckets:
    """The input has what was read in it, but not the results of tools; the output is without the reasoning."""
    counts = _counted(usage, _GOOGLE_NAMES, faults)
    cached, fresh = _within(counts.get("input", 0), counts.get("cached", 0), "cached input", faults)
    return Buckets(fresh + counts.get("tools", 0), cached, 0, counts.get("output", 0), counts.get("reasoning", 0))


def _counted(usage: Mapping[str, Any], names: _Names, faults: list[str]) -> dict[str, int]:
    """What is counted, by what it is. What details say goes before what stands beside them."""
    counts: dict[str, int] = {}
    details: dict[str, int] = {}
    for name, value in usage.items():
        kind = names.get(name)
        if isinstance(kind, str):
            if value is not None and kind not in counts:
                counts[kind] = _number(name, value, faults)
        elif kind is not None and isinstance(value, (dict, Mapping)):  # of which the first costs less to tell
            details |= _details(value, kind, f"{name}.", faults)
    if "input" not in counts:
        faults.append("usage has no count of the input")
    if "output" not in counts and names is _NAMES and _has_null(usage, "output"):
        faults.append("usage has no count of the output")
    return counts | details


def _has_null(usage: Mapping[str, Any], kind: str) -> bool:
    """Whether usage names a count, but does not have it. Embeddings do not even name the output."""
    return any(value is None and _NAMES.get(name) == kind for name, value in usage.items())


def _details(usage: Mapping[str, Any], names: _Names, path: str, faults: list[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for key, value in usage.items():
        name = _snake(str(key))
        kind = names.get(name)
        if isinstance(kind, str) and value is not None:
            counts[kind] = _number(path + name, value, faults)
    return counts


def _number(name: str, value: object, faults: list[str]) -> int:
    if type(value) is int and 0 <= value <= _MOST:
        return value
    number = _whole(value)
    if number is None or isinstance(value, str):
        faults.append(f"usage.{name} is {shown(value)}, not a count")
    return number or 0


def _whole(value: object) -> int | None:
    """A count of tokens, also as text or with a decimal point, or None."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(_MOST)):
        return int(value)
    if isinstance(value, float) and value.is_integer() and 0 <= value <= _MOST:
        return int(value)
    return None


def _within(whole: int, part: int, name: str, faults: list[str]) -> tuple[int, int]:
    """A part of a whole, not beyond it, and the rest."""
    if part > whole:
        faults.append(f"{part} tokens of {name} are more than the {whole} that they are part of")
    return min(part, whole), max(whole - part, 0)


@lru_cache(1024)
def _snake(name: str) -> str:
    """`promptTokenCount` as `prompt_token_count`."""
    return name if name.islower() else _CAPITAL.sub(lambda found: f"_{found[0].lower()}", name)
