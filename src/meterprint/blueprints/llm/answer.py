"""What is seen of an answer as its bytes pass: the newest usage and the ids, never the answer itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, TypeAlias

from .events import Events, data_of
from .search import HEAD, LARGE, TAIL, USAGE, asked_in, fields_in, parsed, said_in, tokens_of
from .usage import Usage, answer_in, counters_in, read

_NO_USAGE = b',"usage":null'  # what asking for the usage adds to every other event
_TO_COME = ("queued", "in_progress")
_ENDS = ("response.completed", "response.incomplete", "response.failed", "interaction.completed", "message_delta")


class Request(NamedTuple):
    """What is known of the request that was answered.

    Attributes:
        provider: Who answers.
        operation: What was asked for.
        content: Gives its body.
        is_look: Whether it only looks at an answer that was asked for before.
    """

    provider: str
    operation: str
    content: Callable[[], bytes] = bytes
    is_look: bool = False


Reading: TypeAlias = tuple[Usage, list[str]]


class Answer(Protocol):
    """An answer whose bytes pass."""

    def feed(self, chunk: bytes) -> bytes:
        """See a piece; gives what the caller is to see of it."""
        ...

    def rest(self) -> bytes:
        """What the caller is still to see at the end."""
        ...

    def read(self, request: Request, *, is_whole: bool) -> Reading | None:
        """What the answer used, as far as it was seen, and what was wrong with that; None if it is still to come.

        Args:
            request: What was answered.
            is_whole: Whether the answer came to its end.
        """
        ...


class WholeAnswer:
    """An answer as JSON, in one piece or in many."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> bytes:
        """See a piece; gives it back."""
        self._parts.append(chunk)
        self._size += len(chunk)
        if self._size > LARGE and len(self._parts) > 1:
            text = b"".join(self._parts)
            self._parts = [text[:HEAD], text[HEAD:][-TAIL:]]
            self._size = HEAD + TAIL
        return chunk

    def rest(self) -> bytes:
        """Nothing: every piece was given back."""
        return b""

    def read(self, request: Request, *, is_whole: bool) -> Reading | None:
        """What the answer used; if it does not say, by the length of what was asked and said."""
        body = b"".join(self._parts)
        fields = fields_in(body)
        has_usage = counters_in(fields) is not None
        if fields.get("status") in _TO_COME or (request.is_look and not (has_usage and fields.get("background"))):
            return None
        usage, faults = read(fields, provider=request.provider, operation=request.operation)
        if not has_usage:
            usage = _guessed(usage, request, said_in(body))
        return usage, faults if is_whole else []


class StreamedAnswer:
    """An answer as server-sent events.

    Args:
        operation: The operation.
        hides_usage: Whether the caller did not ask for the usage: its event is then taken out.
    """

    def __init__(self, operation: str, *, hides_usage: bool = False) -> None:
        self._events = Events()
        self._is_delta = operation == "responses"
        self._hides_usage = hides_usage
        self._first = self._last = self._first_usage = self._last_usage = b""
        self._is_done = False
        self._characters = 0

    def feed(self, chunk: bytes) -> bytes:
        """See a piece; gives what the caller is to see of it."""
        events = self._events.feed(chunk)
        if self._hides_usage:
            return self._without_usage(events[0]) if len(events) == 1 else b"".join(map(self._without_usage, events))
        for event in events:
            self._see(event)
        return chunk

    def rest(self) -> bytes:
        """What is left of an event that did not end."""
        rest = self._events.rest()
        self._see(rest)
        return rest if self._hides_usage else b""

    def _see(self, event: bytes) -> None:
        if b"{" not in event:
            self._is_done = self._is_done or b"[DONE]" in event
            return
        self._first, self._last = self._first or event, event
        if USAGE.search(event):
            self._first_usage, self._last_usage = self._first_usage or event, event
        self._characters += said_in(event, is_delta=self._is_delta)

    def _without_usage(self, event: bytes) -> bytes:
        self._see(event)
        if event is self._last_usage and not _fields(event).get("choices"):
            return b""
        return event.replace(_NO_USAGE, b"", 1)

    def read(self, request: Request, *, is_whole: bool) -> Reading | None:
        """What the answer used; if its end did not come, by the length of what was asked and received."""
        is_whole = is_whole or self._is_done
        first, latest, first_usage, last = map(_fields, (self._first, self._last, self._first_usage, self._last_usage))
        if request.is_look and not answer_in(last).get("background"):
            return None
        fields = _together((first, latest, first_usage, last))
        usage, faults = read(fields, provider=request.provider, operation=request.operation)
        if "usage" not in fields:
            return _guessed(usage, request, self._characters), faults if is_whole else []
        if _is_end(last, is_whole=is_whole):
            return usage, faults
        if last.get("type") == "message_start" or not usage.output_tokens + usage.reasoning_tokens:
            received = tokens_of(self._characters) - usage.reasoning_tokens
            usage = replace(usage, output_tokens=max(usage.output_tokens, received))
        return replace(usage, estimated=True), faults


def _fields(event: bytes) -> Mapping[str, Any]:
    return parsed(data_of(event))


def _guessed(usage: Usage, request: Request, characters: int) -> Usage:
    """A usage by the length of texts."""
    said, asked = tokens_of(characters), asked_in(request.content())
    return replace(usage, input_tokens=asked, output_tokens=said, estimated=True)


def _together(events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What events say of the answer: of each id and each counter, the last that is not null."""
    fields: dict[str, Any] = {}
    usage: dict[str, Any] | None = None
    for answer in map(answer_in, events):
        named = ((name, answer.get(name)) for name in ("id", "responseId", "model", "modelVersion"))
        fields |= {name: value for name, value in named if value}
        if (counters := counters_in(answer)) is not None:
            usage = (usage or {}) | {key: value for key, value in counters.items() if value is not None}
    return fields if usage is None else fields | {"usage": usage}


def _is_end(event: Mapping[str, Any], *, is_whole: bool) -> bool:
    """Whether the usage in an event is that of the whole answer."""
    if kind := event.get("type") or event.get("event_type"):
        return kind in _ENDS
    choices = event.get("choices", event.get("candidates"))
    if not isinstance(choices, list):
        return is_whole
    return is_whole or not choices or any(map(_is_finished, choices))


def _is_finished(choice: object) -> bool:
    return isinstance(choice, Mapping) and bool(choice.get("finish_reason") or choice.get("finishReason"))
