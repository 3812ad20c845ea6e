"""What a stand-in says: a text, JSON by a schema, or the call of a function; and the vectors of embeddings."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any, TypeAlias

from .prompt import Prompt, compact, mapping, tokens

Schema: TypeAlias = Mapping[str, Any]

_EXCERPT = 100  # characters
_MOST_PARTS = 10_000  # of an example
_WORD = re.compile(r"\S+\s*")
_FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "email": "ada@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The call of a function.

    Attributes:
        name: The function.
        arguments: What it is called with.
    """

    name: str
    arguments: dict[str, Any]

    @property
    def json(self) -> str:
        """The arguments as compact JSON."""
        return compact(self.arguments)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request asks of the answer.

    Attributes:
        functions: Those that may be called, by name, with the schemas of their arguments.
        schema: That of the JSON which the text is to be, if it is.
        limit: How many tokens of text are let through; 0 is no limit.
        words: How many words the text has; 0 leaves it as it is.
    """

    functions: Mapping[str, Schema] = field(default_factory=dict[str, Schema])
    schema: Schema | None = None
    limit: int = 0
    words: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says.

    Attributes:
        text: The text; empty if a function is called.
        call: The call of a function, or None.
        is_cut: Whether the limit ended the text.
    """

    text: str
    call: ToolCall | None = None
    is_cut: bool = False

    @property
    def tokens(self) -> int:
        """The tokens of the text, or of the call."""
        return tokens(self.call.name + self.call.json if self.call else self.text)

    @property
    def chunks(self) -> list[str]:
        """The text, word by word."""
        return words_of(self.text)


def words_of(text: str) -> list[str]:
    """A text in words, each with the white space after it."""
    return _WORD.findall(text)


def answer(prompt: Prompt, wish: Wish, choice: int = 0) -> Answer:
    """The answer to a prompt: the same for the same request.

    Args:
        prompt: What the model reads.
        wish: What the request asks of the answer.
        choice: Which of several answers it is, from 0.
    """
    if wish.functions and prompt.result is None:
        name, schema = next(iter(wish.functions.items()))
        return Answer("", ToolCall(name, mapping(example(schema))))
    text = json.dumps(example(wish.schema), ensure_ascii=False) if wish.schema is not None else _said(prompt, choice)
    if wish.words:
        text = " ".join(islice(cycle(text.split()), wish.words))
    limit = wish.limit * 4
    return Answer(text[:limit], is_cut=True) if 0 < limit < len(text) else Answer(text)


def _said(prompt: Prompt, choice: int) -> str:
    text = f"This is the stand-in's answer to: {_excerpt(prompt.question)}"
    if prompt.result is not None:
        text += f" The tool said: {_excerpt(prompt.result)}"
    return f"{text} ({choice + 1})" if choice else text


def _excerpt(text: str) -> str:
    return " ".join(text.split())[:_EXCERPT]


def chosen(functions: Mapping[str, Schema], *, only: Any = None, forbidden: bool = False) -> Mapping[str, Schema]:
    """The functions that may be called.

    Args:
        functions: Those of the request.
        only: The name of the one that is required.
        forbidden: Whether none may be.
    """
    if forbidden:
        return {}
    return {only: functions[only]} if isinstance(only, str) and only in functions else functions


def example(schema: Any) -> Any:
    """A value that a JSON schema allows, the same for the same schema."""
    return _Example(mapping(schema)).of(schema)


class _Example:
    """Makes one value. What leads back into itself is left out, or empty, where the schema allows it."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._left = _MOST_PARTS

    def of(self, schema: Any, path: frozenset[str] = frozenset()) -> Any:
        found = self._resolved(mapping(schema), path)
        self._left -= 1
        if found is None or self._left < 0:
            return None
        schema, path = found
        if given := [schema[key] for key in ("const", "default") if key in schema] or _list(schema.get("enum")):
            return given[0]
        match _type_of(schema):
            case "object":
                return self._object(schema, path)
            case "array":
                items = schema.get("items")
                return [] if self._leads_back(items, path) else [self.of(items, path)]
            case kind:
                return _simple(kind, schema)

    def _object(self, schema: Schema, path: frozenset[str]) -> dict[str, Any]:
        required = _list(schema.get("required"))
        return {
            name: self.of(inner, path)
            for name, inner in mapping(schema.get("properties")).items()
            if name in required or not self._leads_back(inner, path)
        }

    def _leads_back(self, schema: Any, path: frozenset[str]) -> bool:
        return self._resolved(mapping(schema), path) is None

    def _resolved(self, schema: Schema, path: frozenset[str]) -> tuple[Schema, frozenset[str]] | None:
        """The schema behind references and alternatives, with the references passed; None if it leads back."""
        reference = schema.get("$ref")
        if isinstance(reference, str):
            return None if reference in path else self._resolved(self._pointed(reference), path | {reference})
        if options := _list(schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")):
            return next(filter(None, (self._resolved(mapping(option), path) for option in options)), None)
        return schema, path

    def _pointed(self, reference: str) -> Schema:
        found: Any = self._root
        for name in reference.removeprefix("#").strip("/").split("/"):
            found = mapping(found).get(name)
        return mapping(found)


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _type_of(schema: Schema) -> str:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    return str(kind).lower()  # Gemini has them in capitals


def _simple(kind: str, schema: Schema) -> Any:
    if kind in {"integer", "number"}:
        least = schema.get("minimum", 1)
        return least if isinstance(least, (int, float)) else 1
    if kind == "string":
        return _FORMATS.get(str(schema.get("format")), "example")
    return {"boolean": True}.get(kind)


def vector(text: str, dimensions: int) -> list[float]:
    """The embedding of a text: of length 1, the same for the same text."""
    digest = hashlib.shake_256(text.encode("utf-8", "surrogatepass")).digest(dimensions)
    values = [byte - 127.5 for byte in digest]
    length = math.hypot(*values)
    return [value / length for value in values]
