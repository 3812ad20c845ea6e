"""What a stand-in reads: the pieces of a prompt, their tokens, and what of them a cache holds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Speaker = Literal["system", "user", "assistant", "tool"]

_CHARACTERS = 4  # of a token
_ATTACHMENT = " " * 85 * _CHARACTERS
_CACHEABLE = 1024  # tokens; less is never cached
_BLOCK = 128  # tokens; without a mark, whole blocks are cached

_REASONING = re.compile(r"(^|/)(o\d|gpt-[5-9]|gpt-oss|gemini-(2\.5|[3-9])|magistral)|-r1|thinking|reasoning")
_WRITING = re.compile(r"(^|/)gpt-(5\.[6-9]|[6-9])")
_EFFORT = {"none": 0, "minimal": 16, "low": 32, "medium": 64, "high": 128, "xhigh": 256, "max": 512}
_SPEAKERS: Mapping[Any, Speaker] = {
    "system": "system",
    "developer": "system",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_THOUGHTS = ("thinking", "redacted_thinking", "reasoning")


def tokens(text: str) -> int:
    """The tokens of a text: a quarter of its characters, at least one."""
    return max(1, _tokens(len(text)))


def _tokens(characters: int) -> int:
    return -(-characters // _CHARACTERS)


def compact(value: Any) -> str:
    """JSON without white space."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Counts:
    """The tokens of a call, in buckets that never overlap.

    Attributes:
        input: Input that was neither read from the cache nor written to it.
        cached: Input that was read from the cache.
        written: Input that was written to the cache.
        output: What the caller sees.
        reasoning: Output that the caller does not see.
        tool_input: What server tools fed into the model.
    """

    input: int
    cached: int
    written: int
    output: int
    reasoning: int
    tool_input: int = 0

    @property
    def prompt(self) -> int:
        """All input but that of server tools."""
        return self.input + self.cached + self.written

    @property
    def completion(self) -> int:
        """All output."""
        return self.output + self.reasoning


@dataclass(frozen=True, slots=True)
class Cached:
    """How much of a prompt the cache held, and how much it holds from now on, in tokens."""

    read: int = 0
    written: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a prompt.

    Attributes:
        text: What the model reads.
        speaker: Whose it is.
        mark: How long the prompt up to here is to be cached, if that was asked for.
    """

    text: str
    speaker: Speaker
    mark: str = ""


class Prompt:
    """All that a model reads, in order.

    Args:
        pieces: Its parts: tools, then system, then messages.
        marks_end: How long the whole of it is to be cached, if that was asked for.
    """

    def __init__(self, pieces: Iterable[Piece], *, marks_end: str = "") -> None:
        self._pieces = list(pieces)
        if marks_end and self._pieces:
            last = self._pieces[-1]
            self._pieces[-1] = Piece(last.text, last.speaker, marks_end)
        self._repeated = self._end_of_repeated()

    @property
    def tokens(self) -> int:
        """Its tokens, at least one."""
        return max(1, self._size(len(self._pieces)))

    @property
    def question(self) -> str:
        """The last text of a user that is not blank."""
        return next((p.text for p in reversed(self._pieces) if p.speaker == "user" and p.text.strip()), "")

    @property
    def result(self) -> str | None:
        """What the tools said since the last turn of the assistant, or None."""
        found: str | None = None
        for piece in self._pieces:
            if piece.speaker == "assistant":
                found = None
            elif piece.speaker == "tool":
                found = piece.text
        return found

    @property
    def has_marks(self) -> bool:
        """Whether a part of it is to be cached by the caller's wish."""
        return any(piece.mark for piece in self._pieces)

    @property
    def last_mark(self) -> str:
        """How long the prompt up to the last mark is to be cached."""
        return next((piece.mark for piece in reversed(self._pieces) if piece.mark), "")

    def marked(self, *, warm: bool) -> Cached:
        """What is cached by the caller's marks."""
        held = self._up_to_mark(len(self._pieces))
        read = held if warm else self._up_to_mark(self._repeated)
        return Cached(read, held - read)

    def automatic(self, model: str, *, warm: bool) -> Cached:
        """What is cached without a mark."""
        whole = _blocks(self.tokens)
        read = whole if warm else _blocks(self._size(self._repeated))
        return Cached(read, whole - read if _WRITING.search(model) else 0)

    def cached(self, model: str, *, warm: bool) -> Cached:
        """What is cached by marks, if there are any, else without."""
        return self.marked(warm=warm) if self.has_marks else self.automatic(model, warm=warm)

    def counts(self, cached: Cached, *, output: int, reasoning: int, tool_input: int = 0) -> Counts:
        """The tokens of a call with this prompt."""
        fresh = self.tokens - cached.read - cached.written
        return Counts(fresh, cached.read, cached.written, output, reasoning, tool_input)

    def _size(self, end: int) -> int:
        return _tokens(sum(len(piece.text) for piece in self._pieces[:end]))

    def _up_to_mark(self, end: int) -> int:
        last = max((i + 1 for i, piece in enumerate(self._pieces[:end]) if piece.mark), default=0)
        size = self._size(last)
        return size if size >= _CACHEABLE else 0

    def _end_of_repeated(self) -> int:
        """The number of pieces before the last turn of the assistant that something follows."""
        speakers = [piece.speaker for piece in self._pieces]
        while speakers and speakers[-1] == "assistant":
            speakers.pop()
        while speakers and speakers[-1] != "assistant":
            speakers.pop()
        while speakers and speakers[-1] == "assistant":
            speakers.pop()
        return len(speakers)


def _blocks(size: int) -> int:
    return size // _BLOCK * _BLOCK if size >= _CACHEABLE else 0


def reasoning_tokens(effort: Any = None, budget: Any = None) -> int:
    """How many tokens a model thinks.

    Args:
        effort: The level that the request names, in any case of letters.
        budget: The upper bound that the request names; -1 is none.
    """
    size = _EFFORT.get(str(effort or "medium").lower(), _EFFORT["medium"])
    bound = whole(budget, -1)
    return size if bound < 0 else min(size, bound)


def is_reasoning(model: str) -> bool:
    """Whether a model thinks, by its name."""
    return bool(_REASONING.search(model))


def thought(size: int) -> str:
    """A thought of so many tokens."""
    return ("The stand-in thinks. " * size)[: size * _CHARACTERS]


def speaker_of(message: Mapping[str, Any]) -> Speaker:
    """Whose a message in OpenAI's shape is."""
    return _SPEAKERS.get(str(message.get("role")), "user")


def read_content(content: Any, speaker: Speaker) -> Iterator[Piece]:
    """The pieces of a message's content: a text, a part, or a list of parts."""
    if isinstance(content, str):
        yield Piece(content, speaker)
    elif isinstance(content, list):
        for part in content:
            yield from read_content(part, speaker)
    elif isinstance(content, dict):
        yield Piece(_text(content), speaker, mark_of(content))


def _text(part: dict[str, Any]) -> str:
    if part.get("type") in _THOUGHTS:
        return ""
    return next((part[key] for key in ("text", "refusal") if isinstance(part.get(key), str)), _ATTACHMENT)


def mark_of(part: Any) -> str:
    """How long the prompt up to this part is to be cached, if that was asked for."""
    for key, default in (("cache_control", "5m"), ("prompt_cache_breakpoint", "30m")):
        if isinstance(part, dict) and part.get(key):
            return str(mapping(part[key]).get("ttl") or default)
    return ""


def read_tools(tools: Any) -> Iterator[Piece]:
    """The pieces of a request's tools."""
    for tool in mappings(tools):
        body = {key: value for key, value in tool.items() if key != "cache_control"}
        yield Piece(compact(body), "system", mark_of(tool))


def mapping(value: Any) -> dict[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def mappings(value: Any) -> list[dict[str, Any]]:
    """The objects in a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def whole(value: Any, default: int) -> int:
    """The value if it is a whole number, else another."""
    return value if isinstance(value, int) and not isinstance(value, bool) else default
