"""What the header X-Standin asks of a stand-in."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

HEADER = "X-Standin"

_KEPT = 1_000  # requests that are failing
_BAD: Mapping[str, Callable[[Any], Any]] = {
    "negative": lambda number: -number or -1,
    "null": lambda _: None,
    "string": str,
}


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What was asked for; the package's docstring has the words."""

    error: int = 0
    retry_after: float = 0.01
    after: int = 0
    cut: int = -1
    times: int = 0
    key: str = ""
    slow: int = 0
    words: int = 0
    warm: bool = False
    no_usage: bool = False
    bad_usage: str = ""
    gzip: bool = False

    @classmethod
    def parse(cls, header: str) -> Behaviour:
        """What a header asks for.

        Raises:
            ValueError: A word that is unknown, or whose value is wrong.
        """
        wishes: dict[str, Any] = {}
        for word in filter(None, map(str.strip, re.split("[;,]", header))):
            name, _, value = word.partition("=")
            wishes[name.strip()] = _value(name.strip(), value.strip())
        return cls(**wishes)

    @property
    def is_fault(self) -> bool:
        """Whether the request is not to go well."""
        return bool(self.error) or self.cut >= 0

    def usage(self, usage: Mapping[str, Any]) -> dict[str, Any] | None:
        """The usage as it is to be reported, or None if it is to be missing."""
        if self.no_usage:
            return None
        return _changed(usage, _BAD[self.bad_usage]) if self.bad_usage else dict(usage)


_KINDS: Mapping[str, str] = {field.name: str(field.type) for field in fields(Behaviour)}
_RANGES = {"error": (400, 599), "words": (1, 100_000), "slow": (1, 60_000)}
_DEFAULTS = {"slow": "50", "bad_usage": "negative"}


def _value(name: str, text: str) -> Any:
    kind = _KINDS.get(name)
    text = text or _DEFAULTS.get(name, "")
    if kind == "int" and text.isascii() and text.isdigit():
        return _in_range(name, int(text))
    if kind == "float" and re.fullmatch(r"\d{1,4}(\.\d+)?", text):
        return float(text)
    if kind == "bool" and not text:
        return True
    if (name == "key" and text) or (name == "bad_usage" and text in _BAD):
        return text
    known = ", ".join(_KINDS)
    raise ValueError(f"{HEADER}: {name}={text} is not understood: the words are {known}, such as error=429; times=2")


def _in_range(name: str, number: int) -> int:
    least, most = _RANGES.get(name, (0, 1_000_000))
    if not least <= number <= most:
        raise ValueError(f"{HEADER}: {name}={number} is not from {least} to {most}")
    return number


def _changed(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, Mapping):
        return {key: _changed(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [_changed(inner, change) for inner in value]
    return change(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


class Faults:
    """Counts how often a request has failed."""

    def __init__(self) -> None:
        self._failed: OrderedDict[str, int] = OrderedDict()

    def is_due(self, request: str, times: int) -> bool:
        """Whether this request fails: always, or so many times before one that goes well."""
        if not times:
            return True
        failed = self._failed.pop(request, 0)
        if failed >= times:
            return False
        self._failed[request] = failed + 1
        if len(self._failed) > _KEPT:
            self._failed.popitem(last=False)
        return True
