"""Naive ways to count what a response used, to be compared with the right one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from .counters import is_google
from .definition import BUCKETS
from .usage import Usage

_INPUT = ("input_tokens", "cached_input_tokens", "cache_write_tokens")
_OUTPUT = ("output_tokens", "reasoning_tokens")
_REPORTED_INPUT = (
    "prompt_tokens",
    "input_tokens",
    "inputTokens",
    "promptTokenCount",
    "prompt_token_count",
    "total_input_tokens",
)
_REPORTED_OUTPUT = (
    "completion_tokens",
    "output_tokens",
    "outputTokens",
    "candidatesTokenCount",
    "candidates_token_count",
    "total_output_tokens",
)


class Way(NamedTuple):
    """A naive way to count.

    Attributes:
        key: Its name for machines.
        title: What is done.
        reason: Why that is wrong.
        buckets: The buckets whose tokens it is about.
    """

    key: str
    title: str
    reason: str
    buckets: tuple[str, ...]


REASONING_TWICE = Way(
    "reasoning_twice", "reasoning added to the output", "the output includes reasoning_tokens already", _OUTPUT
)
FULL_PRICE = Way(
    "full_price", "all input at the input price", "the prompt includes what caches read and stored", _INPUT[:1]
)
INPUT_ALONE = Way("input_alone", "input without the caches", "Anthropic counts these beside input_tokens", _INPUT)
OUTPUT_ALONE = Way("output_alone", "output without the reasoning", "Gemini and xAI count it beside the output", _OUTPUT)
PROMPT_ALONE = Way(
    "prompt_alone", "prompt without results of tools", "Gemini counts toolUsePromptTokenCount beside it", _INPUT
)
REPEATED = Way("repeated", "repeated lines counted again", "a response is billed once, if logged twice", BUCKETS)
WAYS = (REASONING_TWICE, FULL_PRICE, INPUT_ALONE, OUTPUT_ALONE, PROMPT_ALONE, REPEATED)


def tokens_in(usage: Usage, buckets: Iterable[str]) -> int:
    """The tokens in some buckets of a usage."""
    return sum(getattr(usage, name) for name in buckets)


def miscounts(usage: Usage, counters: Mapping[str, Any]) -> Iterator[tuple[Way, Usage]]:
    """Each naive way that counts a response wrong, and what it makes of it.

    Which way a provider reports shows in its numbers: those that include a bucket are as large as the sum with it.

    Args:
        usage: The right count.
        counters: What the provider reports.
    """
    yield from _of_output(usage, _reported(counters, _REPORTED_OUTPUT))
    prompt, whole = _reported(counters, _REPORTED_INPUT), tokens_in(usage, _INPUT)
    if is_google(counters) and prompt is not None and prompt < whole:
        yield PROMPT_ALONE, replace(usage, input_tokens=usage.input_tokens - (whole - prompt))
    if usage.input_tokens == whole:
        return
    without = replace(usage, cached_input_tokens=0, cache_write_tokens=0)
    if prompt == whole or is_google(counters):
        yield FULL_PRICE, replace(without, input_tokens=whole)
    elif prompt == usage.input_tokens:
        yield INPUT_ALONE, without


def _of_output(usage: Usage, spoken: int | None) -> Iterator[tuple[Way, Usage]]:
    whole = tokens_in(usage, _OUTPUT)
    if usage.output_tokens < whole == spoken:
        yield REASONING_TWICE, replace(usage, output_tokens=whole)
    elif usage.output_tokens < whole and spoken == usage.output_tokens:
        yield OUTPUT_ALONE, replace(usage, reasoning_tokens=0)


def _reported(counters: Mapping[str, Any], names: Iterable[str]) -> int | None:
    """The number under the first of these names that has one."""
    return next((counters[name] for name in names if type(counters.get(name)) is int), None)
