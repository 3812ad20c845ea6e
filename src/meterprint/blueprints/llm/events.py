"""Server-sent events, however their bytes are cut."""

from __future__ import annotations

import re

_END = re.compile(rb"\n\r?\n|\r\r")  # a blank line, which ends an event


class Events:
    """Puts the bytes of a stream together into events."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._seam = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that are complete now, each with the blank line that ends it."""
        if not self._parts and chunk.endswith(b"\n\n") and chunk.find(b"\n\n") == len(chunk) - 2 and b"\r" not in chunk:
            return [chunk]
        if not _END.search(self._seam + chunk):
            self._parts.append(chunk)
            self._seam = (self._seam + chunk)[-3:]
            return []
        *events, rest = _split(b"".join((*self._parts, chunk)))
        self._parts, self._seam = [rest] if rest else [], rest[-3:]
        return events

    def rest(self) -> bytes:
        """What is left without its end."""
        text, self._parts = b"".join(self._parts), []
        return text


def _split(text: bytes) -> list[bytes]:
    """The events in a text, and what follows them."""
    pieces, start = [], 0
    for end in _END.finditer(text):
        pieces.append(text[start : end.end()])
        start = end.end()
    return [*pieces, text[start:]]


def data_of(event: bytes) -> bytes:
    """The data of an event."""
    if event.startswith(b"data: {") and event.count(b"\n") == 2:
        return event[6:].rstrip()
    lines = (line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:"))
    return b"\n".join(lines)
